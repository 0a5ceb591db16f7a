"""Tiles: the specification's paths and numbers, and every node of every small tree out of its tiles."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail.ledger import merkle
from prooftrail.ledger.tiles import InvalidTile, Tile, node_in_tile, tile_of_node, tiles_between
from tests.trees import Tree, numbered_leaves

TREE = Tree(numbered_leaves(70_000))


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0, 256), "tile/0/000"),
        (Tile(0, 5, 1), "tile/0/005.p/1"),
        (Tile(1, 999, 255), "tile/1/999.p/255"),
        (Tile(0, 1000, 256), "tile/0/x001/000"),
        (Tile(3, 1234067, 256), "tile/3/x001/x234/067"),
        (Tile(63, 0, 17), "tile/63/000.p/17"),
    ],
)
def test_a_path_is_as_the_specification_says(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert Tile.parse(path) == tile


@given(st.builds(Tile, st.integers(0, 63), st.integers(0, 10**18 - 1) | st.integers(0, 2000), st.integers(1, 256)))
def test_every_tile_is_found_again_by_its_path(tile: Tile) -> None:
    assert Tile.parse(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "", "tile", "tile/0", "/tile/0/000", "tile/0/000/", "tile/00/000", "tile/64/000", "tile/-1/000", "tile/0/0",
        "tile/0/0000", "tile/0/x000/000", "tile/0/001/000", "tile/0/x001", "tile/0/x1/000", "tile/0/000.p", "tile/0/000.p/",
        "tile/0/000.p/0", "tile/0/000.p/01", "tile/0/000.p/256", "tile/0/000.p/999", "tile/0/000.p/1/", "tile/0/000\n",
        "tile/0/00", "tile/0/\u0660\u0660\u0660", "tile/entries/000",
    ],
)  # fmt: skip
def test_every_other_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidTile, match="expected tile/<L>/<N>"):
        Tile.parse(path)


@pytest.mark.parametrize("groups", [6, 2000])
def test_a_number_that_no_log_reaches_is_refused(groups: int) -> None:
    with pytest.raises(InvalidTile, match="expected tile/<L>/<N>"):
        Tile.parse("tile/0/" + "x001/" * groups + "000")


@given(st.text(max_size=30) | st.from_regex(r"tile/[0-9]{1,3}/(x?[0-9]{2,4}/?){1,3}(\.p/[0-9]{0,3})?"))
def test_a_path_has_one_form_only(path: str) -> None:
    with contextlib.suppress(InvalidTile):
        assert Tile.parse(path).path == path


def test_the_tiles_of_a_log_of_70_000() -> None:
    assert Counter((tile.level, tile.width) for tile in tiles_between(0, 70_000)) == {
        (0, 256): 273,
        (0, 112): 1,
        (1, 256): 1,
        (1, 17): 1,
        (2, 1): 1,
    }


def test_the_tiles_of_a_log_of_256() -> None:
    assert tiles_between(0, 256) == [Tile(0, 0, 256), Tile(1, 0, 1)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (0, 0, []),
        (0, 1, [Tile(0, 0, 1)]),
        (5, 5, []),
        (5, 6, [Tile(0, 0, 6)]),
        (255, 257, [Tile(0, 0, 256), Tile(0, 1, 1), Tile(1, 0, 1)]),
        (257, 258, [Tile(0, 1, 2)]),
        (65_535, 65_536, [Tile(0, 255, 256), Tile(1, 0, 256), Tile(2, 0, 1)]),
    ],
)
def test_what_is_written_when_a_log_grows(old: int, new: int, expected: list[Tile]) -> None:
    assert tiles_between(old, new) == expected


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_a_log_that_grows_in_steps_has_every_tile_that_its_size_needs(steps: list[int]) -> None:
    size, written = 0, set[Tile]()
    for step in steps:
        grown = tiles_between(size, size + step)
        assert not written & set(grown)
        size, written = size + step, written | set(grown)
        assert set(tiles_between(0, size)) <= written


def reader(size: int) -> tuple[merkle.NodeReader, Callable[[], set[Tile]]]:
    """A node reader on the tiles of a log of that size alone, and what it has read."""
    tiles = {tile: TREE.tile(tile) for tile in tiles_between(0, size)}
    seen = set[Tile]()

    def node(level: int, index: int) -> bytes:
        tile = tile_of_node(level, index, size)
        seen.add(tile)
        return node_in_tile(tile, tiles[tile], level, index)

    return node, lambda: seen


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 513, 1000])
def test_every_node_of_a_log_is_in_its_tiles(size: int) -> None:
    node, _ = reader(size)
    for level in range(size.bit_length()):
        for index in range(size >> level):
            assert node(level, index) == TREE.node(level, index)


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 70_000])
def test_proofs_are_made_of_few_tiles(size: int) -> None:
    root = merkle.root_of(TREE.leaves[:size])
    for index in (0, 255, 256, size // 2, size - 1):
        node, seen = reader(size)
        proof = merkle.inclusion_proof(index, size, node)
        merkle.verify_inclusion(TREE.leaves[index], index, size, proof, root)
        assert len(seen()) <= 6
    for old in (1, 300, 65_000, size - 1):
        node, seen = reader(size)
        proof = merkle.consistency_proof(old, size, node)
        merkle.verify_consistency(old, merkle.root_of(TREE.leaves[:old]), size, root, proof)
        assert len(seen()) <= 6


@pytest.mark.parametrize(("level", "index", "size"), [(0, 5, 5), (1, 2, 5), (3, 0, 7), (-1, 0, 7), (0, -1, 7), (0, 0, 0)])
def test_no_tile_has_a_subtree_that_is_not_complete(level: int, index: int, size: int) -> None:
    with pytest.raises(InvalidTile, match=f"complete subtree of a log of {size} entries"):
        tile_of_node(level, index, size)


def test_a_tile_of_the_wrong_length_is_refused() -> None:
    tile = Tile(0, 0, 2)
    for length in (0, 32, 63, 65, 96):
        with pytest.raises(InvalidTile, match=rf"tile/0/000\.p/2: expected 2 hashes of 32 bytes, got {length} bytes"):
            node_in_tile(tile, bytes(length), 0, 0)


@pytest.mark.parametrize(("level", "index"), [(0, 7), (0, 3), (8, 0), (1, 3), (2, 1), (3, 0)])
def test_a_subtree_is_not_taken_from_another_tile(level: int, index: int) -> None:
    with pytest.raises(InvalidTile, match="expected a subtree within"):
        node_in_tile(Tile(0, 1, 3), bytes(96), level, index)

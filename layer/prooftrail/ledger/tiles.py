"""Tiles: the tree cut into files that never change once they are full (C2SP tlog-tiles).

A tile of level 0 holds 256 leaves; one of level L + 1 holds the roots of 256 full tiles of level L. So a tile stands for
eight levels of the tree, of which only the lowest is stored: what lies between is hashed anew. The last tile of each level
is partial until it is full, and has its width in its path.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from prooftrail.errors import PermanentError
from prooftrail.ledger import merkle

HEIGHT = 8  # levels of the tree in a tile
WIDTH = 2**HEIGHT  # hashes in a full tile
HIGHEST = 63  # level of a tile
# Six groups of three digits hold every tile of 2**63 leaves.
_PATH = re.compile(r"tile/(0|[1-9][0-9]?)/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class InvalidTile(PermanentError):
    """A path names no tile, or a tile does not hold what is asked of it."""


class Tile(NamedTuple):
    """A place among the tiles of a log: the first `width` hashes of the `number`-th tile of a level."""

    level: int
    number: int
    width: int

    @property
    def path(self) -> str:
        """The path below the log's prefix: ``tile/<L>/<N>[.p/<W>]``, N in groups of three digits, as in x001/x234/067."""
        groups = f"{self.number % 1000:03d}"
        rest = self.number // 1000
        while rest:
            groups = f"x{rest % 1000:03d}/{groups}"
            rest //= 1000
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{groups}{partial}"

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read a path. Raises `InvalidTile` for all but the one that `path` would give."""
        match = _PATH.fullmatch(path)
        if match:
            level, groups, width = match.groups()
            tile = cls(int(level), int(groups.replace("x", "").replace("/", "")), int(width or WIDTH))
            if tile.level <= HIGHEST and tile.width <= WIDTH and tile.path == path:
                return tile
        raise InvalidTile(f"expected tile/<L>/<N> or tile/<L>/<N>.p/<W> as in tile/0/x001/234.p/56, got {path[:80]!a}")


def tiles_between(old_size: int, new_size: int) -> list[Tile]:
    """Every tile to write when a log grows: those that became full, and the partial ones at its new end.

    From size 0, that is all tiles there are. Level by level, so that a tile comes after those it is made of.
    """
    found = []
    for level in range(HIGHEST + 1):
        old, new = old_size >> HEIGHT * level, new_size >> HEIGHT * level
        if old == new:
            break
        found += [Tile(level, number, WIDTH) for number in range(old // WIDTH, new // WIDTH)]
        if new % WIDTH:
            found.append(Tile(level, new // WIDTH, new % WIDTH))
    return found


def tile_of_node(level: int, index: int, size: int) -> Tile:
    """The tile of a log of `size` leaves from which the complete subtree at (level, index) can be read.

    With `node_in_tile` it makes a `merkle.NodeReader` of tiles. Raises `InvalidTile` where the log has no such subtree.
    """
    if level < 0 or index < 0 or (index + 1) << level > size:
        raise InvalidTile(f"expected a complete subtree of a log of {size} entries, got level {level}, index {index}")
    tile_level, number, _ = _place(level, index)
    return Tile(tile_level, number, min(WIDTH, (size >> HEIGHT * tile_level) - number * WIDTH))


def node_in_tile(tile: Tile, content: bytes, level: int, index: int) -> bytes:
    """The hash of the complete subtree at (level, index), from the content of its tile.

    Raises `InvalidTile` where the content is not as wide as the tile, or the subtree lies elsewhere.
    """
    if len(content) != tile.width * merkle.HASH:
        raise InvalidTile(f"{tile.path}: expected {tile.width} hashes of {merkle.HASH} bytes, got {len(content)} bytes")
    tile_level, number, first = _place(level, index)
    end = first + (1 << level % HEIGHT)
    if (tile_level, number) != tile[:2] or end > tile.width:
        raise InvalidTile(f"{tile.path}: expected a subtree within, got level {level}, index {index}")
    starts = range(first * merkle.HASH, end * merkle.HASH, merkle.HASH)
    return merkle.root_of(content[start : start + merkle.HASH] for start in starts)


def _place(level: int, index: int) -> tuple[int, int, int]:
    """The level and the number of a subtree's tile, and where in it the subtree begins."""
    first = index << level % HEIGHT
    return level // HEIGHT, first // WIDTH, first % WIDTH

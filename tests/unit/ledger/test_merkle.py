"""The Merkle tree: RFC 6962's own values, every proof of every small tree, and nothing that passes for a proof."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prooftrail.ledger import merkle
from prooftrail.ledger.merkle import (
    EMPTY_ROOT,
    Frontier,
    InvalidFrontier,
    InvalidProof,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.trees import Tree, mth, numbered_leaves

LARGEST = 300
TREE = Tree(numbered_leaves(LARGEST))
ROOTS = [mth(TREE.leaves[:size]) for size in range(LARGEST + 1)]
# The leaves of Certificate Transparency's own tests, and their roots.
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_the_roots_of_certificate_transparency(size: int) -> None:
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES[:size]]
    assert root_of(leaves).hex() == mth(leaves).hex() == CT_ROOTS[size]


def test_a_frontier_has_the_root_of_its_leaves_at_every_size() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    for size, leaf in enumerate(TREE.leaves, start=1):
        frontier.append(leaf)
        assert frontier.size == size
        assert frontier.root() == ROOTS[size] == root_of(TREE.leaves[:size])
        # One hash for each 1 of the size, largest subtree first.
        assert [len(hash) for hash in frontier.hashes] == [32] * size.bit_count()
        assert frontier.hashes[0] == mth(TREE.leaves[: 1 << size.bit_length() - 1])


@given(st.lists(st.integers(0, 70), max_size=6))
def test_a_frontier_grows_by_any_number_of_leaves_and_survives_being_stored(steps: list[int]) -> None:
    frontier = Frontier()
    for step in steps:
        frontier.extend(iter(TREE.leaves[frontier.size : frontier.size + step]))
        frontier = Frontier.from_bytes(frontier.size, frontier.to_bytes())
        assert frontier.root() == ROOTS[frontier.size]
    assert frontier.size == min(sum(steps), LARGEST)


@pytest.mark.parametrize(("size", "length"), [(0, 32), (1, 0), (1, 31), (1, 64), (3, 32), (255, 32)])
def test_a_frontier_of_the_wrong_length_is_refused(size: int, length: int) -> None:
    expected = f"expected {32 * size.bit_count()} bytes of frontier at size {size}, got {length}"
    with pytest.raises(InvalidFrontier, match=expected):
        Frontier.from_bytes(size, bytes(length))


def test_every_leaf_of_every_size_is_proved() -> None:
    for size in range(1, LARGEST + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, TREE.node)
            verify_inclusion(TREE.leaves[index], index, size, proof, ROOTS[size])
            if size <= 40:
                assert proof == path(index, TREE.leaves[:size])


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962 2.1.1, word for word."""
    n = len(leaves)
    if n == 1:
        return []
    k = 1 << (n - 1).bit_length() - 1
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: list[bytes], known: bool) -> list[bytes]:
    """RFC 6962 2.1.2, word for word."""
    n = len(leaves)
    if m == n:
        return [] if known else [mth(leaves)]
    k = 1 << (n - 1).bit_length() - 1
    if m <= k:
        return [*subproof(m, leaves[:k], known), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], False), mth(leaves[:k])]


def test_every_pair_of_sizes_is_proved_consistent() -> None:
    for new in range(LARGEST + 1):
        for old in range(new + 1):
            proof = consistency_proof(old, new, TREE.node)
            verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)
            if old > 0 and new <= 40:
                assert proof == subproof(old, TREE.leaves[:new], known=True)


def spoiled(proof: list[bytes]) -> Iterator[list[bytes]]:
    """The proof with any one hash changed by a bit, left out, put in twice, cut, or a neighbour's."""
    for place, item in enumerate(proof):
        flipped = bytearray(item)
        flipped[place % 32] ^= 1 << place % 8
        yield [*proof[:place], bytes(flipped), *proof[place + 1 :]]
        yield proof[:place] + proof[place + 1 :]
        yield [*proof[:place], item, *proof[place:]]
        yield [*proof[:place], item[:-1], *proof[place + 1 :]]
        if place:
            yield [*proof[: place - 1], item, proof[place - 1], *proof[place + 1 :]]
    yield [*proof, bytes(32)]
    yield [bytes(32), *proof]


def refuses_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> bool:
    try:
        verify_inclusion(leaf, index, size, proof, root)
    except InvalidProof:
        return True
    return False


def refuses_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> bool:
    try:
        verify_consistency(old, old_root, new, new_root, proof)
    except InvalidProof:
        return True
    return False


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 65, 257, 300])
def test_every_spoiled_inclusion_proof_is_refused(size: int) -> None:
    root = ROOTS[size]
    for index in {*range(min(size, 12)), size // 2, size - 1}:
        leaf, proof = TREE.leaves[index], inclusion_proof(index, size, TREE.node)
        assert not refuses_inclusion(leaf, index, size, proof, root)
        for wrong in spoiled(proof):
            assert refuses_inclusion(leaf, index, size, wrong, root)
        for other in {-1, index - 1, index + 1, size, size - 1 - index, index ^ 1} - {index}:
            assert refuses_inclusion(leaf, other, size, proof, root)
        assert refuses_inclusion(TREE.leaves[(index + 1) % LARGEST], index, size, proof, root)
        assert refuses_inclusion(leaf, index, size, proof, ROOTS[size - 1])
        assert refuses_inclusion(leaf[:-1], index, size, proof, root)
        assert refuses_inclusion(leaf, index, size, proof, root[:-1])


def test_a_wrong_size_is_refused_where_it_changes_what_the_proof_says() -> None:
    for size in range(1, 65):
        for index in range(size):
            leaf, proof = TREE.leaves[index], inclusion_proof(index, size, TREE.node)
            for other in {*range(70)} - {size}:
                if not refuses_inclusion(leaf, index, other, proof, ROOTS[size]):
                    # A proof fixes the size only as far as the leaf's path has the same form: then it says the same.
                    assert shape(index, other) == shape(index, size)


def shape(index: int, size: int) -> list[bool]:
    """From the leaf upwards: on which side of the path each sibling stands."""
    begin, end, sides = 0, size, []
    while end - begin > 1:
        middle = begin + (1 << (end - begin - 1).bit_length() - 1)
        sides.append(index < middle)
        begin, end = (begin, middle) if index < middle else (middle, end)
    return sides[::-1]


@pytest.mark.parametrize(
    ("old", "new"), [(1, 2), (2, 3), (3, 4), (4, 7), (6, 8), (7, 8), (8, 9), (63, 300), (128, 300), (255, 257)]
)
def test_every_spoiled_consistency_proof_is_refused(old: int, new: int) -> None:
    proof = consistency_proof(old, new, TREE.node)
    assert not refuses_consistency(old, ROOTS[old], new, ROOTS[new], proof)
    for wrong in spoiled(proof):
        assert refuses_consistency(old, ROOTS[old], new, ROOTS[new], wrong)
    assert refuses_consistency(old, ROOTS[old], new, ROOTS[new], [])
    assert refuses_consistency(old, ROOTS[old - 1], new, ROOTS[new], proof)
    assert refuses_consistency(old, ROOTS[old], new, ROOTS[new - 1], proof)
    assert refuses_consistency(old, ROOTS[new], new, ROOTS[old], proof)
    assert refuses_consistency(new, ROOTS[new], old, ROOTS[old], proof)
    for other in {old - 1, old + 1} - {0, new}:
        assert refuses_consistency(other, ROOTS[old], new, ROOTS[new], proof)


def test_a_rewritten_past_is_refused() -> None:
    forged = Tree([bytes(32), *TREE.leaves[1:]])
    for old, new in [(1, 2), (5, 9), (8, 16), (100, 300)]:
        proof = consistency_proof(old, new, forged.node)
        assert refuses_consistency(old, ROOTS[old], new, mth(forged.leaves[:new]), proof)


@pytest.mark.parametrize("size", [0, 1, 300])
def test_nothing_to_prove_needs_an_empty_proof_and_the_right_roots(size: int) -> None:
    for old in {0, size}:
        assert consistency_proof(old, size, TREE.node) == []
        assert not refuses_consistency(old, ROOTS[old], size, ROOTS[size], [])
        assert refuses_consistency(old, ROOTS[old], size, ROOTS[size], [bytes(32)])
        assert refuses_consistency(old, bytes(32), size, ROOTS[size], [])
    assert refuses_consistency(size, ROOTS[size], size, bytes(32), [])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 5), (5, 5), (6, 5)])
def test_no_proof_is_made_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(InvalidProof, match=f"below the size {size}, got {index}"):
        inclusion_proof(index, size, TREE.node)


@pytest.mark.parametrize(("old", "new"), [(1, 0), (-1, 5), (6, 5)])
def test_no_proof_is_made_for_a_log_that_shrank(old: int, new: int) -> None:
    with pytest.raises(InvalidProof, match=f"not above the new size {new}, got {old}"):
        consistency_proof(old, new, TREE.node)


hashes = st.binary(min_size=32, max_size=32)
sizes = st.integers(0, 2**63 - 1) | st.integers(0, 40)


@given(hashes, sizes, sizes, st.lists(st.binary(max_size=33) | hashes, max_size=64), hashes)
@settings(max_examples=300)
def test_random_proofs_are_refused_and_nothing_else_is_raised(
    leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes
) -> None:
    assume(leaf != root)  # else it is the tree of one leaf, or the tree itself
    assert refuses_inclusion(leaf, index, size, proof, root)
    assert refuses_consistency(index, leaf, size, root, proof)


def test_random_proofs_of_a_log_of_a_million() -> None:
    size, choice = 1_000_000, random.Random(6962)
    tree = Tree([number.to_bytes(32, "big") for number in range(size)])
    root = root_of(tree.leaves)
    for index in {0, 1, size // 2, size - 2, size - 1, *choice.sample(range(size), 500)}:
        proof = inclusion_proof(index, size, tree.node)
        assert len(proof) <= 20
        verify_inclusion(tree.leaves[index], index, size, proof, root)
        assert refuses_inclusion(tree.leaves[index], index, size, proof[:-1], root)
    for old in {1, 2**19, size - 1, *choice.sample(range(1, size), 20)}:
        old_root = Frontier(old, subtrees(tree, old)).root()
        proof = consistency_proof(old, size, tree.node)
        verify_consistency(old, old_root, size, root, proof)
        assert refuses_consistency(old, old_root, size, root, proof[1:])


def subtrees(tree: Tree, size: int) -> list[bytes]:
    """The complete subtrees that a log of that size consists of, largest first."""
    levels = [level for level in range(size.bit_length(), -1, -1) if size >> level & 1]
    return [tree.node(level, (size >> level) - 1) for level in levels]


def test_a_proof_asks_for_few_nodes_however_large_the_log() -> None:
    asked: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        asked.append((level, index))
        return bytes(32)

    merkle.inclusion_proof(123_456_789_012, 2**40 + 12_345, node)
    merkle.consistency_proof(123_456_789_012, 2**40 + 12_345, node)
    assert len(asked) < 4 * 41

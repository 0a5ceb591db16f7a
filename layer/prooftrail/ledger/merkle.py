"""The Merkle tree of RFC 6962: one hash, the root, stands for all leaves in their order.

The tree over n leaves is split at k, the largest power of two smaller than n: the first k leaves are its left half, a
complete tree that never changes again. So whatever a log of n leaves was, a longer one contains it, and two short lists of
hashes can show it: that a leaf is in the tree (inclusion), and that a tree is the beginning of another (consistency).

Hashes are 32 bytes everywhere. A leaf here is always the leaf's hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from prooftrail.errors import PermanentError

HASH = 32  # bytes of a SHA-256
EMPTY_ROOT = hashlib.sha256(b"").digest()

# Tells the hash of a complete subtree: 2**level leaves, from leaf index * 2**level on. Level 0 are the leaves.
NodeReader: TypeAlias = Callable[[int, int], bytes]


class InvalidProof(PermanentError):
    """A proof does not prove what it is said to, or proves nothing that can be asked."""


class InvalidFrontier(PermanentError):
    """Hashes are not as many as a log of that size has complete subtrees."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry's bytes to a leaf (RFC 6962 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two neighbours to their parent (RFC 6962 2.1); the prefix keeps a parent from passing for a leaf."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """What a log needs to grow and to tell its root: the complete subtrees it consists of, largest and oldest first.

    There is one for each 1 in the size's binary form. Known elsewhere as the compact range of [0, size).
    """

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        self.size = size
        self.hashes = list(hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Frontier:
        """Read what `to_bytes` wrote. Raises `InvalidFrontier` where the length is not that of the size."""
        if len(data) != HASH * size.bit_count():
            expected = HASH * size.bit_count()
            raise InvalidFrontier(f"expected {expected} bytes of frontier at size {size}, got {len(data)}")
        return cls(size, [data[start : start + HASH] for start in range(0, len(data), HASH)])

    def to_bytes(self) -> bytes:
        """All hashes in one, in their order."""
        return b"".join(self.hashes)

    def append(self, leaf: bytes) -> None:
        """Let the log grow by one leaf."""
        self.extend([leaf])

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Let the log grow by leaves, in their order: about one hash a leaf.

        Level by level from the leaves: new nodes are paired, the first with the old one that waited for a neighbour, and
        the last waits for one in turn if it has none.
        """
        sha256 = hashlib.sha256
        row, above, waiting = list(leaves), self.size, []
        self.size += len(row)
        while row:
            if above & 1:
                row.insert(0, self.hashes.pop())
            if len(row) & 1:
                waiting.append(row.pop())
            row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=True)]
            above >>= 1
        self.hashes += reversed(waiting)

    def root(self) -> bytes:
        """The root of the log as it is now."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Join complete subtrees, each smaller than the one before, from the smallest on."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root of the tree over all the leaves (RFC 6962 2.1, MTH)."""
    frontier = Frontier()
    frontier.extend(leaves)
    return frontier.root()


def inclusion_proof(index: int, size: int, node: NodeReader) -> list[bytes]:
    """Prove that the leaf at `index` is in the tree of `size` leaves (RFC 6962 2.1.1, PATH), from the leaf upwards.

    Asks `node` for about two hashes a level. Raises `InvalidProof` where there is no such leaf.
    """
    _check_index(index, size)
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = split(begin, end)
        if index < middle:
            path.append(subtree_root(middle, end, node))
            end = middle
        else:
            path.append(subtree_root(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: NodeReader) -> list[bytes]:
    """Prove that the tree of `old` leaves is the beginning of that of `new` leaves (RFC 6962 2.1.2, PROOF).

    Empty where there is nothing to prove: the old tree is empty, or they are of one size. Raises `InvalidProof` where the
    old tree would be the larger one.
    """
    _check_growth(old, new)
    if old == 0:
        return []
    begin, end, path = 0, new, []
    while end != old:
        middle = split(begin, end)
        if old <= middle:
            path.append(subtree_root(middle, end, node))
            end = middle
        else:
            path.append(subtree_root(begin, middle, node))
            begin = middle
    if begin:  # else what is left is the old tree itself, whose root the verifier knows
        path.append(subtree_root(begin, end, node))
    return path[::-1]


def split(begin: int, end: int) -> int:
    """Where the tree over [begin, end) is split: after the largest power of two smaller than its size."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)


def subtree_root(begin: int, end: int, node: NodeReader) -> bytes:
    """The root over the leaves [begin, end) of a larger tree, from the complete subtrees that it consists of."""
    hashes = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        hashes.append(node(level, begin >> level))
        begin += 1 << level
    return _fold(hashes)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that `leaf` stands at `index` in the tree of `size` leaves with that root (RFC 9162 2.1.3.2).

    Raises `InvalidProof` where the proof does not show it.
    """
    _check_index(index, size)
    _check_hashes(leaf, *proof, root)
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise InvalidProof(f"expected a shorter inclusion proof for index {index} of {size}, got {len(proof)} hashes")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:  # at the right edge: levels on which the node has no sibling
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise InvalidProof(f"expected a longer inclusion proof for index {index} of {size}, got {len(proof)} hashes")
    if found != root:
        raise InvalidProof(f"expected the root {root.hex()}, the proof leads from index {index} of {size} to {found.hex()}")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the tree of `old` leaves with its root is the beginning of that of `new` leaves (RFC 9162 2.1.4.2).

    Nothing is older than the empty tree, which goes with an empty proof. Raises `InvalidProof` where the proof does not
    show it.
    """
    _check_growth(old, new)
    _check_hashes(old_root, *proof, new_root)
    if old in {0, new}:
        _verify_trivial(old, old_root, new, new_root, proof)
        return
    # Of a complete old tree the root is itself the first hash; it is not sent, for the verifier knows it.
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    if not path:
        raise InvalidProof(f"expected a consistency proof from {old} to {new}, got none")
    found_old = found_new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise InvalidProof(f"expected a shorter consistency proof from {old} to {new}, got {len(proof)} hashes")
        if place & 1 or place == last:
            found_old, found_new = node_hash(sibling, found_old), node_hash(sibling, found_new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found_new = node_hash(found_new, sibling)
        place, last = place >> 1, last >> 1
    if last:
        raise InvalidProof(f"expected a longer consistency proof from {old} to {new}, got {len(proof)} hashes")
    _check_root(old, old_root, found_old)
    _check_root(new, new_root, found_new)


def _verify_trivial(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """From the empty tree to any, and from a tree to itself, there is nothing to prove."""
    if proof:
        raise InvalidProof(f"expected an empty consistency proof from {old} to {new}, got {len(proof)} hashes")
    if old == 0:
        _check_root(0, old_root, EMPTY_ROOT)
    if old == new:
        _check_root(new, new_root, old_root)


def _check_root(size: int, stated: bytes, found: bytes) -> None:
    if stated != found:
        raise InvalidProof(f"expected the root {stated.hex()} at size {size}, the proof leads to {found.hex()}")


def _check_index(index: int, size: int) -> None:
    if not 0 <= index < size:
        raise InvalidProof(f"expected an index of 0 or more and below the size {size}, got {index}")


def _check_growth(old: int, new: int) -> None:
    if not 0 <= old <= new:
        raise InvalidProof(f"expected an old size of 0 or more and not above the new size {new}, got {old}")


def _check_hashes(*hashes: bytes) -> None:
    """Hashes of other lengths could shift bytes from one to its neighbour without changing their parent."""
    for position, item in enumerate(hashes):
        if len(item) != HASH:
            raise InvalidProof(f"expected hashes of {HASH} bytes, got one of {len(item)} at position {position}")

"""Logs in memory for tests, and keys that sign: by the letter of the specifications where speed does not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from prooftrail.ledger.checkpoint import Checkpoint, cosignature_message
from prooftrail.ledger.merkle import leaf_hash, node_hash
from prooftrail.ledger.note import COSIGNATURE, ED25519, Note, SignatureLine, VerifierKey
from prooftrail.ledger.tiles import Tile


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 2.1, word for word, over leaf hashes."""
    n = len(leaves)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return leaves[0]
    k = 1
    while k * 2 < n:
        k *= 2
    return hashlib.sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def numbered_leaves(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(8, "big")) for number in range(count)]


class Tree:
    """All complete subtrees over some leaves, level by level."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = list(leaves)
        self.levels = [self.leaves]
        while len(below := self.levels[-1]) > 1:
            self.levels.append([node_hash(*pair) for pair in zip(below[::2], below[1::2], strict=False)])

    def node(self, level: int, index: int) -> bytes:
        return self.levels[level][index]

    def tile(self, tile: Tile) -> bytes:
        """A tile's content: at level L, hashes of the tree's level 8 * L."""
        start = tile.number * 256
        return b"".join(self.levels[tile.level * 8][start : start + tile.width])


class Signer:
    """A key pair that signs notes as a log does, or as a witness."""

    def __init__(self, name: str, kind: int = ED25519, seed: int = 1) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big"))
        self.key = VerifierKey(name, kind, self._private.public_key().public_bytes_raw())

    def sign(self, text: str, time: int = 1_700_000_000) -> SignatureLine:
        if self.key.kind == COSIGNATURE:
            signature = time.to_bytes(8, "big") + self._private.sign(cosignature_message(time, text))
        else:
            signature = self._private.sign(text.encode())
        return SignatureLine(self.key.name, self.key.key_id, signature)


def signed_note(text: str, *signers: Signer) -> bytes:
    return Note(text, [signer.sign(text) for signer in signers]).encode()


def signed_checkpoint(origin: str, leaves: Sequence[bytes], *signers: Signer) -> bytes:
    return signed_note(Checkpoint(origin, len(leaves), mth(leaves)).encode(), *signers)

"""Proofs: what a log can show of an event and of itself, from PostgreSQL and from the tiles in the evidence bucket."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from prooftrail.database import Connection
from prooftrail.entries import EntryChanged, EntryMissing, Stored
from prooftrail.errors import PermanentError, RetryableError
from prooftrail.evidence import Evidence
from prooftrail.ledger import checkpoint as ledger_checkpoint
from prooftrail.ledger import merkle
from prooftrail.ledger.note import ED25519, UntrustedNote, VerifierKey, open_note
from prooftrail.ledger.tlog_proof import TlogProof


class NoCheckpoint(PermanentError):
    """The log has no checkpoint of that size."""


class NotCovered(RetryableError):
    """The log's latest checkpoint is older than the entry; the next one covers it, within about a minute."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A checkpoint as it was published: size and root (32 bytes) of the log, and the signed note."""

    size: int
    root: bytes
    note: bytes


class Entry(msgspec.Struct, frozen=True):
    """An entry at its index in the log; the leaf is the hash of the header."""

    index: int
    header: bytes


class Consistency(msgspec.Struct, frozen=True):
    """That a log's checkpoint continues an older one (RFC 6962 2.1.2)."""

    old: Checkpoint
    new: Checkpoint
    hashes: list[bytes]


def latest(connection: Connection, tenant: str) -> Checkpoint | None:
    """The log's latest checkpoint, None where it has none yet; inside `search.reading_as`."""
    row = connection.execute(
        "SELECT size, root, note FROM prooftrail.checkpoint WHERE tenant = %s ORDER BY size DESC LIMIT 1", [tenant]
    ).fetchone()
    return None if row is None else _checkpoint(*row)


def of_size(connection: Connection, tenant: str, size: int) -> Checkpoint:
    """The log's checkpoint of a size; inside `search.reading_as`. Raises `NoCheckpoint`."""
    row = connection.execute(
        "SELECT size, root, note FROM prooftrail.checkpoint WHERE tenant = %s AND size = %s", [tenant, size]
    ).fetchone()
    if row is None:
        raise NoCheckpoint(f"the log of {tenant} has no checkpoint of size {size}: expected the size of one")
    return _checkpoint(*row)


def _checkpoint(size: int, root: bytes, note: str) -> Checkpoint:
    return Checkpoint(size, root, note.encode())


def place(connection: Connection, stored: Stored) -> Entry:
    """Where an entry stands in its log; inside `search.reading_as`.

    Raises `EntryChanged` where the log committed to something else than what is stored.
    """
    row = connection.execute(
        """
        SELECT first_index, substr(leaf_hashes, %(position)s * 32 + 1, 32) FROM prooftrail.batch
        WHERE tenant = %(tenant)s AND id = %(batch)s
        """,
        {"tenant": stored.event.tenant, "batch": stored.batch_id, "position": stored.position},
    ).fetchone()
    if row is None:
        raise EntryMissing(f"batch {stored.batch_id}: expected it in the log of {stored.event.tenant}, found none")
    first_index, leaf = row
    entry = Entry(first_index + stored.position, stored.header())
    if merkle.leaf_hash(entry.header) != leaf:
        raise EntryChanged(
            f"entry {entry.index} of {stored.event.tenant}, event {stored.event.id!a}: the log committed to the leaf "
            f"{leaf.hex()}, what is stored gives {merkle.leaf_hash(entry.header).hex()}"
        )
    return entry


def inclusion(connection: Connection, evidence: Evidence, tenant: str, entry: Entry, size: int | None = None) -> TlogProof:
    """Prove that an entry is in the log, by its checkpoint of that size, else the latest; inside `search.reading_as`.

    `extra` is the entry's header, from which the leaf is derived. Raises `NotCovered`, and `NoCheckpoint` where none is
    of that size.
    """
    checkpoint = latest(connection, tenant) if size is None else of_size(connection, tenant, size)
    if checkpoint is None or checkpoint.size <= entry.index:
        raise NotCovered(f"no checkpoint of {tenant} covers entry {entry.index} yet: one is signed about every minute")
    hashes = merkle.inclusion_proof(entry.index, checkpoint.size, evidence.node_reader(tenant, checkpoint.size))
    return TlogProof(entry.index, hashes, checkpoint.note, entry.header)


class Proved(msgspec.Struct, frozen=True):
    """What a proof proves: an entry of a log, by a checkpoint, and who signed that (with a witness's, when)."""

    entry: Entry
    checkpoint: ledger_checkpoint.Checkpoint
    signers: list[tuple[VerifierKey, int | None]]


def check(proof: bytes, keys: Sequence[VerifierKey]) -> Proved:
    """Check a proof that `inclusion` made, offline, by keys of which one must be the log's and all must have signed.

    Raises `ledger.lines.InvalidNote` for what is no proof, `UntrustedNote` where a key has not signed it, and
    `merkle.InvalidProof` where it proves nothing.
    """
    parsed = TlogProof.parse(proof)
    opened = open_note(parsed.checkpoint_note, keys)
    checkpoint = ledger_checkpoint.Checkpoint.parse(opened.text)
    unsigned = set(keys) - {key for key, _ in opened.verified}
    if unsigned:
        raise UntrustedNote(f"expected the checkpoint to be signed with every given key, it is not with {unsigned.pop()}")
    if not any(key.name == checkpoint.origin and key.kind == ED25519 for key in keys):
        raise UntrustedNote(f"expected a key of the log {checkpoint.origin} among those given, got none")
    if parsed.extra is None:
        raise merkle.InvalidProof("expected the entry's header in `extra`, got none: which entry it proves is not said")
    merkle.verify_inclusion(merkle.leaf_hash(parsed.extra), parsed.index, checkpoint.size, parsed.hashes, checkpoint.root)
    return Proved(Entry(parsed.index, parsed.extra), checkpoint, opened.verified)


def consistency(connection: Connection, evidence: Evidence, tenant: str, old: int, new: int | None) -> Consistency:
    """Prove that the checkpoint of size `new` (None: the latest) continues that of size `old`; inside `search.reading_as`.

    Raises `NoCheckpoint` where there is none of such a size, `merkle.InvalidProof` where the old one is the larger.
    """
    older = of_size(connection, tenant, old)
    newer = latest(connection, tenant) if new is None else of_size(connection, tenant, new)
    assert newer is not None  # there is `older` at least
    hashes = merkle.consistency_proof(older.size, newer.size, evidence.node_reader(tenant, newer.size))
    return Consistency(older, newer, hashes)

"""What was signed: the checkpoints of the evidence bucket, which is the authority, and those that PostgreSQL remembers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from prooftrail.aws import AwsUnavailable
from prooftrail.database import Connection
from prooftrail.errors import ConfigurationError
from prooftrail.evidence import Evidence, EvidenceConflict, EvidenceMissing
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import ED25519, InvalidNote, Note, UntrustedNote, VerifierKey, open_note
from prooftrail.verification.findings import Finding
from prooftrail.verification.walk import Signed

AT_ONCE = 16  # requests to the bucket


class LogKeys(msgspec.Struct, frozen=True):
    """By which keys the logs of a deployment are known: any of them may have signed any log, as `<origin>/<tenant>`."""

    origin: str
    public_keys: tuple[bytes, ...]

    def of(self, tenant: str) -> list[VerifierKey]:
        """The verifier keys of a tenant's log."""
        return [VerifierKey(f"{self.origin}/{tenant}", ED25519, key) for key in self.public_keys]


def keys_of(vkeys: Iterable[str]) -> LogKeys:
    """Read verifier keys of any logs of one deployment. Raises `ConfigurationError` where they are not such keys."""
    try:
        keys = [VerifierKey.parse(vkey.strip()) for vkey in vkeys]
    except InvalidNote as error:
        raise ConfigurationError(f"expected the verifier key of a log, <origin>/<tenant>+…+…: {error}") from None
    origins = {key.name.rpartition("/")[0] for key in keys}
    if len(origins) != 1 or any(key.kind != ED25519 for key in keys):
        raise ConfigurationError(f"expected Ed25519 keys of logs of one origin, got {', '.join(map(str, keys)) or 'none'}")
    return LogKeys(origins.pop(), tuple(key.public_key for key in keys))


class Authority(NamedTuple):
    """The evidence bucket, and the keys by which its checkpoints are known."""

    evidence: Evidence
    keys: LogKeys


class OfLog(NamedTuple):
    """The verified checkpoints of a log, their notes by size, what is wrong with others, and what could not be read.

    Where anything is `unread`, nobody knows whether the log is what was signed.
    """

    signed: list[Signed]
    notes: dict[int, bytes]
    findings: list[Finding]
    unread: list[str]


NOTHING_PUBLISHED = OfLog([], {}, [], [])


def published(authority: Authority, known: set[str], *, every: bool, others: bool) -> dict[str, OfLog]:
    """Fetch the last checkpoint of each tenant, or every one of them, from the bucket.

    Of those that are known, and with `others` of those too that PostgreSQL has forgotten.
    """
    try:
        tenants = sorted(known | set(authority.evidence.tenants() if others else ()))
    except AwsUnavailable as error:  # nor is it worth waiting for each of them
        return {tenant: OfLog([], {}, [], [_unread(tenant, error)]) for tenant in known}
    with ThreadPoolExecutor(AT_ONCE, "evidence") as pool:
        return dict(zip(tenants, pool.map(lambda tenant: _of_tenant(authority, tenant, every), tenants), strict=True))


def _of_tenant(authority: Authority, tenant: str, every: bool) -> OfLog:
    found = OfLog([], {}, [], [])
    try:
        for fetch in _fetches(authority.evidence, tenant, every):
            _take(found, fetch, tenant, authority.keys)
    except AwsUnavailable as error:
        found.unread.append(_unread(tenant, error))
    return found


def _take(found: OfLog, fetch: Callable[[], bytes | None], tenant: str, keys: LogKeys) -> None:
    try:
        note = fetch()
        if note is not None:
            checkpoint = _open(note, tenant, keys)
            found.signed.append(Signed(checkpoint.size, checkpoint.root, f"evidence bucket, {tenant}/checkpoint"))
            found.notes[checkpoint.size] = note
    except (InvalidNote, EvidenceConflict, EvidenceMissing) as error:
        found.findings.append(_finding(tenant, "evidence bucket", str(error)))


def _fetches(evidence: Evidence, tenant: str, every: bool) -> Iterator[Callable[[], bytes | None]]:
    if every:
        for size in evidence.sizes(tenant):
            yield functools.partial(evidence.checkpoint, tenant, size)
    else:
        yield functools.partial(evidence.latest, tenant)


def remembered(connection: Connection, tenant: str, from_size: int, authority: Authority | None, published: OfLog) -> OfLog:
    """The checkpoints of a log beyond a size: those `published`, and those that PostgreSQL has, as far as they were signed.

    Without an authority, rows are compared with themselves alone.
    """
    found = OfLog([*published.signed], published.notes, [], [*published.unread])
    rows = connection.execute(
        "SELECT size, root, note FROM prooftrail.checkpoint WHERE tenant = %s AND size > %s ORDER BY size",
        [tenant, from_size],
        binary=True,
    )
    for size, root, note in rows:
        try:
            checkpoint = _said(note.encode(), tenant, size, authority, published.notes.get(size))
        except (InvalidNote, EvidenceConflict, EvidenceMissing) as error:
            found.findings.append(_finding(tenant, "checkpoint", f"size {size}: {error}"))
            continue
        except AwsUnavailable as error:
            found.unread.append(_unread(tenant, error))
            continue
        if (checkpoint.size, checkpoint.root) != (size, root):
            expected, row = f"{checkpoint.size} {checkpoint.root.hex()}", f"{size} {root.hex()}"
            found.findings.append(_finding(tenant, "checkpoint", "the row and its note differ", expected, row))
        found.signed.append(Signed(checkpoint.size, checkpoint.root, "checkpoint"))
    return found


def _said(note: bytes, tenant: str, size: int, authority: Authority | None, as_published: bytes | None) -> Checkpoint:
    """What a note says, once it is known to be the published one. Raises `InvalidNote` and what `Evidence` raises."""
    if authority is None:
        return Checkpoint.parse(Note.parse(note).text)
    if as_published is None:
        try:
            return _open(note, tenant, authority.keys)
        except UntrustedNote:  # signed by a key that is not in use any more, or not signed at all: the bucket knows
            as_published = authority.evidence.checkpoint(tenant, size)
    if note != as_published:
        raise UntrustedNote(f"expected the note that the evidence bucket has, found {note!a}")
    return Checkpoint.parse(Note.parse(note).text)


def _open(note: bytes, tenant: str, keys: LogKeys) -> Checkpoint:
    """What a note says that a key of the tenant's log has signed. Raises `InvalidNote`."""
    checkpoint = Checkpoint.parse(open_note(note, keys.of(tenant)).text)
    if checkpoint.origin != f"{keys.origin}/{tenant}":
        raise UntrustedNote(f"expected a checkpoint of the log {keys.origin}/{tenant}, got one of {checkpoint.origin!a}")
    return checkpoint


def _unread(tenant: str, error: AwsUnavailable) -> str:
    return f"what was signed of log {tenant}: {error}"


def _finding(tenant: str, where: str, detail: str, expected: str | None = None, found: str | None = None) -> Finding:
    return Finding(kind="checkpoint", tenant=tenant, where=where, detail=detail, expected=expected, found=found)

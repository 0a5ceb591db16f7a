"""What was signed: the checkpoints of the evidence bucket, which is the authority, and those that PostgreSQL remembers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

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


class Published(NamedTuple):
    """The verified checkpoints of the bucket by tenant, their notes by tenant and size, and what is wrong with others."""

    signed: dict[str, list[Signed]]
    notes: dict[tuple[str, int], bytes]
    findings: list[Finding]


def published(authority: Authority, tenants: Iterable[str], *, every: bool) -> Published:
    """Fetch the last checkpoint of each tenant, or every one of them.

    Raises `AwsUnavailable` where the bucket cannot be reached.
    """
    found = Published({}, {}, [])
    with ThreadPoolExecutor(AT_ONCE, "evidence") as pool:
        for tenant, signed, notes, findings in pool.map(lambda tenant: _of_tenant(authority, tenant, every), tenants):
            found.signed[tenant] = signed
            found.notes.update({(tenant, size): note for size, note in notes.items()})
            found.findings.extend(findings)
    return found


def _of_tenant(authority: Authority, tenant: str, every: bool) -> tuple[str, list[Signed], dict[int, bytes], list[Finding]]:
    signed: list[Signed] = []
    notes: dict[int, bytes] = {}
    findings: list[Finding] = []
    for fetch in _fetches(authority.evidence, tenant, every):
        try:
            note = fetch()
            if note is not None:
                checkpoint = _open(note, tenant, authority.keys)
                signed.append(Signed(checkpoint.size, checkpoint.root, f"evidence bucket, {tenant}/checkpoint"))
                notes[checkpoint.size] = note
        except (InvalidNote, EvidenceConflict) as error:
            findings.append(_finding(tenant, "evidence bucket", str(error)))
    return tenant, signed, notes, findings


def _fetches(evidence: Evidence, tenant: str, every: bool) -> Iterator[Callable[[], bytes | None]]:
    if every:
        for size in evidence.sizes(tenant):
            yield functools.partial(evidence.checkpoint, tenant, size)
    else:
        yield functools.partial(evidence.latest, tenant)


def remembered(
    connection: Connection, tenant: str, from_size: int, authority: Authority | None, notes: Mapping[tuple[str, int], bytes]
) -> tuple[list[Signed], list[Finding]]:
    """The checkpoints beyond a size that PostgreSQL has, as far as they are what was signed, and what is wrong with others.

    `notes` are those of the bucket that were fetched. Without an authority, rows are compared with themselves alone.
    """
    signed: list[Signed] = []
    findings: list[Finding] = []
    rows = connection.execute(
        "SELECT size, root, note FROM prooftrail.checkpoint WHERE tenant = %s AND size > %s ORDER BY size",
        [tenant, from_size],
        binary=True,
    )
    for size, root, note in rows:
        try:
            checkpoint = _said(note.encode(), tenant, size, authority, notes.get((tenant, size)))
        except (InvalidNote, EvidenceConflict, EvidenceMissing) as error:
            findings.append(_finding(tenant, "checkpoint", f"size {size}: {error}"))
            continue
        if (checkpoint.size, checkpoint.root) != (size, root):
            expected, found = f"{checkpoint.size} {checkpoint.root.hex()}", f"{size} {root.hex()}"
            findings.append(_finding(tenant, "checkpoint", "the row and its note differ", expected, found))
        signed.append(Signed(checkpoint.size, checkpoint.root, "checkpoint"))
    return signed, findings


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


def _finding(tenant: str, where: str, detail: str, expected: str | None = None, found: str | None = None) -> Finding:
    return Finding(kind="checkpoint", tenant=tenant, where=where, detail=detail, expected=expected, found=found)

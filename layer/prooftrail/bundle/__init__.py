"""The evidence bundle: a zip that answers a question about a log and proves the answer to who trusts nobody.

``verify``, which goes into the bundle, says best what is in it and what each part proves. ``question`` decides what has to
be shown of an entry, ``erasures`` finds what explains that something is gone, ``summary`` tells it to people, ``container``
is the zip. Here it is put together: the entries come from PostgreSQL and from the archive in any order, wait in ``spool``,
and are written in the order of the log.
"""

from __future__ import annotations

import base64
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from prooftrail import canonical, entries, proofs, search
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.bundle import summary, verify
from prooftrail.bundle.container import Container
from prooftrail.bundle.erasures import Erasures, Record, refuse_while_running
from prooftrail.bundle.question import Parts, Question, shown
from prooftrail.bundle.spool import Spool, Waiting
from prooftrail.bundle.summary import Listed, Result
from prooftrail.database import Connection
from prooftrail.entries import EntryChanged, EntryMissing, Stored
from prooftrail.errors import PermanentError
from prooftrail.evidence import Evidence
from prooftrail.ledger import merkle
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import VerifierKey, open_note
from prooftrail.ledger.tlog_proof import TlogProof
from prooftrail.proofs import Entry

_VERIFIER = Path(__file__).with_name("verify.py")
_README = """\
This folder answers a question about an audit log, and proves the answer: summary.html says which, and what was found.
Check it offline, with nothing but Python 3.8 or later:  python3 verify.py --key KEY
KEY is the log's public key. Ask the log's operator for it: who forges a bundle puts a key of their own into keys.txt.
"""
_TILES_KEPT_FOR = 1000  # proofs; those of neighbours need the same tiles
_BATCHES = 20  # asked of PostgreSQL at a time: the leaf hashes of one may be 320 kB


class BundleFailed(PermanentError):
    """The log is not what was signed; the message says where, and `prooftrail verify` says more."""


class Sources(NamedTuple):
    """Where a bundle comes from; `progress` is told how many more entries were read."""

    connection: Connection
    archive: ArchiveBucket
    evidence: Evidence
    progress: Callable[[int], None] = lambda _: None


class _Signed(NamedTuple):
    """The checkpoint to which everything leads, and the known keys that have signed it."""

    note: bytes
    checkpoint: Checkpoint
    keys: list[VerifierKey]


def make(sources: Sources, question: Question, keys: Sequence[VerifierKey], file: Path) -> Result:
    """Write the bundle that answers a question; it bears the file's name only once it was seen to verify.

    The question's `end` may lie beyond the log: it ends where the latest checkpoint does. What is read waits on disk.
    Raises `ErasureRunning` and `NotCovered`, which pass, `UntrustedNote` where none of the keys has signed the checkpoint,
    `EntryChanged`, `EntryMissing`, `Unexplained` or `BundleFailed` where the log is not what was signed.
    """
    partial = file.with_name(f"{file.name}.part")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            with search.reading_as(sources.connection, question.tenant, one_moment=True):
                refuse_while_running(sources.connection, question.tenant)
                signed = _signed(sources, question, keys)
                question = msgspec.structs.replace(question, end=min(question.end, signed.checkpoint.size))
                written = _write(sources, question, signed.checkpoint.size, Path(scratch))
            with Container(partial) as container:
                _pack(container, sources.evidence, question, signed, written)
        _check(partial, signed.keys)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return written.result


def _check(file: Path, keys: Sequence[VerifierKey]) -> None:
    """Run the verifier that the bundle brings: it shares no code with what made the bundle."""
    try:
        verify.check(str(file), [str(key) for key in keys])
    except verify.NotProved as error:
        raise BundleFailed(f"what is stored is not what was signed: {error}") from error


def _signed(sources: Sources, question: Question, keys: Sequence[VerifierKey]) -> _Signed:
    """The latest checkpoint, as the evidence bucket has it."""
    latest = proofs.latest(sources.connection, question.tenant)
    if latest is None or latest.size <= question.first:
        raise proofs.NotCovered(f"no checkpoint of {question.tenant} covers entry {question.first} yet")
    note = sources.evidence.checkpoint(question.tenant, latest.size)
    opened = open_note(note, keys)
    return _Signed(note, Checkpoint.parse(opened.text), [key for key, _ in opened.verified])


class _Written(NamedTuple):
    """What was written of the entries, into files named as in the bundle; `events` are indexes, `records` of erasures."""

    folder: Path
    events: array[int]
    records: list[Record]
    result: Result


def _write(sources: Sources, question: Question, size: int, folder: Path) -> _Written:
    """Bring the entries into the order of the log, and write what the bundle shows of them."""
    with closing(Spool(folder / "spool")) as spool:
        return _write_through(spool, sources, question, size, folder)


def _write_through(spool: Spool, sources: Sources, question: Question, size: int, folder: Path) -> _Written:
    known = Erasures(sources.connection, sources.archive, question, size)
    for stored in entries.between(sources.connection, sources.archive, question.tenant, question.first, question.end):
        spool.add(_waiting(question, stored))
        known.note(stored)
        sources.progress(1)
    events, unknown, listed = array("q"), 0, list[Listed]()
    with (
        (folder / "entries.jsonl").open("wb") as headers,
        (folder / "events.jsonl").open("wb") as asked,
        (folder / "openings.jsonl").open("wb") as openings,
    ):
        for index, item in _in_order(sources.connection, spool, question):
            headers.write(item.header + b"\n")
            if item.parts is None:
                continue
            parts = known.explain(index, msgspec.json.decode(item.parts, type=Parts))
            (asked if item.is_event else openings).write(canonical.encode({"index": index, **parts}) + b"\n")
            if item.is_event:
                events.append(index)
                if len(listed) < summary.LISTED:
                    listed.append(summary.listed(index, item.header, parts))
            else:
                unknown += any("erased" in part for part in parts.values())
    return _Written(folder, events, known.used(), Result(question.end - question.first, len(events), unknown, listed))


def _waiting(question: Question, stored: Stored) -> Waiting:
    is_event, parts = shown(question, stored)
    said = msgspec.json.encode(parts) if parts else None
    return Waiting(stored.batch_id, stored.position, stored.header(), said, is_event)


def _in_order(connection: Connection, spool: Spool, question: Question) -> Iterator[tuple[int, Waiting]]:
    """The entries of the range with their indexes, each seen to be what its log committed to, and none missing."""
    expected = question.first
    for batch_id, first_index, leaf_hashes in _batches(connection, question):
        for item in spool.of_batch(batch_id):
            index, leaf = first_index + item.position, leaf_hashes[item.position * 32 : (item.position + 1) * 32]
            if not question.first <= index < question.end:
                continue
            if index != expected:
                break
            if merkle.leaf_hash(item.header) != leaf:
                raise EntryChanged(
                    f"entry {index} of {question.tenant}: what is stored of it is not what its log committed to"
                )
            yield index, item
            expected += 1
    if expected != question.end:
        raise EntryMissing(
            f"entry {expected} of {question.tenant}: expected it in PostgreSQL or the archive, found it in neither"
        )


def _batches(connection: Connection, question: Question) -> Iterator[tuple[int, int, bytes]]:
    """Id, first index and leaf hashes of the batches in the range, in the order of the log."""
    query = """
        SELECT id, first_index, leaf_hashes FROM prooftrail.batch
        WHERE tenant = %s AND first_index > %s AND first_index < %s AND first_index + event_count > %s
        ORDER BY first_index LIMIT %s
        """
    after = -1
    while rows := connection.execute(
        query, [question.tenant, after, question.end, question.first, _BATCHES], binary=True
    ).fetchall():
        yield from rows
        after = rows[-1][1]


def _pack(container: Container, evidence: Evidence, question: Question, signed: _Signed, written: _Written) -> None:
    """Put everything into the zip, in one order always; two bundles that say the same are the same."""
    verifier = _VERIFIER.read_bytes()
    container.add("README.txt", _README.encode())
    container.add("summary.html", summary.render(question, written.result, signed.checkpoint, signed.keys, verifier))
    container.add("verify.py", verifier)
    container.add("filter.json", question.encode())
    container.add("checkpoint", signed.note)
    container.add("keys.txt", "".join(f"{key}\n" for key in signed.keys).encode())
    size = signed.checkpoint.size
    if question.end - question.first < size:
        container.add("outside", _outside(question, size, evidence.node_reader(question.tenant, size)))
    if written.records:
        container.add("erasures.jsonl", b"".join(record.line() for record in written.records))
    for name in ("entries.jsonl", "events.jsonl", "openings.jsonl"):
        container.add_file(name, written.folder / name)
    for name, proof in _proofs(evidence, question, signed, written):
        container.add(name, proof.encode())


def _outside(question: Question, size: int, node: merkle.NodeReader) -> bytes:
    """The hashes of the branches of the tree in which no entry of the range is, from left to right."""

    def branches(low: int, high: int) -> Iterator[bytes]:
        if high <= question.first or question.end <= low:
            yield merkle.subtree_root(low, high, node)
        elif not question.first <= low < high <= question.end:
            middle = merkle.split(low, high)
            yield from branches(low, middle)
            yield from branches(middle, high)

    return b"".join(base64.b64encode(item) + b"\n" for item in branches(0, size))


def _proofs(evidence: Evidence, question: Question, signed: _Signed, written: _Written) -> Iterator[tuple[str, TlogProof]]:
    """The proof of every event, and of those records of erasures that are outside of the range."""
    size, tenant = signed.checkpoint.size, question.tenant
    outside = (record.entry for record in written.records if not question.first <= record.entry.index < question.end)
    for number, entry in enumerate(chain(_events(question, written), outside)):
        if number % _TILES_KEPT_FOR == 0:
            node = evidence.node_reader(tenant, size)
        hashes = merkle.inclusion_proof(entry.index, size, node)
        yield f"proofs/{entry.index}.tlog-proof", TlogProof(entry.index, hashes, signed.note, entry.header)


def _events(question: Question, written: _Written) -> Iterator[Entry]:
    """The events, with the headers that were written."""
    with (written.folder / "entries.jsonl").open("rb") as headers:
        passed = question.first
        for index in written.events:
            header = next(islice(headers, index - passed, None))
            passed = index + 1
            yield Entry(index, header[:-1])

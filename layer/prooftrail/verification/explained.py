"""What our own events explain: that values of an entry are gone (`privacy.erase`), and what is in the quarantine."""

from __future__ import annotations

import bisect
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.errors import ArchiveMismatch
from prooftrail.event import OWN_TENANT
from prooftrail.segments import Segment
from prooftrail.verification import scan
from prooftrail.verification.findings import Finding
from prooftrail.verification.scan import Erased, Note
from prooftrail.verification.session import fetch


class _Erase(msgspec.Struct):
    """The metadata of `privacy.erase`: ranges of leaf indexes, both ends included, and which parts went."""

    entries: list[tuple[int, int]]
    parts: list[str]
    erasure: int = 0


class _Put(msgspec.Struct):
    """The metadata of `quarantine.put`."""

    reason: str
    bytes: int
    sha256: str


class Erasures:
    """Which parts of which entries the logs say were erased."""

    def __init__(self, notes: Iterable[Note]) -> None:
        self.numbers: set[int] = set()
        ranges: dict[tuple[str, str], set[tuple[int, int]]] = defaultdict(set)
        for note in notes:
            if note.action == "privacy.erase":
                said = msgspec.json.decode(note.metadata or "", type=_Erase)
                self.numbers.add(said.erasure)
                for part in ("any", *said.parts):
                    ranges[note.tenant, part].update(said.entries)
        self._ranges = {key: _merged(found) for key, found in ranges.items()}

    def explain(self, erased: Erased) -> bool:
        """Whether all that is gone of an entry is named; where only its key's digest is, whether any of it is."""
        return all(self._covers(erased.tenant, part, erased.index) for part in erased.parts or ("any",))

    def _covers(self, tenant: str, part: str, index: int) -> bool:
        ranges = self._ranges.get((tenant, part), [])
        place = bisect.bisect_right(ranges, (index, index)) - 1
        following = ranges[place + 1 : place + 2]
        return any(first <= index <= last for first, last in [*ranges[max(0, place) : place + 1], *following])


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted ranges that do not overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


def unexplained(erased: Erased) -> Finding:
    """The finding that something of an entry is gone and no erasure says so."""
    what = " and ".join(erased.parts) if erased.parts else "the digest of its key"
    return Finding(
        kind="erased",
        tenant=erased.tenant,
        where=erased.where,
        index=erased.index,
        detail=f"{what} is gone, and no erasure in the log says so",
    )


def erasures(
    connection: Connection, months: Iterable[date], archive: ArchiveBucket | None, tenants: Collection[str]
) -> list[Note]:
    """The erasures that these tenants' logs tell of, wherever the events of them are by now."""
    found = scan.notes(connection, months, tenants, "privacy.erase")
    begun = connection.execute(
        "SELECT DISTINCT date_trunc('month', begun_at AT TIME ZONE 'UTC')::date FROM prooftrail.erasure"
    )
    months_of_erasures = {month for (month,) in begun}
    for tenant in tenants:
        for segment in segments.archived(connection, tenant):
            if segment.month in months_of_erasures and archive is not None:
                found += _in_object(connection, archive, segment)
    return found


def _in_object(connection: Connection, archive: ArchiveBucket, segment: Segment) -> list[Note]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "segment.parquet")
        if fetch(archive, segment, file) is None:
            return []
        with suppress(ArchiveMismatch):
            found = scan.cold(connection, [], segment, file, scan.Scope())
            return [note for note in found.notes if note.action == "privacy.erase"]
    return []


class Record(NamedTuple):
    """A quarantined record as its row says it; the SHA-256 is derived from its bytes."""

    origin: str
    reason: str
    detail: str
    bytes: int
    sha256: str


def quarantined(connection: Connection) -> list[Record]:
    """All records in the quarantine."""
    rows = connection.execute(
        "SELECT origin, reason, detail, length(raw), encode(sha256(raw), 'hex') FROM prooftrail.quarantine ORDER BY origin"
    )
    return [Record(*row) for row in rows]


_CLEARED = re.compile(r"cleared by erasure (\d+)")


def quarantine(records: Sequence[Record], notes: Iterable[Note], erasures: Erasures) -> Iterator[Finding]:
    """Compare what is in the quarantine with what the log says was put there."""
    put = {
        note.target: msgspec.json.decode(note.metadata or "", type=_Put)
        for note in notes
        if note.action == "quarantine.put" and note.metadata is not None
    }
    for record in records:
        said = put.pop(record.origin, None)
        cleared = _CLEARED.fullmatch(record.detail) if record.bytes == 0 else None
        if said is None:
            yield _wrong_record(record.origin, None, record.sha256, "the log does not say that it was put there")
        elif said.reason != record.reason:
            yield _wrong_record(record.origin, said.reason, record.reason, "", "reason")
        elif said.sha256 != record.sha256 and not (cleared and int(cleared[1]) in erasures.numbers):
            yield _wrong_record(record.origin, said.sha256, record.sha256, "", "sha256 of raw")
    for origin in put:
        yield _wrong_record(origin, None, None, "it is gone from the quarantine")


def _wrong_record(
    origin: str | None, expected: str | None, found: str | None, detail: str, column: str | None = None
) -> Finding:
    return Finding(
        kind="quarantine",
        tenant=OWN_TENANT,
        where="quarantine",
        source="quarantine",
        id=origin,
        column=column,
        expected=expected,
        found=found,
        detail=detail,
    )

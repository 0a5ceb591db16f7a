"""What our own events explain: that values of an entry are gone (`privacy.erase`), and what is in the quarantine."""

from __future__ import annotations

import bisect
import hashlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.event import OWN_TENANT
from prooftrail.segments import Segment
from prooftrail.verification import scan
from prooftrail.verification.findings import Finding
from prooftrail.verification.scan import Erased, Note, Unread
from prooftrail.verification.session import UNFIT, ObjectUnread, fetch


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
    headers_sha256: str = hashlib.sha256(b"{}").hexdigest()  # of those that were put there before headers were kept


class _Replay(msgspec.Struct):
    """The metadata of `quarantine.replay`: what the record became, or why it waits on."""

    reason: str | None = None
    became: list[dict[str, str]] | None = None


class _Discard(msgspec.Struct):
    """The metadata of `quarantine.discard`."""

    reason: str
    cleared: bool


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
) -> tuple[list[Note], list[Unread]]:
    """The erasures that these tenants' logs tell of, wherever the events of them are by now, and what could not be read."""
    found, unread = scan.notes(connection, months, tenants, "privacy.erase"), list[Unread]()
    begun = connection.execute(
        "SELECT DISTINCT date_trunc('month', begun_at AT TIME ZONE 'UTC')::date FROM prooftrail.erasure"
    )
    months_of_erasures = {month for (month,) in begun}
    for tenant in tenants:
        for segment in segments.archived(connection, tenant):
            if segment.month in months_of_erasures:
                try:
                    found += _in_object(connection, archive, segment)
                except ObjectUnread as error:
                    unread.append(error.unread)
    return found, unread


def _in_object(connection: Connection, archive: ArchiveBucket | None, segment: Segment) -> list[Note]:
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "segment.parquet")
        if fetch(archive, segment, file) is None:
            return []
        with suppress(*UNFIT):
            found = scan.cold(connection, [], segment, file, scan.Scope())
            return [note for note in found.notes if note.action == "privacy.erase"]
    return []


class Record(NamedTuple):
    """A quarantined record as its row says it; each SHA-256 is derived from what is there, `became` is JSON."""

    origin: str
    detail: str
    is_cleared: bool
    reason: str
    state: str
    attempts: int
    became: str | None
    discard_reason: str | None
    sha256: str
    headers_sha256: str


def quarantined(connection: Connection) -> list[Record]:
    """All records in the quarantine."""
    rows = connection.execute(
        """
        SELECT origin, detail, raw = '' AND headers::text = '{}', reason, state, attempts, became::text, discard_reason,
            encode(sha256(raw), 'hex'), encode(sha256(convert_to(headers::text, 'UTF8')), 'hex')
        FROM prooftrail.quarantine ORDER BY origin
        """
    )
    return [Record(*row) for row in rows]


class _Told(msgspec.Struct):
    """What the log says of a record, from its being put there to the last that was done with it."""

    sha256: str
    headers_sha256: str
    reason: str
    state: str = "waiting"
    attempts: int = 0
    became: list[dict[str, str]] | None = None
    discard_reason: str | None = None
    cleared: bool = False

    def add(self, note: Note) -> None:
        """Go on with what was done next."""
        if note.action == "quarantine.discard":
            discarded = msgspec.json.decode(note.metadata or "", type=_Discard)
            self.state, self.discard_reason = "discarded", discarded.reason
            self.cleared = self.cleared or discarded.cleared
        else:
            replayed = msgspec.json.decode(note.metadata or "", type=_Replay)
            self.attempts += 1
            if replayed.became is None:
                self.reason = replayed.reason or ""
            else:
                self.state, self.became = "replayed", replayed.became

    def differences(self, record: Record) -> Iterator[tuple[str, str | None, str | None]]:
        """Columns of the record's row that are not what the log says, each with what was expected and found."""
        pairs = {
            "reason": (self.reason, record.reason),
            "state": (self.state, record.state),
            "attempts": (str(self.attempts), str(record.attempts)),
            "became": (_sorted(self.became), _sorted(record.became and msgspec.json.decode(record.became))),
            "discard_reason": (self.discard_reason, record.discard_reason),
        }
        if not (self.cleared and record.is_cleared):
            pairs["sha256 of raw"] = self.sha256, record.sha256
            pairs["sha256 of headers"] = self.headers_sha256, record.headers_sha256
        return ((column, expected, found) for column, (expected, found) in pairs.items() if expected != found)


def _sorted(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value, order="sorted").decode()


_CLEARED = re.compile(r"cleared by erasure (\d+)")


def quarantine(records: Sequence[Record], notes: Iterable[Note], erasures: Erasures) -> Iterator[Finding]:
    """Compare what is in the quarantine with what the log says was put there, and what was done with it since."""
    told = _told(notes)
    for record in records:
        expected = told.pop(record.origin, None)
        if expected is None:
            yield _wrong_record(record.origin, None, record.sha256, "the log does not say that it was put there")
            continue
        cleared = _CLEARED.fullmatch(record.detail)
        expected.cleared = expected.cleared or bool(cleared and int(cleared[1]) in erasures.numbers)
        for column, said, found in expected.differences(record):
            yield _wrong_record(record.origin, said, found, "", column)
    for origin in told:
        yield _wrong_record(origin, None, None, "it is gone from the quarantine")


def _told(notes: Iterable[Note]) -> dict[str | None, _Told]:
    """What the log says of each record, by its origin; what it says of one that it never put there, no record can meet."""
    told: dict[str | None, _Told] = {}
    for note in sorted(set(notes), key=lambda note: note.index):  # a run may come upon an entry twice
        if note.action == "quarantine.put" and note.metadata is not None:
            put = msgspec.json.decode(note.metadata, type=_Put)
            told[note.target] = _Told(put.sha256, put.headers_sha256, put.reason)
        elif note.action in {"quarantine.replay", "quarantine.discard"} and note.target in told:
            told[note.target].add(note)
    return told


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

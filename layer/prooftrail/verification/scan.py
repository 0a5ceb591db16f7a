"""Scans: the rows of some batches, each compared with the leaf hash that its batch has for its place.

A scan is the part that has to be quick, and the part that many processes share; so it only sorts out what is as it must be,
and hands on the rest, to be looked at in peace by `diagnosis`. Both tiers are scanned by the same code.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
from psycopg import sql

from prooftrail.database import Connection
from prooftrail.event import OWN_SOURCE
from prooftrail.ledger.merkle import HASH
from prooftrail.segments import Segment
from prooftrail.verification import rows
from prooftrail.verification.findings import Finding
from prooftrail.verification.rows import AT, BATCH, KEY, KEY_TIME, POSITION, Row, Unreadable

_TENANT, _TIME, _ID, _SOURCE, _ACTION = (AT[name] for name in ("tenant", "time", "id", "source", "action"))
KEYS_AT_ONCE = 1000
ROWS_AT_ONCE = 250  # which stay in the processor's cache
MOST_SUSPECTS = 1000  # rows that a scan hands on; how many more there are is counted
# What our own events say that other checks need.
NOTED = ("privacy.erase", "quarantine.put", "quarantine.replay", "quarantine.discard")


class Batch(msgspec.Struct, frozen=True):
    """A batch as its row says it; times in the form of the log."""

    id: int
    tenant: str
    first_index: int
    event_count: int
    min_time: str
    max_time: str
    leaf_hashes: bytes

    def leaf(self, position: int) -> bytes:
        """The leaf hash of the entry at a position; empty where there is none."""
        return self.leaf_hashes[position * HASH : (position + 1) * HASH] if position >= 0 else b""


class Scope(msgspec.Struct, frozen=True):
    """Which rows to scan: those of batches with an id from `first` to before `end` (None: no bound).

    With `tenant`, rows that say they are of that tenant, or are in a batch of it. With `only`, rows of these batches alone.
    """

    first: int | None = None
    end: int | None = None
    tenant: str | None = None
    only: tuple[int, ...] | None = None


class Suspect(msgspec.Struct, frozen=True):
    """A row that is not plainly what it must be, where it lies, and what is the matter as far as a scan can tell.

    `why`, where it is known, begins with the column; of a key, it is the digest that it should have.

    "entry" is a row that is as it must be, while another one, which is not, claims its place.
    """

    what: Literal["changed", "stranger", "doubled", "inserted", "entry", "key", "tenant"]
    where: str
    row: Row
    why: str = ""


class Erased(msgspec.Struct, frozen=True):
    """Parts of an entry that are gone; `digest` is its key's."""

    tenant: str
    index: int
    parts: tuple[str, ...]
    where: str


class Note(msgspec.Struct, frozen=True):
    """What an event of our own, itself as it must be, says."""

    tenant: str
    index: int
    action: str
    target: str | None
    metadata: str | None


class Unread(msgspec.Struct, frozen=True):
    """A segment whose object could not be read, and why."""

    segment: Segment
    why: str

    def __str__(self) -> str:
        return f"{self.segment.object_key}: {self.why}"


class Scan(msgspec.Struct):
    """What a scan came upon.

    `partly` are batches of which it saw some entries or none: a byte for each position, 0 where there was none. `doubtful`
    are batches that it saw whole, and that seem to be elsewhere too.
    """

    entries: int = 0
    suspects: list[Suspect] = []
    more_suspects: int = 0
    partly: dict[int, bytes] = {}
    doubtful: list[int] = []
    erased: list[Erased] = []
    notes: list[Note] = []
    findings: list[Finding] = []
    disputed: list[Segment] = []  # whose object is not the one that the manifest named in the snapshot
    unread: list[Unread] = []


class _Seen:
    """A batch, and which of its entries have been seen: 0 not, 1 as it must be, 2 otherwise."""

    __slots__ = ("batch", "hashes", "positions", "tenant", "times")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.hashes = batch.leaf_hashes
        self.tenant = batch.tenant
        self.positions = bytearray(max(0, batch.event_count))
        self.times: list[Any] = []


Known: TypeAlias = dict[int, _Seen]


def hot(connection: Connection, months: Iterable[date], scope: Scope) -> Scan:
    """Scan what PostgreSQL holds of the batches in `scope`, in the partitions of these months."""
    found, known = _hot(connection, months, scope, _times(connection, scope))
    if found.more_suspects or any(suspect.row[KEY] == rows.NO_KEY for suspect in found.suspects):
        # It may be the batches' times that were changed. So these decide how quick a scan is, and nothing else.
        found, known = _hot(connection, months, scope, None)
    absent = _close(found, known)
    archived = _archived(connection, list(absent))
    found.partly |= {id: positions for id, positions in absent.items() if id not in archived}
    return found


def _hot(
    connection: Connection, months: Iterable[date], scope: Scope, key_times: tuple[str, str] | None
) -> tuple[Scan, Known]:
    found, known = Scan(), _known(connection, scope)
    condition = _condition(scope, known)
    for month in months:
        with closing(stored(connection, month, condition, key_times)) as events:  # an error would keep it open
            compare(found, known, events, rows.partition(month))
    return found, known


def cold(connection: Connection, months: Iterable[date], segment: Segment, file: Path, scope: Scope) -> Scan:
    """Scan the object of a segment, as far as its batches are in `scope`; `file` is a copy of it."""
    from prooftrail import parquet  # loads Arrow

    found = Scan()
    known = _known(connection, scope, segment)
    wanted = None if scope.only is None else set(scope.only)
    events = (row for batch in parquet.batches(file) for row in rows.from_parquet(batch, segment.tenant))
    asked_for = events if wanted is None else (row for row in events if row[BATCH] in wanted)
    compare(found, known, with_keys(connection, asked_for), segment.object_key)
    if wanted is None and found.entries != segment.event_count:
        found.findings.append(_wrong_count(segment, found.entries))
    found.partly |= _close(found, known)
    ids = [seen.batch.id for seen in known.values() if seen.batch.id not in found.partly]
    found.doubtful = sorted(_in_partitions(connection, months, ids) | _archived(connection, ids, besides=segment.id))
    return found


def _known(connection: Connection, scope: Scope, segment: Segment | None = None) -> Known:
    """The batches that the rows in the scope, or in a segment of it, may belong to."""
    conditions = _of_tenant(scope)
    if segment is None:
        conditions += _bounds(scope, sql.Identifier("id"))
    else:
        conditions.append(_of_segments(sql.Identifier("id"), sql.SQL("id = {}").format(sql.Literal(segment.id))))
        if scope.only is not None:
            conditions.append(_among(sql.Identifier("id"), scope.only))
    return {batch.id: _Seen(batch) for batch in _batches(connection, _all_of(conditions))}


def _times(connection: Connection, scope: Scope) -> tuple[str, str] | None:
    """The earliest and the latest time of the batches in the scope, as PostgreSQL writes them; None where there are none.

    Unless somebody changed them, all keys of these batches lie between, which are soon joined.
    """
    query = sql.SQL("SELECT min(min_time)::text, max(max_time)::text FROM prooftrail.batch WHERE {}").format(
        _all_of([*_of_tenant(scope), *_bounds(scope, sql.Identifier("id"))])
    )
    least, greatest = connection.execute(query).fetchone() or (None, None)
    return None if least is None or greatest is None else (least, greatest)


def batches(connection: Connection, ids: Iterable[int]) -> dict[int, Batch]:
    """Those of the batches that there are, by id."""
    return {batch.id: batch for batch in _batches(connection, _among(sql.Identifier("id"), ids))}


def rows_at(connection: Connection, months: Iterable[date], places: Sequence[tuple[int, int]]) -> Iterator[Suspect]:
    """The rows that PostgreSQL holds of these places (batch and position), to be looked at."""
    if not places:
        return
    wanted = sql.SQL("(event.batch_id, event.position) IN (SELECT * FROM unnest({}::bigint[], {}::integer[]))").format(
        sql.Literal([batch for batch, _ in places]), sql.Literal([position for _, position in places])
    )
    for month in months:
        for row in stored(connection, month, wanted):
            yield Suspect("changed", rows.partition(month), row)


def notes(connection: Connection, months: Iterable[date], tenants: Iterable[str], action: str) -> list[Note]:
    """What our own events of an action say in these logs, as far as PostgreSQL holds them and they are as they must be."""
    found = Scan()
    own = sql.SQL("event.tenant = ANY ({}::text[]) AND event.source = {} AND event.action = {}").format(
        sql.Literal(list(tenants)), sql.Literal(OWN_SOURCE), sql.Literal(action)
    )
    for month in months:
        events = list(stored(connection, month, own))
        known = batches(connection, {row[BATCH] for row in events})
        compare(found, {id: _Seen(batch) for id, batch in known.items()}, events, rows.partition(month))
    return found.notes


def stored(
    connection: Connection,
    month: date,
    condition: sql.Composable,
    key_times: tuple[str, str] | None = None,
    limit: int | None = None,
) -> Generator[Row, None, None]:
    """The rows of a month that meet a condition, see `rows.query`.

    They are streamed: until it is at its end, or closed, the connection does nothing else.
    """
    with connection.cursor() as cursor:
        yield from cursor.stream(rows.query(month, condition, key_times, limit), binary=True, size=ROWS_AT_ONCE)


def _batches(connection: Connection, condition: sql.Composable) -> Iterator[Batch]:
    query = sql.SQL(
        """
        SELECT id, tenant, first_index, event_count, {least}, {greatest}, leaf_hashes
        FROM prooftrail.batch WHERE {condition}
        """
    ).format(
        least=rows.time_of(sql.Identifier("min_time")),
        greatest=rows.time_of(sql.Identifier("max_time")),
        condition=condition,
    )
    with connection.cursor(binary=True) as cursor:
        for row in cursor.execute(query):
            yield Batch(*row)


def _condition(scope: Scope, known: Known) -> sql.Composable:
    """Which rows of a partition are in the scope."""
    conditions = _bounds(scope, sql.Identifier("event", "batch_id"))
    if scope.tenant is not None and scope.only is None:
        of_tenant = sql.SQL("event.tenant = {}").format(sql.Literal(scope.tenant))
        batches = _among(sql.Identifier("event", "batch_id"), [seen.batch.id for seen in known.values()])
        conditions.append(sql.SQL("({} OR {})").format(of_tenant, batches))
    return _all_of(conditions)


def _of_tenant(scope: Scope) -> list[sql.Composable]:
    return [] if scope.tenant is None else [sql.SQL("tenant = {}").format(sql.Literal(scope.tenant))]


def _bounds(scope: Scope, id: sql.Composable) -> list[sql.Composable]:
    conditions: list[sql.Composable] = []
    if scope.first is not None:
        conditions.append(sql.SQL("{} >= {}").format(id, sql.Literal(scope.first)))
    if scope.end is not None:
        conditions.append(sql.SQL("{} < {}").format(id, sql.Literal(scope.end)))
    if scope.only is not None:
        conditions.append(_among(id, scope.only))
    return conditions


def _all_of(conditions: list[sql.Composable]) -> sql.Composable:
    return sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("true")


def _among(id: sql.Composable, ids: Iterable[int]) -> sql.Composable:
    return sql.SQL("{} = ANY ({}::bigint[])").format(id, sql.Literal(list(ids)))


def _of_segments(id: sql.Composable, segments: sql.Composable) -> sql.Composable:
    """That a batch is in one of these segments, unfolded once: asked row by row, a large multirange would be each time."""
    return sql.SQL(
        "{} IN (SELECT generate_series(lower(part), upper(part) - 1) FROM ("
        "SELECT unnest(batches) AS part FROM prooftrail.archive_segment WHERE {}) AS parts)"
    ).format(id, segments)


def _archived(connection: Connection, ids: list[int], besides: int = 0) -> set[int]:
    """Those of the batches of which something was archived, in another segment than `besides`."""
    if not ids:
        return set()
    segments = sql.SQL("state = 'archived' AND id <> {} AND batches && int8range({}, {}, '[]')").format(
        sql.Literal(besides), sql.Literal(min(ids)), sql.Literal(max(ids))
    )
    query = sql.SQL("SELECT id FROM unnest(%s::bigint[]) AS id WHERE {}").format(_of_segments(sql.SQL("id"), segments))
    return {id for (id,) in connection.execute(query, [ids])}


def _in_partitions(connection: Connection, months: Iterable[date], ids: list[int]) -> set[int]:
    """Those of the batches of which something is in PostgreSQL."""
    found: set[int] = set()
    for month in months:
        partition = sql.Identifier("prooftrail", rows.partition(month))
        query = sql.SQL("SELECT DISTINCT batch_id FROM {} WHERE batch_id = ANY (%s::bigint[])").format(partition)
        found |= {id for (id,) in connection.execute(query, [ids])}
    return found


def with_keys(connection: Connection, events: Iterable[Row]) -> Iterator[Row]:
    """Rows of an object, with what PostgreSQL knows of their keys, as `rows.query` reads it."""
    events = iter(events)
    while chunk := list(itertools.islice(events, KEYS_AT_ONCE)):
        keys = connection.execute(
            sql.SQL(
                """
                SELECT CASE WHEN key.id IS NULL THEN '' ELSE key.digest END, {time}
                FROM unnest(%s::text[], %s::text[], %s::text[]) WITH ORDINALITY AS wanted (tenant, id, source, place)
                LEFT JOIN prooftrail.event_key AS key USING (tenant, id, source)
                ORDER BY place
                """
            ).format(time=rows.time_of(sql.Identifier("key", "time"))),
            [[row[at] for row in chunk] for at in (_TENANT, _ID, _SOURCE)],
            binary=True,
        )
        for row, (key, time) in zip(chunk, keys, strict=True):
            yield (*row, key, None if time == row[_TIME] else time)


def _close(found: Scan, known: Known) -> dict[int, bytes]:
    """Take stock of the batches: those that were not there at all are returned, those that were in part are noted."""
    absent: dict[int, bytes] = {}
    for seen in known.values():
        positions, batch = seen.positions, seen.batch
        missing = positions.count(0)
        if missing == len(positions):
            absent[batch.id] = bytes(positions)
        elif missing:
            found.partly[batch.id] = bytes(positions).translate(_PRESENT)
        elif positions.count(1) == len(positions):
            least, greatest = min(seen.times), max(seen.times)
            if (least, greatest) != (batch.min_time, batch.max_time):
                found.findings.append(_wrong_times(batch, least, greatest))
    return absent


def _wrong_count(segment: Segment, entries: int) -> Finding:
    return Finding(
        kind="segment",
        tenant=segment.tenant,
        where=segment.object_key,
        column="event_count",
        expected=str(entries),
        found=str(segment.event_count),
    )


_PRESENT = bytes([0, *[1] * 255])


def _wrong_times(batch: Batch, least: str, greatest: str) -> Finding:
    return Finding(
        kind="batch",
        tenant=batch.tenant,
        where="batch",
        batch=batch.id,
        column="min_time" if batch.min_time != least else "max_time",
        expected=f"{least} to {greatest}",
        found=f"{batch.min_time} to {batch.max_time}",
    )


def compare(found: Scan, known: Known, events: Iterable[Row], where: str) -> None:
    """Compare rows with their batches' leaf hashes, and what PostgreSQL knows of their keys with them."""
    quick, entries = rows.quick, 0
    for row in events:
        entries += 1
        batch, position = row[BATCH], row[POSITION]
        seen = known.get(batch)
        if seen is None:
            _suspect(found, Suspect("stranger", where, row))
        elif (
            0 <= position < len(seen.positions)
            and not seen.positions[position]
            and quick(row) == (seen.hashes[position * HASH : position * HASH + HASH], row[KEY])
            and row[KEY_TIME] is None
            and row[_TENANT] == seen.tenant
        ):
            seen.positions[position] = 1
            seen.times.append(row[_TIME])
            if row[_SOURCE] == OWN_SOURCE and row[_ACTION] in NOTED:
                found.notes.append(_note(seen, position, row))
        else:
            _look(found, seen, position, row, where)
    found.entries += entries


def _look(found: Scan, seen: _Seen, position: int, row: Row, where: str) -> None:
    """Find out what is the matter with a row that is not plainly as it must be; an erasure may be all there is."""
    if not 0 <= position < len(seen.positions):
        _suspect(found, Suspect("stranger", where, row))
        return
    why = ""
    try:
        derived = rows.derive(row)
        is_entry = derived.leaf == seen.batch.leaf(position)
        if is_entry and derived.fault:
            is_entry, why = False, derived.fault
    except Unreadable as error:
        is_entry, why = False, str(error)
    earlier, now = seen.positions[position], 1 if is_entry else 2
    seen.positions[position] = min(earlier or now, now)
    if earlier:
        _suspect(found, Suspect(_of_two(earlier, now), where, row))
    elif not is_entry:
        _suspect(found, Suspect("changed", where, row, why))
    else:
        seen.times.append(row[_TIME])
        _look_at_entry(found, seen, row, where, derived)


def _of_two(earlier: int, now: int) -> Literal["changed", "doubled", "inserted", "entry"]:
    """What a row is whose place was claimed by an earlier one: 1 is the entry itself, 2 is another."""
    if now == 1:
        return "doubled" if earlier == 1 else "entry"
    return "inserted" if earlier == 1 else "changed"


def _look_at_entry(found: Scan, seen: _Seen, row: Row, where: str, derived: rows.Derived) -> None:
    """A row that is the entry it says it is: look at its tenant, its key, and which parts were erased."""
    batch, position = seen.batch, row[POSITION]
    if row[_SOURCE] == OWN_SOURCE and row[_ACTION] in NOTED:
        found.notes.append(_note(seen, position, row))
    if row[_TENANT] != batch.tenant:
        _suspect(found, Suspect("tenant", where, row))
    if derived.erased or row[KEY] is None:
        found.erased.append(Erased(batch.tenant, batch.first_index + position, derived.erased, where))
    if row[KEY_TIME] is not None or row[KEY] not in (derived.digest, None):
        _suspect(found, Suspect("key", where, row, derived.digest.hex() if derived.digest else ""))


def _suspect(found: Scan, suspect: Suspect) -> None:
    if len(found.suspects) < MOST_SUSPECTS:
        found.suspects.append(suspect)
    else:
        found.more_suspects += 1


def _note(seen: _Seen, position: int, row: Row) -> Note:
    batch = seen.batch
    return Note(batch.tenant, batch.first_index + position, row[_ACTION], row[rows.TARGET], row[AT["metadata"]])

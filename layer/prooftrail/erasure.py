"""Erasure: one person's values leave PostgreSQL, the archive and the quarantine, and every proof stays what it was.

In this order, so that at every moment what is missing is explained by an event in the log:

1. survey: which entries each archived object holds of the person, and whether its lock can be lifted; nothing changes.
2. begin, one transaction: all values in PostgreSQL go, and `privacy.erase` names every entry, those in objects too. Holds
   are looked at here, by the database; one that forbids it, or a lock that nobody can lift, refuses the whole.
3. objects: of each a version without the values is written, read back, compared and made the one to read, and all others
   are deleted; an object that never was the place to read is deleted.
4. done: the record forgets the person. `scrub` rewrites the pages in which PostgreSQL still has what nobody can ask for.

A run that is killed is taken up by the next: each step is a transaction, or leaves a version of an object that the next run
deletes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from prooftrail import segments, strict_json, system
from prooftrail.api_keys import hash_of
from prooftrail.archive_bucket import ArchiveBucket, Version
from prooftrail.database import Connection
from prooftrail.errors import ArchiveMismatch, ConfigurationError, PermanentError, RetryableError
from prooftrail.event import OWN_SOURCE, OWN_TENANT, Event, Target, own_event
from prooftrail.ledger import entry, merkle
from prooftrail.segments import Segment
from prooftrail.store import COLUMNS, from_row

if TYPE_CHECKING:
    from arro3.core import RecordBatch

Part: TypeAlias = Literal["actor", "target"]

FORBIDDEN = "PT403"  # the SQLSTATE by which the database says that a hold forbids it
_JSON = ("before", "after", "metadata")  # read as text
_CHUNK = 200  # rows erased by one statement
_RANGES = 5000  # in one event: what a log's event may hold is bounded, so a long list is several events
_SCRUB_PATIENCE = 60.0  # seconds to wait for older transactions, which may still see what is to go


class Refused(PermanentError):
    """An erasure that must not be done; nothing was changed."""


class Busy(RetryableError):
    """Somebody else is at what is to be erased; nothing was changed."""


class Forbidden(PermanentError):
    """The key may not ask for it, or not approve it."""


class Conflict(PermanentError):
    """The same is under way already, or it is too late for that step."""


class EntryDiffers(PermanentError):
    """An entry is not what its log committed to: erasing it would hide that. `prooftrail verify` tells more."""


class Erasure(msgspec.Struct, frozen=True):
    """An erasure on record; `subject_id` is the person, as long as it is not done or refused."""

    id: int
    tenant: str
    part: Part
    subject_id: str | None
    reason: str
    state: Literal["requested", "approved", "running", "done", "refused"]
    requested_by: int | None
    approved_by: int | None
    requested_at: datetime
    approved_at: datetime | None
    begun_at: datetime | None
    finished_at: datetime | None
    refusal: str | None
    entries: int
    quarantined: int
    rewritten_at: datetime | None

    def logs(self) -> list[str]:
        """The tenants whose logs may name the person: its own, and that of reads which found nobody's events."""
        return sorted({self.tenant, OWN_TENANT})


_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, Erasure.__struct_fields__))


def get(connection: Connection, id: int) -> Erasure | None:
    """The erasure of that number, None where there is none (that the connection may see)."""
    found = _listing(connection, sql.SQL("id = {}").format(sql.Literal(id)))
    return found[0] if found else None


def listing(connection: Connection) -> list[Erasure]:
    """All erasures (that the connection may see), newest first."""
    return _listing(connection, sql.SQL("true"))


def waiting(connection: Connection) -> list[Erasure]:
    """Those that are approved and not done."""
    return _listing(connection, sql.SQL("state IN ('approved', 'running')"))


def _listing(connection: Connection, condition: sql.Composable) -> list[Erasure]:
    query = sql.SQL("SELECT {} FROM prooftrail.erasure WHERE {} ORDER BY id DESC").format(_COLUMNS, condition)
    return [Erasure(*row) for row in connection.execute(query)]


def request(connection: Connection, key: str, tenant: str, part: Part, subject: str, *, reason: str) -> int:
    """Ask for an erasure with a privacy key; it waits for another one's approval. Raises `Forbidden`, `Conflict`."""
    try:
        row = connection.execute(
            "SELECT prooftrail.request_erasure(%s, %s, %s, %s, %s)", [hash_of(key), tenant, part, subject, reason]
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(error.diag.message_primary or "") from error
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"an erasure of this {part} is under way already") from error
    assert row is not None
    return int(row[0])


def approve(connection: Connection, key: str, id: int) -> None:
    """Approve an erasure with another privacy key than it was asked for with. Raises `Forbidden`, `Conflict`."""
    try:
        connection.execute("SELECT prooftrail.approve_erasure(%s, %s)", [hash_of(key), id])
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(error.diag.message_primary or "") from error
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise Conflict(error.diag.message_primary or "") from error


def order(connection: Connection, tenant: str, part: Part, subject: str, reason: str) -> int:
    """Ask for an erasure as the administrator, who needs nobody's approval; one that is under way is taken up."""
    row = connection.execute(
        """
        INSERT INTO prooftrail.erasure (tenant, part, subject_id, reason, state, approved_at)
        VALUES (%s, %s, %s, %s, 'approved', clock_timestamp())
        ON CONFLICT (tenant, part, subject_id) WHERE subject_id IS NOT NULL DO UPDATE
        SET state = CASE erasure.state WHEN 'requested' THEN 'approved' ELSE erasure.state END,
            approved_at = coalesce(erasure.approved_at, clock_timestamp())
        RETURNING id
        """,
        [tenant, part, subject, reason],
    ).fetchone()
    assert row is not None
    return int(row[0])


def execute(
    connection: Connection, bucket: ArchiveBucket | None, id: int, has_time: Callable[[], bool] = lambda: True
) -> Erasure:
    """Take an approved erasure as far as time allows; returns it as it is then.

    `bucket` may be None where nothing was ever archived. Raises `Busy` to come again, `EntryDiffers` and `ArchiveMismatch`
    where what is stored is not what the log or the manifest says.
    """
    erasure = _known(connection, id)
    try:
        while erasure.state == "approved" and has_time():
            for unknown in _begin(connection, bucket, erasure):
                if has_time():
                    _survey(connection, _needed(bucket), erasure, segments.by_id(connection, unknown))
            erasure = _known(connection, id)
    except Refused as refusal:
        _refuse(connection, erasure, str(refusal))
    if erasure.state == "running":
        for segment, work in _work_left(connection, erasure):
            if has_time():
                (_replace if work == "rewrite" else _remove)(connection, _needed(bucket), erasure, segment)
        _finish(connection, erasure)
    return _known(connection, id)


def _known(connection: Connection, id: int) -> Erasure:
    erasure = get(connection, id)
    if erasure is None:
        raise Refused(f"expected the number of an erasure, got {id}")
    return erasure


def _needed(bucket: ArchiveBucket | None) -> ArchiveBucket:
    if bucket is None:
        raise ConfigurationError(
            "PROOFTRAIL_ARCHIVE_BUCKET: expected the archive's bucket, for there are archived events to look at; "
            "without it the archive function does the erasure at its next run"
        )
    return bucket


# 1. Survey


def _survey(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    """Note which entries of the person an archived object holds. Raises `Refused` where its lock cannot be lifted."""
    indexes: list[int] = []
    persons: dict[tuple[str | None, str | None], datetime] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for batch in _object(bucket, segment, Path(scratch, "surveyed.parquet")):
            rows = _rows_of(erasure, segment.tenant, batch)
            indexes += [index for index, _ in _places(connection, batch, rows)]
            columns = [batch.column(name).to_pylist() for name in ("actor_id", "target_id", "time")]
            for row in rows:
                actor, target, at = (column[row] for column in columns)
                persons[actor, target] = max(at, persons.get((actor, target), at))
    if indexes:
        _check_locks(bucket, segment.object_key)
    seen = [[actor, target, at.isoformat()] for (actor, target), at in persons.items()]
    connection.execute(
        "SELECT prooftrail.survey_segment(%s, %s, %s::int8multirange, %s::jsonb)",
        [erasure.id, segment.id, Multirange(Range(*run) for run in _runs(indexes)), msgspec.json.encode(seen).decode()],
    )


def _object(bucket: ArchiveBucket, segment: Segment, file: Path) -> Iterator[RecordBatch]:
    """Fetch the object that is the place to read into a file, and read that."""
    from prooftrail import parquet  # loads Arrow

    version = bucket.find(segment.object_key, segment.object_version)
    if version is None or bucket.fetch(segment.object_key, version, file) != segment.object_sha256:
        raise ArchiveMismatch(f"object {segment.object_key}: expected the one that the manifest names, got another or none")
    return parquet.batches(file)


def _check_locks(bucket: ArchiveBucket, key: str) -> None:
    for version in bucket.versions(key):
        if not version.removable():
            raise Refused(f"object {key} holds such events and cannot be replaced: {_lock(version)}")


def _lock(version: Version) -> str:
    if version.legal_hold:
        return "it is under a legal hold in S3, until that is lifted"
    return (
        f"its Object Lock (COMPLIANCE) keeps it until {version.locked_until:%Y-%m-%d}, "
        "a retention duty that goes before erasure (GDPR 17(3)(b))"
    )


def _rows_of(erasure: Erasure, tenant: str, batch: RecordBatch) -> list[int]:
    """The numbers of the rows that are the person's: by its id, or, of our own events, by what they were asked about."""
    sources = batch.column("source").to_pylist()
    ids = batch.column(f"{erasure.part}_id").to_pylist()
    rows = []
    for row, (source, id) in enumerate(zip(sources, ids, strict=True)):
        if source == OWN_SOURCE:
            if _asks_about(erasure, tenant, batch.column("metadata")[row].as_py()):
                rows.append(row)
        elif id == erasure.subject_id and tenant == erasure.tenant:
            rows.append(row)
    return rows


def _asks_about(erasure: Erasure, tenant: str, metadata: str | None) -> bool:
    """What `prooftrail.asks_about` says of a row in PostgreSQL."""
    if metadata is None:
        return False
    value = strict_json.decode(metadata.encode())
    asked_of = (value.get("query") or {}).get("tenant", erasure.tenant)
    return erasure.tenant in (tenant, asked_of) and _names(value, {erasure.part, f"{erasure.part}_id"}, erasure.subject_id)


def _names(value: Any, keys: set[str], subject: str | None) -> bool:
    if isinstance(value, dict):
        return any(value.get(key) == subject for key in keys) or any(_names(item, keys, subject) for item in value.values())
    return isinstance(value, list) and any(_names(item, keys, subject) for item in value)


def _places(connection: Connection, batch: RecordBatch, rows: Sequence[int]) -> list[tuple[int, bytes]]:
    """The leaf index and the leaf hash of each of these rows."""
    if not rows:
        return []
    batch_ids, positions = batch.column("batch_id").to_pylist(), batch.column("position").to_pylist()
    found = connection.execute(
        """
        SELECT first_index + position, substring(leaf_hashes FROM position * 32 + 1 FOR 32)
        FROM unnest(%s::bigint[], %s::integer[]) WITH ORDINALITY AS wanted (batch_id, position, place)
        JOIN prooftrail.batch ON batch.id = batch_id ORDER BY place
        """,
        [[batch_ids[row] for row in rows], [positions[row] for row in rows]],
    ).fetchall()
    return [(index, leaf) for index, leaf in found]


# 2. Begin


def _begin(connection: Connection, bucket: ArchiveBucket | None, erasure: Erasure) -> list[int]:
    """Erase everything in PostgreSQL and record it, in one transaction; or return the segments to survey first.

    Raises `Refused` where a hold forbids it, `Busy` where a run of the archive is at these events.
    """
    try:
        with connection.transaction():
            unknown = [id for (id,) in connection.execute("SELECT prooftrail.begin_erasure(%s)", [erasure.id])]
            if unknown:
                return unknown
            entries = {log: list(_erase_log(connection, erasure, log)) for log in erasure.logs()}
            connection.execute("SELECT prooftrail.erase_quarantine(%s)", [erasure.id])
            for segment, work in _work_left(connection, erasure):
                if work == "remove":
                    _check_locks(_needed(bucket), segment.object_key)
            system.record(connection, *_erased_events(connection, erasure, entries))
            # Commit. Before it nothing has changed; after it the log explains every value that is gone, and every one that
            # is still to go from an object.
    except psycopg.errors.LockNotAvailable as error:
        raise Busy(f"erasure {erasure.id}: {error.diag.message_primary}") from error
    except psycopg.DatabaseError as error:
        if error.sqlstate != FORBIDDEN:
            raise
        raise Refused(error.diag.message_primary or "") from error
    return []


def _erase_log(connection: Connection, erasure: Erasure, log: str) -> Iterator[int]:
    """Erase the person's entries in a log's hot months; yields their leaf indexes."""
    for month in segments.months(connection):
        with connection.cursor(name="erased") as cursor:
            cursor.itersize = _CHUNK
            cursor.execute(_hot_query(erasure, month, log))
            for rows in _chunks(cursor):
                _erase(connection, erasure, month, log, rows)
                yield from (row[-2] for row in rows)


def _hot_query(erasure: Erasure, month: date, log: str) -> sql.Composed:
    """The person's rows of a month, newest first, each with its leaf index and leaf hash."""
    columns = [sql.SQL("{0}::text" if name in _JSON else "{0}").format(sql.Identifier("event", name)) for name in COLUMNS]
    return sql.SQL(
        """
        SELECT {columns}, salt, commitments, first_index + position, substring(leaf_hashes FROM position * 32 + 1 FOR 32)
        FROM (
            SELECT * FROM {partition} WHERE {log} = {tenant} AND tenant = {log} AND {id} = {subject} AND source <> {own}
            UNION ALL
            SELECT * FROM {partition} WHERE tenant = {log} AND source = {own}
                AND prooftrail.asks_about(metadata, {part}, {subject})
                AND ({log} = {tenant} OR coalesce(metadata -> 'query' ->> 'tenant', {tenant}) = {tenant})
        ) AS event JOIN prooftrail.batch ON batch.id = batch_id
        ORDER BY time DESC, batch_id DESC, position DESC
        """
    ).format(
        columns=sql.SQL(", ").join(columns),
        partition=sql.Identifier("prooftrail", f"event_{month:%Y_%m}"),
        log=sql.Literal(log),
        tenant=sql.Literal(erasure.tenant),
        id=sql.Identifier(f"{erasure.part}_id"),
        subject=sql.Literal(erasure.subject_id),
        own=sql.Literal(OWN_SOURCE),
        part=sql.Literal(erasure.part),
    )


def _chunks(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    chunk: list[tuple[Any, ...]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _erase(connection: Connection, erasure: Erasure, month: date, log: str, rows: Sequence[tuple[Any, ...]]) -> None:
    batch_ids, positions = [row[2] for row in rows], [row[3] for row in rows]
    kept = [_commitments(row[: len(COLUMNS)], row[-4], row[-3], row[-1]) for row in rows]
    connection.execute(
        "SELECT prooftrail.erase_entries(%s, %s, %s, %s::bigint[], %s::integer[], %b::bytea[])",
        [erasure.id, month, log, batch_ids, positions, kept],
    )


def _commitments(columns: Sequence[Any], salts: bytes, kept: bytes | None, leaf: bytes) -> bytes:
    """What the leaf needs of the parts that go (96 bytes), once it is seen that the leaf is made of them."""
    statement = _parsed(from_row(columns)).statement()
    of = entry.commitments(statement, salts, kept)
    if merkle.leaf_hash(entry.header(statement.public, of)) != leaf:
        raise EntryDiffers(
            f"event {columns[4]!a} of {columns[5]!a}: expected what the log committed to, found another content"
        )
    return entry.pack(of)


def _parsed(event: Event) -> Event:
    values = {name: strict_json.decode(bytes(raw)) for name in _JSON if (raw := getattr(event, name)) is not None}
    return msgspec.structs.replace(event, **values)


def _erased_events(connection: Connection, erasure: Erasure, entries: dict[str, list[int]]) -> Iterator[Event]:
    """`privacy.erase` for every log that lost values: which entries, which parts and why, but never who."""
    surveyed = connection.execute(
        """
        SELECT tenant, entries FROM prooftrail.erasure_segment JOIN prooftrail.archive_segment ON id = segment_id
        WHERE erasure_id = %s AND work = 'rewrite'
        """,
        [erasure.id],
    )
    for log, multirange in surveyed:
        entries[log] += [index for item in multirange for index in range(item.lower, item.upper)]
    for log, indexes in entries.items():
        ranges = [[first, end - 1] for first, end in _runs(indexes)]
        for first in range(0, len(ranges), _RANGES) or ([0] if log == erasure.tenant else []):
            said = {
                "entries": ranges[first : first + _RANGES],
                "parts": [erasure.part, "private"],
                "reason": erasure.reason,
            }
            yield _event("privacy.erase", erasure, log, **said)


def _event(action: str, erasure: Erasure, log: str, **said: Any) -> Event:
    target = Target(type="erasure", id=str(erasure.id))
    return own_event(action, tenant=log, target=target, metadata={"erasure": erasure.id, **said})


def _runs(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """The indexes as ranges, each as long as can be: the first, and the one after the last."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _refuse(connection: Connection, erasure: Erasure, why: str) -> None:
    with connection.transaction():
        connection.execute("SELECT prooftrail.refuse_erasure(%s, %s)", [erasure.id, why])
        said = {"reason": erasure.reason, "refusal": why}
        system.record(connection, _event("privacy.refuse", erasure, erasure.tenant, **said))


# 3. Objects


def _work_left(connection: Connection, erasure: Erasure) -> list[tuple[Segment, str]]:
    rows = connection.execute(
        "SELECT segment_id, work FROM prooftrail.erasure_segment WHERE erasure_id = %s AND done_at IS NULL ORDER BY 1",
        [erasure.id],
    ).fetchall()
    return [(segments.by_id(connection, id), work) for id, work in rows]


def _replace(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    """Put a version without the values in the place of the object, then delete every other version of it."""
    with connection.transaction():
        if not segments.lock(connection, segment.id):
            raise Busy(f"erasure {erasure.id}: another one is at segment {segment.id}")
        segment = segments.by_id(connection, segment.id)
        if not _is_replaced(connection, erasure, segment):
            _write_version(connection, bucket, erasure, segment)
        # Commit. The new version is durable and is the one to read. A crash before leaves it unknown: the next run writes
        # another, and deletes it with the first.
    segment = segments.by_id(connection, segment.id)
    for version in bucket.versions(segment.object_key):
        if version.id != segment.object_version:
            bucket.remove(segment.object_key, version)
    connection.execute("SELECT prooftrail.finish_segment(%s, %s)", [erasure.id, segment.id])


def _is_replaced(connection: Connection, erasure: Erasure, segment: Segment) -> bool:
    replaced = connection.execute(
        "SELECT FROM prooftrail.erasure_segment WHERE erasure_id = %s AND segment_id = %s AND replaced_at IS NOT NULL",
        [erasure.id, segment.id],
    )
    return replaced.fetchone() is not None


def _write_version(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    from prooftrail import parquet  # loads Arrow

    with tempfile.TemporaryDirectory() as scratch:
        former, written, fetched = (Path(scratch, f"{name}.parquet") for name in ("former", "written", "fetched"))
        erased: list[tuple[str, str]] = []
        row_group = parquet.rows_in_a_group(segment.event_count, segment.stored_bytes)
        without = _without(connection, erasure, segment, _object(bucket, segment, former), erased)
        parquet.rewrite(former, without, written, segment.footer(), row_group)
        locked = bucket.find(segment.object_key, segment.object_version)
        assert locked is not None
        id = bucket.replace(segment.object_key, written, locked)
        written.unlink()  # before the other comes: there is room for two
        version = bucket.find(segment.object_key, id)
        assert version is not None
        sha256 = bucket.fetch(segment.object_key, version, fetched)
        without = _without(connection, erasure, segment, parquet.batches(former), [])
        if parquet.count_equal_rows(without, fetched) != segment.event_count:
            raise ArchiveMismatch(f"object {segment.object_key}: expected the former rows but for the erased values")
        _check_leaves(connection, segment, parquet.batches(fetched))
        connection.execute(
            "SELECT prooftrail.replace_object(%s, %s, %s, %s, %s, %s::text[], %s::text[])",
            [erasure.id, segment.id, version.size, sha256, version.id, [id for id, _ in erased], [of for _, of in erased]],
        )


def _without(
    connection: Connection,
    erasure: Erasure,
    segment: Segment,
    batches: Iterable[RecordBatch],
    erased: list[tuple[str, str]],
) -> Iterator[RecordBatch]:
    """The batches without the person's values; ids and sources of the events that lost some go into `erased`."""
    from prooftrail import parquet  # loads Arrow

    for batch in batches:
        rows = _rows_of(erasure, segment.tenant, batch)
        if not rows:
            yield batch
            continue
        events = dict(zip(rows, parquet.rows(batch, rows, COLUMNS, {"tenant": segment.tenant}), strict=True))
        erased += [(columns[4], columns[5]) for columns in events.values()]
        by_id = {row for row, columns in events.items() if columns[5] != OWN_SOURCE}
        salts, kept = batch.column("salt").to_pylist(), batch.column("commitments").to_pylist()
        places = zip(rows, _places(connection, batch, rows), strict=True)
        yield parquet.changed(
            batch,
            nulls={name: set(rows) for name in entry.PRIVATE} | {f"{erasure.part}_id": by_id},
            values={
                "salt": {row: _salts_left(salts[row], erasure.part if row in by_id else None) for row in rows},
                "commitments": {row: _commitments(events[row], salts[row], kept[row], leaf) for row, (_, leaf) in places},
            },
        )


def _salts_left(salts: bytes, part: Part | None) -> bytes:
    """The salts but those of the private part and of `part`."""
    actor, target = salts[: entry.SALT], salts[entry.SALT : 2 * entry.SALT]
    return (entry.ERASED if part == "actor" else actor) + (entry.ERASED if part == "target" else target) + entry.ERASED


def _check_leaves(connection: Connection, segment: Segment, batches: Iterable[RecordBatch]) -> None:
    """See that every entry of which something was erased still derives its leaf."""
    from prooftrail import parquet  # loads Arrow

    for batch in batches:
        salts, kept = batch.column("salt").to_pylist(), batch.column("commitments").to_pylist()
        rows = [row for row, commitments in enumerate(kept) if commitments is not None]
        events = parquet.rows(batch, rows, COLUMNS, {"tenant": segment.tenant})
        for row, columns, (_, leaf) in zip(rows, events, _places(connection, batch, rows), strict=True):
            _commitments(columns, salts[row], kept[row], leaf)


def _remove(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    """Delete what was written for a segment that is abandoned."""
    for version in bucket.versions(segment.object_key):
        bucket.remove(segment.object_key, version)
    connection.execute("SELECT prooftrail.finish_segment(%s, %s)", [erasure.id, segment.id])


# 4. Done


def _finish(connection: Connection, erasure: Erasure) -> None:
    with connection.transaction():
        row = connection.execute("SELECT prooftrail.finish_erasure(%s)", [erasure.id]).fetchone()
        if row is not None and row[0]:
            said = {"entries": erasure.entries, "quarantined": erasure.quarantined}
            system.record(connection, _event("privacy.done", erasure, erasure.tenant, **said))


def scrub(connection: Connection, patience: float = _SCRUB_PATIENCE) -> list[date]:
    """Rewrite the pages that held erased values, as the owner of the tables; returns the months.

    An erased row is a dead version in a page and a free gap after VACUUM, but in no page after VACUUM FULL, which lets
    nobody read or write that month meanwhile. Raises `Busy` where older transactions may still see such versions.
    """
    erased = connection.execute(
        "SELECT id, months FROM prooftrail.erasure WHERE begun_in IS NOT NULL AND state = 'done' AND rewritten_at IS NULL"
    ).fetchall()
    if not erased:
        return []
    _wait_for_older_transactions(connection, patience)
    months = sorted({month for _, of_erasure in erased for month in of_erasure} & set(segments.months(connection)))
    tables = [f"event_{month:%Y_%m}" for month in months]
    try:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(f"{patience:.0f}s"))
        for table in [*tables, "quarantine", "hold", "erasure_segment", "erasure"]:
            connection.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(sql.Identifier("prooftrail", table)))
    except psycopg.errors.LockNotAvailable as error:
        raise Busy(f"{table} was in use for {patience:.0f} s on end: come again when it is not") from error
    finally:
        connection.execute("RESET lock_timeout")
    connection.execute("VACUUM prooftrail.event_key")  # of all tenants and times; what went from it were digests
    connection.execute(
        "UPDATE prooftrail.erasure SET rewritten_at = clock_timestamp() WHERE id = ANY(%s)", [[id for id, _ in erased]]
    )
    return months


def _wait_for_older_transactions(connection: Connection, patience: float) -> None:
    """Wait for every transaction that may still see old rows: VACUUM FULL would copy these for it."""
    deadline = time.monotonic() + patience
    row = connection.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
    assert row is not None
    while True:
        older = connection.execute(
            """
            SELECT FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND (datname IS NULL OR datname = current_database())
                AND greatest(age(backend_xmin), age(backend_xid)) > age(%s::xid)
            """,
            row,
        )
        if older.fetchone() is None:
            return
        if time.monotonic() > deadline:
            raise Busy("transactions that began before the erasure still run and see the old rows: come again after them")
        time.sleep(0.2)

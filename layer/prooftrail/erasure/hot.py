"""The values in PostgreSQL: all of them go in one transaction, which says so in the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from typing import Any

import psycopg
from psycopg import sql

from prooftrail import segments, system
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.erasure import cold
from prooftrail.erasure.record import Busy, Erasure, Refused
from prooftrail.erasure.rows import commitments, runs
from prooftrail.event import OWN_SOURCE, Event, Target, own_event
from prooftrail.store import COLUMNS, JSON_COLUMNS

FORBIDDEN = "PT403"  # the SQLSTATE by which the database says that a hold forbids it
_CHUNK = 200  # rows erased by one statement
_RANGES = 5000  # in one event: what a log's event may hold is bounded, so a long list is several events


def begin(connection: Connection, bucket: ArchiveBucket | None, erasure: Erasure) -> list[int]:
    """Erase everything in PostgreSQL and record it, in one transaction; or return the segments to survey first.

    Raises `Refused` where a hold forbids it, `Busy` where a run of the archive is at these events, or another has begun it.
    """
    try:
        with connection.transaction():
            unknown = [id for (id,) in connection.execute("SELECT prooftrail.begin_erasure(%s)", [erasure.id])]
            if unknown:
                return unknown
            # Before the events, as a replay locks its record before it stores them.
            connection.execute("SELECT prooftrail.erase_quarantine(%s)", [erasure.id])
            entries = {log: list(_erase_log(connection, erasure, log)) for log in erasure.logs()}
            for segment, work in cold.work_left(connection, erasure):
                if work == "remove":
                    cold.check_locks(cold.needed(bucket), segment.object_key)
            system.record(connection, *_erased_events(connection, erasure, entries))
            # Commit. Before it nothing has changed; after it the log explains every value that is gone, and every one that
            # is still to go from an object.
    except (psycopg.errors.LockNotAvailable, psycopg.errors.ObjectNotInPrerequisiteState) as error:
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
    columns = [
        sql.SQL("{0}::text" if name in JSON_COLUMNS else "{0}").format(sql.Identifier("event", name)) for name in COLUMNS
    ]
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
    kept = [commitments(row[: len(COLUMNS)], row[-4], row[-3], row[-1]) for row in rows]
    connection.execute(
        "SELECT prooftrail.erase_entries(%s, %s, %s, %s::bigint[], %s::integer[], %b::bytea[])",
        [erasure.id, month, log, batch_ids, positions, kept],
    )


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
        ranges = [[first, end - 1] for first, end in runs(indexes)]
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


def refuse(connection: Connection, erasure: Erasure, why: str) -> None:
    """End an erasure that must not be done, and record why."""
    with connection.transaction():
        connection.execute("SELECT prooftrail.refuse_erasure(%s, %s)", [erasure.id, why])
        said = {"reason": erasure.reason, "refusal": why}
        system.record(connection, _event("privacy.refuse", erasure, erasure.tenant, **said))


def finish(connection: Connection, erasure: Erasure) -> None:
    """End an erasure and record that it is done, unless objects are left."""
    with connection.transaction():
        row = connection.execute("SELECT prooftrail.finish_erasure(%s)", [erasure.id]).fetchone()
        if row is not None and row[0]:
            said = {"entries": erasure.entries, "quarantined": erasure.quarantined}
            system.record(connection, _event("privacy.done", erasure, erasure.tenant, **said))

"""The archive function: on a schedule, makes partitions ahead, erases, and moves old months to Parquet on S3.

A month goes through `segments`: planned, written, read back and compared, and only then dropped from PostgreSQL. Each step
leaves a trace that the next run takes up, so a run may be killed anywhere.
"""

from __future__ import annotations

import functools
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
from aws_lambda_powertools.utilities.typing import LambdaContext

from prooftrail import erasure, parquet, segments, settings
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection, Database, login
from prooftrail.errors import ArchiveFailed, ArchiveMismatch
from prooftrail.segments import Segment
from prooftrail.telemetry import MetricUnit, logger, metrics

MONTHS_AHEAD = 3
PATIENCE = 60.0  # seconds to wait for the database to wake up
SAFETY = 60.0  # seconds that must be left to begin another segment
DROP_TRIES = 20  # at a partition that others are using, half a second each
ROUNDS = 5  # of planning one month, in which events keep coming


@logger.inject_lambda_context
@metrics.log_metrics
def handler(_event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run once; says which months left PostgreSQL and which still wait, with the events archived, and what was erased.

    Raises `ArchiveFailed`, at the end, where a month or an erasure failed: the others did not wait for it.
    """
    today = datetime.now(UTC).date()
    create_partitions(_connection(), today)
    failures: dict[str, Exception] = {}
    erased = erase(context, failures)
    archived: list[str] = []
    waiting: list[str] = []
    moved = 0
    for month in due(segments.months(_connection()), today, _settings().retention_months):
        name = f"{month:%Y-%m}"
        try:
            events = archive_month(_connection(), month, context)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one month, the next may be well
            _note(failures, name, error)
        else:
            (waiting if events is None else archived).append(name)
            moved += events or 0
    metrics.add_metric("Archived", MetricUnit.Count, moved)
    summary = {"archived": archived, "waiting": waiting, "events": moved, "erased": erased}
    logger.info("archive run ended", extra=summary)
    if failures:
        told = "; ".join(f"{name}: {error}" for name, error in failures.items())
        raise ArchiveFailed(told) from next(iter(failures.values()))
    return summary


def erase(context: LambdaContext, failures: dict[str, Exception]) -> list[int]:
    """Execute the erasures that are approved, before anything is archived; the numbers of those that are done."""
    done = []
    for item in erasure.waiting(_connection()):
        try:
            result = erasure.execute(_connection(), _bucket(), item.id, lambda: _has_time(context))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with one, the next may be well
            _note(failures, f"erasure {item.id}", error)
        else:
            done += [item.id] if result.state == "done" else []
    return done


def _note(failures: dict[str, Exception], name: str, error: Exception) -> None:
    logger.error("failed, and the run goes on", exc_info=error, extra={"failed": name})
    failures[name] = error


def _has_time(context: LambdaContext) -> bool:
    return context.get_remaining_time_in_millis() / 1000 >= SAFETY


def create_partitions(connection: Connection, today: date) -> None:
    """Make this month's partition and those of the next months, so that ingest seldom has to."""
    for ahead in range(MONTHS_AHEAD + 1):
        connection.execute("SELECT prooftrail.create_partition(%s)", [add_months(today, ahead)])


def due(months: list[date], today: date, retention_months: int) -> list[date]:
    """The months that are older than the retention: with 12, November 2026 leaves October 2025 and all before."""
    return [month for month in months if month < add_months(today, -retention_months)]


def add_months(day: date, months: int) -> date:
    """The first day of the month that is so many months after the day's own."""
    years, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return date(years, month + 1, 1)


def archive_month(connection: Connection, month: date, context: LambdaContext) -> int | None:
    """Take one month as far as time allows; the number of events that left with it once it is dropped, else None.

    None too where another run is at work on it. Raises `ArchiveMismatch` where an object is not what PostgreSQL holds:
    somebody has to look, and nothing is dropped.
    """
    for _ in range(ROUNDS):
        try:
            pending = segments.plan(connection, month, _settings().segment_rows, _settings().segment_bytes)
        except psycopg.errors.UndefinedTable:
            return 0  # another run dropped it since the months were listed
        for segment in pending:
            if not _has_time(context):
                return None
            if segment.state == "planned" and not archive_segment(connection, segment):
                return None
        moved = _drop(connection, month)
        if moved is not None:
            return moved
        # Late events arrived since the plan was made: they get a segment of their own.
    return None


def archive_segment(connection: Connection, segment: Segment) -> bool:
    """Write the segment's object unless it is there, read it back from S3, compare it with PostgreSQL, say so.

    False where another run is at it. The transaction holds the claim and, at its end, the result: nothing else is in it.
    """
    with connection.transaction(), tempfile.TemporaryDirectory() as scratch:
        if not segments.claim(connection, segment):
            return False
        written, fetched = Path(scratch, "written.parquet"), Path(scratch, "fetched.parquet")
        if _bucket().find(segment.object_key) is None:
            _write(segment, written)
            _bucket().put(segment.object_key, written)
            written.unlink()  # before the other comes: there is room for one
            # The object is durable. A crash here leaves it under a name that only this segment uses: the next run finds it.
        version = _bucket().find(segment.object_key)
        assert version is not None
        sha256 = _bucket().fetch(segment.object_key, version, fetched)
        assert sha256 is not None
        events = _equal_rows(segment, fetched)
        segments.mark_verified(connection, segment, events, version, sha256)
        # Commit. Before it the segment is planned as it was, and whoever comes next finds the object.
    return True


def _write(segment: Segment, file: Path) -> None:
    row_group = parquet.rows_in_a_group(segment.event_count, segment.stored_bytes)
    with parquet.rows_of(login(_settings()), segments.rows_query(segment)) as rows:
        parquet.write(rows, file, segment.footer(), row_group)


def _equal_rows(segment: Segment, fetched: Path) -> int:
    with parquet.rows_of(login(_settings()), segments.rows_query(segment)) as rows:
        equal = parquet.count_equal_rows(rows, fetched)
    if equal != segment.event_count:
        raise ArchiveMismatch(
            f"object {segment.object_key}: expected exactly the {segment.event_count} events that PostgreSQL holds, "
            f"got {'other content' if equal is None else f'{equal} equal ones'}; keep the object and compare it by hand"
        )
    return equal


def _drop(connection: Connection, month: date) -> int | None:
    """Hand the month over, waiting for a moment in which nobody uses the partition."""
    for _ in range(DROP_TRIES):
        try:
            return segments.drop_archived(connection, month)
        except psycopg.errors.LockNotAvailable:
            time.sleep(0.5)
    raise psycopg.errors.LockNotAvailable(f"the partition of {month:%Y-%m} was in use at each of {DROP_TRIES} tries")


@functools.cache
def _settings() -> settings.ArchiveSettings:
    return settings.read(settings.ArchiveSettings)


@functools.cache
def _database() -> Database:
    return Database(_settings())


def _connection() -> Connection:
    """The connection, or a new one where a failure broke it."""
    return _database().connection(PATIENCE)


@functools.cache
def _bucket() -> ArchiveBucket:
    return ArchiveBucket(_settings().prooftrail_archive_bucket)

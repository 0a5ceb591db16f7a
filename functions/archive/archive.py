"""The archive function: on a schedule, makes partitions ahead and moves months older than the retention to Parquet on S3.

A month goes through `segments`: planned, written, read back and compared, and only then dropped from PostgreSQL. Each step
leaves a trace that the next run takes up, so a run may be killed anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from aws_lambda_powertools.utilities.typing import LambdaContext

from prooftrail import parquet, segments, settings
from prooftrail.database import Connection, Database, login
from prooftrail.errors import ArchiveMismatch
from prooftrail.segments import Segment
from prooftrail.telemetry import MetricUnit, logger, metrics

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MONTHS_AHEAD = 3
PATIENCE = 60.0  # seconds to wait for the database to wake up
SAFETY = 60.0  # seconds that must be left to begin another segment
DROP_TRIES = 20  # at a partition that others are using, half a second each


@logger.inject_lambda_context
@metrics.log_metrics
def handler(_event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run once; says which months left PostgreSQL and which still wait, with the events archived."""
    connection = _database().connection(PATIENCE)
    today = datetime.now(UTC).date()
    create_partitions(connection, today)
    archived, waiting, moved = [], [], 0
    for month in due(segments.months(connection), today, _settings().retention_months):
        events = archive_month(connection, month, context)
        if events is None:
            waiting.append(f"{month:%Y-%m}")
        else:
            archived.append(f"{month:%Y-%m}")
            moved += events
    metrics.add_metric("Archived", MetricUnit.Count, moved)
    logger.info("archive run ended", extra={"archived": archived, "waiting": waiting, "events": moved})
    return {"archived": archived, "waiting": waiting, "events": moved}


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
    """Take one month as far as time allows; the number of its events once it is dropped, else None.

    Raises `ArchiveMismatch` where an object is not what PostgreSQL holds: somebody has to look, and nothing is dropped.
    """
    while True:
        pending = segments.plan(connection, month, _settings().segment_rows)
        for segment in pending:
            if segment.state == "planned":
                if context.get_remaining_time_in_millis() / 1000 < SAFETY:
                    return None
                archive_segment(connection, segment)
        if _drop(connection, month):
            return sum(segment.event_count for segment in pending)
        if context.get_remaining_time_in_millis() / 1000 < SAFETY:
            return None
        # Late events arrived since the plan was made: they get a segment of their own.


def archive_segment(connection: Connection, segment: Segment) -> None:
    """Write the segment's object unless it is there, read it back from S3, compare it with PostgreSQL, say so."""
    query = segments.rows_query(segment)
    with tempfile.TemporaryDirectory() as scratch:
        written, fetched = Path(scratch, "written.parquet"), Path(scratch, "fetched.parquet")
        if not _exists(segment.object_key):
            with parquet.rows_of(login(_settings()), query) as rows:
                parquet.write(rows, written, _footer(segment))
            _upload(written, segment)
            # The object is durable. A crash here leaves it under a name that only this segment uses: the next run finds it.
        _s3().download_file(_settings().prooftrail_archive_bucket, segment.object_key, str(fetched))
        with parquet.rows_of(login(_settings()), query) as rows:
            equal = parquet.count_equal_rows(rows, fetched)
        if equal != segment.event_count:
            raise ArchiveMismatch(
                f"object {segment.object_key}: expected exactly the {segment.event_count} events that PostgreSQL holds, "
                f"got {'other content' if equal is None else f'{equal} equal ones'}; keep the object and compare it by hand"
            )
        with fetched.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").digest()
        segments.mark_verified(connection, segment, fetched.stat().st_size, sha256)


def _footer(segment: Segment) -> dict[str, str]:
    return {
        "prooftrail.tenant": segment.tenant,
        "prooftrail.month": f"{segment.month:%Y-%m}",
        "prooftrail.segment": str(segment.id),
        "prooftrail.events": str(segment.event_count),
    }


def _exists(key: str) -> bool:
    listing = _s3().list_objects_v2(Bucket=_settings().prooftrail_archive_bucket, Prefix=key, MaxKeys=1)
    return any(item["Key"] == key for item in listing.get("Contents", []))


def _upload(file: Path, segment: Segment) -> None:
    """Put the object whole or not at all, never over another one: a run beside us may have been quicker."""
    from botocore.exceptions import ClientError

    try:
        with file.open("rb") as body:
            _s3().put_object(
                Bucket=_settings().prooftrail_archive_bucket,
                Key=segment.object_key,
                Body=body,
                ContentType="application/vnd.apache.parquet",
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
            )
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise


def _drop(connection: Connection, month: date) -> bool:
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


@functools.cache
def _s3() -> S3Client:
    import boto3

    return boto3.client("s3")

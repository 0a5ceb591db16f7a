"""The ingest function: an SQS batch in, the messages to redeliver out.

Every record ends as stored, duplicate or quarantined, in one transaction; only a database that stays away makes it fail,
and then the whole batch comes again. Nothing is acknowledged before the commit.
"""

from __future__ import annotations

import functools
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from aws_lambda_powertools.utilities.typing import LambdaContext

import sources
from prooftrail import formats, settings
from prooftrail.database import Database
from prooftrail.errors import DatabaseUnavailable
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from prooftrail.store import Store, Tally
from prooftrail.telemetry import MetricUnit, logger, metrics

# After a failover a warm connection may lead to what is now a reader; a new one leads to the writer.
_PASSING = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)

RESERVE = 5.0  # seconds of the function's time kept back for answering


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ingest one batch; the answer names the messages that must come again (SQS partial batch response)."""
    records = sources.from_sqs(event)
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE
    try:
        tally = _writer().append(*_read(records), deadline)
    except DatabaseUnavailable as error:
        logger.error("batch will be redelivered", extra={"records": len(records), "cause": str(error)})
        metrics.add_metric("Redelivered", MetricUnit.Count, len(records))
        return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in event["Records"]]}
    _report(len(records), tally)
    return {"batchItemFailures": []}


def _read(records: list[RawRecord]) -> tuple[list[Accepted], list[Rejected]]:
    latest = datetime.now(UTC) + timedelta(hours=_settings().max_future_hours)
    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    for record in records:
        for outcome in formats.read(record, latest, _defaults()):
            if isinstance(outcome, Accepted):
                accepted.append(outcome)
            else:
                rejected.append(outcome)
    return accepted, rejected


class _Writer:
    """Appends with patience: a fault that passes is waited out while the function has time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store: Store | None = None

    def append(self, accepted: list[Accepted], rejected: list[Rejected], deadline: float) -> Tally:
        """Append, again if the connection breaks: what the broken one may have committed is found as duplicates.

        Raises `DatabaseUnavailable` when the deadline (on `time.monotonic`) has passed.
        """
        while True:
            connection = self._database.connection(patience=max(0.0, deadline - time.monotonic()))
            if self._store is None or not self._store.uses(connection):
                self._store = Store(connection)
            try:
                return self._store.append(accepted, rejected)
            except _PASSING as error:
                self._database.discard()
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(f"PostgreSQL failed until the time was up: {error}") from error
                logger.warning("appending again", extra={"cause": str(error)})
                time.sleep(0.1)


def _report(records: int, tally: Tally) -> None:
    logger.info(
        "batch committed",
        extra={"records": records, "stored": tally.stored, "duplicate": tally.duplicate, "quarantined": tally.quarantined},
    )
    metrics.add_metric("Stored", MetricUnit.Count, tally.stored)
    metrics.add_metric("Duplicate", MetricUnit.Count, tally.duplicate)
    metrics.add_metric("Quarantined", MetricUnit.Count, tally.quarantined)


@functools.cache
def _settings() -> settings.IngestSettings:
    return settings.read(settings.IngestSettings)


@functools.cache
def _defaults() -> Defaults:
    return Defaults.parse(_settings().default_tenant, _settings().default_formats)


@functools.cache
def _writer() -> _Writer:
    return _Writer(Database(_settings()))

"""What the handlers of all sources do: read records, append what they hold with patience, say how many ended how."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg

from prooftrail import formats, settings
from prooftrail.database import Connection, Database
from prooftrail.errors import DatabaseUnavailable, RetryableError
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from prooftrail.store import Receipt, Store
from prooftrail.telemetry import MetricUnit, logger, metrics

# After a failover a warm connection may lead to what is now a reader; a new one leads to the writer.
PASSING = (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)
OUR_FAULT = "reader-failed"  # the reason why a record is quarantined that is perhaps an event


def outcomes(record: RawRecord, latest: datetime) -> list[Accepted | Rejected]:
    """Read one record; see `formats.read`. What makes that fail, for a fault of ours, is rejected as `OUR_FAULT`."""
    try:
        return list(formats.read(record, latest, defaults()))
    except RetryableError:
        raise
    except Exception as error:  # noqa: BLE001  # it would hold up all that comes behind
        logger.exception("a record could not be read", extra={"origin": record.origin})
        return [Rejected(record, OUR_FAULT, f"reading it failed, replay it after an update: {error!r}")]


class Writer:
    """Appends with patience: a fault that passes is waited out while the function has time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store: Store | None = None

    def append(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected], deadline: float) -> list[Receipt]:
        """Append, again if the connection breaks: what the broken one may have committed is found as duplicates.

        Raises `DatabaseUnavailable` when the deadline (on `time.monotonic`) has passed.
        """
        while True:
            store = self.store(deadline)
            try:
                return store.append(accepted, rejected)
            except PASSING as error:
                self.discard()
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(f"PostgreSQL failed until the time was up: {error}") from error
                logger.warning("appending again", extra={"cause": str(error)})
                time.sleep(0.1)

    def store(self, deadline: float) -> Store:
        """The store on a connection that is seen to be alive. Raises `DatabaseUnavailable` after the deadline."""
        connection = self.connection(deadline)
        if self._store is None or not self._store.uses(connection):
            self._store = Store(connection)
        return self._store

    def connection(self, deadline: float) -> Connection:
        """A connection that is seen to be alive. Raises `DatabaseUnavailable` after the deadline."""
        return self._database.connection(patience=max(0.0, deadline - time.monotonic()))

    def discard(self) -> None:
        """Forget the connection: it broke, or what it is in the middle of is unknown."""
        self._database.discard()


def report(records: int, receipts: Sequence[Receipt], rejected: Sequence[Rejected]) -> None:
    """Log one line about a committed batch, and count."""
    counts = Counter(receipt.status for receipt in receipts)
    stored, duplicate, quarantined = counts["stored"], counts["duplicate"], counts["quarantined"] + len(rejected)
    logger.info(
        "batch committed",
        extra={"records": records, "stored": stored, "duplicate": duplicate, "quarantined": quarantined},
    )
    metrics.add_metric("Stored", MetricUnit.Count, stored)
    metrics.add_metric("Duplicate", MetricUnit.Count, duplicate)
    metrics.add_metric("Quarantined", MetricUnit.Count, quarantined)


def latest_time() -> datetime:
    """The furthest time that an event may carry."""
    return datetime.now(UTC) + timedelta(hours=own_settings().max_future_hours)


@functools.cache
def own_settings() -> settings.IngestSettings:
    """What the function was told by its environment."""
    return settings.read(settings.IngestSettings)


@functools.cache
def defaults() -> Defaults:
    """What stands in where a record does not say."""
    own = own_settings()
    return Defaults.parse(own.default_tenant, own.default_formats, own.default_timezone)


@functools.cache
def writer() -> Writer:
    """What the function writes with."""
    return Writer(Database(own_settings()))

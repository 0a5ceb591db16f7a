"""The ingest function: a batch of SQS, Kafka or RabbitMQ in, what must be redelivered out.

Every record ends as stored, duplicate or quarantined, in one transaction. Nothing is acknowledged before the commit, and
only two things make a record come again: a database that stays away, which means all of the batch, and something else that
is needed to read it and cannot be had at the moment, such as a schema registry, which means that record and, where records
are in order, what follows it. How the broker hears of it:

- SQS: the answer names the messages (partial batch response).
- Kafka: the function raises, and the mapping sends the batch again; offsets are committed for whole batches only. Where
  the mapping has ``ReportBatchItemFailures`` and KAFKA_PARTIAL_FAILURES says so, the answer names the records. (A mapping
  without it would take any answer for success and commit the offsets of what was not stored.)
- RabbitMQ: the function raises. What was stored of the batch is found as duplicates when it comes again.

So a record that can never be stored must never raise: it would come again for ever and keep others from coming.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

import envelopes
import writer
from envelopes import Delivery, Envelope
from prooftrail.errors import DatabaseUnavailable, RetryableError
from prooftrail.formats import Accepted, RawRecord, Rejected
from prooftrail.telemetry import MetricUnit, logger, metrics

RESERVE = 5.0  # seconds of the function's time kept back for answering


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ingest one batch; the answer names what must come again, nothing where all of it is durable.

    Raises `RetryableError` where the broker would not understand such an answer, and `UnknownEnvelope` for a source that
    is none of ours.
    """
    envelope = envelopes.of(event)
    seconds = context.get_remaining_time_in_millis() / 1000 - RESERVE
    deadline = time.monotonic() + seconds
    reading = _Reading(deadline - seconds / 2)  # the other half is for the database
    reading.read(envelope.deliveries)
    try:
        receipts = writer.writer().append(reading.accepted, reading.rejected, deadline)
    except DatabaseUnavailable as error:
        return _ask_again(envelope, envelope.deliveries, error)
    # Committed: a crash from here on means a redelivery that finds duplicates.
    writer.report(len(envelope.deliveries), receipts, reading.rejected)
    if envelope.tombstones:
        metrics.add_metric("Tombstones", MetricUnit.Count, envelope.tombstones)
    return _ask_again(envelope, reading.waiting, reading.cause) if reading.cause else {"batchItemFailures": []}


class _Reading:
    """What the deliveries of a batch hold, and those that cannot be read now; `cause` says why they cannot."""

    def __init__(self, deadline: float) -> None:
        self.accepted: list[Accepted] = []
        self.rejected: list[Rejected] = []
        self.waiting: list[Delivery] = []
        self.cause: RetryableError | None = None
        self._deadline = deadline  # on `time.monotonic`; after it nothing more is waited for

    def read(self, deliveries: Sequence[Delivery]) -> None:
        """Read all, but behind one that has to wait nothing of its line."""
        latest = writer.latest_time()
        held = set()
        for delivery in deliveries:
            if delivery.line in held or (self.cause and time.monotonic() > self._deadline):
                self.waiting.append(delivery)
                continue
            try:
                self._read(delivery.record, latest)
            except RetryableError as error:
                self.cause = self.cause or error
                self.waiting.append(delivery)
                if delivery.line is not None:
                    held.add(delivery.line)

    def _read(self, record: RawRecord, latest: datetime) -> None:
        for outcome in writer.outcomes(record, latest):
            if isinstance(outcome, Accepted):
                self.accepted.append(outcome)
            else:
                self.rejected.append(outcome)


def _ask_again(envelope: Envelope, waiting: Sequence[Delivery], cause: RetryableError) -> dict[str, Any]:
    """Make the broker deliver again what waits: by the answer where it understands one, else by raising the cause."""
    logger.error("records will be redelivered", extra={"records": len(waiting), "cause": str(cause)})
    metrics.add_metric("Redelivered", MetricUnit.Count, len(waiting))
    if envelope.broker == "sqs" or (envelope.broker == "kafka" and writer.own_settings().kafka_partial_failures):
        return {"batchItemFailures": [{"itemIdentifier": delivery.identifier} for delivery in waiting]}
    raise cause

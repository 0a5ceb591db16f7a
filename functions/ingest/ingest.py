"""The ingest function: an SQS batch in, the messages to redeliver out.

Every record ends as stored, duplicate or quarantined, in one transaction; only a database that stays away makes it fail,
and then the whole batch comes again. Nothing is acknowledged before the commit.
"""

from __future__ import annotations

import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

import sources
import writer
from prooftrail.errors import DatabaseUnavailable
from prooftrail.telemetry import MetricUnit, logger, metrics

RESERVE = 5.0  # seconds of the function's time kept back for answering


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Ingest one batch; the answer names the messages that must come again (SQS partial batch response)."""
    records = sources.from_sqs(event)
    deadline = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - RESERVE
    try:
        accepted, rejected = writer.read(records)
        receipts = writer.writer().append(accepted, rejected, deadline)
    except DatabaseUnavailable as error:
        logger.error("batch will be redelivered", extra={"records": len(records), "cause": str(error)})
        metrics.add_metric("Redelivered", MetricUnit.Count, len(records))
        return {"batchItemFailures": [{"itemIdentifier": record["messageId"]} for record in event["Records"]]}
    writer.report(len(records), receipts, rejected)
    return {"batchItemFailures": []}

"""Source envelopes: a Lambda event of each broker becomes raw records, each with a name that a redelivery repeats."""

from __future__ import annotations

from typing import Any

from prooftrail.errors import UnknownEnvelope
from prooftrail.formats import RawRecord


def from_sqs(event: dict[str, Any]) -> list[RawRecord]:
    """Unwrap an SQS batch. Raises `UnknownEnvelope` for anything else."""
    records = event.get("Records")
    if not isinstance(records, list) or not all(record.get("eventSource") == "aws:sqs" for record in records):
        raise UnknownEnvelope(f"expected an SQS batch with Records of eventSource aws:sqs, got keys {sorted(event)}")
    return [RawRecord(_origin(record), record["body"].encode("utf-8", "surrogatepass")) for record in records]


def _origin(record: dict[str, Any]) -> str:
    queue = record["eventSourceARN"].rpartition(":")[2]
    return f"sqs:{queue}:{record['messageId']}"

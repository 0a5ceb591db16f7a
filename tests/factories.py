"""What producers and brokers send, made up."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from prooftrail import formats
from prooftrail.formats import Accepted, RawRecord


def native(**fields: Any) -> dict[str, Any]:
    """A native event; give fields to change, None to leave one out."""
    event = {
        "id": str(uuid.uuid4()),
        "time": "2026-10-01T12:00:00Z",
        "tenant": "acme",
        "source": "clinic/records",
        "action": "patient.read",
        "outcome": "success",
        "actor": {"type": "user", "id": "dr-lee", "name": "Dr. Lee"},
        "target": {"type": "Patient", "id": "p-1"},
    }
    return {name: value for name, value in (event | fields).items() if value is not None}


def sqs(*bodies: Any, queue: str = "events") -> dict[str, Any]:
    """An SQS batch as Lambda delivers it; a body that is not text is sent as JSON."""
    return {"Records": [sqs_record(body, queue) for body in bodies]}


def sqs_record(body: Any, queue: str = "events") -> dict[str, Any]:
    return {
        "messageId": str(uuid.uuid4()),
        "receiptHandle": "handle",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
        "awsRegion": "us-east-1",
    }


def accepted(event: dict[str, Any]) -> Accepted:
    """A native event as ingest hands it to the store."""
    raw = json.dumps(event).encode()
    (outcome,) = formats.read(RawRecord(f"sqs:events:{uuid.uuid4()}", raw), datetime.now(UTC))
    assert isinstance(outcome, Accepted), outcome
    return outcome

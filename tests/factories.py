"""What producers and brokers send, made up."""

from __future__ import annotations

import base64
import json
import uuid
from collections import defaultdict
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


def kafka(*records: dict[str, Any], self_managed: bool = False) -> dict[str, Any]:
    """A batch of Kafka as Lambda delivers it, of the records of any topics and partitions."""
    partitions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        partitions[f"{record['topic']}-{record['partition']}"].append(record)
    servers = {"bootstrapServers": "kafka-1.example:9092,kafka-2.example:9092", "records": dict(partitions)}
    if self_managed:
        return {"eventSource": "SelfManagedKafka", **servers}
    return {"eventSource": "aws:kafka", "eventSourceArn": MSK_ARN, **servers}


MSK_ARN = "arn:aws:kafka:us-east-1:000000000000:cluster/audit/751d2973-a626-431c-9d4e-d7975eb44dd7-2"


def kafka_record(
    body: Any,
    offset: int,
    partition: int = 0,
    topic: str = "events",
    *,
    key: str | None = None,
    headers: dict[str, bytes] | None = None,
) -> dict[str, Any]:
    """A record of Kafka; without a body it is a tombstone."""
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": 1_790_000_000_000 + offset,
        "timestampType": "CREATE_TIME",
        **({} if key is None else {"key": _base64(key)}),
        **({} if body is None else {"value": _base64(body)}),
        "headers": [{name: list(value)} for name, value in (headers or {}).items()],
    }


def rabbitmq(*messages: dict[str, Any], queue: str = "events", host: str = "/") -> dict[str, Any]:
    """A batch of one queue of RabbitMQ as Lambda delivers it."""
    return {
        "eventSource": "aws:rmq",
        "eventSourceArn": "arn:aws:mq:us-east-1:000000000000:broker:audit:b-9bcfa592-423a-4942-879d-eb284b418fc8",
        "rmqMessagesByQueue": {f"{queue}::{host}": list(messages)},
    }


def rabbitmq_message(body: Any, *, redelivered: bool = False, **properties: Any) -> dict[str, Any]:
    """A message of RabbitMQ; `properties` are spelt as Lambda spells them."""
    absent = dict.fromkeys(["contentType", "contentEncoding", "headers", "messageId", "timestamp", "type", "appId"])
    data = _base64(body)
    size = len(base64.b64decode(data))
    return {
        "basicProperties": absent | {"deliveryMode": 1, "bodySize": size} | properties,
        "redelivered": redelivered,
        "data": data,
    }


def eventbridge(detail: Any, **fields: Any) -> dict[str, Any]:
    """An envelope as a rule of EventBridge hands it to the queue."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "patient.read",
        "source": "clinic.records",
        "account": "000000000000",
        "time": "2026-10-01T12:00:00Z",
        "region": "us-east-1",
        "resources": [],
        "detail": detail,
    } | fields


def _base64(body: Any) -> str:
    if isinstance(body, bytes):
        return base64.b64encode(body).decode()
    text = body if isinstance(body, str) else json.dumps(body)
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()


def accepted(event: dict[str, Any]) -> Accepted:
    """A native event as ingest hands it to the store."""
    raw = json.dumps(event).encode()
    (outcome,) = formats.read(RawRecord(f"sqs:events:{uuid.uuid4()}", raw), datetime.now(UTC))
    assert isinstance(outcome, Accepted), outcome
    return outcome

"""How the demo's producers send: through SQS, Kafka, RabbitMQ, EventBridge and HTTP, each with its ordinary client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pika
import psycopg
from confluent_kafka import KafkaError, Message, Producer

from local.errors import StackError
from local.producers import EVENTBRIDGE_SOURCE
from prooftrail import api_keys

if TYPE_CHECKING:
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_sqs import SQSClient

Values = Mapping[str, str]
Sender = Callable[[Values, list[str]], Iterator[int]]  # yields how many messages each step has sent


def client(values: Values, service: Any) -> Any:
    """Return a client of the local AWS."""
    return boto3.client(
        service,
        endpoint_url=values["AWS_ENDPOINT_URL"],
        region_name=values["AWS_DEFAULT_REGION"],
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
    )


def sqs(values: Values, bodies: list[str]) -> Iterator[int]:
    """Send to the queue; SQS answers 200 even where it refused some, so its list is read."""
    queue: SQSClient = client(values, "sqs")
    for part in _parts(bodies, 10):
        answer = queue.send_message_batch(
            QueueUrl=values["PROOFTRAIL_QUEUE_URL"],
            Entries=[{"Id": str(number), "MessageBody": body} for number, body in enumerate(part)],
        )
        if answer.get("Failed"):
            raise StackError(f"SQS refused {len(answer['Failed'])} messages: {answer['Failed'][0]['Message']}")
        yield len(part)


def kafka(values: Values, bodies: list[str]) -> Iterator[int]:
    """Produce to the topic, and wait until all replicas have it."""
    producer = Producer(
        {"bootstrap.servers": values["KAFKA_BOOTSTRAP_SERVERS"], "enable.idempotence": True, "log_level": 3}
    )
    failures: list[str] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(str(error))

    for part in _parts(bodies, 500):
        for body in part:
            producer.produce(values["PROOFTRAIL_TOPIC"], body.encode(), on_delivery=delivered)
        if producer.flush(60) or failures:
            raise StackError(f"Kafka did not take every record: {failures[:1]}")
        yield len(part)


def rabbitmq(values: Values, bodies: list[str]) -> Iterator[int]:
    """Publish to the queue, in transactions."""
    with pika.BlockingConnection(pika.URLParameters(values["RABBITMQ_URL"])) as connection:
        channel = connection.channel()
        channel.tx_select()
        durable = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent.value)
        for part in _parts(bodies, 200):
            for body in part:
                channel.basic_publish("", values["PROOFTRAIL_RABBITMQ_QUEUE"], body.encode(), durable)
            channel.tx_commit()
            yield len(part)


def eventbridge(values: Values, bodies: list[str]) -> Iterator[int]:
    """Put events on the default bus, from which a rule hands them to the queue."""
    bus: EventBridgeClient = client(values, "events")
    for part in _parts(bodies, 10):
        entries = [{"Source": EVENTBRIDGE_SOURCE, "DetailType": "audit event", "Detail": body} for body in part]
        answer = bus.put_events(Entries=entries)  # type: ignore[arg-type]
        if answer["FailedEntryCount"]:
            raise StackError(f"EventBridge refused {answer['FailedEntryCount']} events: {answer['Entries']}")
        yield len(part)


def http(values: Values, bodies: list[str]) -> Iterator[int]:
    """Post batches with a writer's key; the answer comes after the commit, with a receipt for each event."""
    with psycopg.connect(values["DATABASE_URL"], autocommit=True) as admin:
        key = api_keys.create(admin, None, "demo", "writer")
    with httpx.Client(base_url=values["PROOFTRAIL_API_URL"], headers={"Authorization": f"Bearer {key}"}) as api:
        for part in _parts(bodies, 250):
            answer = api.post("/events/batch", json=[json.loads(body) for body in part], timeout=60)
            if not answer.is_success or answer.json()["rejected"]:
                raise StackError(f"POST /events/batch: {answer.status_code}: {answer.text[:300]}")
            yield len(part)


SENDERS: dict[str, Sender] = {
    "SQS": sqs,
    "Kafka": kafka,
    "RabbitMQ": rabbitmq,
    "EventBridge": eventbridge,
    "HTTP": http,
}


def _parts(bodies: list[str], size: int) -> Iterator[list[str]]:
    return (bodies[start : start + size] for start in range(0, len(bodies), size))

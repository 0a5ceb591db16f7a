"""Reads a RabbitMQ queue as Lambda's mapping for Amazon MQ does: acknowledged when the function took it, else requeued.

There are no partial answers: a batch is taken whole or comes again whole, and then says that it is `redelivered`. Source:
AWS Lambda Developer Guide, "Using Lambda with Amazon MQ"; for the spelling of values, its sample event: long strings as
``{"bytes": [...]}`` with a sign, as Java's bytes have, timestamps as Java's `Date` is written.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import unquote, urlsplit

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

from local.pollers.function import Failed, Function, within_payload
from local.pollers.loop import for_ever, pauses, say

ARN = "arn:aws:mq:us-east-1:000000000000:broker:local:b-00000000-0000-0000-0000-000000000000"
Record = dict[str, Any]
Invoke = Callable[[Mapping[str, Any]], Any]


@dataclass
class Poller:
    """One mapping: `invoke` calls the function, and raises `Failed` where it did not take the batch."""

    url: str
    queue: str
    invoke: Invoke
    batch_size: int = 500
    window: float = 0.5  # seconds
    _waiting: list[tuple[int, Record]] = field(default_factory=list)  # by delivery tag, handed to us and not yet over

    def poll(self) -> None:
        """Read until something ends it. Raises `AMQPError` where RabbitMQ goes away."""
        parameters = pika.URLParameters(self.url)
        # While a function runs nobody answers heartbeats; that a server is gone, TCP tells.
        parameters.heartbeat = 0
        with BlockingConnection(parameters) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=self.batch_size)
            self._waiting.clear()
            channel.basic_consume(self.queue, self._take)
            retries = pauses()
            while True:
                self._gather(connection)
                if self.hand_over(channel):
                    retries = pauses()
                else:
                    connection.sleep(next(retries))

    def hand_over(self, channel: BlockingChannel) -> bool:
        """Have the function take what waits; what it does not take goes back to its place in the queue."""
        tags = [tag for tag, _ in self._waiting]
        records = [record for _, record in self._waiting]
        self._waiting.clear()
        done = 0
        try:
            for part in within_payload(records):
                self.invoke(event_of(self.queue, virtual_host(self.url), part))
                done += len(part)
                # Durable in PostgreSQL; a crash before this line delivers them again, and they are found as duplicates.
                channel.basic_ack(tags[done - 1], multiple=True)
        except Failed as error:
            say(f"{len(tags) - done} messages will come again: {error}")
            channel.basic_nack(tags[-1], multiple=True, requeue=True)
            return False
        return True

    def _gather(self, connection: BlockingConnection) -> None:
        """Wait for a first message, as long as it takes, and a little for more of them."""
        while not self._waiting:
            connection.process_data_events(time_limit=None)
        end = time.monotonic() + self.window
        while len(self._waiting) < self.batch_size and (left := end - time.monotonic()) > 0:
            connection.process_data_events(time_limit=left)

    def _take(self, _: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        self._waiting.append((method.delivery_tag, record_of(properties, redelivered=method.redelivered, body=body)))


def record_of(properties: BasicProperties, *, redelivered: bool, body: bytes) -> Record:
    """Return one message as the event has it."""
    at = properties.timestamp
    return {
        "basicProperties": {
            "contentType": properties.content_type,
            "contentEncoding": properties.content_encoding,
            "headers": None if properties.headers is None else _table(properties.headers),
            "deliveryMode": properties.delivery_mode,
            "priority": properties.priority,
            "correlationId": properties.correlation_id,
            "replyTo": properties.reply_to,
            "expiration": properties.expiration,
            "messageId": properties.message_id,
            "timestamp": None if at is None else _date(datetime.fromtimestamp(at, UTC)),
            "type": properties.type,
            "userId": properties.user_id,
            "appId": properties.app_id,
            "clusterId": properties.cluster_id,
            "bodySize": len(body),
        },
        "redelivered": redelivered,
        "data": base64.b64encode(body).decode(),
    }


def event_of(queue: str, host: str, records: list[Record]) -> dict[str, Any]:
    """Return the event of a batch, its messages under `queue::host`."""
    return {"eventSource": "aws:rmq", "eventSourceArn": ARN, "rmqMessagesByQueue": {f"{queue}::{host}": records}}


def virtual_host(url: str) -> str:
    """Return the virtual host that a URL names; without one, it is RabbitMQ's own."""
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"


def _table(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in headers.items()}


def _value(value: Any) -> Any:
    if isinstance(value, str | bytes):
        content = value.encode() if isinstance(value, str) else value
        return {"bytes": [byte - 256 if byte > 127 else byte for byte in content]}
    if isinstance(value, dict):
        return _table(value)
    if isinstance(value, list):
        return [_value(element) for element in value]
    if isinstance(value, datetime):
        return _date(value)
    return float(value) if isinstance(value, Decimal) else value


def _date(at: datetime) -> str:
    """``Jan 1, 1970, 12:33:41 AM``, in UTC."""
    return f"{at:%b} {at.day}, {at.year}, {at.hour % 12 or 12}:{at:%M:%S} {'AM' if at.hour < 12 else 'PM'}"


def _poll(values: dict[str, str]) -> None:
    Poller(values["RABBITMQ_URL"], values["PROOFTRAIL_RABBITMQ_QUEUE"], Function(values["AWS_ENDPOINT_URL"])).poll()


if __name__ == "__main__":
    for_ever(_poll, AMQPError, OSError)

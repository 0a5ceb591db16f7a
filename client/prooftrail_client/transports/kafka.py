"""Kafka: a record per event, keyed by tenant and target, so that a target's events stay in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prooftrail_client.errors import AuditTransportError
from prooftrail_client.transports import DELIVERED, Result

LARGEST = 1_000_000  # bytes; the brokers' default for a record is 1,048,588 with what is around it
TIMEOUT = 30.0  # seconds, for a record to be delivered
HEADERS: list[tuple[str, str | bytes | None]] = [("content-type", b"application/json")]


class KafkaTransport:
    """Sends to a topic; needs ``prooftrail[kafka]``.

    `settings` are librdkafka's (``bootstrap.servers`` is needed). By default every replica in sync answers for a record,
    and a record that librdkafka sends again is not written twice.
    """

    largest_event = LARGEST

    def __init__(self, topic: str, settings: Mapping[str, Any]) -> None:
        from confluent_kafka import Producer

        self._topic = topic
        defaults = {"acks": "all", "enable.idempotence": True, "message.timeout.ms": int(TIMEOUT * 1000), "linger.ms": 5}
        self._producer = Producer(defaults | dict(settings))

    def send(self, events: Sequence[bytes]) -> Sequence[Result]:
        """See `Transport`. A record counts when its delivery is reported."""
        results: list[Result | None] = [None] * len(events)
        for number, event in enumerate(events):
            self._produce(event, results, number)
        # librdkafka reports every record within message.timeout.ms, as delivered or not; the rest is for its own delays.
        if self._producer.flush(TIMEOUT + 5.0):
            self._producer.purge()
            self._producer.flush(1.0)
        reported = [result or Result("retry", "its delivery was not reported") for result in results]
        if all(result.status == "retry" for result in reported):
            raise AuditTransportError(f"topic {self._topic}: {reported[0].reason}")
        return reported

    def close(self) -> None:
        """See `Transport`."""
        self._producer.flush(1.0)

    def _produce(self, event: bytes, results: list[Result | None], number: int) -> None:
        from confluent_kafka import KafkaException

        try:
            self._producer.produce(
                self._topic, event, key=_key(event), headers=HEADERS, on_delivery=_reporting(results, number)
            )
        except BufferError:
            results[number] = Result("retry", "librdkafka's queue is full")
        except KafkaException as error:
            results[number] = _failed(error.args[0])
        self._producer.poll(0)


def _reporting(results: list[Result | None], number: int) -> Callable[[Any, Any], None]:
    def report(error: Any, _message: Any) -> None:
        results[number] = DELIVERED if error is None else _failed(error)

    return report


def _failed(error: Any) -> Result:
    from confluent_kafka import KafkaError

    poison = error.code() in (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG)
    return Result("rejected" if poison else "retry", f"{error.name()}: {error.str()}")


def _key(event: bytes) -> bytes:
    document = json.loads(event)
    return "/".join(filter(None, (document["tenant"], document.get("target", {}).get("id")))).encode()

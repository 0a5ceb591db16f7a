"""Reads a Kafka topic as Lambda's mapping for a self-managed cluster does: offsets are committed for what was taken.

A batch that the function refuses comes again whole, the same records in the same order, until it is taken; nothing behind
it is read meanwhile. With ``ReportBatchItemFailures`` the answer may name records: of a partition, the first of them and
all behind it come again, and offsets are committed up to there.

A record leaves out the key or value that is null, and bytes of headers have a sign, as Java's have. Source: AWS Lambda
Developer Guide, "Using Lambda with self-managed Apache Kafka" and "Configuring error handling controls for Kafka event
sources".
"""

from __future__ import annotations

import base64
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaException, Message, TopicPartition

from local.pollers.function import Failed, Function, within_payload
from local.pollers.loop import for_ever, pauses, say

GROUP = "prooftrail"
Headers = list[tuple[str, bytes | None]]
Record = dict[str, Any]
Invoke = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Poller:
    """One mapping: `invoke` calls the function, and raises `Failed` where it did not take the batch."""

    servers: str
    topic: str
    invoke: Invoke
    batch_size: int = 500
    window: float = 0.5  # seconds
    reports_failures: bool = False  # ReportBatchItemFailures, which AWS grants in provisioned mode only

    def poll(self) -> None:
        """Read until something ends it. Raises `KafkaException` where Kafka does."""
        consumer = Consumer(self._settings())
        consumer.subscribe([self.topic])
        try:
            while True:
                self.hand_over(consumer, _good(consumer.consume(self.batch_size, timeout=self.window)))
        finally:
            consumer.close()

    def hand_over(self, consumer: Consumer, messages: Sequence[Message]) -> None:
        """Have the function take these messages, however often it takes to, and commit their offsets."""
        for records in within_payload([record_of(message) for message in messages]):
            retries = pauses()
            while left := self._offer(records):
                _commit(consumer, records, left)
                records = left  # noqa: PLW2901 - the loop's own part of the batch
                time.sleep(next(retries))
            # Durable in PostgreSQL; a crash before this line delivers the records again, and they are found as duplicates.
            _commit(consumer, records, [])

    def _offer(self, records: list[Record]) -> list[Record]:
        """Invoke once, and return the records that must come again."""
        try:
            answer = self.invoke(event_of(self.servers, records))
        except Failed as error:
            say(f"{len(records)} records will come again: {error}")
            return records
        return still_to_come(records, answer) if self.reports_failures else []

    def _settings(self) -> dict[str, str | int | float | bool | None]:
        return {
            "bootstrap.servers": self.servers,
            "group.id": GROUP,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",  # TRIM_HORIZON
            # A poller that was killed is forgotten soon, one that waits for a slow function never.
            "session.timeout.ms": 6_000,
            "max.poll.interval.ms": 86_400_000,
            "reconnect.backoff.max.ms": 1_000,
            # A record is handed over at once all the same.
            "fetch.wait.max.ms": 5_000,
        }


def record_of(message: Message) -> Record:
    """Return one record as the event has it."""
    kind, time_ = message.timestamp()
    record: Record = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": time_,
        "timestampType": "LOG_APPEND_TIME" if kind == TIMESTAMP_LOG_APPEND_TIME else "CREATE_TIME",
        "headers": [{name: _signed(value)} for name, value in cast(Headers, message.headers() or [])],
    }
    for name, content in (("key", message.key()), ("value", message.value())):
        if content is not None:
            record[name] = base64.b64encode(content).decode()
    return record


def event_of(servers: str, records: list[Record]) -> dict[str, Any]:
    """Return the event of a batch, its records under `topic-partition`."""
    by_partition: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_partition[_line(record)].append(record)
    return {"eventSource": "SelfManagedKafka", "bootstrapServers": servers, "records": dict(by_partition)}


def still_to_come(records: list[Record], answer: Any) -> list[Record]:
    """Return what a partial answer asks for again: of each partition, the first record that it names and all behind it.

    An answer that names what was not in the batch, or is none at all, asks for everything.
    """
    failures = answer.get("batchItemFailures") if isinstance(answer, dict) else None
    if not failures:
        return []
    known = {(_line(record), record["offset"]) for record in records}
    first: dict[str, int] = {}
    for failure in failures:
        match failure:
            case {"itemIdentifier": {"partition": str(line), "offset": int(offset)}} if (line, offset) in known:
                first[line] = min(offset, first.get(line, offset))
            case _:
                return records
    return [record for record in records if _line(record) in first and record["offset"] >= first[_line(record)]]


def _commit(consumer: Consumer, taken: list[Record], left: list[Record]) -> None:
    """Commit up to the first record that is left, and behind the last one where none is."""
    ends: dict[tuple[str, int], int] = {}
    for record in taken:
        place = (record["topic"], record["partition"])
        ends[place] = max(record["offset"] + 1, ends.get(place, 0))
    for record in left:
        place = (record["topic"], record["partition"])
        ends[place] = min(record["offset"], ends[place])
    if taken != left and ends:
        consumer.commit(offsets=[TopicPartition(*place, end) for place, end in ends.items()], asynchronous=False)


def _good(messages: list[Message]) -> list[Message]:
    for message in messages:
        if error := message.error():
            raise KafkaException(error)
    return messages


def _line(record: Record) -> str:
    return f"{record['topic']}-{record['partition']}"


def _signed(value: bytes | None) -> list[int]:
    return [byte - 256 if byte > 127 else byte for byte in value or b""]


def _poll(values: dict[str, str]) -> None:
    Poller(values["KAFKA_BOOTSTRAP_SERVERS"], values["PROOFTRAIL_TOPIC"], Function(values["AWS_ENDPOINT_URL"])).poll()


if __name__ == "__main__":
    for_ever(_poll, KafkaException)

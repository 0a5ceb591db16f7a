"""The Kafka poller on a real protocol, with a function that fails as we like; librdkafka's own broker needs no Java."""

from __future__ import annotations

import base64
import itertools
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from local import processes
from local.brokers import kafka as brokers
from local.brokers.broker import Broker
from local.brokers.librdkafka import Librdkafka
from local.pollers import kafka
from local.pollers.function import Failed
from local.pollers.kafka import GROUP, Poller
from tests.e2e.conftest import eventually


class Over(Exception):
    """Ends a poller whose test has seen enough."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    home = tmp_path_factory.mktemp("librdkafka")
    server = Librdkafka(home, home / "kafka.log")
    server.start()
    try:
        yield Broker("librdkafka", eventually(lambda: server.address, bool))
    finally:
        processes.stop(processes.marked(home), 5)


class Topic:
    """A topic of a test's own, and what its readers have committed."""

    def __init__(self, broker: Broker) -> None:
        self.name, self._servers = uuid.uuid4().hex, broker.address
        brokers.create_topic(broker, self.name)
        settings = {"bootstrap.servers": self._servers, "enable.auto.commit": False}
        # A group that nobody joins: whoever reads may commit, and no test waits for another's member to leave.
        self.consumer = Consumer({**settings, "group.id": self.name})

    def produce(self, values: list[bytes | None], partition: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self._servers})
        for value in values:
            producer.produce(self.name, value, partition=partition)
        assert producer.flush(30) == 0

    def read(self, number: int) -> list[Message]:
        """The next records behind what is committed, as a poller gets them."""
        self.consumer.assign([TopicPartition(self.name, partition, self.committed(partition)) for partition in range(3)])
        messages = self.consumer.consume(number, timeout=30)
        assert len(messages) == number
        return messages

    def committed(self, partition: int = 0) -> int:
        (place,) = self.consumer.committed([TopicPartition(self.name, partition)], timeout=30)
        return max(place.offset, 0)

    def hand_over(self, number: int, function: Function, *, reports_failures: bool = False) -> None:
        poller = Poller(self._servers, self.name, function, reports_failures=reports_failures)
        poller.hand_over(self.consumer, self.read(number))


@pytest.fixture
def topic(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Topic]:
    monkeypatch.setattr(kafka, "pauses", lambda: itertools.repeat(0))  # retries at once
    topic = Topic(broker)
    yield topic
    topic.consumer.close()


class Function:
    """Keeps every batch as (partition, offset) pairs, answers as it was told to, and when that is over ends the poller."""

    def __init__(self, *answers: Any) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.values: list[bytes] = []
        self._answers = list(answers)

    def __call__(self, event: Mapping[str, Any]) -> Any:
        records = [record for records in event["records"].values() for record in records]
        if not self._answers:
            raise Over
        self.batches.append([(record["partition"], record["offset"]) for record in records])
        self.values += [base64.b64decode(record["value"]) for record in records if "value" in record]
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def failing(topic: Topic, offset: int) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": {"partition": f"{topic.name}-0", "offset": offset}}]}


def test_the_topic_is_read_from_its_beginning_and_offsets_follow(broker: Broker, topic: Topic) -> None:
    """The whole poller, as a member of its group."""
    topic.produce([b"0", b"1", b"2"])
    function = Function({}, {})
    with pytest.raises(Over):
        Poller(broker.address, topic.name, function, batch_size=1, window=30).poll()
    assert function.values == [b"0", b"1"]
    member = Consumer({"bootstrap.servers": broker.address, "group.id": GROUP})
    (place,) = member.committed([TopicPartition(topic.name, 0)], timeout=30)
    member.close()
    assert place.offset == 2


def test_a_batch_that_is_refused_comes_again_whole_until_it_is_taken(topic: Topic) -> None:
    topic.produce([b"0", b"1", b"2"])
    function = Function(Failed("down"), Failed("down"), {})
    topic.hand_over(2, function)
    assert function.batches == [[(0, 0), (0, 1)]] * 3
    assert topic.committed() == 2


def test_what_was_not_taken_is_there_for_the_next_poller(topic: Topic) -> None:
    topic.produce([b"0", b"1", b"2"])
    with pytest.raises(Over):
        topic.hand_over(3, Function(Failed("down")))
    assert topic.committed() == 0
    function = Function({})
    topic.hand_over(3, function)
    assert function.values == [b"0", b"1", b"2"]


def test_several_partitions_come_in_one_batch_each_in_its_order(topic: Topic) -> None:
    for partition in (0, 1, 2):
        topic.produce([b"a", b"b"], partition)
    function = Function({})
    topic.hand_over(6, function)
    (batch,) = function.batches
    assert [[offset for own, offset in batch if own == partition] for partition in range(3)] == [[0, 1]] * 3
    assert [topic.committed(partition) for partition in range(3)] == [2, 2, 2]


def test_tombstones_are_handed_over_and_committed(topic: Topic) -> None:
    topic.produce([None, b"1", None])
    function = Function({})
    topic.hand_over(3, function)
    assert (function.batches, function.values) == ([[(0, 0), (0, 1), (0, 2)]], [b"1"])
    assert topic.committed() == 3


def test_with_reported_failures_the_first_of_them_and_what_is_behind_it_come_again(topic: Topic) -> None:
    topic.produce([b"%d" % number for number in range(4)])
    function = Function(failing(topic, 2), {"batchItemFailures": []})
    topic.hand_over(4, function, reports_failures=True)
    assert function.batches == [[(0, 0), (0, 1), (0, 2), (0, 3)], [(0, 2), (0, 3)]]
    assert topic.committed() == 4


def test_offsets_never_pass_a_record_that_failed(topic: Topic) -> None:
    topic.produce([b"%d" % number for number in range(4)])
    with pytest.raises(Over):
        topic.hand_over(4, Function(failing(topic, 2)), reports_failures=True)
    assert topic.committed() == 2


def test_without_reported_failures_such_an_answer_counts_as_taken(topic: Topic) -> None:
    """As it does in AWS: this is why the ingest function raises unless it is told that its mapping understands."""
    topic.produce([b"0", b"1"])
    topic.hand_over(2, Function(failing(topic, 0)))
    assert topic.committed() == 2

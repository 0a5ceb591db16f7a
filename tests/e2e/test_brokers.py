"""Kafka and RabbitMQ as producers meet them: real servers, read by the pollers that stand in for Lambda's mappings."""

from __future__ import annotations

import base64
import json
import operator
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika
import pytest
from confluent_kafka import Producer
from psycopg.conninfo import conninfo_to_dict

from local import containers, pollers, processes
from local.brokers.broker import Broker
from local.brokers.rabbitmq import declare_queue
from local.pollers.function import Failed
from local.pollers.rabbitmq import Poller
from local.postgres import Server
from tests.e2e.conftest import System, eventually
from tests.factories import native

MOST_DELIVERIES = 3  # of a message that can never be stored


class Topic:
    """The stack's topic, for producers."""

    def __init__(self, system: System) -> None:
        self.name = system.environment["PROOFTRAIL_TOPIC"]
        self._producer = Producer({"bootstrap.servers": system.environment["KAFKA_BOOTSTRAP_SERVERS"]})

    def send(self, bodies: Sequence[bytes | None], partition: int = 0, **fields: Any) -> None:
        for body in bodies:
            self._producer.produce(self.name, body, partition=partition, **fields)
        assert self._producer.flush(60) == 0


class Queue:
    """The stack's queue, for producers."""

    def __init__(self, system: System, connection: pika.BlockingConnection) -> None:
        self.name = system.environment["PROOFTRAIL_RABBITMQ_QUEUE"]
        self._channel = connection.channel()
        self._channel.tx_select()

    def send(self, bodies: list[bytes], to: str = "", **properties: Any) -> None:
        for body in bodies:
            self._channel.basic_publish("", to or self.name, body, pika.BasicProperties(delivery_mode=2, **properties))
        self._channel.tx_commit()

    def left(self, name: str = "") -> int:
        """How many messages wait, those in the hands of the poller not counted."""
        return int(self._channel.queue_declare(name or self.name, passive=True).method.message_count)

    def delete(self, name: str) -> None:
        self._channel.queue_delete(name)


@pytest.fixture
def topic(system: System, record_property: Callable[[str, object], None]) -> Topic:
    record_property("broker", system.stack.brokers()["Kafka"])
    return Topic(system)


@pytest.fixture
def queue(system: System, record_property: Callable[[str, object], None]) -> Iterator[Queue]:
    url = system.environment["RABBITMQ_URL"]
    if not url:
        pytest.skip("there is no RabbitMQ on this machine; install the package rabbitmq-server, or set RABBITMQ_URL")
    record_property("broker", system.stack.brokers()["RabbitMQ"])
    parameters = pika.URLParameters(url)
    parameters.heartbeat = 0  # nobody would answer while a test waits for something else
    with pika.BlockingConnection(parameters) as connection:
        yield Queue(system, connection)


def bodies_of(events: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(event).encode() for event in events]


def stored(system: System, tenant: str) -> list[str]:
    """The ids of a tenant's events in the order of the log."""
    query = "SELECT id FROM prooftrail.event WHERE tenant = %s AND source <> 'prooftrail' ORDER BY batch_id, position"
    with system.database() as admin:
        return [id for (id,) in admin.execute(query, [tenant])]


def quarantined(system: System, body: bytes) -> list[tuple[str, str, dict[str, str]]]:
    with system.database() as admin:
        query = "SELECT origin, reason, headers FROM prooftrail.quarantine WHERE raw = %s"
        return [(origin, reason, headers) for origin, reason, headers in admin.execute(query, [body])]


def said(system: System, poller: str, words: str) -> int:
    """How often a poller has written something in its log."""
    return (system.stack.layout.logs / f"{poller}-poller.log").read_text().count(words)


@contextmanager
def postgresql_stopped(system: System) -> Iterator[None]:
    """An outage; the function's time is short meanwhile, so that it fails soon and often."""
    functions, name = system.client("lambda"), system.output("IngestFunctionName")
    usual = functions.get_function_configuration(FunctionName=name)["Timeout"]
    server = Server(system.stack.layout.state / "postgres", system.stack.layout.logs / "postgres.log")
    login = conninfo_to_dict(system.environment["DATABASE_URL"])
    functions.update_function_configuration(FunctionName=name, Timeout=8)
    server.stop()
    try:
        yield
    finally:
        server.start(int(str(login["port"])), str(login["password"]), containers.bridge())
        functions.update_function_configuration(FunctionName=name, Timeout=usual)


def test_events_of_a_topic_are_stored_once_however_often_they_were_sent(system: System, topic: Topic) -> None:
    events = [native(tenant="by-kafka") for _ in range(300)]
    for partition in (0, 1, 0):
        topic.send(bodies_of(events), partition)
    topic.send([None], key=b"gone")  # a tombstone, which keeps nothing from being read
    topic.send(bodies_of([native(tenant="by-kafka", id="last")]))
    eventually(lambda: stored(system, "by-kafka"), lambda ids: "last" in ids)
    eventually(lambda: len(stored(system, "by-kafka")), lambda number: number == 301)
    assert sorted(stored(system, "by-kafka")) == sorted(["last", *(event["id"] for event in events)])


def test_events_of_a_queue_are_stored_once_however_often_they_were_sent(system: System, queue: Queue) -> None:
    events = [native(tenant="by-rabbitmq") for _ in range(300)]
    queue.send(bodies_of(events * 2), content_type="application/json")
    eventually(lambda: len(stored(system, "by-rabbitmq")), lambda number: number == 300)
    eventually(queue.left, lambda left: left == 0)
    assert sorted(stored(system, "by-rabbitmq")) == sorted(event["id"] for event in events)


def test_one_event_by_topic_queue_and_sqs_is_one_event(system: System, topic: Topic, queue: Queue) -> None:
    event = native(tenant="by-all")
    last = {way: native(tenant="by-all", id=f"last by {way}") for way in ("topic", "queue", "SQS")}
    topic.send(bodies_of([event, last["topic"]]))
    queue.send(bodies_of([event, last["queue"]]))
    system.send([json.dumps(event), json.dumps(last["SQS"])])
    system.wait_until_drained()
    expected = sorted([event["id"], *(end["id"] for end in last.values())])
    eventually(lambda: sorted(stored(system, "by-all")), lambda ids: ids == expected)
    assert quarantined(system, json.dumps(event).encode()) == []


def test_poison_in_a_topic_rests_with_its_key_and_headers_and_lets_its_neighbours_pass(
    system: System, topic: Topic
) -> None:
    poison = b"\xff not an event"
    before = native(tenant="kafka-poison", id="before")
    topic.send(bodies_of([before]))
    topic.send([poison], key=b"k-1", headers=[("Trace-Id", b"abc"), ("raw", b"\xfe\x00")])
    topic.send(bodies_of([native(tenant="kafka-poison", id="after")]))
    eventually(lambda: stored(system, "kafka-poison"), lambda ids: ids == ["before", "after"])
    ((origin, _, headers),) = quarantined(system, poison)
    assert origin.startswith(f"kafka:self-managed:{topic.name}:0:")
    assert headers.pop(":time").startswith("20")  # when it was sent
    assert headers.items() >= {"trace-id": "abc", "raw": "\\xfe\\0", ":key": "k-1"}.items()


def test_poison_in_a_queue_rests_after_few_deliveries(system: System, queue: Queue) -> None:
    poison = b"{ not an event of RabbitMQ"
    started = int(time.time() * 1000)
    queue.send([poison], message_id="m-1", headers={"x-tenant": "acme"})
    ((origin, _, headers),) = eventually(lambda: quarantined(system, poison), bool)
    queue.send(bodies_of([native(tenant="rabbitmq-poison", id="after")]))
    eventually(lambda: stored(system, "rabbitmq-poison"), lambda ids: ids == ["after"])
    assert queue.left() == 0
    assert origin == f"rabbitmq:/:{queue.name}:m-1"
    assert headers.items() >= {":message-id": "m-1", "x-tenant": "acme"}.items()
    group = f"/aws/lambda/{system.output('IngestFunctionName')}"
    lines = [
        json.loads(line["message"])
        for line in system.client("logs").filter_log_events(logGroupName=group, startTime=started)["events"]
        if '"batch committed"' in line["message"]
    ]
    assert 1 <= sum(line["quarantined"] for line in lines) <= MOST_DELIVERIES


def test_an_outage_loses_nothing_and_keeps_the_order_of_each_partition(system: System, topic: Topic, queue: Queue) -> None:
    messages = [native(tenant="rabbitmq-outage") for _ in range(50)]
    failed = {name: said(system, name, "come again") for name in pollers.SOURCES}
    with postgresql_stopped(system):
        for number in range(30):
            for partition in range(3):
                topic.send(bodies_of([native(tenant="kafka-outage", id=f"{partition}-{number:02}")]), partition)
        queue.send(bodies_of(messages))
        for name in pollers.SOURCES:
            eventually(partial(said, system, name, "come again"), partial(operator.lt, failed[name]))
    eventually(lambda: len(stored(system, "kafka-outage")), lambda number: number == 90, seconds=120)
    eventually(lambda: len(stored(system, "rabbitmq-outage")), lambda number: number == 50, seconds=120)
    ids = stored(system, "kafka-outage")
    for partition in range(3):
        of_one = [id for id in ids if id.startswith(f"{partition}-")]
        assert of_one == [f"{partition}-{number:02}" for number in range(30)]
    assert sorted(stored(system, "rabbitmq-outage")) == sorted(event["id"] for event in messages)


def test_a_poller_that_was_killed_is_started_by_the_next_up_and_goes_on(system: System, topic: Topic) -> None:
    (poller,) = processes.marked(system.stack.layout.state / "pollers", "local.pollers.kafka")
    os.kill(poller.pid, signal.SIGKILL)
    poller.wait(10)
    assert "kafka" not in system.stack.status()["Pollers"]
    topic.send(bodies_of([native(tenant="kafka-killed", id=str(number)) for number in range(20)]))
    assert system.stack.up() == system.environment
    assert "kafka" in system.stack.status()["Pollers"]
    eventually(lambda: stored(system, "kafka-killed"), lambda ids: ids == [str(number) for number in range(20)])


class Over(Exception):
    """Ends a poller whose test has seen enough."""


def test_messages_that_are_refused_come_again_in_their_order_and_say_so(system: System, queue: Queue) -> None:
    """The poller alone, on a queue that no other reads, with a function that fails once."""
    url, name = system.environment["RABBITMQ_URL"], f"refused-{uuid.uuid4()}"
    batches: list[list[tuple[str, bool]]] = []

    def invoke(event: Mapping[str, Any]) -> None:
        if len(batches) == 3:
            raise Over
        messages = event["rmqMessagesByQueue"][f"{name}::/"]
        batches.append([(base64.b64decode(one["data"]).decode(), one["redelivered"]) for one in messages])
        if len(batches) == 1:
            raise Failed("down")

    declare_queue(Broker("RabbitMQ", url), name)
    queue.send([b"0", b"1", b"2", b"3", b"4", b"5"], name)
    with pytest.raises(Over):
        Poller(url, name, invoke, batch_size=2, window=30).poll()
    assert batches == [[("0", False), ("1", False)], [("0", True), ("1", True)], [("2", False), ("3", False)]]
    assert queue.left(name) == 2  # what was not taken, and that only
    queue.delete(name)


def test_the_brokers_listen_to_this_machine_only(system: System, topic: Topic) -> None:
    own = [
        *processes.marked(system.stack.layout.state / "kafka"),
        *processes.marked(system.stack.layout.state / "rabbitmq"),
    ]
    listening = [at.laddr.ip for process in own for at in process.net_connections("tcp") if at.status == "LISTEN"]
    assert {address.removeprefix("::ffff:") for address in listening} <= {"127.0.0.1"}

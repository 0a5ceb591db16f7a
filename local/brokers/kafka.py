"""Kafka: the servers that KAFKA_BOOTSTRAP_SERVERS names, else Apache Kafka, else the broker inside librdkafka."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from local import ports, processes
from local.brokers import apache, librdkafka
from local.brokers.apache import ApacheKafka
from local.brokers.broker import Broker
from local.brokers.librdkafka import Librdkafka
from local.errors import StackError
from local.layout import Layout
from local.store import Store

VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
PARTITIONS = 4
READY_SECONDS = 90
GIVEN_SECONDS = 15
_ATTEMPT_SECONDS = 2.0


class Kafka:
    """Starts, watches and stops the Kafka of one stack; `say` hears what is not as one might wish."""

    def __init__(self, layout: Layout, store: Store, say: Callable[[str], None]) -> None:
        self._layout, self._store, self._say = layout, store, say
        self._home, self._log = layout.state / "kafka", layout.logs / "kafka.log"
        self._library = Librdkafka(self._home, self._log)
        named = os.environ.get(VARIABLE, "")
        # A shell that has read stack.env names our own server, which is none that was given.
        self.given = "" if named == store.get("own_kafka") else named

    def start(self, port: int, controller_port: int) -> Broker:
        """Start, if it does not run, and wait until it answers. Raises `StackError` with what is wrong."""
        if self.given:
            return self._ready(Broker("given Kafka", self.given), lambda: True)
        own = ApacheKafka(self._home, self._log, port, controller_port)
        if not self.is_running():
            self._launch(own)
        if apache.is_alive(self._home):
            return self._ready(Broker(f"Apache Kafka {apache.version()}", own.address), self.is_running)
        while self.is_running() and not self._library.address:
            time.sleep(0.05)
        return self._ready(Broker(f"librdkafka's broker {librdkafka.version()}", self._library.address), self.is_running)

    def is_running(self) -> bool:
        """Say whether one of our own runs, or one was given."""
        return bool(self.given or self.processes())

    def processes(self) -> list[Any]:
        """Return our own processes."""
        return processes.marked(self._home)

    def port(self, service: str) -> int:
        """Return the port of the running server, or choose one."""
        known = self._store.get(f"{service}_port")
        if known and self.is_running():
            return int(known)
        return ports.remember(service, self._layout.state, self._store)

    def _launch(self, own: ApacheKafka) -> None:
        try:
            jars = apache.jars(self._layout)
        except StackError as error:
            self._say(f"Kafka: librdkafka's broker, which forgets everything when it stops, because {error}")
            self._library.start()
        else:
            own.start(jars)

    def _ready(self, broker: Broker, is_alive: Callable[[], bool]) -> Broker:
        quick = {"reconnect.backoff.max.ms": 200, "log_level": 0}
        client = AdminClient({"bootstrap.servers": broker.address or "none", **quick})
        deadline = time.monotonic() + (GIVEN_SECONDS if self.given else READY_SECONDS)
        while True:
            try:
                client.list_topics(timeout=_ATTEMPT_SECONDS)
            except KafkaException as error:
                if not is_alive():
                    raise StackError(f"Kafka ended while it started; {self._layout.logs / 'kafka.log'} says why.") from None
                if time.monotonic() > deadline:
                    raise StackError(f"Kafka at {broker.address} did not answer: {error.args[0].str()}") from None
            else:
                return broker


def create_topic(broker: Broker, topic: str) -> None:
    """Make the topic if there is none. Raises `StackError` when the broker refuses."""
    client = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    try:
        # Asked for one by name, librdkafka's broker makes it, and knows no other way.
        if client.list_topics(topic, timeout=30).topics[topic].error is None:
            return
        client.create_topics([NewTopic(topic, PARTITIONS)])[topic].result(timeout=30)
    except KafkaException as error:
        raise StackError(f"Kafka at {broker.address} makes no topic {topic}: {error.args[0].str()}") from None

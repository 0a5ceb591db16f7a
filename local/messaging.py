"""Both brokers of a stack and the pollers that read them: started beside everything else, joined when that is done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from local import pollers, processes
from local.brokers import kafka, rabbitmq
from local.brokers.broker import Broker
from local.brokers.kafka import Kafka
from local.brokers.rabbitmq import RabbitMQ
from local.layout import Layout
from local.store import Store

NAME = "prooftrail"  # of the topic, of the queue, and of the consumer group
STOP_SECONDS = 20
NONE = "none"


class Messaging:
    """Kafka, RabbitMQ and their pollers, for one stack."""

    def __init__(self, layout: Layout, store: Store, say: Callable[[str], None] = lambda _: None) -> None:
        self._layout, self._store, self._say = layout, store, say
        self._kafka, self._rabbitmq = Kafka(layout, store, say), RabbitMQ(layout, store, say)
        self._starting: tuple[Future[Broker], Future[Broker | None]] | None = None

    def start(self) -> None:
        """Begin to start what does not run."""
        # Here and not by the threads: the store is no place for two at a time.
        kafka_ports = self._kafka.port("kafka"), self._kafka.port("kafka_controller")
        self._rabbitmq.prepare()
        pool = ThreadPoolExecutor(2)
        self._starting = pool.submit(self._kafka.start, *kafka_ports), pool.submit(self._rabbitmq.start)
        pool.shutdown(wait=False)

    def finish(self) -> dict[str, str]:
        """Wait until the brokers answer, make topic and queue, and return what stack.env shall say of them."""
        if self._starting is None:
            raise RuntimeError("finish() comes after start()")
        kafka_, rabbitmq_ = (future.result() for future in self._starting)
        assert kafka_ is not None
        topic = self._name("PROOFTRAIL_TOPIC", self._kafka.given)
        queue = self._name("PROOFTRAIL_RABBITMQ_QUEUE", self._rabbitmq.given) if rabbitmq_ else ""
        kafka.create_topic(kafka_, topic)
        if not self._kafka.given:
            self._store.set("own_kafka", kafka_.address)
        if rabbitmq_:
            rabbitmq.declare_queue(rabbitmq_, queue)
        said = {"Kafka": kafka_.what, "RabbitMQ": rabbitmq_.what if rabbitmq_ else NONE}
        self._store.set("brokers", said)
        self._say("; ".join(f"{name}: {what}" for name, what in said.items()))
        return {
            kafka.VARIABLE: kafka_.address,
            "PROOFTRAIL_TOPIC": topic,
            rabbitmq.VARIABLE: rabbitmq_.address if rabbitmq_ else "",
            "PROOFTRAIL_RABBITMQ_QUEUE": queue,
        }

    def poll(self, values: dict[str, str], *, anew: bool) -> None:
        """Start the pollers that do not run; `anew`: all of them, because what they read from has moved."""
        wanted = [name for name, variable in pollers.SOURCES.items() if values[variable]]
        if anew:
            pollers.stop(self._layout)
        pollers.start(self._layout, wanted)

    def stop(self) -> bool:
        """Stop pollers and brokers; say whether any ran."""
        polled = pollers.stop(self._layout)
        own = processes.with_descendants([*self._kafka.processes(), *self._rabbitmq.processes()])
        processes.stop(own, STOP_SECONDS)
        self._rabbitmq.forget_names()
        return polled or bool(own)

    def status(self) -> dict[str, str]:
        """Return what runs, by name."""
        what: dict[str, str] = self._store.get("brokers") or {}
        running = {"Kafka": self._kafka.is_running(), "RabbitMQ": self._rabbitmq.is_running()}
        brokers = {name: _state(what.get(name), runs) for name, runs in running.items()}
        polled = pollers.running(self._layout)
        return brokers | {"Pollers": ", ".join(polled) or "stopped"}

    def _name(self, variable: str, given: str) -> str:
        """Stacks that share a server do not share what is in it, unless they are told to."""
        suffix = f"-{hashlib.sha256(str(self._layout.state).encode()).hexdigest()[:8]}" if given else ""
        return os.environ.get(variable) or f"{NAME}{suffix}"


def _state(what: str | None, runs: bool) -> str:
    if runs:
        return what or "starting"
    return NONE if what == NONE else "stopped"

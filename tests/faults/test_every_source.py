"""The same events by five sources at once, each up to three times, while handlers are killed: each is stored once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from prooftrail import api_keys
from tests.conftest import PROJECT, LogDatabase
from tests.factories import eventbridge, kafka, kafka_record, native, rabbitmq, rabbitmq_message, sqs
from tests.faults.test_log_under_kills import check_places

EVENTS = 5_000
KILLS = 30
BATCH = 100

Envelope = Callable[[Sequence[dict[str, Any]]], dict[str, Any]]

# Answers one invocation a line. It is killed at any moment: before the commit, or between the commit and the answer.
SERVE = """
import importlib, json, sys
from prooftrail.invocation import Context
handler = importlib.import_module(sys.argv[1]).handler
for line in sys.stdin:
    try:
        answer = {"answer": handler(json.loads(line), Context("ingest", 60))}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), file=sys.stderr, flush=True)
"""


class Function:
    """A function as Lambda runs it: one process, and another one when it is gone."""

    def __init__(self, module: str, environment: dict[str, str]) -> None:
        self._module = module
        self._environment = environment
        self._process = self._start()
        self.kills = 0

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SERVE, self._module],
            env=self._environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def invoke(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """What it answered; None where it was killed meanwhile."""
        process = self._process
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            process.stdin.write(json.dumps(event) + "\n")
            process.stdin.flush()
            line = process.stderr.readline()
        except BrokenPipeError:
            line = ""
        if line.endswith("\n"):
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.stop()
        self._process = self._start()
        return None

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self.kills += 1

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def by_sqs(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return sqs(*events)


def by_eventbridge(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return sqs(*map(eventbridge, events))


_offsets = itertools.count()


def by_kafka(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return kafka(*(kafka_record(event, next(_offsets), number % 3) for number, event in enumerate(events)))


def by_rabbitmq(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return rabbitmq(*map(rabbitmq_message, events))


def by_http(key: str) -> Envelope:
    def envelope(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        return {
            "resource": "/events/batch",
            "path": "/events/batch",
            "httpMethod": "POST",
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "requestContext": {"identity": {"sourceIp": "127.0.0.1"}},
            "body": json.dumps(events),
            "isBase64Encoded": False,
        }

    return envelope


def deliver(function: Function, envelope: Envelope, events: Sequence[dict[str, Any]], pause: Callable[[], None]) -> None:
    """What a broker does: it hands over the same batch until it is told that all of it is durable."""
    for first in range(0, len(events), BATCH):
        batch = envelope(events[first : first + BATCH])
        while not durable(function.invoke(batch)):
            pause()


def durable(said: dict[str, Any] | None) -> bool:
    if said is None or "error" in said:
        return False
    answer = said["answer"]
    return bool(answer == {"batchItemFailures": []} or answer.get("statusCode") == 200)


@pytest.fixture
def functions(database: LogDatabase) -> Iterator[dict[str, Function]]:
    environment = os.environ | {
        "DATABASE_URL": database.url_of("ingest"),
        "PYTHONPATH": str(PROJECT / "functions" / "ingest"),
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
    }
    modules = dict.fromkeys(["sqs", "eventbridge", "kafka", "rabbitmq"], "ingest") | {"http": "http_ingest"}
    started = {source: Function(module, environment) for source, module in modules.items()}
    yield started
    for function in started.values():
        function.stop()


def test_five_thousand_events_by_five_sources_up_to_three_times_are_stored_once(
    database: LogDatabase, functions: dict[str, Function]
) -> None:
    chance = random.Random()
    events = [native(tenant=f"t{number % 5}", message=f"№ {number}") for number in range(EVENTS)]
    sent: dict[str, list[dict[str, Any]]] = {source: [] for source in functions}
    for event in events:
        for source in chance.choices(list(functions), k=chance.randint(1, 3)):
            sent[source].append(event)
    for deliveries in sent.values():
        chance.shuffle(deliveries)
    key = api_keys.create(database.admin, None, role="writer")
    envelopes = {
        "sqs": by_sqs, "eventbridge": by_eventbridge, "kafka": by_kafka, "rabbitmq": by_rabbitmq, "http": by_http(key),
    }  # fmt: skip
    brokers = [
        threading.Thread(
            target=deliver, args=[functions[source], envelopes[source], sent[source], lambda: time.sleep(0.01)]
        )
        for source in functions
    ]
    for broker in brokers:
        broker.start()
    while any(broker.is_alive() for broker in brokers):
        time.sleep(chance.uniform(0.05, 0.4))
        if sum(function.kills for function in functions.values()) < KILLS:
            chance.choice(list(functions.values())).kill()

    kills = {source: function.kills for source, function in functions.items()}
    assert sum(kills.values()) >= KILLS // 3, kills
    assert database.admin.execute("SELECT reason, detail FROM prooftrail.quarantine LIMIT 3").fetchall() == []
    stored = database.admin.execute("SELECT id FROM prooftrail.event WHERE source <> 'prooftrail'").fetchall()
    assert sorted(id for (id,) in stored) == sorted(event["id"] for event in events)
    check_places(database)

"""Avro from Kafka through a schema registry that evolves, forgets and fails: nothing is lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from prooftrail.errors import SchemaRegistryUnavailable
from prooftrail.formats import avro
from tests.conftest import LogDatabase
from tests.factories import kafka, kafka_record, native, rabbitmq, rabbitmq_message
from tests.registry import Registry, encoded, running
from tests.unit.test_format_avro import V1, V2, VALUE

Ingesting = Callable[..., list[Any]]

OUTAGE = 10.0  # seconds
BACKOFF = 1.0  # seconds from one delivery to the next


@pytest.fixture(autouse=True)
def _as_new() -> Iterator[None]:
    avro._registry.cache_clear()
    yield
    avro._registry.cache_clear()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with running() as registry:
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", registry.url)
        yield registry


def old(id: int, number: int) -> bytes:
    return encoded(id, V1, VALUE | {"id": f"e-{number}", "ward": "3"})


def new(id: int, number: int) -> bytes:
    return encoded(id, V2, VALUE | {"id": f"e-{number}", "level": "warning", "room": number})


def stored(database: LogDatabase) -> dict[str, Any]:
    return dict(database.admin.execute("SELECT id, metadata FROM prooftrail.event WHERE tenant = 'acme'").fetchall())


def quarantined(database: LogDatabase) -> list[tuple[str, bytes]]:
    return database.admin.execute("SELECT reason, raw FROM prooftrail.quarantine ORDER BY origin").fetchall()


def test_producers_of_an_old_and_a_new_schema_write_to_one_topic(
    database: LogDatabase, ingesting: Ingesting, registry: Registry
) -> None:
    v1, v2 = registry.add(V1), registry.add(V2)
    bodies = [old(v1, number) if number % 2 else new(v2, number) for number in range(100)]
    bodies.append(json.dumps(native(id="plain")).encode())
    batch = kafka(*(kafka_record(body, offset) for offset, body in enumerate(bodies)))
    for _ in range(2):
        assert ingesting(batch) == []
        found = stored(database)
        assert len(found) == 101
        assert (found["e-1"], found["e-2"], found["plain"]) == ({"ward": "3"}, {"room": 2}, None)
        assert database.count("quarantine") == 0
    assert registry.asked == ["/schemas/ids/2", "/schemas/ids/1"]


def test_a_record_whose_schema_nobody_knows_waits_in_quarantine_and_its_neighbours_are_stored(
    database: LogDatabase, ingesting: Ingesting, registry: Registry
) -> None:
    known = registry.add(V1)
    bodies = [old(known, 0), old(99, 1), old(known, 2)]
    assert ingesting(kafka(*(kafka_record(body, offset) for offset, body in enumerate(bodies)))) == []
    assert stored(database).keys() == {"e-0", "e-2"}
    assert quarantined(database) == [("unknown-schema", bodies[1])]


def test_without_a_registry_records_in_avro_wait_in_quarantine(database: LogDatabase, ingesting: Ingesting) -> None:
    assert ingesting(rabbitmq(rabbitmq_message(old(1, 0)), rabbitmq_message(native(id="plain")))) == []
    assert stored(database).keys() == {"plain"}
    assert quarantined(database) == [("no-schema-registry", old(1, 0))]


def test_a_registry_that_is_away_for_ten_seconds_loses_nothing(
    database: LogDatabase, ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as before:
        port = before.port
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", f"http://127.0.0.1:{port}")
    batch = kafka(*(kafka_record(old(1, number), number, partition=number % 3) for number in range(60)))
    over = threading.Event()
    registries: list[Registry] = []

    def return_later() -> None:
        over.wait(OUTAGE)
        registries.append(Registry(port, fault=503))
        registries[0].add(V1)
        registries[0].fault = None  # not before: a schema that is not there is no outage

    outage, began = threading.Thread(target=return_later), time.monotonic()
    outage.start()
    try:
        refused = deliver_until_taken(ingesting, batch)
        assert refused > 3
        assert time.monotonic() - began >= OUTAGE
        assert len(stored(database)) == 60
        assert database.count("quarantine") == 0
    finally:
        over.set()
        outage.join()
        for registry in registries:
            registry.stop()


def deliver_until_taken(ingesting: Ingesting, batch: dict[str, Any]) -> int:
    """Deliver like Kafka's mapping: the whole batch again until it is taken. Returns how often it was not."""
    pause = threading.Event()
    for refused in range(1000):
        try:
            assert ingesting(batch) == []
        except SchemaRegistryUnavailable:
            pause.wait(BACKOFF)
        else:
            return refused
    raise AssertionError("expected the batch to be taken at last")


def test_what_needs_no_schema_is_stored_while_the_registry_is_away(
    database: LogDatabase, ingesting: Ingesting, registry: Registry
) -> None:
    registry.add(V1)
    registry.fault = 503
    batch = kafka(
        kafka_record(native(id="first"), 0), kafka_record(old(1, 1), 1), kafka_record(native(id="behind"), 2),
        kafka_record(native(id="beside"), 0, partition=1),
    )  # fmt: skip
    with pytest.raises(SchemaRegistryUnavailable):
        ingesting(batch)
    assert stored(database).keys() == {"first", "beside"}  # what is behind it in its partition waits with it
    registry.fault = None
    assert deliver_until_taken(ingesting, batch) <= 2
    assert stored(database).keys() == {"first", "e-1", "behind", "beside"}

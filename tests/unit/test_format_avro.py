"""Avro in the wire format of schema registries: the same event as in JSON, by whatever schema it was written."""

from __future__ import annotations

import decimal
import json
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Any

import boto3
import moto
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envelopes
from prooftrail import formats
from prooftrail.errors import ConfigurationError, InvalidRecord, SchemaRegistryUnavailable
from prooftrail.event import Event
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected, avro, schema_registry
from tests.conftest import PROJECT
from tests.factories import native
from tests.hostile_http import ANSWERS, serving
from tests.leaves import LATEST, TEXT
from tests.registry import Registry, encoded, running

V1: dict[str, Any] = {
    "type": "record",
    "name": "Audit",
    "namespace": "clinic",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "tenant", "type": "string"},
        {"name": "source", "type": "string"},
        {"name": "action", "type": "string"},
        {"name": "outcome", "type": {"type": "enum", "name": "Outcome", "symbols": ["success", "failure"]}},
        {"name": "message", "type": ["null", "string"], "default": None},
        {"name": "ward", "type": "string"},
    ],
}
ADDED = [
    {"name": "level", "type": {"type": "enum", "name": "Level", "symbols": ["info", "warning"]}, "default": "info"},
    {"name": "room", "type": "int", "default": 0},
]
V2 = V1 | {"fields": [field for field in V1["fields"] if field["name"] != "ward"] + ADDED}
WHEN = datetime(2026, 10, 1, 12, 0, 0, 123456, UTC)
VALUE = {
    "id": "e1",
    "time": WHEN,
    "tenant": "acme",
    "source": "clinic/records",
    "action": "patient.read",
    "outcome": "failure",
    "message": "no",
}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    with running() as registry:
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", f"{registry.url}/")
        avro._registry.cache_clear()
        yield registry
    avro._registry.cache_clear()


@pytest.fixture(autouse=True)
def _as_new(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(schema_registry, "PAUSE_SECONDS", 0.0)
    avro._registry.cache_clear()
    yield
    avro._registry.cache_clear()


def read(body: bytes) -> list[Accepted | Rejected]:
    return list(formats.read(RawRecord("kafka:c:t:0:7:1", body), LATEST, Defaults("fallback")))


def event_of(body: bytes) -> Event:
    (outcome,) = read(body)
    assert isinstance(outcome, Accepted), outcome
    assert outcome.record.body == body
    return outcome.event


def refusal_of(body: bytes) -> tuple[str, str]:
    (outcome,) = read(body)
    assert isinstance(outcome, Rejected), outcome
    assert outcome.record.body == body
    return outcome.reason, outcome.detail


def test_records_of_an_old_and_a_new_schema_are_each_read_by_their_own(registry: Registry) -> None:
    old = event_of(encoded(registry.add(V1), V1, VALUE | {"ward": "3"}))
    new = event_of(encoded(registry.add(V2), V2, VALUE | {"level": "warning", "room": 7}))
    assert (old.id, old.time, old.outcome, old.message, old.level) == ("e1", WHEN, "failure", "no", "info")
    assert (new.id, new.time, new.outcome, new.message, new.level) == ("e1", WHEN, "failure", "no", "warning")
    assert (old.metadata, new.metadata) == ({"ward": "3"}, {"room": 7})


def test_an_event_in_avro_is_the_event_that_it_is_in_json(registry: Registry) -> None:
    body = encoded(registry.add(V2), V2, VALUE | {"level": "info", "room": 7})
    same = native(**VALUE | {"time": WHEN.isoformat(), "level": "info", "room": 7}, actor=None, target=None)
    assert event_of(body) == event_of(json.dumps(same).encode())


def test_a_default_that_does_not_fit_its_field_does_not_matter(registry: Registry) -> None:
    schema = V1 | {"fields": [*V1["fields"], {"name": "x", "type": "int", "default": "none"}]}
    body = encoded(registry.add(schema), holding("int"), VALUE | {"ward": "3", "x": 1})
    assert event_of(body).metadata == {"ward": "3", "x": 1}


def test_a_schema_is_asked_for_once(registry: Registry) -> None:
    body = encoded(registry.add(V2), V2, VALUE | {"level": "info", "room": 7})
    assert event_of(body) == event_of(body)
    assert registry.asked == ["/schemas/ids/1"]


def test_a_schema_that_nobody_knows_is_refused_and_not_asked_for_again_at_once(registry: Registry) -> None:
    body = encoded(1, V1, VALUE | {"ward": "3"})
    for _ in range(3):
        reason, detail = refusal_of(body)
        assert (reason, "schema 1" in detail) == ("unknown-schema", True)
    assert registry.asked == ["/schemas/ids/1"]


def test_an_id_that_no_registry_can_have_is_refused_and_not_asked_for(registry: Registry) -> None:
    registry.fault = 404  # what registries answer whose numbers are 32-bit integers: that there is no such path
    for id in (2**31, 2**32 - 1):
        assert refusal_of(struct.pack(">BI", 0, id))[0] == "unknown-schema"
    assert registry.asked == []


def test_a_schema_that_is_registered_later_is_found_later() -> None:
    now = [0.0]
    with running() as registry:
        client = schema_registry.SchemaRegistry(registry.url, lambda: None, lambda: now[0])
        with pytest.raises(InvalidRecord):
            client.schema(1)
        registry.add("string")
        with pytest.raises(InvalidRecord):
            client.schema(1)
        now[0] = schema_registry.UNKNOWN_SECONDS
        assert client.schema(1).text == '"string"'


@pytest.mark.parametrize("fault", [500, 503, 429, 401, 403, 404, b"<html>", b"{}", b'{"schema": 5}', b"\xff"])
def test_a_registry_that_does_not_say_means_later(registry: Registry, fault: int | bytes) -> None:
    body = encoded(registry.add(V1), V1, VALUE | {"ward": "3"})
    registry.fault = fault
    with pytest.raises(SchemaRegistryUnavailable, match="/schemas/ids/1"):
        read(body)
    registry.fault = None
    assert event_of(body).id == "e1"


def test_a_registry_that_is_too_slow_means_later(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_registry, "PATIENCE", 0.05)
    registry.delay = 0.5
    with pytest.raises(SchemaRegistryUnavailable):
        read(encoded(1, V1, VALUE | {"ward": "3"}))


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_a_registry_that_never_comes_to_an_end_means_later(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Iterable[bytes]]
) -> None:
    monkeypatch.setattr(schema_registry, "PATIENCE", 0.3)
    with serving(answer) as place:
        client = schema_registry.SchemaRegistry(f"http://{place}", lambda: None)
        with pytest.raises(SchemaRegistryUnavailable, match="/schemas/ids/1"):
            client.schema(1)


def test_a_registry_that_is_not_there_means_later(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as gone:
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", gone.url)
        avro._registry.cache_clear()
    with pytest.raises(SchemaRegistryUnavailable):
        read(encoded(1, V1, VALUE | {"ward": "3"}))


def test_after_a_failure_the_registry_is_left_alone_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_registry, "PAUSE_SECONDS", 1.0)
    now = [0.0]
    with running() as registry:
        registry.fault = 503
        client = schema_registry.SchemaRegistry(registry.url, lambda: None, lambda: now[0])
        for now[0] in (0.0, 0.5, 1.5):
            with pytest.raises(SchemaRegistryUnavailable, match="503"):
                client.schema(1)
    assert len(registry.asked) == 2


def test_without_a_registry_the_record_is_refused_and_told_what_to_set() -> None:
    reason, detail = refusal_of(encoded(1, V1, VALUE | {"ward": "3"}))
    assert (reason, "SCHEMA_REGISTRY_URL" in detail) == ("no-schema-registry", True)


@pytest.mark.parametrize("url", ["registry:8081", "file:///etc/passwd", "ftp://x"])
def test_an_address_that_is_no_url_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", url)
    with pytest.raises(ConfigurationError, match="SCHEMA_REGISTRY_URL"):
        read(encoded(1, V1, VALUE | {"ward": "3"}))


@pytest.mark.parametrize(
    ("secret", "known"), [('{"username":"ingest","password":"p:w"}', True), ('{"username":"x"}', False)]
)
def test_the_registry_is_told_who_asks(monkeypatch: pytest.MonkeyPatch, secret: str, known: bool) -> None:
    with moto.mock_aws(), running(user="ingest:p:w") as registry:
        body = encoded(registry.add(V1), V1, VALUE | {"ward": "3"})
        arn = boto3.client("secretsmanager").create_secret(Name="registry", SecretString=secret)["ARN"]
        monkeypatch.setenv("SCHEMA_REGISTRY_URL", registry.url)
        with pytest.raises(SchemaRegistryUnavailable, match="401"):
            read(body)
        monkeypatch.setenv("SCHEMA_REGISTRY_SECRET_ARN", arn)
        avro._registry.cache_clear()
        if known:
            assert event_of(body).id == "e1"
        else:
            with pytest.raises(ConfigurationError, match="username and password"):
                read(body)


def record_of(name: str, **fields: Any) -> dict[str, Any]:
    members = [{"name": name, "type": type} for name, type in fields.items()]
    return {"type": "record", "name": name, "namespace": "clinic", "fields": members}


def test_types_that_other_subjects_define_are_fetched_with_what_they_need(registry: Registry) -> None:
    person, visit = record_of("Person", id="string"), record_of("Visit", by="Person", of="Person")
    visiting = V1 | {"fields": [*V1["fields"], {"name": "visit", "type": "Visit"}, {"name": "actor", "type": "Person"}]}
    registry.add(person, "people%2Fall")
    registry.add(visit, "visits", [("Person", "people/all", 1)])
    id = registry.add(visiting, None, [("Visit", "visits", 1), ("Person", "people/all", 1)])
    inlined = holding(record_of("Visit", by=person, of="Person"))
    inlined["fields"].append({"name": "actor", "type": "Person"})
    met = {"by": {"id": "dr-lee"}, "of": {"id": "p-1"}}
    event = event_of(encoded(id, inlined, VALUE | {"ward": "3", "x": met, "actor": {"id": "dr-lee"}}))
    assert (event.actor and event.actor.id, event.metadata) == ("dr-lee", {"ward": "3", "visit": met})


def test_types_that_refer_to_each_other_in_a_circle_end(registry: Registry) -> None:
    registry.add({"type": "record", "name": "A", "fields": []}, "a", [("B", "b", 1)])
    registry.add({"type": "record", "name": "B", "fields": []}, "b", [("A", "a", 1)])
    assert refusal_of(struct.pack(">BI", 0, 1))
    assert registry.asked == ["/schemas/ids/1", "/subjects/b/versions/1", "/subjects/a/versions/1"]


def holding(type: Any) -> dict[str, Any]:
    return V1 | {"fields": [*V1["fields"], {"name": "x", "type": type}]}


VALUES: dict[str, tuple[Any, Any, Any]] = {
    "millis": ({"type": "long", "logicalType": "timestamp-millis"}, WHEN, "2026-10-01T12:00:00.123000Z"),
    "no calendar's": ({"type": "long", "logicalType": "timestamp-millis"}, 2**62, 2**62),
    "local": (
        {"type": "long", "logicalType": "local-timestamp-micros"},
        WHEN.replace(tzinfo=None),
        "2026-10-01T12:00:00.123456",
    ),
    "nanos": ({"type": "long", "logicalType": "timestamp-nanos"}, 1_790_000_000_123_456_789, 1_790_000_000_123_456_789),
    "date": ({"type": "int", "logicalType": "date"}, date(2026, 10, 1), "2026-10-01"),
    "time": ({"type": "long", "logicalType": "time-micros"}, time(12, 0, 0, 5), "12:00:00.000005"),
    "decimal": ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, decimal.Decimal("12.30"), "12.30"),
    "uuid": ({"type": "string", "logicalType": "uuid"}, uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "no uuid": ({"type": "string", "logicalType": "uuid"}, "not one", "not one"),
    "fixed uuid": (
        {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"},
        b"\0" * 15 + b"\5",
        "00000000-0000-0000-0000-000000000005",
    ),
    "bytes": ("bytes", b"\0\xff", "AP8="),
    "fixed": ({"type": "fixed", "name": "F", "size": 2}, b"ab", "YWI="),
    "long": ("long", -(2**63), -(2**63)),
    "double": ("double", 0.1, 0.1),
    "not a number": ("double", float("nan"), "NaN"),
    "endless": ({"type": "array", "items": "double"}, [float("inf"), float("-inf")], ["Infinity", "-Infinity"]),
    "union": (["null", "string", {"type": "map", "values": ["int", "string"]}], {"a": 1, "b": "c"}, {"a": 1, "b": "c"}),
}


@pytest.mark.parametrize(("type", "value", "expected"), VALUES.values(), ids=VALUES)
def test_every_type_comes_out_as_json_and_whole(registry: Registry, type: Any, value: Any, expected: Any) -> None:
    schema = holding(type)
    event = event_of(encoded(registry.add(schema), schema, VALUE | {"ward": "3", "x": value}))
    assert event.metadata == {"ward": "3", "x": expected}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(0, 40))
def test_every_digit_of_a_decimal_is_kept(registry: Registry, unscaled: bytes, scale: int) -> None:
    parsed = avro._decimal(unscaled, {"scale": scale})
    with decimal.localcontext(prec=200):
        assert decimal.Decimal(parsed).scaleb(scale) == int.from_bytes(unscaled, "big", signed=True)


MEMBERS = st.dictionaries(st.sampled_from("abcdefgh"), TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans(), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(MEMBERS)
def test_whatever_a_record_holds_its_event_holds_too(registry: Registry, members: dict[str, Any]) -> None:
    kinds = {str: "string", int: "long", bool: "boolean"}
    schema = V1 | {
        "fields": [*V1["fields"], *({"name": name, "type": kinds[type(value)]} for name, value in members.items())]
    }
    event = event_of(encoded(registry.add(schema), schema, VALUE | {"ward": "3"} | members))
    assert event.metadata == {"ward": "3"} | members


def debezium() -> tuple[dict[str, Any], dict[str, Any]]:
    row = {
        "type": "record",
        "name": "Value",
        "fields": [{"name": "id", "type": "int"}, {"name": "dose", "type": ["null", "string"], "default": None}],
    }
    source = [("connector", "string"), ("name", "string"), ("ts_ms", "long"), ("db", "string"), ("table", "string")]
    envelope = {
        "type": "record",
        "name": "Envelope",
        "namespace": "clinic.public.prescription",
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {
                "name": "source",
                "type": {
                    "type": "record",
                    "name": "Source",
                    "fields": [{"name": name, "type": type} for name, type in [*source, ("lsn", "long")]],
                },
            },
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
    }
    value = {
        "before": {"id": 7, "dose": "5 mg"},
        "after": {"id": 7, "dose": "10 mg"},
        "source": {
            "connector": "postgresql",
            "name": "clinic",
            "ts_ms": 1_790_000_000_000,
            "db": "clinic",
            "table": "prescription",
            "lsn": 42,
        },
        "op": "u",
        "ts_ms": 1_790_000_000_500,
    }
    return envelope, value


def test_a_change_of_debezium_in_avro_is_the_change_that_it_is_in_json(registry: Registry) -> None:
    schema, value = debezium()
    event = event_of(encoded(registry.add(schema), schema, value))
    assert (event.before, event.after) == (value["before"], value["after"])
    assert event == event_of(json.dumps(value).encode())


def test_what_lambda_decoded_already_is_json_like_any_other() -> None:
    plain = VALUE | {"time": WHEN.isoformat(), "ward": "3"}
    headers = {":schema-id": "7", ":schema-format": "AVRO"}
    (outcome,) = formats.read(RawRecord("kafka:c:t:0:7:1", json.dumps(plain).encode(), headers), LATEST)
    assert isinstance(outcome, Accepted)
    assert (outcome.event.id, outcome.event.metadata) == ("e1", {"ward": "3"})


def test_the_sample_is_whole_where_the_registry_knows_its_schema(registry: Registry) -> None:
    events = PROJECT / "events"
    registry.schemas[7] = {"schema": (events / "audit-event.avsc").read_text()}
    deliveries = envelopes.of(json.loads((events / "ingest-kafka-avro.json").read_bytes())).deliveries
    encoded, decoded = [outcome for delivery in deliveries for outcome in formats.read(delivery.record, LATEST)]
    assert isinstance(encoded, Accepted)
    assert isinstance(decoded, Accepted)
    assert encoded.event.metadata == decoded.event.metadata == {"amount": "12.30"}
    assert (encoded.event.actor, encoded.event.target) == (decoded.event.actor, decoded.event.target)


def test_a_cloud_event_in_headers_may_have_data_in_avro(registry: Registry) -> None:
    ce = {
        "ce_specversion": "1.0",
        "ce_id": "c-1",
        "ce_source": "/ehr",
        "ce_type": "patient.read",
        "ce_time": WHEN.isoformat(),
    }
    body = encoded(registry.add(V1), V1, VALUE | {"ward": "3"})
    record = RawRecord("kafka:c:t:0:7:1", body, ce | {"content-type": "application/avro"})
    (outcome,) = formats.read(record, LATEST, Defaults("fallback"))
    assert isinstance(outcome, Accepted), outcome
    assert (outcome.record, outcome.event.id) == (record, "c-1")
    assert "ward" in json.dumps(outcome.event.metadata)


def test_json_behind_the_id_of_a_json_schema_is_read_as_it_is(registry: Registry) -> None:
    id = registry.add({"type": "object"}, kind="JSON")
    assert event_of(struct.pack(">BI", 0, id) + json.dumps(native(id="j")).encode()).id == "j"


def test_protocol_buffers_are_refused_by_their_name(registry: Registry) -> None:
    id = registry.add("syntax", kind="PROTOBUF")
    assert refusal_of(struct.pack(">BI", 0, id)) == (
        "unsupported-schema",
        "expected a schema of Avro or JSON, got one of 'PROTOBUF'",
    )


GOOD = encoded(1, V1, VALUE | {"ward": "3"})


@pytest.mark.parametrize("body", [GOOD[:-1], GOOD[:5], GOOD + b"\0", GOOD[:3], b"\0", GOOD[:5] + b"\xff" * 20])
def test_bytes_that_are_not_what_the_schema_says_are_refused(registry: Registry, body: bytes) -> None:
    registry.add(V1)
    assert refusal_of(body)[0] == "invalid-avro"


def test_text_that_postgresql_cannot_hold_is_refused_like_in_json(registry: Registry) -> None:
    body = encoded(registry.add(V1), V1, VALUE | {"ward": "N\0L"})
    assert refusal_of(body)[0] == "nul-character"


LIST = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}


@pytest.mark.parametrize(("depth", "reason"), [(10, "invalid-field"), (1_000_000, "invalid-avro")])
def test_what_nests_without_end_is_refused_and_brings_nothing_down(registry: Registry, depth: int, reason: str) -> None:
    id = registry.add(LIST)
    assert refusal_of(struct.pack(">BI", 0, id) + b"\2" * depth + b"\0")[0] == reason


NOTHING = {"type": "record", "name": "N", "fields": [{"name": "n", "type": "null"}]}


@pytest.mark.parametrize("items", ["null", NOTHING, {"type": "fixed", "name": "Z", "size": 0}])
def test_an_array_that_could_be_endless_is_refused(registry: Registry, items: Any) -> None:
    id = registry.add({"type": "array", "items": items})
    assert refusal_of(struct.pack(">BI", 0, id) + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\0")[0] == "unsupported-schema"


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, 5, {"type": "record", "name": "A", "fields": [{"type": "B"}]}])
def test_a_schema_that_is_none_is_refused(registry: Registry, schema: Any) -> None:
    assert refusal_of(struct.pack(">BI", 0, registry.add(schema)) + b"x")[0] == "unsupported-schema"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_at_all_raise_anything(registry: Registry, body: bytes) -> None:
    for schema in () if registry.schemas else (V1, LIST, debezium()[0], holding(["null", "bytes"])):
        registry.add(schema)
    for id in (1, 2, 3, 4, 99):
        assert read(struct.pack(">BI", 0, id) + body)


def test_several_events_in_one_record_are_each_judged(registry: Registry) -> None:
    schema = {"type": "array", "items": V1}
    body = encoded(registry.add(schema), schema, [VALUE | {"ward": "3"}, VALUE | {"ward": "4", "tenant": ""}])
    first, second = read(body)
    assert (type(first), type(second)) == (Accepted, Rejected)
    assert msgspec.json.decode(second.record.body)["ward"] == "4"

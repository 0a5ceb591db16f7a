"""Whatever a document holds, its event holds it too: in a field, spelled as ours are, or in metadata as it came."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Event
from prooftrail.formats import Accepted, Defaults, RawRecord, cloudevents, go, java, services, times
from tests.leaves import JSON, LATEST, TEXT, leaves, lost
from tests.unit.formats.samples import CLOUDEVENT, RESOURCE, SAMPLES, STORE, Sample

WORDS = st.sampled_from(
    ["SUCCESS", "Failed", "ok", "INFO", "WARN", "fatal", "CREATE", "PATIENT_READ", "7", "007", "PT1.5S", "eyJhIjoxfQ=="]
)
TIMES = st.sampled_from(
    [
        "2026-10-01T12:00:00.123456789Z", "2026-10-01T12:00:00", "2026-10-01 12:00:00+02", "0001-01-01T00:00:00+01:00",
        "2026-10-01T12:00:00+02:00[Europe/Berlin]", 1_790_000_000, 1_790_000_000_123, 1_790_000_000.25,
        [2026, 10, 1, 12, 0], [2026, 10, 1, 12, 0, 0, 123_456_789], {"seconds": 1_790_000_000, "nanos": 5},
    ]
)  # fmt: skip
VALUES = JSON | WORDS | TIMES | st.booleans() | st.floats(0, 1e6).map(lambda number: round(number, 3))


def documents(table: dict[str, str], base: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents with some of a table's names and others, of which `base` makes events."""
    plain = st.dictionaries(st.sampled_from(sorted(name for name in table if "." not in name)) | TEXT, VALUES, max_size=6)
    inner: dict[str, list[str]] = {}
    for path in table:
        outer, _, name = path.partition(".")
        if name:
            inner.setdefault(outer, []).append(name)
    objects = {outer: st.dictionaries(st.sampled_from(names) | TEXT, VALUES, max_size=3) for outer, names in inner.items()}
    nested = st.fixed_dictionaries({}, optional=objects) if objects else st.just({})
    return st.builds(lambda one, two: one | two | base, plain, nested)


def unexplained(document: Any, event: Event) -> Counter[tuple[type, Any]]:
    """What the event lacks of the document, but for values that it has in our spelling, each of which explains one."""
    ours = Counter(leaves(msgspec.to_builtins(event))) - Counter(leaves(document))
    missing = lost(document, event)
    for (kind, value), count in list(missing.items()):
        for _ in range(count):
            found = next((spelling for spelling in spellings(kind, value) if ours[spelling] > 0), None)
            if found:
                ours[found] -= 1
                missing[kind, value] -= 1
    return +missing


def spellings(kind: type, value: Any) -> list[tuple[type, Any]]:
    """In which other ways one of our fields may have said this value."""
    found: list[tuple[type, Any]] = []
    if kind is int:
        found += [(str, str(value)), (float, float(value)), (float, value / 10**6)]
    if kind is float:
        found += [(float, value * 1000), (float, float(Decimal(repr(value)).scaleb(-6)))]
    if kind is str:
        found += [(str, value.lower())]
        found += [(int, int(value))] if value.isascii() and value.isdigit() else []
        found += [(int, 1)] if value == "eyJhIjoxfQ==" else []
    return found


def event_of(document: Any, headers: dict[str, str] | None = None) -> Event | None:
    record = RawRecord("sqs:q:m", json.dumps(document).encode(), headers or {})
    (outcome,) = formats.read(record, LATEST, Defaults("acme"))
    return outcome.event if isinstance(outcome, Accepted) else None


def without(document: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names and not times.is_zero(value)}


def check(document: dict[str, Any], *times_of: str, headers: dict[str, str] | None = None) -> None:
    event = event_of(document, headers)
    if event is not None:
        assert not unexplained(without(document, *times_of), event)


JAVA_BASE: dict[str, Any] = {"eventId": "e", "timestamp": [2026, 10, 1, 12, 0], "tenantId": "acme", "serviceName": "s"}


@given(documents(java.TABLE, JAVA_BASE | {"id": None, "time": None, "action": "read"}))
def test_of_java(document: dict[str, Any]) -> None:
    check(document, "timestamp")


@given(documents(go.TABLE, {"ID": "e", "Time": "2026-10-01T12:00:00Z", "Tenant": "t", "Source": "s", "Action": "read"}))
def test_of_go(document: dict[str, Any]) -> None:
    check(document, "Time")


TAGGED = {name: ours for name, ours in go.TABLE.items() if name[0].islower()}


@given(documents(TAGGED, {"event_id": "e", "occurred_at": "2026-10-01T12:00:00Z", "tenant_id": "t", "action": "read"}))
def test_of_go_with_tags(document: dict[str, Any]) -> None:
    others = dict.fromkeys(name for name, ours in go.TABLE.items() if ours == "time" and name != "occurred_at")
    check({"source": "s"} | document | others, "occurred_at")


@given(documents(services.TABLE, STORE))
def test_of_the_service_of_stores(document: dict[str, Any]) -> None:
    check(document, "event_timestamp")


@given(documents(services.TABLE, without(RESOURCE, "timestamp") | {"event_timestamp": "2026-10-01T12:00:00Z"}))
def test_of_the_service_of_resources(document: dict[str, Any]) -> None:
    check(document, "event_timestamp")


CE_NAMES = {name: ours for name, ours in cloudevents.TABLE.items() if name != "recordedtime"}
OWN = st.fixed_dictionaries(
    {"action": st.just("read")},
    optional={
        "id": TEXT, "source": TEXT, "actor": st.just({"id": "a", "x": "b"}), "target": st.just({"id": "t"}),
        "metadata": st.dictionaries(TEXT, JSON, max_size=2), "after": JSON, "ward": JSON, "tenant": st.just("other"),
        "sequence": st.integers(0, 9), "trace_id": TEXT, "time": st.just("2026-10-01T13:00:00.000000001Z"),
    },
)  # fmt: skip
TYPES = st.sampled_from(["com.x.patient.updated", "x.PatientDeleted", "x.CREATED.v2", "login", "v1", ""])


@given(documents(CE_NAMES, without(CLOUDEVENT, "type", "data")), TYPES, JSON | OWN)
def test_of_cloudevents(attributes: dict[str, Any], kind: str, data: Any) -> None:
    document = attributes | {"type": kind, "data": data, "recordedtime": "2026-10-01T12:00:01Z"}
    event = event_of(document)
    if event is not None:
        missing = unexplained(without(document, "time"), event)
        assert missing.keys() <= set(leaves(data.get("time"))) if isinstance(data, dict) else not missing


@given(documents(CE_NAMES, without(CLOUDEVENT, "type", "data")), JSON)
def test_of_binary_cloudevents(attributes: dict[str, Any], data: Any) -> None:
    texts = {name: value for name, value in attributes.items() if isinstance(value, str) and name.isalnum()}
    texts |= {"type": "t", "specversion": "1.0"}
    headers = {f"ce_{name}": value for name, value in texts.items()}
    record = RawRecord("kafka:t:0:1", json.dumps(data).encode(), headers | {"content-type": "application/json"})
    (outcome,) = formats.read(record, LATEST, Defaults("acme"))
    if isinstance(outcome, Accepted):
        assert not unexplained(without(texts, "time", "recordedtime") | {"data": data}, outcome.event)


ROW = st.dictionaries(st.sampled_from(["id", "updated_by", "created_by", "tenant_id", "payload"]) | TEXT, JSON, max_size=4)
SOURCE = st.dictionaries(st.sampled_from(["table", "db", "schema", "txId", "snapshot"]) | TEXT, JSON, max_size=4)


@given(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["c", "u", "d", "r", "t", "m"]), "source": SOURCE},
        optional={"before": ROW | TEXT, "after": ROW, "transaction": JSON, "message": JSON, "more": JSON},
    ),
    st.none() | JSON,
)
def test_of_debezium_but_for_when_the_connector_had_it_in_hand(change: dict[str, Any], schema: Any) -> None:
    change["source"] |= {"connector": "postgresql", "name": "s", "ts_us": 1_790_000_000_000_001, "lsn": 1}
    document = {"schema": schema, "payload": change | {"ts_ms": 5}} if schema is not None else change
    event = event_of(document)
    if event is not None:
        assert not lost({"schema": schema, "payload": change}, event)
        assert event.time == datetime.fromtimestamp(1_790_000_000, UTC).replace(microsecond=1)


@given(st.dictionaries(TEXT | st.sampled_from(["actor", "time", "id", "source"]), JSON, max_size=4), JSON)
def test_of_an_envelope_of_eventbridge_without_an_event(detail: dict[str, Any], resources: Any) -> None:
    envelope = {
        "id": "7bf7", "detail-type": "Object Created", "source": "aws.s3", "account": "111122223333", "region": "eu-1",
        "time": "2026-10-01T12:00:00Z", "resources": resources, "detail": detail,
    }  # fmt: skip
    event = event_of(envelope)
    assert event is not None
    assert not lost(without(envelope, "time"), event)


@pytest.mark.parametrize("sample", [sample for sample in SAMPLES if sample.format in {"java", "go", "services"}], ids=str)
def test_most_of_a_sample_is_in_fields_not_in_metadata(sample: Sample) -> None:
    event = event_of(sample.document, sample.headers)
    assert event is not None
    fields = msgspec.structs.replace(event, metadata=None)
    assert len(list(leaves(msgspec.to_builtins(fields)))) >= len(sample.document) / 2

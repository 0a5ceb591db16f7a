"""OpenTelemetry log records: each with its resource and scope is an event, and is read again from its own bytes."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected, otel
from tests.leaves import JSON, LATEST, TEXT, leaves

NANOSECONDS = 1_790_000_000_123_456_000
RESOURCE = {"service.name": "billing", "service.namespace": "shop", "tenant.id": "acme", "cloud.region": "eu-north-1"}


def any_value(value: Any) -> dict[str, Any]:
    """JSON as the AnyValue of OTLP."""
    match value:
        case None:
            return {}
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list():
            return {"arrayValue": {"values": [any_value(item) for item in value]}}
        case _:
            return {"kvlistValue": {"values": attributes(value)}}


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": any_value(value)} for name, value in values.items()]


def record(said: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    base = {"timeUnixNano": str(NANOSECONDS), "eventName": "invoice.paid", "severityNumber": 9}
    return {name: value for name, value in (base | fields).items() if value is not None} | (
        {"attributes": attributes(said)} if said else {}
    )


def export(*records: dict[str, Any], resource: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "resourceLogs": [
            {
                "resource": {"attributes": attributes(RESOURCE if resource is None else resource)},
                "scopeLogs": [{"scope": {"name": "audit", "version": "1"}, "logRecords": list(records)}],
                "schemaUrl": "https://opentelemetry.io/schemas/1.37.0",
            }
        ]
    }


def read(document: Any) -> list[Accepted | Rejected]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return list(formats.read(RawRecord("kafka:c:t:0:7:1", body), LATEST, Defaults("fallback")))


def event_of(document: Any) -> Event:
    (outcome,) = read(document)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def test_a_record_says_who_did_what_and_its_resource_says_where() -> None:
    said = {
        "log.record.uid": "01H",
        "enduser.id": "dr-lee",
        "user.name": "Lee",
        "user.roles": ["admin", "billing"],
        "client.address": "192.0.2.1",
        "user_agent.original": "curl/8",
        "session.id": "s-1",
        "target.id": "i-7",
        "target.type": "Invoice",
        "http.response.status_code": 200,
        "amount": 12.5,
        "nested": {"a": [1, None, {"b": True}]},
    }
    trace = {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174"}
    event = event_of(export(record(said, body={"stringValue": "paid"}, **trace)))
    assert (event.id, event.tenant, event.source, event.site) == ("01H", "acme", "shop/billing", "eu-north-1")
    assert (event.action, event.level, event.outcome, event.message) == ("invoice.paid", "info", "success", "paid")
    assert event.time == datetime(2026, 9, 21, 14, 13, 20, 123456, UTC)
    assert event.trace_id == trace["traceId"]
    assert event.actor == Actor(
        id="dr-lee", name="Lee", roles=["admin", "billing"], ip="192.0.2.1", user_agent="curl/8", session_id="s-1"
    )
    assert event.target == Target(type="Invoice", id="i-7")
    assert event.metadata == {
        "severityNumber": 9,
        "spanId": trace["spanId"],
        "attributes": said,
        "resource": {"attributes": RESOURCE},
        "scope": {"name": "audit", "version": "1"},
        "resourceLogs.schemaUrl": "https://opentelemetry.io/schemas/1.37.0",
    }


def test_numbers_name_people_and_tenants_too_but_truths_do_not() -> None:
    event = event_of(export(record({"user.id": 42, "user.name": True, "tenant": 7}), resource={"service.name": "s"}))
    assert (event.actor, event.tenant) == (Actor(id="42"), "7")


def test_the_example_of_the_specification_is_a_line_of_a_log() -> None:
    example = {
        "timeUnixNano": "1544712660300000000",
        "observedTimeUnixNano": "1544712660300000000",
        "severityNumber": 10,
        "severityText": "Information",
        "body": {"stringValue": "Example log record"},
    }
    event = event_of(export(example, resource={"service.name": "my.service"}))
    assert (event.action, event.message, event.level, event.tenant) == ("log", "Example log record", "notice", "fallback")
    assert (event.id, event.time.year) == ("kafka:c:t:0:7:1", 2018)


@pytest.mark.parametrize(
    ("number", "level"),
    [(None, "info"), (0, "info"), (1, "debug"), (8, "debug"), (9, "info"), (12, "notice"), (13, "warning"), (17, "error"),
     (18, "critical"), (24, "critical"), (99, "info"), ("9", "info")],
)  # fmt: skip
def test_severities(number: Any, level: str) -> None:
    assert event_of(export(record(severityNumber=number))).level == level


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({}, "unknown"),
        ({"event.outcome": "success", "error.type": "E"}, "success"),
        ({"http.response.status_code": 403}, "failure"),
        ({"exception.type": "ValueError", "exception.message": "no", "exception.stacktrace": "at line 1"}, "failure"),
    ],
)
def test_outcomes(said: dict[str, Any], outcome: str) -> None:
    event = event_of(export(record(said)))
    assert event.outcome == outcome
    if "exception.type" in said:
        assert event.error == Error(code="ValueError", message="no", stack_trace="at line 1")


def test_a_time_finer_than_microseconds_is_kept_as_it_was_sent() -> None:
    event = event_of(export(record(timeUnixNano=str(NANOSECONDS + 1))))
    assert (event.time.microsecond, event.metadata and event.metadata["timeUnixNano"]) == (123456, str(NANOSECONDS + 1))


@pytest.mark.parametrize("time", [None, "0", 0])
def test_a_record_without_time_happened_when_it_was_seen(time: Any) -> None:
    event = event_of(export(record(timeUnixNano=time, observedTimeUnixNano=str(NANOSECONDS))))
    assert event.time == datetime(2026, 9, 21, 14, 13, 20, 123456, UTC)


def test_a_record_that_was_never_seen_is_refused_by_the_field() -> None:
    (outcome,) = read(export(record(timeUnixNano="soon")))
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, "time" in outcome.detail) == ("invalid-field", True)


@pytest.mark.parametrize("trace", ["", "0" * 32, "ab", 5])
def test_a_trace_that_is_none_stays_as_it_came(trace: Any) -> None:
    event = event_of(export(record(traceId=trace)))
    assert (event.trace_id, event.metadata and event.metadata["traceId"]) == (None, trace)


@pytest.mark.parametrize(
    "value",
    [
        {"bytesValue": "AAEC"},
        {"intValue": "007"},
        {"intValue": str(2**64)},
        {"stringValue": "a", "intValue": "1"},
        {"kvlistValue": {"values": [{"key": "a", "value": {}}, {"key": "a", "value": {"stringValue": "b"}}]}},
        {"somethingNew": 1},
        "plain",
    ],
)
def test_a_value_that_json_has_no_like_of_is_not_touched(value: Any) -> None:
    event = event_of(export(record(attributes=[{"key": "x", "value": value}])))
    assert event.metadata is not None
    assert Counter(leaves(event.metadata["attributes"])) == Counter(leaves(value))


def test_each_record_is_an_event_with_its_own_resource_and_scope() -> None:
    both = export(record({"log.record.uid": "a"}), record({"log.record.uid": "b"}))
    other = export(record({"log.record.uid": "c"}), resource={"service.name": "other", "tenant": "beta"})
    outcomes = read({"resourceLogs": [*both["resourceLogs"], *other["resourceLogs"]]})
    events = [outcome.event for outcome in outcomes if isinstance(outcome, Accepted)]
    assert [(event.id, event.tenant) for event in events] == [("a", "acme"), ("b", "acme"), ("c", "beta")]
    assert [outcome.record.origin for outcome in outcomes] == [f"kafka:c:t:0:7:1:{number}" for number in range(3)]


def test_a_record_is_read_again_from_its_own_bytes_and_keeps_its_identity() -> None:
    for outcome in read(export(record(), record(severityNumber=17))):
        assert isinstance(outcome, Accepted)
        assert list(formats.read(outcome.record, LATEST, Defaults("fallback"))) == [outcome]


def test_one_bad_record_does_not_keep_the_others() -> None:
    outcomes = read(export(record(), record(body={"stringValue": "N\0L"}), record()))
    assert [type(outcome) for outcome in outcomes] == [Accepted, Rejected, Accepted]


def test_an_export_that_is_wrong_itself_is_kept_whole() -> None:
    body = json.dumps(export(record(), record())).encode().replace(b'"scope": {', b'"scope": {"n": 1e999, ')
    (outcome,) = read(body)
    assert (type(outcome), outcome.record.body) == (Rejected, body)


@pytest.mark.parametrize("document", [{"resourceLogs": []}, export(), {"resourceLogs": [{"scopeLogs": 5}]}])
def test_an_export_without_records_is_refused(document: Any) -> None:
    (outcome,) = read(document)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "unknown-shape"


def test_many_records_of_one_huge_resource_are_refused_rather_than_multiplied() -> None:
    large = export(*(record() for _ in range(1000)), resource={"x": "y" * (otel.MOST_BYTES // 1000)})
    (outcome,) = read(large)
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "unknown-shape"


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6
)
NAMES = (
    st.sampled_from(["user.id", "user.name", "client.address", "error.type", "target.id", "user.roles", "host.name"]) | TEXT
)
ATTRIBUTES = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)
FIELDS = st.fixed_dictionaries({}, optional={"severityText": TEXT, "flags": st.integers(0, 255), "futureField": JSON})


@given(ATTRIBUTES, VALUES, FIELDS, st.dictionaries(TEXT, VALUES, max_size=2))
def test_whatever_a_record_holds_its_event_holds_too(
    said: dict[str, Any], body: Any, fields: dict[str, Any], around: dict[str, Any]
) -> None:
    resource = around | {"service.name": "s"}
    event = event_of(export(record(said, body=any_value(body), **fields), resource=resource))
    metadata = event.metadata or {}
    assert metadata["attributes"] == said
    assert metadata["resource"] == {"attributes": resource}
    assert (event.message if isinstance(body, str) else metadata.get("body")) == body
    assert {name: metadata.get(name) for name in fields} == fields

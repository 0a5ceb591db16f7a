"""AuditEvent: what it takes is what the service takes, and comes out of the service's own reader the same."""

from __future__ import annotations

import copy
import enum
import itertools
import json
import pickle
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Event
from prooftrail.formats import Accepted, RawRecord, Rejected
from prooftrail_client import Actor, AuditEvent, AuditValidationError, Error, Redaction, Target
from prooftrail_client.event import uuid7
from prooftrail_client.strict_json import Encoder
from tests.client.conftest import event

LATEST = datetime(2999, 1, 1, tzinfo=UTC)


def as_read(body: bytes) -> Event:
    """What the service makes of it."""
    (outcome,) = formats.read(RawRecord("test", body), LATEST)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def test_every_field_comes_out_of_the_services_reader_as_it_was() -> None:
    given: dict[str, Any] = {
        "id": "e-1",
        "time": datetime(2026, 10, 1, 12, 0, 0, 123456, UTC),
        "tenant": "acme",
        "source": "clinic/records",
        "sequence": 7,
        "category": "patient",
        "action": "patient.update",
        "level": "notice",
        "outcome": "failure",
        "site": "ward-3",
        "message": 'Grüße "aus" Bern\n\x01😀',
        "before": {"name": "A", "tags": [1, 2.5, None, True]},
        "after": ["b"],
        "duration_ms": 1.25,
        "request_id": "r-1",
        "trace_id": "t-1",
        "metadata": {"": {"deep": [{}]}, "big": 2**64 - 1},
    }
    parts: dict[str, dict[str, Any]] = {
        "actor": {
            "type": "user",
            "id": "u",
            "name": "U",
            "ip": "::1",
            "user_agent": "x",
            "session_id": "s",
            "roles": ["a"],
        },
        "target": {"type": "Patient", "id": "p-1", "name": "P"},
        "error": {"code": "E1", "message": "no", "stack_trace": "at x"},
    }
    made = AuditEvent(
        **given, actor=Actor(**parts["actor"]), target=Target(**parts["target"]), error=Error(**parts["error"])
    )

    read = msgspec.to_builtins(as_read(made.to_json()), builtin_types=(datetime,))

    assert read == given | parts
    assert read.keys() == set(Event.__struct_fields__)  # none of the service's fields is missing here


def test_the_fluent_way_makes_the_same_event_as_the_constructor() -> None:
    fluent = (
        AuditEvent.of("patient.update", tenant="acme", source="clinic/records")
        .by("dr-lee", name="Dr. Lee", roles=["physician"])
        .on("Patient", "p-1")
        .changed({"name": "A"}, {"name": "B"})
        .failed("locked")
        .noting(ward=3)
        .noting(bed=1)
        .having(site="north", duration_ms=12)
    )
    direct = AuditEvent(
        id=fluent.id,
        time=fluent.time,
        tenant="acme",
        source="clinic/records",
        action="patient.update",
        actor=Actor(type="user", id="dr-lee", name="Dr. Lee", roles=["physician"]),
        target=Target(type="Patient", id="p-1"),
        before={"name": "A"},
        after={"name": "B"},
        outcome="failure",
        error=Error(message="locked"),
        metadata={"ward": 3, "bed": 1},
        site="north",
        duration_ms=12,
    )
    assert fluent == direct
    assert as_read(fluent.to_json()).actor == as_read(direct.to_json()).actor


@dataclass(frozen=True, kw_only=True)
class Preset(AuditEvent):
    """An event that is of a category unless somebody says otherwise."""

    category: str | None = "medical"


@pytest.mark.parametrize("preset", [Preset(action="read", category=None), Preset(action="read").having(category=None)])
def test_what_is_taken_away_does_not_come_back_by_a_default(preset: Preset) -> None:
    assert Preset(action="read").document()["category"] == "medical"
    assert preset.category is None
    for same in (preset, replace(preset), copy.deepcopy(preset), pickle.loads(pickle.dumps(preset))):
        assert same == preset
        assert "category" not in same.document()


def test_an_exception_is_described() -> None:
    def refuse() -> None:
        raise PermissionError("not yours")

    with pytest.raises(PermissionError) as caught:
        refuse()
    made = event().failed(caught.value)
    assert made.outcome == "failure"
    assert made.error is not None
    assert (made.error.code, made.error.message) == ("PermissionError", "not yours")
    assert "test_event.py" in (made.error.stack_trace or "")


def test_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    before = int(datetime.now(UTC).timestamp() * 1000)
    made = uuid.UUID(uuid7())
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= int(datetime.now(UTC).timestamp() * 1000)
    assert len({uuid7() for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"action": ""}, "action"),
        ({"action": "x" * 257}, "action"),
        ({"action": None}, "action"),
        ({"tenant": "no spaces"}, "tenant"),
        ({"tenant": "acme\n"}, "tenant"),
        ({"tenant": "_prooftrail"}, "tenant"),
        ({"source": "prooftrail"}, "source"),
        ({"time": datetime(2026, 1, 1)}, "time"),  # noqa: DTZ001 - it is what is wrong
        ({"time": datetime(1969, 12, 31, tzinfo=UTC)}, "time"),
        ({"time": "2026-01-01T00:00:00Z"}, "time"),
        ({"level": "fatal"}, "level"),
        ({"outcome": "ok"}, "outcome"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"duration_ms": float("nan")}, "duration_ms"),
        ({"duration_ms": -1}, "duration_ms"),
        ({"site": "x" * 1025}, "site"),
        ({"actor": {"id": "u"}}, "actor"),
        ({"metadata": []}, "metadata"),
        ({"message": 3}, "message"),
    ],
)
def test_a_field_that_the_service_would_refuse_is_refused_by_name(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(AuditValidationError) as made:
        event(**fields)
    with pytest.raises(AuditValidationError) as changed:
        event().having(**fields)
    assert made.value.field == changed.value.field == name


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Actor(id="x" * 513), "actor.id"),
        (lambda: Actor(roles="admin"), "actor.roles"),
        (lambda: Target(type=""), "target.type"),
        (lambda: Error(code=404), "error.code"),  # type: ignore[arg-type]
        (lambda: event().having(colour="red"), "colour"),
        (lambda: event(tenant=None).to_json(), "tenant"),
        (lambda: event(source=None).to_json(), "source"),
        (lambda: event(after={"items": [1, object()]}).to_json(), "after.items[1]"),
        (lambda: event(after={"a": {1: "x"}}).to_json(), "after.a.1"),
        (lambda: event(message="nul \0").to_json(), "message"),
        (lambda: event(metadata={"a": ["\ud800"]}).to_json(), "metadata.a[0]"),
        (lambda: event(metadata={"a": float("inf")}).to_json(), "metadata.a"),
        (lambda: event(metadata={"a": 2**64 + 1}).to_json(), "metadata.a"),
        (lambda: event(actor=Actor(name="\0")).to_json(), "actor.name"),
    ],
)
def test_the_error_names_the_place(make: Any, name: str) -> None:
    with pytest.raises(AuditValidationError) as caught:
        make()
    assert caught.value.field == name
    assert str(caught.value).startswith(f"{name}: ")


def test_what_is_nested_too_deep_or_in_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for value in (circle, json.loads("[" * 128 + "]" * 128)):
        with pytest.raises(AuditValidationError, match="deeper than 128"):
            event(after=value).to_json()
    as_read(event(after=json.loads("[" * 127 + "]" * 127)).to_json())


def test_values_that_json_has_no_word_for_are_written_as_text() -> None:
    colour = enum.Enum("colour", {"red": "r"})
    made = event(
        after={
            "when": datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=2))),
            "day": date(2026, 1, 1),
            "id": uuid.UUID(int=5),
            "price": Decimal("1.10"),
            "colour": colour.red,
            "set": {"b", "a"},
            "tuple": (1, 2),
            "bytes": b"\xff",
            "mapping": MappingProxyType({"a": 1}),
        }
    )
    assert as_read(made.to_json()).after == {
        "when": "2026-01-01T00:00:00+02:00",
        "day": "2026-01-01",
        "id": "00000000-0000-0000-0000-000000000005",
        "price": "1.10",
        "colour": "r",
        "set": ["a", "b"],
        "tuple": [1, 2],
        "bytes": "/w==",
        "mapping": {"a": 1},
    }


TEXTS = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES.filter(lambda value: value is not None), message=TEXTS)
def test_either_it_is_refused_here_or_the_service_takes_it_unchanged(value: Any, message: str) -> None:
    made = event(after=value, message=message)
    try:
        body = made.to_json()
    except AuditValidationError:
        given_up = json.dumps(made.document()).encode()  # what would have been sent otherwise
        (outcome,) = formats.read(RawRecord("test", given_up), LATEST)
        assert isinstance(outcome, Rejected)
    else:
        read = as_read(body)
        assert read.message == message
        assert json.dumps(read.after) == json.dumps(value)


SECRETS = ("password", "Pass-Word", "pass_word", "PASSWORD", "apiKey", "api-key", "API_KEY")


def test_configured_keys_are_redacted_at_any_depth_whatever_their_spelling() -> None:
    hidden = dict.fromkeys(SECRETS, "hunter2")
    made = event(
        before=hidden,
        after=[{"deep": ({"x": hidden | {"kept": "password"}},)}],
        metadata={"password": {"all": ["hunter2"]}, "kept": 1},
        actor=Actor(name="password"),
    )
    redaction = Redaction(keys=["password", "api_key"])
    for body in (Encoder(redaction).encode(made.document()) for _ in range(2)):
        assert b"hunter2" not in body
        read = as_read(body)
        assert read.after[0]["deep"][0]["x"]["kept"] == "password"
        assert set(read.before.values()) == {"[redacted]"}
        assert read.metadata == {"password": "[redacted]", "kept": 1}
        assert read.actor is not None
        assert read.actor.name == "password"


def test_a_secret_is_redacted_beside_values_that_need_a_closer_look() -> None:
    made = event(after={"token": "hunter2", "day": date(2026, 1, 1)}, metadata={"items": {"hunter2"}, "secret": 2**70})
    body = Encoder(Redaction(patterns=["hunter2"])).encode(made.document())
    assert b"hunter2" not in body
    assert as_read(body).metadata == {"items": ["[redacted]"], "secret": "[redacted]"}


def test_patterns_are_redacted_in_every_text_that_people_write() -> None:
    number = "123-45-6789"
    made = event(
        message=f"of {number}",
        error=Error(message=number, stack_trace=number),
        before=number,
        metadata={"a": [f"<{number}>"]},
    )
    read = as_read(Encoder(Redaction(patterns=[r"\d{3}-\d{2}-\d{4}"])).encode(made.document()))
    assert read.message == "of [redacted]"
    assert read.error is not None
    assert (read.error.message, read.error.stack_trace, read.before) == ("[redacted]",) * 3
    assert read.metadata == {"a": ["<[redacted]>"]}


@given(keys=st.lists(st.sampled_from([*SECRETS, "name", "id"]), unique=True), depth=st.integers(0, 4))
def test_whatever_was_written_before_each_event_is_redacted_for_itself(keys: list[str], depth: int) -> None:
    encoder = Encoder(Redaction(keys=["password", "api_key"]))
    for some in itertools.accumulate([[key] for key in keys]):
        value: Any = dict.fromkeys(some, "hunter2")
        for _ in range(depth):
            value = [{"in": value}]
        body = encoder.encode(event(after=value).document())
        assert body.count(b"hunter2") == sum(key in ("name", "id") for key in some)

"""Java, Go and the replaced services: what their spellings mean, and what is left where one does not fit."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from prooftrail.event import Actor, Error, Event, Target
from tests.unit.formats.reading import ORIGIN, event_of, refusal_of
from tests.unit.formats.samples import RESOURCE, STORE


def java(**fields: Any) -> Event:
    return event_of({"action": "READ", "timestamp": 1_790_000_000, "serviceName": "s", "eventId": "e", **fields})


def go(**fields: Any) -> Event:
    return event_of({"Action": "read", "Time": "2026-10-01T12:00:00Z", "Source": "s", "ID": "e", **fields})


class TestJava:
    def test_nanoseconds_that_no_double_holds_are_kept_digit_by_digit(self) -> None:
        body = (
            b'{"action":"READ","timestamp":1790000000.123456789,"serviceName":"s","duration":0.000000001,'
            b'"oldValue":{"seen":1790000000.123456789},"newValue":[1790000000.500000000,0.1]}'
        )
        event = event_of(body)
        assert event.time.microsecond == 123457
        assert (event.before, event.after) == ({"seen": "1790000000.123456789"}, [1790000000.5, 0.1])
        assert event.metadata == {"timestamp": "1790000000.123456789"}
        assert event.duration_ms == 1e-6

    @pytest.mark.parametrize(
        "number", ["1.00000000000000000001", "123456789012.123456789", "1e400", "0.1234567890123456789"]
    )
    def test_other_numbers_that_no_double_holds_are_refused(self, number: str) -> None:
        document = f'{{"action":"READ","timestamp":1790000000,"serviceName":"s","oldValue":{number}}}'
        assert refusal_of(document.encode())[0] == "number-not-representable"

    def test_such_an_event_may_be_the_only_one_of_a_list_or_in_an_envelope(self) -> None:
        event = b'{"action":"READ","timestamp":1790000000.123456789,"serviceName":"s"}'
        envelope = b'{"id":"7","detail-type":"t","source":"x","account":"1","detail":' + event + b"}"
        for body in (b"[" + event + b"]", envelope):
            assert event_of(body).metadata == {"timestamp": "1790000000.123456789"}
        assert refusal_of(b"[1790000000.123456789]")[0] == "number-not-representable"

    def test_such_numbers_are_refused_in_other_formats(self) -> None:
        body = b'{"action":"read","time":"2026-10-01T12:00:00Z","source":"s","n":1790000000.123456789}'
        assert refusal_of(body)[0] == "number-not-representable"

    @pytest.mark.parametrize(
        ("duration", "milliseconds", "kept"),
        [
            (1500, 1500, None), (1.5, 1500, None), ("PT1M1.5S", 61_500, "PT1M1.5S"),
            ("PT0.000000001S", 1e-6, "PT0.000000001S"), ("PT", None, "PT"), ("a while", None, "a while"), (-1, None, -1),
            (True, None, True), (2**60, None, 2**60),
        ],
    )  # fmt: skip
    def test_durations(self, duration: Any, milliseconds: float | None, kept: Any) -> None:
        event = java(duration=duration)
        assert (event.duration_ms, (event.metadata or {}).get("duration")) == (milliseconds, kept)

    @pytest.mark.parametrize(
        ("action", "expected"), [("PATIENT_READ", "patient_read"), ("Login", "Login"), ("a.B", "a.B"), ("X2", "x2")]
    )
    def test_a_constants_name_is_in_lower_case_and_other_text_as_it_is(self, action: str, expected: str) -> None:
        assert java(action=action).action == expected

    @pytest.mark.parametrize(
        ("fields", "level", "outcome", "metadata"),
        [
            ({"level": "INFO", "outcome": "SUCCESS"}, "info", "success", None),
            ({"level": "WARN", "status": "Failed"}, "warning", "failure", {"level": "WARN", "status": "Failed"}),
            ({"success": False}, "info", "failure", {"success": False}),
            ({"status": "PENDING", "level": 5}, "info", "unknown", {"status": "PENDING", "level": 5}),
        ],
    )
    def test_words_of_ours_are_found_and_others_kept(
        self, fields: dict[str, Any], level: str, outcome: str, metadata: dict[str, Any] | None
    ) -> None:
        event = java(**fields)
        assert (event.level, event.outcome, event.metadata) == (level, outcome, metadata)

    def test_objects_are_looked_into_and_what_is_left_of_them_is_kept(self) -> None:
        event = java(
            actor={"id": 7, "name": "Lee", "ipAddress": "10.0.0.1", "roles": ["a"], "team": "x"}, error={"code": "E"}
        )
        assert (event.actor, event.error) == (Actor(id="7", name="Lee", ip="10.0.0.1", roles=["a"]), Error(code="E"))
        assert event.metadata == {"actor.team": "x"}

    def test_the_first_name_that_fits_is_it(self) -> None:
        event = java(actorId="", userId=5, performedBy="other", entityType="x" * 257, targetType="ward", entityId={"a": 1})
        assert (event.actor, event.target) == (Actor(id="5"), Target(type="ward"))
        assert event.metadata == {
            "actorId": "", "performedBy": "other", "entityType": "x" * 257, "entityId": {"a": 1}
        }  # fmt: skip

    def test_metadata_that_would_hide_a_name_is_kept_as_an_object(self) -> None:
        assert java(ward=1, metadata={"floor": 2}).metadata == {"ward": 1, "floor": 2}
        assert java(ward=1, metadata={"ward": 2}).metadata == {"ward": 1, "metadata": {"ward": 2}}

    def test_the_class_in_the_header_names_action_and_source(self) -> None:
        document = {"timestamp": [2026, 10, 1, 12, 0]}
        event = event_of(document, headers={"__typeid__": "com.clinic.audit.PatientRead"})
        assert (event.source, event.action, event.id) == ("com.clinic.audit", "PatientRead", ORIGIN)
        headers = {"__typeid__": "java.util.ArrayList", "__contenttypeid__": "com.clinic.Export"}
        assert event_of(document, headers=headers).action == "Export"
        assert event_of(document | {"action": "READ"}, headers=headers).action == "read"

    @pytest.mark.parametrize("class_name", ["a\0b.C", "PatientRead"])
    def test_a_class_that_says_too_little_is_refused(self, class_name: str) -> None:
        assert refusal_of({"timestamp": 1_790_000_000}, headers={"__typeid__": class_name})[0]

    @pytest.mark.parametrize(
        ("path", "fields"),
        [("$.time", {"timestamp": "noon"}), ("$.tenant", {"tenantId": "a b"}), ("$.id", {"eventId": "x" * 257})],
    )
    def test_a_field_that_an_event_needs_is_refused_by_its_path(self, path: str, fields: dict[str, Any]) -> None:
        document = {"action": "READ", "timestamp": 1_790_000_000, "serviceName": "s", "eventId": "e", **fields}
        reason, detail = refusal_of(document)
        assert (reason, path in detail) == ("invalid-field", True)


class TestGo:
    def test_bytes_are_states_where_they_are_json_and_else_text(self) -> None:
        state = {"name": "Majör", "n": [1]}
        encoded = base64.b64encode(json.dumps(state, indent=1).encode()).decode()
        assert go(Before=encoded, After="W10=").before == state
        assert go(Before=encoded, After="W10=").after == []
        for text in ("everything", "e30", "eyJhIjoxLCJhIjoyfQ==", "AAH/", "Wg==", ""):
            assert go(Before=text).before == text

    def test_zero_values_and_nil(self) -> None:
        event = go(DeletedAt="0001-01-01T00:00:00Z", OccurredAt="0001-01-01T00:00:00Z", Roles=None, ActorID="")
        assert (event.actor, event.metadata) == (None, {"ActorID": ""})

    def test_a_zero_time_is_no_time(self) -> None:
        assert refusal_of({"Action": "read", "Time": "0001-01-01T00:00:00Z", "Source": "s"})[1].endswith("`time`")

    @pytest.mark.parametrize(
        ("nanoseconds", "milliseconds", "kept"),
        [
            (1_500_000, 1.5, False),
            (1, 1e-6, False),
            (0, 0, False),
            (2**53 + 1, 9007199254.740993, False),
            (2**63 - 1, None, True),
        ],
    )
    def test_a_duration_is_nanoseconds(self, nanoseconds: int, milliseconds: float | None, kept: bool) -> None:
        event = go(Duration=nanoseconds)
        assert milliseconds is None or event.duration_ms == milliseconds
        assert ("Duration" in (event.metadata or {})) is kept

    def test_tags_name_the_same(self) -> None:
        event = event_of(
            {
                "action": "read",
                "occurred_at": "2026-10-01T12:00:00.000000001Z",
                "service": "s",
                "actor_id": 7,
                "entity_id": "p",
            }
        )
        assert (event.actor, event.target) == (Actor(id="7"), Target(id="p"))
        assert event.metadata == {"occurred_at": "2026-10-01T12:00:00.000000001Z"}


class TestServices:
    def test_the_functionality_is_the_category_and_the_event_type_the_action(self) -> None:
        event = event_of(STORE)
        assert (event.category, event.action, event.source) == ("Authenticate", "Login", "Authenticate")
        assert (event.tenant, event.site, event.outcome) == ("5001", "101", "success")
        assert (event.actor, event.id) == (Actor(id="jdoe"), ORIGIN)
        assert event.message == "User logged in successfully"
        assert event.metadata == {"browser": "Firefox"}

    def test_failed_is_a_failure_and_stays_readable_as_it_was(self) -> None:
        event = event_of(STORE | {"status": "Failed"})
        assert (event.outcome, event.metadata) == ("failure", {"browser": "Firefox", "status": "Failed"})

    def test_service_user_and_resource(self) -> None:
        event = event_of(RESOURCE)
        assert (event.source, event.category, event.action) == ("documents", "user_action", "document_viewed")
        assert (event.actor, event.target) == (Actor(id="u-1", session_id="s-1"), Target(type="document", id="d-1"))
        assert event.error == Error(code="E1", message="slow", stack_trace="at line 1")
        assert (event.duration_ms, event.request_id, event.level, event.metadata) == (12.5, "r-1", "info", {"pages": 3})

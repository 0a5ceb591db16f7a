"""CloudEvents in each of the ways in which they travel, and the extensions that concern an audit trail."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Actor, Event, Target
from prooftrail.formats import Accepted, RawRecord
from tests.factories import native
from tests.leaves import LATEST, TEXT
from tests.unit.formats.reading import event_of, refusal_of
from tests.unit.formats.samples import CLOUDEVENT

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BINDINGS = ["ce_", "ce-", "cloudevents:", "cloudevents_"]


def cloudevent(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in (CLOUDEVENT | fields).items() if value is not None}


def binary(prefix: str, content_type: str | None = "application/json", **attributes: str) -> dict[str, str]:
    named = {name: value for name, value in CLOUDEVENT.items() if name != "data"} | attributes
    headers = {f"{prefix}{name}": value for name, value in named.items()}
    return headers | ({"content-type": content_type} if content_type else {})


def test_the_attributes_are_the_events_fields() -> None:
    assert event_of(CLOUDEVENT) == Event(
        id="A234",
        time=datetime(2026, 10, 1, 12, tzinfo=UTC),
        tenant="clinic-north",
        source="/clinic/records",
        action="com.clinic.patient.updated.v2",
        target=Target(id="p-1"),
        after={"name": "Mary Major"},
        metadata={"specversion": "1.0"},
    )


class TestExtensions:
    def test_the_principal_is_the_actor_and_claims_say_more_of_it(self) -> None:
        claims = json.dumps({"sub": "other", "name": "Dr. Lee", "roles": ["physician"], "sid": "s-1", "iss": "x"})
        event = event_of(cloudevent(authtype="user", authid="lee", authclaims=claims))
        assert event.actor == Actor(type="user", id="lee", name="Dr. Lee", roles=["physician"], session_id="s-1")
        assert event.metadata
        assert event.metadata["authclaims"] == claims

    @pytest.mark.parametrize("claims", ["not JSON", "[]", '"x"', '{"name": 5.5}', '{"a":1,"a":2}'])
    def test_claims_that_say_nothing_leave_the_principal_as_it_is(self, claims: str) -> None:
        assert event_of(cloudevent(authid="lee", authclaims=claims)).actor == Actor(id="lee")

    @pytest.mark.parametrize(
        ("text", "number", "kept"), [("42", 42, None), ("0042", 42, "0042"), ("b7", None, "b7"), (7, 7, None)]
    )
    def test_a_sequence_is_text_that_may_be_a_number(self, text: Any, number: int | None, kept: str | None) -> None:
        event = event_of(cloudevent(sequence=text))
        assert event.sequence == number
        assert (event.metadata or {}).get("sequence") == kept

    def test_the_trace_is_found_in_its_parent_which_is_kept_whole(self) -> None:
        event = event_of(cloudevent(traceparent=TRACE, tracestate="a=b"))
        assert event.trace_id == TRACE[3:35]
        assert event.metadata == {"specversion": "1.0", "traceparent": TRACE, "tracestate": "a=b"}

    def test_the_recorded_time_stands_in_for_the_time_and_else_beside_it(self) -> None:
        recorded = "2026-10-01T13:00:00Z"
        assert event_of(cloudevent(time=None, recordedtime=recorded)).time.hour == 13
        event = event_of(cloudevent(recordedtime=recorded, dataclassification="restricted"))
        assert event.time.hour == 12
        assert event.metadata
        assert (event.metadata["recordedtime"], event.metadata["dataclassification"]) == (recorded, "restricted")

    def test_nanoseconds_are_kept_as_they_were_written(self) -> None:
        time = "2026-10-01T12:00:00.123456789+02:00"
        metadata = event_of(cloudevent(time=time)).metadata
        assert metadata
        assert metadata["time"] == time

    def test_the_tenant_may_be_an_attribute_or_what_the_record_says(self) -> None:
        headers = {"prooftrail-tenant": "south"}
        assert event_of(cloudevent(), headers=headers).tenant == "clinic-north"
        assert event_of(cloudevent(tenant=None), headers=headers).tenant == "south"


class TestData:
    def test_our_own_fields_go_before_attributes_but_for_the_identity(self) -> None:
        event = event_of(cloudevent(data=native(id="inner", tenant="t", ward=3), authid="service", vendor="x"))
        assert (event.id, event.source, event.tenant, event.action) == ("A234", "/clinic/records", "t", "patient.read")
        assert (event.actor, event.target) == (
            Actor(type="user", id="dr-lee", name="Dr. Lee"), Target(type="Patient", id="p-1"),
        )  # fmt: skip
        assert event.metadata == {
            "specversion": "1.0", "vendor": "x", "ward": 3, "data.id": "inner", "data.source": "clinic/records",
            "ce_tenant": "clinic-north", "ce_type": "com.clinic.patient.updated.v2", "ce_subject": {"id": "p-1"},
            "ce_auth": {"id": "service"},
        }  # fmt: skip

    def test_an_event_of_ours_that_says_it_all_is_that_event_whichever_way_it_comes(self) -> None:
        own = native(id="A234", source="/clinic/records", time=CLOUDEVENT["time"])
        wrapped = cloudevent(type=own["action"], subject=None, tenant="acme", data=own)
        event = event_of(wrapped)
        assert event.metadata == {"specversion": "1.0"}
        assert {**vars_of(event), "metadata": None} == vars_of(event_of(own))

    @pytest.mark.parametrize(
        ("kind", "before", "after"),
        [
            ("patient.updated", False, True), ("com.x.v1.PatientCreated", False, True), ("PATIENT_CREATED", False, True),
            ("x.patient.changed.v2", False, True), ("patient.deleted", True, False), ("patient-removed", True, False),
            ("patient.read", False, False), ("updated.patient", False, False), ("", False, False),
        ],
    )  # fmt: skip
    def test_an_object_is_the_targets_state_where_the_type_tells_of_a_change(
        self, kind: str, before: bool, after: bool
    ) -> None:
        state = {"name": "Mary"}
        if not kind:
            assert refusal_of(cloudevent(type=kind, data=state))[0] == "invalid-field"
            return
        event = event_of(cloudevent(type=kind, data=state))
        assert (event.before, event.after) == (state if before else None, state if after else None)
        assert ("data" in (event.metadata or {})) == (not before and not after)

    def test_states_in_the_data_are_taken_out_of_it(self) -> None:
        event = event_of(cloudevent(type="x", data={"before": {"a": 1}, "after": {"a": 2}, "why": "typo"}))
        assert (event.before, event.after) == ({"a": 1}, {"a": 2})
        assert event.metadata == {"specversion": "1.0", "data": {"why": "typo"}}

    @pytest.mark.parametrize("data", ["text", 1.5, [1, 2], True, {"a": 1}])
    def test_anything_else_is_kept_as_it_is(self, data: Any) -> None:
        assert event_of(cloudevent(type="x", data=data)).metadata == {"specversion": "1.0", "data": data}

    def test_base64_is_decoded_only_where_the_content_type_says_that_it_is_json(self) -> None:
        encoded = base64.b64encode(b'{"a": 1}').decode()
        event = event_of(
            cloudevent(data=None, data_base64=encoded, datacontenttype="application/vnd.x+json; charset=utf-8")
        )
        assert event.after == {"a": 1}
        for kind in ("application/octet-stream", None):
            event = event_of(cloudevent(data=None, data_base64=encoded, datacontenttype=kind))
            assert event.after is None
            assert event.metadata
            assert event.metadata["data_base64"] == encoded


class TestBinary:
    @pytest.mark.parametrize("prefix", BINDINGS)
    def test_the_same_event_comes_out_of_every_binding(self, prefix: str) -> None:
        body = json.dumps(CLOUDEVENT["data"]).encode()
        structured = event_of(cloudevent(datacontenttype="application/json"))
        assert event_of(body, headers=binary(prefix)) == structured == event_of(cloudevent())

    @pytest.mark.parametrize(
        ("body", "content_type", "data"),
        [
            (b"[1, 2]", "application/json", {"data": [1, 2]}),
            (b'[{"a": 1}, {"b": 2}]', "application/json", {"data": [{"a": 1}, {"b": 2}]}),
            (b'"text"', None, {"data": "text"}),
            (b"<much wow='xml'/>", "application/xml", {"data": "<much wow='xml'/>"}),
            (b"not JSON", None, {"data_base64": base64.b64encode(b"not JSON").decode()}),
            (b"\xff\0", "text/plain", {"data_base64": "/wA="}),
            (b"a\0b", "text/plain", {"data_base64": "YQBi"}),
            (b"", "application/json", {}),
        ],
    )
    def test_data_of_any_kind_is_kept(self, body: bytes, content_type: str | None, data: dict[str, Any]) -> None:
        event = event_of(body, headers=binary("ce_", content_type, type="x"))
        expected = (
            {"specversion": "1.0"}
            | data
            | ({"datacontenttype": content_type} if content_type not in (None, "application/json") else {})
        )
        assert event.metadata == expected

    def test_a_body_that_is_not_the_json_that_it_should_be_is_refused(self) -> None:
        assert refusal_of(b"{", headers=binary("ce_"))[0] == "invalid-json"
        assert refusal_of(b'{"a":1,"a":2}', headers=binary("ce_"))[0] == "duplicate-key"

    @given(TEXT.filter(bool))
    def test_values_of_http_headers_are_percent_encoded_and_of_others_not(self, text: str) -> None:
        assert event_of(b"", headers=binary("ce-", subject=quote(text, safe=""))).target == Target(id=text)
        assert event_of(b"", headers=binary("ce_", subject=text)).target == Target(id=text)

    @pytest.mark.parametrize(
        ("value", "meant"),
        [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ('"a \\"b\\" %20c"', 'a "b"  c'),
            ("%e2%82%ac", "€"),
            ("100%", "100%"),
        ],
    )
    def test_old_and_careless_encodings_are_understood(self, value: str, meant: str) -> None:
        assert event_of(b"", headers=binary("ce-", subject=value)).target == Target(id=meant)

    def test_bytes_that_are_not_utf8_are_refused_by_the_headers_name(self) -> None:
        reason, detail = refusal_of(b"", headers=binary("ce-", subject="%C0%A0"))
        assert (reason, "ce-subject" in detail) == ("invalid-field", True)

    def test_nul_in_a_header_is_refused(self) -> None:
        assert refusal_of(b"", headers=binary("ce-", subject="a%00b"))[0] == "nul-character"

    def test_headers_beside_a_structured_event_are_only_copies(self) -> None:
        headers = binary("ce_", "application/cloudevents+json", id="other")
        assert event_of(CLOUDEVENT, headers=headers).id == "A234"


def test_a_batch_is_as_many_events() -> None:
    body = json.dumps([cloudevent(id="1"), cloudevent(id="2"), cloudevent(id=None)]).encode()
    record = RawRecord("http:1", body, {"content-type": "application/cloudevents-batch+json"})
    outcomes = list(formats.read(record, LATEST))
    assert [isinstance(outcome, Accepted) for outcome in outcomes] == [True, True, False]


@pytest.mark.parametrize("name", ["id", "source", "type", "time"])
def test_what_is_needed_and_missing_is_named(name: str) -> None:
    ours = {"type": "action"}.get(name, name)
    reason, detail = refusal_of(cloudevent(**{name: None}), headers={"content-type": "application/cloudevents+json"})
    assert reason == "invalid-field"
    assert f"`{ours}`" in detail


@pytest.mark.parametrize("version", ["0.3", "1.1", 1.0, None])
def test_other_versions_are_refused(version: Any) -> None:
    reason, detail = refusal_of(cloudevent(specversion=version), headers={"content-type": "application/cloudevents+json"})
    assert (reason, "$.specversion" in detail) == ("invalid-field", True)


@given(st.dictionaries(st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-time", "ce-subject"]), TEXT), st.binary())
def test_any_headers_and_any_body_are_read_without_an_exception(headers: dict[str, str], body: bytes) -> None:
    record = RawRecord("http:1", body, headers | {"ce-specversion": "1.0"})
    for outcome in formats.read(record, LATEST):
        if isinstance(outcome, Accepted):
            assert outcome.event.statement().digest()


def vars_of(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__struct_fields__}

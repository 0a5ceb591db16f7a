"""FHIR AuditEvents: who, whom, what and where in the patterns of hospitals, of both releases, alone and in Bundles."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from fhir.resources import auditevent as r5
from fhir.resources.R4B import auditevent as r4
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from tests.factories import eventbridge
from tests.leaves import JSON, LATEST, LEAVES, TEXT, lost

DCM = "http://dicom.nema.org/resources/ontology/DCM"
QUERY = "GET https://fhir.example.org/r4/Observation?patient=p-7"


def read(document: Any, headers: dict[str, str] | None = None) -> list[Accepted | Rejected]:
    record = RawRecord("sqs:q:m", json.dumps(document).encode(), headers or {})
    return list(formats.read(record, LATEST, Defaults("clinic")))


def event_of(document: Any) -> Event:
    (outcome,) = read(document)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def machine(role: str, name: str, address: str) -> dict[str, Any]:
    return {
        "type": {"coding": [{"system": DCM, "code": role}]},
        "who": {"display": name},
        "requestor": False,
        "network": {"address": address, "type": "2"},
    }


def patient_read(**fields: Any) -> dict[str, Any]:
    """BALP's PatientRead, in R4."""
    event = {
        "resourceType": "AuditEvent",
        "id": "ae-1",
        "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest", "display": "Restful"},
        "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": "vread"}],
        "action": "R",
        "recorded": "2026-10-01T09:49:00.1234561+02:00",
        "outcome": "0",
        "purposeOfEvent": [{"coding": [{"code": "TREAT"}]}],
        "agent": [
            machine("110153", "server.example.org", "198.51.100.1"),
            machine("110152", "tablet-3", "192.0.2.44"),
            {
                "type": {"coding": [{"code": "IRCP"}]},
                "who": {"reference": "Practitioner/dr-lee", "display": "Dr. Lee"},
                "requestor": True,
                "role": [{"coding": [{"code": "physician"}]}, {"text": "ward 3"}],
            },
        ],
        "source": {"site": "clinic-north", "observer": {"reference": "Device/ehr-1"}},
        "entity": [
            {"type": {"code": "XrequestId"}, "what": {"identifier": {"value": "req-9"}}},
            {"type": {"code": "2"}, "role": {"code": "4"}, "what": {"reference": "Observation/o-1"}},
            {"type": {"code": "1"}, "role": {"code": "1"}, "what": {"reference": "Patient/p-7", "display": "Jo Doe"}},
        ],
    }
    return {name: value for name, value in (event | fields).items() if value is not None}


def patient_read_r5(**fields: Any) -> dict[str, Any]:
    event = {
        "resourceType": "AuditEvent",
        "id": "ae-5",
        "category": [{"coding": [{"code": "rest"}]}],
        "code": {"coding": [{"code": "read"}]},
        "action": "R",
        "severity": "notice",
        "occurredDateTime": "2026-10-01T09:48:59Z",
        "recorded": "2026-10-01T09:49:00Z",
        "outcome": {"code": {"code": "8"}, "detail": [{"text": "the disk is full"}]},
        "authorization": [{"coding": [{"code": "TREAT"}]}],
        "patient": {"reference": "https://fhir.example.org/Patient/p-7/_history/3"},
        "agent": [
            {
                "who": {"identifier": {"value": "dr-lee"}, "type": "Practitioner"},
                "requestor": True,
                "networkString": "192.0.2.45",
            }
        ],
        "source": {"site": {"display": "Clinic South"}, "observer": {"display": "ehr-2"}},
        "entity": [
            {"what": {"identifier": {"value": "req-10"}}, "role": {"coding": [{"code": "XrequestId"}]}},
            {"what": {"reference": "Observation/o-2"}},
        ],
    }
    return event | fields


def test_a_patient_read_of_r4_says_who_read_whom_where_and_how_it_ended() -> None:
    r4.AuditEvent.model_validate(patient_read())
    event = event_of(patient_read())
    assert (event.id, event.tenant, event.source, event.site) == ("ae-1", "clinic", "Device/ehr-1", "clinic-north")
    assert (event.category, event.action, event.outcome, event.request_id) == ("rest", "vread", "success", "req-9")
    assert event.time.isoformat() == "2026-10-01T07:49:00.123456+00:00"
    assert event.target == Target(type="Patient", id="p-7", name="Jo Doe")
    roles = ["physician", "ward 3"]
    assert event.actor == Actor(type="Practitioner", id="dr-lee", name="Dr. Lee", ip="192.0.2.44", roles=roles)
    assert event.metadata == {name: value for name, value in patient_read().items() if name != "id"}


def test_a_patient_read_of_r5_says_the_same_in_its_own_way() -> None:
    r5.AuditEvent.model_validate(patient_read_r5())
    event = event_of(patient_read_r5())
    assert (event.id, event.source, event.site, event.level) == ("ae-5", "ehr-2", "Clinic South", "notice")
    assert (event.category, event.action, event.outcome, event.request_id) == ("rest", "read", "failure", "req-10")
    assert event.time.isoformat() == "2026-10-01T09:48:59+00:00"
    assert event.error == Error(code="8", message="the disk is full")
    assert event.target == Target(type="Patient", id="https://fhir.example.org/Patient/p-7")
    assert event.actor == Actor(type="Practitioner", id="dr-lee", ip="192.0.2.45")


@pytest.mark.parametrize(
    ("code", "outcome"), [("0", "success"), ("4", "failure"), ("8", "failure"), ("12", "failure"), ("99", "unknown")]
)
def test_outcomes_of_r4(code: str, outcome: str) -> None:
    event = event_of(patient_read(outcome=code, outcomeDesc="why"))
    assert event.outcome == outcome
    assert (event.error and event.error.message, event.message) == (
        ("why", None) if outcome == "failure" else (None, "why")
    )


@pytest.mark.parametrize(
    ("code", "outcome"), [("success", "success"), ("warning", "success"), ("error", "failure"), ("fatal", "failure")]
)
def test_outcomes_of_r5(code: str, outcome: str) -> None:
    assert event_of(patient_read_r5(outcome={"code": {"code": code}})).outcome == outcome


def test_what_was_asked_for_is_read_out_of_base64() -> None:
    query = {"type": {"code": "2"}, "role": {"code": "24"}, "query": base64.b64encode(QUERY.encode()).decode()}
    event = event_of(patient_read(action="E", entity=[query]))
    assert (event.message, event.target, event.metadata and event.metadata["entity"]) == (QUERY, None, [query])
    assert event.actor is not None
    assert event.actor.ip == "198.51.100.1"  # who asks is the source of a search


@pytest.mark.parametrize("query", ["not base64", "/w==", "AA==", "", 5, None])
def test_a_query_that_is_no_text_stays_as_it_came(query: Any) -> None:
    event = event_of(patient_read(entity=[{"query": query}]))
    assert (event.message, event.metadata and event.metadata["entity"]) == (None, [{"query": query}])


def test_without_a_patient_the_first_thing_is_the_target() -> None:
    assert event_of(patient_read(entity=patient_read()["entity"][:2])).target == Target(type="Observation", id="o-1")


def test_a_code_that_is_a_number_is_told_in_words() -> None:
    login = {
        "type": {"code": "110114", "display": "User Authentication"},
        "subtype": [{"code": "110122", "display": "Login"}],
    }
    event = event_of(patient_read(**login))
    assert (event.category, event.action) == ("110114", "Login")


@pytest.mark.parametrize(("letter", "action"), [("C", "create"), ("U", "update"), ("D", "delete"), ("E", "execute")])
def test_without_a_subtype_the_letter_says_what_was_done(letter: str, action: str) -> None:
    assert event_of(patient_read(subtype=None, action=letter)).action == action


@pytest.mark.parametrize("period", [{"start": "2026-10-01"}, {"end": "2026-10-01T00:00:00Z"}, "often", None])
def test_a_time_that_is_no_instant_gives_way_to_when_it_was_recorded(period: Any) -> None:
    assert event_of(patient_read(period=period)).time == event_of(patient_read()).time


def test_each_entry_of_a_bundle_is_an_event_and_the_bundle_is_none() -> None:
    entries = [
        {"resource": {"resourceType": "MessageHeader", "id": "m"}},
        {"fullUrl": "urn:uuid:1", "resource": patient_read(id=None), "request": {"method": "POST", "url": "AuditEvent"}},
        {"fullUrl": "urn:uuid:2", "resource": patient_read()},
        {"resource": patient_read(id=None)},
        {"resource": {"resourceType": "Patient", "id": "p"}},
        {"resource": patient_read(recorded=None)},
    ]
    outcomes = read({"resourceType": "Bundle", "id": "b", "type": "message", "entry": entries})
    assert [outcome.event.id for outcome in outcomes if isinstance(outcome, Accepted)] == [
        "urn:uuid:1",
        "ae-1",
        "sqs:q:m:2",
    ]
    assert [outcome.record.origin for outcome in outcomes] == [f"sqs:q:m:{number}" for number in range(5)]
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Rejected)] == ["unknown-shape", "invalid-field"]


def test_an_event_is_the_same_alone_and_in_a_bundle() -> None:
    (outcome,) = read(
        {"resourceType": "Bundle", "type": "batch", "entry": [{"fullUrl": "x:1", "resource": patient_read()}]}
    )
    assert isinstance(outcome, Accepted)
    assert outcome.event == event_of(patient_read())


def test_an_entry_is_read_again_from_its_own_bytes() -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"fullUrl": f"x:{id}", "resource": patient_read(id=None)} for id in "ab"]}
    for outcome in read(bundle):
        assert isinstance(outcome, Accepted)
        assert list(formats.read(outcome.record, LATEST, Defaults("clinic"))) == [outcome]


def test_a_bundle_in_an_envelope_of_eventbridge_is_as_many_events_whatever_carries_the_envelope() -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": patient_read(id=id)} for id in (None, "b", None)]}
    outcomes = read(eventbridge(bundle, id="envelope"))
    ids = [outcome.event.id for outcome in outcomes if isinstance(outcome, Accepted)]
    assert ids == ["eventbridge:envelope:0", "b", "eventbridge:envelope:2"]


def test_one_bad_entry_of_a_bundle_does_not_keep_the_others() -> None:
    entries = [{"resource": patient_read(outcomeDesc=text)} for text in ("fine", "N\0L", "fine too")]
    outcomes = read({"resourceType": "Bundle", "entry": entries})
    assert [type(outcome) for outcome in outcomes] == [Accepted, Rejected, Accepted]


@pytest.mark.parametrize(
    "bundle", [b'{"resourceType":"Bundle","entry":[%b],"entry":[%b,%b]}', b'{"entry":[%b,%b,%b],"x":1e999}']
)
def test_a_bundle_that_is_wrong_itself_is_kept_whole(bundle: bytes) -> None:
    entry = json.dumps({"resource": patient_read()}).encode()
    body = bundle % (entry, entry, entry)
    (outcome,) = formats.read(RawRecord("sqs:q:m", body), LATEST)
    assert (type(outcome), outcome.record.body) == (Rejected, body)


@pytest.mark.parametrize("entry", [[], [5], [{}] * 10_001])
def test_a_bundle_without_events_is_one_bad_record(entry: list[Any]) -> None:
    (outcome,) = read({"resourceType": "Bundle", "entry": entry})
    assert isinstance(outcome, Rejected)
    assert outcome.reason == "unknown-shape"


@pytest.mark.parametrize("document", [{"resourceType": "Patient"}, {"resourceType": "Bundle"}, {"a": 1}])
def test_another_resource_is_refused_by_its_name(document: dict[str, Any]) -> None:
    (outcome,) = read(document, {"content-type": "application/fhir+json; charset=utf-8"})
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, f"{document.get('resourceType')!a}" in outcome.detail) == ("unknown-shape", True)


def parts(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the fields that are read, of any shape, and with others."""
    return st.builds(
        lambda known, more: more | known,
        st.fixed_dictionaries({}, optional={name: value | JSON for name, value in fields.items()}),
        st.dictionaries(TEXT, LEAVES, max_size=2),
    )


CODING = parts(code=TEXT, display=TEXT)
CONCEPT = parts(coding=st.lists(CODING, max_size=2), text=TEXT)
REFERENCE = parts(reference=TEXT | st.just("Patient/p"), identifier=parts(value=TEXT), display=TEXT, type=TEXT)
RESOURCE = parts(
    type=CODING,
    subtype=st.lists(CODING, max_size=2),
    category=st.lists(CONCEPT, max_size=2),
    code=CONCEPT,
    action=st.sampled_from("CRUDE"),
    severity=TEXT,
    period=parts(start=TEXT),
    outcome=st.sampled_from(["0", "4", "8"]) | parts(code=CODING, detail=st.lists(CONCEPT, max_size=1)),
    outcomeDesc=TEXT,
    patient=REFERENCE,
    agent=st.lists(
        parts(who=REFERENCE, requestor=st.booleans(), name=TEXT, role=st.lists(CONCEPT, max_size=2), type=CONCEPT),
        max_size=2,
    ),
    source=parts(site=TEXT | REFERENCE, observer=REFERENCE),
    entity=st.lists(parts(what=REFERENCE, type=CODING, role=CODING | CONCEPT, query=TEXT, name=TEXT), max_size=2),
)


@given(RESOURCE)
def test_whatever_an_audit_event_holds_its_event_holds_too(fields: dict[str, Any]) -> None:
    needed = {"resourceType": "AuditEvent", "id": "ae", "recorded": "2026-10-01T00:00:00Z"}
    source = {"observer": {"display": "ehr"}} | (fields["source"] if isinstance(fields.get("source"), dict) else {})
    document = fields | needed | {"source": source, "action": fields.get("action", "R")}
    for outcome in read(document):
        if isinstance(outcome, Accepted):
            assert not lost(document, outcome.event)
        else:
            assert outcome.reason == "invalid-field"

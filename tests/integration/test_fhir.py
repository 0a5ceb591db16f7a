"""AuditEvents made by models of HL7's own definitions, found again by what people ask: whom, who, how it ended, where."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fhir.resources import auditevent as r5
from fhir.resources import bundle as r5_bundle
from fhir.resources.R4B import auditevent as r4
from fhir.resources.R4B import bundle as r4_bundle

import writer
from tests.conftest import LogDatabase
from tests.factories import kafka, kafka_record, sqs

Ingesting = Callable[..., list[Any]]
Asking = Callable[..., tuple[int, Any]]

DCM = "http://dicom.nema.org/resources/ontology/DCM"
TERMS = "http://terminology.hl7.org/CodeSystem"
WHEN = datetime(2026, 10, 1, 9, 0, tzinfo=UTC)
PATIENTS, PRACTITIONERS, SITES = ("p-1", "p-2", "p-3"), ("dr-lee", "nurse-kim"), ("clinic-north", "clinic-south")
QUERY = "GET https://fhir.example.org/Observation?subject=Patient/p-1"


def r4_event(number: int) -> r4.AuditEvent:
    """BALP's PatientRead, PatientUpdate or PatientQuery, of a patient, by a practitioner, at a site, well or not."""
    letter, word = (("R", "read"), ("U", "update"), ("E", "search"))[number % 3]
    client, server = ("110152", "110153") if letter == "R" else ("110153", "110152")
    data: dict[str, Any] = {"type": coding("audit-entity-type", "2"), "role": coding("object-role", "4")}
    if letter == "E":
        data |= {"role": coding("object-role", "24"), "query": base64.b64encode(QUERY.encode())}
    else:
        data |= {"what": {"reference": f"Observation/o-{number}"}}
    failed = number % 4 == 3
    return r4.AuditEvent.model_validate(
        {
            "id": f"r4-{number}",
            "type": coding("audit-event-type", "rest"),
            "subtype": [{"system": "http://hl7.org/fhir/restful-interaction", "code": word}],
            "action": letter,
            "recorded": WHEN + timedelta(seconds=number),
            "outcome": "8" if failed else "0",
            "outcomeDesc": "timed out" if failed else None,
            "purposeOfEvent": [{"coding": [coding("v3-ActReason", "TREAT")]}],
            "agent": [
                machine(server, "fhir.example.org", "198.51.100.1"),
                machine(client, "tablet-3", "192.0.2.44"),
                {
                    "type": {"coding": [coding("v3-ParticipationType", "IRCP")]},
                    "who": {"reference": f"Practitioner/{practitioner(number)}"},
                    "requestor": True,
                },
            ],
            "source": {"site": site(number), "observer": {"reference": "Device/fhir-server"}},
            "entity": [
                {"type": {"code": "XrequestId"}, "what": {"identifier": {"value": f"req-{number}"}}},
                data,
                {
                    "type": coding("audit-entity-type", "1"),
                    "role": coding("object-role", "1"),
                    "what": {"reference": f"Patient/{patient(number)}"},
                },
            ],
        }
    )


def r5_event(number: int) -> r5.AuditEvent:
    failed = number % 4 == 3
    outcome = {"code": coding("audit-event-outcome", "8" if failed else "0")}
    return r5.AuditEvent.model_validate(
        {
            "id": f"r5-{number}",
            "category": [{"coding": [coding("audit-event-type", "rest")]}],
            "code": {"coding": [{"system": "http://hl7.org/fhir/restful-interaction", "code": "read"}]},
            "action": "R",
            "occurredDateTime": WHEN + timedelta(seconds=number),
            "recorded": WHEN + timedelta(seconds=number + 1),
            "outcome": outcome | ({"detail": [{"text": "timed out"}]} if failed else {}),
            "authorization": [{"coding": [coding("v3-ActReason", "TREAT")]}],
            "patient": {"reference": f"Patient/{patient(number)}"},
            "agent": [
                {
                    "who": {"reference": f"Practitioner/{practitioner(number)}"},
                    "requestor": True,
                    "networkString": "192.0.2.45",
                }
            ],
            "source": {"site": {"display": site(number)}, "observer": {"reference": "Device/fhir-server"}},
            "entity": [{"what": {"reference": f"Observation/o-{number}"}}],
        }
    )


def coding(system: str, code: str) -> dict[str, str]:
    return {"system": f"{TERMS}/{system}", "code": code}


def machine(role: str, name: str, address: str) -> dict[str, Any]:
    who = {"type": {"coding": [{"system": DCM, "code": role}]}, "who": {"display": name}, "requestor": False}
    return who | {"network": {"address": address, "type": "2"}}


def patient(number: int) -> str:
    return PATIENTS[number % 3]


def practitioner(number: int) -> str:
    return PRACTITIONERS[number % 2]


def site(number: int) -> str:
    return SITES[number // 2 % 2]


@pytest.fixture(autouse=True)
def _clinic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FHIR names no tenant: the function's setting does."""
    monkeypatch.setenv("DEFAULT_TENANT", "clinic")
    writer.defaults.cache_clear()
    yield
    writer.defaults.cache_clear()


@pytest.mark.parametrize(("made", "release"), [(r4_event, "r4"), (r5_event, "r5")], ids=["R4", "R5"])
def test_audit_events_are_found_by_patient_practitioner_outcome_and_site(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, made: Callable[[int], Any], release: str
) -> None:
    numbers = range(24)
    assert ingesting(sqs(*(made(number).model_dump_json() for number in numbers))) == []
    assert (database.count("event"), database.count("quarantine")) == (24, 0)

    def found(**filters: str) -> list[int]:
        status, answer = asking("/events", tenant="clinic", limit=100, **filters)
        assert status == 200
        return sorted(int(event["id"].removeprefix(f"{release}-")) for event in answer["events"])

    for whom in PATIENTS:
        expected = [number for number in numbers if patient(number) == whom]
        assert found(target_type="Patient", target_id=whom) == expected
    for who in PRACTITIONERS:
        assert found(actor=who) == [number for number in numbers if practitioner(number) == who]
    assert found(outcome="failure") == [number for number in numbers if number % 4 == 3]
    assert found(action="read") == [number for number in numbers if release == "r5" or number % 3 == 0]
    _, answer = asking("/events", tenant="clinic", limit=100)
    assert {event["id"]: event["site"] for event in answer["events"]} == {f"{release}-{n}": site(n) for n in numbers}


def test_every_agent_and_all_else_that_r4_says_comes_back(ingesting: Ingesting, asking: Asking) -> None:
    sent = r4_event(5)
    assert ingesting(sqs(sent.model_dump_json())) == []
    status, event = asking("/events/r4-5")
    assert status == 200
    assert r4.AuditEvent.model_validate(event["metadata"] | {"id": event["id"]}) == sent
    assert [agent["requestor"] for agent in event["metadata"]["agent"]] == [False, False, True]
    assert (event["message"], event["request_id"], event["actor"]["ip"]) == (QUERY, "req-5", "192.0.2.44")


@pytest.mark.parametrize(("bundles", "made"), [(r4_bundle, r4_event), (r5_bundle, r5_event)], ids=["R4", "R5"])
def test_the_events_of_a_bundle_are_those_that_come_alone(
    database: LogDatabase, ingesting: Ingesting, bundles: Any, made: Callable[[int], Any]
) -> None:
    entries = [
        {
            "fullUrl": f"urn:uuid:00000000-0000-0000-0000-{number:012}",
            "resource": made(number),
            "request": {"method": "POST", "url": "AuditEvent"},
        }
        for number in range(10)
    ]
    bundle = bundles.Bundle.model_validate({"type": "transaction", "entry": entries}).model_dump_json()
    assert ingesting(kafka(kafka_record(bundle, 7))) == []
    assert ingesting(sqs(*(made(number).model_dump_json() for number in range(10)))) == []
    assert (database.count("event"), database.count("quarantine")) == (10, 0)

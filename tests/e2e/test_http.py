"""Events posted through API Gateway: the receipt is what the API and the log say afterwards."""

from __future__ import annotations

import json
import uuid
from typing import Any

import httpx

from prooftrail import api_keys
from prooftrail.ledger.tlog_proof import TlogProof
from tests.conftest import PROJECT
from tests.e2e.conftest import System, eventually
from tests.e2e.pages import Page
from tests.factories import native

NDJSON = {"Content-Type": "application/x-ndjson"}


def writer(system: System, tenant: str | None) -> dict[str, str]:
    with system.database() as admin:
        return {"Authorization": f"Bearer {api_keys.create(admin, tenant, role='writer')}"}


def proof_of(system: System, id: str, tenant: str) -> httpx.Response:
    return system.api.get(f"/events/{id}/proof", headers=system.operator, params={"tenant": tenant})


def test_an_event_that_is_posted_can_be_read_at_once_and_lies_where_its_receipt_says(system: System) -> None:
    key, event = writer(system, "posted"), native(tenant=None, message='é ☃ 𝄞 \\ " \u2028')
    answer = system.api.post("/events", json=event, headers=key)
    assert answer.status_code == 201, answer.text
    receipt = answer.json()
    assert receipt == {"id": event["id"], "tenant": "posted", "source": event["source"], "status": "stored", "index": 1}
    location = answer.request.url.join(answer.headers["location"])
    found = system.api.get(location, headers=system.operator)
    assert found.json() == event | {"tenant": "posted", "level": "info"}
    again = system.api.post("/events", json=event, headers=key)
    assert (again.status_code, again.json()) == (200, receipt | {"status": "duplicate"})
    proof = eventually(lambda: proof_of(system, event["id"], "posted"), lambda answer: answer.status_code == 200, 90)
    assert TlogProof.parse(proof.content).index == receipt["index"]


def test_a_batch_of_lines_is_answered_line_by_line(system: System) -> None:
    key = writer(system, None)
    events = [native(tenant="lines") for _ in range(50)]
    body = "\n".join([*map(json.dumps, events), "{broken"]).encode()
    answer = system.api.post("/events/batch", content=body, headers=key | NDJSON)
    assert answer.status_code == 207, answer.text
    *stored, broken = answer.json()["results"]
    assert [(result["id"], result["index"]) for result in stored] == [(event["id"], n) for n, event in enumerate(events)]
    assert (broken["item"], broken["status"], broken["reason"]) == (50, "rejected", "invalid-json")
    assert {event["id"] for event in system.all_events(tenant="lines")} == {event["id"] for event in events}


def test_a_retry_with_an_idempotency_key_is_known_and_gets_the_id_that_was_given(system: System) -> None:
    key = writer(system, "retried") | {"Idempotency-Key": f'"{uuid.uuid4()}"'}
    event = native(tenant=None, id=None)
    first, second = (system.api.post("/events", json=event, headers=key) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json() | {"status": "duplicate"}
    assert [found["id"] for found in system.all_events(tenant="retried")] == [first.json()["id"]]


def test_refusals_come_through_the_gateway_as_problems(system: System) -> None:
    key, event = writer(system, "refused"), native(tenant=None)
    largest = json.dumps(event | {"message": "x" * 4_000_000})
    for status, body, headers in (
        (400, "{broken", key),
        (401, json.dumps(event), {"Authorization": "Bearer wrong"}),
        (403, json.dumps(event), system.operator),
        (403, json.dumps(event | {"tenant": "other"}), key),
        (413, largest, key),
        (415, json.dumps(event), key | {"Content-Type": "text/plain"}),
        (422, json.dumps(event | {"action": 5}), key),
    ):
        answer = system.api.post("/events", content=body, headers={"Content-Type": "application/json"} | headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
        assert answer.json()["status"] == status
    assert system.all_events(tenant="refused") == []


def test_an_event_whose_id_is_batch_can_be_read(system: System) -> None:
    event = native(id="batch")
    assert system.api.post("/events", json=event, headers=writer(system, None)).status_code == 201
    assert system.get("/events/batch", tenant="acme", source=event["source"])["id"] == "batch"


def test_whoever_follows_the_page_gets_the_answers_that_it_shows(system: System) -> None:
    page = Page(PROJECT / "docs" / "http.md")
    one, batch, first, second = map(placeless, page.follow(system, PROJECT))
    assert [one, batch] == [placeless(page.shown[0]), placeless(page.shown[2])]
    assert (first["status"], second) == ("stored", first | {"status": "duplicate"})


def placeless(document: dict[str, Any]) -> dict[str, Any]:
    """Without places in the log: other tests write into it too."""
    results = {"results": [placeless(result) for result in document["results"]]} if "results" in document else {}
    return {name: value for name, value in document.items() if name != "index"} | results

"""The sample events in events/: what `sam local invoke` and the documentation use is what the code understands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import envelopes
from http_request import Request
from prooftrail import api_keys, formats
from prooftrail.formats import Accepted, RawRecord

EVENTS = Path(__file__).parents[2] / "events"
SAMPLE_KEY = "pt_sample-key-of-the-events-folder-not-a-secret"
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


# What comes of the samples that brokers send: accepted events, rejected records, tombstones.
BROKERS = {
    "ingest-sqs.json": (3, 0, 0),
    "ingest-sqs-cloudtrail.json": (3, 0, 0),
    "ingest-sqs-one-poison.json": (2, 1, 0),
    "ingest-kafka-msk.json": (3, 1, 1),
    "ingest-kafka-self-managed.json": (3, 0, 0),
    "ingest-rabbitmq.json": (3, 1, 0),
    "ingest-eventbridge.json": (2, 0, 0),
    "ingest-sqs-cloudevents.json": (4, 0, 0),
    "ingest-sqs-java.json": (3, 0, 0),
    "ingest-sqs-go.json": (3, 0, 0),
    "ingest-sqs-debezium.json": (4, 0, 0),
    "ingest-sqs-services.json": (2, 0, 0),
    "ingest-sqs-eventbridge-of-aws.json": (1, 0, 0),
    "ingest-sqs-fhir.json": (4, 0, 0),
    "ingest-sqs-ocsf.json": (5, 0, 0),
    "ingest-sqs-otel.json": (2, 0, 0),
    "ingest-kafka-avro.json": (1, 1, 0),  # the other one where a schema registry is configured
}


HTTP = {"ingest-http.json": 1, "ingest-http-batch.json": 3}  # how many events each posts


def batch(name: str) -> envelopes.Envelope:
    return envelopes.of(json.loads((EVENTS / name).read_bytes()))


def outcomes(name: str) -> list[Any]:
    return [outcome for delivery in batch(name).deliveries for outcome in formats.read(delivery.record, LATEST)]


@pytest.mark.parametrize("file", sorted(EVENTS.glob("*.json")), ids=lambda file: file.name)
def test_every_sample_is_json_without_twins(file: Path) -> None:
    assert isinstance(json.loads(file.read_bytes(), object_pairs_hook=_without_twins), dict)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_there_is_no_ingest_sample_that_these_tests_do_not_know() -> None:
    assert {file.name for file in EVENTS.glob("ingest*.json")} == BROKERS.keys() | HTTP.keys()


@pytest.mark.parametrize("name", BROKERS)
def test_of_a_brokers_sample_comes_what_it_shows(name: str) -> None:
    accepted, rejected, tombstones = BROKERS[name]
    found = [isinstance(outcome, Accepted) for outcome in outcomes(name)]
    assert (found.count(True), found.count(False), batch(name).tombstones) == (accepted, rejected, tombstones)


@pytest.mark.parametrize("name", HTTP)
def test_a_sample_over_http_posts_events_that_leave_the_tenant_to_the_key(name: str) -> None:
    request = Request.of(json.loads((EVENTS / name).read_bytes()))
    bodies = request.body.splitlines() if request.is_lines else [request.body]
    assert (request.method, api_keys.presented(request.headers), len(bodies)) == ("POST", SAMPLE_KEY, HTTP[name])
    for body in bodies:
        (outcome,) = formats.read(RawRecord("http", body, request.headers_of_records("clinic-north")), LATEST)
        assert isinstance(outcome, Accepted)
        assert outcome.event.tenant == "clinic-north"


def test_no_two_samples_hold_the_same_event() -> None:
    keys = [outcome.event.key for name in BROKERS for outcome in outcomes(name) if isinstance(outcome, Accepted)]
    assert len(set(keys)) == len(keys)


def test_the_cloudtrail_batch_keeps_what_has_no_place() -> None:
    assert all("eventVersion" in outcome.event.metadata for outcome in outcomes("ingest-sqs-cloudtrail.json"))

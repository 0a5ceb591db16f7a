"""Every sample is known by its own format and by no other; only the style of names, which is asked last, may fit others."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from prooftrail import formats
from prooftrail.formats import FORMATS, Accepted, Defaults, RawRecord, Rejected
from tests.unit.formats.samples import SAMPLES, Sample

STYLES = {"java", "go"}
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_sample_is_known_by_its_own_format_alone(sample: Sample) -> None:
    known = [name for name, format in FORMATS.items() if format.recognises(sample.document, sample.headers)]
    styles = set() if sample.format in STYLES else STYLES
    assert known[0] == sample.format
    assert set(known[1:]) <= styles


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_sample_is_accepted(sample: Sample) -> None:
    record = RawRecord("sqs:q:m", json.dumps(sample.document).encode(), sample.headers)
    (outcome,) = formats.read(record, LATEST, Defaults("a-tenant"))
    assert isinstance(outcome, Accepted), outcome


def test_every_format_has_a_sample() -> None:
    assert {sample.format for sample in SAMPLES} == FORMATS.keys()


def test_what_no_format_knows_is_read_as_its_tenants_default() -> None:
    document = {"timestamp": "2026-10-01T12:00:00Z", "action": "read", "source": "s", "id": "1"}
    assert not any(format.recognises(document, {}) for format in FORMATS.values())
    record = RawRecord("sqs:q:m", json.dumps(document).encode())
    (outcome,) = formats.read(record, LATEST, Defaults("acme", {"acme": "java"}))
    assert isinstance(outcome, Accepted)
    assert outcome.event.action == "read"


def test_lists_in_lists_that_hold_more_than_can_be_events_are_one_rejected_record() -> None:
    body = "{}"
    for _ in range(3):  # each list is short enough for itself
        body = json.dumps({"Records": ["HERE"] * formats.FEW_ELEMENTS}).replace('"HERE"', body)
    record = RawRecord("sqs:q:m", body.encode())
    (outcome,) = formats.read(record, LATEST)
    assert isinstance(outcome, Rejected)
    assert (outcome.reason, outcome.record) == ("unknown-shape", record)

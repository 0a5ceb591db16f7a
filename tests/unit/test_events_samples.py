"""The sample events in events/: what `sam local invoke` and the documentation use is what the code understands."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import sources
from prooftrail import formats
from prooftrail.formats import Accepted

EVENTS = Path(__file__).parents[2] / "events"
LATEST = datetime(2100, 1, 1, tzinfo=UTC)


def outcomes(name: str) -> list[Any]:
    batch = sources.of(json.loads((EVENTS / name).read_bytes()))
    return [outcome for delivery in batch.deliveries for outcome in formats.read(delivery.record, LATEST)]


@pytest.mark.parametrize("file", sorted(EVENTS.glob("*.json")), ids=lambda file: file.name)
def test_every_sample_is_json_without_twins(file: Path) -> None:
    assert isinstance(json.loads(file.read_bytes(), object_pairs_hook=_without_twins), dict)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_there_is_no_ingest_sample_that_these_tests_do_not_know() -> None:
    assert {file.name for file in EVENTS.glob("ingest*.json")} == {
        "ingest-sqs.json",
        "ingest-sqs-cloudtrail.json",
        "ingest-sqs-one-poison.json",
    }


def test_the_plain_batch_is_accepted_whole() -> None:
    found = outcomes("ingest-sqs.json")
    assert len(found) >= 2
    assert all(isinstance(outcome, Accepted) for outcome in found)
    assert len({outcome.event.key for outcome in found}) == len(found)


def test_the_cloudtrail_batch_is_accepted_whole() -> None:
    found = outcomes("ingest-sqs-cloudtrail.json")
    assert all(isinstance(outcome, Accepted) for outcome in found)
    assert all("eventVersion" in outcome.event.metadata for outcome in found)


def test_the_batch_with_poison_loses_that_record_only() -> None:
    found = outcomes("ingest-sqs-one-poison.json")
    assert [isinstance(outcome, Accepted) for outcome in found].count(False) == 1
    assert len(found) >= 2

"""Real CloudTrail logs, whole: from SQS to the API, by both ways that AWS sends them, each record once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.conftest import DATA, LogDatabase
from tests.factories import sqs

LOGS = sorted((DATA / "cloudtrail").glob("*.json"))
SQS_LIMIT = 256 * 1024  # bytes of one message
pytestmark = pytest.mark.skipif(not LOGS, reason="CloudTrail logs are absent: set PROOFTRAIL_TEST_DATA")

Ingesting = Callable[..., list[str]]
Asking = Callable[..., tuple[int, Any]]


def records() -> list[dict[str, Any]]:
    return [record for file in LOGS for record in json.loads(file.read_bytes())["Records"]]


def as_log_files() -> dict[str, Any]:
    """Each file as a message, in two where one would be too large."""
    return sqs(*(body for file in LOGS for body in _split(json.loads(file.read_bytes())["Records"])))


def _split(part: list[dict[str, Any]]) -> Iterator[str]:
    body = json.dumps({"Records": part})
    if len(body.encode()) <= SQS_LIMIT:
        yield body
    else:
        middle = len(part) // 2
        yield from _split(part[:middle])
        yield from _split(part[middle:])


def as_envelopes() -> dict[str, Any]:
    """Each record as EventBridge hands it to a queue."""
    return sqs(
        *(
            {
                "version": "0",
                "id": f"envelope-{number}",
                "detail-type": "AWS API Call via CloudTrail",
                "source": record["eventSource"].replace(".amazonaws.com", "").join(["aws.", ""]),
                "account": record["recipientAccountId"],
                "time": record["eventTime"],
                "region": record["awsRegion"],
                "resources": [],
                "detail": record,
            }
            for number, record in enumerate(records())
        )
    )


def ask_all(asking: Asking, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        status, page = asking("/events", limit=1000, **filters, **({"cursor": cursor} if cursor else {}))
        assert status == 200, page
        found += page["events"]
        cursor = page["next"]
        if cursor is None:
            return found


@pytest.mark.parametrize("ways", [[as_log_files, as_envelopes], [as_envelopes, as_log_files, as_log_files]])
def test_every_record_is_stored_once_however_it_comes_and_comes_again(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, ways: list[Callable[[], dict[str, Any]]]
) -> None:
    for way in ways:
        batch = way()
        assert all(len(record["body"].encode()) <= SQS_LIMIT for record in batch["Records"])
        assert ingesting(batch) == []
    assert database.count("quarantine") == 0
    found = ask_all(asking)
    assert len(found) == len(records()) == 1233
    assert {event["id"] for event in found} == {record["eventID"] for record in records()}


def test_every_record_is_found_by_actor_action_target_and_time(ingesting: Ingesting, asking: Asking) -> None:
    ingesting(as_log_files())
    by_id = {event["id"]: event for event in ask_all(asking)}
    expected: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records():
        identity, id = record["userIdentity"], record["eventID"]
        expected["actor", identity.get("arn") or identity["invokedBy"]].add(id)
        expected["action", record["eventName"]].add(id)
        expected["source", record["eventSource"]].add(id)
        expected["outcome", "failure" if "errorCode" in record else "success"].add(id)
        expected["target_id", by_id[id]["target"]["id"]].add(id)
    for (name, value), ids in expected.items():
        assert {event["id"] for event in ask_all(asking, **{name: value})} == ids, (name, value)


def test_every_record_is_found_in_its_second(ingesting: Ingesting, asking: Asking) -> None:
    ingesting(as_log_files())
    by_second: dict[str, set[str]] = defaultdict(set)
    for record in records():
        by_second[record["eventTime"]].add(record["eventID"])
    for second, ids in by_second.items():
        end = (datetime.fromisoformat(second) + timedelta(seconds=1)).isoformat()
        found = ask_all(asking, **{"from": second, "to": end})
        assert {event["id"] for event in found} == ids

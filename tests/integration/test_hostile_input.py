"""Hostile input through the real handlers: nothing raises, no neighbour is lost, what is stored comes back as it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from prooftrail import canonical, strict_json
from tests.conftest import DATA, LogDatabase
from tests.factories import native, sqs

SUITE = sorted((DATA / "json_test_suite" / "test_parsing").glob("*.json"))
NAUGHTY = DATA / "naughty_strings" / "blns.json"
NEEDS_SUITE = pytest.mark.skipif(not SUITE, reason="JSONTestSuite is absent: set PROOFTRAIL_TEST_DATA")
NEEDS_NAUGHTY = pytest.mark.skipif(not NAUGHTY.is_file(), reason="naughty strings are absent: set PROOFTRAIL_TEST_DATA")

Ingesting = Callable[..., list[str]]
Asking = Callable[..., tuple[int, Any]]


def text_of(file: Path) -> str:
    """As much of the bytes as text can carry: what is not UTF-8 becomes lone surrogates, which are hostile too."""
    return file.read_bytes().decode("utf-8", "surrogateescape")


def outcomes_of(database: LogDatabase) -> set[str]:
    """The messages (by id) that left a trace: an event named after its message, or a row in quarantine."""
    rows = database.admin.execute("SELECT origin FROM prooftrail.quarantine UNION SELECT id FROM prooftrail.event")
    return {origin.split(":")[2] for (origin,) in rows if origin.startswith("sqs:")}


@NEEDS_SUITE
@pytest.mark.parametrize("inside", [False, True], ids=["as the body", "inside an event"])
def test_every_file_of_the_suite_ends_somewhere_and_its_neighbours_are_stored(
    database: LogDatabase, ingesting: Ingesting, *, inside: bool
) -> None:
    event = json.dumps(native(id=None))[:-1]
    hostile = [f'{event}, "metadata": {{"value": {text}}}}}' if inside else text for text in map(text_of, SUITE)]
    batch = sqs(*(body for text in hostile for body in (text, native())))
    assert ingesting(batch) == []
    assert {record["messageId"] for record in batch["Records"][::2]} <= outcomes_of(database)
    neighbours = {json.loads(record["body"])["id"] for record in batch["Records"][1::2]}
    stored = {id for (id,) in database.admin.execute("SELECT id FROM prooftrail.event")}
    assert neighbours <= stored
    raw = {bytes(raw) for (raw,) in database.admin.execute("SELECT raw FROM prooftrail.quarantine")}
    for file, body in zip(SUITE, hostile, strict=True):
        if file.name.startswith("n_"):
            assert body.encode("utf-8", "surrogatepass") in raw


def naughty_events() -> list[dict[str, Any]]:
    """Each naughty string in every field that takes text, and as key and value of what is free."""
    events = []
    for number, text in enumerate(json.loads(NAUGHTY.read_bytes())):
        name = text[:256] or "-"
        events.append(
            {
                "id": name,
                "time": "2026-10-01T12:00:00Z",
                "tenant": "acme",
                "source": f"naughty/{number}",
                "category": name,
                "action": name,
                "level": "info",
                "outcome": "unknown",
                "actor": {
                    "type": text,
                    "id": text or "-",
                    "name": text,
                    "ip": text,
                    "user_agent": text,
                    "session_id": text,
                    "roles": [text, "", text],
                },
                "target": {"type": name, "id": text or "-", "name": text},
                "site": text,
                "message": text,
                "before": {text: text},
                "after": text,
                "error": {"code": text, "message": text, "stack_trace": text},
                "request_id": text,
                "trace_id": text,
                "metadata": {text: text, f"{text}\\": [text, {text: None}]},
            }
        )
    return events


def all_events(asking: Asking, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        status, page = asking("/events", limit=100, **filters, **({"cursor": cursor} if cursor else {}))
        assert status == 200, page
        found += page["events"]
        cursor = page["next"]
        if cursor is None:
            return found


@NEEDS_NAUGHTY
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "raw"])
def test_every_naughty_string_comes_back_as_it_was_sent(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, *, ascii_only: bool
) -> None:
    events = naughty_events()
    assert ingesting(sqs(*(json.dumps(event, ensure_ascii=ascii_only) for event in events))) == []
    assert database.count("quarantine") == 0
    found = {event["source"]: event for event in all_events(asking)}
    assert found == {event["source"]: event for event in events}


@NEEDS_NAUGHTY
def test_every_naughty_string_can_be_asked_for(ingesting: Ingesting, asking: Asking) -> None:
    events = naughty_events()
    ingesting(sqs(*events))
    for event in events:
        asked = {"source": event["source"]}
        by_id = asking(f"/events/{quote(event['id'], safe='')}", **asked)
        by_filter = asking(
            "/events", actor=event["actor"]["id"], action=event["action"], target_id=event["target"]["id"], **asked
        )
        assert by_id == (200, event)
        assert by_filter == (200, {"events": [event], "next": None})


def canonical_of(document: Any) -> bytes:
    """PostgreSQL may write a double as digits (3.194482786035393e16 as 31944827860353930): the same number in JSON."""
    return canonical.encode(strict_json.decode(json.dumps(document).encode()))


def test_every_number_that_is_accepted_comes_back_with_its_value(ingesting: Ingesting, asking: Asking) -> None:
    numbers: list[float] = [0, -0.0, 0.1, 1.0, 1e16, 1e20, 1e21, 1e22, 3.194482786035393e16, 5e-324]
    numbers += [1.7976931348623157e308, -1.7976931348623157e308, 2.2250738585072014e-308, 2**64 - 1, -(2**63), 2**53 + 1]
    event = native(id="n", duration_ms=0.1, sequence=2**63 - 1, before=numbers, after=1e22, metadata={"n": numbers})
    assert ingesting(sqs(event)) == []
    status, found = asking("/events/n")
    assert status == 200
    assert canonical_of(found) == canonical_of(event | {"level": "info"})
    # What was given out may be handed in again, and is the same event.
    assert ingesting(sqs(found)) == []
    assert len(all_events(asking)) == 1


@pytest.mark.parametrize(
    "id",
    ["%00", "%FF", "%ED%A0%80", "%", "%2", "..", "%2e%2e", "a%2Fb", "a/b", "x" * 5_000, "'; --", "%0A", "\ud800", "\0"],
)
def test_an_id_that_cannot_exist_is_not_found_rather_than_an_error(asking: Asking, id: str) -> None:
    status, problem = asking(f"/events/{id}")
    assert (status, problem["status"]) == (404, 404)


@pytest.mark.parametrize("name", ["actor", "action", "target_type", "target_id", "source", "tenant", "cursor", "from"])
@pytest.mark.parametrize("value", ["\0", "a\0b", "\ud800", "x" * 5_000])
def test_a_parameter_that_cannot_match_is_told_rather_than_an_error(asking: Asking, name: str, value: str) -> None:
    status, problem = asking("/events", **{name: value})
    assert status == 400
    assert problem["errors"][0]["field"] == name

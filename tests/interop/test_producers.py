"""What Jackson, encoding/json and Debezium write of one change is one event; the committed bytes are what they write."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import msgspec
import pytest

from prooftrail import formats
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import Accepted, RawRecord

PRODUCERS = Path(__file__).parents[1] / "fixtures" / "producers"
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
TIME_TO_FETCH = 300  # seconds

ROW = {"id": "p-1", "tenant_id": "clinic-north", "allergies": None}
CHANGED = Event(
    id="5e3b1c64-6f0e-4b8f-9c1d-2a7d3f1e0b42",
    time=datetime(2026, 10, 1, 12, 34, 56, 789_000, tzinfo=UTC),
    tenant="clinic-north",
    source="clinic-records",
    action="update",
    outcome="success",
    actor=Actor(id="dr-lee"),
    target=Target(type="patient", id="p-1"),
    request_id="req-7",
    before=ROW | {"name": "Mary Major", "ward": 3, "updated_by": "nurse-kim", "request_id": "req-6"},
    after=ROW | {"name": "Mary Majör", "ward": 4, "updated_by": "dr-lee", "request_id": "req-7"},
)
EXPORTED = Event(
    id="e-2",
    time=datetime(2026, 10, 1, 12, 34, 56, 789_012, tzinfo=UTC),
    tenant="clinic-north",
    source="clinic-export",
    category="Export",
    action="patient_exported",
    level="warning",
    outcome="failure",
    actor=Actor(id="42", name="lee", ip="10.0.0.7"),
    target=Target(type="patient", id="9007199254740993"),
    error=Error(code="TIMEOUT"),
    duration_ms=1500.000001,
    trace_id="0af7651916cd43dd8448eb211c80319c",
)
NANOSECONDS = "2026-10-01T12:34:56.789012345Z"

Remake: TypeAlias = Callable[[Path], object]


def event_of(file: str, **headers: str) -> Event:
    record = RawRecord("kafka:c:t:0:1:2", (PRODUCERS / file).read_bytes(), {f":{name}": headers[name] for name in headers})
    (outcome,) = formats.read(record, LATEST)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def made(language: str, pattern: str) -> list[str]:
    files = sorted((PRODUCERS / language / "made").glob(pattern))
    assert files
    return [str(file.relative_to(PRODUCERS)) for file in files]


@pytest.mark.parametrize("file", [*made("java", "changed*"), *made("go", "changed*")])
def test_a_change_is_one_event_whichever_language_tells_of_it(file: str) -> None:
    assert event_of(file) == CHANGED


@pytest.mark.parametrize(
    ("file", "key"),
    [("changed.json", "key.json"), ("changed-with-schema.json", "key-with-schema.json"), ("changed.json", "")],
)
def test_debezium_tells_of_the_same_change_under_the_name_of_its_place_in_the_log(file: str, key: str) -> None:
    headers = {"key": (PRODUCERS / "debezium" / key).read_text()} if key else {}
    event = event_of(f"debezium/{file}", **headers)
    assert event.metadata
    assert event.metadata["source"]["lsn"] == 24023128
    assert event.metadata["transaction"]["id"] == "556:24023128"
    assert event.id == event_of("debezium/changed.json").id
    assert msgspec.structs.replace(event, id=CHANGED.id, metadata=None) == CHANGED


@pytest.mark.parametrize(
    ("file", "metadata"),
    [
        ("java/made/exported-spring-boot.json", {"occurredAt": NANOSECONDS, "requested": NANOSECONDS}),
        ("java/made/exported-jackson.json", {"occurredAt": "1790858096.789012345", "requested": "1790858096.789012345"}),
        ("go/made/exported.json", {"Time": NANOSECONDS, "requested": NANOSECONDS}),
    ],
)
def test_durations_nanoseconds_and_large_numbers_are_exact(file: str, metadata: dict[str, str]) -> None:
    event = event_of(file)
    assert event.metadata
    assert metadata.items() <= event.metadata.items()
    assert event.metadata["reason"] == "transfer"
    assert "AAH/" in event.metadata.values()
    assert [1, 2, 3] in event.metadata.values()
    actor = Actor(id="42", name="lee", ip="10.0.0.7")
    assert msgspec.structs.replace(event, actor=actor, metadata=None) == EXPORTED


def java(jars: Path) -> Remake:
    maven, program = shutil.which("mvn"), shutil.which("java")
    if maven is None or program is None:
        pytest.skip("Maven and Java are not on the PATH: Jackson was not asked again")
    command = [maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    fetched = subprocess.run(command, cwd=PRODUCERS / "java", capture_output=True, text=True, timeout=TIME_TO_FETCH)
    if fetched.returncode:
        pytest.skip(f"Jackson could not be fetched: {fetched.stdout.strip()[-300:]}")
    run = [program, "-cp", f"{jars}/*", "Producer.java"]
    return lambda directory: subprocess.run([*run, directory], cwd=PRODUCERS / "java", check=True)


def go(_: Path) -> Remake:
    program = shutil.which("go")
    if program is None:
        pytest.skip("Go is not on the PATH: encoding/json was not asked again")
    return lambda directory: subprocess.run([program, "run", ".", directory], cwd=PRODUCERS / "go", check=True)


@pytest.mark.parametrize("language", [java, go], ids=["java", "go"])
def test_the_committed_bytes_are_what_the_producer_writes(language: Callable[[Path], Remake], tmp_path: Path) -> None:
    remake = language(tmp_path / "jars")
    again = tmp_path / "again"
    again.mkdir()
    remake(again)
    committed = PRODUCERS / language.__name__ / "made"
    assert {file.name: file.read_bytes() for file in again.iterdir()} == {
        file.name: file.read_bytes() for file in committed.iterdir()
    }

"""The archive's manifest: what the archiving role cannot claim, what cannot be edited, and what two runs at once do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from threading import Event as Signal
from threading import Thread
from typing import Any

import boto3
import psycopg
import pytest
from moto.server import ThreadedMotoServer

import archive
from prooftrail import erasure, segments
from prooftrail.archive_bucket import Version
from prooftrail.errors import ArchiveFailed
from prooftrail.invocation import Context
from prooftrail.store import Store
from tests.conftest import PROJECT, LogDatabase
from tests.factories import accepted, native, sqs

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]

JANUARY = date(2020, 1, 1)
OLD = "2020-01-15T00:00:00Z"


def planned(database: LogDatabase) -> segments.Segment:
    (segment,) = segments.plan(database.admin, JANUARY, 100, 10**6)
    return segment


def test_the_archiving_role_cannot_say_that_a_segment_is_verified(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native(time=OLD)))
    planned(database)
    with database.connect("archive") as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("UPDATE prooftrail.archive_segment SET state = 'verified'")


@pytest.mark.parametrize(("events", "message"), [(2, "the object 2"), (1, "planned with 1 events, PostgreSQL holds 2")])
def test_a_segment_is_verified_only_with_the_events_that_postgresql_holds(
    database: LogDatabase, ingesting: Ingesting, events: int, message: str
) -> None:
    ingesting(sqs(native(time=OLD), native(time=OLD)) if events == 1 else sqs(native(time=OLD)))
    with database.connect("archive") as connection:
        connection.execute(
            "INSERT INTO prooftrail.archive_segment (tenant, month, batches, event_count) "
            "SELECT tenant, %s, range_agg(int8range(id, id + 1)), 1 FROM prooftrail.batch WHERE tenant = 'acme' "
            "GROUP BY tenant",
            [JANUARY],
        )
        (segment,) = segments.plan(connection, JANUARY, 100, 10**6)
        with pytest.raises(psycopg.errors.CheckViolation, match=message):
            segments.mark_verified(connection, segment, events, Version(None, 1), bytes(32))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE prooftrail.archive_segment SET object_sha256 = sha256('')",
        "UPDATE prooftrail.archive_segment SET object_version = 'another'",
        "UPDATE prooftrail.archive_segment SET state = 'planned'",
        "UPDATE prooftrail.archive_segment SET batches = '{[1,99)}'",
        "DELETE FROM prooftrail.archive_segment",
        "TRUNCATE prooftrail.archive_segment CASCADE",
    ],
)
def test_what_is_archived_cannot_be_edited_even_by_the_owner(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, change: str
) -> None:
    ingesting(sqs(native(time=OLD)))
    archiving()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.admin.execute(change.encode())


def test_the_manifest_names_the_version_that_was_read_back(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str
) -> None:
    ingesting(sqs(native(time=OLD)))
    archiving()
    (segment,) = segments.archived(database.admin, "acme")
    head = boto3.client("s3").head_object(Bucket=bucket, Key=segment.object_key)
    assert segment.object_version == head["VersionId"]
    assert segment.object_key == f"tenant=acme/year=2020/month=01/segment-{segment.id:08d}.parquet"


@pytest.mark.parametrize("day", ["1969-12-31", "2100-01-01", "0001-01-01", "infinity"])
def test_no_partition_is_made_where_no_event_can_be(database: LogDatabase, day: str) -> None:
    with database.connect("ingest") as connection, pytest.raises(psycopg.errors.DataError):
        connection.execute("SELECT prooftrail.create_partition(%s::date)", [day])


def test_leaving_postgresql_is_an_event_of_each_tenant(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving
) -> None:
    ingesting(sqs(native(time=OLD), native(time=OLD), native(time=OLD, tenant="globex")))
    archiving()
    events = database.admin.execute(
        "SELECT tenant, outcome, metadata FROM prooftrail.event WHERE action = 'archive.month' ORDER BY tenant"
    ).fetchall()
    assert [(tenant, outcome) for tenant, outcome, _ in events] == [("acme", "success"), ("globex", "success")]
    (segment,) = segments.archived(database.admin, "acme")
    assert segment.object_sha256 is not None
    assert events[0][2] == {
        "month": "2020-01",
        "segments": 1,
        "events": 2,
        "objects": [{"key": segment.object_key, "sha256": segment.object_sha256.hex()}],
    }


def test_a_month_that_fails_does_not_hold_up_the_next(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str
) -> None:
    ingesting(sqs(native(time=OLD), native(time="2020-02-01T00:00:00Z"), native(time="2020-03-01T00:00:00Z")))
    boto3.client("s3").put_object(Bucket=bucket, Key=planned(database).object_key, Body=b"not Parquet")
    with pytest.raises(ArchiveFailed, match=r"^2020-01: [^;]+$"):
        archiving()
    assert [month for month in segments.months(database.admin) if month.year == 2020] == [JANUARY]


def test_a_month_to_which_events_keep_coming_waits_for_the_next_run(
    ingesting: Ingesting, archiving: Archiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingesting(sqs(native(time=OLD)))
    monkeypatch.setattr(segments, "drop_archived", lambda *_: None)
    assert archiving() == {"archived": [], "waiting": ["2020-01"], "events": 0, "erased": []}


def test_a_second_run_leaves_alone_what_the_first_is_at(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving
) -> None:
    ingesting(sqs(native(time=OLD)))
    segment = planned(database)
    with database.connect("archive") as other, other.transaction():
        assert segments.claim(other, segment)
        assert archiving() == {"archived": [], "waiting": ["2020-01"], "events": 0, "erased": []}
    assert archiving()["archived"] == ["2020-01"]


def test_the_slower_of_two_runs_finds_the_work_done(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listed the months, and is at the first of them when another run drops both."""
    ingesting(sqs(native(time=OLD), native(time="2020-02-01T00:00:00Z")))
    archive_month = archive.archive_month

    def overtaken(*arguments: Any) -> int | None:
        monkeypatch.setattr(archive, "archive_month", archive_month)
        with database.connect("archive") as faster:
            for month in (JANUARY, date(2020, 2, 1)):
                assert archive_month(faster, month, Context("archive")) == 1
        return archive_month(*arguments)

    monkeypatch.setattr(archive, "archive_month", overtaken)
    assert archiving() == {"archived": ["2020-01", "2020-02"], "waiting": [], "events": 0, "erased": []}


def test_a_run_that_waited_for_the_lock_finds_the_partition_gone(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native(time=OLD)))
    began, done = Signal(), Signal()

    def slower() -> None:
        with database.connect("archive") as connection:
            began.set()
            assert segments.drop_archived(connection, JANUARY) == 0
            done.set()

    segment = planned(database)
    with database.connect("archive") as faster:
        segments.mark_verified(faster, segment, 1, Version(None, 1), bytes(32))
        with faster.transaction():
            faster.execute("SELECT prooftrail.drop_archived_partition(%s)", [JANUARY])
            thread = Thread(target=slower)
            thread.start()
            began.wait()
    thread.join()
    assert done.is_set()


def test_segments_are_divided_by_bytes_too(database: LogDatabase, ingesting: Ingesting) -> None:
    for _ in range(4):
        ingesting(sqs(native(time=OLD, message=os.urandom(30_000).hex())))
    found = segments.plan(database.admin, JANUARY, 100, 100_000)
    assert [segment.event_count for segment in found] == [2, 2]
    assert all(90_000 < segment.stored_bytes < 200_000 for segment in found)


# The peak since the program began: ru_maxrss would count what the test's own process had when it forked.
MEMORY = """
import json, re, archive
from prooftrail.invocation import Context
summary = archive.handler({}, Context("archive", 300))
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024
print(json.dumps([summary["events"], summary["erased"], peak]))
"""


@pytest.fixture
def server() -> Iterator[str]:
    """An S3 in another process than the one that is measured."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process had")
def test_large_events_do_not_fill_the_memory_when_archived_or_erased(database: LogDatabase, server: str) -> None:
    """400 MB of events that do not compress, in segments of 128 MB: the function has 1.7 GB, and uses a fraction."""
    message = os.urandom(50_000).hex()
    with database.connect("ingest") as connection:
        for number in range(40):
            events = [native(time=OLD, message=f"{number} {message}", actor={"id": f"u{row % 10}"}) for row in range(100)]
            Store(connection).append([accepted(event) for event in events], [])
    boto3.client("s3", endpoint_url=server).create_bucket(Bucket="archive", ObjectLockEnabledForBucket=True)
    assert measured(database, server, below=300)[0] == 4000
    id = erasure.order(database.admin, "acme", "actor", "u3", "asked for")
    assert measured(database, server, below=300)[1] == [id]
    done = erasure.get(database.admin, id)
    assert done is not None
    assert done.entries == 400


def measured(database: LogDatabase, server: str, below: int) -> tuple[int, list[int]]:
    """A run of the archive in a process of its own, in less memory than so many MB: events archived, erasures done."""
    environment = os.environ | {
        "AWS_ENDPOINT_URL": server,
        "DATABASE_URL": database.url_of("archive"),
        "PROOFTRAIL_ARCHIVE_BUCKET": "archive",
        "PYTHONPATH": str(PROJECT / "functions" / "archive"),
    }
    output = subprocess.check_output([sys.executable, "-c", MEMORY], env=environment, text=True)
    events, erased, megabytes = json.loads(output.splitlines()[-1])
    print(f"peak memory: {megabytes} MB")
    assert megabytes < below
    return events, erased

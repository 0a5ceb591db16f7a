"""Verification over both tiers, and while ingest, archive and erasure go on: what they do is never taken for tampering."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import psycopg
import pyarrow as pa
import pyarrow.parquet
import pytest
from arro3.core import RecordBatch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from prooftrail import erasure, segments, verification
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.cli import app
from prooftrail.errors import ArchiveFailed
from prooftrail.store import Store
from prooftrail.verification import Question, Report, Workers, rows, scan
from prooftrail.verification.rows import Unreadable
from tests.conftest import LogDatabase
from tests.factories import accepted, native, sqs
from tests.integration.conftest import denied

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]

VERIFICATIONS = int(os.environ.get("VERIFICATIONS", "30"))  # while everything goes on; see tests/faults for more
OLD, LATER, NEW = "2020-01-15T00:00:00Z", "2020-02-15T00:00:00Z", "2026-10-01T12:00:00Z"


def verify(database: LogDatabase, bucket: str | None = None, **question: Any) -> Report:
    archive = ArchiveBucket(bucket) if bucket else None
    return verification.verify(database.admin, Question(**question), archive=archive)


def found(report: Report) -> list[str]:
    return [str(finding) for finding in report.findings]


def clean(report: Report) -> Report:
    assert (found(report), report.more, report.unchecked) == ([], 0, [])
    return report


@pytest.fixture
def archived(database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str) -> str:
    """Events of two tenants and three months, of which two were archived; a batch lies across all of them."""
    for tenant in ("acme", "globex"):
        ingesting(sqs(*(native(id=f"old-{number}", tenant=tenant, time=OLD, message="x") for number in range(7))))
        ingesting(sqs(*(native(id=time, tenant=tenant, time=time) for time in (OLD, LATER, NEW))))
    assert archiving()["archived"] == ["2020-01", "2020-02"]
    return bucket


def test_both_tiers_are_verified(database: LogDatabase, archived: str) -> None:
    report = clean(verify(database, archived))
    own = database.admin.execute("SELECT count(*) FROM prooftrail.event WHERE source = 'prooftrail'").fetchone()
    assert own is not None
    assert report.entries == 20 + own[0]
    assert clean(verify(database, archived, tenant="acme")).entries == 10 + own[0] // 2
    assert clean(verify(database, archived, tenant="acme", first=8, end=9)).entries == 3


def test_what_cannot_be_read_is_said_and_not_taken_for_missing(database: LogDatabase, archived: str) -> None:
    report = verify(database)
    assert report.findings == []
    assert len(report.unchecked) >= 4
    assert all("no bucket to read it from" in reason for reason in report.unchecked)


def test_an_object_that_cannot_be_read_stops_nothing_and_nothing_is_missing_for_it(
    database: LogDatabase, archived: str
) -> None:
    (segment, *_) = segments.archived(database.admin, "acme")
    replaced(database, archived, lambda table: with_message(table, 2, "y"), tenant="globex")
    with denied(archived, segment.object_key):
        report = verify(database, archived)
    assert [(finding.kind, finding.tenant, finding.column) for finding in report.findings] == [
        ("changed", "globex", "message")
    ]
    (reason,) = report.unchecked
    assert reason.startswith(f"{segment.object_key}: ")


def run_verify(database: LogDatabase, bucket: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> Result:
    monkeypatch.setenv("DATABASE_URL", database.url)
    arguments = ["verify", "--without-checkpoints", "--archive-bucket", bucket, "--tenant", "acme", *options]
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_archive_that_is_away_ends_the_command_with_not_verified_and_the_reasons(
    database: LogDatabase, archived: str, monkeypatch: pytest.MonkeyPatch, jobs: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    result = run_verify(database, archived, monkeypatch, "--jobs", jobs)
    assert result.exit_code == 2, result.output
    for segment in segments.archived(database.admin, "acme"):
        assert f"not verified: {segment.object_key}: " in result.stderr
    assert "http://127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


def test_what_is_found_beside_an_object_that_cannot_be_read_ends_the_command_with_found(
    database: LogDatabase, archived: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (segment,) = [item for item in segments.archived(database.admin, "acme") if item.event_count != 8]
    replaced(database, archived, lambda table: with_message(table, 2, "y"))
    with denied(archived, segment.object_key):
        result = run_verify(database, archived, monkeypatch, "--jobs", "1")
    assert result.exit_code == 1, result.output
    assert "message: expected 'x', found 'y'" in result.stdout
    assert f"not verified: {segment.object_key}: " in result.stderr


def test_a_fault_of_ours_does_not_end_the_command_as_if_something_was_found(
    database: LogDatabase, archived: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr("prooftrail.verification.session.walk", broken)
        result = run_verify(database, archived, monkeypatch, "--jobs", "1")
    assert result.exit_code == 2, result.output
    assert "a fault of ours" in result.stderr


def replaced(database: LogDatabase, bucket: str, change: Callable[[pa.Table], pa.Table], tenant: str = "acme") -> None:
    """Put another object in the place of one of a tenant's, and make the manifest name it, as its owner could."""
    s3 = boto3.client("s3")
    (segment,) = [item for item in segments.archived(database.admin, tenant) if item.event_count == 8]
    body = s3.get_object(Bucket=bucket, Key=segment.object_key)["Body"].read()
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(pa.BufferReader(body))), sink)
    content = sink.getvalue().to_pybytes()
    version = s3.put_object(Bucket=bucket, Key=segment.object_key, Body=content)["VersionId"]
    database.admin.execute("ALTER TABLE prooftrail.archive_segment DISABLE TRIGGER USER")
    database.admin.execute(
        "UPDATE prooftrail.archive_segment SET object_version = %s, object_sha256 = sha256(%s) WHERE id = %s",
        [version, content, segment.id],
    )


def with_message(table: pa.Table, row: int, message: str) -> pa.Table:
    messages = table["message"].to_pylist()
    messages[row] = message
    return table.set_column(table.column_names.index("message"), "message", pa.array(messages))


def test_a_changed_row_of_an_object_is_named_with_its_column(database: LogDatabase, archived: str) -> None:
    replaced(database, archived, lambda table: with_message(table, 2, "y"))
    (finding,) = verify(database, archived).findings
    assert (finding.kind, finding.tenant, finding.column, finding.expected, finding.found) == (
        "changed", "acme", "message", "x", "y",
    )  # fmt: skip
    assert finding.where.startswith("tenant=acme/year=2020/month=01/")


def test_a_row_that_is_gone_from_an_object_is_missing(database: LogDatabase, archived: str) -> None:
    replaced(database, archived, lambda table: table.slice(1))
    assert [finding.kind for finding in verify(database, archived).findings] == ["segment", "missing"]


def test_a_row_put_into_an_object_twice_is_doubled(database: LogDatabase, archived: str) -> None:
    replaced(database, archived, lambda table: pa.concat_tables([table, table.slice(0, 1)]))
    assert [finding.kind for finding in verify(database, archived).findings] == ["segment", "doubled"]


def test_json_with_two_values_under_one_key_does_not_pass_for_one_of_them(database: LogDatabase, bucket: str) -> None:
    honest = rows.FIELDS.index("metadata")
    assert rows.from_parquet(one_row('{"a":1}'), "acme").__next__()[honest] == '{"a":1}'
    with pytest.raises(Unreadable, match="metadata"):
        rows.derive(next(rows.from_parquet(one_row('{"a":2,"a":1}'), "acme")))


def one_row(metadata: str) -> Any:
    """A batch of one row as a segment's object has it."""
    columns: dict[str, Any] = {name: None for name in rows.FIELDS if name != "tenant"}
    columns |= {
        "batch_id": 1,
        "position": 0,
        "time": datetime(2026, 1, 1, tzinfo=UTC),
        "salt": bytes(48),
        "metadata": metadata,
    }
    return RecordBatch.from_arrow(pa.RecordBatch.from_pylist([columns]))


def test_an_object_that_is_gone_or_another_is_named(database: LogDatabase, archived: str) -> None:
    s3 = boto3.client("s3")
    first, second, *_ = segments.archived(database.admin, "acme")
    s3.delete_object(Bucket=archived, Key=first.object_key, VersionId=str(first.object_version))
    assert ("segment", first.object_key) in {
        (finding.kind, finding.where) for finding in verify(database, archived).findings
    }
    database.admin.execute("ALTER TABLE prooftrail.archive_segment DISABLE TRIGGER USER")
    database.admin.execute(
        "UPDATE prooftrail.archive_segment SET object_sha256 = sha256('other') WHERE id = %s", [second.id]
    )
    assert (second.object_key, "object_sha256") in {
        (finding.where, finding.column) for finding in verify(database, archived).findings
    }


def test_an_object_that_is_no_parquet_is_named(database: LogDatabase, archived: str) -> None:
    (segment,) = [item for item in segments.archived(database.admin, "acme") if item.event_count == 8]
    version = boto3.client("s3").put_object(Bucket=archived, Key=segment.object_key, Body=b"x" * 100)["VersionId"]
    database.admin.execute("ALTER TABLE prooftrail.archive_segment DISABLE TRIGGER USER")
    database.admin.execute(
        "UPDATE prooftrail.archive_segment SET object_version = %s, object_sha256 = sha256(%s) WHERE id = %s",
        [version, b"x" * 100, segment.id],
    )
    findings = verify(database, archived).findings
    assert ("segment", segment.object_key) in {(finding.kind, finding.where) for finding in findings}


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["position"]),
        lambda table: table.drop_columns(["batch_id"]),
        lambda table: table.set_column(table.column_names.index("time"), "time", pa.array([1] * table.num_rows)),
        lambda table: table.set_column(table.column_names.index("position"), "position", pa.array(["x"] * table.num_rows)),
        lambda table: table.set_column(table.column_names.index("batch_id"), "batch_id", pa.array([[1]] * table.num_rows)),
    ],
    ids=["no position", "no batch", "another time", "another position", "another batch"],
)
def test_an_object_of_other_columns_is_named_and_stops_nothing(
    database: LogDatabase, archived: str, change: Callable[[pa.Table], pa.Table]
) -> None:
    replaced(database, archived, change)
    replaced(database, archived, lambda table: with_message(table, 2, "y"), tenant="globex")
    findings = verify(database, archived).findings
    assert ("changed", "globex", "message") in [(finding.kind, finding.tenant, finding.column) for finding in findings]
    assert ("segment", "acme") in [(finding.kind, finding.tenant) for finding in findings]


def test_an_entry_in_both_tiers_is_doubled(database: LogDatabase, archived: str) -> None:
    database.admin.execute("SELECT prooftrail.create_partition('2020-01-01')")
    (suspect,) = object_rows(archived, database, "old-3")
    columns = ", ".join(suspect)
    database.admin.execute(
        f"INSERT INTO prooftrail.event ({columns}) VALUES ({', '.join(['%s'] * len(suspect))})".encode(),
        list(suspect.values()),
    )
    findings = verify(database, archived).findings
    database.admin.execute("DROP TABLE prooftrail.event_2020_01")
    (finding,) = [finding for finding in findings if finding.kind == "doubled"]
    assert finding.tenant == "acme"
    assert "tenant=acme/year=2020/month=01/" in str(finding)


def object_rows(bucket: str, database: LogDatabase, id: str) -> list[dict[str, Any]]:
    """What acme's first archived month holds of an event, as columns of PostgreSQL."""
    (segment,) = [item for item in segments.archived(database.admin, "acme") if item.event_count == 8]
    body = boto3.client("s3").get_object(Bucket=bucket, Key=segment.object_key)["Body"].read()
    found = pyarrow.parquet.read_table(pa.BufferReader(body)).to_pylist()
    return [
        {name: value for name, value in row.items() if value is not None} | {"tenant": "acme"}
        for row in found
        if row["id"] == id
    ]


def test_an_erasure_is_told_from_tampering_in_both_tiers(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str
) -> None:
    for month in (OLD, NEW):
        ingesting(
            sqs(*(native(time=month, actor={"id": name, "name": name}) for name in ("gone", "stays") for _ in range(5)))
        )
    archiving()
    id = erasure.order(database.admin, "acme", "actor", "gone", "asked for")
    erasure.execute(database.admin, ArchiveBucket(bucket), id, has_time=stops_after_the_survey())
    half = clean(verify(database, bucket))
    erasure.execute(database.admin, ArchiveBucket(bucket), id)
    report = clean(verify(database, bucket))
    assert (half.erased, report.erased) == (5, 10)
    part = clean(verify(database, bucket, tenant="acme", first=0, end=1))  # the erasure's event is not in this part
    assert (part.entries, part.erased) == (10, 5)


def test_what_is_gone_is_not_said_to_be_unexplained_where_the_erasure_may_be_in_an_object_that_cannot_be_read(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for month in (NEW, OLD):
        ingesting(sqs(native(time=month, actor={"id": "gone", "name": "gone"})))
    archiving()
    erasure.execute(
        database.admin, ArchiveBucket(bucket), erasure.order(database.admin, "acme", "actor", "gone", "asked for")
    )
    # As if the erasure had been made long ago, and its event been archived with its month.
    database.admin.execute("ALTER TABLE prooftrail.erasure DISABLE TRIGGER USER")
    database.admin.execute("UPDATE prooftrail.erasure SET begun_at = %s", [OLD])
    (segment,) = segments.archived(database.admin, "acme")
    with monkeypatch.context() as patch:
        patch.setattr(scan, "notes", lambda *_: [])
        (finding,) = verify(database, bucket, tenant="acme", first=0, end=1).findings
        assert finding.kind == "erased"
        with denied(bucket, segment.object_key):
            report = verify(database, bucket, tenant="acme", first=0, end=1)
    assert report.findings == []
    assert [reason.partition(":")[0] for reason in report.unchecked] == [segment.object_key]


def stops_after_the_survey() -> Callable[[], bool]:
    """Time for the erasure in PostgreSQL, and none for the objects."""
    answers = iter([True, True, True])
    return lambda: next(answers, False)


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)
wild_events = st.fixed_dictionaries(
    {},
    optional={
        "sequence": st.integers(0, 2**63 - 1),
        "message": texts,
        "site": texts,
        "before": json_values,
        "after": json_values,
        "metadata": st.dictionaries(texts, json_values, max_size=4),
        "duration_ms": st.floats(0, 2**53 - 1),
        "actor": st.fixed_dictionaries(
            {}, optional={"id": texts.filter(bool), "name": texts, "roles": st.lists(texts, max_size=3), "type": texts}
        ),
    },
)


@given(st.lists(wild_events, min_size=1, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_event_holds_it_is_derived_again_by_both_ways(
    database: LogDatabase, events: list[dict[str, Any]]
) -> None:
    tenant = f"t{uuid.uuid4().hex[:12]}"
    admitted = []
    for event in events:
        with contextlib.suppress(AssertionError):  # the factory's, of what would be quarantined
            admitted.append(accepted(native(tenant=tenant) | event))
    with database.connect("ingest") as connection:
        Store(connection).append(admitted, [])
    clean(verify(database, tenant=tenant))
    for place in database.admin.execute(
        "SELECT batch_id, position FROM prooftrail.event WHERE tenant = %s", [tenant]
    ).fetchall():
        with database.admin.transaction():
            (suspect,) = scan.rows_at(database.admin, segments.months(database.admin), [place])
        thorough = rows.derive(suspect.row)
        quick = rows.quick(suspect.row)
        assert quick is None or quick == (thorough.leaf, thorough.digest) or needs_the_exact_way(suspect.row)


def needs_the_exact_way(row: rows.Row) -> bool:
    return any(isinstance(value, str) and rows._needs_the_exact_way(value) for value in row)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'),
        ('{"a": 1.5}', '{"a": 1.500}'),
        ('{"a": 1}', '{"a": 1.00}'),
        ('{"a": 9007199254740993}', '{"a": 9007199254740993.0}'),
        ('{"a": 1e22, "b": -0.0}', '{"b": 0, "a": 10000000000000000000000.0}'),
        ('{"a": "\u00e9\U0001f600"}', '{"a": "\\u00e9\\ud83d\\ude00"}'),
    ],
)
def test_json_rewritten_to_an_equal_value_is_no_alarm(
    database: LogDatabase, ingesting: Ingesting, before: str, after: str
) -> None:
    ingesting(sqs(native(metadata=json.loads(before), time=NEW)))
    database.admin.execute("ALTER TABLE prooftrail.event_2026_10 DISABLE TRIGGER USER")
    database.admin.execute("UPDATE prooftrail.event_2026_10 SET metadata = %s::jsonb", [after])
    clean(verify(database))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 0.1}', '{"a": 0.1000000000000000000001}'),
        ('{"a": 1e22}', '{"a": 10000000000000000000001}'),
        ('{"a": 9007199254740993}', '{"a": 9007199254740992}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": null}', "{}"),
    ],
)
def test_json_changed_in_what_doubles_cannot_tell_is_found(
    database: LogDatabase, ingesting: Ingesting, before: str, after: str
) -> None:
    ingesting(sqs(native(id="one", metadata=json.loads(before), time=NEW)))
    saved = database.admin.execute("SELECT metadata::text FROM prooftrail.event_2026_10").fetchone()
    database.admin.execute("ALTER TABLE prooftrail.event_2026_10 DISABLE TRIGGER USER")
    database.admin.execute("UPDATE prooftrail.event_2026_10 SET metadata = %s::jsonb", [after])
    (finding,) = verify(database).findings
    assert (finding.kind, finding.id) == ("changed", "one")
    database.admin.execute("UPDATE prooftrail.event_2026_10 SET metadata = %s::jsonb", saved)


def test_many_processes_come_to_the_same(database: LogDatabase, ingesting: Ingesting) -> None:
    for _ in range(4):
        ingesting(sqs(*(native(time=NEW) for _ in range(5))))
    alone = clean(verify(database))
    with Workers(2, database.url, None) as workers:
        together = clean(verification.verify(database.admin, workers=workers))
        again = clean(verification.verify(database.admin, workers=workers))
    assert (together.entries, together.logs) == (again.entries, again.logs) == (alone.entries, alone.logs)


def test_nothing_is_found_while_ingest_archive_and_erasure_go_on(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str
) -> None:
    """Hundreds of verifications see the log at as many moments."""
    over = threading.Event()
    troubles: list[BaseException] = []
    entries: list[int] = []  # of each verification

    def go_on(work: Callable[[], object]) -> None:
        try:
            while not over.is_set():
                work()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test must fail
            troubles.append(error)

    def ingest_some() -> None:
        with database.connect("ingest") as connection:
            store = Store(connection)
            months = [OLD, LATER, NEW] if random.random() < 0.2 else [NEW]  # the archive takes a month that is at rest
            for _ in range(10):
                times = random.choices(months, k=5)
                events = [
                    native(time=time, tenant=random.choice("ab"), actor={"id": random.choice("xy")}) for time in times
                ]
                store.append([accepted(event) for event in events], [])
                time.sleep(0.2 + len(entries) / 300)  # of a log that grows for ever a thousand verifications never end

    def erase_some() -> None:
        # The archive's run takes up what is approved, too; then one of the two is told so.
        with contextlib.suppress(erasure.Busy), psycopg.connect(database.url, autocommit=True) as admin:
            id = erasure.order(admin, random.choice("ab"), "actor", random.choice("xy"), "asked for")
            erasure.execute(admin, ArchiveBucket(bucket), id)
        time.sleep(3)  # the archive begins anew with what an erasure changed

    def archive_some() -> None:
        with contextlib.suppress(ArchiveFailed):
            archiving()
        time.sleep(0.1)

    def everything_happened() -> bool:
        erased = any(item.state == "done" and item.entries for item in erasure.listing(database.admin))
        return erased and len(segments.archived(database.admin, None)) > 2

    threads = [threading.Thread(target=go_on, args=[work]) for work in (ingest_some, ingest_some, archive_some, erase_some)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 600 + VERIFICATIONS  # only a run that hangs reaches it
    try:
        while len(entries) < VERIFICATIONS or not everything_happened():
            entries.append(clean(verify(database, bucket)).entries)
            assert time.monotonic() < deadline, f"{len(entries)} verifications of up to {entries[-1]} entries"
            time.sleep(0.1)  # in which the archive may drop a month
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert troubles == []
    assert entries == sorted(entries)

"""Old months leave PostgreSQL for Parquet, and only after what was written is proved to be what was stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import boto3
import duckdb
import pyarrow as pa
import pyarrow.dataset
import pytest
from arro3.core import RecordBatchReader
from psycopg.conninfo import conninfo_to_dict

import archive
from prooftrail import parquet, segments
from prooftrail.aws import AwsUnavailable
from prooftrail.errors import ArchiveFailed
from tests.conftest import LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import denied

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]

TODAY = date(2026, 11, 21)


def download(bucket: str, to: Path) -> Path:
    s3 = boto3.client("s3")
    for item in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
        file = to / item["Key"]
        file.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, item["Key"], str(file))
    return to


def test_only_months_older_than_the_retention_are_due() -> None:
    months = [date(2025, 9, 1), date(2025, 10, 1), date(2025, 11, 1), date(2026, 11, 1), date(2027, 1, 1)]
    assert archive.due(months, TODAY, 12) == months[:2]
    assert archive.add_months(date(2026, 12, 31), 1) == date(2027, 1, 1)
    assert archive.add_months(date(2026, 1, 31), -1) == date(2025, 12, 1)


def test_partitions_are_made_ahead(database: LogDatabase, archiving: Archiving) -> None:
    archiving()
    assert len(segments.months(database.admin)) == archive.MONTHS_AHEAD + 1


def test_an_old_month_becomes_parquet_and_leaves_postgresql(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str, tmp_path: Path
) -> None:
    rich = native(
        id="rich",
        time="2020-01-31T23:59:59.999999Z",
        tenant="globex",
        sequence=7,
        actor={"id": "u", "roles": ["a", "b"], "ip": "10.0.0.1"},
        before={"a": [1, None]},
        metadata={"π": "☃"},
        duration_ms=1.5,
    )
    ingesting(sqs(rich, *(native(time="2020-01-01T00:00:00Z") for _ in range(10)), native(time="2026-10-01T00:00:00Z")))
    assert archiving() == {"archived": ["2020-01"], "waiting": [], "events": 11, "erased": []}
    assert database.count("event") == 1
    keys = {item["Key"].rpartition("/")[0] for item in boto3.client("s3").list_objects_v2(Bucket=bucket)["Contents"]}
    assert keys == {"tenant=acme/year=2020/month=01", "tenant=globex/year=2020/month=01"}

    dataset = pa.dataset.dataset(download(bucket, tmp_path), partitioning="hive")
    assert dataset.schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert all(dataset.schema.field(name).type == pa.string() for name in ("before", "after", "metadata", "actor_ip"))
    assert dataset.schema.field("actor_roles").type.value_type == pa.string()
    (row,) = dataset.to_table(filter=pa.dataset.field("id") == "rich").to_pylist()
    assert (row["tenant"], row["year"], row["month"], row["sequence"]) == ("globex", 2020, 1, 7)
    assert (json.loads(row["before"]), json.loads(row["metadata"])) == ({"a": [1, None]}, {"π": "☃"})
    assert row["time"].isoformat() == "2020-01-31T23:59:59.999999+00:00"

    relation = duckdb.sql(f"SELECT * FROM read_parquet('{tmp_path}/*/*/*/*.parquet', hive_partitioning = true)")
    assert relation is not None
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    assert (types["time"], types["before"], types["tenant"]) == ("TIMESTAMP WITH TIME ZONE", "VARCHAR", "VARCHAR")
    assert relation.count("*").fetchall() == [(11,)]


def test_a_second_run_finds_nothing_to_do(ingesting: Ingesting, archiving: Archiving) -> None:
    ingesting(sqs(native(time="2020-01-01T00:00:00Z")))
    archiving()
    assert archiving() == {"archived": [], "waiting": [], "events": 0, "erased": []}


def test_late_events_of_an_archived_month_are_archived_beside_the_first(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str, tmp_path: Path
) -> None:
    first = sqs(native(time="2020-01-01T00:00:00Z", id="first"))
    ingesting(first)
    archiving()
    ingesting(first)  # a redelivery after its month has gone
    ingesting(sqs(native(time="2020-01-02T00:00:00Z", id="late")))
    assert database.count("event") == 1
    assert archiving()["events"] == 1
    table = pa.dataset.dataset(download(bucket, tmp_path), partitioning="hive").to_table()
    assert sorted(table["id"].to_pylist()) == ["first", "late"]


def test_large_months_are_divided_and_batches_are_not(
    ingesting: Ingesting, archiving: Archiving, monkeypatch: pytest.MonkeyPatch, bucket: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGMENT_ROWS", "25")
    for _ in range(7):
        ingesting(sqs(*(native(time="2020-01-01T00:00:00Z") for _ in range(10))))
    assert archiving()["events"] == 70
    files = list(download(bucket, tmp_path).rglob("*.parquet"))
    assert sorted(pyarrow.dataset.dataset(file).count_rows() for file in files) == [20, 20, 30]


def test_without_time_left_the_month_waits_for_the_next_run(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving
) -> None:
    ingesting(sqs(native(time="2020-01-01T00:00:00Z")))
    assert archiving(seconds=30) == {"archived": [], "waiting": ["2020-01"], "events": 0, "erased": []}
    assert database.count("event") == 1
    assert archiving()["archived"] == ["2020-01"]


def test_an_object_that_differs_from_postgresql_stops_everything(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str, tmp_path: Path
) -> None:
    """Somebody wrote a forged object first: it is not overwritten, not believed, and nothing is dropped."""
    ingesting(sqs(native(time="2020-01-01T00:00:00Z", message="true")))
    (segment,) = segments.plan(database.admin, date(2020, 1, 1), 100, 10**6)
    with parquet.rows_of(conninfo_to_dict(database.url), segments.rows_query(segment)) as rows:
        table = rows.read_all()
    forged = pa.table(table).set_column(18, "message", pa.array(["false"]))
    file = tmp_path / "forged.parquet"
    parquet.write(RecordBatchReader.from_arrow(forged), file, {})
    boto3.client("s3").put_object(Bucket=bucket, Key=segment.object_key, Body=file.read_bytes())
    with pytest.raises(ArchiveFailed, match=r"2020-01: .*other content"):
        archiving()
    assert database.count("event") == 1


def test_a_month_whose_object_cannot_be_read_back_waits_and_the_others_go(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, bucket: str
) -> None:
    ingesting(sqs(native(time="2020-01-01T00:00:00Z"), native(time="2020-02-01T00:00:00Z")))
    with denied(bucket, "tenant=acme/year=2020/month=01/*"), pytest.raises(ArchiveFailed, match="2020-01: reading") as told:
        archiving()
    assert isinstance(told.value.__cause__, AwsUnavailable)
    assert [segment.month.month for segment in segments.archived(database.admin, "acme")] == [2]
    assert archiving()["archived"] == ["2020-01"]


def test_rows_that_no_verified_segment_holds_keep_the_partition(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native(time="2020-01-01T00:00:00Z")))
    with database.connect("archive") as connection:
        assert segments.drop_archived(connection, date(2020, 1, 1)) is None
    assert database.count("event") == 1


def test_a_young_month_cannot_be_dropped_whatever_the_function_believes(database: LogDatabase) -> None:
    with database.connect("archive") as connection:
        database.admin.execute("SELECT prooftrail.create_partition(current_date)")
        with pytest.raises(Exception, match="too young"):
            segments.drop_archived(connection, datetime.now(UTC).date().replace(day=1))


def test_two_runs_that_plan_at_once_make_the_segments_once(database: LogDatabase, ingesting: Ingesting) -> None:
    for _ in range(5):
        ingesting(sqs(native(time="2020-01-01T00:00:00Z")))
    with database.connect("archive") as one, database.connect("archive") as two:
        assert segments.plan(one, date(2020, 1, 1), 100, 10**6) == segments.plan(two, date(2020, 1, 1), 100, 10**6)
    assert database.count("archive_segment") == 1

"""The archive function killed with SIGKILL at random moments: every event stays in exactly one place."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3
import pyarrow.parquet
import pytest
from moto.server import ThreadedMotoServer

from prooftrail.store import Store
from tests.conftest import PROJECT, LogDatabase
from tests.factories import accepted, native

KILLS = 20
BUCKET = "prooftrail-archive"

RUN = """
import json, archive
from prooftrail.invocation import Context
print("begins", flush=True)
print(json.dumps(archive.handler({}, Context("archive", 300))))
"""


@pytest.fixture
def environment(database: LogDatabase) -> Iterator[dict[str, str]]:
    """What the function's process is told: a database role of its own, and an S3 that outlives it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    environment = os.environ | {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "DATABASE_URL": database.url_of("archive"),
        "PROOFTRAIL_ARCHIVE_BUCKET": BUCKET,
        "SEGMENT_ROWS": "40",
        "PYTHONPATH": str(PROJECT / "functions" / "archive"),
    }
    boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"]).create_bucket(Bucket=BUCKET)
    yield environment
    server.stop()


def run_and_kill(environment: dict[str, str], seconds: float | None) -> str | None:
    """Run the function, killing it so many seconds after it began; what it printed if it came to its end."""
    process = subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return None
    return output.splitlines()[-1]


def places(database: LogDatabase, environment: dict[str, str], scratch: Path) -> Counter[str]:
    """How often each event is answered: from PostgreSQL, or from an object that the manifest calls the place to read."""
    with database.admin.transaction():
        database.admin.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        hot = database.admin.execute("SELECT id FROM prooftrail.event WHERE source <> 'prooftrail'").fetchall()
        manifest = database.admin.execute(
            "SELECT object_key FROM prooftrail.archive_segment WHERE state = 'archived'"
        ).fetchall()
    found = Counter(id for (id,) in hot)
    s3 = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    for number, (key,) in enumerate(manifest):
        file = scratch / f"{number}.parquet"
        s3.download_file(BUCKET, key, str(file))
        found.update(pyarrow.parquet.read_table(file, columns=["id"])["id"].to_pylist())
    return found


def test_every_event_is_answered_exactly_once_after_each_of_twenty_kills(
    database: LogDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    chance = random.Random()
    everything: set[str] = set()
    kills, began = 0, time.monotonic()
    while kills < KILLS or (kills < 3 * KILLS and not database.segments("archived")):  # on a slow machine, some more
        everything |= ingest(database, chance, 600 if kills == 0 else 60)  # late events come while months leave
        if run_and_kill(environment, chance.uniform(0.05, 2.0)) is None:
            kills += 1
        found = places(database, environment, tmp_path)
        assert found.keys() == everything, f"lost: {sorted(everything - found.keys())[:5]}"
        assert set(found.values()) == {1}, f"answered twice: {[id for id, times in found.items() if times > 1][:5]}"
    archived = len(database.segments("archived"))
    print(f"{kills} kills in {time.monotonic() - began:.0f} s; {archived} segments were archived between them")
    assert archived

    summary = json.loads(run_and_kill(environment, None) or "{}")
    assert summary["waiting"] == []
    assert database.count("event") == 0
    assert places(database, environment, tmp_path) == Counter(everything)
    s3 = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    stored = {item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]}
    assert stored == set(database.segments("archived")), "an object was left that the manifest does not know"


def ingest(database: LogDatabase, chance: random.Random, count: int) -> set[str]:
    """Store events of three tenants over six old months; returns their ids."""
    events = [
        native(id=str(uuid.uuid4()), tenant=f"t{number % 3}", time=f"2020-{chance.randrange(1, 7):02}-15T00:00:00Z")
        for number in range(count)
    ]
    with database.connect("ingest") as connection:
        Store(connection).append([accepted(event) for event in events], [])
    return {event["id"] for event in events}

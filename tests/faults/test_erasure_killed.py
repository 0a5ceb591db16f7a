"""An erasure killed with SIGKILL before each of its steps: nothing is ever unexplained, and the next run ends it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import date

import boto3
import pytest
from moto.server import ThreadedMotoServer

import archive
from prooftrail import erasure, segments, verification
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.invocation import Context
from prooftrail.verification import Question
from tests.conftest import LogDatabase
from tests.factories import native
from tests.integration.conftest import fresh
from tests.integration.test_erasure import (
    PERSON,
    assert_every_leaf_derives,
    assert_nowhere_in_objects,
    assert_nowhere_in_rows,
    lock,
    of_person,
    store,
)

BUCKET = "prooftrail-erasures"  # of its own: servers of moto in one process share what they hold

TENANTS = 72  # more than an erasure has steps
ON_ITS_WAY = date(2021, 1, 1)

# A process for each line of the input (an erasure, and the step before which it is killed); says how each ended.
RUN = """
import os, signal, sys, traceback
import boto3, psycopg
from prooftrail import erasure, system
from prooftrail.archive_bucket import ArchiveBucket

steps = last = 0
def counted(call):
    def step(*arguments, **options):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return step

def execute(id):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None) as connection:
        return erasure.execute(connection, ArchiveBucket(os.environ["PROOFTRAIL_ARCHIVE_BUCKET"]), id).state

for kind, names in ((psycopg.Connection, ["execute"]), (ArchiveBucket, ["find", "versions", "fetch", "replace", "remove"])):
    for name in names:
        setattr(kind, name, counted(getattr(kind, name)))
for line in sys.stdin:
    id, last = map(int, line.split())
    child = os.fork()
    if not child:
        try:
            os._exit(0 if execute(id) == "done" else 2)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture
def archived(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogDatabase]:
    """For each tenant: the person in PostgreSQL, in the archive, and on its way there; S3 outlives processes."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("PROOFTRAIL_ARCHIVE_BUCKET", BUCKET)
    monkeypatch.setenv("DATABASE_URL", database.url_of("archive"))
    boto3.client("s3").create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    lock(BUCKET, "GOVERNANCE")
    times = ("2020-01-15T00:00:00Z", "2021-01-15T00:00:00Z", "2026-10-01T12:00:00Z")
    events = [(make, f"t{number}", time) for number in range(TENANTS) for time in times for make in (of_person, native)]
    with fresh(archive):
        store(database, [make(tenant=tenant, time=time) for make, tenant, time in events])
        with database.connect("archive") as connection:
            assert archive.archive_month(connection, date(2020, 1, 1), Context("archive")) == 2 * TENANTS
            for segment in segments.plan(connection, ON_ITS_WAY, 1000, 10**9):
                assert archive.archive_segment(connection, segment)
        yield database
    server.stop()


class Runner:
    """Executes erasures in processes of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, id: int, last_step: int) -> bool:
        """Execute an erasure, killed before that step; whether it came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{id} {last_step}\n")
        code = int(self._process.stdout.readline())
        assert code in {0, -9}
        return code == 0

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def runner(archived: LogDatabase) -> Iterator[Runner]:
    """Told where the database and S3 are by the environment, as it is when everything is archived."""
    runner = Runner()
    yield runner
    runner.close()


def test_an_erasure_killed_before_each_of_its_steps_is_taken_up_by_the_next(archived: LogDatabase, runner: Runner) -> None:
    for number in range(TENANTS):
        id = erasure.order(archived.admin, f"t{number}", "actor", PERSON, "asked for")
        ended = runner.run(id, number + 1)
        assert_everything_is_explained(archived, f"t{number}")
        if ended:
            break
        assert runner.run(id, 0)
    assert ended, "an erasure has more steps than this test has tenants"
    print(f"killed before each of {number} steps")
    for left in range(number + 1, TENANTS):
        erasure.execute(
            archived.admin, ArchiveBucket(BUCKET), erasure.order(archived.admin, f"t{left}", "actor", PERSON, "asked for")
        )
    assert_everything_is_explained(archived, None)
    assert_every_leaf_derives(archived, BUCKET)
    assert_nowhere_in_rows(archived)
    assert_nowhere_in_objects(BUCKET)


def assert_everything_is_explained(database: LogDatabase, tenant: str | None) -> None:
    """Nothing looks tampered with: what is gone was announced in the log, the objects are those of the manifest."""
    report = verification.verify(database.admin, Question(tenant=tenant), archive=ArchiveBucket(BUCKET))
    assert (report.findings, report.unchecked) == ([], [])

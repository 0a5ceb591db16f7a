"""An erasure killed with SIGKILL before each of its steps: nothing is ever unexplained, and the next run ends it."""

from __future__ import annotations

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
from tests.faults.killing import Runner
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

EXECUTE = """
import boto3, psycopg
from prooftrail import erasure, system
from prooftrail.archive_bucket import ArchiveBucket

def execute(id):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None) as connection:
        done = erasure.execute(connection, ArchiveBucket(os.environ["PROOFTRAIL_ARCHIVE_BUCKET"]), int(id))
        assert done.state == "done", done

for kind, names in ((psycopg.Connection, ["execute"]), (ArchiveBucket, ["find", "versions", "fetch", "replace", "remove"])):
    for name in names:
        setattr(kind, name, counted(getattr(kind, name)))
forever(execute)
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


@pytest.fixture
def runner(archived: LogDatabase) -> Iterator[Runner]:
    """Told where the database and S3 are by the environment, as it is when everything is archived."""
    runner = Runner(EXECUTE)
    yield runner
    runner.close()


def test_an_erasure_killed_before_each_of_its_steps_is_taken_up_by_the_next(archived: LogDatabase, runner: Runner) -> None:
    for number in range(TENANTS):
        id = erasure.order(archived.admin, f"t{number}", "actor", PERSON, "asked for")
        ended = runner.run(id, last_step=number + 1)
        assert_everything_is_explained(archived, f"t{number}")
        if ended:
            break
        assert runner.run(id, last_step=0)
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

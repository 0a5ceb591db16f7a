"""A replay and a discarding killed (SIGKILL) before each exchange with PostgreSQL: all of it happened, or nothing did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from prooftrail import quarantine, verification
from prooftrail.formats import RawRecord, Rejected
from prooftrail.quarantine import Filter
from prooftrail.store import Store
from tests.conftest import LogDatabase
from tests.factories import native
from tests.faults.killing import Runner

RECORDS = 80  # more than a replay has steps

SETTLE = """
import functools
from datetime import UTC, datetime
import psycopg
from prooftrail import formats, quarantine

exchange = psycopg.Connection.wait

def settle(what, id):
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=None) as connection:
        psycopg.Connection.wait = counted(exchange)  # connecting is not a step
        if what == "replay":
            read = functools.partial(formats.read, latest=datetime(2200, 1, 1, tzinfo=UTC))
            quarantine.replay(connection, int(id), read)
        else:
            quarantine.discard(connection, int(id), "asked for", clear=True)
        psycopg.Connection.wait = exchange  # nor is closing

forever(settle)
"""


@pytest.fixture
def runner(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runner]:
    monkeypatch.setenv("DATABASE_URL", database.url)
    runner = Runner(SETTLE)
    yield runner
    runner.close()


@pytest.fixture
def waiting(database: LogDatabase) -> list[int]:
    """Records that are events by now, each of a tenant and a month that nothing was stored in."""
    with database.connect("ingest") as connection:
        for number in range(RECORDS):
            time = datetime.now(UTC) + timedelta(days=2 + 20 * number)
            record = RawRecord(f"sqs:events:{number}", _body(number, time), {"content-type": "application/json"})
            Store(connection).append([], [Rejected(record, "time-out-of-range", "too early")])
    return quarantine.waiting(database.admin, Filter())


def _body(number: int, time: datetime) -> bytes:
    return json.dumps(native(id=None, tenant=f"t{number}", time=time.isoformat())).encode()


def test_a_replay_killed_before_each_of_its_steps_is_done_again(
    database: LogDatabase, runner: Runner, waiting: list[int]
) -> None:
    for step, id in enumerate(waiting, start=1):
        ended = runner.run("replay", id, last_step=step)
        state = quarantine.get(database.admin, id).state
        assert (state == "replayed") == (stored(database, f"t{step - 1}") == [f"sqs:events:{step - 1}"])
        assert_as_logged(database)
        if ended:
            break
        if state == "waiting":
            assert runner.run("replay", id, last_step=0)
        assert stored(database, f"t{step - 1}") == [f"sqs:events:{step - 1}"]
    assert ended, "a replay has more steps than this test has records"
    print(f"killed before each of {step - 1} steps")
    assert step > 10
    assert_as_logged(database)


def test_a_discarding_killed_before_each_of_its_steps_is_done_again(
    database: LogDatabase, runner: Runner, waiting: list[int]
) -> None:
    for step, id in enumerate(waiting, start=1):
        ended = runner.run("discard", id, last_step=step)
        item = quarantine.get(database.admin, id)
        assert (item.state == "discarded") == (item.cleared_at is not None) == (item.bytes == 0)
        assert_as_logged(database)
        if ended:
            break
        if item.state == "waiting":
            assert runner.run("discard", id, last_step=0)
    assert ended, "a discarding has more steps than this test has records"
    assert step > 5
    assert_as_logged(database)


def stored(database: LogDatabase, tenant: str) -> list[str]:
    return [id for (id,) in database.admin.execute("SELECT id FROM prooftrail.event WHERE tenant = %s", [tenant])]


def assert_as_logged(database: LogDatabase) -> None:
    report = verification.verify(database.admin)
    assert (report.findings, report.unchecked) == ([], [])

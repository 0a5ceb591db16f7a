"""Continuous verification: what is new soon, all of history in turn, and a verdict that anybody can ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prooftrail.verification import continuous
from tests.conftest import LogDatabase
from tests.factories import native, sqs

Calling = Callable[..., Any]


@pytest.fixture
def log(ingesting: Calling, checkpointing: Calling) -> Callable[[int], None]:
    """Let the log of acme grow by a batch of so many, signed for."""

    def grow(count: int) -> None:
        ingesting(sqs(*(native(time="2026-10-01T12:00:00Z") for _ in range(count))))
        checkpointing()

    return grow


def health(asking: Calling) -> tuple[int, dict[str, Any]]:
    status, document = asking("/health", key=None)
    return status, document["verification"]


def tamper(database: LogDatabase, position: int) -> None:
    database.admin.execute("SET session_replication_role = replica")
    database.admin.execute(
        "UPDATE prooftrail.event_2026_10 SET outcome = 'failure' WHERE batch_id = (SELECT min(batch_id) FROM "
        "prooftrail.event_2026_10) AND position = %s",
        [position],
    )


def repair(database: LogDatabase) -> None:
    database.admin.execute("UPDATE prooftrail.event_2026_10 SET outcome = 'success'")
    database.admin.execute("SET session_replication_role = origin")


def test_what_is_new_is_derived_and_a_small_history_whole_in_each_run(log: Calling, verifying: Calling) -> None:
    log(20)
    first = verifying()
    assert (first["findings"], first["unchecked"]) == (0, [])
    assert first["entries"] >= 40  # as new, and as history
    log(5)
    assert verifying()["findings"] == 0


def test_health_says_what_was_verified_and_until_when(log: Calling, verifying: Calling, asking: Calling) -> None:
    log(3)
    assert "verified_at" not in health(asking)[1]
    verifying()
    _, verdict = health(asking)
    assert verdict["status"] == "ok"
    assert verdict["findings"] == 0
    assert verdict["history_verified_until"] <= verdict["verified_at"]


def test_a_change_of_old_entries_is_found_in_its_turn_and_fails_health(
    log: Calling, verifying: Calling, asking: Calling, database: LogDatabase
) -> None:
    log(10)
    verifying()
    tamper(database, 3)
    assert verifying()["findings"] == 1
    status, verdict = health(asking)
    assert status == 503
    assert (verdict["status"], verdict["findings"]) == ("failing", 1)
    row = database.admin.execute("SELECT findings::text FROM prooftrail.verification ORDER BY id DESC LIMIT 1").fetchone()
    assert row is not None
    assert '"column": "outcome"' in row[0]
    assert "success" not in row[0], "a record that many read holds a value of an event"
    repair(database)
    verifying()  # a round that began after the finding
    assert health(asking)[1]["findings"] == 0


def test_a_long_round_goes_on_where_the_last_run_ended(
    log: Calling, verifying: Calling, database: LogDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "UNIT", 10)
    monkeypatch.setenv("VERIFY_EVERY_DAYS", "30")
    for _ in range(5):
        log(10)
    ends = []
    for _ in range(30):
        assert verifying()["findings"] == 0
        progress = continuous._read(database.admin)
        ends.append(progress.round.batch if progress.round else None)
        if progress.verified_until:
            break
    assert ends[-1] is None, "the round never ended"
    between = [end for end in ends if end is not None]
    assert between == sorted(between)
    assert len(between) > 1


def test_a_run_whose_time_is_up_is_gone_on_with(log: Calling, verifying: Calling, database: LogDatabase) -> None:
    log(10)
    assert verifying(seconds=0)["findings"] == 0
    assert continuous._read(database.admin).verified_until is None
    verifying()
    assert continuous._read(database.admin).verified_until is not None


def test_archived_entries_are_derived_too(
    ingesting: Calling, archiving: Calling, checkpointing: Calling, verifying: Calling, database: LogDatabase
) -> None:
    ingesting(sqs(*(native(time="2020-03-01T00:00:00Z") for _ in range(7)), native()))
    assert archiving()["events"] == 7
    checkpointing()
    summary = verifying()
    assert (summary["findings"], summary["unchecked"]) == (0, [])
    assert continuous._read(database.admin).verified_until is not None


def test_a_log_that_was_cut_off_is_found_by_what_was_signed(
    log: Calling, verifying: Calling, database: LogDatabase
) -> None:
    log(4)
    log(4)
    verifying()
    admin = database.admin
    admin.execute("SET session_replication_role = replica")
    saved = admin.execute("SELECT size, frontier FROM prooftrail.log WHERE tenant = 'acme'").fetchone()
    assert saved is not None
    admin.execute("UPDATE prooftrail.log SET size = 4, frontier = '' WHERE tenant = 'acme'")
    assert verifying()["findings"] >= 1
    admin.execute("UPDATE prooftrail.log SET size = %s, frontier = %b WHERE tenant = 'acme'", saved)
    admin.execute("SET session_replication_role = origin")
    assert verifying()["findings"] == 0

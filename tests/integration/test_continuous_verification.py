"""Continuous verification: what is new soon, all of history in turn, and a verdict that anybody can ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace

from prooftrail import segments, store
from prooftrail.aws import AwsUnavailable
from prooftrail.event import OWN_TENANT, own_event
from prooftrail.evidence import Evidence
from prooftrail.segments import Segment
from prooftrail.verification import continuous
from prooftrail.verification.examine import Examiner
from tests.conftest import LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import EVIDENCE_BUCKET, denied

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


# ---------------------------------------------------------------------------------- what cannot be looked at


@pytest.fixture
def archived(ingesting: Calling, archiving: Calling, checkpointing: Calling, database: LogDatabase) -> list[Segment]:
    """Three months of acme's, each an object, and events in PostgreSQL."""
    for month in ("03", "04", "05"):
        ingesting(sqs(*(native(time=f"2020-{month}-01T00:00:00Z") for _ in range(7))))
    ingesting(sqs(*(native(time="2026-10-01T12:00:00Z") for _ in range(5))))
    archiving()
    checkpointing()
    return segments.archived(database.admin, "acme")


class Told:
    """What the last run logged of trouble, and its metrics."""

    def __init__(self, log: pytest.LogCaptureFixture, printed: pytest.CaptureFixture[str]) -> None:
        self.errors = [vars(record) for record in log.records if (record.levelname, record.module) == ("ERROR", "verify")]
        documents = [json.loads(line) for line in printed.readouterr().out.splitlines()]
        self.metrics = [document for document in documents if "VerifiedEntries" in document][-1]


def recorded(database: LogDatabase) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Of the last run: how many findings, which, and what was not looked at."""
    row = database.admin.execute(
        "SELECT found, findings, unchecked FROM prooftrail.verification ORDER BY id DESC LIMIT 1"
    ).fetchone()
    assert row is not None
    return row


def test_an_object_that_cannot_be_read_hides_no_finding_and_is_told_until_it_is_read(
    *,
    archived: list[Segment],
    bucket: str,
    verifying: Calling,
    asking: Calling,
    database: LogDatabase,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verifying()
    _, before = health(asking)
    key = archived[0].object_key
    tamper(database, 3)
    with denied(bucket, key):
        summary = verifying()
        told = Told(caplog, capsys)
        assert summary["findings"] == 1
        assert summary["entries"] > 5 + 7 + 7  # those of the other objects too
        (reason,) = summary["unchecked"]
        assert reason.startswith(f"{key}: reading {key} from the archive bucket: ")
        assert "Forbidden" in reason
        assert "outcome" in told.errors[0]["finding"]
        assert [error["unchecked"] for error in told.errors[1:]] == [reason]
        assert (told.metrics["VerificationFindings"], told.metrics["VerificationUnchecked"]) == ([1.0], [1.0])
        found, (finding,), unchecked = recorded(database)
        assert (found, finding["kind"], unchecked) == (1, "changed", [reason])
        _, verdict = health(asking)
        assert (verdict["status"], verdict["findings"], verdict["unchecked"]) == ("failing", 1, 1)
        assert verdict["history_verified_until"] == before["history_verified_until"]
        assert "acme" not in json.dumps(verdict)
        repair(database)
        assert verifying()["unchecked"] == [reason]
        assert health(asking)[1]["status"] == "failing"
    assert verifying()["unchecked"] == []
    _, verdict = health(asking)
    assert (verdict["status"], "unchecked" in verdict) == ("ok", False)
    assert verdict["history_verified_until"] > before["history_verified_until"]


def test_a_round_goes_past_what_cannot_be_read_and_every_run_tries_it_again(
    archived: list[Segment], bucket: str, verifying: Calling, database: LogDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(continuous, "UNIT", 5)
    monkeypatch.setenv("VERIFY_EVERY_DAYS", "30")
    key = archived[0].object_key
    with denied(bucket, key):
        for _ in range(10):
            unchecked = verifying()["unchecked"]
            progress = continuous._read(database.admin)
            if progress.round is not None and progress.round.segment > archived[0].id:
                break
        else:
            pytest.fail("the round stands still")
        assert [reason.partition(":")[0] for reason in unchecked] == [key]
        assert verifying()["unchecked"] == unchecked
        assert verifying(seconds=0)["unchecked"] == unchecked, "a run without time to try it says nothing of it"
        for _ in range(10):  # until the round ends, and the next begins
            verifying()
        assert continuous._read(database.admin).verified_until is None
    assert verifying()["unchecked"] == []
    for _ in range(10):
        verifying()
    assert continuous._read(database.admin).verified_until is not None


def test_a_run_that_ends_in_an_error_tells_what_it_found_until_then_and_verified_nothing(
    *,
    log: Calling,
    verifying: Calling,
    asking: Calling,
    database: LogDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log(10)
    tamper(database, 3)

    def broken(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(continuous._Run, "go_on", broken)
        with pytest.raises(RuntimeError, match="a fault of ours"):
            verifying()
    told = Told(caplog, capsys)
    assert "outcome" in told.errors[0]["finding"]
    assert (told.metrics["VerificationFindings"], told.metrics["VerificationUnchecked"]) == ([1.0], [1.0])
    assert "VerificationRuns" not in told.metrics  # whose absence is an alarm
    found, (finding,), (unchecked,) = recorded(database)
    assert (found, finding["column"]) == (1, "outcome")
    assert "RuntimeError" in unchecked
    assert health(asking)[1]["status"] == "failing"
    assert continuous._read(database.admin).logs == {}, "the next run does not begin where this one did"
    repair(database)
    assert verifying()["findings"] == 0
    assert health(asking)[1]["status"] == "ok"


def test_what_cannot_be_examined_is_a_finding_nonetheless(
    log: Calling, verifying: Calling, database: LogDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(10)
    saved = database.admin.execute("SELECT leaf_hashes FROM prooftrail.batch WHERE tenant = 'acme'").fetchone()
    assert saved is not None
    tamper(database, 3)
    database.admin.execute("UPDATE prooftrail.batch SET leaf_hashes = overlay(leaf_hashes PLACING '\\x00' FROM 1)")

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    with monkeypatch.context() as patch:
        patch.setattr(Examiner, "examine", broken)
        with pytest.raises(RuntimeError, match="a fault of ours"):
            verifying()
    found, findings, _ = recorded(database)
    assert found == len(findings)
    named = {(finding["kind"], finding["tenant"], finding.get("position")) for finding in findings}
    assert named >= {("changed", "acme", 3), ("batch", "acme", None)}
    database.admin.execute("UPDATE prooftrail.batch SET leaf_hashes = %b WHERE tenant = 'acme'", saved)
    repair(database)


def test_a_checkpoint_that_cannot_be_read_hides_no_finding_and_its_log_is_compared_later(
    log: Calling, verifying: Calling, asking: Calling, database: LogDatabase
) -> None:
    log(10)
    verifying()
    before = continuous._read(database.admin)
    log(5)
    tamper(database, 3)
    with denied(EVIDENCE_BUCKET, f"acme/checkpoint/{15:020d}"):
        summary = verifying()
        assert summary["findings"] == 1
        (reason,) = summary["unchecked"]
        assert reason.startswith("what was signed of log acme: ")
        assert health(asking)[1]["unchecked"] == 1
        repair(database)
        assert verifying()["findings"] == 0
        during = continuous._read(database.admin)
    assert verifying()["unchecked"] == []
    after = continuous._read(database.admin)
    assert [progress.logs["acme"].size for progress in (before, during, after)] == [10, 10, 15]
    assert before.verified_until == during.verified_until != after.verified_until


def test_an_evidence_bucket_that_is_away_hides_no_finding(
    log: Calling, verifying: Calling, database: LogDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(10)
    verifying()
    tamper(database, 3)

    def away(*_: Any) -> None:
        raise AwsUnavailable("listing the logs in the evidence bucket: slow down")

    with monkeypatch.context() as patch:
        patch.setattr(Evidence, "tenants", away)
        summary = verifying()
    repair(database)
    assert summary["findings"] == 1
    assert "what was signed of log acme: listing the logs in the evidence bucket: slow down" in summary["unchecked"]


def test_the_quarantine_is_not_doubted_because_its_log_could_not_be_read(
    *,
    ingesting: Calling,
    archiving: Calling,
    checkpointing: Calling,
    verifying: Calling,
    database: LogDatabase,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = datetime(2020, 1, 5, tzinfo=UTC)
    with monkeypatch.context() as patch:
        patch.setattr(store, "own_event", lambda *args, **fields: replace(own_event(*args, **fields), time=old))
        ingesting(sqs("no event", native(time=old.isoformat())))
    archiving()
    checkpointing()
    (segment,) = segments.archived(database.admin, OWN_TENANT)
    assert verifying()["findings"] == 0
    with denied(bucket, segment.object_key):
        summary = verifying()
    assert summary["findings"] == 0
    assert [reason.partition(":")[0] for reason in summary["unchecked"]] == [segment.object_key, "the quarantine"]

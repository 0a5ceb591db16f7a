"""Erasure: one person's values are nowhere any more, and every proof that was ever issued still verifies."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import psycopg
import pyarrow.parquet
import pytest
from psycopg import sql
from typer.testing import CliRunner

from prooftrail import erasure, holds, segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.cli import app
from prooftrail.erasure import hot
from prooftrail.erasure import rows as erased_rows
from prooftrail.event import OWN_TENANT
from prooftrail.ledger import entry, merkle
from prooftrail.store import COLUMNS, Store, from_row, parsed
from tests.conftest import LogDatabase
from tests.factories import accepted, native, sqs

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]
Asking = Callable[..., tuple[int, Any]]

OLD = "2020-01-15T00:00:00Z"
NEW = "2026-10-01T12:00:00Z"
# Whatever of the person is written anywhere, one of these is in it.
PERSON = "u-4711-erasme"
TRACES = (PERSON, "Erasmus Gone", "10.47.11.99", "Gone/1.0", "session-gone", "role-gone", "told by Erasmus", "secret-gone")


def of_person(**fields: Any) -> dict[str, Any]:
    """An event of the person's, with a value in every place that has one."""
    actor = {
        "type": "user",
        "id": PERSON,
        "name": "Erasmus Gone",
        "ip": "10.47.11.99",
        "user_agent": "Gone/1.0",
        "session_id": "session-gone",
        "roles": ["role-gone", "b"],
    }
    private = {
        "message": "told by Erasmus",
        "before": {"a": ["secret-gone", 1.5]},
        "after": {"Erasmus Gone": None},
        "metadata": {"note": f"{PERSON} was here"},
        "error": {"code": "secret-gone", "message": "told by Erasmus", "stackTrace": "secret-gone"},
        "requestId": "secret-gone",
    }
    return native(**({"actor": actor} | private | fields))


def store(database: LogDatabase, events: list[dict[str, Any]], size: int = 500) -> None:
    with database.connect("ingest") as connection:
        for first in range(0, len(events), size):
            Store(connection).append([accepted(event) for event in events[first : first + size]], [])


def texts(database: LogDatabase) -> Iterator[tuple[str, str]]:
    """Every row of every table, as text, and every run of bytes in it decoded."""
    tables = database.admin.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'prooftrail'::regnamespace AND relkind = 'r' ORDER BY 1"
    ).fetchall()
    for (table,) in tables:
        query = sql.SQL("SELECT t.* FROM {} AS t").format(sql.Identifier("prooftrail", table))
        for row in database.admin.execute(query):
            decoded = [value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in row]
            yield table, "\n".join(decoded)


def assert_nowhere_in_rows(database: LogDatabase) -> None:
    found = {(table, trace) for table, text in texts(database) for trace in TRACES if trace in text}
    assert found == set()


def assert_nowhere_in_objects(bucket: str) -> None:
    """No version of any object has a trace, as bytes or as Parquet."""
    s3 = boto3.client("s3")
    versions = s3.list_object_versions(Bucket=bucket).get("Versions", [])
    for version in versions:
        body = s3.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
        rows = pyarrow.parquet.read_table(pyarrow.BufferReader(body)).to_pylist()
        written = body.decode("latin-1") + str(rows)
        assert not [trace for trace in TRACES if trace in written], version["Key"]
    keys = [version["Key"] for version in versions]
    assert len(keys) == len(set(keys)), "a former version is still there"


def assert_nowhere_in_files(database: LogDatabase) -> None:
    """None of the files of the tables, their indexes and what is stored outside of rows has a trace."""
    database.admin.execute("CHECKPOINT")
    files = database.admin.execute(
        """
        WITH own AS (
            SELECT oid, reltoastrelid FROM pg_class
            WHERE relnamespace = 'prooftrail'::regnamespace AND relkind IN ('r', 'i')
        )
        SELECT relname, pg_relation_filepath(pg_class.oid) FROM pg_class
        WHERE pg_class.oid IN (SELECT oid FROM own UNION SELECT reltoastrelid FROM own)
            AND pg_relation_filepath(pg_class.oid) IS NOT NULL
        """
    ).fetchall()
    found = set()
    for name, path in files:
        content = database.admin.execute("SELECT pg_read_binary_file(%s)", [path]).fetchone()
        assert content is not None
        found |= {(name, trace) for trace in TRACES if trace.encode() in content[0]}
    assert found == set()


def assert_every_leaf_derives(database: LogDatabase, bucket: str) -> None:
    """Every entry, hot or cold, erased or not, is what its log committed to."""
    leaves = {
        (tenant, batch, position): leaf_hashes[position * 32 : position * 32 + 32]
        for tenant, batch, count, leaf_hashes in database.admin.execute(
            "SELECT tenant, id, event_count, leaf_hashes FROM prooftrail.batch"
        )
        for position in range(count)
    }
    names = sql.SQL(", ").join(
        sql.SQL("{}::text" if name in {"before", "after", "metadata"} else "{}").format(sql.Identifier(name))
        for name in (*COLUMNS, "salt", "commitments")
    )
    rows = list(database.admin.execute(sql.SQL("SELECT {} FROM prooftrail.event").format(names)))
    for tenant in {tenant for tenant, _, _ in leaves}:
        for segment in segments.archived(database.admin, tenant):
            body = boto3.client("s3").get_object(Bucket=bucket, Key=segment.object_key)["Body"].read()
            for row in pyarrow.parquet.read_table(pyarrow.BufferReader(body)).to_pylist():
                row["tenant"] = tenant
                rows.append(tuple(row[name] for name in (*COLUMNS, "salt", "commitments")))
    for *columns, salts, kept in rows:
        statement = parsed(from_row(columns)).statement()
        assert entry.leaf(statement, salts, kept) == leaves.pop((columns[0], columns[2], columns[3])), columns[4]
    assert leaves == {}


@pytest.fixture
def locked(bucket: str) -> str:
    """The archive's bucket, which locks what is written as the template's does."""
    lock(bucket, "GOVERNANCE")
    return bucket


def lock(bucket: str, mode: str) -> None:
    boto3.client("s3").put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": mode, "Days": 2192}},  # type: ignore[typeddict-item]
        },
    )


@pytest.fixture
def run(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `prooftrail` as the administrator."""

    def call(*arguments: str) -> Any:
        monkeypatch.setenv("DATABASE_URL", database.url)
        return CliRunner().invoke(app, arguments)

    return call


@pytest.fixture
def erase(run: Callable[..., Any]) -> Callable[..., Any]:
    """Run `prooftrail erase`."""

    def call(*options: str, tenant: str = "acme") -> Any:
        return run("erase", "--tenant", tenant, "--reason", "asked for on 2026-11-01", "--yes", *options)

    return call


def test_one_actor_of_ten_thousand_events_half_of_them_under_object_lock(
    *,
    database: LogDatabase,
    archiving: Archiving,
    asking: Asking,
    requesting: Callable[..., Any],
    checkpointing: Callable[..., dict[str, Any]],
    run: Callable[..., Any],
    erase: Callable[..., Any],
    locked: str,
) -> None:
    events = [
        of_person(id=f"e{number}", time=(OLD if number % 2 else NEW))
        if number % 40 < 2
        else native(id=f"e{number}", time=(OLD if number % 2 else NEW), actor={"id": f"u{number % 97}", "name": "Other"})
        for number in range(10_000)
    ]
    store(database, events)
    assert archiving()["events"] == 5000
    assert asking("/events", actor=PERSON)[0] == 200
    assert asking("/events", actor=PERSON, action="nothing")[1]["events"] == []  # a read that found nobody's events
    checkpointing()
    proofs = {id: requesting(f"/events/{id}/proof")["body"] for id in ("e0", "e1", "e2")}
    notes = database.admin.execute(
        "SELECT tenant, first_index, leaf_hashes, root FROM prooftrail.batch ORDER BY id"
    ).fetchall()
    assert any(trace in text for trace in TRACES for _, text in texts(database))

    result = erase("--actor", PERSON)

    assert result.exit_code == 0, result.output
    assert "is done: 502 events" in result.output  # and two reads
    assert_nowhere_in_rows(database)
    assert_nowhere_in_objects(locked)
    assert_nowhere_in_files(database)
    assert_every_leaf_derives(database, locked)
    after = database.admin.execute(
        "SELECT tenant, first_index, leaf_hashes, root FROM prooftrail.batch ORDER BY id"
    ).fetchall()
    assert after[: len(notes)] == notes, "what checkpoints and proofs were made of has changed"
    for id, proof in proofs.items():
        assert requesting(f"/events/{id}/proof")["body"] == proof, "the header, and so every proof of it, has changed"
    checkpointing()
    verified = run("verify", "--jobs", "1")
    assert verified.exit_code == 0, verified.output
    assert "502 of them erased in part" in verified.output
    told = str(
        [asking("/events", actor=PERSON), asking("/events/e0"), asking("/events", limit=1000, source="clinic/records")]
    )
    assert not [trace for trace in TRACES[1:] if trace in told]
    assert asking("/events/e0")[1]["target"] == {"type": "Patient", "id": "p-1"}, "the target is another matter"


def test_the_log_says_what_was_erased_and_not_of_whom(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], locked: str
) -> None:
    ingesting(sqs(native(time=OLD), of_person(time=OLD), of_person(time=OLD)))
    ingesting(sqs(native(time=NEW), of_person(time=NEW)))
    archiving()
    assert erase("--actor", PERSON, "--no-rewrite").exit_code == 0
    told = database.admin.execute(
        "SELECT action, metadata FROM prooftrail.event WHERE category = 'privacy' ORDER BY batch_id, position"
    ).fetchall()
    reason = "asked for on 2026-11-01"
    assert told == [
        ("privacy.erase", {"erasure": 1, "entries": [[1, 2], [4, 4]], "parts": ["actor", "private"], "reason": reason}),
        ("privacy.done", {"erasure": 1, "entries": 3, "quarantined": 0}),
    ]


def test_many_entries_are_told_in_several_events(
    database: LogDatabase, ingesting: Ingesting, erase: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "_RANGES", 2)
    ingesting(sqs(*(of_person() if number % 2 else native() for number in range(10))))
    assert "is done: 5 events" in erase("--actor", PERSON, "--no-rewrite").output
    told = database.admin.execute(
        "SELECT metadata -> 'entries' FROM prooftrail.event WHERE action = 'privacy.erase' ORDER BY batch_id, position"
    ).fetchall()
    assert told == [([[1, 1], [3, 3]],), ([[5, 5], [7, 7]],), ([[9, 9]],)]


def test_a_target_is_erased_and_then_the_actor_of_the_same_events(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], locked: str
) -> None:
    patient = {"type": "Patient", "id": "p-4711", "name": "Erasmus Gone"}
    ingesting(sqs(of_person(time=OLD, target=patient), native(time=OLD)))
    ingesting(sqs(of_person(time=NEW, target=patient), native(time=NEW)))
    archiving()
    for option, id in (("--target", "p-4711"), ("--actor", PERSON)):
        result = erase(option, id)
        assert "is done: 2 events" in result.output
        assert_every_leaf_derives(database, locked)
        if option == "--target":
            ids = database.admin.execute("SELECT actor_id, target_id, salt FROM prooftrail.event WHERE actor_name IS NULL")
            assert [row[:2] for row in ids if row[0] == PERSON] == [(PERSON, None)]
    assert_nowhere_in_rows(database)
    assert_nowhere_in_objects(locked)


def test_a_redelivery_does_not_bring_an_erased_event_back(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], locked: str
) -> None:
    sent = sqs(of_person(id="hot", time=NEW), of_person(id="cold", time=OLD))
    ingesting(sent)
    archiving()
    erase("--actor", PERSON)
    other = sqs(of_person(id="hot", time=NEW, message="Erasmus Gone, otherwise"))
    assert ingesting(sent) == ingesting(other) == []
    assert database.count("event") == 1
    assert database.count("quarantine") == 0
    assert_nowhere_in_rows(database)


def test_quarantined_records_that_name_tenant_and_person_are_cleared(
    database: LogDatabase, ingesting: Ingesting, erase: Callable[..., Any]
) -> None:
    odd = 'é"\\😀'
    ingesting(
        sqs(
            native(tenant="acme", actor={"id": odd}, outcome="odd"),
            native(tenant="globex", actor={"id": odd}, outcome="odd"),
        )
    )
    ingesting(sqs('{"tenant": "acme", "actor": {"id": "\\u00E9\\"\\\\\\uD83D\\uDE00"}, "broken": }', '{"tenant": "acme"}'))
    assert database.count("quarantine") == 4
    assert "2 quarantined records" in erase("--actor", odd).output
    rows = database.admin.execute("SELECT detail, convert_from(raw, 'UTF8') FROM prooftrail.quarantine").fetchall()
    assert sorted(raw for detail, raw in rows if detail == "cleared by erasure 1") == ["", ""]
    assert sorted("globex" in raw for detail, raw in rows if detail != "cleared by erasure 1") == [False, True]


@pytest.mark.parametrize("about", [{"actor": PERSON}, {"target": "p-1"}, {}])
def test_a_hold_refuses_it_with_the_reason(
    *,
    database: LogDatabase,
    ingesting: Ingesting,
    archiving: Archiving,
    run: Callable[..., Any],
    erase: Callable[..., Any],
    locked: str,
    about: dict[str, str],
) -> None:
    ingesting(sqs(of_person(time=OLD)))
    archiving()
    before = list(texts(database))
    options = [word for name, value in about.items() for word in (f"--{name}", value)]
    assert run("hold", "place", "--tenant", "acme", "--reason", "lawsuit 12", *options).exit_code == 0
    result = erase("--actor", PERSON)
    assert result.exit_code == 2
    assert "hold 1 of " in result.output
    assert "forbids it until it is released: lawsuit 12" in result.output
    assert [row for row in texts(database) if row[0] == "event_2020_01"] == [
        row for row in before if row[0] == "event_2020_01"
    ]
    said = database.admin.execute(
        "SELECT metadata ->> 'refusal' FROM prooftrail.event WHERE action = 'privacy.refuse'"
    ).fetchone()
    assert said is not None
    assert "lawsuit 12" in said[0]
    run("hold", "release", "1")
    assert erase("--actor", PERSON).exit_code == 0
    assert_nowhere_in_rows(database)


def test_a_hold_on_others_does_not_refuse_it(
    database: LogDatabase, ingesting: Ingesting, erase: Callable[..., Any]
) -> None:
    ingesting(sqs(of_person()))
    holds.place(database.admin, "globex", "theirs")
    holds.place(database.admin, "acme", "of somebody else", actor_id="u-2")
    holds.place(database.admin, "acme", "of both", actor_id=PERSON, target_id="p-2")
    assert erase("--actor", PERSON).exit_code == 0


@pytest.mark.parametrize(("days", "code"), [(10, 2), (100, 0)])
def test_a_duty_to_keep_events_ends(
    database: LogDatabase, run: Callable[..., Any], erase: Callable[..., Any], days: int, code: int
) -> None:
    time = datetime.now(UTC) - timedelta(days=days)
    store(database, [of_person(time=time.isoformat())])
    run("hold", "place", "--tenant", "acme", "--keep-months", "2", "--reason", "law 1")
    result = erase("--actor", PERSON)
    assert result.exit_code == code, result.output
    if code:
        assert re.search(r"a duty to keep events for 2 months, forbids it until \d{4}-\d\d-\d\d", result.output)


def test_holds_are_events_and_name_nobody(database: LogDatabase) -> None:
    holds.place(database.admin, "acme", "lawsuit", actor_id=PERSON, keep_months=6)
    holds.release(database.admin, 1)
    told = database.admin.execute("SELECT tenant, action, metadata FROM prooftrail.event ORDER BY batch_id").fetchall()
    metadata = {"hold": 1, "of": ["actor"], "keep_months": 6, "reason": "lawsuit"}
    assert told == [("acme", "hold.place", metadata), ("acme", "hold.release", metadata)]
    with pytest.raises(holds.UnknownHold):
        holds.release(database.admin, 1)


def test_a_hold_comes_before_or_after_an_erasure_never_between(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(of_person()))
    id = erasure.order(database.admin, "acme", "actor", PERSON, "asked for")
    with database.connect("archive") as eraser, psycopg.connect(database.url) as holder:
        with eraser.transaction():
            assert eraser.execute("SELECT prooftrail.begin_erasure(%s)", [id]).fetchall() == []
            holder.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                holds.place(holder, "acme", "late", actor_id=PERSON)
            holder.rollback()
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has begun at"):
            holds.place(holder, "acme", "too late", actor_id=PERSON)


def test_a_compliance_lock_refuses_it_before_anything_is_changed(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], bucket: str
) -> None:
    lock(bucket, "COMPLIANCE")
    ingesting(sqs(of_person(id="cold", time=OLD), of_person(id="hot", time=NEW)))
    before = datetime.now(UTC)
    archiving()
    ends = {f"{moment + timedelta(days=2192):%Y-%m-%d}" for moment in (before, datetime.now(UTC))}
    result = erase("--actor", PERSON)
    assert result.exit_code == 2
    assert any(f"(COMPLIANCE) keeps it until {end}" in result.output for end in ends)
    row = database.admin.execute("SELECT actor_id FROM prooftrail.event WHERE id = 'hot'").fetchone()
    assert row == (PERSON,)
    assert_every_leaf_derives(database, bucket)


def test_the_new_version_is_locked_as_long_as_the_first(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], locked: str
) -> None:
    ingesting(sqs(of_person(time=OLD)))
    archiving()
    (before,) = segments.archived(database.admin, "acme")
    first = ArchiveBucket(locked).find(before.object_key)
    assert erase("--actor", PERSON).exit_code == 0
    (after,) = segments.archived(database.admin, "acme")
    (second,) = ArchiveBucket(locked).versions(after.object_key)
    assert first is not None
    assert second.id == after.object_version != before.object_version
    assert (second.lock_mode, second.locked_until) == (first.lock_mode, first.locked_until)


@pytest.mark.parametrize("state", ["planned", "written", "verified"])
def test_what_was_on_its_way_to_the_archive_is_erased_there_too(
    *,
    database: LogDatabase,
    ingesting: Ingesting,
    archiving: Archiving,
    erase: Callable[..., Any],
    locked: str,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    """A run of the archive was killed after it had planned, written or verified a segment."""
    import archive

    ingesting(sqs(of_person(time=OLD), native(time=OLD)))
    ingesting(sqs(native(time=OLD, tenant="globex")))
    stop = {
        "planned": (archive, "archive_segment"),
        "written": (segments, "mark_verified"),
        "verified": (segments, "drop_archived"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(*stop[state], lambda *_: 1 / 0)
        with pytest.raises(Exception, match="division"):
            archiving()
    assert erase("--actor", PERSON).exit_code == 0
    assert archiving()["archived"] == ["2020-01"]
    assert_nowhere_in_rows(database)
    assert_nowhere_in_objects(locked)
    assert_every_leaf_derives(database, locked)
    states = database.admin.execute("SELECT tenant, state FROM prooftrail.archive_segment ORDER BY id").fetchall()
    assert states == [("acme", "abandoned"), ("globex", "archived"), ("acme", "archived")]


def test_it_waits_for_a_run_of_the_archive_that_is_at_these_events(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], locked: str
) -> None:
    ingesting(sqs(of_person(time=OLD)))
    with database.connect("archive") as other, other.transaction():
        (segment,) = segments.plan(database.admin, datetime(2020, 1, 1, tzinfo=UTC).date(), 10, 10**6)
        assert segments.claim(other, segment)
        result = erase("--actor", PERSON)
    assert result.exit_code == 1
    assert "a run of the archive is at segment 1: come again" in result.output
    assert erase("--actor", PERSON).exit_code == 0
    assert_nowhere_in_rows(database)


def test_an_entry_that_was_tampered_with_is_not_erased(
    database: LogDatabase, ingesting: Ingesting, erase: Callable[..., Any]
) -> None:
    ingesting(sqs(of_person(id="changed")))
    with database.admin.transaction():
        database.admin.execute("SET LOCAL session_replication_role = replica")
        database.admin.execute("UPDATE prooftrail.event SET message = 'other' WHERE id = 'changed'")
    result = erase("--actor", PERSON)
    assert result.exit_code == 1
    assert "expected what the log committed to" in result.output
    with database.admin.transaction():
        database.admin.execute("SET LOCAL session_replication_role = replica")
        database.admin.execute("UPDATE prooftrail.event SET message = 'told by Erasmus' WHERE id = 'changed'")


def test_nobody_erases_by_hand(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(of_person()))
    with database.connect("archive") as connection, connection.transaction():
        connection.execute("SELECT set_config('prooftrail.erasing', pg_current_xact_id()::text, true)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE prooftrail.event SET message = NULL")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.admin.execute("UPDATE prooftrail.event SET message = NULL")
    id = erasure.order(database.admin, "acme", "actor", PERSON, "asked for")
    with database.connect("archive") as connection, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        connection.execute("SELECT prooftrail.erase_entries(%s, '2026-10-01', 'acme', '{1}', '{0}', %b)", [id, [bytes(96)]])


def test_an_approved_erasure_erases_nobody_else(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native(), of_person(tenant="globex")))
    id = erasure.order(database.admin, "acme", "actor", PERSON, "asked for")
    batches: dict[str, int] = dict(database.admin.execute("SELECT tenant, id FROM prooftrail.batch").fetchall())
    for tenant, message in (("acme", "1 of 1 entries are not of the person"), ("globex", "is not of tenant globex")):
        with database.connect("archive") as connection, connection.transaction(force_rollback=True):
            connection.execute("SELECT prooftrail.begin_erasure(%s)", [id])
            chosen = [id, tenant, [batches[tenant]], [bytes(96)]]
            with pytest.raises(psycopg.Error, match=message):
                connection.execute("SELECT prooftrail.erase_entries(%s, '2026-10-01', %s, %s, '{0}', %b)", chosen)


def test_asked_for_twice_it_is_done_once_and_then_again_for_what_came_since(
    database: LogDatabase, ingesting: Ingesting, erase: Callable[..., Any]
) -> None:
    ingesting(sqs(of_person()))
    assert "erasure 1 is done: 1 events" in erase("--actor", PERSON).output
    assert "is done: 0 events" in erase("--actor", PERSON).output
    ingesting(sqs(of_person()))
    assert "is done: 1 events" in erase("--actor", PERSON).output
    assert_nowhere_in_rows(database)


@pytest.mark.parametrize("moment", ["find", "fetch"])
def test_an_object_that_another_erasure_replaces_meanwhile_is_looked_at_anew(
    *,
    database: LogDatabase,
    ingesting: Ingesting,
    archiving: Archiving,
    monkeypatch: pytest.MonkeyPatch,
    locked: str,
    moment: str,
) -> None:
    """The object that the manifest named is gone when it is read: no mismatch, for the manifest names another by now."""
    ingesting(sqs(of_person(time=OLD), native(time=OLD, actor={"id": "another"})))
    archiving()
    bucket, call = ArchiveBucket(locked), getattr(ArchiveBucket, moment)
    one, other = (erasure.order(database.admin, "acme", "actor", person, "asked for") for person in (PERSON, "another"))

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.undo()
        assert erasure.execute(database.admin, bucket, other).state == "done"
        return call(*arguments)

    monkeypatch.setattr(ArchiveBucket, moment, meanwhile)
    with database.connect("archive") as connection:
        assert erasure.execute(connection, bucket, one).state == "done"
    assert_nowhere_in_objects(locked)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["who reads here", "who writes in another database"])
def test_the_pages_are_rewritten_once_nobody_keeps_the_old_rows(
    database: LogDatabase,
    server_url: str,
    ingesting: Ingesting,
    run: Callable[..., Any],
    erase: Callable[..., Any],
    *,
    elsewhere: bool,
) -> None:
    ingesting(sqs(of_person()))
    with psycopg.connect(server_url if elsewhere else database.url) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT pg_current_xact_id()" if elsewhere else "SELECT count(*) FROM prooftrail.event")
        assert erase("--actor", PERSON, "--no-rewrite").exit_code == 0
        with pytest.raises(erasure.Busy):
            erasure.scrub(database.admin, patience=0)
    assert run("scrub").output.startswith("rewrote the pages of 2026-10")
    assert_nowhere_in_files(database)
    assert run("scrub").output.startswith("rewrote the pages of no month")


def test_reads_that_found_nobodys_events_are_erased_from_the_log_of_none(
    database: LogDatabase, asking: Asking, erase: Callable[..., Any]
) -> None:
    assert asking("/events", actor=PERSON, tenant="acme")[1]["events"] == []
    assert asking("/events", actor=PERSON, tenant="globex")[1]["events"] == []
    assert asking("/events", actor="u-1", tenant="acme")[1]["events"] == []
    assert erase("--actor", PERSON).exit_code == 0
    reads = database.admin.execute(
        "SELECT metadata -> 'query' FROM prooftrail.event WHERE tenant = %s AND action = 'events.read' ORDER BY batch_id",
        [OWN_TENANT],
    ).fetchall()
    assert reads == [(None,), ({"actor": PERSON, "tenant": "globex"},), ({"actor": "u-1", "tenant": "acme"},)]


def test_a_question_to_all_tenants_is_in_the_log_of_none_alone_where_an_erasure_finds_it(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, erase: Callable[..., Any]
) -> None:
    ingesting(sqs(*(native(tenant=tenant, actor={"id": PERSON}) for tenant in ("acme", "globex"))))
    assert len(asking("/events", actor=PERSON)[1]["events"]) == 2
    assert erase("--actor", PERSON).exit_code == 0
    reads = database.admin.execute(
        "SELECT tenant, id, metadata FROM prooftrail.event WHERE action = 'events.read' ORDER BY tenant"
    ).fetchall()
    (none, question, erased), *others = reads
    assert (none, erased) == (OWN_TENANT, None)
    referring = {"path": "/events", "question": question, "returned": 2}
    assert [(tenant, said) for tenant, _, said in others] == [("acme", referring), ("globex", referring)]


def test_an_owner_who_is_no_superuser_erases_too(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving, erase: Callable[..., Any], locked: str
) -> None:
    """As on RDS, where row-level security holds for the owner as well."""
    owner = sql.Identifier(f"owner_{uuid.uuid4().hex[:12]}")
    ingesting(sqs(of_person(time=OLD), of_person(time=NEW)))
    archiving()
    database.admin.execute(sql.SQL("CREATE ROLE {} NOSUPERUSER").format(owner))
    database.admin.execute(sql.SQL("GRANT prooftrail_ingest TO {}").format(owner))
    database.admin.execute(
        sql.SQL(
            """
            DO $$
            DECLARE item record;
            BEGIN
                EXECUTE 'GRANT ALL ON SCHEMA prooftrail TO {0}';
                FOR item IN SELECT oid::regclass AS name FROM pg_class WHERE relnamespace = 'prooftrail'::regnamespace
                    AND relkind IN ('r', 'p') LOOP
                    EXECUTE format('ALTER TABLE %s OWNER TO {0}', item.name);
                END LOOP;
                FOR item IN SELECT oid::regprocedure AS name FROM pg_proc
                    WHERE pronamespace = 'prooftrail'::regnamespace LOOP
                    EXECUTE format('ALTER FUNCTION %s OWNER TO {0}', item.name);
                END LOOP;
            END
            $$
            """
        ).format(owner)
    )
    id = erasure.order(database.admin, "acme", "actor", PERSON, "asked for")
    with database.connect("archive") as connection:
        done = erasure.execute(connection, ArchiveBucket(os.environ["PROOFTRAIL_ARCHIVE_BUCKET"]), id)
    assert (done.state, done.entries) == ("done", 2)
    assert_nowhere_in_rows(database)
    assert_nowhere_in_objects(locked)
    database.admin.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(owner))
    database.admin.execute(sql.SQL("DROP OWNED BY {}").format(owner))
    database.admin.execute(sql.SQL("DROP ROLE {}").format(owner))


def test_merkle_proofs_are_made_of_what_erasure_does_not_touch() -> None:
    """The leaf of an entry is derived from what stays of it, whichever parts are gone and in whatever order."""
    statement = entry.Statement(b'{"id":"x"}', b'"a"', b'"t"', b"{}")
    salts = os.urandom(entry.SALTS)
    leaf = entry.leaf(statement, salts)
    kept = entry.pack(entry.commitments(statement, salts))
    for part, left in (("actor", statement._replace(actor=None)), ("target", statement._replace(target=None))):
        remaining = erased_rows.salts_left(salts, part)  # type: ignore[arg-type]
        gone = left._replace(private=b"")
        assert entry.leaf(gone, remaining, kept) == leaf
        assert entry.pack(entry.commitments(gone, remaining, kept)) == kept
    assert merkle.leaf_hash(entry.header(b"{}", (None, None, bytes(32)))) != leaf

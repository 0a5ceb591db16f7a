"""Verification: whatever anybody with all rights in the database does to a log is found, and nothing else is."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from prooftrail import erasure, segments, verification
from prooftrail.database import Connection
from prooftrail.evidence import Evidence
from prooftrail.formats import RawRecord, Rejected
from prooftrail.ledger import entry
from prooftrail.store import Store
from prooftrail.verification import Authority, Finding, LogKeys, Question, Report, rows, scan
from prooftrail.verification.rows import Row
from tests.conftest import LogDatabase, _create_database
from tests.factories import accepted, native
from tests.publishing import ORIGIN, Publishing
from tests.tampering import JSON, REQUIRED, STORED, Place, Tamperer, deeply_changed, flip_bit, flipped, recompute, rich

ROWS = int(os.environ.get("PROOFTRAIL_TEST_ROWS", "8"))  # each of whose columns is changed in every way, one at a time


def fill(database: LogDatabase, chance: random.Random, batches: int = 6, size: int = 10, first: int = 0) -> None:
    """Logs of two tenants and our own: some batches over two months, and a record in quarantine."""
    with database.connect("ingest") as connection:
        store = Store(connection)
        for batch in range(first, first + batches):
            events = [rich(batch * size + number, chance, tenant="acme") for number in range(size)]
            others = [rich(batch * size + number, chance, tenant="globex") for number in range(3)]
            store.append([accepted(event) for event in [*events, *others]], [])
        store.append([], [Rejected(RawRecord(f"sqs:events:{first}", b"{broken"), "invalid-json", "no JSON")])


@pytest.fixture
def victim(server_url: str, template_database: str) -> Iterator[LogDatabase]:
    """A database whose log need not be sound at the end."""
    with psycopg.connect(server_url, autocommit=True) as server:
        name = _create_database(server, template_database)
        database = LogDatabase(make_conninfo(server_url, dbname=name))
        try:
            yield database
        finally:
            database.admin.close()
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def authority(victim: LogDatabase, evidence: Evidence) -> Authority:
    """The evidence bucket, with a checkpoint of each log somewhere in the middle, and one of all there is."""
    publishing = Publishing(victim.admin, evidence)
    chance = random.Random(7)
    fill(victim, chance)
    for tenant in ("acme", "globex", "_prooftrail"):
        publishing(tenant)
    fill(victim, chance, first=100)
    for tenant in ("acme", "globex", "_prooftrail"):
        publishing(tenant)
    return Authority(evidence, LogKeys(ORIGIN, (publishing.signer("acme").key.public_key,)))


def found(report: Report) -> list[str]:
    return [str(finding) for finding in report.findings]


def test_what_is_stored_as_it_came_is_clean(database: LogDatabase) -> None:
    fill(database, random.Random(1))
    report = verification.verify(database.admin)
    assert (found(report), report.unchecked) == ([], [])
    assert (report.entries, report.logs) == (6 * 13 + 1, 3)
    assert verification.verify(database.admin, Question(tenant="acme")).entries == 60
    part = verification.verify(database.admin, Question(tenant="acme", first=5, end=25))
    assert (found(part), part.entries) == ([], 30)  # whole batches


def test_an_empty_database_is_clean(database: LogDatabase) -> None:
    report = verification.verify(database.admin)
    assert (report.entries, report.findings) == (0, [])


@pytest.mark.parametrize("part", range(4))
def test_every_change_of_a_column_is_found_and_names_row_and_column(database: LogDatabase, part: int) -> None:
    chance = random.Random(part)
    fill(database, chance)
    tamperer = Tamperer(database.admin)
    places = tamperer.places("acme")
    unnamed = []
    for place in chance.sample(places, ROWS // 4):
        for column in STORED:
            for what, value in changes(tamperer, place, column, chance.choice(places), chance):
                with tamperer.changed(place, column, value):
                    report = verification.verify(database.admin, Question(tenant="acme"))
                named = [finding for finding in report.findings if names(finding, tamperer, place)]
                assert named, f"{what} of {column} at {place}: {found(report)}"
                if not any(column in (finding.column, *finding.columns) or finding.kind == "moved" for finding in named):
                    unnamed.append((what, column, found(report)))
                if what == "flip" and column not in ("batch_id", "position", "commitments"):
                    assert [finding.column for finding in named] == [column], found(report)
    assert not unnamed
    assert found(verification.verify(database.admin)) == []


def changes(
    tamperer: Tamperer, place: Place, column: str, other: Place, chance: random.Random
) -> Iterator[tuple[str, Any]]:
    """Ways to change a column: one bit, NULL, another row's value, one value deep in JSON."""
    value, neighbour = tamperer.value(place, column), tamperer.value(other, column)
    if column in JSON and value is not None:
        yield "deep", deeply_changed(value, chance)
    elif value is not None:
        yield "flip", flipped(value, chance)
    if value is not None and column not in REQUIRED:
        yield "null", None
    if neighbour != value and neighbour is not None:
        yield "neighbour", neighbour


def names(finding: Finding, tamperer: Tamperer, place: Place) -> bool:
    """Whether a finding is about that entry: by its place, or by the event's id."""
    return (finding.batch, finding.position) == place or finding.id == tamperer.value(place, "id")


def copied(place: str, changes: str) -> str:
    """SQL that puts a changed copy of a row beside it."""
    return (
        f"CREATE TEMP TABLE copied AS SELECT * FROM prooftrail.event WHERE (batch_id, position) = {place}; "
        f"UPDATE copied SET {changes}; INSERT INTO prooftrail.event TABLE copied"
    )


# What is done (acme's batches are 1, 3, 5, 7, 9, 11 and 14, 16, ...; globex's those between), and what a finding must say.
STRUCTURAL = {
    "a row is deleted": (
        "DELETE FROM prooftrail.event WHERE (batch_id, position) = (1, 3)",
        "missing: log acme, entry 3, event 'event-3' of 'clinic/records', batch 1 position 3",
    ),
    "a batch's rows are deleted": ("DELETE FROM prooftrail.event WHERE batch_id = 5", "missing: log acme, entry 29"),
    "a row is inserted beyond its batch": (
        copied("(1, 3)", "id = 'forged', position = 99"),
        "inserted: log acme, entry 99, event 'forged' of 'clinic/records', batch 1 position 99",
    ),
    "a row is inserted in the place of another": (
        copied("(1, 3)", "id = 'forged', message = 'other'"),
        "inserted: log acme, entry 3, event 'forged'",
    ),
    "a row is inserted with a batch that is not there": (
        copied("(1, 3)", "id = 'forged', batch_id = 999"),
        "inserted: log acme, event 'forged' of 'clinic/records', batch 999 position 3",
    ),
    "a row is doubled": (copied("(1, 3)", "id = id"), "doubled: log acme, entry 3, event 'event-3'"),
    "two rows of a batch are swapped": (
        "UPDATE prooftrail.event SET position = 7 - position WHERE batch_id = 1 AND position IN (3, 4)",
        "moved: log acme, entry 4, event 'event-3' of 'clinic/records', batch 1 position 4, in event_2026",
    ),
    "two rows of different batches are swapped": (
        "UPDATE prooftrail.event SET batch_id = 4 - batch_id WHERE batch_id IN (1, 3) AND position = 3",
        "moved: log acme, entry 13, event 'event-3'",
    ),
    "a row says it is another tenant's": (
        "UPDATE prooftrail.event SET tenant = 'globex' WHERE (batch_id, position) = (1, 3)",
        "tenant: expected 'acme', found 'globex'",
    ),
    "a row is moved into another tenant's log": (
        "UPDATE prooftrail.event SET tenant = 'globex', batch_id = 2, position = 9 WHERE (batch_id, position) = (1, 3)",
        "tenant: expected 'acme', found 'globex'; it is entry 3 of log acme",
    ),
    "a row is moved to another month": (
        (
            "UPDATE prooftrail.event "
            "SET time = time + interval '30' day * CASE WHEN time < '2026-10-01' THEN 1 ELSE -1 END "
            "WHERE (batch_id, position) = (1, 3)"
        ),
        "event 'event-3' of 'clinic/records', batch 1 position 3, in event_2026",
    ),
    "a leaf hash is changed": (
        flip_bit("batch", "leaf_hashes", "id = 1"),
        "batch: log acme, entry 5, batch 1 position 5, in batch: leaf_hashes: expected",
    ),
    "a batch's root is changed": (
        flip_bit("batch", "root", "id = 3"),
        "batch: log acme, entry 10, batch 3, in batch: root: expected",
    ),
    "the last batch's root is changed": (flip_bit("batch", "root", "id = 24"), "batch 24, in batch: root: expected"),
    "a batch's first index is changed": (
        "UPDATE prooftrail.batch SET first_index = 11 WHERE id = 3",
        "batch: log acme, entry 11, batch 3, in batch: first_index: expected '10', found '11'",
    ),
    "a batch's number of events is changed": (
        (
            "ALTER TABLE prooftrail.batch DROP CONSTRAINT batch_has_a_hash_per_event; "
            "UPDATE prooftrail.batch SET event_count = 9 WHERE id = 3"
        ),
        "batch 3",
    ),
    "a batch's tenant is changed": (
        "UPDATE prooftrail.batch SET tenant = 'globex' WHERE id = 3",
        "batch: log acme, entry 20, batch 5, in batch: first_index: expected '10', found '20'; entries are missing",
    ),
    "a batch's least time is changed": (
        "UPDATE prooftrail.batch SET min_time = min_time - interval '1 second' WHERE id = 3",
        "batch 3, in batch: min_time: expected",
    ),
    "a batch's greatest time is changed": (
        "UPDATE prooftrail.batch SET max_time = max_time + interval '1 second' WHERE id = 3",
        "batch 3, in batch: max_time: expected",
    ),
    "a batch's id is changed": (
        "UPDATE prooftrail.batch SET id = 900 WHERE id = 3",
        "it is entry 13 of log acme, batch 900 position 3",
    ),
    "a batch is deleted": (
        "DELETE FROM prooftrail.batch WHERE id = 3",
        "in batch: first_index: expected '10', found '20'; entries are missing",
    ),
    "the head's size is changed": (
        "UPDATE prooftrail.log SET size = size + 1 WHERE tenant = 'acme'",
        "log: log acme, in log: expected 'size 120",
    ),
    "the head's frontier is changed": (
        flip_bit("log", "frontier", "tenant = 'acme'"),
        "log: log acme, in log: expected 'size 120",
    ),
    "the head is deleted": ("DELETE FROM prooftrail.log WHERE tenant = 'acme'", "log: log acme, in log: expected"),
    "a remembered checkpoint's root is changed": (
        flip_bit("checkpoint", "root", "tenant = 'acme' AND size = 60"),
        "checkpoint: log acme, in checkpoint: expected '60 ",
    ),
    "a remembered checkpoint's size is changed": (
        "UPDATE prooftrail.checkpoint SET size = 61 WHERE tenant = 'acme' AND size = 60",
        "checkpoint: log acme, in checkpoint: expected '60 ",
    ),
    "a remembered checkpoint's note is changed": (
        "UPDATE prooftrail.checkpoint SET note = replace(note, E'\n60\n', E'\n59\n') WHERE tenant = 'acme' AND size = 60",
        "checkpoint: log acme, in checkpoint: size 60:",
    ),
    "a remembered checkpoint's signature is changed": (
        (
            "UPDATE prooftrail.checkpoint SET note = overlay(note placing "
            "CASE substr(note, length(note) - 20, 1) WHEN 'A' THEN 'B' ELSE 'A' END "
            "from length(note) - 20 for 1) WHERE tenant = 'acme' AND size = 120"
        ),
        "checkpoint: log acme, in checkpoint: size 120:",
    ),
    "a key's digest is changed": (
        flip_bit("event_key", "digest", "id = 'event-3' AND tenant = 'acme'"),
        "key: log acme, entry 3, event 'event-3'",
    ),
    "a key's time is changed": (
        "UPDATE prooftrail.event_key SET time = time + interval '1 microsecond' WHERE id = 'event-3' AND tenant = 'acme'",
        "event 'event-3' of 'clinic/records', batch 1 position 3, in event_2026",
    ),
    "a key is deleted": (
        "DELETE FROM prooftrail.event_key WHERE id = 'event-3' AND tenant = 'acme'",
        "it has no key, so it could be stored again",
    ),
    "a key is inserted": (
        (
            "INSERT INTO prooftrail.event_key "
            "SELECT tenant, 'ghost', source, time, digest FROM prooftrail.event_key WHERE id = 'event-3'"
        ),
        "key: log acme, event 'ghost' of 'clinic/records', in event_key: there is no such event",
    ),
    "a quarantined record is changed": (
        "UPDATE prooftrail.quarantine SET raw = 'x' WHERE origin = 'sqs:events:0'",
        "quarantine: log _prooftrail, event 'sqs:events:0' of 'quarantine', in quarantine: sha256 of raw: expected",
    ),
    "a quarantined record is deleted": (
        "DELETE FROM prooftrail.quarantine WHERE origin = 'sqs:events:0'",
        "event 'sqs:events:0' of 'quarantine', in quarantine: it is gone from the quarantine",
    ),
    "a quarantined record is inserted": (
        "INSERT INTO prooftrail.quarantine (origin, reason, detail, raw) VALUES ('forged', 'invalid-json', '', 'x')",
        "event 'forged' of 'quarantine', in quarantine: expected NULL, found",
    ),
    "values are removed as if they had been erased": (
        (
            "UPDATE prooftrail.event SET message = NULL, before = NULL, after = NULL, metadata = NULL, actor_name = NULL, "
            "actor_ip = NULL, "
            "actor_roles = NULL, actor_session_id = NULL, actor_user_agent = NULL, target_name = NULL, error_code = NULL, "
            "error_message = NULL, error_stack_trace = NULL, duration_ms = NULL, request_id = NULL, trace_id = NULL, "
            "salt = substr(salt, 1, 32) || decode(repeat('00', 16), 'hex'), "
            "commitments = decode('{commitments}', 'hex') WHERE (batch_id, position) = (1, 3)"
        ),
        "erased: log acme, entry 3, in event_2026",
    ),
}


@pytest.mark.parametrize("what", STRUCTURAL)
def test_a_change_of_the_structure_is_found_and_named(victim: LogDatabase, authority: Authority, what: str) -> None:
    statement, expected = STRUCTURAL[what]
    assert found(verification.verify(victim.admin, authority=authority)) == []
    victim.admin.execute("SET session_replication_role = replica")
    victim.admin.execute(statement.replace("{commitments}", commitments(victim, (1, 3))).encode())
    findings = found(verification.verify(victim.admin, authority=authority))
    assert any(expected in finding for finding in findings), "\n".join(findings)


def commitments(database: LogDatabase, place: tuple[int, int]) -> str:
    """The commitments of an entry, as an erasure would keep them, in hex."""
    with database.admin.transaction():
        (suspect,) = scan.rows_at(database.admin, segments.months(database.admin), [place])
    said = rows.statement(suspect.row)
    return entry.pack(entry.commitments(said, suspect.row[rows.SALT])).hex()


NARROWER = {
    "earliest time later": "min_time = max_time + interval '1 year'",
    "latest time earlier": "max_time = min_time - interval '1 year'",
    "both beyond all events": "min_time = '2040-01-01', max_time = '2040-01-02'",
    "infinite": "min_time = 'infinity', max_time = 'infinity'",
}


@pytest.mark.parametrize("what", NARROWER)
def test_changed_times_of_batches_hide_no_change_of_a_row(victim: LogDatabase, what: str) -> None:
    """They say among which keys a quick scan looks; then all keys must be looked at, for none is gone."""
    fill(victim, random.Random(7))
    with victim.connect("ingest") as connection:
        Store(connection).append([accepted(native(tenant="globex", actor={"id": "someone"}))], [])
    erasure.execute(victim.admin, None, erasure.order(victim.admin, "globex", "actor", "someone", "asked for"))
    assert found(verification.verify(victim.admin)) == []
    tamperer = Tamperer(victim.admin)
    place = tamperer.places("acme")[0]
    victim.admin.execute(sql.SQL("UPDATE prooftrail.batch SET {}").format(sql.SQL(NARROWER[what])))
    victim.admin.execute("UPDATE prooftrail.event SET message = 'forged' WHERE (batch_id, position) = (%s, %s)", place)
    report = verification.verify(victim.admin)
    assert {finding.kind for finding in report.findings} == {"batch", "changed"}
    (forged,) = [finding for finding in report.findings if finding.kind == "changed"]
    assert (forged.batch, forged.position) == place


def test_an_error_in_the_middle_of_a_scan_comes_out(victim: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are streamed, and the transaction that reads them must end all the same."""
    fill(victim, random.Random(7))
    seen = itertools.count()

    def interrupted(row: Row) -> tuple[bytes, bytes] | None:
        if next(seen) == 5:
            raise KeyboardInterrupt
        return None

    monkeypatch.setattr(rows, "quick", interrupted)
    ended: list[BaseException] = []

    def verify() -> None:
        try:
            verification.verify(victim.admin)
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=verify, daemon=True)
    thread.start()
    thread.join(30)
    assert ended


def test_a_cut_tail_is_found_by_what_was_signed(victim: LogDatabase, authority: Authority) -> None:
    cut_tail(victim.admin, "acme", 60)
    assert found(verification.verify(victim.admin)) == []  # the database alone cannot tell
    report = verification.verify(victim.admin, authority=authority)
    assert [(finding.kind, finding.tenant, finding.expected, finding.found) for finding in report.findings] == [
        ("checkpoint", "acme", "120", "60")
    ]
    assert "60 entries that were signed are gone" in str(report.findings[0])


def cut_tail(admin: Connection, tenant: str, size: int) -> None:
    """Remove all traces in the database of what came after a size."""
    admin.execute("SET session_replication_role = replica")
    cut = {"tenant": tenant, "size": size}
    batches = "SELECT id FROM prooftrail.batch WHERE tenant = %(tenant)s AND first_index >= %(size)s"
    admin.execute(
        f"DELETE FROM prooftrail.event_key AS key USING prooftrail.event WHERE batch_id IN ({batches}) "
        "AND (key.tenant, key.id, key.source) = (event.tenant, event.id, event.source)".encode(),
        cut,
    )
    admin.execute(f"DELETE FROM prooftrail.event WHERE batch_id IN ({batches})".encode(), cut)
    admin.execute("DELETE FROM prooftrail.batch WHERE tenant = %(tenant)s AND first_index >= %(size)s", cut)
    admin.execute("DELETE FROM prooftrail.checkpoint WHERE tenant = %(tenant)s AND size > %(size)s", cut)
    recompute(admin, tenant)


def test_a_log_that_is_gone_altogether_is_found_by_what_was_signed(victim: LogDatabase, authority: Authority) -> None:
    cut_tail(victim.admin, "acme", 0)
    victim.admin.execute("DELETE FROM prooftrail.log WHERE tenant = 'acme'")
    victim.admin.execute("DELETE FROM prooftrail.tenant WHERE name = 'acme'")
    assert found(verification.verify(victim.admin)) == []
    (finding,) = verification.verify(victim.admin, authority=authority).findings
    assert (finding.kind, finding.tenant, finding.expected, finding.found) == ("checkpoint", "acme", "120", "0")


def test_an_older_backup_is_found_by_what_was_signed(victim: LogDatabase, evidence: Evidence, server_url: str) -> None:
    publishing = Publishing(victim.admin, evidence)
    fill(victim, random.Random(1))
    publishing("acme")
    with backup(victim, server_url) as older:
        publishing = Publishing(victim.admin, evidence)
        fill(victim, random.Random(2), first=100)
        publishing("acme")
        authority = Authority(evidence, LogKeys(ORIGIN, (publishing.signer("acme").key.public_key,)))
        assert found(verification.verify(victim.admin, authority=authority)) == []
        (finding,) = verification.verify(older, authority=authority).findings
    assert (finding.kind, finding.tenant, finding.expected, finding.found) == ("checkpoint", "acme", "120", "60")


@contextmanager
def backup(database: LogDatabase, server_url: str) -> Iterator[Connection]:
    """A copy of the database as it is now."""
    database.admin.close()  # nobody may be connected while it is copied
    with psycopg.connect(server_url, autocommit=True) as server:
        name = _create_database(server, str(conninfo_to_dict(database.url)["dbname"]))
        database.admin = psycopg.connect(database.url, autocommit=True)
        with psycopg.connect(make_conninfo(server_url, dbname=name), autocommit=True) as copy:
            yield copy
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_log_recomputed_with_our_own_code_is_found_and_the_change_named(
    victim: LogDatabase, authority: Authority
) -> None:
    admin = victim.admin
    admin.execute("SET session_replication_role = replica")
    admin.execute("UPDATE prooftrail.event SET outcome = 'failure' WHERE (batch_id, position) = (3, 4)")
    admin.execute("DELETE FROM prooftrail.checkpoint WHERE tenant = 'acme'")
    recompute(admin, "acme")
    assert found(verification.verify(admin)) == []
    forged, named = verification.verify(admin, authority=authority).findings
    assert (forged.kind, forged.tenant, forged.detail) == (
        "checkpoint",
        "acme",
        "the log is not what was signed at size 120",
    )
    assert (named.kind, named.index, named.id, named.column, named.expected, named.found) == (
        "changed", 14, "event-14", "outcome", "success", "failure",
    )  # fmt: skip


def test_a_log_recomputed_without_one_of_its_entries_is_found(victim: LogDatabase, authority: Authority) -> None:
    admin = victim.admin
    admin.execute("SET session_replication_role = replica")
    admin.execute("ALTER TABLE prooftrail.batch DROP CONSTRAINT batch_has_a_hash_per_event")
    admin.execute("DELETE FROM prooftrail.event_key WHERE tenant = 'acme' AND id = 'event-14'")
    admin.execute("DELETE FROM prooftrail.event WHERE (batch_id, position) = (3, 4)")
    admin.execute("DELETE FROM prooftrail.checkpoint WHERE tenant = 'acme'")
    recompute(admin, "acme")
    report = verification.verify(admin, authority=authority)
    assert ("checkpoint", "119") in [(finding.kind, finding.found) for finding in report.findings]

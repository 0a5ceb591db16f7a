"""Checkpoints: what PostgreSQL appended leaves it signed, once and for ever, or is refused; on moto's S3."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3
import pytest

import checkpoint as function
from prooftrail import checkpoints
from prooftrail.aws import AwsUnavailable
from prooftrail.checkpoints import Publisher
from prooftrail.database import Connection
from prooftrail.evidence import Evidence
from prooftrail.ledger import merkle
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import UntrustedNote, open_note
from prooftrail.ledger.tiles import tiles_between
from prooftrail.signing import SecretKey
from prooftrail.store import Store
from tests.conftest import LogDatabase
from tests.factories import accepted, native
from tests.integration.conftest import EVIDENCE_BUCKET, ORIGIN, seed, signing_secret, verifier_key
from tests.tampering import flip_bit
from tests.trees import Tree

Checkpointing = Callable[..., dict[str, Any]]
SIGNED: dict[str, list[str]] = {"waiting": [], "failed": [], "refused": []}


def append(database: LogDatabase, tenant: str, *batches: int) -> None:
    """Append batches of so many events to a tenant's log."""
    with database.connect("ingest") as connection:
        store = Store(connection)
        for count in batches:
            store.append([accepted(native(tenant=tenant)) for _ in range(count)], [])


def leaves(database: LogDatabase, tenant: str) -> list[bytes]:
    query = "SELECT leaf_hashes FROM prooftrail.batch WHERE tenant = %s ORDER BY first_index"
    joined = b"".join(found for (found,) in database.admin.execute(query, [tenant]))
    return [joined[start : start + 32] for start in range(0, len(joined), 32)]


def latest(evidence: Evidence, tenant: str, *numbers: int) -> Checkpoint:
    """The last checkpoint, verified with the keys of these numbers, each of which must have signed it."""
    signed = evidence.latest(tenant)
    assert signed is not None
    keys = [verifier_key(tenant, number) for number in numbers or (1,)]
    opened = open_note(signed, keys)
    assert [key for key, _ in opened.verified] == keys
    return Checkpoint.parse(opened.text)


def objects() -> dict[str, bytes]:
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=EVIDENCE_BUCKET)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {key: s3.get_object(Bucket=EVIDENCE_BUCKET, Key=key)["Body"].read() for key in keys}


@contextmanager
def tampering(database: LogDatabase) -> Iterator[Connection]:
    """A superuser's hand in the log, and afterwards the log as it was."""
    admin = database.admin
    admin.execute("SET session_replication_role = replica")
    for table in ("batch", "log", "checkpoint"):
        admin.execute(f"CREATE TEMP TABLE saved_{table} AS TABLE prooftrail.{table}".encode())
    yield admin
    for table in ("batch", "log", "checkpoint"):
        admin.execute(f"DELETE FROM prooftrail.{table}".encode())
        admin.execute(f"INSERT INTO prooftrail.{table} SELECT * FROM saved_{table}".encode())
        admin.execute(f"DROP TABLE saved_{table}".encode())
    admin.execute("SET session_replication_role = origin")


def test_a_log_that_grew_is_signed_and_its_tiles_are_all_there(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing
) -> None:
    append(database, "acme", 3, 250, 1)
    append(database, "hooli", 1)
    assert checkpointing() == {"entries": 255, **SIGNED}
    for tenant, size in (("acme", 254), ("hooli", 1)):
        tree = Tree(leaves(database, tenant))
        found = latest(evidence, tenant)
        assert found == Checkpoint(f"{ORIGIN}/{tenant}", size, merkle.root_of(tree.leaves))
        for tile in tiles_between(0, size):
            assert evidence.tile(tenant, tile) == tree.tile(tile)
    rows = database.admin.execute("SELECT tenant, size, root, note FROM prooftrail.checkpoint ORDER BY tenant").fetchall()
    assert [(tenant, size) for tenant, size, _, _ in rows] == [("acme", 254), ("hooli", 1)]
    for tenant, _, root, note in rows:
        assert note.encode() == evidence.latest(tenant)
        assert bytes(root) == latest(evidence, tenant).root


def test_what_did_not_grow_is_left_alone(database: LogDatabase, checkpointing: Checkpointing) -> None:
    assert checkpointing() == {"entries": 0, **SIGNED}
    append(database, "acme", 5)
    checkpointing()
    before = objects()
    assert checkpointing() == {"entries": 0, **SIGNED}
    assert objects() == before


def test_every_checkpoint_of_a_growing_log_has_its_tiles_and_continues_the_one_before(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing
) -> None:
    for batches in ((1,), (254,), (1,), (1,), (255, 1), (300, 7)):
        append(database, "acme", *batches)
        checkpointing()
    tree = Tree(leaves(database, "acme"))
    sizes = list(evidence.sizes("acme"))
    assert sizes == [1, 255, 256, 257, 513, 820]
    wanted = {f"acme/{tile.path}" for old, new in zip([0, *sizes], sizes, strict=False) for tile in tiles_between(old, new)}
    assert {key for key in objects() if "/tile/" in key} == wanted
    roots = {0: merkle.EMPTY_ROOT}
    for size in sizes:
        roots[size] = Checkpoint.parse(open_note(evidence.checkpoint("acme", size), [verifier_key("acme")]).text).root
        assert roots[size] == merkle.root_of(tree.leaves[:size])
        node = evidence.node_reader("acme", size)
        for index in {0, size // 2, size - 1}:
            proof = merkle.inclusion_proof(index, size, node)
            merkle.verify_inclusion(tree.leaves[index], index, size, proof, roots[size])
        for old, root in roots.items():
            proof = merkle.consistency_proof(old, size, node)
            merkle.verify_consistency(old, root, size, roots[size], proof)


@pytest.mark.parametrize("step", [1, 10, 256, 300])
def test_a_long_way_is_gone_in_steps_each_signed_at_the_end_of_a_batch(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(checkpoints, "STEP", step)
    append(database, "acme", *[97] * 8, 1)
    assert checkpointing()["entries"] == 777
    assert latest(evidence, "acme").root == merkle.root_of(leaves(database, "acme"))
    sizes = list(evidence.sizes("acme"))
    assert sizes[-1] == 777
    assert all(size % 97 == 0 for size in sizes[:-1])
    assert all(new - old <= step + 97 for old, new in zip([0, *sizes], sizes, strict=False))


def test_what_is_appended_while_a_step_reads_is_left_to_the_next(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Head and batches are those of one moment."""
    read_head, once = checkpoints._head, [True]

    def append_then(connection: Connection, tenant: str) -> merkle.Frontier:
        head = read_head(connection, tenant)
        if once:
            once.clear()
            append(database, "acme", 4)
        return head

    append(database, "acme", 3)
    monkeypatch.setattr(checkpoints, "_head", append_then)
    assert checkpointing() == {"entries": 3, **SIGNED}
    assert checkpointing() == {"entries": 4, **SIGNED}
    assert list(evidence.sizes("acme")) == [3, 7]


def test_a_run_without_time_leaves_the_rest_to_the_next(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(database, "acme", 1)
    monkeypatch.setattr(function, "RUN", 0.0)
    assert checkpointing() == {"entries": 0, **SIGNED, "waiting": ["acme"]}
    assert evidence.latest("acme") is None
    monkeypatch.undo()


def test_the_log_that_has_waited_longest_comes_first(database: LogDatabase) -> None:
    for tenant in ("b", "c", "a"):
        append(database, tenant, 1, 1)
    with database.connect("checkpoint") as connection:
        due = checkpoints.due(connection)
    assert [log.tenant for log in due] == ["b", "c", "a"]
    assert all(0 <= log.age < 60 and log.signed_size == 0 for log in due)


def test_the_schedule_s_run_looks_several_times_and_anybody_else_s_once(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        append(database, "acme", 1)

    monkeypatch.setattr(time, "sleep", sleep)
    assert checkpointing({"source": "aws.events"})["entries"] == 2
    assert list(evidence.sizes("acme")) == [1, 2]
    assert slept == pytest.approx([20, 40], abs=9)  # each less what the function itself took
    assert checkpointing({})["entries"] == 0
    assert len(slept) == 2


# ------------------------------------------------------------------------------------------------- refusals

BATCH, HEAD = "UPDATE prooftrail.batch SET", "UPDATE prooftrail.log SET"
OF_ACME, FIFTH_ON = "tenant = 'acme'", "tenant = 'acme' AND first_index = 4"
TAMPERED = {
    "a leaf hash": flip_bit("batch", "leaf_hashes", FIFTH_ON),
    "leaf hashes swapped": f"{BATCH} leaf_hashes = substr(leaf_hashes, 33, 64) || substr(leaf_hashes, 1, 32)"
    f" WHERE {FIFTH_ON}",
    "a batch's root": flip_bit("batch", "root", FIFTH_ON),
    "a batch removed": f"DELETE FROM prooftrail.batch WHERE {FIFTH_ON}",
    "the last batch removed": "DELETE FROM prooftrail.batch WHERE tenant = 'acme' AND first_index = 7",
    "a batch moved": f"{BATCH} first_index = 5 WHERE {FIFTH_ON}",
    "a batch of another log": f"{BATCH} (leaf_hashes, root) = (SELECT leaf_hashes, root FROM prooftrail.batch"
    f" WHERE tenant = 'hooli' AND first_index = 0) WHERE {FIFTH_ON}",
    "the head's frontier": flip_bit("log", "frontier", OF_ACME),
    "the head's size": f"{HEAD} size = 14, frontier = frontier || substr(frontier, 1, 32) WHERE {OF_ACME}",
    "the head's size alone": f"{HEAD} size = 12 WHERE {OF_ACME}",
    "a head behind its batches": f"{HEAD} (size, frontier) = (8, substr(frontier, 1, 32)) WHERE {OF_ACME}",
    "no head": f"{HEAD} (size, frontier) = (0, '') WHERE {OF_ACME}",
}


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_log_that_does_not_continue_what_was_signed_is_refused_and_the_others_go_on(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, statement: str
) -> None:
    append(database, "acme", 4)
    append(database, "hooli", 3)
    checkpointing()
    append(database, "acme", 3, 3)
    append(database, "hooli", 3, 2)
    signed_before = {key for key in objects() if key.startswith("acme/")}
    with tampering(database) as admin:
        assert admin.execute(statement.encode()).rowcount == 1
        assert checkpointing() == {"entries": 5, **SIGNED, "refused": ["acme"]}
        assert {key for key in objects() if key.startswith("acme/")} == signed_before
    assert latest(evidence, "hooli").size == 8
    assert checkpointing()["refused"] == []
    assert latest(evidence, "acme").root == merkle.root_of(leaves(database, "acme"))


def restore_older_backup(admin: Connection, size: int) -> None:
    """The log of acme as it was at `size`, batches, head and checkpoints."""
    admin.execute("DELETE FROM prooftrail.batch WHERE tenant = 'acme' AND first_index >= %s", [size])
    admin.execute("DELETE FROM prooftrail.checkpoint WHERE tenant = 'acme' AND size > %s", [size])
    rows = admin.execute("SELECT leaf_hashes FROM prooftrail.batch WHERE tenant = 'acme' ORDER BY first_index")
    joined = b"".join(found for (found,) in rows)
    frontier = merkle.Frontier()
    frontier.extend(joined[start : start + 32] for start in range(0, len(joined), 32))
    set_head(admin, frontier)


def set_head(admin: Connection, frontier: merkle.Frontier) -> None:
    query = "UPDATE prooftrail.log SET size = %s, frontier = %s WHERE tenant = 'acme'"
    admin.execute(query, [frontier.size, frontier.to_bytes()])


def test_an_older_backup_is_refused_until_the_entries_are_back(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        append(database, "acme", 5)
        checkpointing()
    with tampering(database) as admin:
        restore_older_backup(admin, 5)
        append_to_backup(admin, 2)
        assert checkpointing() == {"entries": 0, **SIGNED, "refused": ["acme"]}
        append_to_backup(admin, 8)
        assert checkpointing() == {"entries": 0, **SIGNED, "refused": ["acme"]}
        append_to_backup(admin, 9)
        assert checkpointing() == {"entries": 0, **SIGNED, "refused": ["acme"]}
    assert list(evidence.sizes("acme")) == [5, 10, 15]
    causes = [getattr(record, "cause", "") for record in caplog.records]
    assert "expected at least the 15 entries that were signed, PostgreSQL has 7" in causes[0]


def append_to_backup(admin: Connection, count: int) -> None:
    """Other entries than those that were signed."""
    row = admin.execute("SELECT size, frontier FROM prooftrail.log WHERE tenant = 'acme'").fetchone()
    assert row is not None
    frontier = merkle.Frontier.from_bytes(*row)
    first, new = frontier.size, [merkle.leaf_hash(bytes([n])) for n in range(count)]
    frontier.extend(new)
    admin.execute(
        """
        INSERT INTO prooftrail.batch (tenant, event_count, min_time, max_time, first_index, leaf_hashes, root)
        VALUES ('acme', %s, now(), now(), %s, %s, %s)
        """,
        [count, first, b"".join(new), frontier.root()],
    )
    set_head(admin, frontier)


def test_a_bucket_that_lost_its_checkpoints_is_refused(
    database: LogDatabase, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(database, "acme", 5)
    checkpointing()
    append(database, "acme", 5)
    boto3.client("s3").create_bucket(Bucket="another")
    monkeypatch.setenv("PROOFTRAIL_EVIDENCE_BUCKET", "another")
    function._settings.cache_clear()
    function._publisher.cache_clear()
    assert checkpointing()["refused"] == ["acme"]


def test_a_checkpoint_that_postgresql_forgot_is_told_it_again(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing
) -> None:
    append(database, "acme", 5)
    checkpointing()
    with tampering(database) as admin:
        admin.execute("DELETE FROM prooftrail.checkpoint")
        assert checkpointing() == {"entries": 5, **SIGNED}
        ((note,),) = admin.execute("SELECT note FROM prooftrail.checkpoint").fetchall()
    assert note.encode() == evidence.latest("acme")


@pytest.mark.parametrize("forged", ["checkpoint", "tile"])
def test_evidence_that_was_forged_is_not_built_upon(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, forged: str
) -> None:
    append(database, "acme", 5)
    checkpointing()
    append(database, "acme", 5)
    key = {"checkpoint": f"acme/checkpoint/{5:020d}", "tile": "acme/tile/0/000.p/5"}[forged]
    content = objects()[key]
    other = (
        content.replace(f"{ORIGIN}/acme\n5\n".encode(), f"{ORIGIN}/acmf\n5\n".encode())
        if forged == "checkpoint"
        else bytes(160)
    )
    assert other != content
    boto3.client("s3").put_object(Bucket=EVIDENCE_BUCKET, Key=key, Body=other)
    assert checkpointing()["refused"] == ["acme"]
    assert list(evidence.sizes("acme")) == [5]


def test_a_log_recomputed_in_postgresql_and_in_the_tiles_is_not_what_was_signed(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing
) -> None:
    append(database, "acme", 5)
    checkpointing()
    with tampering(database) as admin:
        admin.execute("DELETE FROM prooftrail.batch WHERE tenant = 'acme'")
        set_head(admin, merkle.Frontier())
        append_to_backup(admin, 5)
        forged = b"".join(leaves(database, "acme"))
        boto3.client("s3").put_object(Bucket=EVIDENCE_BUCKET, Key="acme/tile/0/000.p/5", Body=forged)
        append_to_backup(admin, 2)
        assert checkpointing() == {"entries": 0, **SIGNED, "refused": ["acme"]}
    assert list(evidence.sizes("acme")) == [5]


# ------------------------------------------------------------------------------------ killed, and two at once


class Killed(BaseException):
    """The process ends here, as far as the log can tell: nothing catches it."""


@pytest.mark.parametrize("survives", range(8))
def test_a_run_killed_at_any_write_is_taken_up_by_the_next(
    database: LogDatabase, evidence: Evidence, monkeypatch: pytest.MonkeyPatch, survives: int
) -> None:
    """Killed after so many writes to the bucket; the next run ends where an undisturbed one would have."""
    append(database, "acme", 300)
    killing = Evidence(EVIDENCE_BUCKET)
    put, writes = killing._put, iter(range(100))

    def dying_put(*arguments: Any) -> bool:
        if next(writes) >= survives:
            raise Killed
        return put(*arguments)

    monkeypatch.setattr(killing, "_put", dying_put)
    with database.connect("checkpoint") as connection:
        try:
            Publisher(killing, [SecretKey(seed(1))], ORIGIN).step(connection, "acme", 0)
        except Killed:
            assert survives < 4
    append(database, "acme", 300)
    with database.connect("checkpoint") as connection:
        found = Publisher(evidence, [SecretKey(seed(1))], ORIGIN).step(connection, "acme", 0).checkpoint
    assert latest(evidence, "acme") == found
    assert found.size == 600
    assert found.root == merkle.root_of(leaves(database, "acme"))
    assert list(evidence.sizes("acme")) == ([300, 600] if survives >= 4 else [600])


def test_a_run_killed_before_postgresql_is_told_leaves_that_to_the_next(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(database, "acme", 3)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, database.connect("checkpoint") as connection:
        patch.setattr(Publisher, "_remember", killed)
        publisher = Publisher(evidence, [SecretKey(seed(1))], ORIGIN)
        with pytest.raises(Killed):
            publisher.step(connection, "acme", 0)
    assert latest(evidence, "acme").size == 3
    assert checkpointing() == {"entries": 3, **SIGNED}
    assert database.count("checkpoint") == 1
    append(database, "acme", 1)
    assert checkpointing() == {"entries": 1, **SIGNED}


def test_runs_at_once_while_the_log_grows_publish_one_history(
    database: LogDatabase, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()

    def sign_until_told() -> int:
        publisher, published = Publisher(Evidence(EVIDENCE_BUCKET), [SecretKey(seed(1))], ORIGIN), 0
        with database.connect("checkpoint") as connection:
            while not stop.is_set():
                for log in checkpoints.due(connection):
                    published = publisher.step(connection, log.tenant, log.signed_size).checkpoint.size
        return published

    with ThreadPoolExecutor() as pool:
        runs = [pool.submit(sign_until_told) for _ in range(3)]
        for count in [1, 90, 30] * 8:
            append(database, "acme", count)
        stop.set()
        assert all(run.result() for run in runs)
    tree = leaves(database, "acme")
    sizes = list(evidence.sizes("acme"))
    assert len(sizes) > 2
    for size in sizes:
        found = Checkpoint.parse(open_note(evidence.checkpoint("acme", size), [verifier_key("acme")]).text)
        assert found == Checkpoint(f"{ORIGIN}/acme", size, merkle.root_of(tree[:size]))


def test_of_two_runs_that_sign_one_size_the_first_is_kept_by_both(database: LogDatabase, evidence: Evidence) -> None:
    append(database, "acme", 4)
    with database.connect("checkpoint") as connection:
        slow = Publisher(Evidence(EVIDENCE_BUCKET), [SecretKey(seed(1))], ORIGIN)
        quick = Publisher(evidence, [SecretKey(seed(1)), SecretKey(seed(2))], ORIGIN)
        sign = slow._signed

        def overtaken(*arguments: Any) -> Any:
            quick.step(connection, "acme", 0)
            return sign(*arguments)

        slow._signed = overtaken  # type: ignore[assignment]
        slow.step(connection, "acme", 0)
    assert latest(evidence, "acme", 1, 2).size == 4
    assert database.count("checkpoint") == 1


# --------------------------------------------------------------------------------------------- keys and faults


def test_a_key_is_changed_without_a_gap(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = str(boto3.client("secretsmanager").list_secrets()["SecretList"][0]["ARN"]), signing_secret(2)

    def sign_with(arns: str) -> None:
        monkeypatch.setenv("SIGNING_KEYS", arns)
        for cache in (function._settings, function._publisher):
            cache.cache_clear()
        append(database, "acme", 1)
        assert checkpointing() == {"entries": 1, **SIGNED}

    sign_with(first)
    latest(evidence, "acme", 1)
    sign_with(f"{first},{second}")  # both sign: who knows either accepts
    latest(evidence, "acme", 1, 2)
    sign_with(second)
    latest(evidence, "acme", 2)
    with pytest.raises(UntrustedNote):
        latest(evidence, "acme", 1)


def test_a_new_key_without_the_old_one_beside_it_is_refused(
    database: LogDatabase, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(database, "acme", 1)
    checkpointing()
    monkeypatch.setenv("SIGNING_KEYS", signing_secret(2))
    for cache in (function._settings, function._publisher):
        cache.cache_clear()
    append(database, "acme", 1)
    assert checkpointing()["refused"] == ["acme"]


def test_what_a_key_signs_wrongly_is_not_published(database: LogDatabase, evidence: Evidence) -> None:
    append(database, "acme", 1)
    key = SecretKey(seed(1))
    key.sign = lambda message: bytes(64)  # type: ignore[method-assign]
    with database.connect("checkpoint") as connection, pytest.raises(UntrustedNote):
        Publisher(evidence, [key], ORIGIN).step(connection, "acme", 0)
    assert evidence.latest("acme") is None


def test_a_bucket_that_fails_for_now_is_tried_again(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(database, "acme", 1)

    def failing(*_: Any) -> bool:
        raise AwsUnavailable("writing to the evidence bucket: slow down")

    with monkeypatch.context() as patch:
        patch.setattr(Evidence, "_put", failing)
        assert checkpointing() == {"entries": 0, **SIGNED, "failed": ["acme"]}
    assert checkpointing() == {"entries": 1, **SIGNED}


def test_what_is_measured_says_how_long_the_oldest_batch_waited(
    database: LogDatabase, checkpointing: Checkpointing, capsys: pytest.CaptureFixture[str]
) -> None:
    append(database, "acme", 1)
    with tampering(database) as admin:
        admin.execute("UPDATE prooftrail.batch SET received_at = now() - interval '100 s'")
        checkpointing()
    measured = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert 100 <= measured["CheckpointLagSeconds"][0] < 130
    assert (measured["CheckpointRefused"], measured["WitnessFailed"]) == ([0.0], [0.0])

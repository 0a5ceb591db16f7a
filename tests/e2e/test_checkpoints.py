"""Checkpoints in the deployed system: signed by the function, stored under Object Lock, on schedule."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

from prooftrail.evidence import Evidence
from prooftrail.ledger import merkle
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import VerifierKey, open_note
from prooftrail.ledger.tiles import tiles_between
from prooftrail.witness import Bucket, Stored
from tests.conftest import PROJECT
from tests.e2e.conftest import System, eventually
from tests.factories import native


def evidence(system: System) -> Evidence:
    return Evidence(system.environment["PROOFTRAIL_EVIDENCE_BUCKET"], system.client("s3"))


def keys(system: System, tenant: str) -> list[VerifierKey]:
    """As an operator gives them to an auditor."""
    command = [str(PROJECT / ".venv/bin/prooftrail"), "log", "keys", "--tenant", tenant]
    printed = subprocess.run(command, env=os.environ | system.environment, capture_output=True, text=True, check=True)
    return [VerifierKey.parse(line) for line in printed.stdout.splitlines()]


def latest(system: System, tenant: str) -> Checkpoint | None:
    signed = evidence(system).latest(tenant)
    return Checkpoint.parse(open_note(signed, keys(system, tenant)).text) if signed else None


def test_what_was_ingested_is_signed_and_locked(system: System) -> None:
    system.send([json.dumps(native(tenant="signed")) for _ in range(300)])
    system.wait_until_drained()
    answer = system.client("lambda").invoke(FunctionName=system.output("CheckpointFunctionName"), Payload=b"{}")
    summary = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, summary
    assert (summary["failed"], summary["refused"]) == ([], [])
    with system.database() as admin:
        rows = admin.execute("SELECT leaf_hashes FROM prooftrail.batch WHERE tenant = 'signed' ORDER BY first_index")
        leaves = b"".join(found for (found,) in rows)
        users = admin.execute("SELECT DISTINCT usename FROM pg_stat_activity").fetchall()
    root = merkle.root_of(leaves[start : start + 32] for start in range(0, len(leaves), 32))
    assert latest(system, "signed") == Checkpoint("prooftrail.localhost/signed", 300, root)
    assert ("prooftrail_checkpoint",) in users
    s3, bucket = system.client("s3"), system.environment["PROOFTRAIL_EVIDENCE_BUCKET"]
    for key in ("checkpoint/00000000000000000300", *(tile.path for tile in tiles_between(0, 300))):
        locked = s3.get_object_retention(Bucket=bucket, Key=f"signed/{key}")["Retention"]
        assert locked["Mode"] == "GOVERNANCE"


def test_nobody_has_to_ask_for_it(system: System) -> None:
    """On EventBridge's schedule, which calls once a minute."""
    system.send([json.dumps(native(tenant="unasked"))])
    found = eventually(lambda: latest(system, "unasked"), bool, 100)
    assert found is not None
    assert found.size == 1


def test_of_two_that_replace_what_a_witness_saw_one_wins(system: System) -> None:
    """By S3's conditional writes, which this LocalStack makes one after the other, as S3 does and moto does not."""
    s3 = system.client("s3")
    s3.create_bucket(Bucket="witness-race")
    bucket, log = Bucket("witness-race", s3), hashlib.sha256(b"log").hexdigest()
    known: Stored | None = None
    for _ in range(5):
        together = threading.Barrier(8)

        def replace(number: int, known: Stored | None = known, together: threading.Barrier = together) -> bool:
            together.wait()
            return bucket.replace(log, known, f"note {number} after {known}\n".encode())

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(replace, range(8)))
        assert won.count(True) == 1
        found = bucket.read(log)
        assert found is not None
        assert found.note == f"note {won.index(True)} after {known}\n".encode()
        known = found

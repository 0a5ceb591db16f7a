"""The checkpoint function killed with SIGKILL at random moments, two of it at once: one history, and all of it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from prooftrail.evidence import Evidence
from prooftrail.ledger import merkle
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import VerifierKey, open_note
from prooftrail.ledger.tiles import tiles_between
from prooftrail.signing import SecretKey
from prooftrail.store import Store
from tests.conftest import PROJECT, LogDatabase
from tests.factories import accepted, native
from tests.trees import Tree

KILLS = 12
BUCKET = "prooftrail-evidence"
TENANTS = ("t0", "t1")

# In small steps, so that a kill meets many writes.
RUN = """
import json, checkpoint
from prooftrail import checkpoints
from prooftrail.invocation import Context
checkpoints.STEP = 40
print("begins", flush=True)
print(json.dumps(checkpoint.handler({}, Context("checkpoint", 300))))
"""


@pytest.fixture
def environment(database: LogDatabase) -> Iterator[dict[str, str]]:
    """What the function's processes are told: a database role of their own, and an S3 that outlives them."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    seed = json.dumps({"seed": "A" * 43 + "="})
    secret = boto3.client("secretsmanager", endpoint_url=url).create_secret(Name="signing", SecretString=seed)
    yield os.environ | {
        "AWS_ENDPOINT_URL": url,
        "DATABASE_URL": database.url_of("checkpoint"),
        "PROOFTRAIL_EVIDENCE_BUCKET": BUCKET,
        "LOG_ORIGIN": "log.example",
        "SIGNING_KEYS": secret["ARN"],
        "PYTHONPATH": str(PROJECT / "functions" / "checkpoint"),
    }
    server.stop()


def start(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE, text=True)


def ingest(database: LogDatabase, chance: random.Random) -> None:
    """Some batches more in every log."""
    with database.connect("ingest") as connection:
        for tenant in TENANTS * 10:
            Store(connection).append([accepted(native(tenant=tenant)) for _ in range(chance.randrange(1, 40))], [])


def test_after_every_kill_the_next_run_goes_on_with_the_one_history(
    database: LogDatabase, environment: dict[str, str]
) -> None:
    chance = random.Random()
    kills, published = 0, 0
    evidence = Evidence(BUCKET, boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"]))
    for _ in range(3 * KILLS):
        ingest(database, chance)
        running = [start(environment), start(environment)]
        assert [process.stdout.readline() for process in running if process.stdout] == ["begins\n"] * 2
        time.sleep(chance.uniform(0.05, 1.5))
        kills += sum(process.poll() is None for process in running)
        for process in running:
            process.kill()
            process.communicate()
        published = sum(1 for tenant in TENANTS for _ in evidence.sizes(tenant))
        if kills >= KILLS and published:
            break
    print(f"{kills} kills; {published} checkpoints were published between them")
    assert published
    output, _ = start(environment).communicate()
    summary = json.loads(output.splitlines()[-1])
    assert (summary["waiting"], summary["failed"], summary["refused"]) == ([], [], [])
    for tenant in TENANTS:
        check_history(database, evidence, tenant)


def check_history(database: LogDatabase, evidence: Evidence, tenant: str) -> None:
    """Every checkpoint is a moment of the log in the database, with all its tiles; the last one is its head."""
    rows = database.admin.execute(
        "SELECT leaf_hashes FROM prooftrail.batch WHERE tenant = %s ORDER BY first_index", [tenant]
    )
    joined = b"".join(found for (found,) in rows)
    tree = Tree([joined[start : start + 32] for start in range(0, len(joined), 32)])
    name = f"log.example/{tenant}"
    key = VerifierKey(name, 1, SecretKey(bytes(32)).public_key)
    sizes = list(evidence.sizes(tenant))
    assert sizes[-1] == len(tree.leaves)
    for old, size in zip([0, *sizes], sizes, strict=False):
        found = Checkpoint.parse(open_note(evidence.checkpoint(tenant, size), [key]).text)
        assert found == Checkpoint(name, size, merkle.root_of(tree.leaves[:size]))
        for tile in tiles_between(old, size):
            assert evidence.tile(tenant, tile) == tree.tile(tile)
    told = database.admin.execute("SELECT size FROM prooftrail.checkpoint WHERE tenant = %s", [tenant]).fetchall()
    assert {size for (size,) in told} <= set(sizes)

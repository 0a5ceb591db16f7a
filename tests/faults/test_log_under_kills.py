"""Many handlers append to the same logs and are killed meanwhile: every log stays one sequence without gap or double."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import uuid
from itertools import count
from pathlib import Path

import pytest

from prooftrail.ledger import merkle
from tests.conftest import PROJECT, LogDatabase
from tests.factories import native, sqs

HANDLERS = 8
KILLS = 40

# Ingests the batches of a file one by one, until it is killed or through; the next one begins again from the start.
RUN = """
import json, sys
import ingest
from prooftrail.invocation import Context
for line in open(sys.argv[1]):
    answer = ingest.handler(json.loads(line), Context("ingest", 60))
    assert answer == {"batchItemFailures": []}, answer
"""


@pytest.mark.parametrize("tenants", [1, 20])
def test_eight_handlers_and_kills_leave_every_log_whole(database: LogDatabase, tmp_path: Path, tenants: int) -> None:
    chance = random.Random()
    files = [work(tmp_path / f"{number}.jsonl", tenants, batches=20) for number in range(HANDLERS)]
    environment = os.environ | {
        "DATABASE_URL": database.url_of("ingest"),
        "PYTHONPATH": str(PROJECT / "functions" / "ingest"),
    }

    def start(file: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", RUN, str(file)], env=environment)

    running = {file: start(file) for file in files}
    kills = 0
    while kills < KILLS:
        time.sleep(chance.uniform(0.02, 0.2))
        file = chance.choice(files)
        if running[file].poll() is None:
            running[file].kill()  # in the middle of whatever it does
            running[file].wait()
            kills += 1
        running[file] = start(file)
    assert [process.wait() for process in running.values()] == [0] * HANDLERS

    sent = {record["id"] for file in files for record in bodies(file)}
    stored = database.admin.execute("SELECT id FROM prooftrail.event WHERE source <> 'prooftrail'").fetchall()
    assert len(stored) == len(sent)
    assert {id for (id,) in stored} == sent
    check_places(database)


def check_places(database: LogDatabase) -> None:
    """Indexes are 0..n-1, every root re-derives by the definition, and every head is its log's. (`verify` runs besides.)"""
    tenants = [tenant for (tenant,) in database.admin.execute("SELECT tenant FROM prooftrail.log")]
    assert tenants
    for tenant in tenants:
        indexes = database.admin.execute(
            "SELECT first_index + position FROM prooftrail.event JOIN prooftrail.batch ON batch.id = batch_id "
            "WHERE event.tenant = %s ORDER BY 1",
            [tenant],
        ).fetchall()
        assert [index for (index,) in indexes] == list(range(len(indexes)))
        leaves: list[bytes] = []
        for first_index, hashes, root in database.admin.execute(
            "SELECT first_index, leaf_hashes, root FROM prooftrail.batch WHERE tenant = %s ORDER BY first_index", [tenant]
        ):
            assert first_index == len(leaves)
            leaves += [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
            assert merkle.root_of(leaves) == root
        head = database.admin.execute("SELECT size, frontier FROM prooftrail.log WHERE tenant = %s", [tenant]).fetchone()
        assert head is not None
        assert head[0] == len(leaves) == len(indexes)
        assert merkle.Frontier.from_bytes(*head).root() == merkle.root_of(leaves)


_numbers = count()


def work(file: Path, tenants: int, batches: int) -> Path:
    """Batches for one handler, with some records that others send too, and some poison."""
    with file.open("w") as lines:
        for number in range(batches):
            events = [native(tenant=f"t{next(_numbers) % tenants}") for _ in range(25)]
            shared = [native(id=f"shared-{number}-{item}", tenant=f"t{item % tenants}") for item in range(5)]
            lines.write(json.dumps(sqs(*events, *shared, str(uuid.uuid4()))) + "\n")
    return file


def bodies(file: Path) -> list[dict[str, str]]:
    records = [record for line in file.read_text().splitlines() for record in json.loads(line)["Records"]]
    return [json.loads(record["body"]) for record in records if record["body"].startswith("{")]

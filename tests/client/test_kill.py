"""A producer killed with SIGKILL while nobody can be reached: what `log` returned for is stored, and once."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prooftrail import api_keys
from prooftrail_client.queues import Record
from prooftrail_client.spool import Spool
from tests.client.conftest import Service
from tests.conftest import PROJECT, LogDatabase

EVENTS = 10_000
KILLS = 8

# Logs so many events and tells of each id once `log` has returned for it; then it sends until all is settled.
PRODUCE = """
import os, sys
from prooftrail_client import AuditClient, AuditEvent, HttpTransport
url, key, spool, count = sys.argv[1:]
client = AuditClient(HttpTransport(url, key), tenant="acme", source="clinic/records", spool=spool)
for number in range(int(count)):
    event = AuditEvent.of("patient.read").by("dr-lee").on("Patient", f"p-{number % 7}").succeeded()
    client.log(event)
    os.write(1, f"{event.id}\\n".encode())
os.write(1, b"all\\n")
client.flush()
os.write(1, b"flushed\\n")
sys.stdin.read()
"""


# The same of a spool alone, with segments so small that a kill meets their begin and their removal.
SPOOL = """
import os, sys, threading
from pathlib import Path
from prooftrail_client.spool import Spool
spool = Spool(Path(sys.argv[1]), segment_bytes=1000)
def send():
    while True:
        for record in spool.read(20, 10_000):
            os.write(2, record.payload + b"\\n")
            spool.acknowledge(record)
threading.Thread(target=send, daemon=True).start()
head = b'{"tenant":"acme","source":"s"'
while True:
    spool.append(("acme", "s"), head, True)
    os.write(1, b".")
"""


class Producers:
    """Makes producers that share a spool, one after the other."""

    def __init__(self, key: str, spool: Path) -> None:
        self._key = key
        self._spool = spool

    def start(self, url: str, count: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRODUCE, url, self._key, str(self._spool), str(count)]
        environment = os.environ | {"PYTHONPATH": str(PROJECT / "client")}
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )


@pytest.fixture
def producers(database: LogDatabase, tmp_path: Path) -> Producers:
    return Producers(api_keys.create(database.admin, "acme", role="writer"), tmp_path)


@pytest.fixture
def unreachable() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def lines_until(process: subprocess.Popen[str], last: str) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if line == f"{last}\n":
            return lines
        lines.append(line.rstrip("\n"))
    raise AssertionError(f"the producer ended before it said {last}")


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Kill the producer; the ids that it told of and nobody read yet."""
    process.kill()
    with process:
        assert process.stdout is not None
        return [line for line in process.stdout.read().splitlines() if "-" in line]


def stored(database: LogDatabase) -> list[tuple[str, int]]:
    rows = database.admin.execute(
        "SELECT id, sequence FROM prooftrail.event WHERE source <> 'prooftrail' ORDER BY sequence"
    ).fetchall()
    return [(id, sequence) for id, sequence in rows]


def test_ten_thousand_events_queued_while_nobody_answers_survive_kill_9_and_are_stored_once(
    database: LogDatabase, real_service: Service, unreachable: str, producers: Producers
) -> None:
    producer = producers.start(unreachable, EVENTS)
    logged = lines_until(producer, "all")
    kill(producer)
    assert stored(database) == []

    producer = producers.start(real_service.url, 0)
    assert lines_until(producer, "all") == lines_until(producer, "flushed") == []
    kill(producer)

    assert len(logged) == EVENTS
    assert stored(database) == [(id, number) for number, id in enumerate(logged, 1)]
    assert real_service.ids == logged


def test_killed_at_any_moment_while_logging_and_sending_nothing_is_lost_or_doubled_or_numbered_twice(
    database: LogDatabase, real_service: Service, producers: Producers
) -> None:
    chance = random.Random()
    logged: list[str] = []
    for _ in range(KILLS):
        producer = producers.start(real_service.url, EVENTS)
        assert producer.stdout is not None
        logged.append(producer.stdout.readline().rstrip("\n"))
        time.sleep(chance.uniform(0, 0.3))  # in the middle of whatever it does
        logged += kill(producer)
    producer = producers.start(real_service.url, 0)
    lines_until(producer, "flushed")
    kill(producer)

    rows = stored(database)
    ids = [id for id, _ in rows]
    # When it was killed, each process may have been between the event's being queued and its telling of it.
    assert set(logged) <= set(ids)
    assert len(logged) <= len(ids) <= len(logged) + KILLS
    assert [number for _, number in rows] == list(range(1, len(rows) + 1))
    assert database.count("quarantine") == 0  # no event came twice with another content


def test_a_spool_killed_while_segments_come_and_go_has_every_event_under_its_own_number(tmp_path: Path) -> None:
    chance = random.Random()
    sent: list[int] = []
    appended = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", SPOOL, str(tmp_path)],
            bufsize=0,
            env=os.environ | {"PYTHONPATH": str(PROJECT / "client")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.read(1)
        timer = threading.Timer(chance.uniform(0, 0.5), process.kill)
        timer.start()
        out, err = process.communicate()
        timer.join()
        appended += 1 + len(out)
        sent += [json.loads(line)["sequence"] for line in err.splitlines() if line.endswith(b"}")]
    spool = Spool(tmp_path)
    left = [json.loads(record.payload)["sequence"] for record in read_all(spool)]
    spool.close()

    last = max(sent + left)
    assert set(sent) | set(left) == set(range(1, last + 1))
    assert appended <= last <= appended + KILLS
    assert len(set(sent)) >= len(sent) - KILLS  # of each process, one at most was sent and not noted
    assert spool.damaged == 0


def read_all(spool: Spool) -> list[Record]:
    found: list[Record] = []
    while records := spool.read(1000, 2**30):
        found += records
        spool.acknowledge(records[-1])
    return found

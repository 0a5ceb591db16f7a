"""What the Merkle log costs ingest: the real handler with and without it, and eight handlers that share one log's head.

    python -m benchmarks.ledger [--events N] [--rounds N]

Prints throughput of both sides and their ratio; wanted are at least 0.95 and 0.90.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import psycopg

from benchmarks.side_by_side import PROJECT, migrated_database, ratio, server
from prooftrail import invocation, store

BATCH = 1000  # records of one invocation
HANDLERS = 8


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=20_000, help="events a round and side")
    arguments.add_argument("--rounds", type=int, default=11)
    asked = arguments.parse_args()
    with server() as url, migrated_database(url) as with_log, migrated_database(url) as without:
        loosen(without)
        measure = functools.partial(throughput, with_log, events=asked.events)
        off = functools.partial(throughput, without, "no-log", asked.events, 1)
        report("log on / off, one handler", 0.95, ratio(functools.partial(measure, "log", handlers=1), off, asked.rounds))
        one, own = (functools.partial(measure, side, handlers=HANDLERS) for side in ("log", "own-heads"))
        report(f"{HANDLERS} handlers on one head / on {HANDLERS}", 0.90, ratio(one, own, asked.rounds))


def report(name: str, wanted: float, measured: tuple[float, float, float]) -> None:
    ours, other, quotient = measured
    print(f"{name:32} {ours:8.0f} / {other:8.0f} events/s = {quotient:.3f}  (wanted >= {wanted:.2f})", flush=True)


def loosen(url: str) -> None:
    """Let a batch be stored without its place in a log."""
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("ALTER TABLE prooftrail.batch DROP CONSTRAINT batch_has_a_hash_per_event")
        admin.execute("ALTER TABLE prooftrail.batch DROP CONSTRAINT batch_place_is_unique")
        for column in ("first_index", "leaf_hashes", "root"):
            admin.execute(f"ALTER TABLE prooftrail.batch ALTER COLUMN {column} DROP NOT NULL".encode())


def throughput(url: str, side: str, events: int, handlers: int) -> float:
    """Events a second through so many processes of the handler at once, from the first begin to the last end."""
    command = [sys.executable, "-m", "benchmarks.ledger", "--handler", side, str(events // handlers)]
    environment = os.environ | {
        "DATABASE_URL": invocation.as_role({"DATABASE_URL": url}, "prooftrail_ingest"),
        "PYTHONPATH": f"{PROJECT / 'functions' / 'ingest'}:{PROJECT}",
        "POWERTOOLS_SERVICE_NAME": "ingest",
        "POWERTOOLS_METRICS_NAMESPACE": "Prooftrail",
        "POWERTOOLS_LOG_LEVEL": "ERROR",
    }
    running = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(handlers)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()  # it is warm and its events are made
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    times = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    seconds: float = max(end for _, end in times) - min(begin for begin, _ in times)
    return events // handlers * handlers / seconds


def handle(side: str, count: int) -> None:
    """One handler's process: warm up, wait for the word, ingest, say from when to when."""
    import ingest
    from tests.factories import native, sqs

    tenant = f"tenant-{os.getpid()}" if side == "own-heads" else "acme"
    with without_log() if side == "no-log" else nullcontext():
        ingest.handler(sqs(native(tenant=tenant)), invocation.Context("ingest", 600))
        events = [event(native, tenant) for _ in range(count)]
        batches = [sqs(*events[first : first + BATCH]) for first in range(0, count, BATCH)]
        print("ready", flush=True)
        sys.stdin.readline()
        began = time.time()
        for batch in batches:
            ingest.handler(batch, invocation.Context("ingest", 600))
        print(json.dumps([began, time.time()]), flush=True)


def event(native: Any, tenant: str) -> dict[str, Any]:
    """About 700 bytes, as services send them."""
    return dict(
        native(
            tenant=tenant,
            message="The record was opened from the ward's list.",
            site="ward-7",
            request_id="c0ffee00-1234-4abc-9def-001122334455",
            before={"status": "open", "version": 7, "labels": ["a", "b"], "address": {"city": "Basel", "zip": "4051"}},
            after={"status": "closed", "version": 8, "labels": ["a"], "address": {"city": "Basel", "zip": "4051"}},
            metadata={"application": "ward-list", "release": "2026.10.1", "feature": {"flag": True, "rollout": 25}},
        )
    )


@contextmanager
def without_log() -> Iterator[None]:
    """No salts, no leaves, no head: batches are stored as rows that say how many events they hold."""

    def plain_row(batch: Any, position: int) -> tuple[Any, ...]:
        return (*store.to_row(batch.items[position].event, batch.id, position), None)

    def plain_batches(self: Any, batches: Mapping[str, Any]) -> dict[str, int]:
        for tenant, batch in batches.items():
            times = [item.event.time for item in batch.items]
            self._connection.execute(
                "INSERT INTO prooftrail.batch (id, tenant, event_count, min_time, max_time) VALUES (%s, %s, %s, %s, %s)",
                [batch.id, tenant, len(times), min(times), max(times)],
            )
        return dict.fromkeys(batches, 0)

    with mock.patch.object(store, "_sealed_row", plain_row), mock.patch.object(store.Store, "_extend_logs", plain_batches):
        yield


if __name__ == "__main__":
    if sys.argv[1:2] == ["--handler"]:
        handle(sys.argv[2], int(sys.argv[3]))
    else:
        main()

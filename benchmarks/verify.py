"""What verification costs: `prooftrail verify`, a process for each processor, against a plain copy of the rows.

    python -m benchmarks.verify [--events N] [--rounds N]

Prints the seconds of both sides and their ratio; wanted is at most 2.0. The copy is of the rows that verification reads
(events, their keys and the batches), as `COPY … TO STDOUT` writes them, thrown away by its reader. Verification starts its
processes besides. On two processors it is bound by both: about a third of its time is PostgreSQL's, a sixth is hashing, and
the rest is reading JSON and writing it canonically.
"""

from __future__ import annotations

import argparse
import os
import random
import time
import uuid

import psycopg

from benchmarks.side_by_side import migrated_database, ratio, server
from prooftrail import verification
from prooftrail.store import Store
from prooftrail.verification import Workers

BATCH = 1000  # events of one transaction
TENANTS = 4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=200_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    asked = arguments.parse_args()
    with server() as url, migrated_database(url) as database:
        fill(database, asked.events)
        ours, other, quotient = ratio(
            lambda: verified(database, asked.events, asked.jobs), lambda: copied(database, asked.events), asked.rounds
        )
    sides = f"verify {ours:.2f} s / copy {other:.2f} s = {quotient:.2f}"
    print(f"{asked.events} events, {asked.jobs} processes: {sides}  (wanted <= 2.00)")


def fill(url: str, count: int) -> None:
    """Store events as services send them, about 700 bytes each, of some tenants and two months."""
    from tests.factories import accepted

    chance = random.Random(1)
    with psycopg.connect(url, autocommit=True) as connection:
        store = Store(connection)
        for first in range(0, count, BATCH):
            store.append(
                [accepted(event(first + number, count, chance)) for number in range(min(BATCH, count - first))], []
            )
        connection.execute("VACUUM (ANALYZE)")


def event(number: int, count: int, chance: random.Random) -> dict[str, object]:
    """One event; half of them have a state before and after."""
    from tests.factories import native

    states = {
        "before": {"status": "open", "version": number, "labels": ["a", "b"], "address": {"city": "Basel", "zip": "4051"}},
        "after": {"status": "closed", "version": number + 1, "labels": ["a"], "address": {"city": "Basel", "zip": "4051"}},
    }
    return native(
        id=str(uuid.UUID(int=chance.getrandbits(128))),
        time=f"2026-{'09' if number < count // 2 else '10'}-{1 + number * 27 // count:02}T12:00:00.{number % 10**6:06}Z",
        tenant=f"tenant-{chance.randrange(TENANTS)}",
        sequence=number,
        category="patient",
        actor={
            "type": "user",
            "id": f"u-{chance.randrange(1000)}",
            "name": "Dr. Lee",
            "ip": "10.0.0.1",
            "roles": ["doctor"],
        },
        target={"type": "Patient", "id": f"p-{chance.randrange(10**5)}", "name": "Ann Onym"},
        message="The record was opened from the ward's list.",
        site="ward-7",
        request_id=f"{chance.getrandbits(128):032x}",
        duration_ms=round(chance.random() * 100, 3),
        metadata={"application": "ward-list", "release": "2026.10.1", "feature": {"flag": True, "rollout": 25}},
        **(states if number % 2 else {}),
    )


def verified(url: str, events: int, jobs: int) -> float:
    """Seconds to verify everything, from starting the processes on."""
    began = time.perf_counter()
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection, Workers(jobs, url, None) as workers:
        report = verification.verify(connection, workers=workers)
        took = time.perf_counter() - began
    assert (report.entries, report.findings, report.unchecked) == (events, [], []), report
    return took


def copied(url: str, events: int) -> float:
    """Seconds to copy the same rows out."""
    rows = 0
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        for table in ("event", "event_key", "batch"):
            with connection.cursor().copy(f"COPY (SELECT * FROM prooftrail.{table}) TO STDOUT") as lines:
                rows += sum(1 for _ in lines)
        took = time.perf_counter() - began
    assert rows > 2 * events
    return took


if __name__ == "__main__":
    main()

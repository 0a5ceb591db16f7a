"""What a proof costs in a large log: found, derived and proved as the API does it, at a million leaves and at ten thousand.

    python -m benchmarks.proofs [--large N] [--small N] [--proofs N] [--rounds N]

Prints milliseconds per proof of both sides and their ratio, which may be 2.00 at most. Every proof fetches its tiles anew.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import boto3
import moto
import psycopg

from benchmarks.side_by_side import migrated_database, ratio, server
from prooftrail import entries, invocation, proofs, search
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.checkpoints import Publisher
from prooftrail.database import Connection
from prooftrail.event import Actor, Event
from prooftrail.evidence import Evidence
from prooftrail.formats import Accepted, RawRecord
from prooftrail.ledger.merkle import Frontier
from prooftrail.signing import SecretKey
from prooftrail.store import Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ORIGIN = "bench.example"
BATCH = 1000  # leaves
EVENTS = 200  # of a log that are stored and can be proved; of the rest there are the leaf hashes only
NOW = datetime(2026, 10, 1, tzinfo=UTC)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--large", type=int, default=1_000_000)
    arguments.add_argument("--small", type=int, default=10_000)
    arguments.add_argument("--proofs", type=int, default=100, help="proofs a round and side")
    arguments.add_argument("--rounds", type=int, default=9)
    asked = arguments.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}
    with moto.mock_aws(), server() as server_url, migrated_database(server_url) as url:
        boto3.client("s3").create_bucket(Bucket="evidence")
        grow(url, "large", asked.large)
        grow(url, "small", asked.small)
        with psycopg.connect(as_role(url, "query"), autocommit=True) as connection:
            of_large, of_small = (
                functools.partial(milliseconds, connection, tenant, asked.proofs) for tenant in ("large", "small")
            )
            large, small, quotient = ratio(of_large, of_small, asked.rounds)
    sizes = f"proof at {asked.large:,} leaves / at {asked.small:,}"
    print(f"{sizes}: {large:.2f} / {small:.2f} ms = {quotient:.2f}  (wanted <= 2.00)")


def as_role(url: str, role: str) -> str:
    return invocation.as_role({"DATABASE_URL": url}, f"prooftrail_{role}")


def grow(url: str, tenant: str, leaves: int) -> None:
    """Make a log of so many leaves, with events evenly between leaves that are made up, and publish its checkpoint."""
    with psycopg.connect(url, autocommit=True) as admin:
        store, between = Store(admin), leaves // EVENTS - 1
        for number in range(EVENTS):
            event = Event(
                id=str(number), time=NOW, tenant=tenant, source="bench", action="patient.read", actor=Actor(id=f"u{number}")
            )
            store.append([Accepted(RawRecord(f"{tenant}:{number}", b""), event)], [])
            for start in range(0, between, BATCH):
                append_made_up(admin, tenant, min(BATCH, between - start))
    with psycopg.connect(as_role(url, "checkpoint"), autocommit=True) as connection:
        publisher, size = Publisher(Evidence("evidence"), [SecretKey(bytes(32))], ORIGIN), 0
        while size < leaves:
            size = publisher.step(connection, tenant, size).checkpoint.size


def append_made_up(admin: Connection, tenant: str, count: int) -> None:
    """Append a batch of which there are leaf hashes only, as the store would."""
    leaves = [random.randbytes(32) for _ in range(count)]
    with admin.transaction():
        row = admin.execute("SELECT size, frontier FROM prooftrail.log WHERE tenant = %s", [tenant]).fetchone()
        assert row is not None
        frontier = Frontier.from_bytes(*row)
        frontier.extend(leaves)
        admin.execute(
            "UPDATE prooftrail.log SET size = %s, frontier = %s WHERE tenant = %s",
            [frontier.size, frontier.to_bytes(), tenant],
        )
        admin.execute(
            """
            INSERT INTO prooftrail.batch (id, tenant, event_count, min_time, max_time, first_index, leaf_hashes, root)
            VALUES (nextval('prooftrail.batch_id_seq'), %s, %s, %s, %s, %s, %s, %s)
            """,
            [tenant, count, NOW, NOW, row[0], b"".join(leaves), frontier.root()],
        )


def milliseconds(connection: Connection, tenant: str, count: int) -> float:
    """The mean time of a proof, from the event's id to the file, with nothing kept from the one before."""
    archive = ArchiveBucket("none")
    began = time.perf_counter()
    for number in random.choices(range(EVENTS), k=count):
        with search.reading_as(connection, tenant):
            (owner,) = search.owners(connection, tenant, str(number), None)
            entry = proofs.place(connection, entries.find(connection, archive, owner, str(number)))
            proofs.inclusion(connection, Evidence("evidence", s3()), tenant, entry).encode()
    return (time.perf_counter() - began) / count * 1000


@functools.cache
def s3() -> S3Client:
    """One client for all, as a warm function has it: its making costs more than a proof."""
    return boto3.client("s3")


if __name__ == "__main__":
    main()

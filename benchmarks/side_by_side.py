"""What every benchmark shares: fresh databases on one server, and two sides measured in turns, so that only ratios count.

The server is the one that DATABASE_URL names, else the wheel's own, started for the run.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from local import ports, postgres
from prooftrail import migrations

PROJECT = Path(__file__).parents[1]


@contextmanager
def server() -> Iterator[str]:
    """The admin's URL of a running server."""
    if "DATABASE_URL" in os.environ:
        yield os.environ["DATABASE_URL"]
        return
    with tempfile.TemporaryDirectory() as directory:
        own = postgres.Server(Path(directory) / "data", Path(directory) / "log")
        try:
            yield own.start(ports.choose("postgres", Path(directory), None), postgres.new_password()).url
        finally:
            own.stop()


@contextmanager
def migrated_database(server_url: str) -> Iterator[str]:
    """The URL of a new, migrated, empty database, dropped afterwards."""
    name = f"prooftrail_bench_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        try:
            url = make_conninfo(server_url, dbname=name)
            with psycopg.connect(url, autocommit=True) as connection:
                migrations.apply(connection, PROJECT / "migrations")
            yield url
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def ratio(ours: Callable[[], float], other: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Measure both sides in turns, the first to go changing each time, after one unmeasured round of each.

    Returns the median of ours, of the other, and the median of each round's ours / other.
    """
    ours(), other()
    pairs = []
    for number in range(rounds):
        if number % 2:
            b, a = other(), ours()
        else:
            a, b = ours(), other()
        pairs.append((a, b))
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )

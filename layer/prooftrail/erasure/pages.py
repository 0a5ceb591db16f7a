"""The pages in which PostgreSQL still has what nobody can ask for any more."""

from __future__ import annotations

import time
from datetime import date

import psycopg
from psycopg import sql

from prooftrail import segments
from prooftrail.database import Connection
from prooftrail.erasure.record import Busy

PATIENCE = 60.0  # seconds to wait for older transactions, which may still see what is to go


def scrub(connection: Connection, patience: float = PATIENCE) -> list[date]:
    """Rewrite the pages that held erased values, as the owner of the tables; returns the months.

    An erased row is a dead version in a page and a free gap after VACUUM, but in no page after VACUUM FULL, which lets
    nobody read or write that month meanwhile. Raises `Busy` where older transactions may still see such versions.
    """
    erased = connection.execute(
        "SELECT id, months FROM prooftrail.erasure WHERE begun_in IS NOT NULL AND state = 'done' AND rewritten_at IS NULL"
    ).fetchall()
    if not erased:
        return []
    _wait_for_older_transactions(connection, patience)
    months = sorted({month for _, of_erasure in erased for month in of_erasure} & set(segments.months(connection)))
    tables = [f"event_{month:%Y_%m}" for month in months]
    try:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(f"{patience:.0f}s"))
        for table in [*tables, "quarantine", "hold", "erasure_segment", "erasure"]:
            connection.execute(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(sql.Identifier("prooftrail", table)))
    except psycopg.errors.LockNotAvailable as error:
        raise Busy(f"{table} was in use for {patience:.0f} s on end: come again when it is not") from error
    finally:
        connection.execute("RESET lock_timeout")
    connection.execute("VACUUM prooftrail.event_key")  # of all tenants and times; what went from it were digests
    connection.execute(
        "UPDATE prooftrail.erasure SET rewritten_at = clock_timestamp() WHERE id = ANY(%s)", [[id for id, _ in erased]]
    )
    return months


def _wait_for_older_transactions(connection: Connection, patience: float) -> None:
    """Wait for every transaction that may still see old rows: VACUUM FULL would copy these for it.

    One that writes counts in whichever database of the server it is, for a snapshot goes back to the oldest of them all.
    """
    deadline = time.monotonic() + patience
    row = connection.execute("SELECT pg_current_xact_id()::xid::text").fetchone()
    assert row is not None
    while True:
        older = connection.execute(
            """
            SELECT FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND (
                age(backend_xid) > age(%(now)s::xid)
                OR (datname IS NULL OR datname = current_database()) AND age(backend_xmin) > age(%(now)s::xid)
            )
            """,
            {"now": row[0]},
        )
        if older.fetchone() is None:
            return
        if time.monotonic() > deadline:
            raise Busy("transactions that began before the erasure still run and see the old rows: come again after them")
        time.sleep(0.2)

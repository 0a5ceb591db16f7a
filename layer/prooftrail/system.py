"""Prooftrail's own events (a read, an archive step, a new key) go into the log like all others, from any function."""

from __future__ import annotations

import msgspec

from prooftrail.database import Connection
from prooftrail.event import Actor, Event
from prooftrail.store import Store

WRITER = "prooftrail_ingest"


def record(connection: Connection, *events: Event) -> None:
    """Append own events (see `event.own_event`) in the caller's transaction, once in it and as its last step.

    What the caller did and the record of it become durable together or not at all. Who did it is the login, where an event
    names nobody. Turns into the writer's role for that
    moment where the login may: the functions' logins may, and an owner who may not has no need to.
    """
    row = connection.execute(
        """
        SELECT role, CASE WHEN pg_has_role(session_user, %(writer)s, 'MEMBER') THEN set_config('role', %(writer)s, true) END
        FROM current_setting('role') AS role
        """,
        {"writer": WRITER},
    ).fetchone()
    assert row is not None
    Store(connection).append_own(*(_by_somebody(connection, event) for event in events))
    connection.execute("SELECT set_config('role', %s, true)", [row[0]])


def login(connection: Connection) -> Actor:
    """Who is logged in to the database, whatever role it took."""
    row = connection.execute("SELECT session_user").fetchone()
    assert row is not None
    return Actor(type="database_login", id=row[0])


def _by_somebody(connection: Connection, event: Event) -> Event:
    return event if event.actor else msgspec.structs.replace(event, actor=login(connection))

"""Holds: what must not be erased, for good or for a time; the database compares erasures with them (see `erasure`)."""

from __future__ import annotations

from datetime import datetime

import msgspec
from psycopg import sql

from prooftrail import system
from prooftrail.database import Connection
from prooftrail.errors import PermanentError
from prooftrail.event import Event, Target, own_event


class UnknownHold(PermanentError):
    """There is no such hold, or it was released already."""


class Hold(msgspec.Struct, frozen=True):
    """A hold on a tenant's events, of an actor, on a target, or on both; None means every one.

    Without `keep_months` the events stay until it is released, with it while they are younger than so many months.
    """

    id: int
    tenant: str
    actor_id: str | None
    target_id: str | None
    keep_months: int | None
    reason: str
    placed_by: str
    placed_at: datetime
    released_at: datetime | None


_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, Hold.__struct_fields__))


def place(
    connection: Connection,
    tenant: str,
    reason: str,
    *,
    actor_id: str | None = None,
    target_id: str | None = None,
    keep_months: int | None = None,
) -> Hold:
    """Place a hold, and record it in the tenant's log.

    Waits for an erasure that is beginning; raises `psycopg.errors.ObjectNotInPrerequisiteState` where it is too late.
    """
    query = sql.SQL(
        "INSERT INTO prooftrail.hold (tenant, actor_id, target_id, keep_months, reason, placed_by) "
        "VALUES (%s, %s, %s, %s, %s, session_user) RETURNING {}"
    )
    with connection.transaction():
        row = connection.execute(query.format(_COLUMNS), [tenant, actor_id, target_id, keep_months, reason]).fetchone()
        assert row is not None
        hold = Hold(*row)
        system.record(connection, _event("hold.place", hold))
    return hold


def release(connection: Connection, id: int) -> Hold:
    """Release a hold, and record it in the tenant's log. Raises `UnknownHold` where there is none in force."""
    query = sql.SQL(
        "UPDATE prooftrail.hold SET released_at = clock_timestamp() WHERE id = %s AND released_at IS NULL RETURNING {}"
    )
    with connection.transaction():
        row = connection.execute(query.format(_COLUMNS), [id]).fetchone()
        if row is None:
            raise UnknownHold(f"expected the number of a hold in force (see `prooftrail hold list`), got {id}")
        hold = Hold(*row)
        system.record(connection, _event("hold.release", hold))
    return hold


def listing(connection: Connection) -> list[Hold]:
    """All holds ever placed, oldest first."""
    query = sql.SQL("SELECT {} FROM prooftrail.hold ORDER BY id").format(_COLUMNS)
    return [Hold(*row) for row in connection.execute(query)]


def _event(action: str, hold: Hold) -> Event:
    """What was placed or released, but not on whom: the log would keep that when the person is erased."""
    said = {
        "hold": hold.id,
        "of": [part for part, id in (("actor", hold.actor_id), ("target", hold.target_id)) if id is not None],
        "keep_months": hold.keep_months,
        "reason": hold.reason,
    }
    return own_event(action, tenant=hold.tenant, target=Target(type="hold", id=str(hold.id)), metadata=said)

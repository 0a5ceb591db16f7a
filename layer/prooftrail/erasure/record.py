"""Erasures on record: asked for, approved, and how far each has come."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from prooftrail.api_keys import hash_of
from prooftrail.database import Connection
from prooftrail.errors import PermanentError, RetryableError
from prooftrail.event import OWN_TENANT

Part: TypeAlias = Literal["actor", "target"]


class Refused(PermanentError):
    """An erasure that must not be done; nothing was changed."""


class Busy(RetryableError):
    """Somebody else is at what is to be erased; nothing was changed."""


class Forbidden(PermanentError):
    """The key may not ask for it, or not approve it."""


class Conflict(PermanentError):
    """The same is under way already, or it is too late for that step."""


class EntryDiffers(PermanentError):
    """An entry is not what its log committed to: erasing it would hide that. `prooftrail verify` tells more."""


class Erasure(msgspec.Struct, frozen=True):
    """An erasure on record; `subject_id` is the person, as long as it is not done or refused."""

    id: int
    tenant: str
    part: Part
    subject_id: str | None
    reason: str
    state: Literal["requested", "approved", "running", "done", "refused"]
    requested_by: int | None
    approved_by: int | None
    requested_at: datetime
    approved_at: datetime | None
    begun_at: datetime | None
    finished_at: datetime | None
    refusal: str | None
    entries: int
    quarantined: int
    rewritten_at: datetime | None

    def logs(self) -> list[str]:
        """The tenants whose logs may name the person: its own, and that of reads which found nobody's events."""
        return sorted({self.tenant, OWN_TENANT})


_COLUMNS = sql.SQL(", ").join(map(sql.Identifier, Erasure.__struct_fields__))


def get(connection: Connection, id: int) -> Erasure | None:
    """The erasure of that number, None where there is none (that the connection may see)."""
    found = _listing(connection, sql.SQL("id = {}").format(sql.Literal(id)))
    return found[0] if found else None


def listing(connection: Connection, before: int | None = None, limit: int | None = None) -> list[Erasure]:
    """Up to `limit` erasures (that the connection may see), newest first, from just before number `before`."""
    condition = sql.SQL("true") if before is None else sql.SQL("id < {}").format(sql.Literal(before))
    return _listing(connection, condition, limit)


def waiting(connection: Connection) -> list[Erasure]:
    """Those that are approved and not done."""
    return _listing(connection, sql.SQL("state IN ('approved', 'running')"))


def _listing(connection: Connection, condition: sql.Composable, limit: int | None = None) -> list[Erasure]:
    query = sql.SQL("SELECT {} FROM prooftrail.erasure WHERE {} ORDER BY id DESC LIMIT %s").format(_COLUMNS, condition)
    return [Erasure(*row) for row in connection.execute(query, [limit])]


def request(connection: Connection, key: str, tenant: str, part: Part, subject: str, *, reason: str) -> int:
    """Ask for an erasure with a privacy key; it waits for another one's approval. Raises `Forbidden`, `Conflict`."""
    try:
        row = connection.execute(
            "SELECT prooftrail.request_erasure(%s, %s, %s, %s, %s)", [hash_of(key), tenant, part, subject, reason]
        ).fetchone()
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(error.diag.message_primary or "") from error
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"an erasure of this {part} is under way already") from error
    assert row is not None
    return int(row[0])


def approve(connection: Connection, key: str, id: int) -> None:
    """Approve an erasure with another privacy key than it was asked for with. Raises `Forbidden`, `Conflict`."""
    try:
        connection.execute("SELECT prooftrail.approve_erasure(%s, %s)", [hash_of(key), id])
    except psycopg.errors.InsufficientPrivilege as error:
        raise Forbidden(error.diag.message_primary or "") from error
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise Conflict(error.diag.message_primary or "") from error


def order(connection: Connection, tenant: str, part: Part, subject: str, reason: str) -> int:
    """Ask for an erasure as the administrator, who needs nobody's approval; one that is under way is taken up."""
    row = connection.execute(
        """
        INSERT INTO prooftrail.erasure (tenant, part, subject_id, reason, state, approved_at)
        VALUES (%s, %s, %s, %s, 'approved', clock_timestamp())
        ON CONFLICT (tenant, part, subject_id) WHERE subject_id IS NOT NULL DO UPDATE
        SET state = CASE erasure.state WHEN 'requested' THEN 'approved' ELSE erasure.state END,
            approved_at = coalesce(erasure.approved_at, clock_timestamp())
        RETURNING id
        """,
        [tenant, part, subject, reason],
    ).fetchone()
    assert row is not None
    return int(row[0])


def known(connection: Connection, id: int) -> Erasure:
    """As `get`. Raises `Refused` where there is none."""
    erasure = get(connection, id)
    if erasure is None:
        raise Refused(f"expected the number of an erasure, got {id}")
    return erasure

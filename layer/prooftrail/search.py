"""Find events: filters, newest first, page by page without counting or skipping.

The order is (time, batch_id, position), which is total and never changes, so a cursor is a place in it and a page costs
the same wherever it is.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from psycopg import sql

from prooftrail.api_keys import ALL_TENANTS
from prooftrail.database import Connection
from prooftrail.errors import PermanentError
from prooftrail.event import OWN_SOURCE, Event, Time
from prooftrail.store import COLUMNS, JSON_COLUMNS, from_row

# What a filter is called outside and which column it compares.
FILTERS = {
    "actor": "actor_id",
    "action": "action",
    "target_type": "target_type",
    "target_id": "target_id",
    "outcome": "outcome",
    "source": "source",
}
_FETCH = 100  # rows asked of the server at a time

_Place = TypeVar("_Place")


class InvalidCursor(PermanentError):
    """The cursor is not one that was given out, or not for this question."""

    def __init__(self, message: str = "expected a cursor from a previous answer's `next`, got something else") -> None:
        super().__init__(message)


class Question(msgspec.Struct, frozen=True):
    """What to find: a tenant (`ALL_TENANTS` for every one), `since` <= time < `until`, and columns that must equal."""

    tenant: str
    since: datetime | None = None
    until: datetime | None = None
    equal: Mapping[str, str] = {}

    def fingerprint(self) -> bytes:
        """Eight bytes that tell this question from others, so that a cursor is not used for another question."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).digest()[:8]


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where an event stands in the order of all."""

    time: Time
    batch_id: int
    position: int


class Found(msgspec.Struct, frozen=True):
    """An event and its place."""

    event: Event
    place: Place


@contextmanager
def reading_as(connection: Connection, tenant: str, *, one_moment: bool = False) -> Iterator[None]:
    """Open a read-only transaction that sees one tenant (or `ALL_TENANTS`) and, by row-level security, nothing else.

    With `one_moment` it sees all as it was at one moment, and no month is archived meanwhile.
    """
    with connection.transaction():
        if one_moment:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            # Before the first query, which is when the moment is: a month that is gone afterwards is in the manifest then.
            connection.execute("LOCK TABLE prooftrail.event IN ACCESS SHARE MODE")
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("SELECT set_config('prooftrail.tenant', %s, true)", [tenant])
        yield


def events(connection: Connection, question: Question, after: Place | None, limit: int) -> Iterator[Found]:
    """Yield up to `limit` events, newest first, from just after the place `after`; inside `reading_as`."""
    conditions, values = _conditions(question, after)
    one_tenant = sql.SQL(
        "SELECT {columns} FROM prooftrail.event WHERE {conditions} "
        "ORDER BY time DESC, batch_id DESC, position DESC LIMIT {limit}"
    ).format(columns=_select_list(), conditions=sql.SQL(" AND ").join(conditions), limit=limit)
    query: sql.Composed = one_tenant
    if question.tenant == ALL_TENANTS:
        # Each tenant's newest by its own index, then the newest of those: no month is ever sorted as a whole.
        query = sql.SQL(
            "SELECT newest.* FROM prooftrail.tenant CROSS JOIN LATERAL ({one_tenant}) AS newest "
            "ORDER BY time DESC, batch_id DESC, position DESC LIMIT {limit}"
        ).format(one_tenant=one_tenant, limit=limit)
    with connection.cursor() as cursor:
        for row in cursor.stream(query, values, size=_FETCH):
            yield Found(from_row(row), Place(row[1], row[2], row[3]))


class Owner(NamedTuple):
    """Whose event an id belongs to, and when it happened."""

    tenant: str
    source: str
    time: datetime

    @property
    def month(self) -> date:
        """The month that it is stored in and archived with."""
        return self.time.astimezone(UTC).date().replace(day=1)


def owners(connection: Connection, tenant: str, id: str, source: str | None) -> list[Owner]:
    """Whose events have the id, in PostgreSQL or archived; inside `reading_as`."""
    if "\0" in id or id != id.encode("utf-8", "replace").decode():  # neither NUL nor lone surrogates are ever stored
        return []
    rows = connection.execute(
        """
        SELECT event_key.tenant, event_key.source, event_key.time
        FROM prooftrail.tenant JOIN prooftrail.event_key ON event_key.tenant = tenant.name AND event_key.id = %(id)s
        WHERE %(tenant)s IN (tenant.name, '*') AND coalesce(event_key.source = %(source)s, true)
        """,
        {"id": id, "tenant": tenant, "source": source},
    )
    return [Owner(*row) for row in rows]


def by_id(connection: Connection, owner: Owner, id: str) -> Event | None:
    """The owner's event of that id, None where it is not in PostgreSQL; inside `reading_as`."""
    query = sql.SQL("SELECT {} FROM prooftrail.event WHERE tenant = %s AND source = %s AND time = %s AND id = %s").format(
        _select_list()
    )
    row = connection.execute(query, [*owner, id]).fetchone()
    return None if row is None else from_row(row)


def _conditions(question: Question, after: Place | None) -> tuple[list[sql.Composable], dict[str, Any]]:
    values: dict[str, Any] = {"tenant": question.tenant}
    named = question.tenant != ALL_TENANTS
    conditions: list[sql.Composable] = [sql.SQL("tenant = %(tenant)s" if named else "tenant = tenant.name")]
    if "source" not in question.equal:  # our own events are answered to who asks for them
        conditions.append(sql.SQL("source <> {}").format(OWN_SOURCE))
    for name, value in question.equal.items():
        conditions.append(sql.SQL("{} = {}").format(sql.Identifier(FILTERS[name]), sql.Placeholder(name)))
        values[name] = value
    if question.since is not None:
        conditions.append(sql.SQL("time >= %(since)s"))
        values["since"] = question.since
    if question.until is not None:
        conditions.append(sql.SQL("time < %(until)s"))
        values["until"] = question.until
    if after is not None:
        # The first comparison is implied by the second; it is what lets the planner leave newer months out.
        conditions.append(sql.SQL("time <= %(at)s AND (time, batch_id, position) < (%(at)s, %(batch)s, %(position)s)"))
        values |= {"at": after.time, "batch": after.batch_id, "position": after.position}
    return conditions, values


def _select_list() -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{0}::text AS {0}" if name in JSON_COLUMNS else "{}").format(sql.Identifier(name)) for name in COLUMNS
    )


def encode_cursor(place: Any, mark: bytes = b"") -> str:
    """Write a place as an opaque word that goes in a URL; `mark` tells the question that it belongs to from others."""
    return base64.urlsafe_b64encode(mark + msgspec.msgpack.encode(place)).rstrip(b"=").decode()


def decode_cursor(cursor: str, kind: type[_Place], mark: bytes = b"") -> _Place:
    """Read a cursor that `encode_cursor` wrote with the same mark. Raises `InvalidCursor` for anything else."""
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        place = msgspec.msgpack.decode(packed[len(mark) :], type=kind)
    except (ValueError, msgspec.MsgspecError):
        raise InvalidCursor from None
    if not packed.startswith(mark):
        raise InvalidCursor("the cursor belongs to another question: repeat all filters unchanged, or leave it out")
    return place

"""The quarantine: what could not become an event rests here with its bytes, until it is read again or discarded.

A record waits; a replay after a fix turns it into the events that it would have been, under the identity that it would
have had, because that comes from its origin, its bytes and its headers, all of which are kept. Each attempt, and each
discarding, is an event in our own log, as putting it here was; verification compares the records with these.

There is no replay under a new identity: a record whose identity belongs to an event of other content was sent with an id
that was not unique, and under one that its producer never gave it, it would be nobody's. It can be discarded, and its
producer told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias

import msgspec
import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from prooftrail import formats, system
from prooftrail.database import Connection
from prooftrail.errors import PermanentError, RetryableError
from prooftrail.event import Event, Target, own_event
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from prooftrail.settings import IngestSettings
from prooftrail.store import Receipt, Store, storable

State: TypeAlias = Literal["waiting", "replayed", "discarded"]
Read: TypeAlias = Callable[[RawRecord], Iterable[Accepted | Rejected]]

FORBIDDEN = "PT403"  # the SQLSTATE by which the database says that a hold forbids it
MOST_NAMED = 100  # events of one record, in the record of its replay


class UnknownRecord(PermanentError):
    """No record in quarantine has that number."""


class NotWaiting(PermanentError):
    """The record was replayed or discarded already, or its bytes are gone."""


class Held(PermanentError):
    """A hold forbids to clear the record's bytes."""


class Identity(msgspec.Struct, frozen=True):
    """What identifies an event."""

    tenant: str
    source: str
    id: str


class Quarantined(msgspec.Struct, frozen=True):
    """What may be told of a record besides its content, whose length in bytes and SHA-256 (hexadecimal) are given.

    `reason` and `detail` say what the last attempt came upon. `became` are the events of a replayed one, the first hundred
    of them; `cleared_at` is when its content went.
    """

    id: int
    origin: str
    received_at: datetime
    state: State
    reason: str
    detail: str
    bytes: int
    sha256: str
    attempts: int
    settled_at: datetime | None
    settled_by: str | None
    became: list[Identity] | None
    discard_reason: str | None
    cleared_at: datetime | None


class Filter(msgspec.Struct, frozen=True):
    """Which records: of a state (None: any), with a reason, whose origin begins so, received at `since` or later."""

    state: State | None = "waiting"
    reason: str | None = None
    origin: str | None = None
    since: datetime | None = None


class Stored(msgspec.Struct, frozen=True):
    """An event of a replayed record; `index` is its place in its tenant's log, if it is new there."""

    event: Identity
    status: Literal["stored", "duplicate"]
    index: int | None


class Attempt(msgspec.Struct, frozen=True):
    """How a replay ended: with the record's events, and the parts that went to quarantine alone; or with a refusal.

    After a refusal the record waits as before, and its `reason` and `detail` are the new ones.
    """

    id: int
    origin: str
    stored: list[Stored] = []
    parts: int = 0
    reason: str | None = None
    detail: str | None = None


_DERIVED = {"bytes": sql.SQL("length(raw)"), "sha256": sql.SQL("encode(sha256(raw), 'hex')")}
_COLUMNS = sql.SQL(", ").join(_DERIVED.get(name, sql.Identifier(name)) for name in Quarantined.__struct_fields__)


def reading(given: IngestSettings) -> Read:
    """How ingest reads records by now, where its function was given these settings.

    What makes that fail, for a fault of ours, is refused with the reason that ingest has for it.
    """
    defaults = Defaults.parse(given.default_tenant, given.default_formats, given.default_timezone)

    def read(record: RawRecord) -> list[Accepted | Rejected]:
        try:
            return list(formats.read(record, datetime.now(UTC) + timedelta(hours=given.max_future_hours), defaults))
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001  # others wait behind it
            return [Rejected(record, "reader-failed", f"reading it failed, replay it after an update: {error!r}")]

    return read


def listing(connection: Connection, wanted: Filter, before: int | None, limit: int) -> list[Quarantined]:
    """Up to `limit` records, the last one that came first, from just before number `before`."""
    query = sql.SQL(
        "SELECT {columns} FROM prooftrail.quarantine WHERE {conditions} AND coalesce(id < %(before)s, true) "
        "ORDER BY id DESC LIMIT %(limit)s"
    ).format(columns=_COLUMNS, conditions=_conditions(wanted))
    rows = connection.execute(query, _values(wanted) | {"before": before, "limit": limit})
    return [_quarantined(row) for row in rows]


def get(connection: Connection, id: int) -> Quarantined:
    """One record. Raises `UnknownRecord` where there is none."""
    row = connection.execute(
        sql.SQL("SELECT {} FROM prooftrail.quarantine WHERE id = %s").format(_COLUMNS), [id]
    ).fetchone()
    if row is None:
        raise _unknown(id)
    return _quarantined(row)


def content(connection: Connection, id: int) -> RawRecord:
    """What the source handed over. Raises `UnknownRecord` where there is none; what was cleared is empty."""
    row = connection.execute("SELECT origin, raw, headers FROM prooftrail.quarantine WHERE id = %s", [id]).fetchone()
    if row is None:
        raise _unknown(id)
    return RawRecord(*row)


def waiting(connection: Connection, wanted: Filter) -> list[int]:
    """The numbers of the records that a replay may take up, in the order in which they came."""
    query = sql.SQL("SELECT id FROM prooftrail.quarantine WHERE {} AND cleared_at IS NULL ORDER BY id").format(
        _conditions(msgspec.structs.replace(wanted, state="waiting"))
    )
    return [id for (id,) in connection.execute(query, _values(wanted) | {"state": "waiting"})]


def replay(connection: Connection, id: int, read: Read) -> Attempt:
    """Read a record again, as `read` does by now, and store what it holds, or keep it waiting with the new reason.

    Everything of it is one transaction. What is stored already, by a redelivery perhaps, counts as a duplicate, and the
    record is replayed all the same. A part that is no event itself goes to quarantine under its own origin, as ever.
    Raises `UnknownRecord`, `NotWaiting`, and what `read` raises where it cannot be read at the moment.
    """
    with connection.transaction():
        record = _take(connection, id)
        outcomes = list(read(record))
        accepted = [outcome for outcome in outcomes if isinstance(outcome, Accepted)]
        rejected = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
        return _store(connection, id, record, accepted, rejected)
        # Commit. A crash before it leaves the record waiting as it was, and nothing of it stored; after it the record, its
        # events and the record of the attempt are durable together.


def discard(connection: Connection, id: int, reason: str, *, clear: bool = False) -> None:
    """Give a record up, and record why; with `clear` its bytes and headers go for good, of a discarded one too.

    Raises `UnknownRecord` or `NotWaiting`, and `Held` where they must not go.
    """
    with connection.transaction():
        origin = get(connection, id).origin
        try:
            connection.execute("SELECT prooftrail.discard_quarantined(%s, %s, %s)", [id, reason, clear])
        except psycopg.errors.ObjectNotInPrerequisiteState:
            raise _not_waiting(id) from None
        except psycopg.DatabaseError as error:
            if error.sqlstate != FORBIDDEN:
                raise
            raise Held(f"{error.diag.message_primary}: discard it without --clear, or release the hold") from None
        said = {"reason": reason, "cleared": clear}
        system.record(connection, _event("quarantine.discard", origin, metadata=said))
        # Commit. Before it the record waits as it was; after it the log says why it does not.


def _take(connection: Connection, id: int) -> RawRecord:
    """A waiting record, which nobody else settles before this transaction ends."""
    row = connection.execute(
        "SELECT origin, raw, headers, state = 'waiting' AND cleared_at IS NULL FROM prooftrail.quarantine WHERE id = %s "
        "FOR UPDATE",
        [id],
    ).fetchone()
    if row is None:
        raise _unknown(id)
    if not row[-1]:
        raise _not_waiting(id)
    return RawRecord(*row[:-1])


def _store(
    connection: Connection, id: int, record: RawRecord, accepted: Sequence[Accepted], rejected: Sequence[Rejected]
) -> Attempt:
    """Store what was accepted, unless the record itself is refused: by what read it, or by what is stored already.

    That it was replayed is stored along with its events, because logs are locked in one order and once in a transaction;
    so it must be known what it says, and what the store turns down is taken back and tried again without.
    """
    while (refusal := _of_itself(record, rejected)) is None:
        became = [Identity(*_identity(item.event)) for item in accepted]
        said: dict[str, Any] = {"events": len(became), "became": _named(became), "quarantined": len(rejected)}
        replayed = _event("quarantine.replay", record.origin, actor=system.login(connection), metadata=said)
        with connection.transaction() as savepoint:
            receipts = Store(connection).append([*accepted, Accepted(record, replayed)], rejected)[:-1]
            refusals = [receipt.refusal for receipt in receipts if receipt.refusal is not None]
            if refusals:
                raise psycopg.Rollback(savepoint)
            connection.execute("SELECT prooftrail.settle_replayed(%s, %s)", [id, Jsonb(_named(became))])
        if not refusals:
            return Attempt(id, record.origin, list(map(_stored, became, receipts)), len(rejected))
        accepted = [item for item, receipt in zip(accepted, receipts, strict=True) if receipt.refusal is None]
        rejected = [*rejected, *refusals]
    return _keep(connection, id, refusal)


def _of_itself(record: RawRecord, rejected: Iterable[Rejected]) -> Rejected | None:
    """Why the record is refused as a whole; a part of it has an origin of its own."""
    return next((item for item in rejected if item.record.origin == record.origin), None)


def _keep(connection: Connection, id: int, refusal: Rejected) -> Attempt:
    """Let the record wait on, with the new reason, and record the attempt."""
    detail = storable(refusal.detail)
    connection.execute("SELECT prooftrail.keep_waiting(%s, %s, %s)", [id, refusal.reason, detail])
    origin = refusal.record.origin
    event = _event("quarantine.replay", origin, outcome="failure", metadata={"reason": refusal.reason})
    system.record(connection, event)
    return Attempt(id, origin, reason=refusal.reason, detail=detail)


def _event(action: str, origin: str, **fields: Any) -> Event:
    return own_event(action, target=Target(type="record", id=origin), **fields)


def _identity(event: Event) -> tuple[str, str, str]:
    return event.tenant, event.source, event.id


def _named(became: Sequence[Identity]) -> list[dict[str, str]]:
    return [msgspec.to_builtins(identity) for identity in became[:MOST_NAMED]]


def _stored(event: Identity, receipt: Receipt) -> Stored:
    assert receipt.status != "quarantined"
    return Stored(event, receipt.status, receipt.index)


def _conditions(wanted: Filter) -> sql.Composable:
    conditions = {
        "state": sql.SQL("state = %(state)s"),
        "reason": sql.SQL("reason = %(reason)s"),
        "origin": sql.SQL("starts_with(origin, %(origin)s)"),
        "since": sql.SQL("received_at >= %(since)s"),
    }
    used = [condition for name, condition in conditions.items() if getattr(wanted, name) is not None]
    return sql.SQL(" AND ").join([sql.SQL("true"), *used])


def _values(wanted: Filter) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in Filter.__struct_fields__}


def _quarantined(row: Sequence[Any]) -> Quarantined:
    value = dict(zip(Quarantined.__struct_fields__, row, strict=True))
    return Quarantined(**value | {"became": msgspec.convert(value["became"], list[Identity] | None)})


def _unknown(id: int) -> UnknownRecord:
    return UnknownRecord(f"expected the number of a record in quarantine (see `prooftrail quarantine list`), got {id}")


def _not_waiting(id: int) -> NotWaiting:
    return NotWaiting(f"record {id} does not wait: it was replayed or discarded, or its bytes were cleared")

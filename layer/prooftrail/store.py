"""Append: one transaction in which every record becomes stored, duplicate or quarantined.

The transaction, in order: claim the keys (which says what is new), compare what was known, put away what is unacceptable,
open a batch per tenant, copy the events. Nothing is durable before its commit; after it everything is, and a crash between
the commit and the acknowledgement means a redelivery that finds duplicates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from prooftrail.database import Connection
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import Accepted, Rejected

COLUMNS = (
    "tenant", "time", "batch_id", "position", "id", "source", "sequence", "category", "action", "level", "outcome",
    "actor_type", "actor_id", "actor_name", "actor_ip", "actor_user_agent", "actor_session_id", "actor_roles",
    "target_type", "target_id", "target_name", "site", "message", "before", "after",
    "error_code", "error_message", "error_stack_trace", "duration_ms", "request_id", "trace_id", "metadata",
)  # fmt: skip

# The database judges last: what passed our checks and is refused all the same can never be stored.
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)

_NOBODY, _NOTHING, _NO_ERROR = Actor(), Target(), Error()


class Tally(msgspec.Struct, frozen=True):
    """How many events ended how."""

    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.stored + other.stored, self.duplicate + other.duplicate, self.quarantined + other.quarantined)


class Store:
    """The log's writing end, on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._partitions: set[date] = set()  # known to be there; the archive may drop one at any time

    def uses(self, connection: Connection) -> bool:
        """Tell whether this is the connection it writes to."""
        return self._connection is connection

    def append(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Tally:
        """Store the accepted and quarantine the rejected, all or nothing; says how many ended how.

        Raises `psycopg.OperationalError` for faults that pass; then nothing was stored, or, if the connection broke while
        committing, perhaps everything: appending again finds out.
        """
        try:
            return self._append_known(accepted, rejected)
        except psycopg.errors.UndefinedTable:  # a month was archived since we last looked
            self._partitions.clear()
            return self._append_known(accepted, rejected)
        except _REFUSALS as error:
            return self._append_around(error, accepted, rejected)

    def _append_around(self, error: psycopg.Error, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Tally:
        """Halve until the event that the database refuses stands alone, and quarantine it with the database's words."""
        if not accepted:
            raise error
        if len(accepted) == 1:
            culprit = accepted[0]
            refused = Rejected(culprit.origin, culprit.raw, "refused-by-database", str(error))
            return self._append_known([], [*rejected, refused])
        middle = len(accepted) // 2
        return self.append(accepted[:middle], rejected) + self.append(accepted[middle:], [])

    def _append_known(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> Tally:
        self._ensure_partitions(item.event.time for item in accepted)
        firsts, digests, rejections = _first_of_each_key(accepted)
        with self._connection.transaction():
            new = self._claim_keys(firsts, digests)
            known = [item for item in firsts if item.event.key not in new]
            rejections += self._conflicts(known, digests)
            self._quarantine([*rejected, *rejections])
            self._copy([item.event for item in firsts if item.event.key in new])
            # Commit. Before: nothing of this is visible. After: all of it is durable.
        return Tally(
            stored=len(new),
            duplicate=len(accepted) - len(new) - len(rejections),
            quarantined=len(rejected) + len(rejections),
        )

    def _ensure_partitions(self, times: Iterable[datetime]) -> None:
        """Create missing months, each in a transaction of its own, before ours holds any lock."""
        for month in {date(time.year, time.month, 1) for time in times} - self._partitions:
            self._connection.execute("SELECT prooftrail.create_partition(%s)", [month])
            self._partitions.add(month)

    def _claim_keys(self, items: Sequence[Accepted], digests: dict[tuple[str, str, str], bytes]) -> set[tuple[str, ...]]:
        """Insert the keys that are not there yet and return them.

        In one order everywhere, so that two transactions never wait for each other in a circle. A key that another
        transaction is just inserting is waited for.
        """
        if not items:
            return set()
        ordered = sorted((item.event for item in items), key=lambda event: event.key)
        claimed = self._connection.execute(
            """
            INSERT INTO prooftrail.event_key (tenant, id, source, time, digest)
            SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %b::bytea[])
            ON CONFLICT ON CONSTRAINT event_key_is_unique DO NOTHING
            RETURNING tenant, id, source
            """,
            [
                [event.tenant for event in ordered],
                [event.id for event in ordered],
                [event.source for event in ordered],
                [event.time for event in ordered],
                [digests[event.key] for event in ordered],
            ],
        )
        return set(claimed)

    def _conflicts(self, known: Sequence[Accepted], digests: dict[tuple[str, str, str], bytes]) -> list[Rejected]:
        """Those whose identity belongs to an event of other content; the rest are honest duplicates."""
        if not known:
            return []
        keys = [item.event.key for item in known]
        rows = self._connection.execute(
            """
            SELECT tenant, id, source, digest
            FROM prooftrail.event_key
            JOIN unnest(%s::text[], %s::text[], %s::text[]) AS wanted (tenant, id, source) USING (tenant, id, source)
            """,
            [list(part) for part in zip(*keys, strict=True)],
        )
        stored = {(tenant, id, source): digest for tenant, id, source, digest in rows}
        return [_conflict(item) for item in known if stored[item.event.key] != digests[item.event.key]]

    def _quarantine(self, rejected: Sequence[Rejected]) -> None:
        if not rejected:
            return
        ordered = sorted(rejected, key=lambda item: item.origin)
        self._connection.execute(
            """
            INSERT INTO prooftrail.quarantine (origin, reason, detail, raw)
            SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %b::bytea[])
            ON CONFLICT ON CONSTRAINT quarantine_origin_is_unique DO NOTHING
            """,
            [
                [item.origin for item in ordered],
                [item.reason for item in ordered],
                [_storable(item.detail) for item in ordered],
                [item.raw for item in ordered],
            ],
        )

    def _copy(self, events: Sequence[Event]) -> None:
        """Open one batch per tenant and copy its events, month by month, straight into the partitions."""
        by_tenant: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            by_tenant[event.tenant].append(event)
        by_month: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for tenant, batch_id in self._open_batches(by_tenant).items():
            for position, event in enumerate(by_tenant[tenant]):
                by_month[f"event_{event.time:%Y_%m}"].append(to_row(event, batch_id, position))
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        with self._connection.cursor() as cursor:
            for partition, rows in sorted(by_month.items()):
                command = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier("prooftrail", partition), columns)
                with cursor.copy(command) as copy:
                    for row in rows:
                        copy.write_row(row)

    def _open_batches(self, by_tenant: dict[str, list[Event]]) -> dict[str, int]:
        if not by_tenant:
            return {}
        tenants = sorted(by_tenant)
        self._connection.execute(
            "INSERT INTO prooftrail.tenant (name) SELECT * FROM unnest(%s::text[]) ON CONFLICT DO NOTHING", [tenants]
        )
        rows = self._connection.execute(
            """
            INSERT INTO prooftrail.batch (tenant, event_count, min_time, max_time)
            SELECT * FROM unnest(%s::text[], %s::integer[], %s::timestamptz[], %s::timestamptz[])
            RETURNING tenant, id
            """,
            [
                tenants,
                [len(by_tenant[tenant]) for tenant in tenants],
                [min(event.time for event in by_tenant[tenant]) for tenant in tenants],
                [max(event.time for event in by_tenant[tenant]) for tenant in tenants],
            ],
        )
        return dict(rows.fetchall())


def to_row(event: Event, batch_id: int, position: int) -> tuple[Any, ...]:
    """Lay an event out as a row, in the order of `COLUMNS`."""
    actor, target, error = event.actor or _NOBODY, event.target or _NOTHING, event.error or _NO_ERROR
    return (
        event.tenant, event.time, batch_id, position, event.id, event.source, event.sequence, event.category,
        event.action, event.level, event.outcome,
        actor.type, actor.id, actor.name, actor.ip, actor.user_agent, actor.session_id, actor.roles,
        target.type, target.id, target.name, event.site, event.message, _json(event.before), _json(event.after),
        error.code, error.message, error.stack_trace, event.duration_ms, event.request_id, event.trace_id,
        _json(event.metadata),
    )  # fmt: skip


def from_row(row: Sequence[Any]) -> Event:
    """Make the event of a row again; JSON columns, read as text, stay unparsed (`msgspec.Raw`)."""
    value = dict(zip(COLUMNS, row, strict=True))
    return Event(
        id=value["id"],
        time=value["time"],
        tenant=value["tenant"],
        source=value["source"],
        sequence=value["sequence"],
        category=value["category"],
        action=value["action"],
        level=value["level"],
        outcome=value["outcome"],
        actor=_or_none(Actor(**_prefixed(value, "actor_")), _NOBODY),
        target=_or_none(Target(**_prefixed(value, "target_")), _NOTHING),
        site=value["site"],
        message=value["message"],
        before=_raw(value["before"]),
        after=_raw(value["after"]),
        error=_or_none(Error(**_prefixed(value, "error_")), _NO_ERROR),
        duration_ms=value["duration_ms"],
        request_id=value["request_id"],
        trace_id=value["trace_id"],
        metadata=_raw(value["metadata"]),
    )


def _prefixed(value: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): item for name, item in value.items() if name.startswith(prefix)}


def _or_none(part: Any, empty: Any) -> Any:
    return None if part == empty else part


def _raw(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _first_of_each_key(
    accepted: Sequence[Accepted],
) -> tuple[list[Accepted], dict[tuple[str, str, str], bytes], list[Rejected]]:
    """Settle twins inside one batch: the first of each key, the digests, and those that contradict the first."""
    firsts: list[Accepted] = []
    digests: dict[tuple[str, str, str], bytes] = {}
    conflicts: list[Rejected] = []
    for item in accepted:
        digest = item.event.digest()
        first = digests.setdefault(item.event.key, digest)
        if first is digest:
            firsts.append(item)
        elif first != digest:
            conflicts.append(_conflict(item))
    return firsts, digests, conflicts


def _conflict(item: Accepted) -> Rejected:
    tenant, id, source = item.event.key
    detail = (
        f"id {id!a} of source {source!a} in tenant {tenant!a} is taken by an event of other content: ids must be unique"
    )
    return Rejected(item.origin, item.raw, "conflict", detail)


def _storable(text: str) -> str:
    """Make a message that quotes foreign input fit for a text column."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()

"""Append: one transaction in which every record becomes stored, duplicate or quarantined.

The transaction, in order: claim the keys (which says what is new), compare what was known, put away what is unacceptable,
copy the events, and last, while the heads of their logs are locked, give each batch its place there. Nothing is durable
before its commit; after it everything is, and a crash between the commit and the acknowledgement means a redelivery that
finds duplicates.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from prooftrail import strict_json
from prooftrail.database import Connection
from prooftrail.event import NO_ERROR, NOBODY, NOTHING, OWN_TENANT, Actor, Error, Event, Target, own_event
from prooftrail.formats import Accepted, RawRecord, Rejected
from prooftrail.ledger import entry
from prooftrail.ledger.merkle import Frontier
from prooftrail.rules import Rules

COLUMNS = (
    "tenant", "time", "batch_id", "position", "id", "source", "sequence", "category", "action", "level", "outcome",
    "actor_type", "actor_id", "actor_name", "actor_ip", "actor_user_agent", "actor_session_id", "actor_roles",
    "target_type", "target_id", "target_name", "site", "message", "before", "after",
    "error_code", "error_message", "error_stack_trace", "duration_ms", "request_id", "trace_id", "metadata",
)  # fmt: skip
JSON_COLUMNS = ("before", "after", "metadata")  # read as text
_WRITTEN = (*COLUMNS, "salt")

# The database judges last: what passed our checks and is refused all the same can never be stored.
_REFUSALS = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)


_Key: TypeAlias = tuple[str, ...]  # `Event.key`


class _New(NamedTuple):
    """An event about to be stored, with what its log and its key need."""

    event: Event
    key: _Key
    statement: entry.Statement
    digest: bytes


class _Batch(NamedTuple):
    """The events of one tenant that become durable together, with their salts; leaf hashes are in order of position."""

    id: int
    items: list[_New]
    salts: bytes
    leaf_hashes: list[bytes]


class Receipt(msgspec.Struct, frozen=True):
    """What became of an accepted event.

    `index` is its place in its tenant's log; of a duplicate, whose original lies in an earlier batch, `Store.places` knows
    it. `refusal` says why it is in quarantine.
    """

    status: Literal["stored", "duplicate", "quarantined"]
    index: int | None = None
    refusal: Rejected | None = None


class Store:
    """The log's writing end, on one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._partitions: set[date] = set()  # known to be there; the archive may drop one at any time
        self._logs: set[str] = set()  # tenants whose logs are known to be there
        self._rules = Rules()

    def uses(self, connection: Connection) -> bool:
        """Tell whether this is the connection it writes to."""
        return self._connection is connection

    def append(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> list[Receipt]:
        """Store the accepted and quarantine the rejected; a receipt for each accepted one, in their order.

        All or nothing, unless the database itself refuses an event: what goes around it takes several transactions.
        An event that breaks its tenant's rules is rejected too, or flagged where they say so (see `rules`).

        Raises `psycopg.OperationalError` for faults that pass; then nothing was stored, or, if the connection broke while
        committing, perhaps everything: appending again finds out.
        """
        self._rules.renew(self._connection)
        refused = self._refused(accepted)
        if not refused:
            return self._append_allowed(accepted, rejected)
        allowed = [item for number, item in enumerate(accepted) if number not in refused]
        receipts = iter(self._append_allowed(allowed, [*rejected, *refused.values()]))
        return [
            Receipt("quarantined", refusal=refused[number]) if number in refused else next(receipts)
            for number in range(len(accepted))
        ]

    def _refused(self, accepted: Sequence[Accepted]) -> dict[int, Rejected]:
        """Those that break a rule, by their numbers; not what is stored already, which came before the rule."""
        refused = self._rules.refusals(accepted)
        stored = self._digests({accepted[number].event.key for number in refused})
        return {number: item for number, item in refused.items() if accepted[number].event.key not in stored}

    def _append_allowed(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> list[Receipt]:
        try:
            return self._append_known(accepted, rejected)
        except psycopg.errors.UndefinedTable:  # a month was archived since we last looked
            self._partitions.clear()
            return self._append_known(accepted, rejected)
        except _REFUSALS as error:
            return self._append_around(error, accepted, rejected)

    def _append_around(
        self, error: psycopg.Error, accepted: Sequence[Accepted], rejected: Sequence[Rejected]
    ) -> list[Receipt]:
        """Halve until the event that the database refuses stands alone, and quarantine it with the database's words."""
        if not accepted:
            raise error
        if len(accepted) == 1:
            refused = Rejected(accepted[0].record, "refused-by-database", str(error))
            self._append_known([], [*rejected, refused])
            return [Receipt("quarantined", refusal=refused)]
        middle = len(accepted) // 2
        return self._append_allowed(accepted[:middle], rejected) + self._append_allowed(accepted[middle:], [])

    def places(self, keys: Collection[_Key]) -> dict[_Key, int]:
        """The leaf indexes of the events that have these keys, as far as they are known.

        Not of those that were erased, for nobody can tell whether what came again is the same; nor of archived ones.
        """
        if not keys:
            return {}
        rows = self._connection.execute(
            """
            SELECT key.tenant, key.id, key.source, first_index + position
            FROM prooftrail.event_key AS key
            JOIN unnest(%s::text[], %s::text[], %s::text[]) AS wanted (tenant, id, source)
                ON (key.tenant, key.id, key.source) = (wanted.tenant, wanted.id, wanted.source)
            CROSS JOIN LATERAL (
                SELECT batch_id, position FROM prooftrail.event
                WHERE (event.tenant, event.time, event.id, event.source) = (key.tenant, key.time, key.id, key.source)
                LIMIT 1  -- keeps the planner to a look into the index for each
            ) AS event
            JOIN prooftrail.batch ON batch.id = batch_id
            WHERE digest IS NOT NULL
            """,
            [list(part) for part in zip(*keys, strict=True)],
        )
        return {(tenant, id, source): index for tenant, id, source, index in rows}

    def append_own(self, *events: Event) -> None:
        """Append Prooftrail's own events to their logs, in the caller's transaction, once in it and as its last step.

        (Once, because logs are locked in one order, and a second call would begin anew; last, because they stay locked.)
        """
        self._ensure_places(events)
        self._enter(self._claimed_own(events))

    def _append_known(self, accepted: Sequence[Accepted], rejected: Sequence[Rejected]) -> list[Receipt]:
        self._ensure_places([item.event for item in accepted])
        items = [_new(item.event) for item in accepted]
        firsts = _firsts(items)
        with self._connection.transaction():
            claimed = self._claim_keys(list(firsts.values()))
            standing = {key: firsts[key].digest for key in claimed} | self._digests(firsts.keys() - claimed)
            conflicts = _conflicts(accepted, items, standing)
            new = [item for key, item in firsts.items() if key in claimed]
            flags = self._rules.flags([item.event for item in new])
            decisions = self._claimed_own(self._quarantine([*rejected, *conflicts.values()]) + flags)
            places = self._enter(new + decisions)
            # Commit. Before: nothing of this is visible. After: all of it is durable.
        return [
            _receipt(item is firsts[item.key], conflicts.get(number), places.get(item.key))
            for number, item in enumerate(items)
        ]

    def _ensure_places(self, events: Sequence[Event]) -> None:
        """Make missing months and logs, each in a transaction of its own, before ours holds any lock.

        Those that a quarantine decision needs are always among them.
        """
        months = {date(time.year, time.month, 1) for time in [datetime.now(UTC), *(event.time for event in events)]}
        for month in months - self._partitions:
            with self._connection.transaction():  # which may refuse the month; a caller's own goes on
                self._connection.execute("SELECT prooftrail.create_partition(%s)", [month])
            self._partitions.add(month)
        tenants = {OWN_TENANT, *(event.tenant for event in events)}
        if not tenants <= self._logs:
            self._connection.execute(
                """
                WITH named AS (
                    INSERT INTO prooftrail.tenant (name) SELECT * FROM unnest(%(tenants)s::text[]) ON CONFLICT DO NOTHING
                )
                INSERT INTO prooftrail.log (tenant) SELECT * FROM unnest(%(tenants)s::text[]) ON CONFLICT DO NOTHING
                """,
                {"tenants": sorted(tenants)},
            )
            self._logs |= tenants

    def _claim_keys(self, items: Sequence[_New]) -> set[_Key]:
        """Insert the keys that are not there yet and return them.

        In one order everywhere, so that two transactions never wait for each other in a circle. A key that another
        transaction is just inserting is waited for.
        """
        if not items:
            return set()
        ordered = sorted(items, key=lambda item: item.key)
        claimed = self._connection.execute(
            """
            INSERT INTO prooftrail.event_key (tenant, id, source, time, digest)
            SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::timestamptz[], %b::bytea[])
            ON CONFLICT ON CONSTRAINT event_key_is_unique DO NOTHING
            RETURNING tenant, id, source
            """,
            [
                [item.event.tenant for item in ordered],
                [item.event.id for item in ordered],
                [item.event.source for item in ordered],
                [item.event.time for item in ordered],
                [item.digest for item in ordered],
            ],
        )
        return set(claimed)

    def _claimed_own(self, events: Sequence[Event]) -> list[_New]:
        """Own events with their keys, which nobody else can have."""
        items = list(map(_new, events))
        self._claim_keys(items)
        return items

    def _digests(self, known: Collection[_Key]) -> dict[_Key, bytes | None]:
        """The digests of the events that have these keys: None of an erased one."""
        if not known:
            return {}
        rows = self._connection.execute(
            """
            SELECT tenant, id, source, digest
            FROM prooftrail.event_key
            JOIN unnest(%s::text[], %s::text[], %s::text[]) AS wanted (tenant, id, source) USING (tenant, id, source)
            """,
            [list(part) for part in zip(*known, strict=True)],
        )
        return {(tenant, id, source): digest for tenant, id, source, digest in rows}

    def _quarantine(self, rejected: Sequence[Rejected]) -> list[Event]:
        """Put records away and return the decisions to do so, as events; a redelivered record is there already.

        One of other bytes under the same name, which some sources let producers choose, is put beside it.
        """
        if not rejected:
            return []
        by_origin = {item.record.origin: item for item in sorted(rejected, key=lambda item: item.record.origin)}
        kept = self._put_away(by_origin)
        others = {item.record.origin: item for item in map(_renamed, self._unlike(rejected))}
        return list(map(_decision, kept + self._put_away(others)))

    def _put_away(self, by_origin: Mapping[str, Rejected]) -> list[Rejected]:
        """Insert the records whose origin is not there yet; returns these."""
        if not by_origin:
            return []
        rows = self._connection.execute(
            """
            INSERT INTO prooftrail.quarantine (origin, reason, detail, raw, headers)
            SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %b::bytea[], %s::json[])
            ON CONFLICT ON CONSTRAINT quarantine_origin_is_unique DO NOTHING
            RETURNING origin
            """,
            [
                list(by_origin),
                [item.reason for item in by_origin.values()],
                [storable(item.detail) for item in by_origin.values()],
                [item.record.body for item in by_origin.values()],
                [_headers(item.record).decode() for item in by_origin.values()],
            ],
        )
        return [by_origin[origin] for (origin,) in rows]

    def _unlike(self, rejected: Sequence[Rejected]) -> list[Rejected]:
        """Those in whose places other bytes are in quarantine."""
        named = {(item.record.origin, hashlib.sha256(item.record.body).digest()): item for item in rejected}
        origins, digests = zip(*sorted(named), strict=True)
        rows = self._connection.execute(
            "SELECT origin, digest FROM prooftrail.unlike_in_quarantine(%s::text[], %b::bytea[])",
            [list(origins), list(digests)],
        )
        return [named[origin, digest] for origin, digest in rows]

    def _enter(self, items: Sequence[_New]) -> dict[_Key, int]:
        """Give the events their places: copied as batches, one per tenant, then the batches put into the tenants' logs."""
        if not items:
            return {}
        batches = self._copy(items)
        firsts = self._extend_logs(batches)
        return {
            item.key: firsts[tenant] + position
            for tenant, batch in batches.items()
            for position, item in enumerate(batch.items)
        }

    def _copy(self, items: Sequence[_New]) -> dict[str, _Batch]:
        """Copy the events, month by month, straight into the partitions; returns each tenant's batch."""
        batches = self._open_batches(items)
        by_month: dict[str, list[tuple[_Batch, int]]] = defaultdict(list)
        for tenant in sorted(batches):
            for position, item in enumerate(batches[tenant].items):
                by_month[f"event_{item.event.time:%Y_%m}"].append((batches[tenant], position))
        columns = sql.SQL(", ").join(map(sql.Identifier, _WRITTEN))
        with self._connection.cursor() as cursor:
            for partition, places in sorted(by_month.items()):
                command = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier("prooftrail", partition), columns)
                with cursor.copy(command) as copy:
                    for batch, position in places:
                        copy.write_row(_sealed_row(batch, position))
        return batches

    def _open_batches(self, items: Sequence[_New]) -> dict[str, _Batch]:
        by_tenant: dict[str, list[_New]] = defaultdict(list)
        for item in items:
            by_tenant[item.event.tenant].append(item)
        ids = self._connection.execute("SELECT prooftrail.new_batch_ids(%s)", [len(by_tenant)])
        return {
            tenant: _Batch(id, of_tenant, os.urandom(entry.SALTS * len(of_tenant)), [b""] * len(of_tenant))
            for (tenant, of_tenant), (id,) in zip(by_tenant.items(), ids, strict=True)
        }

    def _extend_logs(self, batches: Mapping[str, _Batch]) -> dict[str, int]:
        """Lock the heads of the logs, in one order everywhere, and append the batches; all that follows is the commit.

        Returns the leaf index of the first event of each batch.
        """
        heads = self._lock_heads(sorted(batches))
        firsts = {tenant: head.size for tenant, head in heads.items()}
        for tenant, head in heads.items():
            head.extend(batches[tenant].leaf_hashes)
        columns = zip(*(_batch_row(batches[tenant], firsts[tenant], head) for tenant, head in heads.items()), strict=True)
        self._connection.execute(
            """
            WITH added AS (
                SELECT * FROM unnest(%s::bigint[], %s::text[], %s::integer[], %s::timestamptz[], %s::timestamptz[],
                                     %s::bigint[], %b::bytea[], %b::bytea[], %s::bigint[], %b::bytea[])
                AS added (id, tenant, event_count, min_time, max_time, first_index, leaf_hashes, root, size, frontier)
            ), extended AS (
                UPDATE prooftrail.log SET size = added.size, frontier = added.frontier
                FROM added WHERE log.tenant = added.tenant
            )
            INSERT INTO prooftrail.batch (id, tenant, event_count, min_time, max_time, first_index, leaf_hashes, root)
            SELECT id, tenant, event_count, min_time, max_time, first_index, leaf_hashes, root FROM added
            """,
            list(map(list, columns)),
        )
        return firsts

    def _lock_heads(self, tenants: list[str]) -> dict[str, Frontier]:
        rows = self._connection.execute(
            "SELECT tenant, size, frontier FROM prooftrail.log WHERE tenant = ANY(%s) ORDER BY tenant FOR UPDATE",
            [tenants],
            binary=True,
        )
        return {tenant: Frontier.from_bytes(size, frontier) for tenant, size, frontier in rows}


def _sealed_row(batch: _Batch, position: int) -> tuple[Any, ...]:
    """The row of an event; its leaf hash goes into the batch. (Meanwhile PostgreSQL works on the rows before.)"""
    item, salts = batch.items[position], batch.salts[position * entry.SALTS : (position + 1) * entry.SALTS]
    salts = entry.used(salts, item.statement)
    batch.leaf_hashes[position] = entry.leaf(item.statement, salts)
    return (*to_row(item.event, batch.id, position), salts)


def _batch_row(batch: _Batch, first_index: int, head: Frontier) -> tuple[Any, ...]:
    times = [item.event.time for item in batch.items]
    return (
        batch.id, batch.items[0].event.tenant, len(times), min(times), max(times), first_index,
        b"".join(batch.leaf_hashes), head.root(), head.size, head.to_bytes(),
    )  # fmt: skip


def to_row(event: Event, batch_id: int, position: int) -> tuple[Any, ...]:
    """Lay an event out as a row, in the order of `COLUMNS`."""
    actor, target, error = event.actor or NOBODY, event.target or NOTHING, event.error or NO_ERROR
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
        actor=_or_none(Actor(**_prefixed(value, "actor_")), NOBODY),
        target=_or_none(Target(**_prefixed(value, "target_")), NOTHING),
        site=value["site"],
        message=value["message"],
        before=_raw(value["before"]),
        after=_raw(value["after"]),
        error=_or_none(Error(**_prefixed(value, "error_")), NO_ERROR),
        duration_ms=value["duration_ms"],
        request_id=value["request_id"],
        trace_id=value["trace_id"],
        metadata=_raw(value["metadata"]),
    )


def parsed(event: Event) -> Event:
    """The event of a row with its JSON parsed, for it is the value that was committed to and not how it is written."""
    values = {name: strict_json.decode(bytes(raw)) for name in JSON_COLUMNS if (raw := getattr(event, name)) is not None}
    return msgspec.structs.replace(event, **values)


def _prefixed(value: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): item for name, item in value.items() if name.startswith(prefix)}


def _or_none(part: Any, empty: Any) -> Any:
    return None if part == empty else part


def _raw(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())


def _json(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _new(event: Event) -> _New:
    statement = event.statement()
    return _New(event, event.key, statement, statement.digest())


def _firsts(items: Sequence[_New]) -> dict[_Key, _New]:
    """Of twins in one batch, the first."""
    firsts: dict[_Key, _New] = {}
    for item in items:
        firsts.setdefault(item.key, item)
    return firsts


def _conflicts(
    accepted: Sequence[Accepted], items: Sequence[_New], standing: Mapping[_Key, bytes | None]
) -> dict[int, Rejected]:
    """Those, by number, whose identity belongs to an event of other content; the rest are new, or honest duplicates.

    Nobody can tell any more what an erased event said, so whatever comes under its identity counts as a duplicate.
    """
    return {
        number: _conflict(accepted[number])
        for number, item in enumerate(items)
        if standing[item.key] not in (item.digest, None)
    }


def _receipt(first: bool, conflict: Rejected | None, index: int | None) -> Receipt:
    if conflict is not None:
        return Receipt("quarantined", refusal=conflict)
    return Receipt("stored" if first and index is not None else "duplicate", index)


def _renamed(item: Rejected) -> Rejected:
    """The record under its name and the digest of its bytes."""
    origin = f"{item.record.origin}:sha256-{hashlib.sha256(item.record.body).hexdigest()}"
    return msgspec.structs.replace(item, record=msgspec.structs.replace(item.record, origin=origin))


def _decision(item: Rejected) -> Event:
    """The event that a record was put into quarantine; its content, which may be anything, is named by its SHA-256."""
    content = {
        "reason": item.reason,
        "bytes": len(item.record.body),
        "sha256": hashlib.sha256(item.record.body).hexdigest(),
        "headers_sha256": hashlib.sha256(_headers(item.record)).hexdigest(),
    }
    return own_event("quarantine.put", target=Target(type="record", id=item.record.origin), metadata=content)


def _headers(record: RawRecord) -> bytes:
    """A record's headers as they are kept: `json` keeps the text that it is given."""
    return json.dumps(dict(record.headers)).encode()


def _conflict(item: Accepted) -> Rejected:
    tenant, id, source = item.event.key
    detail = (
        f"id {id!a} of source {source!a} in tenant {tenant!a} is taken by an event of other content: ids must be unique"
    )
    return Rejected(item.record, "conflict", detail)


def storable(text: str) -> str:
    """Make a message that quotes foreign input fit for a text column."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()

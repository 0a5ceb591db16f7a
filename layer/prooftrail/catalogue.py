"""The catalogue: categories and their actions, learned from events (see `sources`) or seeded, and the rules for these.

What operators change here is an event in the tenant's log, so that it can be told which rule was in force when.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from prooftrail import rules, strict_json, system
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.database import Connection
from prooftrail.errors import InvalidRecord, PermanentError
from prooftrail.event import Event, Name, Target, Tenant, own_event
from prooftrail.rules import InvalidSchema, OnViolation


class InvalidSeed(PermanentError):
    """A file to seed from holds something else; the message says where."""


class UnknownSchema(PermanentError):
    """The action has no schema."""


class Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An action that events will have, or have; without a schema, one that it has stays."""

    tenant: Tenant
    category: Name | None = None
    action: Name
    description: str | None = None
    schema: dict[str, Any] | None = None
    on_violation: OnViolation = "quarantine"


class Category(msgspec.Struct, frozen=True):
    """A category (None: of events without one), its number of actions, and of events stored of it, with first and last."""

    tenant: str
    category: str | None
    actions: int
    events: int
    first_seen: datetime | None
    last_seen: datetime | None


class Action(msgspec.Struct, frozen=True):
    """An action: learned from `events` first stored at `first_seen`, seeded at `seeded_at`, or both.

    `on_violation` is None where it has no rule; the rule's `schema` is told where it is asked for.
    """

    tenant: str
    category: str | None
    action: str
    events: int
    first_seen: datetime | None
    last_seen: datetime | None
    seeded_at: datetime | None
    description: str | None
    on_violation: OnViolation | None
    schema: msgspec.Raw | None


def read_seeds(content: bytes) -> list[Seed]:
    """Read a JSON list of seeds, or one a line (NDJSON). Raises `InvalidSeed`, or `InvalidSchema` if a schema is none."""
    lines = [line for line in content.splitlines() if line.strip()]
    try:
        documents = strict_json.decode(content) if content.lstrip().startswith(b"[") else map(strict_json.decode, lines)
        return [_seed(number, document) for number, document in enumerate(documents, 1)]
    except InvalidRecord as error:
        raise InvalidSeed(f"expected a JSON list, or one JSON object a line: {error.detail}") from None


def _seed(number: int, document: Any) -> Seed:
    try:
        seed = msgspec.convert(document, Seed)
        if seed.schema is not None:
            rules.compiled(_text(seed.schema))
    except msgspec.ValidationError as error:
        raise InvalidSeed(f"number {number}: {error}") from None
    except InvalidSchema as error:
        raise InvalidSchema(f"number {number}, its schema: {error}") from None
    return seed


def read_schema(content: bytes) -> dict[str, Any]:
    """Read a JSON Schema that events can be compared with. Raises `InvalidSchema`."""
    try:
        schema: dict[str, Any] = strict_json.decode(content)
    except InvalidRecord as error:
        raise InvalidSchema(f"expected a JSON Schema: {error.detail}") from None
    rules.compiled(_text(schema))
    return schema


def seed(connection: Connection, seeds: Sequence[Seed]) -> int:
    """Put actions into the catalogue, all or none; returns how many are new or were changed, which is recorded.

    Their schemas have been read by `read_schema` or `read_seeds`; ingest obeys them within `rules.BELIEVED` seconds.
    """
    ordered = sorted(seeds, key=lambda item: (item.tenant, item.category or "", item.action))
    with connection.transaction():
        named = [item for item in ordered if _name(connection, item.tenant, item.category, item.action, item.description)]
        ruled = [item for item in ordered if item.schema is not None and _rule(connection, item, item.schema)]
        events = [
            *(_seeded(tenant, len(list(group))) for tenant, group in itertools.groupby(named, lambda item: item.tenant)),
            *(_schema_event(item.tenant, item.category, item.action, item.schema, item.on_violation) for item in ruled),
        ]
        if events:
            system.record(connection, *events)
        # Commit: the actions and rules, and the record of them. Ingest functions learn of a rule by and by.
    return len({(item.tenant, item.category, item.action) for item in [*named, *ruled]})


def remove_schema(connection: Connection, tenant: str, category: str | None, action: str) -> None:
    """Let the events of an action look as they like again. Raises `UnknownSchema` where they may."""
    with connection.transaction():
        removed = connection.execute(
            "DELETE FROM prooftrail.action_schema WHERE tenant = %s AND category = %s AND action = %s",
            [tenant, category or "", action],
        )
        if not removed.rowcount:
            raise UnknownSchema(f"expected an action with a schema (see `prooftrail catalogue list`), got {action!a}")
        system.record(connection, _schema_event(tenant, category, action, None, None))


def categories(
    connection: Connection, tenant: str, after: tuple[str, str] | None = None, limit: int | None = None
) -> list[Category]:
    """A tenant's categories (`ALL_TENANTS` for all) in the order of (tenant, category), from just behind `after` on.

    Where the reader is not the administrator: inside `search.reading_as`.
    """
    rows = connection.execute(
        """
        SELECT tenant, nullif(category, ''), count(*), sum(event_count)::bigint, min(first_seen), max(last_seen)
        FROM prooftrail.action
        WHERE %(tenant)s IN (tenant, %(all)s)
            AND coalesce((tenant, category) > (%(after_tenant)s::text, %(after_category)s::text), true)
        GROUP BY tenant, category ORDER BY tenant, category LIMIT %(limit)s
        """,
        {
            "tenant": tenant,
            "all": ALL_TENANTS,
            "after_tenant": after and after[0],
            "after_category": after and after[1],
            "limit": limit,
        },
    )
    return [Category(*row) for row in rows]


def actions(
    connection: Connection,
    tenant: str,
    *,
    category: str | None = None,
    action: str | None = None,
    schemas: bool = False,
    after: tuple[str, str, str] | None = None,
    limit: int | None = None,
) -> list[Action]:
    """A tenant's actions (`ALL_TENANTS` for all), of one category ('' is none) or all, in the order of their names.

    Where the reader is not the administrator: inside `search.reading_as`.
    """
    rows = connection.execute(
        """
        SELECT tenant, nullif(category, ''), action, event_count, first_seen, last_seen, seeded_at, description,
            on_violation, CASE WHEN %(schemas)s THEN schema::text END
        FROM prooftrail.action LEFT JOIN prooftrail.action_schema USING (tenant, category, action)
        WHERE %(tenant)s IN (tenant, %(all)s)
            AND coalesce(category = %(category)s::text, true) AND coalesce(action = %(action)s::text, true)
            AND coalesce((tenant, category, action) > (%(t)s::text, %(c)s::text, %(a)s::text), true)
        ORDER BY tenant, category, action LIMIT %(limit)s
        """,
        {
            "tenant": tenant,
            "all": ALL_TENANTS,
            "category": category,
            "action": action,
            "schemas": schemas,
            "t": after and after[0],
            "c": after and after[1],
            "a": after and after[2],
            "limit": limit,
        },
    )
    return [Action(*(*known, schema and msgspec.Raw(schema.encode()))) for *known, schema in rows]


def _name(connection: Connection, tenant: str, category: str | None, action: str, description: str | None) -> bool:
    """Have the action in the catalogue as seeded; says whether that is news."""
    named = connection.execute(
        """
        INSERT INTO prooftrail.action AS known (tenant, category, action, description, seeded_at)
        VALUES (%s, %s, %s, %s, clock_timestamp())
        ON CONFLICT (tenant, category, action) DO UPDATE SET
            description = coalesce(EXCLUDED.description, known.description),
            seeded_at = coalesce(known.seeded_at, EXCLUDED.seeded_at)
        WHERE known.seeded_at IS NULL OR EXCLUDED.description <> coalesce(known.description, '')
        """,
        [tenant, category or "", action, description],
    )
    return named.rowcount == 1


def _rule(connection: Connection, item: Seed, schema: dict[str, Any]) -> bool:
    """Have the rule in force; says whether that is news."""
    ruled = connection.execute(
        """
        INSERT INTO prooftrail.action_schema AS known (tenant, category, action, schema, on_violation)
        VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (tenant, category, action) DO UPDATE
        SET schema = EXCLUDED.schema, on_violation = EXCLUDED.on_violation, set_at = EXCLUDED.set_at
        WHERE (known.schema, known.on_violation) <> (EXCLUDED.schema, EXCLUDED.on_violation)
        """,
        [item.tenant, item.category or "", item.action, _text(schema), item.on_violation],
    )
    return ruled.rowcount == 1


def _seeded(tenant: str, count: int) -> Event:
    return own_event("catalogue.seed", tenant=tenant, metadata={"actions": count})


def _schema_event(
    tenant: str, category: str | None, action: str, schema: dict[str, Any] | None, on_violation: OnViolation | None
) -> Event:
    """The whole rule, or that there is none any more."""
    said = {"category": category, "action": action, "schema": schema, "on_violation": on_violation}
    return own_event("catalogue.schema", tenant=tenant, target=Target(type="action", id=action), metadata=said)


def _text(schema: dict[str, Any]) -> str:
    return msgspec.json.encode(schema).decode()

"""Debezium's change events: a row of a database before and after, with or without Kafka Connect's schema around it.

Source: Debezium documentation, "Data change events" of the connectors for PostgreSQL, MySQL, SQL Server, Oracle, Db2 and
MongoDB, and "Outbox Event Router", "Outbox table".

- The target is the table and the row's key: that of the Kafka record where it is JSON, else the first of `KEY_COLUMNS`. The
  key's columns are joined by a comma in their order.
- The id is made of the connector's name, the place in the database's log, table, key and operation: a connector that
  starts again sends a change once more, and all of these stay the same. For that reason the envelope's own ``ts_ms``,
  ``ts_us`` and ``ts_ns``, which say when the connector had it in hand, are no part of the event, as transport headers are
  none; they are its time only where ``source`` has none.
- The actor is the first of the operation's `ACTOR_COLUMNS` that the row has; `TENANT_COLUMNS`, `REQUEST_COLUMNS` and
  `TRACE_COLUMNS` likewise. Who changed a row last is not who deleted it, and nobody did anything in a snapshot.
- A row of an outbox table (`OUTBOX_COLUMNS`) is what it says: its id, its type as the action, its aggregate as the target.
- A logical decoding message has its prefix as the action; an object of JSON in it is searched like a row.
- Everything else, ``source`` and ``transaction`` among it, is in ``metadata``.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from prooftrail import canonical, strict_json
from prooftrail.errors import InvalidRecord
from prooftrail.event import LONGEST_IDENTIFIER, Event
from prooftrail.formats import times
from prooftrail.formats.fields import convert, present
from prooftrail.formats.records import Given

# Theirs -> ours.
OPERATIONS = {"c": "create", "u": "update", "d": "delete", "r": "read", "t": "truncate", "m": "message"}
STATES = {"before": "before", "after": "after"}

KEY_COLUMNS = ("id", "_id", "ID", "uuid", "pk", "key", "code")
_UPDATED_BY = (
    "updated_by", "modified_by", "last_modified_by", "last_updated_by", "changed_by",
    "updatedBy", "modifiedBy", "lastModifiedBy", "lastUpdatedBy", "changedBy",
)  # fmt: skip
ACTOR_COLUMNS = {
    "c": ("created_by", "createdBy", *_UPDATED_BY),
    "u": _UPDATED_BY,
    "d": ("deleted_by", "deletedBy"),
    "m": ("actor", "actor_id", "actorId", "user_id", "userId", "user", *_UPDATED_BY),
}
TENANT_COLUMNS = ("tenant", "tenant_id", "tenantId", "organization_id", "company_id")
REQUEST_COLUMNS = ("request_id", "correlation_id", "requestId", "correlationId")
TRACE_COLUMNS = ("trace_id", "traceId")
OUTBOX_COLUMNS = {"id", "aggregatetype", "aggregateid", "type", "payload"}

# What says where in its log a database keeps the change; each connector has some of them.
_POSITION = (
    "lsn", "txId", "server_id", "gtid", "file", "pos", "row", "change_lsn", "commit_lsn", "event_serial_no", "scn",
    "commit_scn", "lcr_position", "rs_id", "ssn", "redo_thread", "row_id", "ord", "lsid", "txnNumber", "vgtid", "shard",
)  # fmt: skip
_PROCESSED = {"ts_ms": 3, "ts_us": 6, "ts_ns": 9}
_HAPPENED = {"ts_ns": 9, "ts_us": 6, "ts_usec": 6, "ts_ms": 3}  # the finest first


def recognises(document: dict[str, Any], _headers: Mapping[str, str]) -> bool:
    """Tell whether the document is a change event, bare or beside its schema."""
    change, _ = _unwrapped(document)
    source, operation = change.get("source"), change.get("op")
    return isinstance(source, dict) and "connector" in source and isinstance(operation, str) and operation in OPERATIONS


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map a change event.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field that an event needs is missing or does not fit.
    """
    if not recognises(document, given.headers):
        raise InvalidRecord("unknown-shape", "expected a change event of Debezium, with op and source.connector")
    change, schema = _unwrapped(document)
    rest = present(change)
    source = rest["source"]
    rest |= {name: _row(rest[name]) for name in STATES if name in rest}
    operation = rest.pop("op")
    row = _facts(rest, operation)
    fields: dict[str, Any] = {
        "id": _identity(source, rest, operation, given),
        "time": _time(source, rest),
        "tenant": _first(row, TENANT_COLUMNS) or given.tenant,
        "source": source.get("name"),
        "action": _action(rest, operation),
        "outcome": "success",  # only what was committed is in a database's log
        "actor": _actor(row, operation),
        "target": present(_target(source, rest, given)) or None,
        "request_id": _first(row, REQUEST_COLUMNS),
        "trace_id": _first(row, TRACE_COLUMNS),
    }
    fields |= {ours: rest.pop(theirs) for theirs, ours in STATES.items() if theirs in rest}
    if operation == "c" and isinstance(row, dict) and row.keys() >= OUTBOX_COLUMNS:
        fields |= _outbox(row)
    for name in _PROCESSED:
        rest.pop(name, None)
    fields["metadata"] = rest | present({"schema": schema, "op": operation})
    return convert(present(fields))


def _unwrapped(document: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The change, and the schema beside it where Kafka Connect's converter put one there."""
    if document.keys() == {"schema", "payload"} and isinstance(document["payload"], dict):
        return document["payload"], document["schema"]
    return document, None


def _row(state: Any) -> Any:
    """A document of MongoDB comes as text of JSON."""
    if isinstance(state, str) and state.startswith("{"):
        try:
            return strict_json.decode(state.encode())
        except InvalidRecord:
            return state
    return state


def _facts(change: dict[str, Any], operation: str) -> Any:
    """Where actor, tenant and intent are looked for: the row as it is now, as it was, or what a message says."""
    if operation == "m":
        return _said(change.get("message"))
    states = (change.get("after"), change.get("before"))
    return next((state for state in states if isinstance(state, dict)), None)


def _said(message: Any) -> Any:
    content = message.get("content") if isinstance(message, dict) else None
    try:
        return strict_json.decode(binascii.a2b_base64(content, strict_mode=True)) if isinstance(content, str) else None
    except (binascii.Error, ValueError, InvalidRecord):
        return None


def _first(row: Any, columns: tuple[str, ...]) -> str | None:
    if not isinstance(row, dict):
        return None
    texts = (_identifier(row.get(column)) for column in columns)
    return next((text for text in texts if text is not None), None)


def _identifier(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and 0 < len(value) <= LONGEST_IDENTIFIER else None


def _actor(row: Any, operation: str) -> dict[str, Any] | None:
    actor = _first(row, ACTOR_COLUMNS.get(operation, ()))
    return None if actor is None else {"id": actor}


def _action(change: dict[str, Any], operation: str) -> Any:
    message = change.get("message")
    prefix = message.get("prefix") if operation == "m" and isinstance(message, dict) else None
    return prefix or OPERATIONS[operation]


def _target(source: dict[str, Any], change: dict[str, Any], given: Given) -> dict[str, Any]:
    key = _key(change, given)
    text = ",".join(value if isinstance(value, str) else canonical.encode(value).decode() for value in key.values())
    named = source.get("table") or source.get("collection")
    return {"type": named if isinstance(named, str) else None, "id": _identifier(text)}


def _key(change: dict[str, Any], given: Given) -> dict[str, Any]:
    """The key's columns: of the Kafka record (bare or beside its schema), else the first that looks like one."""
    try:
        key = strict_json.decode(given.headers[":key"].encode())
    except (KeyError, InvalidRecord, UnicodeEncodeError):
        key = None
    if isinstance(key, dict) and key.keys() == {"schema", "payload"}:
        key = key["payload"]
    if isinstance(key, dict) and key and change.get("message") is None:
        return present(key)
    row: dict[str, Any] = next((change[name] for name in ("after", "before") if isinstance(change.get(name), dict)), {})
    return next(({column: row[column]} for column in KEY_COLUMNS if row.get(column) is not None), {})


def _identity(source: dict[str, Any], change: dict[str, Any], operation: str, given: Given) -> str:
    position = {name: source[name] for name in _POSITION if source.get(name) is not None}
    if "ord" in position:  # MongoDB counts the changes of one second
        position["ts_ms"] = source.get("ts_ms")
    place = {name: source.get(name) for name in ("connector", "name", "db", "schema", "table", "collection")}
    what = _key(change, given) or [change.get("before"), change.get("after"), change.get("message")]
    digest = hashlib.sha256(canonical.encode([place, position, operation, what])).hexdigest()
    return f"debezium:{digest}" if position else given.origin


def _time(source: dict[str, Any], change: dict[str, Any]) -> str | None:
    """When the database made the change, else when the connector had it in hand: the finest that each of them gives."""
    found = (
        times.from_unit(place[name], digits)
        for place in (source, change)
        for name, digits in _HAPPENED.items()
        if place.get(name)
    )
    return next((text for text in found if text is not None), None)


def _outbox(row: dict[str, Any]) -> dict[str, Any]:
    target = {"type": row["aggregatetype"], "id": _identifier(row["aggregateid"])}
    return {"id": _identifier(row["id"]), "action": row["type"], "target": target}

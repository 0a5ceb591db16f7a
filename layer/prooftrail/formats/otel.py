"""OpenTelemetry log records in OTLP/JSON, as the Collector's exporters for Kafka, files and HTTP write them.

Sources: opentelemetry-proto, ``logs/v1/logs.proto``, and the OTLP specification, "JSON Protobuf Encoding"; OpenTelemetry
Semantic Conventions for the attributes' names. A document holds many records; each is read together with its resource and
its scope. Attributes become plain JSON under ``metadata``'s ``attributes``, ``resource`` and ``scope``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from prooftrail.errors import InvalidRecord
from prooftrail.event import Event
from prooftrail.formats.fields import convert, find, first_identifier, first_text, move, present
from prooftrail.formats.records import Given
from prooftrail.strict_json import INT64_MIN, UINT64_MAX

# Theirs -> ours: of a record's own fields, and of all attributes, the record's before its scope's and its resource's.
_FIELDS = {"traceId": "trace_id"}
_ATTRIBUTES = {
    "tenant": ("tenant.id", "tenant_id", "tenant"),
    "id": ("log.record.uid", "event.id"),
    "category": ("event.domain",),
    "site": ("cloud.region", "host.name"),
    "request_id": ("http.request.id", "request.id", "request_id", "aws.request_id"),
}
_ACTOR = {
    "type": ("enduser.type", "user.type"),
    "name": ("user.name", "user.full_name", "user.email"),
    "ip": ("client.address", "source.address", "network.peer.address"),
    "user_agent": ("user_agent.original",),
    "session_id": ("session.id",),
}
_ACTOR_ID = ("enduser.id", "user.id", "user.name", "user.email")
_ROLES = ("user.roles", "enduser.role")
_TARGET = {"type": ("target.type", "resource.type"), "name": ("target.name", "resource.name")}
_TARGET_ID = ("target.id", "resource.id")
_ERROR = {
    "code": ("error.type", "exception.type"),
    "message": ("error.message", "exception.message"),
    "stack_trace": ("exception.stacktrace",),
}

_EVENT_NAMES = ("event.name",)  # an attribute, before records had a field for it
_NO_NAME = "log"  # the action of a record that does not say what happened: a plain line of a log

# Their severity, up to which number -> our level (Logs Data Model, appendix B: what syslog calls so).
_LEVELS = ((0, None), (8, "debug"), (9, "info"), (12, "notice"), (16, "warning"), (17, "error"), (24, "critical"))
_OUTCOMES = ("success", "failure", "unknown")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOST_BYTES = 16_000_000  # of all records once each has its resource: one resource with many records grows so often


def recognises(document: dict[str, Any], _headers: Mapping[str, str]) -> bool:
    """Tell whether the document is an export of log records."""
    return isinstance(document.get("resourceLogs"), list)


def is_container(document: dict[str, Any]) -> bool:
    """Tell whether the document holds other than one record; one with its resource and scope is an event."""
    return recognises(document, {}) and len(list(_records(document))) != 1


def cut(body: bytes) -> tuple[list[msgspec.Raw], list[bytes]]:
    """The records, and what each is read as: an export of that record alone, its resource and scope with it.

    Raises `msgspec.MsgspecError` where the body is no export of log records.
    """
    records: list[msgspec.Raw] = []
    elements: list[bytes] = []
    size = 0
    for record, element in _cut(body):
        size += len(element)
        if size > MOST_BYTES:
            return [], []
        records.append(record)
        elements.append(element)
    return records, elements


def _cut(body: bytes) -> Iterator[tuple[msgspec.Raw, bytes]]:
    export = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    for resource in _list(export.pop("resourceLogs", _NONE)):
        for scope in _list(resource.pop("scopeLogs", _NONE)):
            for record in msgspec.json.decode(scope.pop("logRecords", _NONE), type=list[msgspec.Raw]):
                of_scope = scope | {"logRecords": _only(record)}
                of_resource = resource | {"scopeLogs": _only(of_scope)}
                yield record, msgspec.json.encode(export | {"resourceLogs": _only(of_resource)})


_NONE = msgspec.Raw(b"[]")


def _list(raw: msgspec.Raw) -> list[dict[str, msgspec.Raw]]:
    return msgspec.json.decode(raw, type=list[dict[str, msgspec.Raw]])


def _only(item: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode([item]))


def _records(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Each record with what is around it: (of the resource, of the scope, the record)."""
    for resource in _objects(document, "resourceLogs"):
        for scope in _objects(resource, "scopeLogs"):
            for record in _objects(scope, "logRecords"):
                yield resource, scope, record


def _objects(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = parent.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map an export of one log record; an id, a tenant or a name that it lacks are those of the record that it came as.

    Raises `InvalidRecord` or `msgspec.ValidationError` where it holds another number of records, or a field is missing.
    """
    records = list(_records(document))
    if len(records) != 1:
        raise InvalidRecord("unknown-shape", f"expected an export of one log record, or of many, got {len(records)}")
    rest = _metadata(*records[0])
    known = _known(rest)
    error = _texts(known, _ERROR)
    fields = {
        "id": given.origin,
        "tenant": given.tenant,
        "source": _source(known),
        "action": rest.pop("eventName", None) or first_text(*map(known.get, _EVENT_NAMES)) or _NO_NAME,
        "level": _level(rest.get("severityNumber")),
        "outcome": _outcome(known, error),
        "error": error or None,
        "actor": _texts(known, _ACTOR) | present({"id": _identifier(known, _ACTOR_ID), "roles": _roles(known)}) or None,
        "target": _texts(known, _TARGET) | present({"id": _identifier(known, _TARGET_ID)}) or None,
        "message": rest.pop("body") if isinstance(rest.get("body"), str) else None,
    }
    fields |= _texts(known, _ATTRIBUTES) | _time(rest) | _trace(rest)
    return convert(present(fields | {"metadata": rest}))


def _metadata(resource: dict[str, Any], scope: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """All that a record says and that is said about it, in one object; only the nesting is left out."""
    rest = _plain(record) | ({"body": _value(record["body"])} if "body" in record else {})
    around = {f"resourceLogs.{name}": value for name, value in resource.items() if name not in ("resource", "scopeLogs")}
    around |= {f"scopeLogs.{name}": value for name, value in scope.items() if name not in ("scope", "logRecords")}
    around |= {"resource": _plain(resource.get("resource")), "scope": _plain(scope.get("scope"))}
    twice = sorted(rest.keys() & around.keys())
    if twice:
        raise InvalidRecord("invalid-field", f"{twice[0]!a} would stand twice in the event's metadata: rename one of them")
    return present(rest | around)


def _plain(part: Any) -> Any:
    """A resource, a scope or a record, its attributes as one object."""
    return part | {"attributes": _attributes(part["attributes"])} if find(part, "attributes") is not None else part


def _attributes(pairs: Any) -> Any:
    """A list of keys and values as an object; as it came where it is not that, or has a key twice."""
    if not isinstance(pairs, list) or not all(isinstance(pair, dict) and pair.keys() == {"key", "value"} for pair in pairs):
        return pairs
    values = {pair["key"]: _value(pair["value"]) for pair in pairs if isinstance(pair["key"], str)}
    return values if len(values) == len(pairs) else pairs


def _value(value: Any) -> Any:
    """An AnyValue as JSON; as it came where JSON has nothing like it, such as bytes."""
    if value == {}:
        return None
    ((kind, held),) = value.items() if isinstance(value, dict) and len(value) == 1 else ((None, None),)
    items = held.get("values", []) if isinstance(held, dict) and held.keys() <= {"values"} else None
    match kind:
        case "stringValue" | "boolValue" | "doubleValue":
            return held
        case "intValue":
            return _integer(held)
        case "arrayValue" if isinstance(items, list):
            return [_value(item) for item in items]
        case "kvlistValue" if isinstance(items, list):
            return _attributes(items)
    return value


def _integer(number: Any) -> Any:
    """A 64-bit integer, which JSON has as text; as it came where it is none, or would be written another way."""
    if isinstance(number, str) and len(number) <= 20 and number.isascii() and number.lstrip("-").isdecimal():
        value = int(number)
        return value if str(value) == number and INT64_MIN <= value <= UINT64_MAX else number
    return number


def _known(rest: dict[str, Any]) -> dict[str, Any]:
    """All attributes in one object, the record's before its scope's before its resource's."""
    known: dict[str, Any] = {}
    for part in (rest.get("resource"), rest.get("scope"), rest):
        attributes = find(part, "attributes")
        known |= attributes if isinstance(attributes, dict) else {}
    return known


def _texts(known: dict[str, Any], table: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """The first of the attributes that is text or a number, for each of our fields in the table."""
    found = {
        ours: [known[name] for name in theirs if type(known.get(name)) in (str, int)] for ours, theirs in table.items()
    }
    return {ours: str(values[0]) for ours, values in found.items() if values and values[0] != ""}


def _identifier(known: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return first_identifier(*map(known.get, names))


def _roles(known: dict[str, Any]) -> list[str] | None:
    for value in map(known.get, _ROLES):
        roles = [value] if isinstance(value, str) else value
        if isinstance(roles, list) and roles and all(isinstance(role, str) for role in roles):
            return roles
    return None


def _source(known: dict[str, Any]) -> str | None:
    """The service's name, which is unique in its namespace only."""
    parts = (known.get("service.namespace"), known.get("service.name"))
    return "/".join(part for part in parts if isinstance(part, str) and part) or None


def _level(severity: Any) -> str | None:
    return next((level for most, level in _LEVELS if isinstance(severity, int) and severity <= most), None)


def _outcome(known: dict[str, Any], error: dict[str, str]) -> str | None:
    """What the record says, else what its error or its HTTP status does."""
    said, status = known.get("event.outcome"), known.get("http.response.status_code")
    if said in _OUTCOMES:
        return str(said)
    if error:
        return "failure"
    return ("success" if status < 400 else "failure") if isinstance(status, int) else None


def _time(rest: dict[str, Any]) -> dict[str, datetime]:
    """When it happened, else when it was seen (0 means unknown); what is finer than microseconds stays in `rest` too."""
    for name in ("timeUnixNano", "observedTimeUnixNano"):
        nanoseconds = _integer(rest.get(name))
        if isinstance(nanoseconds, int) and nanoseconds > 0:
            if nanoseconds % 1000 == 0:
                del rest[name]
            return {"time": _EPOCH + timedelta(microseconds=nanoseconds // 1000)}
    return {}


def _trace(rest: dict[str, Any]) -> dict[str, Any]:
    """The trace that it belongs to; one of zeros or of another length is none."""
    trace = rest.get("traceId")
    valid = isinstance(trace, str) and len(trace) == 32 and trace.strip("0")
    return move(rest, _FIELDS) if valid else {}

"""Our own format: the fields of `Event` as JSON. What we do not know is kept in ``metadata``, never dropped."""

from __future__ import annotations

import re
from datetime import UTC
from typing import Any

import msgspec

from prooftrail.errors import InvalidRecord
from prooftrail.event import Actor, Error, Event, Target

_EVENT_FIELDS = frozenset(Event.__struct_fields__)
_NESTED_FIELDS = {
    "actor": frozenset(Actor.__struct_fields__),
    "target": frozenset(Target.__struct_fields__),
    "error": frozenset(Error.__struct_fields__),
}
_FINER_THAN_MICROSECONDS = re.compile(r"\.\d{6}\d*[1-9]")


def to_event(document: dict[str, Any], fallback_id: str) -> Event:
    """Map a native document; one without ``id`` gets `fallback_id`, which a redelivery must derive again.

    Raises `InvalidRecord` or `msgspec.ValidationError` with the path of the field, what was expected and what came.
    """
    fields = {name: value for name, value in document.items() if value is not None}
    fields.setdefault("id", fallback_id)
    unknown = {name: fields.pop(name) for name in fields.keys() - _EVENT_FIELDS}
    for part, known in _NESTED_FIELDS.items():
        if isinstance(fields.get(part), dict):
            fields[part], rest = _split(fields[part], known)
            unknown = _merged(unknown, {f"{part}.{name}": value for name, value in rest.items()})
    time = fields.get("time")
    if isinstance(time, str) and _FINER_THAN_MICROSECONDS.search(time):
        unknown["time"] = time  # PostgreSQL keeps microseconds; the producer's own text keeps the rest
    if unknown:
        fields["metadata"] = _merged(fields.get("metadata", {}), unknown)
    return convert(fields)


def convert(fields: dict[str, Any]) -> Event:
    """Check the fields' types and limits and make the event, its time in UTC."""
    event = msgspec.convert(fields, Event)
    try:
        return msgspec.structs.replace(event, time=event.time.astimezone(UTC))
    except OverflowError:
        raise InvalidRecord(
            "time-out-of-range", f"time is {event.time.isoformat()}, in UTC beyond the years 1 to 9999"
        ) from None


def _split(value: dict[str, Any], known: frozenset[str]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Part an object into the fields we know (None where there are none) and the rest."""
    ours = {name: item for name, item in value.items() if name in known and item is not None}
    return ours or None, {name: item for name, item in value.items() if name not in known}


def _merged(metadata: Any, unknown: dict[str, Any]) -> Any:
    if not isinstance(metadata, dict):
        return metadata  # its type is wrong and the conversion says so
    twice = sorted(metadata.keys() & unknown.keys())
    if twice:
        raise InvalidRecord("invalid-field", f"{twice[0]!a} would stand twice in the event's metadata: rename one of them")
    return metadata | unknown

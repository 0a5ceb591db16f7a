"""Our own format: the fields of `Event` as JSON. What we do not know is kept in ``metadata``, never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prooftrail.errors import InvalidRecord
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import times
from prooftrail.formats.fields import convert
from prooftrail.formats.records import Given

_EVENT_FIELDS = frozenset(Event.__struct_fields__)
_NESTED_FIELDS = {
    "actor": frozenset(Actor.__struct_fields__),
    "target": frozenset(Target.__struct_fields__),
    "error": frozenset(Error.__struct_fields__),
}


def recognises(document: dict[str, Any], headers: Mapping[str, str]) -> bool:
    """Tell whether the document has the fields that only ours have together, and no header says that Java wrote it."""
    return (
        "action" in document
        and type(document.get("time")) is str
        and ("tenant" in document or "source" in document)
        and "__typeid__" not in headers
    )


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map a native document; one without ``id`` is called like its record, which a redelivery repeats.

    Raises `InvalidRecord` or `msgspec.ValidationError` with the path of the field, what was expected and what came.
    """
    fields = {name: value for name, value in document.items() if value is not None}
    fields.setdefault("id", given.origin)
    if given.tenant is not None:
        fields.setdefault("tenant", given.tenant)
    unknown = {name: fields.pop(name) for name in fields.keys() - _EVENT_FIELDS}
    for part, known in _NESTED_FIELDS.items():
        if isinstance(fields.get(part), dict):
            fields[part], rest = _split(fields[part], known)
            unknown = _merged(unknown, {f"{part}.{name}": value for name, value in rest.items()})
    time = fields.get("time")
    if isinstance(time, str) and times.is_finer(time):
        unknown["time"] = time  # PostgreSQL keeps microseconds; the producer's own text keeps the rest
    if unknown:
        fields["metadata"] = _merged(fields.get("metadata", {}), unknown)
    return convert(fields)


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

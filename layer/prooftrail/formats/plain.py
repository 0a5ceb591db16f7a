"""Documents that are events in all but their names: what Java, Go and the services that Prooftrail replaces send.

A table says ``their name -> our field``, both with a dot for a field inside an object, ours with a colon and a spelling
where the values are spelled differently too. Where several of their names mean one field, the first in the table that is
there and fits is it. What does not fit, or is named by no table, stays in ``metadata`` under its own name, and so does a
value that says more than what our field keeps of it.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple, Self

from prooftrail import strict_json
from prooftrail.errors import InvalidRecord
from prooftrail.event import LONGEST_IDENTIFIER, Event
from prooftrail.formats import times
from prooftrail.formats.fields import convert, present
from prooftrail.formats.records import Given

# Reads one spelling: our value and whether theirs can be told from it, or None where it does not fit.
Reader = Callable[[Any], tuple[Any, bool] | None]

_NEEDED = frozenset({"id", "time", "tenant", "source", "action"})
_ZONES = ("timeZone", "timezone", "zoneId", "zoneOffset", "TimeZone", "Timezone", "time_zone", "utcOffset", "utc_offset")
_LONGEST = {
    "category": 256, "actor.type": 1024, "actor.id": LONGEST_IDENTIFIER, "target.type": 256,
    "target.id": LONGEST_IDENTIFIER, "site": 1024,
}  # fmt: skip
_OUTCOMES = {
    "success": "success succeeded successful ok completed complete passed granted allowed permitted",
    "failure": "failure failed fail error denied rejected forbidden unauthorized aborted timeout",
    "unknown": "unknown",
}
_LEVELS = {
    "debug": "debug trace verbose fine finer finest",
    "info": "info information informational",
    "notice": "notice",
    "warning": "warning warn",
    "error": "error err severe",
    "critical": "critical crit fatal alert emergency panic",
}


def _by_word(words: Mapping[str, str]) -> dict[str, str]:
    return {word: ours for ours, theirs in words.items() for word in theirs.split()}


_WORDS = {"outcome": _by_word(_OUTCOMES), "level": _by_word(_LEVELS)}


class _Line(NamedTuple):
    """A line of a table: the two parts of their name, our field, and that field with its spelling."""

    outer: str
    inner: str
    field: str
    ours: str


class Table(NamedTuple):
    """A table, made ready to be looked through for every event."""

    lines: tuple[_Line, ...]
    objects: frozenset[str]  # that lines look into

    @classmethod
    def of(cls, names: Mapping[str, str]) -> Self:
        """Make it of ``their name -> our field``."""
        lines = [_Line(*theirs.partition(".")[::2], ours.partition(":")[0], ours) for theirs, ours in names.items()]
        return cls(tuple(lines), frozenset(line.outer for line in lines if line.inner))


def to_event(
    document: dict[str, Any], table: Table, given: Given, source: str | None = None, time: str | None = None
) -> Event:
    """Map a document by a table; `source` and `time` stand in where no field names one.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field that an event needs is missing or does not fit.
    """
    fields, rest = place(document, table, given)
    fields.setdefault("id", given.origin)
    fields.setdefault("tenant", given.tenant)
    fields.setdefault("source", source)
    fields.setdefault("time", time)
    fields["metadata"] = merged(rest, fields.get("metadata")) or None
    return convert(present(fields))


def place(document: dict[str, Any], table: Table, given: Given) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a document into our fields, those of actor, target and error in objects of theirs, and the rest."""
    rest = {name: value for name, value in document.items() if value is not None and not times.is_zero(value)}
    local = _zone(rest, given)
    fields: dict[str, Any] = {}
    misfits: dict[str, Any] = {}
    for line in [line for line in table.lines if line.outer in rest]:
        found = _lookup(rest, line) if line.field not in fields else None
        read = _read(found, line.ours, local) if found is not None else None
        if read is not None:
            fields[line.field], exact = read
            if exact:
                _take(rest, line)
        elif line.field in _NEEDED and found not in (None, ""):
            misfits.setdefault(line.field, found)  # where nothing else fits, the conversion says what is wrong with it
    return _nested(misfits | fields), _flat(rest, table.objects)


def merged(rest: dict[str, Any], metadata: dict[str, Any] | None) -> dict[str, Any]:
    """The rest of a document and its own metadata; as an object of its own where a name would stand twice."""
    if not metadata:
        return rest
    return rest | ({"metadata": metadata} if rest.keys() & metadata.keys() else metadata)


def _zone(document: dict[str, Any], given: Given) -> tzinfo:
    """The zone of times that name none: the document's own, else what the record's headers or the settings say."""
    names = (document.get(name) for name in _ZONES)
    name = next((name for name in names if isinstance(name, str) and name), given.zone)
    return times.zone(name) if name else UTC


def _lookup(document: dict[str, Any], line: _Line) -> Any:
    value = document.get(line.outer)
    if not line.inner:
        return value
    return value.get(line.inner) if isinstance(value, dict) else None


def _take(document: dict[str, Any], line: _Line) -> None:
    if line.inner:
        document[line.outer] = {name: value for name, value in document[line.outer].items() if name != line.inner}
    else:
        del document[line.outer]


def _nested(fields: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in fields.items():
        outer, _, inner = path.partition(".")
        if inner:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[outer] = value
    return nested


def _flat(rest: dict[str, Any], objects: frozenset[str]) -> dict[str, Any]:
    """What is left of the objects that the table looks into, under ``object.name``, unless such a name is taken."""
    flat: dict[str, Any] = {}
    for name, value in rest.items():
        if name in objects and isinstance(value, dict):
            inner = {f"{name}.{key}": item for key, item in value.items()}
            flat |= {name: value} if inner.keys() & rest.keys() else inner
        else:
            flat[name] = value
    return flat


def _read(value: Any, ours: str, local: tzinfo) -> tuple[Any, bool] | None:
    if ours == "time":
        return _time(value, local)
    reader = _READERS.get(ours)
    if reader is not None:
        return reader(value)
    return _text(value, _LONGEST.get(ours), 1 if ours in _LONGEST or ours in _NEEDED else 0)


def _text(value: Any, longest: int | None = None, shortest: int = 0) -> tuple[str, bool] | None:
    """Text as it is, and a whole number as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) < shortest or (longest is not None and len(value) > longest):
        return None
    return value, True


def _time(value: Any, local: tzinfo) -> tuple[str, bool] | None:
    text = times.rfc3339(value, local)
    return None if text is None else (text, not times.says_more(value, text))


def _word(field: str) -> Reader:
    """One of our words, in any case; theirs is kept where it is another word."""
    words = _WORDS[field]

    def read(value: Any) -> tuple[Any, bool] | None:
        if isinstance(value, bool) and field == "outcome":
            return ("success" if value else "failure"), False
        ours = words.get(value.lower()) if isinstance(value, str) else None
        return None if ours is None else (ours, value.lower() == ours)

    return read


def _enum(value: Any) -> tuple[Any, bool] | None:
    """The name of an enum's constant in lower case, as others write it; other text as it is."""
    if isinstance(value, str) and re.fullmatch(r"[A-Z][A-Z0-9_]*", value, re.ASCII):
        return value.lower(), True
    return _text(value, None, 1)


def _anything(value: Any) -> tuple[Any, bool]:
    return value, True


def _bytes(value: Any) -> tuple[Any, bool]:
    """Go writes ``[]byte`` as base64: where the bytes are a JSON object or array, that is the value."""
    if isinstance(value, str) and value[:1] in {"e", "W"}:  # a brace, a bracket
        try:
            decoded = strict_json.decode(binascii.a2b_base64(value, strict_mode=True))
        except (binascii.Error, ValueError, InvalidRecord):
            return value, True
        if isinstance(decoded, dict | list):
            return decoded, True
    return value, True


def _object(value: Any) -> tuple[Any, bool] | None:
    return (value, True) if isinstance(value, dict) else None


def _roles(value: Any) -> tuple[Any, bool] | None:
    roles = [value] if isinstance(value, str) else value
    return (roles, True) if isinstance(roles, list) and all(isinstance(role, str) for role in roles) else None


def _sequence(value: Any) -> tuple[Any, bool] | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}", value, re.ASCII):
        number = int(value)
        return (number, str(number) == value) if number < 2**63 else None
    return (value, True) if type(value) is int and 0 <= value < 2**63 else None


def _duration(digits: int) -> Reader:
    """A number of ``10**-digits`` seconds, as milliseconds."""

    def read(value: Any) -> tuple[Any, bool] | None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return _milliseconds(Decimal(repr(value)).scaleb(3 - digits))

    return read


def _milliseconds(exact: Decimal) -> tuple[Any, bool] | None:
    rounded = float(exact)
    return (rounded, Decimal(repr(rounded)) == exact) if 0 <= rounded < 2**53 else None


_ISO_DURATION = re.compile(r"PT(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,9}(?:\.\d{1,9})?)S)?", re.ASCII)


def _java_duration(value: Any) -> tuple[Any, bool] | None:
    """Jackson writes a ``Duration`` as seconds with a point or as ISO 8601; a whole number is a count of milliseconds."""
    if isinstance(value, str):
        match = _ISO_DURATION.fullmatch(value)
        if match is None or value == "PT":
            return _duration_text(value)
        hours, minutes, seconds = (Decimal(part or 0) for part in match.groups())
        found = _milliseconds(((hours * 60 + minutes) * 60 + seconds) * 1000)
        return None if found is None else (found[0], False)
    return _duration(0 if isinstance(value, float) else 3)(value)


def _duration_text(value: str) -> tuple[Any, bool] | None:
    """Seconds whose nine digits no double holds come as text (see `java.number`)."""
    if re.fullmatch(r"\d{1,11}\.\d{9}", value, re.ASCII):
        found = _milliseconds(Decimal(value) * 1000)
        return None if found is None else (found[0], False)
    return None


_READERS: dict[str, Reader] = {
    "level": _word("level"),
    "outcome": _word("outcome"),
    "action:enum": _enum,
    "before": _anything,
    "after": _anything,
    "before:bytes": _bytes,
    "after:bytes": _bytes,
    "metadata": _object,
    "actor.roles": _roles,
    "sequence": _sequence,
    "duration_ms": _duration(3),
    "duration_ms:ns": _duration(9),
    "duration_ms:java": _java_duration,
}

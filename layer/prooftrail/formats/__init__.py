"""Raw records become events: what format is this, which events does it hold, and why not, where it holds none.

Each format is one module with one table from its names to ours. Formats are recognised by the shape of the JSON. A record
may hold several events (a CloudTrail log file does); each of them is accepted or rejected on its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from prooftrail import strict_json
from prooftrail.errors import InvalidRecord
from prooftrail.event import OWN_SOURCE, Event
from prooftrail.formats import cloudtrail, eventbridge, native

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
MOST_ELEMENTS = 10_000  # of one record; more would let one message fill the quarantine
FEW_ELEMENTS = 10
SMALLEST_EVENT = 50  # bytes: the names of the fields that an event must have take as much


class RawRecord(msgspec.Struct, frozen=True):
    """What a broker handed over: its exact bytes, and the name under which it would hand them over again."""

    origin: str
    body: bytes


class Accepted(msgspec.Struct, frozen=True):
    """An event, with the bytes that it came as: they are needed if its identity turns out to be taken."""

    origin: str
    raw: bytes
    event: Event


class Rejected(msgspec.Struct, frozen=True):
    """A record, or an element of one, that can never become an event; goes to quarantine."""

    origin: str
    raw: bytes
    reason: str
    detail: str


def read(record: RawRecord, latest: datetime) -> Iterator[Accepted | Rejected]:
    """Read one record into its events and rejected parts, at least one of them.

    `latest` is the furthest time an event may carry: a wrong clock must not make partitions for far years.
    """
    try:
        document = strict_json.decode(record.body)
    except InvalidRecord as error:
        elements = _elements(record.body)
        if len(elements) < 2:
            yield Rejected(record.origin, record.body, error.reason, error.detail)
            return
    else:
        if _container(document, len(record.body)) is None:
            yield _event(document, record.origin, record.body, latest)
            return
        elements = _elements(record.body)
    for number, element in enumerate(elements):
        yield _element(bytes(element), f"{record.origin}:{number}", latest)
    if not elements:
        yield Rejected(record.origin, record.body, "unknown-shape", "expected at least one event, got an empty list")


def _container(document: Any, size: int) -> list[Any] | None:
    """The list of events that the document is, or None where it is one event."""
    items = document["Records"] if isinstance(document, dict) and document.keys() == {"Records"} else document
    if isinstance(items, list) and _plausible(len(items), size) and all(isinstance(item, dict) for item in items):
        return items
    return None


# The list must be all that the object holds: a second key, were it another "Records", would be lost.
_LOG_FILE = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"Records"[ \t\r\n]*:(.*)\}[ \t\r\n]*', re.DOTALL)


def _elements(body: bytes) -> list[msgspec.Raw]:
    """The exact bytes of each element of a JSON array or of a log file's ``Records``; none where it is neither."""
    log_file = _LOG_FILE.fullmatch(body)
    try:
        elements = msgspec.json.decode(log_file[1] if log_file else body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return []
    plausible = _plausible(len(elements), len(body)) and all(bytes(element).startswith(b"{") for element in elements)
    return elements if plausible else []


def _plausible(elements: int, size: int) -> bool:
    """Whether so many events can be in so many bytes: a list of thousands of ``{}`` is one bad record, not thousands."""
    return elements <= MOST_ELEMENTS and (elements <= FEW_ELEMENTS or size >= elements * SMALLEST_EVENT)


def _element(raw: bytes, origin: str, latest: datetime) -> Accepted | Rejected:
    try:
        return _event(strict_json.decode(raw), origin, raw, latest)
    except InvalidRecord as error:
        return Rejected(origin, raw, error.reason, error.detail)


def _event(document: Any, origin: str, raw: bytes, latest: datetime) -> Accepted | Rejected:
    try:
        return Accepted(origin, raw, _admitted(_map(document, origin), latest))
    except InvalidRecord as error:
        return Rejected(origin, raw, error.reason, error.detail)
    except msgspec.ValidationError as error:
        return Rejected(origin, raw, "invalid-field", str(error))


def _map(document: Any, origin: str) -> Event:
    if not isinstance(document, dict):
        raise InvalidRecord("unknown-shape", f"expected a JSON object, got {_kind(document)}")
    if eventbridge.recognises(document):
        document, origin = eventbridge.unwrap(document, origin)
    if cloudtrail.recognises(document):
        return cloudtrail.to_event(document)
    return native.to_event(document, fallback_id=origin)


def _admitted(event: Event, latest: datetime) -> Event:
    if event.source == OWN_SOURCE:
        raise InvalidRecord("reserved-source", f"the source {OWN_SOURCE!a} is for Prooftrail's own events: choose another")
    if event.time < EARLIEST:
        raise InvalidRecord("time-out-of-range", f"time is {event.time.isoformat()}, before 1970: is the field unset?")
    if event.time > latest:
        raise InvalidRecord(
            "time-out-of-range", f"time is {event.time.isoformat()}, after {latest.isoformat()}: check the clock"
        )
    return event


def _kind(document: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(document), "a number")

"""Raw records become events: what format is this, which events does it hold, and why not, where it holds none.

Each format is one module with one table from its names to ours. Formats are recognised by the record's headers, content
type among them, and by the shape of the document. A record may hold several events (a CloudTrail log file does); each of
them is accepted or rejected on its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import msgspec

from prooftrail import strict_json
from prooftrail.errors import ConfigurationError, InvalidRecord
from prooftrail.event import OWN_SOURCE, Event
from prooftrail.formats import cloudtrail, eventbridge, native
from prooftrail.formats.records import Accepted, Given, RawRecord, Rejected

__all__ = ["FORMATS", "Accepted", "Defaults", "Format", "Given", "RawRecord", "Rejected", "read"]

TENANT_HEADER = "prooftrail-tenant"  # by which a producer, or its broker, says whose a record is that does not

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
MOST_ELEMENTS = 10_000  # of one record; more would let one message fill the quarantine
FEW_ELEMENTS = 10
SMALLEST_EVENT = 50  # bytes: the names of the fields that an event must have take as much


class Format(Protocol):
    """A module that reads one format."""

    def recognises(self, document: dict[str, Any], headers: Mapping[str, str], /) -> bool:
        """Tell whether the document, with its record's headers, is of this format."""

    def to_event(self, document: dict[str, Any], given: Given, /) -> Event:
        """Map the document. Raises `InvalidRecord` or `msgspec.ValidationError` where it is no event."""


# In the order in which they are asked; what none of them recognises is read as the tenant's default, else as our own.
FORMATS: dict[str, Format] = {"cloudtrail": cloudtrail, "native": native}


class Defaults(msgspec.Struct, frozen=True):
    """What stands in where a record does not say: the tenant, and by tenant the format that its producers send."""

    tenant: str | None = None
    formats: Mapping[str, str] = {}

    @classmethod
    def parse(cls, tenant: str, formats: str) -> Self:
        """Read what settings say: a tenant or nothing, and ``<tenant>=<format>`` pairs, comma-separated.

        Raises `ConfigurationError` where a format is not one of `FORMATS`.
        """
        pairs = dict(item.strip().partition("=")[::2] for item in formats.split(",") if item.strip())
        for name, format in pairs.items():
            if format not in FORMATS:
                raise ConfigurationError(f"DEFAULT_FORMATS: expected {name}=<{'|'.join(FORMATS)}>, got {format!a}")
        return cls(tenant or None, pairs)


NO_DEFAULTS = Defaults()


def read(record: RawRecord, latest: datetime, defaults: Defaults = NO_DEFAULTS) -> Iterator[Accepted | Rejected]:
    """Read one record into its events and rejected parts, at least one of them.

    `latest` is the furthest time an event may carry: a wrong clock must not make partitions for far years. Raises
    `RetryableError` where what is needed to read the record cannot be had at the moment.
    """
    try:
        document = strict_json.decode(record.body)
    except InvalidRecord as error:
        elements = _elements(record.body)
        if len(elements) < 2:
            yield Rejected(record, error.reason, error.detail, error.fields)
            return
    else:
        if _container(document, len(record.body)) is None:
            yield _event(document, record, latest, defaults)
            return
        elements = _elements(record.body)
    for number, element in enumerate(elements):
        yield _element(RawRecord(f"{record.origin}:{number}", bytes(element), record.headers), latest, defaults)
    if not elements:
        yield Rejected(record, "unknown-shape", "expected at least one event, got an empty list")


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


def _element(record: RawRecord, latest: datetime, defaults: Defaults) -> Accepted | Rejected:
    try:
        return _event(strict_json.decode(record.body), record, latest, defaults)
    except InvalidRecord as error:
        return Rejected(record, error.reason, error.detail, error.fields)


def _event(document: Any, record: RawRecord, latest: datetime, defaults: Defaults) -> Accepted | Rejected:
    try:
        return Accepted(record, _admitted(_map(document, record, defaults), latest))
    except InvalidRecord as error:
        return Rejected(record, error.reason, error.detail, error.fields)
    except msgspec.ValidationError as error:
        return Rejected(record, "invalid-field", str(error))


def _map(document: Any, record: RawRecord, defaults: Defaults) -> Event:
    if not isinstance(document, dict):
        raise InvalidRecord("unknown-shape", f"expected a JSON object, got {_kind(document)}")
    origin, headers = record.origin, record.headers
    if eventbridge.recognises(document):
        document, origin = eventbridge.unwrap(document, origin)
    tenant = headers.get(TENANT_HEADER) or defaults.tenant
    given = Given(origin, headers, tenant)
    return _format(document, headers, defaults, tenant).to_event(document, given)


def _format(document: dict[str, Any], headers: Mapping[str, str], defaults: Defaults, tenant: str | None) -> Format:
    for format in FORMATS.values():
        if format.recognises(document, headers):
            return format
    named = document.get("tenant", tenant)
    return FORMATS[defaults.formats.get(named, "native") if isinstance(named, str) else "native"]


def _admitted(event: Event, latest: datetime) -> Event:
    if event.source == OWN_SOURCE:
        message = f"the source {OWN_SOURCE!a} is for Prooftrail's own events: choose another"
        raise InvalidRecord("reserved-source", message, {"source": message})
    if event.time < EARLIEST:
        message = f"time is {event.time.isoformat()}, before 1970: is the field unset?"
        raise InvalidRecord("time-out-of-range", message, {"time": message})
    if event.time > latest:
        message = f"time is {event.time.isoformat()}, after {latest.isoformat()}: check the clock"
        raise InvalidRecord("time-out-of-range", message, {"time": message})
    return event


def _kind(document: Any) -> str:
    return {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}.get(type(document), "a number")

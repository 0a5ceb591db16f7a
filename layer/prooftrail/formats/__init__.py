"""Raw records become events: what format is this, which events does it hold, and why not, where it holds none.

Each format is one module with one table from its names to ours. Formats are recognised by the record's headers, content
type among them, and by the shape of the document. A record may hold several events (a CloudTrail log file does); each of
them is accepted or rejected on its own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import msgspec

from prooftrail import strict_json
from prooftrail.errors import ConfigurationError, InvalidRecord
from prooftrail.event import OWN_SOURCE, Event
from prooftrail.formats import (
    avro,
    cloudevents,
    cloudtrail,
    debezium,
    eventbridge,
    fhir,
    go,
    java,
    native,
    ocsf,
    otel,
    services,
    times,
)
from prooftrail.formats.records import Accepted, Given, RawRecord, Rejected

__all__ = ["FORMATS", "Accepted", "Defaults", "Format", "Given", "RawRecord", "Rejected", "read"]

TENANT_HEADER = "prooftrail-tenant"  # by which a producer, or its broker, says whose a record is that does not
ZONE_HEADER = "prooftrail-timezone"  # likewise, in which zone its times are that name none

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
MOST_ELEMENTS = 10_000  # of one record; more would let one message fill the quarantine
FEW_ELEMENTS = 10
SMALLEST_EVENT = 50  # bytes: the names of the fields that an event must have take as much


class Container(Protocol):
    """A format whose documents hold many events."""

    def is_container(self, document: dict[str, Any], /) -> bool:
        """Tell whether the document holds many events, or none."""

    def cut(self, body: bytes, /) -> tuple[list[msgspec.Raw], list[bytes]]:
        """The pieces of the body that are events, and for each the JSON that this format reads as that event alone.

        Raises `msgspec.MsgspecError` where the body is no such document.
        """


class Format(Protocol):
    """A module that reads one format."""

    def recognises(self, document: dict[str, Any], headers: Mapping[str, str], /) -> bool:
        """Tell whether the document, with its record's headers, is of this format."""

    def to_event(self, document: dict[str, Any], given: Given, /) -> Event:
        """Map the document. Raises `InvalidRecord` or `msgspec.ValidationError` where it is no event."""


# In the order in which they are asked: our own early, for its speed; last those that are known by the style of their names
# alone. What none of them recognises is read as the tenant's default, else as our own.
FORMATS: dict[str, Format] = {
    "cloudevents": cloudevents,
    "native": native,
    "cloudtrail": cloudtrail,
    "fhir": fhir,
    "ocsf": ocsf,
    "otel": otel,
    "debezium": debezium,
    "services": services,
    "java": java,
    "go": go,
}

CONTAINERS: tuple[Container, ...] = (fhir, otel)


class Defaults(msgspec.Struct, frozen=True):
    """What stands in where a record does not say: the tenant, by tenant the format that its producers send, the zone."""

    tenant: str | None = None
    formats: Mapping[str, str] = {}
    zone: str | None = None

    @classmethod
    def parse(cls, tenant: str, formats: str, zone: str = "") -> Self:
        """Read what settings say: a tenant or nothing, ``<tenant>=<format>`` pairs, comma-separated, a zone or nothing.

        Raises `ConfigurationError` where a format is not one of `FORMATS`, or the zone none that exists.
        """
        pairs = dict(item.strip().partition("=")[::2] for item in formats.split(",") if item.strip())
        for name, format in pairs.items():
            if format not in FORMATS:
                raise ConfigurationError(f"DEFAULT_FORMATS: expected {name}=<{'|'.join(FORMATS)}>, got {format!a}")
        try:
            times.zone(zone or "UTC")
        except InvalidRecord as error:
            raise ConfigurationError(f"DEFAULT_TIMEZONE: {error.detail}") from None
        return cls(tenant or None, pairs, zone or None)


NO_DEFAULTS = Defaults()


def read(record: RawRecord, latest: datetime, defaults: Defaults = NO_DEFAULTS) -> Iterator[Accepted | Rejected]:
    """Read one record into its events and rejected parts, at least one of them.

    `latest` is the furthest time an event may carry: a wrong clock must not make partitions for far years. Raises
    `RetryableError` where what is needed to read the record cannot be had at the moment.
    """
    return _read_avro(record, latest, defaults) if avro.recognises(record.body) else _bounded(record, latest, defaults)


def _read_avro(record: RawRecord, latest: datetime, defaults: Defaults) -> Iterator[Accepted | Rejected]:
    """Read a record in Avro as the JSON that it would be; the record itself is kept, in the bytes that it came in."""
    try:
        body = avro.to_json(record.body)
    except InvalidRecord as error:
        yield Rejected(record, error.reason, error.detail, error.fields)
        return
    headers = {**record.headers, "content-type": "application/json"}
    for outcome in _bounded(RawRecord(record.origin, body, headers), latest, defaults):
        is_element = outcome.record.origin != record.origin
        yield outcome if is_element else msgspec.structs.replace(outcome, record=record)


def _bounded(record: RawRecord, latest: datetime, defaults: Defaults) -> Iterator[Accepted | Rejected]:
    """Read a record that may hold lists in lists: each may be small, and all of them together too many."""
    outcomes = list(itertools.islice(_read(record, latest, defaults), MOST_ELEMENTS + 1))
    if _plausible(len(outcomes), len(record.body)):
        yield from outcomes
    else:
        yield _no_list(record)


def _no_list(record: RawRecord) -> Rejected:
    return Rejected(
        record, "unknown-shape", f"expected 1 to {MOST_ELEMENTS} events, got none, or too many or too large ones"
    )


def _read(record: RawRecord, latest: datetime, defaults: Defaults) -> Iterator[Accepted | Rejected]:
    """Read a record in JSON; each element of a list is such a record again."""
    if record.headers and cloudevents.is_binary(record.headers):
        yield _binary(record, latest, defaults)
        return
    try:
        document = _decode(record)
    except InvalidRecord as error:
        elements = _elements(record.body)
        if len(elements) < 2:
            yield Rejected(record, error.reason, error.detail, error.fields)
            return
    else:
        if _is_container_in_envelope(document):
            origin = eventbridge.origin(document, record.origin)
            yield from _read(RawRecord(origin, eventbridge.detail(record.body), record.headers), latest, defaults)
            return
        if not _is_container(document, len(record.body)):
            yield _event(document, record, latest, defaults)
            return
        elements = _elements(record.body)
    for number, element in enumerate(elements):
        yield from _read(RawRecord(f"{record.origin}:{number}", element, record.headers), latest, defaults)
    if not elements:
        yield _no_list(record)


def _is_container(document: Any, size: int) -> bool:
    """Whether the document is several events, each of which is read on its own."""
    items = document
    if isinstance(document, dict):
        if len(document) > 1 or "Records" not in document:
            for container in CONTAINERS:  # noqa: SIM110  # every event comes by here, and `any` takes twice as long
                if container.is_container(document):
                    return True
            return False
        items = document["Records"]
    return isinstance(items, list) and _plausible(len(items), size) and all(isinstance(item, dict) for item in items)


def _is_container_in_envelope(document: Any) -> bool:
    """Whether the document is an envelope of EventBridge with several events in it."""
    return isinstance(document, dict) and eventbridge.recognises(document) and _holds_many(document["detail"])


def _holds_many(document: dict[str, Any]) -> bool:
    return any(container.is_container(document) for container in CONTAINERS)


def _elements(body: bytes) -> list[bytes]:
    """The bytes of each element of a container; none where it is not one, or where an element is not all that is wrong."""
    for cut in (_cut_list, *(container.cut for container in CONTAINERS)):
        try:
            pieces, elements = cut(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        objects = all(bytes(piece).startswith(b"{") for piece in pieces)
        if pieces and objects and _plausible(len(pieces), len(body)) and _is_sound_without(pieces, body):
            return elements
    return []


# The list must be all that the object holds: a second key, were it another "Records", would be lost.
_LOG_FILE = re.compile(rb'[ \t\r\n]*\{[ \t\r\n]*"Records"[ \t\r\n]*:(.*)\}[ \t\r\n]*', re.DOTALL)


def _cut_list(body: bytes) -> tuple[list[msgspec.Raw], list[bytes]]:
    """The elements of a JSON array or of a log file's ``Records``, which are read as they are."""
    log_file = _LOG_FILE.fullmatch(body)
    pieces = msgspec.json.decode(log_file[1] if log_file else body, type=list[msgspec.Raw])
    return pieces, list(map(bytes, pieces))


def _is_sound_without(pieces: list[msgspec.Raw], body: bytes) -> bool:
    """Whether the body is strict JSON once the pieces are out of it, so that nothing is lost but what they may lack."""
    rest, end = [], 0
    for piece in map(bytes, pieces):
        start = body.index(piece, end)
        rest.append(body[end:start])
        end = start + len(piece)
    try:
        strict_json.decode(b"0".join([*rest, body[end:]]))
    except InvalidRecord:
        return False
    return True


def _plausible(elements: int, size: int) -> bool:
    """Whether so many events can be in so many bytes: a list of thousands of ``{}`` is one bad record, not thousands."""
    return elements <= MOST_ELEMENTS and (elements <= FEW_ELEMENTS or size >= elements * SMALLEST_EVENT)


def _binary(record: RawRecord, latest: datetime, defaults: Defaults) -> Accepted | Rejected:
    """Read a CloudEvent whose attributes are headers and whose data, of any kind, is the body."""
    try:
        return _event(cloudevents.structured(record), record, latest, defaults)
    except InvalidRecord as error:
        return Rejected(record, error.reason, error.detail, error.fields)


def _decode(record: RawRecord) -> Any:
    """Decode a record's JSON; Jackson's times of nanoseconds, which no double holds, as the text of their digits."""
    try:
        return strict_json.decode(record.body)
    except InvalidRecord as error:
        if error.reason != "number-not-representable":
            raise
        document = strict_json.decode(record.body, java.number)
        if _is_java(document, record.headers):
            return document
        raise


def _is_java(document: Any, headers: Mapping[str, str]) -> bool:
    """Whether Java wrote a document, also one in an envelope, or all of a list."""
    if isinstance(document, list):
        return all(_is_java(item, headers) for item in document)
    if not isinstance(document, dict):
        return False
    return java.recognises(document["detail"] if eventbridge.recognises(document) else document, headers)


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
    origin, headers, time = record.origin, record.headers, record.headers.get(":time")
    envelope = document if eventbridge.recognises(document) else None
    if envelope is not None:
        document, origin = envelope["detail"], eventbridge.origin(envelope, origin)
        time = eventbridge.time(envelope) or time
    tenant = headers.get(TENANT_HEADER) or defaults.tenant
    given = Given(origin, headers, tenant, headers.get(ZONE_HEADER) or defaults.zone, time)
    format = _format(document, headers, defaults, tenant)
    if envelope is not None and format is FORMATS["native"]:
        return eventbridge.to_event(envelope, given)
    return format.to_event(document, given)


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

"""Envelopes: a Lambda event of each broker becomes raw records, each with a name that a redelivery repeats.

Sources: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS", "Using Lambda with Amazon MSK", "Using Lambda with
self-managed Apache Kafka" and "Using Lambda with Amazon MQ". EventBridge comes by SQS, as a body like any other.

A record's name (`RawRecord.origin`) stands in for an event's id where the producer gives none:

- ``sqs:<queue>:<message id>``
- ``kafka:<cluster>:<topic>:<partition>:<offset>:<timestamp>``; the timestamp, which a record keeps for ever, tells apart
  what one offset held before and after a topic or a cluster was made anew. A cluster that is not of MSK has no name of its
  own, and its bootstrap servers may change between two deliveries: there ``<cluster>`` is ``self-managed``.
- ``rabbitmq:<virtual host>:<queue>:<message id>`` where the producer set ``message_id``, else
  ``rabbitmq:<virtual host>:<queue>:sha256-<digest>`` of the body and its properties: RabbitMQ says that it delivers
  something again, but not what. So of two messages with equal bytes and properties, sent on purpose, one event is kept,
  as if the broker had repeated it. A producer to which both matter sets ``message_id``, ``timestamp`` or the event's id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from prooftrail.errors import UnknownEnvelope
from prooftrail.formats import RawRecord
from prooftrail.redrive import ORIGIN

LONGEST_ORIGIN = 240  # characters; an element of a list appends its number, and an id may have 256


class Delivery(NamedTuple):
    """A record, and what its broker must hear if it has to come again.

    `identifier` is its name in a partial answer, None where the broker takes none. Deliveries of one `line` are in order:
    none of them may be stored while one before it is not.
    """

    record: RawRecord
    identifier: Any = None
    line: str | None = None


class Envelope(NamedTuple):
    """What one invocation was handed; `tombstones` are records of Kafka without a value, which hold nothing to keep."""

    broker: Literal["sqs", "kafka", "rabbitmq"]
    deliveries: list[Delivery]
    tombstones: int = 0


def of(event: Any) -> Envelope:
    """Unwrap the event of any source. Raises `UnknownEnvelope` for what none of them sends."""
    if isinstance(event, dict):
        if event.get("eventSource") in ("aws:kafka", "SelfManagedKafka"):
            return from_kafka(event)
        if event.get("eventSource") == "aws:rmq":
            return from_rabbitmq(event)
        if "Records" in event:
            return from_sqs(event)
    keys = sorted(event) if isinstance(event, dict) else type(event).__name__
    raise UnknownEnvelope(
        f"expected a batch of SQS, Kafka or RabbitMQ, got {keys}: is this function mapped to another source?"
    )


# ------------------------------------------------------------------------------------------------------------------ SQS
class _Attribute(msgspec.Struct, rename="camel"):
    string_value: str | None = None
    binary_value: bytes | None = None


class _Message(msgspec.Struct, rename="camel"):
    message_id: str
    body: str
    event_source: Literal["aws:sqs"]
    arn: str = msgspec.field(name="eventSourceARN")
    message_attributes: dict[str, _Attribute] = {}
    attributes: dict[str, str] = {}


class _SqsBatch(msgspec.Struct):
    records: list[_Message] = msgspec.field(name="Records")


def from_sqs(event: dict[str, Any]) -> Envelope:
    """Unwrap an SQS batch; message attributes are the records' headers. Raises `UnknownEnvelope` for anything else."""
    return Envelope("sqs", [_of_message(message) for message in _convert(event, _SqsBatch).records])


def _of_message(message: _Message) -> Delivery:
    queue = message.arn.rpartition(":")[2]
    headers = {
        _header(name): _text(value.string_value if value.binary_value is None else value.binary_value)
        for name, value in message.message_attributes.items()
    }
    former, sent = _former(queue, headers)
    headers |= _sent(sent or message.attributes.get("SentTimestamp", ""))
    origin = former or _name("sqs", queue, message.message_id)
    return Delivery(RawRecord(origin, message.body.encode("utf-8", "surrogatepass"), headers), message.message_id)


def _former(queue: str, headers: dict[str, str]) -> tuple[str | None, str | None]:
    """The name that a dead letter had before `prooftrail redrive` sent it back, and when it was sent first.

    A producer cannot take another source's name.
    """
    found = re.fullmatch(rf"(sqs:{re.escape(queue)}:[0-9a-f-]{{36}})(?::([0-9]{{1,14}}))?", headers.get(ORIGIN, ""))
    if found is None:
        return None, None
    del headers[ORIGIN]
    return found[1], found[2]


# ---------------------------------------------------------------------------------------------------------------- Kafka
class _Schema(msgspec.Struct, rename="camel"):
    data_format: str | None = None
    schema_id: str | None = None


class _KafkaRecord(msgspec.Struct, rename="camel"):
    topic: str
    partition: int
    offset: int
    timestamp: int = -1  # Kafka's own word for none
    key: bytes | None = None
    value: bytes | None = None
    headers: list[dict[str, list[int] | None]] | None = None
    value_schema_metadata: _Schema | None = None


class _KafkaBatch(msgspec.Struct, rename="camel"):
    records: dict[str, list[_KafkaRecord]]
    event_source_arn: str = ""


def from_kafka(event: dict[str, Any]) -> Envelope:
    """Unwrap a batch of Amazon MSK or of a self-managed cluster, of any topics and partitions.

    What a mapping with a schema registry decoded is JSON already; its headers ``:schema-id`` and ``:schema-format`` say
    what it was. Raises `UnknownEnvelope` for anything else.
    """
    batch = _convert(event, _KafkaBatch)
    # arn:aws:kafka:<region>:<account>:cluster/<name>/<uuid>
    cluster = batch.event_source_arn.partition(":cluster/")[2].partition("/")[0] or "self-managed"
    records = [record for partition in batch.records.values() for record in partition]
    kept = [record for record in records if record.value is not None]
    return Envelope("kafka", [_of_kafka(record, cluster) for record in kept], len(records) - len(kept))


def _of_kafka(record: _KafkaRecord, cluster: str) -> Delivery:
    line = f"{record.topic}-{record.partition}"
    place = map(str, (record.partition, record.offset, record.timestamp))
    origin = _name("kafka", cluster, record.topic, *place)
    raw = RawRecord(origin, record.value or b"", dict(_kafka_headers(record)) | _sent(str(record.timestamp)))
    return Delivery(raw, {"partition": line, "offset": record.offset}, line)


def _kafka_headers(record: _KafkaRecord) -> Iterator[tuple[str, str]]:
    """Of headers with one name the last counts, as it does for Kafka's own clients."""
    for header in record.headers or ():
        for name, value in header.items():
            # Java's bytes have a sign.
            yield _header(name), _text(bytes(number & 0xFF for number in value or ()))
    if record.key is not None:
        yield ":key", _text(record.key)
    if record.value_schema_metadata is not None:
        yield ":schema-id", _text(record.value_schema_metadata.schema_id)
        yield ":schema-format", _text(record.value_schema_metadata.data_format)


# ------------------------------------------------------------------------------------------------------------- RabbitMQ
class _RabbitMessage(msgspec.Struct, rename="camel"):
    data: bytes
    basic_properties: dict[str, Any] = {}


class _RabbitBatch(msgspec.Struct, rename="camel"):
    queues: dict[str, list[_RabbitMessage]] = msgspec.field(name="rmqMessagesByQueue")


# Written by the broker, and another one at each delivery: no part of what a message is.
_DELIVERY_HEADERS = ("x-delivery-count", "x-acquired-count", "x-death", "x-first-death-", "x-last-death-")


def from_rabbitmq(event: dict[str, Any]) -> Envelope:
    """Unwrap a batch of RabbitMQ on Amazon MQ, of any queues and virtual hosts.

    Properties are headers too: ``content-type`` and ``content-encoding``, the others with a colon before the name
    (``:message-id``, ``:app-id``). Raises `UnknownEnvelope` for anything else.
    """
    queues = _convert(event, _RabbitBatch).queues
    return Envelope("rabbitmq", [_of_rabbitmq(message, name) for name, messages in queues.items() for message in messages])


def _of_rabbitmq(message: _RabbitMessage, name: str) -> Delivery:
    queue, _, host = name.rpartition("::")
    properties = {name: value for name, value in message.basic_properties.items() if value is not None}
    headers = properties.pop("headers", None)
    headers = headers if isinstance(headers, dict) else {}
    id = properties.get("messageId") or f"sha256-{_digest(message.data, properties, headers)}"
    named = {_header(_property(name)): _value(value) for name, value in properties.items()}
    named |= {_header(name): _value(value) for name, value in headers.items()}
    return Delivery(RawRecord(_name("rabbitmq", host, queue, _value(id)), message.data, named))


def _digest(body: bytes, properties: Mapping[str, Any], headers: Mapping[str, Any]) -> str:
    lasting = {name: value for name, value in headers.items() if not name.startswith(_DELIVERY_HEADERS)}
    said = json.dumps([properties, lasting], sort_keys=True).encode()
    return hashlib.sha256(b"%d:%b%b" % (len(said), said, body)).hexdigest()


def _property(name: str) -> str:
    """``contentType`` -> ``content-type``, ``appId`` -> ``:app-id``."""
    dashed = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name)
    return dashed if dashed.startswith("content-") else f":{dashed}"


def _value(value: Any) -> str:
    """A header's value as text: long strings come as ``{"bytes": [...]}``, tables and lists stay JSON."""
    if isinstance(value, dict) and value.keys() == {"bytes"} and _are_bytes(value["bytes"]):
        return _text(bytes(number & 0xFF for number in value["bytes"]))
    return _text(value if isinstance(value, str) else json.dumps(value))


def _are_bytes(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and -128 <= number <= 255 for number in value)


# ----------------------------------------------------------------------------------------------------------- every source
def _sent(milliseconds: str) -> dict[str, str]:
    """The header ``:time`` of a record whose source says when it was sent, in milliseconds since 1970."""
    if not re.fullmatch(r"[0-9]{1,14}", milliseconds):
        return {}
    return {":time": (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))).isoformat()}


_Shape = TypeVar("_Shape", bound=msgspec.Struct)


def _convert(event: dict[str, Any], kind: type[_Shape]) -> _Shape:
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        raise UnknownEnvelope(f"expected an event as Lambda's mapping sends it, got one that differs: {error}") from error


def _name(source: str, *parts: str) -> str:
    """Join the parts; what would be too long for an id, or is no plain text, is named by its digest."""
    name = ":".join([source, *parts])
    if len(name) <= LONGEST_ORIGIN and name.isprintable():
        return name
    return f"{source}:sha256-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _header(name: str) -> str:
    return _text(name.lower())


def _text(value: str | bytes | None) -> str:
    """A header's text as any column can hold it: what is not UTF-8, and NUL, is written with backslashes."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value or ""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()

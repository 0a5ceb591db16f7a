"""Avro records in Confluent's wire format: a zero byte, a schema's id in four bytes, then the record; read as JSON.

Sources: Confluent Schema Registry, "Wire format"; Apache Avro specification 1.12. A record is read by the schema that it
was written with, and by none of ours: a reader's schema would drop the fields that it does not have and make up those that
the writer did not have, and an audit trail may do neither. Schemas may evolve as they like, because what was read is mapped
by its names, like the same document in JSON.

- decimals are text with all their digits, UUIDs text; dates, times and timestamps are ISO 8601
- ``bytes`` and ``fixed`` are base64; a double that is no number is ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``
- a timestamp that no calendar has stays a number

What registries hold besides: records written by a JSON Schema have JSON behind the id. Protocol Buffers are not read.
"""

from __future__ import annotations

import functools
import io
import math
import struct
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from prooftrail import settings
from prooftrail.errors import InvalidRecord
from prooftrail.settings import SchemaRegistrySettings

if TYPE_CHECKING:
    from prooftrail.formats.schema_registry import Schema, SchemaRegistry

_PREFIX = struct.Struct(">BI")


def recognises(body: bytes) -> bool:
    """Tell whether a body begins like the wire format; no JSON text begins with a zero byte."""
    return body.startswith(b"\0")


def to_json(body: bytes) -> bytes:
    """Read the record and write it as JSON.

    Raises `InvalidRecord` where it is none, or no registry is configured or none knows its schema, and
    `SchemaRegistryUnavailable` where the registry cannot be asked now.
    """
    registry = _registry()
    if registry is None:
        raise InvalidRecord(
            "no-schema-registry",
            "it begins with the zero byte of a schema registry's wire format, but SCHEMA_REGISTRY_URL is not set: set it, "
            "then replay this record",
        )
    if len(body) < _PREFIX.size:
        raise InvalidRecord("invalid-avro", f"expected {_PREFIX.size} bytes before the record, got {len(body)} in all")
    schema = registry.schema(_PREFIX.unpack_from(body)[1])
    if schema.kind == "JSON":
        return body[_PREFIX.size :]
    return msgspec.json.encode(_plain(_reader(schema)(body[_PREFIX.size :])))


@functools.cache
def _registry() -> SchemaRegistry | None:
    from prooftrail.formats import schema_registry  # an HTTP client, of no use to who sends JSON

    return schema_registry.configured(settings.read(SchemaRegistrySettings))


@functools.lru_cache(maxsize=1000)
def _reader(schema: Schema) -> Callable[[bytes], Any]:
    """What reads bodies of a schema. Raises `InvalidRecord` where the schema is none that can be read safely."""
    if schema.kind != "AVRO":
        raise InvalidRecord("unsupported-schema", f"expected a schema of Avro or JSON, got one of {schema.kind[:20]!a}")
    import fastavro  # as slow to load as all the rest

    _keep_every_digit()
    names: dict[str, Any] = {}
    try:
        texts = (*schema.references, schema.text)
        # A default that is wrong does no harm: defaults are for readers' schemas.
        parse = functools.partial(fastavro.parse_schema, named_schemas=names, _ignore_default_error=True)
        parsed = [parse(msgspec.json.decode(text)) for text in texts]
        unbounded = any(_is_empty(items, names, {}) for items in _arrays(parsed))
        decoder = _decoder(_is_recursive(parsed))
    except Exception as error:  # noqa: BLE001  # the library has many, and a schema is somebody else's text
        raise InvalidRecord("unsupported-schema", f"the registry's schema cannot be used: {error!r}") from None
    if unbounded:
        raise InvalidRecord("unsupported-schema", "it has an array of items without a byte, which has no bounds")
    return functools.partial(_read, decoder, parsed[-1])


def _read(decode: Callable[..., Any], schema: Any, body: bytes) -> Any:
    stream = io.BytesIO(body)
    try:
        value = decode(stream, schema)
    except Exception as error:  # noqa: BLE001  # the library has many, and the bytes are somebody else's
        raise InvalidRecord("invalid-avro", f"the record is not what its schema says: {error!r}") from None
    if stream.tell() < len(body):
        raise InvalidRecord(
            "invalid-avro", f"{len(body) - stream.tell()} bytes follow the record that its schema describes"
        )
    return value


def _decoder(recursive: bool) -> Callable[..., Any]:
    """The library's decoder; where values may nest without end, its Python one, which refuses instead of crashing."""
    from fastavro import _read_py, schemaless_reader

    return _read_py.schemaless_reader if recursive else schemaless_reader


def _is_recursive(schema: Any, inside: frozenset[str] = frozenset()) -> bool:
    """Whether a type is part of itself. (Parsed, a schema defines each type where it is first named.)"""
    if isinstance(schema, list):
        return any(_is_recursive(branch, inside) for branch in schema)
    if not isinstance(schema, dict):
        return schema in inside
    inside |= {schema["name"]} if "name" in schema else set()
    parts = [field["type"] for field in schema.get("fields", ())]
    parts += [schema[part] for part in ("type", "items", "values") if part in schema]
    return any(_is_recursive(part, inside) for part in parts)


def _arrays(schema: Any) -> Iterator[Any]:
    """The schemas of what the arrays in a schema hold."""
    if isinstance(schema, list):
        for branch in schema:
            yield from _arrays(branch)
    elif isinstance(schema, dict):
        if "items" in schema:
            yield schema["items"]
        for part in (*(field["type"] for field in schema.get("fields", ())), *map(schema.get, ("type", "items", "values"))):
            yield from _arrays(part)


def _is_empty(schema: Any, names: dict[str, Any], known: dict[str, bool]) -> bool:
    """Whether a value may take no byte at all: of such an array a few bytes could ask for any length."""
    if isinstance(schema, str):
        if schema in names and schema not in known:
            known[schema] = False  # what is part of itself takes some
            known[schema] = _is_empty(names[schema], names, known)
        return known.get(schema, schema == "null")
    if isinstance(schema, list):
        return False
    if schema["type"] in ("record", "error"):
        return all(_is_empty(field["type"], names, known) for field in schema["fields"])
    return bool(schema.get("size") == 0 if schema["type"] == "fixed" else _is_empty(schema["type"], names, known))


@functools.cache
def _keep_every_digit() -> None:
    """Have the library read logical types without rounding, and as the plain value where they make none."""
    from fastavro.read import LOGICAL_READERS

    for name, reader in list(LOGICAL_READERS.items()):
        LOGICAL_READERS[name] = _lenient(reader)
    LOGICAL_READERS.update({"bytes-decimal": _decimal, "fixed-decimal": _decimal, "fixed-uuid": _lenient(_uuid)})


def _lenient(reader: Callable[..., Any]) -> Callable[..., Any]:
    def read(value: Any, *schemas: Any) -> Any:
        try:
            return reader(value, *schemas)
        except (OverflowError, ValueError):
            return value

    return read


def _decimal(value: bytes, schema: dict[Any, Any] | None = None, _reader_schema: dict[Any, Any] | None = None) -> str:
    """All digits, whatever precision the schema promises."""
    sign, digits, _ = Decimal(int.from_bytes(value, "big", signed=True)).as_tuple()
    return str(Decimal((sign, digits, -(schema or {}).get("scale", 0))))


def _uuid(value: bytes, *_schemas: Any) -> UUID:
    return UUID(bytes=value)


def _plain(value: Any) -> Any:
    """The value with words for what JSON has no numbers for."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value

"""CloudEvents 1.0: structured, batched and binary, with the extensions that concern an audit trail.

Sources: the CloudEvents specification 1.0, its JSON format, its bindings for Kafka (headers ``ce_…``), HTTP (``ce-…``,
percent-encoded) and AMQP (``cloudEvents:…`` or ``cloudEvents_…``), and its extensions authcontext, recordedtime, sequence,
dataclassification, distributed tracing and severity.

What becomes of ``data``:

- an object with an ``action`` has our own fields: they go before the attributes, but ``id`` and ``source`` are always the
  attributes', since these identify a CloudEvent. An attribute that says otherwise than the data is kept as
  ``ce_<attribute>`` (``ce_auth`` and ``ce_subject`` are all that the attributes say of actor and target), an ``id`` or
  ``source`` of the data that is another as ``data.<field>``.
- an object with ``before`` or ``after``: they are the target's states, the rest is ``data`` in ``metadata``
- an object of an event whose type ends in a word of `BECAME` or `CEASED` (``…patient.updated``, ``….OrderDeleted``) is
  the target's state after or before it
- anything else is ``data`` in ``metadata``; ``data_base64`` too, decoded where ``datacontenttype`` says that it is JSON

Other attributes are in ``metadata`` under their own names, the whole ``traceparent`` and ``authclaims`` among them.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

from prooftrail import strict_json
from prooftrail.errors import InvalidRecord
from prooftrail.event import Event
from prooftrail.formats import native, plain
from prooftrail.formats.fields import convert, present
from prooftrail.formats.records import Given, RawRecord

MEDIA_TYPE = "application/cloudevents"
PREFIXES = ("ce_", "ce-", "cloudevents:", "cloudevents_")  # of Kafka, HTTP and AMQP
BECAME = {
    "create", "created", "insert", "inserted", "add", "added", "register", "registered", "update", "updated", "change",
    "changed", "modify", "modified", "patch", "patched", "replace", "replaced",
}  # fmt: skip
CEASED = {"delete", "deleted", "remove", "removed"}

# Theirs -> ours.
TABLE = {
    "id": "id",
    "source": "source",
    "type": "action",
    "time": "time",
    "recordedtime": "time",
    "subject": "target.id",
    "tenant": "tenant",
    "tenantid": "tenant",
    "sequence": "sequence",
    "authtype": "actor.type",
    "authid": "actor.id",
    "severitytext": "level",
    "traceid": "trace_id",
}

_TABLE = plain.Table.of(TABLE)
# Of the claims of the principal, an object in JSON.
_CLAIMS = plain.Table.of(
    {
        "sub": "actor.id",
        "name": "actor.name",
        "preferred_username": "actor.name",
        "roles": "actor.roles",
        "sid": "actor.session_id",
    }
)

_IDENTITY = ("id", "source")
_THEIRS = {"action": "type", "target": "subject", "actor": "auth", "level": "severitytext"}
_LAST_WORD = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)(?=(?:[._/-]?[vV]\d+)?$)")
_TRACE_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_JSON = re.compile(r"[^/;]+/(?:[^/;]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


def recognises(document: dict[str, Any], headers: Mapping[str, str]) -> bool:
    """Tell whether the content type says so, or the document has the attributes that every CloudEvent must have."""
    if "specversion" in document and "type" in document:
        return True
    return bool(headers) and headers.get("content-type", "").lower().startswith(MEDIA_TYPE)


def is_binary(headers: Mapping[str, str]) -> bool:
    """Tell whether a record's headers are a CloudEvent's attributes and its body is the data."""
    if not any(f"{prefix}specversion" in headers for prefix in PREFIXES):
        return False
    return not headers.get("content-type", "").lower().startswith(MEDIA_TYPE)


def structured(record: RawRecord) -> dict[str, Any]:
    """Turn a record in binary mode into the document that it would be in structured mode.

    Raises `InvalidRecord` where a header is not encoded as HTTP's binding says, or the body not as its content type says.
    """
    prefix = next(prefix for prefix in PREFIXES if f"{prefix}specversion" in record.headers)
    document: dict[str, Any] = {
        name.removeprefix(prefix): _unquoted(name, value) if prefix == "ce-" else value
        for name, value in record.headers.items()
        if name.startswith(prefix)
    }
    content_type = record.headers.get("content-type")
    if content_type:
        document["datacontenttype"] = content_type
    for value in document.values():
        strict_json.check_text(value)
    return document | _data(record.body, content_type) if record.body else document


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map a CloudEvent in structured form.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field that an event needs is missing or does not fit.
    """
    _check_version(document)
    attributes = {name: value for name, value in document.items() if name != "data" and value is not None}
    if attributes.get("datacontenttype") == "application/json":
        del attributes["datacontenttype"]  # the format's default; structured mode leaves it out, binary mode cannot
    fields, rest = plain.place(attributes, _TABLE, given)
    fields.setdefault("tenant", given.tenant)
    fields["metadata"] = rest
    _add_trace(fields, rest)
    _add_claims(fields, rest, given)
    data = _decoded(document, rest)
    if isinstance(data, dict) and "action" in data:
        return _own(data, fields, given)
    fields |= _states(data, str(document.get("type")), rest)
    return convert(present(fields))


def _check_version(document: dict[str, Any]) -> None:
    version = document.get("specversion")
    if version != "1.0":
        raise InvalidRecord("invalid-field", f"expected version 1.0 of CloudEvents, got {version!a} - at `$.specversion`")


def _unquoted(name: str, value: str) -> str:
    """One round of decoding, as section 3.1.3.2 of the HTTP binding has it."""
    from urllib.parse import unquote_to_bytes  # few records need it

    quoted = _QUOTED.fullmatch(value)
    if quoted:
        value = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidRecord("invalid-field", f"expected UTF-8, percent-encoded, got {value[:64]!a} - at {name}") from None


def _data(body: bytes, content_type: str | None) -> dict[str, Any]:
    """Data of a body: JSON where that is its type, else text, else base64; without a type, what it can be.

    Avro that a schema registry knows has been turned into JSON by now.
    """
    if content_type and _JSON.fullmatch(content_type):
        return {"data": strict_json.decode(body)}
    try:
        return {"data": strict_json.decode(body) if not content_type or "avro" in content_type else _text(body)}
    except InvalidRecord:
        return {"data_base64": binascii.b2a_base64(body, newline=False).decode()}


def _text(body: bytes) -> str:
    """The text that a body is. Raises `InvalidRecord` where PostgreSQL could not hold it."""
    text = body.decode("utf-8", "replace")
    if text.encode() != body or "\0" in text:
        raise InvalidRecord("not-utf8", "expected text")
    return text


def _decoded(document: dict[str, Any], rest: dict[str, Any]) -> Any:
    """The data; that of ``data_base64`` stays in `rest` as it came unless it is JSON."""
    encoded = document.get("data_base64")
    content_type = document.get("datacontenttype")
    if not isinstance(encoded, str) or not isinstance(content_type, str) or not _JSON.fullmatch(content_type):
        return document.get("data")
    try:
        data = strict_json.decode(binascii.a2b_base64(encoded, strict_mode=True))
    except (binascii.Error, ValueError, InvalidRecord):
        return document.get("data")
    del rest["data_base64"]
    return data


def _add_trace(fields: dict[str, Any], rest: dict[str, Any]) -> None:
    parent = rest.get("traceparent")
    match = _TRACE_PARENT.fullmatch(parent) if isinstance(parent, str) else None
    if match:
        fields.setdefault("trace_id", match[1])


def _add_claims(fields: dict[str, Any], rest: dict[str, Any], given: Given) -> None:
    """Add what the claims say of the principal and ``authid`` does not."""
    text = rest.get("authclaims")
    try:
        claims = strict_json.decode(text.encode()) if isinstance(text, str) else None
    except (InvalidRecord, UnicodeEncodeError):
        return
    if isinstance(claims, dict):
        found, _ = plain.place(claims, _CLAIMS, given)
        actor = found.get("actor", {}) | fields.get("actor", {})
        fields["actor"] = actor or None


def _own(data: dict[str, Any], fields: dict[str, Any], given: Given) -> Event:
    """An event of our own format as data: the attributes say what it does not, and always which event it is."""
    said = {name: value for name, value in data.items() if value is not None and name not in _IDENTITY}
    metadata = {f"ce_{name}" if name in said else name: value for name, value in fields.pop("metadata").items()}
    fields = present(fields)
    for name in fields.keys() & said.keys():
        if fields[name] != said[name]:
            metadata[f"ce_{_THEIRS.get(name, name)}"] = fields[name]
    for name in _IDENTITY:
        if data.get(name) not in (None, fields.get(name)):
            metadata[f"data.{name}"] = data[name]
    own = said.pop("metadata", None)
    if own is not None and not isinstance(own, dict):
        metadata["data.metadata"], own = own, None
    return native.to_event(fields | said | {"metadata": plain.merged(metadata, own)}, given)


def _states(data: Any, kind: str, rest: dict[str, Any]) -> dict[str, Any]:
    """Where data goes that is not our own: the target's states, and `rest`."""
    if data is None:
        return {}
    if isinstance(data, dict) and (data.get("before") is not None or data.get("after") is not None):
        others = {name: value for name, value in data.items() if name not in ("before", "after")}
        if others:
            rest["data"] = others
        return {name: data[name] for name in ("before", "after") if data.get(name) is not None}
    match = _LAST_WORD.search(kind) if isinstance(data, dict) else None
    word = match[0].lower() if match else ""
    if word in BECAME | CEASED:
        return {"after" if word in BECAME else "before": data}
    rest["data"] = data
    return {}

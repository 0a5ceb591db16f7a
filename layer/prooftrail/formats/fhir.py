"""FHIR AuditEvent, R4 and R5, alone or in a Bundle: how hospitals' servers report who did what with which patient's data.

Sources: HL7 FHIR R4 and R5, "Resource AuditEvent"; IHE ITI Basic Audit Log Patterns (BALP). Where an AuditEvent names a
patient, the patient is the target, because that is whom people ask about; everything else that it names stays in
``metadata``, where the whole resource is but for what the table moves. A Bundle is an envelope: no part of the event.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from prooftrail.errors import InvalidRecord
from prooftrail.event import LONGEST_NAME, Event, Time
from prooftrail.formats.fields import convert, find, first_identifier, first_text, is_identifier, move, present
from prooftrail.formats.records import Given

CONTENT_TYPE = "application/fhir+json"

# Theirs -> ours, where one value becomes one field as it is.
_FIELDS = {"id": "id"}

# The first of these that is a whole instant is when it happened. They stay in `metadata` too, for their offset from UTC.
_TIMES = (("occurredDateTime",), ("occurredPeriod", "start"), ("period", "start"), ("recorded",))

_ACTIONS = {"C": "create", "R": "read", "U": "update", "D": "delete", "E": "execute"}

# R4's own codes, and those of R5, which takes them from OperationOutcome.
_OUTCOMES = {
    "0": "success",
    "4": "failure",
    "8": "failure",
    "12": "failure",
    "success": "success",
    "information": "success",
    "warning": "success",
    "error": "failure",
    "fatal": "failure",
}
_LEVELS = {
    "emergency": "critical",
    "alert": "critical",
    "critical": "critical",
    "error": "error",
    "warning": "warning",
    "notice": "notice",
    "informational": "info",
    "debug": "debug",
}

# DICOM's roles of machines in a transfer: whoever asks is its destination where data is read, else its source.
_SOURCE, _DESTINATION, _APPLICATION = "110153", "110152", "110150"
_PATIENT_ROLE = "1"
_REQUEST_ID = "XrequestId"  # BALP's type of the entity that holds the header X-Request-Id

_ENTRY = {"fullUrl", "resource", "request", "response", "search", "link", "id", "extension", "modifierExtension"}
_REFERENCE = re.compile(r"(?P<base>.*/)?(?P<type>[A-Z][A-Za-z]*)/(?P<id>[A-Za-z0-9.-]{1,64})(/_history/[A-Za-z0-9.-]+)?")


def recognises(document: dict[str, Any], headers: Mapping[str, str]) -> bool:
    """Tell whether the document is a FHIR resource, or one as the entry of a Bundle."""
    if document.get("resourceType") in ("AuditEvent", "Bundle") or _is_entry(document):
        return True
    return headers.get("content-type", "").startswith(CONTENT_TYPE)


def is_container(document: dict[str, Any]) -> bool:
    """Tell whether the document is a Bundle, whose entries are events."""
    return document.get("resourceType") == "Bundle" and isinstance(document.get("entry"), list)


class _Bundle(msgspec.Struct):
    entry: list[msgspec.Raw]


def cut(body: bytes) -> tuple[list[msgspec.Raw], list[bytes]]:
    """The entries of a Bundle, and what each is read as: itself. (A message's header is part of the envelope.)

    Raises `msgspec.MsgspecError` where the body is no Bundle.
    """
    entries = msgspec.json.decode(body, type=_Bundle).entry
    return entries, [bytes(entry) for entry in entries if not _is_message_header(bytes(entry))]


def _is_message_header(entry: bytes) -> bool:
    if b"MessageHeader" not in entry:
        return False
    try:
        return bool(find(msgspec.json.decode(entry), "resource", "resourceType") == "MessageHeader")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map one AuditEvent; its tenant is the record's, because FHIR has none.

    Raises `InvalidRecord` or `msgspec.ValidationError` where it is another resource, or a field is missing.
    """
    entry = document if _is_entry(document) else {"resource": document}
    kind = find(entry, "resource", "resourceType")
    if kind != "AuditEvent":
        raise InvalidRecord("unknown-shape", f"expected a FHIR AuditEvent or a Bundle of them, got resourceType {kind!a}")
    rest = present(entry["resource"])
    requestor, outcome = _requestor(rest), _code(rest.get("outcome"))
    fields = {
        "id": first_text(entry.get("fullUrl"), given.origin, longest=LONGEST_NAME),
        "time": _time(rest),
        "tenant": given.tenant,
        "source": _source(rest),
        "category": _code(rest.get("type")) or _code(find(rest, "category", 0)),
        "action": _action(rest),
        "level": _LEVELS.get(str(rest.get("severity"))),
        "outcome": _OUTCOMES.get(outcome or ""),
        "actor": _actor(requestor, rest),
        "target": _target(rest),
        "site": _site(find(rest, "source", "site")),
        "request_id": next(_request_ids(rest), None),
        "metadata": rest,
    }
    fields |= _said(rest, outcome, fields["outcome"]) | move(rest, _FIELDS)
    return convert(present(fields))


def _is_entry(document: dict[str, Any]) -> bool:
    """Whether this is an entry of a Bundle: a resource with what the Bundle says about it."""
    return (
        isinstance(document.get("resource"), dict) and "resourceType" in document["resource"] and document.keys() <= _ENTRY
    )


def _time(event: dict[str, Any]) -> Any:
    """When it happened; FHIR's times may be days or years, which are no instants."""
    for path in _TIMES:
        try:
            return msgspec.convert(find(event, *path), Time)
        except msgspec.ValidationError:
            continue
    return event.get("recorded")  # the conversion says what is wrong with it


def _source(event: dict[str, Any]) -> str | None:
    """Who reported it, as it is referred to."""
    observer = find(event, "source", "observer")
    names = (find(observer, "reference"), find(observer, "identifier", "value"), find(observer, "display"))
    return first_text(*names, _site(find(event, "source", "site")), longest=LONGEST_NAME)


def _action(event: dict[str, Any]) -> str | None:
    """The most specific name of what was done; the code itself, but the words where the code is a number."""
    named = _word(find(event, "subtype", 0)) or _word(event.get("code"))
    return named or _ACTIONS.get(str(event.get("action"))) or _word(event.get("type"))


def _word(concept: Any) -> str | None:
    code = _code(concept)
    return next((text for text in _texts(concept, "display") if code and code.isdecimal()), code)


def _code(concept: Any) -> str | None:
    """The first word of a code, Coding or CodeableConcept, or of R5's outcome, which holds one."""
    if isinstance(concept, dict) and isinstance(concept.get("code"), dict):
        concept = concept["code"]
    words = (*_texts(concept, "code"), find(concept, "text"), *_texts(concept, "display"), concept)
    return first_text(*words, longest=LONGEST_NAME)


def _texts(concept: Any, name: str) -> Iterator[str]:
    codings = find(concept, "coding")
    for coding in codings if isinstance(codings, list) else [concept]:
        text = find(coding, name)
        if isinstance(text, str) and 0 < len(text) <= LONGEST_NAME:
            yield text


def _objects(event: dict[str, Any], name: str) -> list[dict[str, Any]]:
    items = event.get(name)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _codes(item: dict[str, Any], *names: str) -> set[str]:
    """All codes that an item has under the names; each may be one concept or a list of them."""
    concepts = [item.get(name) for name in names]
    flat = [one for concept in concepts for one in (concept if isinstance(concept, list) else [concept])]
    return {code for concept in flat for code in _texts(concept, "code")}


def _requestor(event: dict[str, Any]) -> dict[str, Any]:
    """The agent that asked for it, else the first one."""
    agents = _objects(event, "agent")
    return next((agent for agent in agents if agent.get("requestor") is True), agents[0] if agents else {})


def _actor(agent: dict[str, Any], event: dict[str, Any]) -> dict[str, Any] | None:
    who = _reference(agent.get("who"))
    name = first_text(agent.get("name"), who["name"])
    roles = [code for role in agent.get("role", ()) if (code := _code(role))] if isinstance(agent.get("role"), list) else []
    actor = {
        "type": who["type"] or _code(agent.get("type")),
        "id": first_identifier(who["id"], agent.get("altId"), name),
        "name": name,
        "ip": _address(agent) or next(filter(None, map(_address, _clients(event))), None),
        "roles": roles or None,
    }
    return present(actor) or None


def _clients(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The machines that asked: BALP has a user's address there, not at the user."""
    asking = {_APPLICATION, _DESTINATION if event.get("action") == "R" else _SOURCE}
    return (agent for agent in _objects(event, "agent") if asking & _codes(agent, "type"))


def _address(agent: dict[str, Any]) -> str | None:
    """R4 has it as an object, R5 as text, URI or a reference to an Endpoint."""
    return first_text(find(agent, "network", "address"), agent.get("networkString"), agent.get("networkUri"))


def _target(event: dict[str, Any]) -> dict[str, Any] | None:
    """The patient, else the first thing that the event is about."""
    entities = [entity for entity in _objects(event, "entity") if _REQUEST_ID not in _codes(entity, "type", "role")]
    patient = next(filter(_is_patient, entities), {})
    subjects = [{"what": event.get("patient")}, patient, *entities]
    for subject in subjects:
        what = _reference(subject.get("what"))
        target = what | {"name": what["name"] or first_text(subject.get("name"))}
        if target["id"] or target["name"]:
            return present(target)
    return None


def _is_patient(entity: dict[str, Any]) -> bool:
    return _reference(entity.get("what"))["type"] == "Patient" or _PATIENT_ROLE in _codes(entity, "role")


def _reference(reference: Any) -> dict[str, str | None]:
    """What a Reference points to, as type, id and name: ``Patient/p-1`` is the Patient ``p-1``, a URL remains one."""
    text, type = find(reference, "reference"), find(reference, "type")
    parts = _REFERENCE.fullmatch(text) if is_identifier(text) else None
    if parts:
        type, text = type or parts["type"], parts["id"] if not parts["base"] else text.partition("/_history/")[0]
    identifier, display = find(reference, "identifier", "value"), find(reference, "display")
    return {
        "type": first_text(type, longest=LONGEST_NAME),
        "id": first_identifier(text, identifier, display),
        "name": first_text(display),
    }


def _site(site: Any) -> str | None:
    """R4 has it as text, R5 as a Reference to a Location."""
    return first_text(site, find(site, "display"), _reference(site)["id"])


def _request_ids(event: dict[str, Any]) -> Iterator[str]:
    for entity in _objects(event, "entity"):
        value = find(entity, "what", "identifier", "value")
        if isinstance(value, str) and _REQUEST_ID in _codes(entity, "type", "role"):
            yield value


def _said(event: dict[str, Any], outcome: str | None, result: str | None) -> dict[str, Any]:
    """What is said about the outcome: of a failure it is the error; else the message, or what was asked for is."""
    text = event.get("outcomeDesc") or _code(find(event, "outcome", "detail", 0))
    text = text if isinstance(text, str) else None
    if result == "failure":
        return {"error": present({"code": outcome, "message": text})}
    return {"message": text or next(_queries(event), None)}


def _queries(event: dict[str, Any]) -> Iterator[str]:
    """What was asked for, which FHIR has in base64."""
    for entity in _objects(event, "entity"):
        try:
            text = base64.b64decode(entity.get("query", ""), validate=True).decode()
        except (binascii.Error, TypeError, ValueError):
            continue
        if text and "\0" not in text:
            yield text

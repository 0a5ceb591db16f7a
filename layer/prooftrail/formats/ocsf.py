"""OCSF events, the Open Cybersecurity Schema Framework: activities by class, each with its own objects.

Source: ocsf/ocsf-schema 1.x: classes Authentication (3002), Entity Management (3004), API Activity (6003) and Datastore
Activity (6005), and what all classes have from Base Event. What stands inside of an object stays in ``metadata`` with that
object; what stands at the top and has a field of ours is moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from prooftrail.errors import InvalidRecord
from prooftrail.event import LONGEST_NAME, Event
from prooftrail.formats.fields import convert, find, first_identifier, first_text, move, present
from prooftrail.formats.records import Given

# Theirs -> ours, where one value becomes one field as it is.
_FIELDS = {"message": "message", "duration": "duration_ms"}
_ERROR = {"status_code": "code", "status_detail": "message"}  # of a failure

# Of what stands inside: the first of the paths that leads to text.
_PATHS: dict[str, tuple[tuple[str, ...], ...]] = {
    "id": (("metadata", "uid"),),
    "tenant": (("metadata", "tenant_uid"), ("cloud", "account", "uid"), ("cloud", "org", "uid")),
    "source": (
        ("metadata", "product", "name"),
        ("metadata", "product", "uid"),
        ("metadata", "log_provider"),
        ("metadata", "product", "vendor_name"),
    ),
    "site": (("cloud", "region"),),
    "request_id": (("api", "request", "uid"), ("http_request", "uid")),
    "trace_id": (("trace", "uid"),),
}
_ACTOR_PATHS: dict[str, tuple[tuple[str, ...], ...]] = {
    "ip": (("src_endpoint", "ip"), ("src_endpoint", "hostname"), ("src_endpoint", "svc_name")),
    "user_agent": (("http_request", "user_agent"),),
    "session_id": (("actor", "session", "uid"), ("session", "uid")),
}

# Their classes: what they are called, and their activities.
_CRUD = {1: "Create", 2: "Read", 3: "Update", 4: "Delete"}
_CLASSES: dict[int, tuple[str, dict[int, str]]] = {
    0: ("Base Event", {}),
    3002: (
        "Authentication",
        {
            1: "Logon",
            2: "Logoff",
            3: "Authentication Ticket",
            4: "Service Ticket Request",
            5: "Service Ticket Renew",
            6: "Preauth",
            7: "Account Switch",
        },
    ),
    3004: (
        "Entity Management",
        _CRUD
        | {
            5: "Move",
            6: "Enroll",
            7: "Unenroll",
            8: "Enable",
            9: "Disable",
            10: "Activate",
            11: "Deactivate",
            12: "Suspend",
            13: "Resume",
        },
    ),
    6003: ("API Activity", _CRUD),
    6005: (
        "Datastore Activity",
        {
            1: "Read",
            2: "Update",
            3: "Connect",
            4: "Query",
            5: "Write",
            6: "Create",
            7: "Delete",
            8: "List",
            9: "Encrypt",
            10: "Decrypt",
        },
    ),
}
_OTHER_CLASSES = {
    3001: "Account Change",
    3003: "Authorize Session",
    3005: "User Access Management",
    3006: "Group Management",
    3007: "User Management",
    3008: "Role Management",
    6001: "Web Resources Activity",
    6002: "Application Lifecycle",
    6004: "Web Resource Access Activity",
    6006: "File Hosting Activity",
    6007: "Scan Activity",
    6008: "Application Error",
}
_NO_ACTIVITIES: dict[int, str] = {}
_AUTHENTICATION, _ENTITY_MANAGEMENT = 3002, 3004
_CREATE, _READ = 1, 2

# What was acted upon, the first that is there; a list's first item.
_TARGETS: dict[int, tuple[str, ...]] = {
    3002: ("service", "dst_endpoint"),
    3004: ("entity",),
    6005: ("table", "databucket", "database"),
}
_ANY_TARGET = (
    "resources",
    "resource",
    "entity",
    "web_resources",
    "user",
    "group",
    "device",
    "file",
    "service",
    "dst_endpoint",
)

_LEVELS = {1: "info", 2: "notice", 3: "warning", 4: "error", 5: "critical", 6: "critical"}  # by severity_id
_OUTCOMES = {1: "success", 2: "failure"}  # by status_id
_USERS = {1: "User", 2: "Admin", 3: "System", 4: "Service"}  # by type_id

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def recognises(document: dict[str, Any], _headers: Mapping[str, str]) -> bool:
    """Tell whether the document has what every OCSF event must have."""
    numbered = type(document.get("class_uid")) is int and type(document.get("activity_id")) is int
    return numbered and isinstance(document.get("metadata"), dict)


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map one event; its class is our category, its activity or operation our action.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field is missing or of the wrong type.
    """
    if not recognises(document, given.headers):
        raise InvalidRecord("unknown-shape", "expected an event of OCSF, with class_uid, activity_id and metadata")
    rest = present(document)
    category, action = _names(rest)
    outcome = _outcome(rest)
    fields: dict[str, Any] = {
        "id": given.origin,
        "tenant": given.tenant,
        "category": category,
        "action": action,
        "outcome": outcome,
    }
    fields |= _at(rest, _PATHS) | _time(rest) | move(rest, _FIELDS)
    fields["level"] = _level(rest.get("severity_id"))
    fields["actor"] = _actor(rest) or None
    fields["target"] = _target(rest)
    fields["error"] = _error(rest) if outcome == "failure" else None
    fields |= _states(rest)
    return convert(present(fields | {"metadata": rest}))


def _at(document: dict[str, Any], paths: Mapping[str, tuple[tuple[str, ...], ...]]) -> dict[str, str]:
    found = {ours: first_text(*(find(document, *path) for path in theirs)) for ours, theirs in paths.items()}
    return present(found)


def _names(event: dict[str, Any]) -> tuple[str, str]:
    """Of the class and of what was done: as the event calls them, else as the schema does, else by their numbers."""
    number, activity = event["class_uid"], event["activity_id"]
    known, activities = _CLASSES.get(number, (_OTHER_CLASSES.get(number), _NO_ACTIVITIES))
    category = first_text(event.get("class_name"), known, str(number), longest=LONGEST_NAME) or ""
    said = (find(event, "api", "operation"), event.get("activity_name"), activities.get(activity), event.get("type_name"))
    return category, first_text(*said, f"{category}: {activity}", longest=LONGEST_NAME) or ""


def _time(rest: dict[str, Any]) -> dict[str, Any]:
    """When it happened: milliseconds since 1970, else the same as text, which stays for its offset from UTC."""
    if type(rest.get("time")) is not int:
        return {"time": rest.get("time_dt", rest.get("time"))}
    milliseconds = rest.pop("time")
    try:
        return {"time": _EPOCH + timedelta(milliseconds=milliseconds)}
    except OverflowError:
        raise InvalidRecord(
            "time-out-of-range", f"time is {milliseconds} ms after 1970, beyond the year 9999: expected milliseconds"
        ) from None


def _level(severity: Any) -> str | None:
    return _LEVELS.get(severity) if type(severity) is int else None


def _outcome(event: dict[str, Any]) -> str | None:
    status = event.get("status_id")
    return _OUTCOMES.get(status) if type(status) is int else None


def _error(rest: dict[str, Any]) -> dict[str, Any] | None:
    """The codes of the failure, else what the API answered."""
    response = find(rest, "api", "response")
    answered = {"code": find(response, "error"), "message": find(response, "error_message")}
    answered = {name: text for name, text in answered.items() if isinstance(text, str)}
    return answered | move(rest, _ERROR) or None


def _user(event: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Who acted, and whether that is the event's own `user`, who of a logon is the only one there is."""
    acting, subject = find(event, "actor", "user"), event.get("user")
    if not acting and event["class_uid"] == _AUTHENTICATION and isinstance(subject, dict):
        return subject, True
    return acting if isinstance(acting, dict) else {}, False


def _actor(event: dict[str, Any]) -> dict[str, Any]:
    user, _ = _user(event)
    around = event.get("actor")
    others = [find(around, name) for name in ("app_uid", "app_name", "invoked_by")]
    number, role = user.get("type_id"), find(around, "iam_role")
    actor = {
        "type": first_text(user.get("type"), _USERS.get(number) if type(number) is int else None),
        "id": first_identifier(*map(user.get, ("uid", "name", "email_addr", "uid_alt")), *others),
        "name": first_text(*map(user.get, ("full_name", "display_name", "name", "email_addr")), *others[1:]),
        "roles": [role] if isinstance(role, str) else None,
    }
    return present(actor) | _at(event, _ACTOR_PATHS)


def _target(event: dict[str, Any]) -> dict[str, Any] | None:
    _, is_subject = _user(event)
    named = _TARGETS.get(event["class_uid"], ())
    if event["class_uid"] == _AUTHENTICATION and not is_subject:
        named = ("user", *named)
    for name in (*named, *(other for other in _ANY_TARGET if not (other == "user" and is_subject))):
        thing = find(event, name, 0) or find(event, name)
        target = _thing(thing, name) if isinstance(thing, dict) else {}
        if target.keys() & {"id", "name"}:
            return target
    return None


def _thing(thing: dict[str, Any], kind: str) -> dict[str, Any]:
    names = ("name", "hostname", "svc_name", "email_addr", "path", "ip")
    target = {
        "type": first_text(thing.get("type"), kind.removesuffix("s"), longest=LONGEST_NAME),
        "id": first_identifier(*map(thing.get, ("uid", *names))),
        "name": first_text(*map(thing.get, names)),
    }
    return present(target)


def _states(rest: dict[str, Any]) -> dict[str, Any]:
    """What an entity was and what it became: the one that was acted upon, and the result."""
    if rest["class_uid"] != _ENTITY_MANAGEMENT or rest["activity_id"] == _READ:
        return {}
    created = rest["activity_id"] == _CREATE and "entity_result" not in rest
    return move(rest, {"entity": "after"} if created else {"entity": "before", "entity_result": "after"})

"""AuditEvent: who did what to what, as the service's own format has it, checked before it leaves the producer's hands."""

from __future__ import annotations

import os
import re
import time as clock
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

from prooftrail_client import strict_json
from prooftrail_client.errors import AuditValidationError

Level = Literal["debug", "info", "notice", "warning", "error", "critical"]
Outcome = Literal["success", "failure", "unknown"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEVELS, _OUTCOMES = frozenset(get_args(Level)), frozenset(get_args(Outcome))
_ENCODER = strict_json.Encoder()
RESERVED_SOURCE = "prooftrail"  # of the service's own events


def uuid7() -> str:
    """Make a UUID of version 7 (RFC 9562): it begins with the time, so that ids made later sort later."""
    milliseconds = clock.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    number = milliseconds << 80 | 7 << 76 | (random >> 68) << 64 | 2 << 62 | random & (1 << 62) - 1
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who did it."""

    type: str | None = None
    id: str | None = None
    name: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    session_id: str | None = None
    roles: Sequence[str] | None = None

    def __post_init__(self) -> None:
        _check(self, "actor.", _ACTOR)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What it was done to."""

    type: str | None = None
    id: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _check(self, "target.", _TARGET)


@dataclass(frozen=True, kw_only=True)
class Error:
    """Why it failed."""

    code: str | None = None
    message: str | None = None
    stack_trace: str | None = None

    def __post_init__(self) -> None:
        _check(self, "error.", _ERROR)

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Describe an exception: its class, what it says, and where it was raised."""
        lines = traceback.format_exception(error) if error.__traceback__ else None
        return cls(code=type(error).__name__, message=str(error), stack_trace="".join(lines) if lines else None)


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One audit event; `(tenant, source, id)` identifies it, so that it may be sent twice and is stored once.

    `tenant` and `source` may be left to the client that logs it. `before`, `after` and `metadata` are JSON, besides
    which times, UUIDs, decimals, enums, sets and bytes are taken and written as text. Every field is checked when it is
    set, what is inside those three when the event is written. Raises `AuditValidationError`.
    """

    action: str
    id: str = field(default_factory=uuid7)
    time: datetime = field(default_factory=_now)
    tenant: str | None = None
    source: str | None = None
    sequence: int | None = None
    category: str | None = None
    level: Level = "info"
    outcome: Outcome = "unknown"
    actor: Actor | None = None
    target: Target | None = None
    site: str | None = None
    message: str | None = None
    before: Any = None
    after: Any = None
    error: Error | None = None
    duration_ms: float | None = None
    request_id: str | None = None
    trace_id: str | None = None
    metadata: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("action", "id", "time", "level", "outcome"):
            if getattr(self, name) is None:
                raise AuditValidationError(name, "expected a value, got None")
        _check(self, "", _EVENT)

    @classmethod
    def of(cls, action: str, **fields: Any) -> Self:
        """Begin an event that happens now: `action` is what was done, as in ``patient.read``."""
        return cls(action=action, **fields)

    def by(self, id: str | None = None, *, type: str | None = "user", **fields: Any) -> Self:
        """Say who did it; further fields are those of `Actor`."""
        return self.having(actor=Actor(id=id, type=type, **fields))

    def on(self, type: str, id: str | None = None, name: str | None = None) -> Self:
        """Say what it was done to."""
        return self.having(target=Target(type=type, id=id, name=name))

    def changed(self, before: Any, after: Any) -> Self:
        """Say what the target was and what it became."""
        return self.having(before=before, after=after)

    def succeeded(self) -> Self:
        """Say that it ended well."""
        return self.having(outcome="success")

    def failed(self, error: BaseException | Error | str | None = None) -> Self:
        """Say that it did not end well, and why: an exception, a text or an `Error`."""
        if isinstance(error, BaseException):
            error = Error.of(error)
        elif isinstance(error, str):
            error = Error(message=error)
        return self.having(outcome="failure", error=error)

    def noting(self, **metadata: Any) -> Self:
        """Add to the metadata."""
        return self.having(metadata={**(self.metadata or {}), **metadata})

    def having(self, **fields: Any) -> Self:
        """Make the same event with other fields."""
        unknown = fields.keys() - _EVENT.keys()
        if unknown:
            raise AuditValidationError(min(unknown), "there is no such field: metadata takes what has no place of its own")
        # Only what is new is checked, and the many assignments of a frozen dataclass are made at once: this is the hot
        # path.
        event = object.__new__(type(self))
        for name, value in fields.items():
            if value is None and name in _REQUIRED:
                raise AuditValidationError(name, "expected a value, got None")
            if value is not None:
                _EVENT[name](name, value)
        given = self.__dict__ | fields
        event.__dict__.update(_given(type(self), given) if None in fields.values() else given)
        return event

    def document(self) -> dict[str, Any]:
        """The event in the service's native format, without what is absent; before, after and metadata as given."""
        given = self.__dict__
        document = given.copy() if None not in given.values() else _without_none(given)
        document["time"] = (self.time if self.time.tzinfo is UTC else self.time.astimezone(UTC)).isoformat()
        for part in ("actor", "target", "error"):
            if part in document:
                document[part] = _without_none(document[part].__dict__)
        return document

    def to_json(self) -> bytes:
        """Write the event as the service takes it.

        Raises `AuditValidationError` with the place of what JSON cannot hold, and where tenant or source is missing.
        """
        document = self.document()
        require_identity(document)
        return _ENCODER.encode(document)


def require_identity(document: Mapping[str, Any]) -> None:
    """Check that the event says whose it is. Raises `AuditValidationError`."""
    if "tenant" not in document or "source" not in document:
        name = "source" if "tenant" in document else "tenant"
        raise AuditValidationError(name, "expected a value, got None: set it in the event or for the client")


def _check(part: object, prefix: str, checks: Mapping[str, Callable[[str, Any], None]]) -> None:
    """Check what is given; the class's None stands for what is not, so that writing the event need not look at it."""
    for name, value in part.__dict__.items():
        if value is not None:
            checks[name](prefix + name, value)
    object.__setattr__(part, "__dict__", _given(type(part), part.__dict__))


def _given(kind: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields but for those that are None anyway; a subclass may have other defaults."""
    return {name: value for name, value in fields.items() if value is not None or getattr(kind, name, ...) is not None}


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _text(longest: int | None = None, shortest: int = 0) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, str):
            raise AuditValidationError(name, f"expected text, got {type(value).__name__}")
        if len(value) < shortest or (longest is not None and len(value) > longest):
            raise AuditValidationError(name, f"expected {shortest} to {longest} characters, got {len(value)}")

    return check


def _part(kind: type) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, kind):
            raise AuditValidationError(name, f"expected {kind.__name__}, got {type(value).__name__}")

    return check


def _one_of(words: frozenset[str]) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if value not in words:
            raise AuditValidationError(name, f"expected one of {', '.join(sorted(words))}, got {value!a}")

    return check


def _tenant(name: str, value: Any) -> None:
    if not isinstance(value, str) or not _TENANT.fullmatch(value):
        raise AuditValidationError(
            name, f"expected 1 to 64 of A-Z a-z 0-9 . _ - that begin with a letter or digit, got {value!a}"
        )


def _source(name: str, value: Any) -> None:
    _text(256, 1)(name, value)
    if value == RESERVED_SOURCE:
        raise AuditValidationError(name, f"{RESERVED_SOURCE!a} is for the service's own events: choose another")


def _time(name: str, value: Any) -> None:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise AuditValidationError(name, f"expected a datetime with a time zone, got {value!a}")
    if value < _EPOCH:
        raise AuditValidationError(name, f"expected a time from 1970 on, got {value.isoformat()}")


def _sequence(name: str, value: Any) -> None:
    if type(value) is not int or not 0 <= value < 2**63:
        raise AuditValidationError(name, f"expected an integer from 0 to 2**63 - 1, got {value!a}")


def _duration(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value < 2**53:
        raise AuditValidationError(name, f"expected milliseconds from 0 to 2**53 - 1, got {value!a}")


def _roles(name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not all(isinstance(role, str) for role in value):
        raise AuditValidationError(name, f"expected a list of texts, got {value!a}")


def _anything(_name: str, _value: Any) -> None:
    """JSON is checked when it is written."""


# The limits are the service's, in characters.
_NAME, _IDENTIFIER, _LABEL, _ANY_TEXT = _text(256, 1), _text(512, 1), _text(1024), _text()
_ACTOR = {
    "type": _LABEL,
    "id": _IDENTIFIER,
    "name": _ANY_TEXT,
    "ip": _ANY_TEXT,
    "user_agent": _ANY_TEXT,
    "session_id": _ANY_TEXT,
    "roles": _roles,
}
_TARGET = {"type": _NAME, "id": _IDENTIFIER, "name": _ANY_TEXT}
_ERROR = {"code": _ANY_TEXT, "message": _ANY_TEXT, "stack_trace": _ANY_TEXT}
_EVENT = {
    "action": _NAME,
    "id": _NAME,
    "time": _time,
    "tenant": _tenant,
    "source": _source,
    "sequence": _sequence,
    "category": _NAME,
    "level": _one_of(_LEVELS),
    "outcome": _one_of(_OUTCOMES),
    "actor": _part(Actor),
    "target": _part(Target),
    "site": _LABEL,
    "message": _ANY_TEXT,
    "before": _anything,
    "after": _anything,
    "error": _part(Error),
    "duration_ms": _duration,
    "request_id": _ANY_TEXT,
    "trace_id": _ANY_TEXT,
    "metadata": _part(Mapping),
}
_REQUIRED = frozenset({"action", "id", "time", "level", "outcome"})

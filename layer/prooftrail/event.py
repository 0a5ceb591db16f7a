"""Event: what a producer sent, in one shape and with one name per thing."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from prooftrail import canonical

# Limits in characters. What is indexed must fit in a B-tree entry (a third of an 8 kB page) whatever its script.
Tenant = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
LONGEST_IDENTIFIER = 512
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=2**53 - 1)]  # beyond, a double rounds integers
Time = Annotated[datetime, msgspec.Meta(tz=True)]

Level = Literal["debug", "info", "notice", "warning", "error", "critical"]
Outcome = Literal["success", "failure", "unknown"]


class Actor(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Who did it. `ip` is text: sources also name services there."""

    type: str | None = None
    id: Identifier | None = None
    name: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    session_id: str | None = None
    roles: list[str] | None = None


class Target(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What it was done to."""

    type: Name | None = None
    id: Identifier | None = None
    name: str | None = None


class Error(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why it failed."""

    code: str | None = None
    message: str | None = None
    stack_trace: str | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One audit event: who did what to what, when, where, and how it ended.

    `(tenant, source, id)` identifies it, as in CloudEvents. `time` is when it happened, with a zone; `sequence` is the
    producer's own counter. `before` and `after` are the target's state as JSON; `metadata` holds all that has no other
    place. None and absent mean the same.
    """

    id: Name
    time: Time
    tenant: Tenant
    source: Name
    sequence: Sequence | None = None
    category: Name | None = None
    action: Name
    # Factories, because a plain default would be left out of the JSON, and these two are never absent.
    level: Level = msgspec.field(default_factory=lambda: "info")
    outcome: Outcome = msgspec.field(default_factory=lambda: "unknown")
    actor: Actor | None = None
    target: Target | None = None
    site: str | None = None
    message: str | None = None
    before: Any = None
    after: Any = None
    error: Error | None = None
    duration_ms: Duration | None = None
    request_id: str | None = None
    trace_id: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies the event, in the order in which keys are locked: (tenant, id, source)."""
        return self.tenant, self.id, self.source

    def digest(self) -> bytes:
        """SHA-256 over the canonical form of all of the event: equal events, equal digests (32 bytes)."""
        return hashlib.sha256(canonical.encode(msgspec.to_builtins(self))).digest()

"""Event: what a producer sent, in one shape and with one name per thing."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from prooftrail import canonical
from prooftrail.ledger.entry import Statement

OWN_SOURCE = "prooftrail"  # of our own events; no producer may use it
OWN_TENANT = "_prooftrail"  # whose log has what concerns no tenant; no producer's tenant begins so

# Limits in characters. What is indexed must fit in a B-tree entry (a third of an 8 kB page) whatever its script.
Tenant = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
LONGEST_NAME = 256
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
LONGEST_IDENTIFIER = 512
LONGEST_LABEL = 1024  # a header must stay below 65,536 bytes, as entries of tiles must
Label = Annotated[str, msgspec.Meta(max_length=LONGEST_LABEL)]
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_IDENTIFIER)]
Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=2**53 - 1)]  # beyond, a double rounds integers
Time = Annotated[datetime, msgspec.Meta(tz=True)]

Level = Literal["debug", "info", "notice", "warning", "error", "critical"]
Outcome = Literal["success", "failure", "unknown"]


class Actor(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Who did it. `ip` is text: sources also name services there."""

    type: Label | None = None
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
    site: Label | None = None
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

    def statement(self) -> Statement:
        """What the event says, in the parts that the log commits to (see `prooftrail.ledger.entry`).

        JSON that is unparsed (`msgspec.Raw`) must be parsed first.
        """
        actor, target, error = self.actor or NOBODY, self.target or NOTHING, self.error or NO_ERROR
        return Statement(
            public=_encode(
                _Public(
                    self.action, actor.type, self.category, self.id, self.level, self.outcome, self.sequence, self.site,
                    self.source, target.type, self.tenant, canonical_time(self.time),
                )
            ),
            actor=None if actor.id is None else _encode(actor.id),
            target=None if target.id is None else _encode(target.id),
            private=_encode(
                _Private(
                    actor.ip, actor.name, actor.roles, actor.session_id, actor.user_agent, _json(self.after),
                    _json(self.before), _json(self.duration_ms), error.code, error.message, error.stack_trace,
                    self.message, _json(self.metadata), self.request_id, target.name, self.trace_id,
                )
            ),
        )  # fmt: skip


NOBODY, NOTHING, NO_ERROR = Actor(), Target(), Error()


def own_event(action: str, *, tenant: str = OWN_TENANT, **fields: Any) -> Event:
    """Make an event of Prooftrail's own, happening now: `action` is ``category.verb``, `fields` are further fields.

    What concerns one tenant's data goes to that tenant's log, the rest to `OWN_TENANT`'s.
    """
    return Event(
        id=str(uuid.uuid4()),
        time=datetime.now(UTC),
        tenant=tenant,
        source=OWN_SOURCE,
        category=action.partition(".")[0],
        action=action,
        **{"outcome": "success"} | fields,
    )


class _Public(msgspec.Struct, omit_defaults=True):
    """`ledger.entry.PUBLIC`, in the order of canonical JSON, so that encoding it as it stands is canonical."""

    action: str
    actor_type: str | None = None
    category: str | None = None
    id: str | None = None
    level: str | None = None
    outcome: str | None = None
    sequence: int | None = None
    site: str | None = None
    source: str | None = None
    target_type: str | None = None
    tenant: str | None = None
    time: str | None = None


class _Private(msgspec.Struct, omit_defaults=True):
    """`ledger.entry.PRIVATE`, in the same manner; JSON and numbers are canonical already."""

    actor_ip: str | None = None
    actor_name: str | None = None
    actor_roles: list[str] | None = None
    actor_session_id: str | None = None
    actor_user_agent: str | None = None
    after: msgspec.Raw | None = None
    before: msgspec.Raw | None = None
    duration_ms: msgspec.Raw | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_stack_trace: str | None = None
    message: str | None = None
    metadata: msgspec.Raw | None = None
    request_id: str | None = None
    target_name: str | None = None
    trace_id: str | None = None


_encode = msgspec.json.Encoder().encode


def _json(value: Any) -> msgspec.Raw | None:
    return None if value is None else msgspec.Raw(canonical.encode(value))


def canonical_time(time: datetime) -> str:
    """RFC 3339 in UTC with six digits: the one form that a time has in the log."""
    return f"{time.astimezone(UTC).isoformat(timespec='microseconds')[:26]}Z"

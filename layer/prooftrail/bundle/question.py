"""What a bundle answers, and what of an entry it has to show for it: all of an event, one part, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

import msgspec

from prooftrail import canonical
from prooftrail.entries import Stored
from prooftrail.errors import PermanentError
from prooftrail.event import NOTHING, OWN_SOURCE, OWN_TENANT, Event, canonical_time
from prooftrail.ledger import entry

# What a filter is called, as in the API, and where an event has it. These are public in the log.
PUBLIC: dict[str, Callable[[Event], str | None]] = {
    "action": lambda event: event.action,
    "category": lambda event: event.category,
    "level": lambda event: event.level,
    "outcome": lambda event: event.outcome,
    "site": lambda event: event.site,
    "source": lambda event: event.source,
    "target_type": lambda event: (event.target or NOTHING).type,
}
# Of these the log has commitments only: the name of the part.
COMMITTED = {"actor": "actor", "target_id": "target"}
PARTS = ("actor", "target", "private")  # in the order of an entry's salts and commitments

Parts: TypeAlias = dict[str, dict[str, Any]]  # by name: salt and value, or that it was erased


class UnknownFilter(PermanentError):
    """A filter has a name that no event's column goes by."""


class Question(msgspec.Struct, frozen=True):
    """Events of one tenant with `since` <= time < `until` whose columns equal; `first` and `end` are leaf indexes.

    Prooftrail's own events are not meant unless the source is asked for, as in the API, or the tenant is its own.
    """

    tenant: str
    equal: Mapping[str, str]
    since: datetime | None
    until: datetime | None
    first: int
    end: int

    def __post_init__(self) -> None:
        for name in self.equal.keys() - PUBLIC.keys() - COMMITTED.keys():
            raise UnknownFilter(f"expected a filter of {', '.join(sorted(PUBLIC | COMMITTED))}, got {name!a}")

    def unequal(self) -> dict[str, str]:
        """The columns that must not equal."""
        return {} if "source" in self.equal or self.tenant == OWN_TENANT else {"source": OWN_SOURCE}

    def encode(self) -> bytes:
        """What a bundle's filter.json says."""
        times = {"from": self.since, "to": self.until}
        stated = {name: canonical_time(time) for name, time in times.items() if time is not None}
        span = {"first": self.first, "end": self.end}
        return canonical.encode(
            {"tenant": self.tenant, "equal": dict(self.equal), "not": self.unequal(), "range": span, **stated}
        )

    def asks_for(self, event: Event) -> bool:
        """Whether all that is public of an event is as it was asked for."""
        return (
            (self.since is None or self.since <= event.time)
            and (self.until is None or event.time < self.until)
            and all(PUBLIC[name](event) == value for name, value in self.equal.items() if name in PUBLIC)
            and all(PUBLIC[name](event) != value for name, value in self.unequal().items())
        )


class Shown(NamedTuple):
    """What a bundle shows of an entry besides its header: whether it is an event asked for, and the parts opened."""

    is_event: bool
    parts: Parts


def shown(question: Question, stored: Stored) -> Shown:
    """Decide what has to be shown: everything of an event asked for, else no more than shows that it was not."""
    if not question.asks_for(stored.event):
        return Shown(is_event=False, parts={})
    opened = parts_of(stored)
    needed = {COMMITTED[name]: value for name, value in question.equal.items() if name in COMMITTED}
    if not needed.keys() <= opened.keys():
        return Shown(is_event=False, parts={})
    told = {part: opened[part].get("value") for part in needed}
    differing = [part for part, value in told.items() if value not in (None, _json(needed[part]))]
    erased = [part for part, value in told.items() if value is None]
    for part in [*differing, *erased]:  # one is enough, and one that tells is better than one that is gone
        return Shown(is_event=False, parts={part: opened[part]})
    return Shown(is_event=True, parts=opened)


def parts_of(stored: Stored) -> Parts:
    """The parts that the entry has, each with salt and value, or as erased."""
    parts: Parts = {}
    values = (stored.statement.actor, stored.statement.target, stored.statement.private)
    for at, (name, value, commitment) in enumerate(zip(PARTS, values, stored.commitments(), strict=True)):
        salt = stored.salts[at * entry.SALT : (at + 1) * entry.SALT]
        if commitment is not None:
            gone = value is None or salt == entry.ERASED
            parts[name] = {"erased": None} if gone else {"salt": salt.hex(), "value": (value or b"").decode()}
    return parts


def _json(text: str) -> str:
    return canonical.encode(text).decode()

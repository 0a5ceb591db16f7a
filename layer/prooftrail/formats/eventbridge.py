"""EventBridge's envelope, as a rule hands it to a queue; the event is in ``detail``.

Source: Amazon EventBridge User Guide, "Event structure".

Where ``detail`` is an event of some format, it is that event, and the envelope is only its way here: it says what an event
of our own format lacks of ``source``, ``time`` and ``tenant`` (the account). Where ``detail`` is no event (it has no
``action``), the envelope is: the table says how, its first resource is the target, and ``detail`` and what else the
envelope holds are in ``metadata`` under their own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from prooftrail.event import Event
from prooftrail.formats import native
from prooftrail.formats.fields import convert, is_identifier, move, present
from prooftrail.formats.records import Given

_ENVELOPE = {"detail-type", "detail", "source", "account"}

LONGEST_ID = 128  # characters; EventBridge's own are UUIDs, and an envelope that somebody made up may have any

# Theirs -> ours, where detail is no event.
_FIELDS = {"time": "time", "source": "source", "detail-type": "action", "region": "site"}


def recognises(document: dict[str, Any]) -> bool:
    """Tell whether the document is an EventBridge envelope."""
    return document.keys() >= _ENVELOPE and isinstance(document["detail"], dict)


class _Envelope(msgspec.Struct):
    detail: msgspec.Raw


def detail(body: bytes) -> bytes:
    """The exact bytes of an envelope's ``detail``."""
    return bytes(msgspec.json.decode(body, type=_Envelope).detail)


def origin(envelope: Mapping[str, Any], origin: str) -> str:
    """Name the event as EventBridge would deliver it again.

    A rule delivers at least once, each time as another message of the queue, and the envelope's id stays the same.
    """
    identity = envelope.get("id")
    return f"eventbridge:{identity}" if isinstance(identity, str) and len(identity) <= LONGEST_ID else origin


def time(envelope: Mapping[str, Any]) -> str | None:
    """When the event was put on the bus, which is the same however often a rule delivers it."""
    found = envelope.get("time")
    return found if isinstance(found, str) else None


def to_event(envelope: dict[str, Any], given: Given) -> Event:
    """Map an envelope whose detail no other format recognised; the id is the envelope's.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field that an event needs is missing or does not fit.
    """
    detail = present(envelope["detail"])
    tenant = given.tenant or envelope["account"]
    if "action" in detail:
        lacking = present({"source": envelope["source"], "time": envelope.get("time"), "tenant": tenant})
        return native.to_event(lacking | detail, given)
    rest = present(envelope)
    fields = move(rest, _FIELDS) | {"id": given.origin, "tenant": tenant}
    resources = rest.get("resources")
    if isinstance(resources, list) and resources and is_identifier(resources[0]):
        fields["target"] = {"id": resources[0]}
    fields["metadata"] = rest
    return convert(fields)

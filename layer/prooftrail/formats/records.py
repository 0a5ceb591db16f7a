"""Records on their way in: as a source handed them over, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from prooftrail.event import Event


class RawRecord(msgspec.Struct, frozen=True):
    """What a source handed over: its exact bytes, and the name under which it would hand them over again.

    `headers` have lower-case names, ``content-type`` among them; ``:key`` is a Kafka record's key. They are no part of the
    event unless a format says that they are: the same event may come by many ways.
    """

    origin: str
    body: bytes
    headers: Mapping[str, str] = {}


class Accepted(msgspec.Struct, frozen=True):
    """An event, with the record it came as: that is needed if its identity turns out to be taken."""

    record: RawRecord
    event: Event


class Rejected(msgspec.Struct, frozen=True):
    """A record, or an element of one, that can never become an event; goes to quarantine.

    `fields` says by the path of each field (``actor.id``) what is wrong with it, where it is known.
    """

    record: RawRecord
    reason: str
    detail: str
    fields: Mapping[str, str] = {}


class Given(msgspec.Struct, frozen=True):
    """What a format may use besides the document.

    `origin` stands in for an id, `tenant` for a tenant that is not named, `zone` for the zone of times that name none.
    `time` is when the record was sent, where its source says so and says the same at a redelivery (RFC 3339).
    """

    origin: str
    headers: Mapping[str, str] = {}
    tenant: str | None = None
    zone: str | None = None
    time: str | None = None

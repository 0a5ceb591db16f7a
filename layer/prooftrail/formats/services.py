"""The field names of the audit services that Prooftrail replaces, so that their producers need not change.

Two vocabularies: functionality and event type of a store and a company (a service over HTTP, whose times are in the zone of
its database), and service, user and resource (an event service with batches and JSON lines). Their events name no source
or, over HTTP, carry no id and no time: the functionality stands in for the first, the record's own name and when it was
sent for these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prooftrail.event import Event
from prooftrail.formats import plain
from prooftrail.formats.records import Given

# Theirs -> ours, the likeliest first.
TABLE = {
    "event_id": "id",
    "id": "id",
    "event_timestamp": "time",
    "eventtimestamp": "time",
    "timestamp": "time",
    "created_at": "time",
    "tenant": "tenant",
    "tenant_id": "tenant",
    "company_id": "tenant",
    "companyid": "tenant",
    "service_name": "source",
    "source": "source",
    "sequence": "sequence",
    "functionality": "category",
    "category": "category",
    "event_type": "action",
    "action": "action",
    "level": "level",
    "status": "outcome",
    "outcome": "outcome",
    "user_id": "actor.id",
    "user": "actor.id",
    "username": "actor.id",
    "user_name": "actor.name",
    "ip_address": "actor.ip",
    "user_agent": "actor.user_agent",
    "session_id": "actor.session_id",
    "role": "actor.roles",
    "roles": "actor.roles",
    "resource_type": "target.type",
    "resource_id": "target.id",
    "resource": "target.id",
    "store_id": "site",
    "storelocationid": "site",
    "site": "site",
    "message": "message",
    "before": "before",
    "after": "after",
    "error_code": "error.code",
    "error_message": "error.message",
    "stack_trace": "error.stack_trace",
    "duration_ms": "duration_ms",
    "request_id": "request_id",
    "correlation_id": "request_id",
    "trace_id": "trace_id",
    "metadata": "metadata",
    "additional_data": "metadata",
    "additional_json": "metadata",
    "additionaldata": "metadata",
}

_TABLE = plain.Table.of(TABLE)


def recognises(document: dict[str, Any], _headers: Mapping[str, str]) -> bool:
    """Tell whether the document has the pair of names by which one of the services files its events."""
    return ("event_type" in document and ("functionality" in document or "service_name" in document)) or (
        "service_name" in document and "action" in document
    )


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map an event of one of the services.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field that an event needs is missing or does not fit.
    """
    functionality = document.get("functionality")
    source = functionality if isinstance(functionality, str) else None
    # When a request came is another time at each try: it is only for events that are others at each try, having no id.
    received = None if document.keys() & {"event_id", "id"} else given.headers.get(":received")
    return plain.to_event(document, _TABLE, given, source, given.time or received)

"""What Java services write with Jackson: names in camelCase, enums in upper case, times in Jackson's several ways.

Sources: Jackson 2, ``SerializationFeature`` (``WRITE_DATES_AS_TIMESTAMPS``, ``WRITE_DURATIONS_AS_TIMESTAMPS``) and the
module ``jackson-datatype-jsr310``; Spring AMQP's and Spring Kafka's type headers (``__TypeId__``, ``__ContentTypeId__``).

A ``LocalDateTime`` has no zone: it is in the one of ``timeZone``, ``zoneId`` or ``zoneOffset``, else in the one that the
header ``prooftrail-timezone`` or the settings name, else in UTC. A document without action is called like the class in its
header. A number with the nine decimals of an ``Instant`` that no double holds is kept as the text of its digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prooftrail import strict_json
from prooftrail.errors import InvalidRecord
from prooftrail.event import Event
from prooftrail.formats import native, plain
from prooftrail.formats.records import Given

TYPE_HEADERS = ("__contenttypeid__", "__typeid__")  # of a collection's elements, else of the document

# Theirs -> ours, the likeliest first.
TABLE = {
    "id": "id",
    "eventId": "id",
    "auditId": "id",
    "messageId": "id",
    "uuid": "id",
    "time": "time",
    "timestamp": "time",
    "eventTime": "time",
    "eventTimestamp": "time",
    "occurredAt": "time",
    "occurredOn": "time",
    "createdAt": "time",
    "createdDate": "time",
    "dateTime": "time",
    "recordedAt": "time",
    "tenant": "tenant",
    "tenantId": "tenant",
    "organizationId": "tenant",
    "organisationId": "tenant",
    "companyId": "tenant",
    "source": "source",
    "serviceName": "source",
    "service": "source",
    "sourceService": "source",
    "sourceSystem": "source",
    "applicationName": "source",
    "application": "source",
    "appName": "source",
    "sequence": "sequence",
    "sequenceNumber": "sequence",
    "category": "category",
    "eventCategory": "category",
    "functionality": "category",
    "module": "category",
    "action": "action:enum",
    "eventType": "action:enum",
    "actionType": "action:enum",
    "eventName": "action:enum",
    "operation": "action:enum",
    "operationType": "action:enum",
    "level": "level",
    "severity": "level",
    "logLevel": "level",
    "outcome": "outcome",
    "status": "outcome",
    "result": "outcome",
    "success": "outcome",
    "actor.type": "actor.type",
    "actorType": "actor.type",
    "userType": "actor.type",
    "actor.id": "actor.id",
    "actorId": "actor.id",
    "actor": "actor.id",
    "userId": "actor.id",
    "user.id": "actor.id",
    "user": "actor.id",
    "principal": "actor.id",
    "performedBy": "actor.id",
    "changedBy": "actor.id",
    "modifiedBy": "actor.id",
    "createdBy": "actor.id",
    "actor.name": "actor.name",
    "actorName": "actor.name",
    "userName": "actor.name",
    "username": "actor.name",
    "user.name": "actor.name",
    "user.username": "actor.name",
    "actor.ip": "actor.ip",
    "actor.ipAddress": "actor.ip",
    "ip": "actor.ip",
    "ipAddress": "actor.ip",
    "clientIp": "actor.ip",
    "remoteAddress": "actor.ip",
    "sourceIp": "actor.ip",
    "user.ipAddress": "actor.ip",
    "actor.userAgent": "actor.user_agent",
    "user.userAgent": "actor.user_agent",
    "userAgent": "actor.user_agent",
    "actor.sessionId": "actor.session_id",
    "sessionId": "actor.session_id",
    "actor.roles": "actor.roles",
    "user.roles": "actor.roles",
    "roles": "actor.roles",
    "userRoles": "actor.roles",
    "target.type": "target.type",
    "entityType": "target.type",
    "resourceType": "target.type",
    "targetType": "target.type",
    "objectType": "target.type",
    "aggregateType": "target.type",
    "entityName": "target.type",
    "entity": "target.type",
    "target.id": "target.id",
    "entityId": "target.id",
    "resourceId": "target.id",
    "targetId": "target.id",
    "objectId": "target.id",
    "aggregateId": "target.id",
    "target": "target.id",
    "target.name": "target.name",
    "targetName": "target.name",
    "resourceName": "target.name",
    "site": "site",
    "siteId": "site",
    "storeId": "site",
    "facilityId": "site",
    "locationId": "site",
    "message": "message",
    "description": "message",
    "before": "before",
    "oldValue": "before",
    "oldValues": "before",
    "oldState": "before",
    "previousState": "before",
    "beforeState": "before",
    "after": "after",
    "newValue": "after",
    "newValues": "after",
    "newState": "after",
    "currentState": "after",
    "afterState": "after",
    "error.code": "error.code",
    "errorCode": "error.code",
    "error.message": "error.message",
    "errorMessage": "error.message",
    "error": "error.message",
    "error.stackTrace": "error.stack_trace",
    "stackTrace": "error.stack_trace",
    "durationMs": "duration_ms",
    "durationMillis": "duration_ms",
    "executionTimeMs": "duration_ms",
    "duration": "duration_ms:java",
    "requestId": "request_id",
    "correlationId": "request_id",
    "traceId": "trace_id",
    "metadata": "metadata",
    "additionalData": "metadata",
    "details": "metadata",
    "attributes": "metadata",
}

_TABLE = plain.Table.of(TABLE)

_ACTIONS = frozenset(theirs for theirs, ours in TABLE.items() if ours == "action:enum")
_CAMEL_CASE = frozenset(name for name in TABLE if "." not in name and not name.islower())
_UPPER_CASE = ("level", "outcome", "status", "severity")
_INSTANT = re.compile(r"\d{1,11}\.\d{9}", re.ASCII)


def recognises(document: dict[str, Any], headers: Mapping[str, str]) -> bool:
    """Tell whether a header names a Java class, or the document has an action and names or values as Jackson's are."""
    if "__typeid__" in headers:
        return True
    if _ACTIONS.isdisjoint(document) or native.recognises(document, headers):
        return False
    return (
        not _CAMEL_CASE.isdisjoint(document)
        or any(isinstance(document.get(name), str) and document[name].isupper() for name in _UPPER_CASE)
        or isinstance(document.get("time", document.get("timestamp")), list)
    )


def to_event(document: dict[str, Any], given: Given) -> Event:
    """Map a document of Jackson's.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field that an event needs is missing or does not fit.
    """
    named = next((given.headers[name] for name in TYPE_HEADERS if given.headers.get(name)), None)
    strict_json.check_text(named or "")
    package, _, name = (named or "").rpartition(".")
    if name and not any(document.get(theirs) for theirs in _ACTIONS):
        document = {**document, "action": name}
    return plain.to_event(document, _TABLE, given, package or None)


def number(text: str) -> str:
    """Keep the digits of an ``Instant`` or a ``Duration`` of nanoseconds, of which a double would round the last ones.

    Raises `InvalidRecord` where the text is none of the two.
    """
    if _INSTANT.fullmatch(text) is None:
        raise InvalidRecord(
            "number-not-representable", f"the number {text[:40]} is neither a 64-bit integer nor exactly a double"
        )
    return text

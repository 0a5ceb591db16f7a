"""One document or more of each format, with the headers that it needs to be known by; a new format adds its own."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.conftest import PROJECT
from tests.factories import native

PRODUCERS = PROJECT / "tests" / "fixtures" / "producers"


class Sample(NamedTuple):
    """A document, and the format that must know it."""

    format: str
    document: dict[str, Any]
    headers: dict[str, str] = {}  # noqa: RUF012
    name: str = ""

    def __str__(self) -> str:
        return f"{self.format}-{self.name}" if self.name else self.format


CLOUDTRAIL: dict[str, Any] = {
    "eventVersion": "1.11",
    "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::1:user/ann"},
    "eventTime": "2026-10-01T12:00:00Z",
    "eventSource": "s3.amazonaws.com",
    "eventName": "GetObject",
    "eventID": "id-1",
    "eventType": "AwsApiCall",
    "recipientAccountId": "123456789012",
}
CLOUDEVENT: dict[str, Any] = {
    "specversion": "1.0",
    "type": "com.clinic.patient.updated.v2",
    "source": "/clinic/records",
    "id": "A234",
    "time": "2026-10-01T12:00:00Z",
    "subject": "p-1",
    "tenant": "clinic-north",
    "data": {"name": "Mary Major"},
}
STORE: dict[str, Any] = {
    "event_timestamp": "2026-10-01T12:00:00Z",
    "functionality": "Authenticate",
    "event_type": "Login",
    "store_id": 101,
    "company_id": 5001,
    "user": "jdoe",
    "message": "User logged in successfully",
    "status": "Success",
    "additional_data": {"browser": "Firefox"},
}
RESOURCE: dict[str, Any] = {
    "event_id": "e-1",
    "timestamp": "2026-10-01T12:00:00.123456",
    "level": "INFO",
    "category": "user_action",
    "action": "document_viewed",
    "service_name": "documents",
    "user_id": "u-1",
    "session_id": "s-1",
    "request_id": "r-1",
    "resource_type": "document",
    "resource_id": "d-1",
    "tenant": "acme",
    "error_code": "E1",
    "error_message": "slow",
    "stack_trace": "at line 1",
    "duration_ms": 12.5,
    "metadata": {"pages": 3},
}
AUDIT_EVENT: dict[str, Any] = {
    "resourceType": "AuditEvent",
    "id": "ae-1",
    "type": {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest"},
    "action": "R",
    "recorded": "2026-10-01T12:00:00Z",
    "outcome": "0",
    "agent": [{"who": {"display": "dr-lee"}, "requestor": True}],
    "source": {"observer": {"display": "ehr"}},
}
API_ACTIVITY: dict[str, Any] = {
    "activity_id": 2,
    "category_uid": 6,
    "class_uid": 6003,
    "type_uid": 600302,
    "severity_id": 1,
    "time": 1_790_856_000_000,
    "metadata": {"uid": "o-1", "version": "1.9.0", "product": {"name": "clinic"}},
    "actor": {"user": {"uid": "dr-lee"}},
    "api": {"operation": "GetPatient"},
}
LOGON: dict[str, Any] = {
    "activity_id": 1,
    "class_uid": 3002,
    "time": 1_790_856_000_000,
    "metadata": {"version": "1.9.0", "product": {"name": "portal"}},
    "user": {"uid": "dr-lee"},
}
LOG_RECORD: dict[str, Any] = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "clinic"}}]},
            "scopeLogs": [
                {
                    "logRecords": [
                        {
                            "timeUnixNano": "1790856000000000000",
                            "eventName": "patient.read",
                            "body": {"stringValue": "a patient was read"},
                        }
                    ]
                }
            ],
        }
    ]
}


def _produced(format: str) -> list[Sample]:
    pattern = "*.json" if format == "debezium" else "made/*.json"
    files = sorted((PRODUCERS / format).glob(pattern))
    return [
        Sample(format, json.loads(file.read_bytes()), {}, file.stem) for file in files if not file.name.startswith("key")
    ]


SAMPLES = [
    Sample("native", native(id="e-1")),
    Sample(
        "native", native(id="e-1", ward=3, userId="kept", actor={"id": "a", "userAgent": "b"}), {}, "with-unknown-names"
    ),
    Sample("cloudtrail", CLOUDTRAIL),
    Sample("cloudevents", CLOUDEVENT),
    Sample("cloudevents", CLOUDEVENT, {"content-type": "application/cloudevents+json; charset=UTF-8"}, "by-content-type"),
    Sample("cloudevents", CLOUDEVENT | {"data": native(id="e-1")}, {}, "with-our-own"),
    Sample("services", STORE, {}, "store"),
    Sample("services", RESOURCE, {}, "resource"),
    Sample("java", native(id="e-1", level="INFO"), {"__typeid__": "com.clinic.PatientRead"}, "by-header"),
    Sample("java", native(id="e-1", time=[2026, 10, 1, 12, 0]), {}, "by-its-time"),
    Sample("fhir", AUDIT_EVENT),
    Sample("fhir", AUDIT_EVENT, {"content-type": "application/fhir+json"}, "by-content-type"),
    Sample("fhir", {"fullUrl": "urn:uuid:1", "resource": AUDIT_EVENT, "request": {"method": "POST"}}, {}, "entry"),
    Sample("ocsf", API_ACTIVITY),
    Sample("ocsf", LOGON | {"action": "Allowed", "message": "user logged on"}, {}, "logon"),
    Sample("otel", LOG_RECORD),
    *_produced("java"),
    *_produced("go"),
    *_produced("debezium"),
]

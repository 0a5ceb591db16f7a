"""Audit events from a Python service to Prooftrail.

client      AuditClient: a queue, a thread that sends, what is done when sending fails
event       AuditEvent and its parts
spool       the queue on disk
redaction   what must not leave the process
transports  SQS, Kafka, HTTP, a JSONL file
aio         AsyncAuditClient
handler     a logging.Handler
asgi, wsgi  middleware that audits requests
errors      what can go wrong
"""

from __future__ import annotations

from prooftrail_client.aio import AsyncAuditClient
from prooftrail_client.client import AuditClient, Stats
from prooftrail_client.errors import AuditError, AuditStorageError, AuditTransportError, AuditValidationError
from prooftrail_client.event import Actor, AuditEvent, Error, Target
from prooftrail_client.handler import AuditHandler
from prooftrail_client.redaction import CREDENTIALS, Redaction
from prooftrail_client.spool import SpoolLocked
from prooftrail_client.transports import Result, Transport
from prooftrail_client.transports.http import HttpTransport
from prooftrail_client.transports.jsonl import JsonlTransport
from prooftrail_client.transports.kafka import KafkaTransport
from prooftrail_client.transports.sqs import SqsTransport

__all__ = [
    "CREDENTIALS",
    "Actor",
    "AsyncAuditClient",
    "AuditClient",
    "AuditError",
    "AuditEvent",
    "AuditHandler",
    "AuditStorageError",
    "AuditTransportError",
    "AuditValidationError",
    "Error",
    "HttpTransport",
    "JsonlTransport",
    "KafkaTransport",
    "Redaction",
    "Result",
    "SpoolLocked",
    "SqsTransport",
    "Stats",
    "Target",
    "Transport",
]

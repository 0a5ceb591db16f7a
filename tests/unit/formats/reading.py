"""Reading one document, as the tests of the formats do."""

from __future__ import annotations

import json
from typing import Any

from prooftrail import formats
from prooftrail.event import Event
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from tests.leaves import LATEST

ACME = Defaults("acme")
ORIGIN = "sqs:q:m"


def read(document: Any, defaults: Defaults = ACME, headers: dict[str, str] | None = None) -> Accepted | Rejected:
    """Read a document or a body that is one event or none."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    (outcome,) = formats.read(RawRecord(ORIGIN, body, headers or {}), LATEST, defaults)
    return outcome


def event_of(document: Any, defaults: Defaults = ACME, headers: dict[str, str] | None = None) -> Event:
    outcome = read(document, defaults, headers)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def refusal_of(document: Any, defaults: Defaults = ACME, headers: dict[str, str] | None = None) -> tuple[str, str]:
    outcome = read(document, defaults, headers)
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason, outcome.detail

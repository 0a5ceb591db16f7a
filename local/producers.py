"""Made-up producers for the demo: three hospitals' services over fourteen months, with an AWS account beside them.

They behave as producers do: each has its own way to send, some messages are sent twice, and some are spoiled.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

MONTHS = 14
CLOUDTRAIL_RECORDS = 240
CLOUDTRAIL_BY_EVENTBRIDGE = 40  # the rest comes in log files
EVENTBRIDGE_SOURCE = "clinic"  # what the rule of samconfig.toml's `local` listens to
# How many of a hundred native events go each way; other messages are for brokers only.
SHARES = {"SQS": 44, "Kafka": 25, "RabbitMQ": 20, "EventBridge": 3, "HTTP": 8}
BROKERS = ("SQS", "Kafka", "RabbitMQ")
TENANTS = ("st-olaf", "riverside", "meridian")
PEOPLE = ("dr-lee", "dr-okafor", "nurse-silva", "nurse-brandt", "clerk-moreau", "admin-ito")
ACTIONS = ("patient.read", "patient.update", "vitals.create", "prescription.sign", "user.login", "report.export")


@dataclass(frozen=True)
class Mail:
    """What is sent, and what must become of it; then some names to ask for."""

    bodies: dict[str, list[str]]  # by the way they are sent
    sent: int  # events, of which a message may hold several, and spoiled messages
    distinct: int
    spoiled: int
    tenant: str
    actor: str
    target: str
    id: str


def messages(events: int, now: datetime, ways: Collection[str] = tuple(SHARES)) -> Mail:
    """Make the mail of one demo, for the ways that there are; ids are new each time."""
    chance = random.Random(20_26)  # noqa: S311  # the same story each time
    native = [_native(chance, now) for _ in range(events)]
    again = chance.sample(native, events // 40)
    records = [_cloudtrail(chance, now) for _ in range(CLOUDTRAIL_RECORDS)]
    sample = next(event for event in native if event not in again)
    spoiled = _spoiled(sample)
    others = [json.dumps(_by_eventbridge(record)) for record in records[:CLOUDTRAIL_BY_EVENTBRIDGE]] + spoiled
    in_files = records[CLOUDTRAIL_BY_EVENTBRIDGE:]
    others += [json.dumps({"Records": in_files[start : start + 50]}) for start in range(0, len(in_files), 50)]
    shares = {way: share for way, share in SHARES.items() if way in ways}
    bodies = _shared_out(chance, [json.dumps(event) for event in native + again], shares)
    for way, part in _shared_out(chance, others, {way: 1 for way in BROKERS if way in ways}).items():
        bodies[way] += part
    for part in bodies.values():
        chance.shuffle(part)
    return Mail(
        bodies=bodies,
        sent=events + len(again) + len(records) + len(spoiled),
        distinct=events + len(records),
        spoiled=len(spoiled),
        tenant=sample["tenant"],
        actor=sample["actor"]["id"],
        target=sample["target"]["id"],
        id=sample["id"],
    )


def _shared_out(chance: random.Random, bodies: list[str], shares: dict[str, int]) -> dict[str, list[str]]:
    ways = chance.choices(list(shares), list(shares.values()), k=len(bodies))
    return {way: [body for chosen, body in zip(ways, bodies, strict=True) if chosen == way] for way in shares}


def _native(chance: random.Random, now: datetime) -> dict[str, Any]:
    person, action = chance.choice(PEOPLE), chance.choice(ACTIONS)
    event: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "time": _some_time(chance, now).isoformat(),
        "tenant": chance.choice(TENANTS),
        "source": f"clinic/{action.partition('.')[0]}s",
        "category": action.partition(".")[0],
        "action": action,
        "outcome": "failure" if chance.random() < 0.05 else "success",
        "actor": {
            "type": "user",
            "id": person,
            "name": person.replace("-", " ").title(),
            "ip": f"10.0.0.{chance.randrange(250)}",
        },
        "target": {"type": "Patient", "id": f"p-{chance.randrange(500)}"},
        "duration_ms": chance.randrange(2, 900),
        "request_id": str(uuid.UUID(int=chance.getrandbits(128))),
        "metadata": {"ward": chance.randrange(1, 12), "app_version": "4.2.0"},
    }
    if action == "patient.update":
        event |= {
            "before": {"phone": "555-0100", "allergies": []},
            "after": {"phone": "555-0199", "allergies": ["penicillin"]},
        }
    return event


def _cloudtrail(chance: random.Random, now: datetime) -> dict[str, Any]:
    user = chance.choice(("deploy", "backup", "maria"))
    return {
        "eventVersion": "1.09",
        "userIdentity": {
            "type": "IAMUser",
            "principalId": f"AIDA{user.upper()}",
            "arn": f"arn:aws:iam::111122223333:user/{user}",
            "accountId": "111122223333",
            "userName": user,
        },
        "eventTime": _some_time(chance, now).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": "s3.amazonaws.com",
        "eventName": chance.choice(("GetObject", "PutObject", "DeleteObject")),
        "awsRegion": "eu-central-1",
        "sourceIPAddress": "198.51.100.7",
        "userAgent": "aws-cli/2.27",
        "requestParameters": {"bucketName": "records", "key": f"scan-{chance.randrange(999)}.dcm"},
        "responseElements": None,
        "requestID": str(uuid.UUID(int=chance.getrandbits(128))),
        "eventID": str(uuid.uuid4()),
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": False,
        "recipientAccountId": "111122223333",
        "eventCategory": "Data",
    }


def _by_eventbridge(record: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "AWS API Call via CloudTrail",
        "source": "aws.s3",
        "account": record["recipientAccountId"],
        "time": record["eventTime"],
        "region": record["awsRegion"],
        "resources": [],
        "detail": record,
    }


def _spoiled(healthy: dict[str, Any]) -> list[str]:
    """Messages that can never become events, each for a reason of its own."""
    return [
        "not JSON at all",
        json.dumps(healthy)[:-20],
        json.dumps(healthy | {"id": str(uuid.uuid4()), "action": 7}),
        json.dumps(healthy | {"id": str(uuid.uuid4()), "time": "yesterday"}),
        json.dumps(healthy | {"id": str(uuid.uuid4()), "message": "NUL: \0"}),
        json.dumps(healthy | {"message": "the id of another event"}),
    ]


def _some_time(chance: random.Random, now: datetime) -> datetime:
    """A moment of this month or of one of the thirteen before it."""
    months = now.year * 12 + now.month - 1 - (MONTHS - 1)
    first = now.replace(year=months // 12, month=months % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)
    return first + timedelta(seconds=chance.randrange(int((now - first).total_seconds())))

"""OCSF: activities by class as who, what and how it ended; whatever else they say stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from tests.leaves import JSON, LATEST, LEAVES, TEXT, leaves, lost

TIME = 1_790_000_000_123


def read(document: Any) -> Accepted | Rejected:
    record = RawRecord("kafka:c:t:0:7:1", json.dumps(document).encode())
    (outcome,) = formats.read(record, LATEST, Defaults("fallback"))
    return outcome


def event_of(document: Any) -> Event:
    outcome = read(document)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def ocsf(class_uid: int, activity_id: int, **fields: Any) -> dict[str, Any]:
    event = {
        "class_uid": class_uid,
        "category_uid": class_uid // 1000,
        "activity_id": activity_id,
        "type_uid": class_uid * 100 + activity_id,
        "time": TIME,
        "severity_id": 1,
        "status_id": 1,
        "metadata": {
            "version": "1.5.0",
            "uid": "o-1",
            "product": {"name": "gate", "vendor_name": "Acme"},
            "tenant_uid": "t1",
        },
    }
    return {name: value for name, value in (event | fields).items() if value is not None}


def test_what_every_class_has() -> None:
    event = event_of(
        ocsf(
            9999,
            3,
            time_dt="2026-09-21T16:53:20.123+02:00",
            message="something",
            duration=12,
            severity_id=4,
            type_name="Device Inventory: Update",
            cloud={"region": "eu-north-1", "account": {"uid": "123"}},
            trace={"uid": "ab" * 16},
            unmapped={"x": [1]},
        )
    )
    assert (event.id, event.tenant, event.source, event.site) == ("o-1", "t1", "gate", "eu-north-1")
    assert (event.category, event.action, event.level, event.outcome) == (
        "9999",
        "Device Inventory: Update",
        "error",
        "success",
    )
    assert event.time == datetime(2026, 9, 21, 14, 13, 20, 123000, UTC)
    assert (event.message, event.duration_ms, event.trace_id) == ("something", 12, "ab" * 16)
    assert event.metadata is not None
    assert not event.metadata.keys() & {"time", "message", "duration"}
    assert event.metadata["time_dt"] == "2026-09-21T16:53:20.123+02:00"
    assert event.metadata["unmapped"] == {"x": [1]}


def test_a_logon_is_done_by_the_user_whom_it_is_about() -> None:
    user = {"uid": "u-1", "name": "lee", "full_name": "Dr. Lee", "type_id": 2}
    event = event_of(
        ocsf(
            3002,
            1,
            user=user,
            service={"name": "portal", "uid": "s-1"},
            src_endpoint={"ip": "192.0.2.9"},
            http_request={"user_agent": "curl", "uid": "r-1"},
            session={"uid": "z"},
            status_id=2,
            status_code="0xC000006D",
            status_detail="wrong password",
        )
    )
    assert (event.category, event.action, event.outcome) == ("Authentication", "Logon", "failure")
    assert event.actor == Actor(type="Admin", id="u-1", name="Dr. Lee", ip="192.0.2.9", user_agent="curl", session_id="z")
    assert event.target == Target(type="service", id="s-1", name="portal")
    assert event.error == Error(code="0xC000006D", message="wrong password")
    assert event.request_id == "r-1"


def test_a_logon_by_another_is_about_the_user() -> None:
    event = event_of(ocsf(3002, 7, user={"uid": "u-1"}, actor={"user": {"uid": "root"}}))
    assert (event.action, event.actor, event.target) == (
        "Account Switch",
        Actor(id="root"),
        Target(type="user", id="u-1"),
    )


def test_an_api_call_is_named_after_its_operation() -> None:
    event = event_of(
        ocsf(
            6003,
            4,
            actor={"user": {"name": "ci", "type": "Service"}, "session": {"uid": "s"}, "iam_role": "Deploy"},
            api={
                "operation": "DeleteBucket",
                "request": {"uid": "req"},
                "response": {"error": "AccessDenied", "error_message": "no", "code": 403},
            },
            src_endpoint={"svc_name": "cloudformation"},
            resources=[{"uid": "arn:b", "type": "Bucket", "name": "b"}, {"uid": "arn:c"}],
            status_id=2,
        )
    )
    assert (event.category, event.action, event.request_id) == ("API Activity", "DeleteBucket", "req")
    assert event.actor == Actor(type="Service", id="ci", name="ci", ip="cloudformation", session_id="s", roles=["Deploy"])
    assert event.target == Target(type="Bucket", id="arn:b", name="b")
    assert event.error == Error(code="AccessDenied", message="no")


OLD, NEW = {"uid": "e-1", "type": "Policy", "data": {"days": 1}}, {"uid": "e-1", "type": "Policy", "data": {"days": 2}}


@pytest.mark.parametrize(
    ("activity", "action", "before", "after"),
    [
        ({"activity_id": 3, "entity_result": NEW}, "Update", OLD, NEW),
        ({"activity_id": 1}, "Create", None, OLD),
        ({"activity_id": 1, "entity_result": NEW}, "Create", OLD, NEW),
        ({"activity_id": 4}, "Delete", OLD, None),
        ({"activity_id": 2}, "Read", None, None),
    ],
)
def test_an_entity_before_and_after(activity: dict[str, Any], action: str, before: Any, after: Any) -> None:
    event = event_of(ocsf(3004, 3, entity=OLD) | activity)
    assert (event.action, event.before, event.after) == (action, before, after)
    assert event.target == Target(type="Policy", id="e-1")
    assert event.metadata is not None
    assert ("entity" in event.metadata) == (action == "Read")


def test_a_query_is_about_its_table() -> None:
    store = {"table": {"name": "patients"}, "database": {"name": "clinic"}, "query_info": {"query_string": "SELECT 1"}}
    event = event_of(ocsf(6005, 4, actor={"app_name": "psql"}, **store))
    assert (event.category, event.action, event.target) == (
        "Datastore Activity",
        "Query",
        Target(type="table", id="patients", name="patients"),
    )
    assert event.actor == Actor(id="psql", name="psql")


def test_its_own_names_go_before_those_of_the_schema() -> None:
    event = event_of(ocsf(3002, 99, class_name="Sign-in", activity_name="Push"))
    assert (event.category, event.action) == ("Sign-in", "Push")


def test_an_activity_that_nobody_named_keeps_its_number() -> None:
    assert event_of(ocsf(6005, 42)).action == "Datastore Activity: 42"


@pytest.mark.parametrize(
    ("cloud", "tenant"), [({"account": {"uid": "1"}}, "1"), ({"org": {"uid": "o"}}, "o"), (None, "fallback")]
)
def test_the_tenant_is_the_account_where_none_is_named(cloud: Any, tenant: str) -> None:
    assert event_of(ocsf(0, 1, cloud=cloud, metadata={"product": {"uid": "p"}})).tenant == tenant


def test_an_event_without_uid_is_named_after_its_record() -> None:
    assert event_of(ocsf(0, 1, metadata={"product": {"vendor_name": "Acme"}})).id == "kafka:c:t:0:7:1"


@pytest.mark.parametrize(
    ("fields", "reason", "word"),
    [
        ({"time": None}, "invalid-field", "time"),
        ({"time": "soon"}, "invalid-field", "time"),
        ({"time": 10**18}, "time-out-of-range", "milliseconds"),
        ({"metadata": {"product": {}}}, "invalid-field", "source"),
        ({"message": 5}, "invalid-field", "message"),
    ],
)
def test_what_is_missing_or_wrong_is_named(fields: dict[str, Any], reason: str, word: str) -> None:
    outcome = read(ocsf(0, 1, **fields))
    assert isinstance(outcome, Rejected)
    assert outcome.reason == reason
    assert word in outcome.detail


def objects(*names: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON)) | JSON


THING = objects("uid", "name", "type", "type_id", "email_addr", "data")
FIELDS = {
    "actor": objects("app_name", "invoked_by", "iam_role") | st.fixed_dictionaries({"user": THING}),
    "user": THING,
    "entity": THING,
    "entity_result": THING,
    "resources": st.lists(THING, max_size=2),
    "src_endpoint": objects("ip", "hostname"),
    "api": objects("operation", "request", "response"),
    "status_code": TEXT,
    "status_detail": TEXT,
    "time_dt": TEXT,
    "message": TEXT,
    "severity_id": LEAVES,
    "status_id": LEAVES | st.just(2),
    "unmapped": JSON,
    "class_name": LEAVES,
}


@given(
    st.sampled_from([0, 3002, 3004, 6003, 6005, 4001]),
    st.integers(0, 15),
    st.fixed_dictionaries({}, optional=FIELDS),
    st.integers(0, 4_000_000_000_000),
)
def test_whatever_an_event_holds_ours_holds_too(class_uid: int, activity: int, fields: dict[str, Any], time: int) -> None:
    document = ocsf(class_uid, activity, time=time, **fields)
    outcome = read(document)
    assert isinstance(outcome, Accepted), outcome
    assert list(lost(document, outcome.event)) in ([], [*leaves(time)])
    assert outcome.event.time.timestamp() * 1000 == pytest.approx(time, abs=0.01)

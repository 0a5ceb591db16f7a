"""Raw records become events: what each format keeps, what is refused and with which words, and that nothing ever raises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.event import Actor, Error, Event, Target
from prooftrail.formats import Accepted, RawRecord, Rejected
from tests.conftest import DATA
from tests.factories import native

LATEST = datetime(2026, 12, 1, tzinfo=UTC)
LOGS = sorted((DATA / "cloudtrail").glob("*.json"))
NEEDS_LOGS = pytest.mark.skipif(not LOGS, reason="CloudTrail logs are absent: set PROOFTRAIL_TEST_DATA")


def read(document: Any) -> list[Accepted | Rejected]:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return list(formats.read(RawRecord("sqs:q:m", body), LATEST))


def event_of(document: Any) -> Event:
    (outcome,) = read(document)
    assert isinstance(outcome, Accepted), outcome
    return outcome.event


def refusal_of(document: Any) -> tuple[str, str]:
    (outcome,) = read(document)
    assert isinstance(outcome, Rejected), outcome
    return outcome.reason, outcome.detail


class TestNative:
    def test_fields_are_taken_as_they_are(self) -> None:
        event = event_of(native(id="e1"))
        assert event == Event(
            id="e1",
            time=datetime(2026, 10, 1, 12, tzinfo=UTC),
            tenant="acme",
            source="clinic/records",
            action="patient.read",
            outcome="success",
            actor=Actor(type="user", id="dr-lee", name="Dr. Lee"),
            target=Target(type="Patient", id="p-1"),
        )
        assert event.level == "info"

    def test_unknown_fields_are_kept_in_metadata_beside_what_is_there(self) -> None:
        event = event_of(native(ward="3", nested={"a": [1, None]}, metadata={"known": True}))
        assert event.metadata == {"known": True, "ward": "3", "nested": {"a": [1, None]}}

    def test_unknown_fields_inside_an_object_are_kept_under_its_name(self) -> None:
        event = event_of(
            native(actor={"id": "u", "x": 1}, target={"id": "t", "y": None}, error={"code": "E", "z": {"deep": True}})
        )
        assert event.metadata == {"actor.x": 1, "target.y": None, "error.z": {"deep": True}}
        assert (event.actor, event.target, event.error) == (Actor(id="u"), Target(id="t"), Error(code="E"))

    def test_an_object_of_unknown_fields_alone_leaves_no_empty_part(self) -> None:
        event = event_of(native(actor={"x": 1}, target={}, error={"code": None}))
        assert (event.actor, event.target, event.error, event.metadata) == (None, None, None, {"actor.x": 1})

    @pytest.mark.parametrize(
        ("name", "document"),
        [
            ("ward", native(ward=1, metadata={"ward": 2})),
            ("actor.x", native(actor={"x": 1}, metadata={"actor.x": 2})),
            ("actor.x", native(actor={"x": 1}) | {"actor.x": 2}),
            ("time", native(time="2026-10-01T12:00:00.123456789Z", metadata={"time": "noon"})),
        ],
    )
    def test_a_name_that_metadata_would_have_twice_is_refused_rather_than_one_of_them_lost(
        self, name: str, document: dict[str, Any]
    ) -> None:
        reason, detail = refusal_of(document)
        assert reason == "invalid-field"
        assert repr(name) in detail

    @pytest.mark.parametrize("name", ["sequence", "category", "actor", "target", "site", "before", "metadata", "level"])
    def test_null_is_absent(self, name: str) -> None:
        absent = {key: value for key, value in native(id="e1").items() if key != name}
        assert event_of(absent | {name: None}) == event_of(absent)

    @pytest.mark.parametrize("name", ["time", "tenant", "source", "action"])
    def test_what_is_needed_and_missing_is_named(self, name: str) -> None:
        assert refusal_of(native(**{name: None})) == ("invalid-field", f"Object missing required field `{name}`")

    def test_an_event_without_id_is_named_after_its_message(self) -> None:
        assert event_of(native(id=None)).id == "sqs:q:m"

    @pytest.mark.parametrize(
        ("text", "kept"),
        [
            ("2026-10-01T12:00:00.123456789Z", "2026-10-01T12:00:00.123456789Z"),
            ("2026-10-01T14:00:00.0000001+02:00", "2026-10-01T14:00:00.0000001+02:00"),
            ("2026-10-01T12:00:00.123456Z", None),
            ("2026-10-01T12:00:00.123456000Z", None),
            ("2026-10-01T12:00:00Z", None),
        ],
    )
    def test_a_time_finer_than_microseconds_is_kept_in_metadata_as_it_was_written(
        self, text: str, kept: str | None
    ) -> None:
        assert event_of(native(time=text)).metadata == (None if kept is None else {"time": kept})

    @pytest.mark.parametrize(
        "text", ["2026-10-01T14:00:00+02:00", "2026-10-01T02:30:00-09:30", "2026-10-02T02:00:00.000+14:00"]
    )
    def test_an_offset_is_turned_into_utc(self, text: str) -> None:
        time = event_of(native(time=text)).time
        assert (time, time.utcoffset()) == (datetime(2026, 10, 1, 12, tzinfo=UTC), timedelta(0))

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("$.id", {"id": ""}),
            ("$.id", {"id": "x" * 257}),
            ("$.id", {"id": 7}),
            ("$.time", {"time": "2026-10-01T12:00:00"}),
            ("$.time", {"time": "yesterday"}),
            ("$.time", {"time": 1_790_000_000}),
            ("$.tenant", {"tenant": ""}),
            ("$.tenant", {"tenant": "-acme"}),
            ("$.tenant", {"tenant": "a b"}),
            ("$.tenant", {"tenant": "acme\n"}),
            ("$.tenant", {"tenant": "*"}),
            ("$.tenant", {"tenant": "x" * 65}),
            ("$.source", {"source": "x" * 257}),
            ("$.sequence", {"sequence": -1}),
            ("$.sequence", {"sequence": 2**63}),
            ("$.sequence", {"sequence": "1"}),
            ("$.sequence", {"sequence": True}),
            ("$.category", {"category": ""}),
            ("$.action", {"action": "x" * 257}),
            ("$.level", {"level": "loud"}),
            ("$.outcome", {"outcome": "maybe"}),
            ("$.actor", {"actor": "dr-lee"}),
            ("$.actor.id", {"actor": {"id": ""}}),
            ("$.actor.id", {"actor": {"id": "x" * 513}}),
            ("$.actor.ip", {"actor": {"ip": 5}}),
            ("$.actor.roles", {"actor": {"roles": "admin"}}),
            ("$.actor.roles[1]", {"actor": {"roles": ["admin", 5]}}),
            ("$.target.type", {"target": {"type": "x" * 257}}),
            ("$.target.id", {"target": {"id": "x" * 513}}),
            ("$.site", {"site": 3}),
            ("$.message", {"message": {}}),
            ("$.error", {"error": []}),
            ("$.error.code", {"error": {"code": 404}}),
            ("$.duration_ms", {"duration_ms": -0.5}),
            ("$.duration_ms", {"duration_ms": 2**53}),
            ("$.duration_ms", {"duration_ms": 2**53 + 1}),
            ("$.duration_ms", {"duration_ms": "12"}),
            ("$.metadata", {"metadata": "text"}),
            ("$.metadata", {"metadata": [1], "ward": "also unknown"}),
        ],
    )
    def test_a_field_beyond_its_limits_is_refused_by_its_path(self, path: str, fields: dict[str, Any]) -> None:
        reason, detail = refusal_of(native(**fields))
        assert reason == "invalid-field"
        assert path in detail

    @pytest.mark.parametrize(
        "fields",
        [
            {"id": "\U0001f600" * 256},
            {"tenant": "x" * 64},
            {"actor": {"id": "\u00e9" * 512}},
            {"sequence": 2**63 - 1},
            {"duration_ms": 2**53 - 1},
        ],
    )
    def test_a_field_at_its_limit_is_accepted(self, fields: dict[str, Any]) -> None:
        event_of(native(**fields))


class TestTimeRange:
    @pytest.mark.parametrize("text", ["1970-01-01T00:00:00Z", "2026-12-01T00:00:00Z", "2026-12-01T14:00:00+14:00"])
    def test_the_ends_of_the_range_belong_to_it(self, text: str) -> None:
        event_of(native(time=text))

    @pytest.mark.parametrize(
        "text",
        [
            "1969-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+10:00",
            "2026-12-01T00:00:00.000001Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59-10:00",
        ],
    )
    def test_a_time_outside_is_refused_and_told(self, text: str) -> None:
        reason, detail = refusal_of(native(time=text))
        assert reason == "time-out-of-range"
        assert text[:4] in detail or text[:10] in detail


class TestContainers:
    @pytest.mark.parametrize("wrap", [lambda items: items, lambda items: {"Records": items}], ids=["list", "Records"])
    @pytest.mark.parametrize("indent", [None, 3])
    def test_each_element_is_judged_on_its_own_and_keeps_its_own_bytes(self, wrap: Any, indent: int | None) -> None:
        items = [native(id="a"), native(action=None), native(message="a\0b"), native(id="d")]
        outcomes = read(json.dumps(wrap(items), indent=indent).encode())
        assert [type(outcome) for outcome in outcomes] == [Accepted, Rejected, Rejected, Accepted]
        assert [json.loads(outcome.record.body) for outcome in outcomes] == items
        assert [outcome.record.origin for outcome in outcomes] == [f"sqs:q:m:{number}" for number in range(4)]

    def test_elements_without_id_get_different_ones(self) -> None:
        outcomes = read([native(id=None), native(id=None)])
        assert [outcome.event.id for outcome in outcomes if isinstance(outcome, Accepted)] == ["sqs:q:m:0", "sqs:q:m:1"]

    @pytest.mark.parametrize("body", [b"[]", b'{"Records":[]}', b" [ ] "])
    def test_an_empty_list_is_refused_because_nobody_sends_nothing(self, body: bytes) -> None:
        (outcome,) = read(body)
        assert isinstance(outcome, Rejected)
        assert (outcome.reason, outcome.record.body) == ("unknown-shape", body)

    def test_an_event_that_has_a_field_called_records_is_an_event(self) -> None:
        assert event_of(native(Records=[{"a": 1}])).metadata == {"Records": [{"a": 1}]}

    @pytest.mark.parametrize(
        "body",
        [
            b'{"Records":[{"a":1}],"Records":[{"b":1},{"c":1}]}',
            b'{"Records":[{"a":1},{"b":1e400}],"more":[1]}',
            b'{"more":[1],"Records":[{"a":1},{"b":1e400}]}',
            b'[{"a":1},{"b":1}] trailing',
            b"[1, 2]",
            b'[{"a":1},2]',
        ],
    )
    def test_a_list_that_is_not_all_there_is_goes_to_quarantine_whole(self, body: bytes) -> None:
        (outcome,) = read(body)
        assert isinstance(outcome, Rejected)
        assert outcome.record.body == body

    def test_more_elements_than_the_limit_are_one_rejected_record(self) -> None:
        assert len(read([{"id": "x" * 50}] * formats.MOST_ELEMENTS)) == formats.MOST_ELEMENTS
        assert len(read([{"id": "x" * 50}] * (formats.MOST_ELEMENTS + 1))) == 1

    @pytest.mark.parametrize(
        ("body", "kind"),
        [(b"5", "a number"), (b"1.5", "a number"), (b'"x"', "a string"), (b"true", "a boolean"), (b"null", "null")],
    )
    def test_what_is_no_object_is_refused_by_what_it_is(self, body: bytes, kind: str) -> None:
        assert refusal_of(body) == ("unknown-shape", f"expected a JSON object, got {kind}")


class TestEventBridge:
    def envelope(self, detail: Any) -> dict[str, Any]:
        return {
            "version": "0",
            "id": "e",
            "detail-type": "t",
            "source": "aws.s3",
            "account": "1",
            "time": "2026-10-01T12:00:00Z",
            "region": "us-east-1",
            "resources": [],
            "detail": detail,
        }

    def test_the_event_is_what_is_in_detail(self) -> None:
        event = native(id="inner")
        assert event_of(self.envelope(event)) == event_of(event)

    def test_without_an_object_in_detail_it_is_no_envelope(self) -> None:
        assert refusal_of(self.envelope("text"))[0] == "invalid-field"


def test_every_wrong_field_is_named_not_the_first_alone() -> None:
    wrong = native(action=5, source=None, level="no", actor={"id": 5, "name": [], "roles": [1]}, target="x", sequence=-1)
    (refused,) = read(wrong)
    assert isinstance(refused, Rejected)
    names = {"action", "source", "level", "actor.id", "actor.name", "actor.roles", "target", "sequence"}
    assert (refused.reason, set(refused.fields)) == ("invalid-field", names)
    assert refused.fields["actor.id"] == "Expected `str | null`, got `int`"
    assert all(message in refused.detail for message in refused.fields.values())


def records() -> Iterator[dict[str, Any]]:
    for file in LOGS:
        yield from json.loads(file.read_bytes())["Records"]


def rebuilt(event: Event) -> dict[str, Any]:
    """The CloudTrail record that an event was made of."""
    actor, error = event.actor or Actor(), event.error or Error()
    moved = {
        "eventID": event.id,
        "eventTime": f"{event.time:%Y-%m-%dT%H:%M:%SZ}",
        "eventSource": event.source,
        "eventName": event.action,
        "eventCategory": event.category,
        "awsRegion": event.site,
        "requestID": event.request_id,
        "recipientAccountId": event.tenant,
        "sourceIPAddress": actor.ip,
        "userAgent": actor.user_agent,
        "errorCode": error.code,
        "errorMessage": error.message,
    }
    return (event.metadata or {}) | {name: value for name, value in moved.items() if value is not None}


class TestCloudTrail:
    RECORD: dict[str, Any] = {  # noqa: RUF012
        "eventVersion": "1.11",
        "userIdentity": {"type": "IAMUser", "principalId": "P", "arn": "arn:aws:iam::1:user/ann", "userName": "ann"},
        "eventTime": "2026-10-01T12:00:00Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "10.0.0.1",
        "userAgent": "cli",
        "requestParameters": {"bucketName": "b"},
        "responseElements": None,
        "eventID": "id-1",
        "recipientAccountId": "123456789012",
    }

    @NEEDS_LOGS
    def test_every_real_record_is_accepted_and_can_be_had_back_from_its_event(self) -> None:
        count = 0
        for record in records():
            event = event_of(record)
            assert rebuilt(event) == {name: value for name, value in record.items() if value is not None}
            assert event.actor
            assert event.actor.id
            assert event.target
            assert event.target.id
            count += 1
        assert count == 1233

    @NEEDS_LOGS
    def test_a_whole_log_file_is_as_many_events_as_it_has_records(self) -> None:
        for file in LOGS:
            outcomes = read(file.read_bytes())
            assert all(isinstance(outcome, Accepted) for outcome in outcomes)
            assert [json.loads(outcome.record.body) for outcome in outcomes] == json.loads(file.read_bytes())["Records"]

    def test_who_did_what_to_what_is_found(self) -> None:
        event = event_of(self.RECORD)
        assert event.actor == Actor(
            type="IAMUser", id="arn:aws:iam::1:user/ann", name="ann", ip="10.0.0.1", user_agent="cli"
        )
        assert event.target == Target(type="AWS::S3::Bucket", id="b")
        assert (event.tenant, event.source, event.action, event.outcome) == (
            "123456789012",
            "s3.amazonaws.com",
            "GetObject",
            "success",
        )

    @pytest.mark.parametrize(
        ("identity", "expected"),
        [
            ({"type": "AWSService", "invokedBy": "x.amazonaws.com"}, "x.amazonaws.com"),
            ({"type": "Unknown", "principalId": "", "accountId": "1", "userName": ""}, "1"),
            ({"type": "Root", "arn": "a" * 513, "principalId": "P"}, "P"),
            ({}, None),
        ],
    )
    def test_the_actor_is_the_first_name_that_can_be_one(self, identity: dict[str, Any], expected: str | None) -> None:
        event = event_of(self.RECORD | {"userIdentity": identity})
        assert event.actor
        assert event.actor.id == expected

    def test_a_record_that_names_nobody_has_no_actor(self) -> None:
        nobody: dict[str, Any] = {"userIdentity": {}, "sourceIPAddress": None, "userAgent": None}
        assert event_of(self.RECORD | nobody).actor is None

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"resources": [{"ARN": "arn:x", "type": "T"}]}, Target(id="arn:x", type="T")),
            ({"resources": [{"ARNPrefix": "arn:y"}]}, Target(id="arn:y")),
            ({"resources": [{"ARN": "a" * 513}]}, Target(id="b", type="AWS::S3::Bucket")),
            ({"resources": []}, Target(id="b", type="AWS::S3::Bucket")),
            ({"requestParameters": {"functionName": "f"}}, Target(id="f", type="AWS::Lambda::Function")),
            ({"requestParameters": {"bucketName": ""}}, Target(id="s3.amazonaws.com", type="AWS::Service")),
            ({"requestParameters": None}, Target(id="s3.amazonaws.com", type="AWS::Service")),
        ],
    )
    def test_the_target_is_the_first_that_is_named(self, fields: dict[str, Any], expected: Target) -> None:
        assert event_of(self.RECORD | fields).target == expected

    @pytest.mark.parametrize(
        "fields",
        [{"errorCode": "AccessDenied"}, {"errorMessage": "no"}, {"responseElements": {"ConsoleLogin": "Failure"}}],
    )
    def test_a_failure_is_seen(self, fields: dict[str, Any]) -> None:
        assert event_of(self.RECORD | fields).outcome == "failure"

    def test_without_recipient_the_account_of_the_caller_is_the_tenant(self) -> None:
        identity = {"userIdentity": {"type": "Root", "accountId": "99"}, "recipientAccountId": None}
        assert event_of(self.RECORD | identity).tenant == "99"

    @pytest.mark.parametrize(
        ("path", "fields"),
        [
            ("$.userIdentity", {"userIdentity": "x"}),
            ("$.time", {"eventTime": "x"}),
            ("tenant", {"recipientAccountId": None}),
        ],
    )
    def test_a_record_of_the_wrong_type_is_refused_by_its_path(self, path: str, fields: dict[str, Any]) -> None:
        reason, detail = refusal_of(self.RECORD | fields)
        assert reason == "invalid-field"
        assert path in detail


def check_total(body: bytes) -> None:
    """Reading never raises, says at least one thing, and every byte it puts away comes from the body."""
    outcomes = read(body)
    assert outcomes
    for outcome in outcomes:
        assert outcome.record.body in body
        if isinstance(outcome, Accepted):
            assert formats.EARLIEST <= outcome.event.time <= LATEST
            assert len(outcome.event.statement().digest()) == 32
        else:
            assert outcome.reason
            assert outcome.detail


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["2026-10-01T12:00:00Z", "9999-12-31T23:59:59.5-23:59", "0001-01-01T00:00:00+23:59", "acme", ""])
)
names = st.sampled_from([*Event.__struct_fields__, *TestCloudTrail.RECORD, "Records", "detail", "detail-type", "account"])
documents = st.recursive(
    leaves,
    lambda items: st.lists(items, max_size=3) | st.dictionaries(names | st.text(max_size=3), items, max_size=6),
    max_leaves=20,
)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_without_an_exception(body: bytes) -> None:
    check_total(body)


@given(documents)
@example({"Records": [{}], "Records ": 1})
def test_any_document_is_read_without_an_exception(document: Any) -> None:
    check_total(json.dumps(document).encode())


@given(
    st.dictionaries(names, documents, max_size=4), st.sampled_from([native(id="n"), TestCloudTrail.RECORD]), st.booleans()
)
def test_any_change_of_a_good_record_is_read_without_an_exception(
    changes: dict[str, Any], good: dict[str, Any], wrapped: bool
) -> None:
    changed = good | changes
    check_total(json.dumps([changed, good] if wrapped else changed).encode())


@given(st.binary(min_size=1, max_size=4), st.integers(0, 300))
def test_any_damage_to_a_list_is_read_without_an_exception(damage: bytes, place: int) -> None:
    body = json.dumps({"Records": [native(id="a"), native(id="b")]}).encode()
    check_total(body[:place] + damage + body[place + len(damage) :])


def test_an_event_without_id_that_eventbridge_delivers_twice_gets_the_same_id() -> None:
    envelope = {
        "version": "0",
        "id": "7bf73129-1428-4cd3-a780-95db273d1602",
        "detail-type": "patient.read",
        "source": "clinic",
        "account": "111122223333",
        "detail": native(id=None),
    }
    body = json.dumps(envelope).encode()
    first, second = (next(iter(formats.read(RawRecord(origin, body), LATEST))) for origin in ("sqs:q:1", "sqs:q:2"))
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert first.event.id == second.event.id == f"eventbridge:{envelope['id']}"

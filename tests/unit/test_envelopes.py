"""Envelopes become raw records: their bytes, headers and names, for whatever a broker carries."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import envelopes
from prooftrail.errors import UnknownEnvelope
from prooftrail.formats import RawRecord
from tests.factories import kafka, kafka_record, native, rabbitmq, rabbitmq_message, sqs, sqs_record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
TOPICS = st.text("abcXYZ019._-", min_size=1, max_size=249)
OFFSETS = st.integers(0, 2**63 - 1)
NAMES = st.text(min_size=1, max_size=255)  # RabbitMQ's: any UTF-8 of 255 bytes
BYTES = st.lists(st.integers(-128, 255), max_size=20)


def records(event: dict[str, Any]) -> list[RawRecord]:
    return [delivery.record for delivery in envelopes.of(event).deliveries]


def record(event: dict[str, Any]) -> RawRecord:
    (found,) = records(event)
    return found


def fits(found: RawRecord) -> None:
    """What every record must be so that whatever becomes of it can be stored."""
    assert 0 < len(found.origin) <= envelopes.LONGEST_ORIGIN
    for text in (found.origin, *found.headers, *found.headers.values()):
        assert "\0" not in text
        text.encode()
    assert all(name == name.lower() for name in found.headers)


class TestSqs:
    def test_the_body_is_the_text_and_the_name_is_the_queues_and_the_messages(self) -> None:
        message = sqs_record("Ü", queue="audit")
        assert record({"Records": [message]}) == RawRecord(f"sqs:audit:{message['messageId']}", "Ü".encode())

    def test_attributes_are_headers(self) -> None:
        attributes = {
            "Content-Type": {"dataType": "String", "stringValue": "application/cloudevents+json"},
            "ce_id": {"dataType": "Number", "stringValue": "7"},
            "raw": {"dataType": "Binary", "binaryValue": base64.b64encode(b"a\xff\0").decode()},
        }
        found = record({"Records": [sqs_record("x") | {"messageAttributes": attributes}]})
        assert found.headers == {"content-type": "application/cloudevents+json", "ce_id": "7", "raw": "a\\xff\\0"}

    def test_a_message_that_has_to_come_again_is_called_by_its_id(self) -> None:
        batch = envelopes.of(sqs("a", "b"))
        assert [delivery.identifier for delivery in batch.deliveries] == [
            delivery.record.origin.rpartition(":")[2] for delivery in batch.deliveries
        ]
        assert {delivery.line for delivery in batch.deliveries} == {None}

    @given(st.text(), NAMES, st.dictionaries(st.text(), st.text(), max_size=3))
    def test_whatever_a_message_carries_its_bytes_are_kept_and_the_rest_can_be_stored(
        self, body: str, id: str, attributes: dict[str, str]
    ) -> None:
        values = {name: {"dataType": "String", "stringValue": value} for name, value in attributes.items()}
        message = sqs_record(body) | {"messageId": id, "messageAttributes": values}
        found = record({"Records": [message]})
        fits(found)
        assert found.body == body.encode("utf-8", "surrogatepass")
        assert found == record({"Records": [copy.deepcopy(message)]})


SENT = "2026-09-21T14:13:20"  # of the factory's record with offset 0


class TestKafka:
    @pytest.mark.parametrize(("self_managed", "cluster"), [(False, "audit"), (True, "self-managed")])
    def test_a_record_is_called_by_its_place(self, cluster: str, *, self_managed: bool) -> None:
        sent = kafka_record(b"\x00\xff", offset=7, partition=3, topic="t", key="k")
        event = kafka(sent, self_managed=self_managed)
        found = RawRecord(
            f"kafka:{cluster}:t:3:7:1790000000007", b"\x00\xff", {":key": "k", ":time": f"{SENT}.007000+00:00"}
        )
        assert envelopes.of(event) == envelopes.Envelope(
            "kafka", [envelopes.Delivery(found, {"partition": "t-3", "offset": 7}, "t-3")], tombstones=0
        )

    def test_a_redelivery_from_other_bootstrap_servers_is_called_the_same(self) -> None:
        event = kafka(kafka_record("a", 1), self_managed=True)
        assert records(event) == records(event | {"bootstrapServers": "elsewhere:9092"})

    def test_what_an_offset_holds_after_the_topic_was_made_anew_is_called_otherwise(self) -> None:
        old, new = kafka_record("a", 1), kafka_record("a", 1) | {"timestamp": 1_800_000_000_000}
        assert record(kafka(old)).origin != record(kafka(new)).origin

    def test_topics_and_partitions_of_one_batch_are_lines_of_their_own(self) -> None:
        places = [("a", 0, 5), ("a", 1, 5), ("b", 0, 9), ("a", 0, 6)]
        sent = [kafka_record("x", offset, partition, topic) for topic, partition, offset in places]
        found = [(each.line, each.identifier["offset"]) for each in envelopes.of(kafka(*sent)).deliveries]
        assert found == [("a-0", 5), ("a-0", 6), ("a-1", 5), ("b-0", 9)]

    @pytest.mark.parametrize("tombstone", [{"value": None}, {}])
    def test_a_tombstone_is_counted_and_holds_nothing(self, tombstone: dict[str, Any]) -> None:
        gone = {name: value for name, value in kafka_record("x", 1, key="k").items() if name != "value"} | tombstone
        batch = envelopes.of(kafka(kafka_record("a", 0), gone, kafka_record("", 2)))
        assert (batch.tombstones, [each.record.body for each in batch.deliveries]) == (1, [b"a", b""])

    def test_headers_are_bytes_with_or_without_a_sign_and_the_last_of_a_name_counts(self) -> None:
        sent = kafka_record("x", 0) | {
            "headers": [{"Name": [97]}, {"signed": [-61, -100]}, {"name": [98]}, {"none": None}, {"odd": [255, 0]}]
        }
        assert record(kafka(sent)).headers == {
            "name": "b", "signed": "Ü", "none": "", "odd": "\\xff\\0", ":time": f"{SENT}+00:00",
        }  # fmt: skip

    def test_what_the_mapping_decoded_says_what_it_was(self) -> None:
        sent = kafka_record(native(), 0) | {
            "keySchemaMetadata": {"schemaId": "1", "dataFormat": "JSON"},
            "valueSchemaMetadata": {"schemaId": "18", "dataFormat": "AVRO"},
        }
        found = record(kafka(sent))
        assert found.headers == {":schema-id": "18", ":schema-format": "AVRO", ":time": f"{SENT}+00:00"}
        assert json.loads(found.body)["tenant"] == "acme"

    @given(TOPICS, OFFSETS, st.binary(), st.dictionaries(st.text(), BYTES, max_size=3))
    def test_whatever_a_record_carries_its_bytes_are_kept_and_the_rest_can_be_stored(
        self, topic: str, offset: int, value: bytes, headers: dict[str, list[int]]
    ) -> None:
        sent = kafka_record(value, offset, topic=topic) | {"key": base64.b64encode(value).decode(), "headers": [headers]}
        found = record(kafka(sent))
        fits(found)
        assert found.body == value
        assert found == record(kafka(copy.deepcopy(sent)))


class TestRabbit:
    def test_a_message_with_an_id_is_called_by_it(self) -> None:
        message = rabbitmq_message("x", messageId="m-1")
        assert record(rabbitmq(message, queue="a::b", host="/clinics")).origin == "rabbitmq:/clinics:a::b:m-1"

    def test_a_message_without_one_is_called_by_its_content(self) -> None:
        def origin(body: str = "x", **properties: Any) -> str:
            return record(rabbitmq(rabbitmq_message(body, **properties))).origin

        assert origin().startswith("rabbitmq:/:events:sha256-")
        assert origin() == origin(messageId=None)
        others = [origin("y"), origin(timestamp="1"), origin(headers={"a": 1}), origin(headers={"a": 2}), origin(appId="a")]
        assert len({origin(), *others}) == 6

    def test_what_the_broker_adds_at_a_redelivery_does_not_change_the_name(self) -> None:
        first = rabbitmq_message("x", headers={"a": 1})
        again = rabbitmq_message(
            "x",
            redelivered=True,
            headers={"a": 1, "x-delivery-count": 2, "x-death": [{"count": 1}], "x-first-death-queue": "q"},
        )
        assert record(rabbitmq(first)).origin == record(rabbitmq(again)).origin

    def test_the_same_message_in_two_queues_is_two(self) -> None:
        message = rabbitmq_message("x")
        names = {record(rabbitmq(message, queue=queue, host=host)).origin for queue, host in ["a/", "b/", ("a", "h")]}
        assert len(names) == 3

    def test_properties_and_headers_of_every_type_are_headers(self) -> None:
        headers = {
            "__TypeId__": {"bytes": [99, 111, 109]},
            "attempt": 3,
            "ok": True,
            "none": None,
            "text": "Ü",
            "table": {"a": [1]},
            "signed": {"bytes": [-61, -100]},
            "not-bytes": {"bytes": [256]},
        }
        message = rabbitmq_message(
            "x", contentType="application/json", contentEncoding="utf-8", appId="ehr", priority=4, headers=headers
        )
        assert record(rabbitmq(message)).headers == {
            "content-type": "application/json",
            "content-encoding": "utf-8",
            ":app-id": "ehr",
            ":priority": "4",
            ":delivery-mode": "1",
            ":body-size": "1",
            "__typeid__": "com",
            "attempt": "3",
            "ok": "true",
            "none": "null",
            "text": "Ü",
            "table": '{"a": [1]}',
            "signed": "Ü",
            "not-bytes": '{"bytes": [256]}',
        }

    def test_several_queues_come_in_one_batch_and_nothing_can_come_again_alone(self) -> None:
        event = rabbitmq(rabbitmq_message("a"), queue="one")
        event["rmqMessagesByQueue"] |= rabbitmq(rabbitmq_message("b"), host="two")["rmqMessagesByQueue"]
        batch = envelopes.of(event)
        assert [each.record.body for each in batch.deliveries] == [b"a", b"b"]
        assert [(each.identifier, each.line) for each in batch.deliveries] == [(None, None)] * 2

    @given(NAMES, st.none() | NAMES, st.binary(), st.dictionaries(NAMES, JSON, max_size=3))
    @example("q", "\ud800", b"", {"\ud800": "\ud800", "\0": {"bytes": [300]}})
    def test_whatever_a_message_carries_its_bytes_are_kept_and_the_rest_can_be_stored(
        self, queue: str, id: str | None, body: bytes, headers: dict[str, Any]
    ) -> None:
        message = rabbitmq_message(
            body, messageId=id, headers=headers, **dict(zip(["type", "appId"], headers.values(), strict=False))
        )
        found = record(rabbitmq(message, queue=queue, host=queue))
        fits(found)
        assert found.body == body
        assert found == record(rabbitmq(copy.deepcopy(message), queue=queue, host=queue))


@given(JSON)
@example({"Records": [{"eventSource": "aws:s3"}]})
@example(
    {"eventSource": "aws:kafka", "records": {"t-0": [{"topic": "t", "partition": 0, "offset": 0, "value": "no base64"}]}}
)
@example({"eventSource": "aws:kafka", "records": []})
@example({"eventSource": "aws:rmq"})
@example({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}})
def test_what_no_broker_sends_is_refused_whole(event: Any) -> None:
    with pytest.raises(UnknownEnvelope):
        envelopes.of(event)


@pytest.mark.parametrize("event", [{"Records": []}, {"eventSource": "aws:rmq", "rmqMessagesByQueue": {}}, kafka()])
def test_an_empty_batch_holds_nothing(event: dict[str, Any]) -> None:
    assert records(event) == []


def test_when_a_record_was_sent_is_known_where_a_redelivery_says_the_same() -> None:
    message = sqs_record("{}") | {"attributes": {"SentTimestamp": "1795163400250"}}
    batches = [{"Records": [message]}, kafka(kafka_record({}, offset=0)), rabbitmq(rabbitmq_message({}))]
    times = [delivery.record.headers.get(":time") for batch in batches for delivery in envelopes.of(batch).deliveries]
    assert times == ["2026-11-20T08:30:00.250000+00:00", "2026-09-21T14:13:20+00:00", None]

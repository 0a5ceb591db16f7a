"""The pollers' events, value by value as AWS documents them, and as our own ingest function reads them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Message
from hypothesis import given
from hypothesis import strategies as st
from pika.spec import BasicProperties

import envelopes
from local.pollers import kafka, rabbitmq
from local.pollers.function import MOST_BYTES, within_payload

SERVERS = "127.0.0.1:9092"


def message(offset: int = 15, **fields: Any) -> Message:
    given: dict[str, Any] = {
        "key": b"p-1",
        "value": b"{}",
        "headers": None,
        "timestamp": (TIMESTAMP_CREATE_TIME, 1545084650987),
    }
    return Message(topic="mytopic", partition=0, offset=offset, **given | fields)


def record(partition: int, offset: int) -> kafka.Record:
    return {"topic": "t", "partition": partition, "offset": offset}


def failure(partition: Any, offset: Any) -> dict[str, Any]:
    return {"itemIdentifier": {"partition": partition, "offset": offset}}


def test_a_record_of_kafka_is_the_documented_one() -> None:
    sent = message(key=b"Sat-Jan-01", value=b"Hello, this is a test.", headers=[("headerKey", b"headerValue")])
    assert kafka.event_of(SERVERS, [kafka.record_of(sent)]) == {
        "eventSource": "SelfManagedKafka",
        "bootstrapServers": SERVERS,
        "records": {
            "mytopic-0": [
                {
                    "topic": "mytopic",
                    "partition": 0,
                    "offset": 15,
                    "timestamp": 1545084650987,
                    "timestampType": "CREATE_TIME",
                    "key": "U2F0LUphbi0wMQ==",
                    "value": "SGVsbG8sIHRoaXMgaXMgYSB0ZXN0Lg==",
                    "headers": [{"headerKey": [104, 101, 97, 100, 101, 114, 86, 97, 108, 117, 101]}],
                }
            ]
        },
    }


def test_a_tombstone_has_no_value_and_a_record_without_a_key_no_key() -> None:
    assert "value" not in kafka.record_of(message(value=None))
    assert "key" not in kafka.record_of(message(key=None))


def test_bytes_of_headers_have_a_sign_and_headers_may_repeat() -> None:
    sent = message(headers=[("a", b"\x00\x7f\x80\xff"), ("a", b""), ("b", None)])
    assert kafka.record_of(sent)["headers"] == [{"a": [0, 127, -128, -1]}, {"a": []}, {"b": []}]


def test_the_broker_s_own_time_is_named_so() -> None:
    assert kafka.record_of(message(timestamp=(TIMESTAMP_LOG_APPEND_TIME, 5)))["timestampType"] == "LOG_APPEND_TIME"


@given(st.binary(), st.none() | st.binary(), st.lists(st.tuples(st.text(), st.none() | st.binary())))
def test_ingest_reads_what_was_sent_to_kafka(
    value: bytes, key: bytes | None, headers: list[tuple[str, bytes | None]]
) -> None:
    event = kafka.event_of(SERVERS, [kafka.record_of(message(value=value, key=key, headers=headers))])
    (delivery,) = envelopes.of(event).deliveries
    assert delivery.record.body == value


def test_without_failures_nothing_comes_again() -> None:
    answers: list[Any] = [{"batchItemFailures": []}, {"batchItemFailures": None}, {}, None, "well"]
    for answer in answers:
        assert kafka.still_to_come([record(0, 1)], answer) == []


def test_of_each_partition_the_first_failure_comes_again_and_all_behind_it() -> None:
    records = [record(partition, offset) for partition in range(3) for offset in range(5, 9)]
    answer = {"batchItemFailures": [failure("t-0", 7), failure("t-0", 6), failure("t-2", 8)]}
    assert kafka.still_to_come(records, answer) == [record(0, 6), record(0, 7), record(0, 8), record(2, 8)]


@pytest.mark.parametrize(
    "wrong",
    [failure("t-0", 99), failure("t", 5), failure("t-0", "5"), failure(None, None), {"itemIdentifier": ""}, {}, "x"],
)
def test_an_answer_that_names_what_is_not_there_asks_for_everything(wrong: Any) -> None:
    records = [record(0, 5), record(0, 6)]
    assert kafka.still_to_come(records, {"batchItemFailures": [failure("t-0", 6), wrong]}) == records


def test_a_message_of_rabbitmq_is_the_documented_one() -> None:
    properties = BasicProperties(
        content_type="text/plain",
        headers={"header1": "value1", "numberInHeader": 10},
        delivery_mode=1,
        priority=34,
        expiration="60000",
        timestamp=int(datetime(1970, 1, 1, 0, 33, 41, tzinfo=UTC).timestamp()),
        user_id="AIDACKCEVSQ6C2EXAMPLE",
    )
    body = b'{"timeout":0,"data":"CZrmf0Gw8Ov4bqLQxD4E"}'
    one = rabbitmq.record_of(properties, redelivered=False, body=body)
    assert rabbitmq.event_of("pizzaQueue", "/", [one]) == {
        "eventSource": "aws:rmq",
        "eventSourceArn": rabbitmq.ARN,
        "rmqMessagesByQueue": {
            "pizzaQueue::/": [
                {
                    "basicProperties": {
                        "contentType": "text/plain",
                        "contentEncoding": None,
                        "headers": {"header1": {"bytes": [118, 97, 108, 117, 101, 49]}, "numberInHeader": 10},
                        "deliveryMode": 1,
                        "priority": 34,
                        "correlationId": None,
                        "replyTo": None,
                        "expiration": "60000",
                        "messageId": None,
                        "timestamp": "Jan 1, 1970, 12:33:41 AM",
                        "type": None,
                        "userId": "AIDACKCEVSQ6C2EXAMPLE",
                        "appId": None,
                        "clusterId": None,
                        "bodySize": len(body),
                    },
                    "redelivered": False,
                    "data": "eyJ0aW1lb3V0IjowLCJkYXRhIjoiQ1pybWYwR3c4T3Y0YnFMUXhENEUifQ==",
                }
            ]
        },
    }


def test_headers_of_any_type_have_json_s_nearest() -> None:
    headers = {
        "none": None,
        "true": True,
        "float": 0.5,
        "decimal": Decimal("1.25"),
        "time": datetime(2026, 10, 31, 13, 5, 9, tzinfo=UTC),
        "table": {"list": ["ü", 1]},
        "bytes": b"\xff",
    }
    assert rabbitmq.record_of(BasicProperties(headers=headers), redelivered=True, body=b"")["basicProperties"][
        "headers"
    ] == {
        "none": None,
        "true": True,
        "float": 0.5,
        "decimal": 1.25,
        "time": "Oct 31, 2026, 1:05:09 PM",
        "table": {"list": [{"bytes": [-61, -68]}, 1]},
        "bytes": {"bytes": [-1]},
    }


@given(st.binary(), st.dictionaries(st.text(max_size=20), st.text() | st.integers(-(2**62), 2**62) | st.booleans()))
def test_ingest_reads_what_was_sent_to_rabbitmq(body: bytes, headers: dict[str, Any]) -> None:
    one = rabbitmq.record_of(BasicProperties(headers=headers, message_id="m-1"), redelivered=False, body=body)
    (delivery,) = envelopes.of(rabbitmq.event_of("events", "/", [one])).deliveries
    assert (delivery.record.body, delivery.record.origin) == (body, "rabbitmq:/:events:m-1")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("amqp://h", "/"),
        ("amqp://h/", "/"),
        ("amqp://u:p@h:1/%2F", "/"),
        ("amqps://h/audit?heartbeat=5", "audit"),
        ("amqp://h/a%2Fb", "a/b"),
    ],
)
def test_the_virtual_host_is_the_one_of_the_url(url: str, host: str) -> None:
    assert rabbitmq.virtual_host(url) == host


def test_no_part_of_a_batch_is_larger_than_an_invocation_may_be() -> None:
    records = [
        {"number": number, "value": base64.b64encode(b"x" * size).decode()} for number, size in enumerate([10**6] * 9)
    ]
    parts = list(within_payload(records))
    assert [len(part) for part in parts] == [4, 4, 1]
    assert [one for part in parts for one in part] == records
    huge = [{"value": "x" * MOST_BYTES}]
    assert list(within_payload(huge * 2)) == [huge, huge]
    assert list(within_payload([])) == []

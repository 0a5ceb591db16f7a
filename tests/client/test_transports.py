"""The four ways to the service, each against something that speaks its protocol."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import moto
import pytest
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, Producer

from prooftrail import api_keys
from prooftrail_client import (
    AuditClient,
    AuditTransportError,
    HttpTransport,
    JsonlTransport,
    KafkaTransport,
    SqsTransport,
)
from tests.client.conftest import Service, event, stored
from tests.conftest import LogDatabase


def bodies(count: int) -> list[bytes]:
    return [event(message=str(number)).to_json() for number in range(count)]


# HTTP


@pytest.fixture
def http() -> Iterator[Callable[..., HttpTransport]]:
    """Makes transports that are closed when the test is over."""
    with ExitStack() as stack:

        def make(url: str, key: str = "key", **settings: Any) -> HttpTransport:
            return stack.enter_context(closing(HttpTransport(url, key, **settings)))

        yield make


def test_http_sends_lines_with_a_key_and_what_a_gateway_asks_for(
    http: Callable[..., HttpTransport], service: Service
) -> None:
    batch = bodies(3)
    results = http(service.url, "secret", headers={"x-api-key": "the gateway's"}).send(batch)
    assert [result.status for result in results] == ["delivered"] * 3
    ((path, headers, sent),) = service.requests
    assert path == "/v1/events/batch"
    assert sent == b"\n".join(batch)
    assert headers["authorization"] == "Bearer secret"
    assert headers["x-api-key"] == "the gateway's"
    assert headers["content-type"] == "application/x-ndjson"


def test_http_results_are_each_events_own(http: Callable[..., HttpTransport], service: Service) -> None:
    results = [{"status": word} for word in ("stored", "duplicate", "conflict", "rejected", "unheard-of")]
    service.answers = [(207, {}, json.dumps({"results": results}).encode())]
    statuses = [result.status for result in http(service.url).send(bodies(5))]
    assert statuses == ["delivered", "delivered", "rejected", "rejected", "retry"]


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 502, 503, 504])
def test_http_what_may_pass_or_be_mended_throws_no_event_away(
    http: Callable[..., HttpTransport], service: Service, status: int
) -> None:
    service.answers = [(status, {}, b"{}")]
    with pytest.raises(AuditTransportError, match=str(status)):
        http(service.url).send(bodies(2))


@pytest.mark.parametrize("answer", [b"", b"<html>", b"[]", b'{"results": []}', b'{"results": 3}'])
def test_http_an_answer_that_is_none_of_the_services_settles_nothing(
    http: Callable[..., HttpTransport], service: Service, answer: bytes
) -> None:
    service.answers = [(200, {}, answer)]
    with pytest.raises(AuditTransportError, match="is this the service"):
        http(service.url).send(bodies(2))


def test_http_says_how_long_the_service_wants_to_rest(http: Callable[..., HttpTransport], service: Service) -> None:
    later = datetime.now(UTC) + timedelta(seconds=100)
    service.answers = [(429, {"Retry-After": "7"}, b""), (503, {"Retry-After": format_datetime(later, usegmt=True)}, b"")]
    transport = http(service.url)
    with pytest.raises(AuditTransportError) as first:
        transport.send(bodies(1))
    with pytest.raises(AuditTransportError) as second:
        transport.send(bodies(1))
    assert first.value.retry_after == 7
    assert 90 < (second.value.retry_after or 0) <= 100


def test_http_one_event_that_spoils_its_batch_is_found_and_the_others_pass(
    http: Callable[..., HttpTransport], service: Service
) -> None:
    batch = bodies(7)
    well = service.answer

    def answer(body: bytes, authorization: str) -> tuple[int, dict[str, str], bytes]:
        return (422, {}, b"number 5") if batch[5] in body else well(body, authorization)

    with mock.patch.object(service, "answer", answer):
        results = http(service.url).send(batch)
    assert [result.status for result in results] == ["delivered"] * 5 + ["rejected", "delivered"]
    assert "422: number 5" in results[5].reason


def test_http_nobody_answers_or_the_connection_breaks(http: Callable[..., HttpTransport], service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(AuditTransportError, match=r"timed out"):
            http(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05).send(bodies(1))
        port = silent.getsockname()[1]
    with pytest.raises(AuditTransportError, match="refused"):
        http(f"http://127.0.0.1:{port}").send(bodies(1))


def test_http_a_connection_that_the_service_closed_in_between_is_no_failure(
    http: Callable[..., HttpTransport], service: Service
) -> None:
    transport = http(service.url)
    service.answers = [(200, {"Connection": "close"}, stored(1))]
    transport.send(bodies(1))
    transport.send(bodies(1))
    transport._connection.sock.shutdown(socket.SHUT_RDWR)
    assert transport.send(bodies(1))[0].status == "delivered"


def test_http_refuses_what_is_no_url() -> None:
    for url in ("ftp://example.org", "example.org", "http://"):
        with pytest.raises(ValueError, match="url: expected"):
            HttpTransport(url, "k")


def test_http_the_real_service_stores_events_once_and_refuses_by_item(
    http: Callable[..., HttpTransport], database: LogDatabase, real_service: Service
) -> None:
    key = api_keys.create(database.admin, "acme", role="writer")
    transport = http(real_service.url, key)
    good, changed = event(id="1"), event(id="1", message="another")
    late = event(time=datetime.now(UTC) + timedelta(days=3650))
    batch = [each.to_json() for each in (good, good, changed, late, event(tenant="other"), event())]
    statuses = [result.status for result in transport.send(batch)]
    assert statuses == ["delivered", "delivered", "rejected", "rejected", "rejected", "delivered"]
    assert database.count("event") == 2


# SQS


@pytest.fixture
def queue_url() -> Iterator[str]:
    with moto.mock_aws():
        yield boto3.client("sqs").create_queue(QueueName="events")["QueueUrl"]


def messages(queue_url: str) -> list[str]:
    client = boto3.client("sqs")
    found: list[str] = []
    while received := client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages"):
        found += [message["Body"] for message in received]
    return found


def test_sqs_sends_a_message_per_event(queue_url: str) -> None:
    batch = bodies(23)
    assert [result.status for result in SqsTransport(queue_url).send(batch)] == ["delivered"] * 23
    assert sorted(messages(queue_url)) == sorted(body.decode() for body in batch)


class Sqs:
    """A client that answers as it is told, and remembers the requests."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.requests: list[list[str]] = []

    def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:  # noqa: N803 - boto3's names
        self.requests.append([entry["MessageBody"] for entry in Entries])
        answer = self.answers.pop(0) if self.answers else {"Successful": [{"Id": entry["Id"]} for entry in Entries]}
        if isinstance(answer, Exception):
            raise answer
        return answer


def sqs(client: Sqs, largest: int = 1_048_576) -> SqsTransport:
    return SqsTransport("https://sqs.eu-central-1.amazonaws.com/1/events", client=client, largest=largest)  # type: ignore[arg-type]


def test_sqs_a_request_has_ten_messages_and_so_many_bytes_at_most() -> None:
    client = Sqs()
    sqs(client, 1000).send([b"a" * 400] * 3 + [b"b" * 1000] + [b"c"] * 25)
    assert [len(request) for request in client.requests] == [2, 1, 1, 10, 10, 5]
    assert all(sum(map(len, request)) <= 1000 for request in client.requests)


def test_sqs_tells_what_failed_and_whether_it_ever_will() -> None:
    client = Sqs(
        {
            "Successful": [{"Id": "1"}],
            "Failed": [
                {"Id": "0", "SenderFault": False, "Code": "InternalError"},
                {"Id": "2", "SenderFault": True, "Code": "InvalidMessageContents", "Message": "bad character"},
                {"Id": "3", "SenderFault": True, "Code": "KmsAccessDenied"},
            ],
        }
    )
    results = sqs(client).send([b"x"] * 5)
    assert [result.status for result in results] == ["retry", "delivered", "rejected", "retry", "retry"]


def test_sqs_one_event_that_is_too_large_is_rejected_alone() -> None:
    client = Sqs()
    results = sqs(client, 100).send([b"x", b"y" * 101, b"z"])
    assert [result.status for result in results] == ["delivered", "rejected", "delivered"]
    assert client.requests == [["x"], ["z"]]


def test_sqs_what_was_sent_before_a_request_failed_counts() -> None:
    results = sqs(Sqs({"Successful": [{"Id": str(number)} for number in range(10)]}, OSError("gone"))).send([b"x"] * 15)
    assert [result.status for result in results] == ["delivered"] * 10 + ["retry"] * 5
    with pytest.raises(AuditTransportError, match="gone"):
        sqs(Sqs(OSError("gone"))).send([b"x"])


def test_sqs_a_message_that_spoils_its_request_is_found_and_the_others_pass() -> None:
    class Refusing(Sqs):
        def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:  # noqa: N803
            if any("bad" in entry["MessageBody"] for entry in Entries):
                raise ClientError({"Error": {"Code": "InvalidMessageContents", "Message": "no"}}, "SendMessageBatch")
            return super().send_message_batch(QueueUrl, Entries)

    results = sqs(Refusing()).send([b"x", b"x", b"bad", b"x", b"x"])
    assert [result.status for result in results] == ["delivered", "delivered", "rejected", "delivered", "delivered"]


def test_sqs_takes_every_character_that_an_event_may_hold(queue_url: str) -> None:
    text = "".join(map(chr, [*range(1, 0x20), 0x7F, 0x85, 0xFFFD, 0xFFFE, 0xFFFF, 0x1FFFE, 0x10FFFF])) + "\\ufffe\\"
    assert SqsTransport(queue_url).send([event(message=text).to_json()])[0].status == "delivered"
    (body,) = messages(queue_url)
    assert json.loads(body)["message"] == text
    assert "\ufffe" not in body
    assert "\uffff" not in body


# Kafka: librdkafka's own cluster of brokers, which lives in the producer's process


@pytest.fixture
def kafka() -> Iterator[str]:
    owner = Producer({"test.mock.num.brokers": 1})
    brokers = owner.list_topics(timeout=30).brokers
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
    owner.flush(0)


def test_kafka_sends_records_keyed_by_tenant_and_target(kafka: str) -> None:
    batch = [event().on("Patient", "p-1").to_json(), event().to_json()]
    transport = KafkaTransport("audit", {"bootstrap.servers": kafka})
    assert [result.status for result in transport.send(batch)] == ["delivered"] * 2
    transport.close()
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.subscribe(["audit"])
    records = consumer.consume(2, 30)
    consumer.close()
    assert {(record.key(), record.value()) for record in records} == {(b"acme/p-1", batch[0]), (b"acme", batch[1])}
    assert all(record.headers() == [("content-type", b"application/json")] for record in records)


def test_kafka_nobody_answers() -> None:
    settings = {"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 100, "log_level": 0}
    transport = KafkaTransport("audit", settings)
    with pytest.raises(AuditTransportError, match="topic audit"):
        transport.send(bodies(3))


def test_kafka_a_record_that_is_too_large_is_rejected_alone(kafka: str) -> None:
    transport = KafkaTransport("audit", {"bootstrap.servers": kafka, "message.max.bytes": 2000})
    large = event(message="x" * 3000).to_json()
    assert [result.status for result in transport.send([*bodies(1), large])] == ["delivered", "rejected"]


# JSONL

_write = os.write


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_jsonl_rotates_by_size_and_keeps_so_many_backups(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    transport = JsonlTransport(path, largest_file=40, backups=2)
    for number in range(12):
        assert transport.send([b'{"number":%02d}' % number])[0].status == "delivered"
    transport.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    kept = [line for name in ("audit.jsonl.2", "audit.jsonl.1", "audit.jsonl") for line in lines(path.with_name(name))]
    assert kept == [b'{"number":%02d}' % number for number in range(12)][-len(kept) :]
    assert all(each.stat().st_size <= 40 for each in path.parent.iterdir())


def test_jsonl_goes_on_in_a_file_and_cuts_off_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b'{"a":1}\n{"half')
    transport = JsonlTransport(path, largest_file=1000)
    transport.send([b'{"b":2}'])
    transport.close()
    assert lines(path) == [b'{"a":1}', b'{"b":2}']


def test_jsonl_a_full_disk_is_a_reason_to_try_again_and_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    transport = JsonlTransport(path)
    transport.send([b'{"a":1}'])
    with (
        mock.patch("os.write", lambda file, data: _write(file, data[:3])),
        pytest.raises(AuditTransportError, match="space"),
    ):
        transport.send([b'{"b":2}'])
    transport.send([b'{"b":2}'])
    transport.close()
    assert lines(path) == [b'{"a":1}', b'{"b":2}']


def test_a_client_by_way_of_rotating_files(tmp_path: Path) -> None:
    with AuditClient(JsonlTransport(tmp_path / "out", largest_file=2000), spool=tmp_path / "spool") as client:
        for _ in range(30):
            client.log(event())
    found = [json.loads(line)["sequence"] for path in tmp_path.glob("out*") for line in lines(path)]
    assert sorted(found) == list(range(1, 31))

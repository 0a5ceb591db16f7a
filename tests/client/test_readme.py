"""The examples of the client's README run as they stand, but for the addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest
from confluent_kafka import Producer

from prooftrail_client import AuditClient, KafkaTransport, SqsTransport
from tests.client.conftest import Service
from tests.conftest import PROJECT

README = (PROJECT / "client" / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def addresses(service: Service, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What stands in the README, and what the tests have instead."""
    with moto.mock_aws():
        kafka = Producer({"test.mock.num.brokers": 1})
        (broker,) = kafka.list_topics(timeout=30).brokers.values()
        yield {
            "https://audit.example.org/v1": service.url,
            "https://sqs.eu-central-1.amazonaws.com/123456789012/prooftrail-events": boto3.client(
                "sqs", "eu-central-1"
            ).create_queue(QueueName="prooftrail-events")["QueueUrl"],
            "kafka.example.org:9092": f"{broker.host}:{broker.port}",
            "/var/": f"{tmp_path}/",
        }
        kafka.flush(0)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(number: int, addresses: dict[str, str], service: Service, tmp_path: Path) -> None:
    code = BLOCKS[number]
    for theirs, ours in addresses.items():
        code = code.replace(theirs, ours)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), names)
    for name in ("sqs", "kafka"):
        if isinstance(names.get(name), SqsTransport | KafkaTransport):
            assert names[name].send([names["http"] and b'{"tenant": "acme"}'])[0].status == "delivered"
    for value in list(names.values()):
        if isinstance(value, AuditClient):
            value.close()
    sent = [body for _, _, body in service.requests] + [path.read_bytes() for path in tmp_path.rglob("audit.jsonl")]
    assert bool(sent) == ("client.log(" in code or "logger.warning(" in code)


def test_the_examples_send_what_they_say(addresses: dict[str, str], service: Service) -> None:
    code = BLOCKS[0]
    for theirs, ours in addresses.items():
        code = code.replace(theirs, ours)
    exec(compile(code, "README.md", "exec"), {})
    ((path, headers, body),) = service.requests
    assert path == "/v1/events/batch"
    assert headers["authorization"] == "Bearer the-key-of-a-writer"
    for text in (b'"patient.update"', b'"sequence":1', b'"acme"', b'"Ada L."', b'"outcome":"success"'):
        assert text in body

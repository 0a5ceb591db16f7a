"""The real `sam local invoke`, in Lambda's own container, with the files of `events/` and the real database."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local import tools
from local.layout import architecture
from prooftrail import api_keys
from tests.conftest import PROJECT
from tests.e2e.conftest import System, docker_answers

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
IMAGE = f"public.ecr.aws/lambda/python:{VERSION}-{architecture()}"


def _missing() -> str | None:
    if not docker_answers():
        return "no Docker engine answers"
    if subprocess.run(["docker", "image", "inspect", IMAGE], capture_output=True).returncode:
        return f"Lambda's base image {IMAGE} is not here"
    return None


# One event of each broker's sample.
STORED = {
    "kafka-msk": "01JBQ7B1A2C3D4E5F6G7H8J9K0",
    "kafka-self-managed": "01JBQ7B2A2C3D4E5F6G7H8J9K0",
    "rabbitmq": "01JBQ7B3A2C3D4E5F6G7H8J9K0",
    "eventbridge": "01JBQ7B4A2C3D4E5F6G7H8J9K0",
}

MISSING = _missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"sam local invoke: {MISSING}")


def invoke(system: System, function: str, event: Path) -> Any:
    state = system.stack.layout.state
    options = {
        "--event": event,
        "--template": state / "build" / "template.yaml",
        "--env-vars": state / "env.json",
        "--parameter-overrides": f"Runtime=python{VERSION} Architecture={architecture()}",
        "--region": "us-east-1",
    }
    words = [str(word) for option in options.items() for word in option]
    command = [str(tools.sam(system.stack.layout)), "local", "invoke", function, "--skip-pull-image", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_ingest_stores_the_sample_batch(system: System) -> None:
    event = PROJECT / "events" / "ingest-sqs.json"
    assert invoke(system, "IngestFunction", event) == {"batchItemFailures": []}
    (sample, *_) = [json.loads(record["body"]) for record in json.loads(event.read_bytes())["Records"]]
    assert system.get(f"/events/{sample['id']}", tenant=sample["tenant"])["action"] == sample["action"]


@pytest.mark.parametrize("sample", STORED)
def test_ingest_stores_what_a_broker_sends(system: System, sample: str) -> None:
    assert invoke(system, "IngestFunction", PROJECT / "events" / f"ingest-{sample}.json") == {"batchItemFailures": []}
    (stored,) = [event for event in system.all_events(tenant="clinic-north") if event["id"] == STORED[sample]]
    assert (stored["action"], stored["actor"]["id"]) == ("patient.read", "u-1042")


def test_http_stores_the_sample_events(system: System, tmp_path: Path) -> None:
    with system.database() as admin:
        key = f"Bearer {api_keys.create(admin, 'clinic-north', role='writer')}"
    for name, statuses in (("ingest-http.json", (201, 200)), ("ingest-http-batch.json", (200, 200))):
        request = json.loads((PROJECT / "events" / name).read_bytes())
        request["multiValueHeaders"]["Authorization"] = [key]
        file = tmp_path / name
        file.write_text(json.dumps(request))
        assert tuple(invoke(system, "HttpFunction", file)["statusCode"] for _ in statuses) == statuses
    refused = invoke(system, "HttpFunction", PROJECT / "events" / "ingest-http.json")
    assert refused["statusCode"] == 401  # the sample's key is made up


def test_query_answers_the_sample_request(system: System, tmp_path: Path) -> None:
    request = json.loads((PROJECT / "events" / "query-events.json").read_bytes())
    for headers in (request["headers"], request["multiValueHeaders"]):
        many = headers is request["multiValueHeaders"]
        headers["Authorization"] = [system.operator["Authorization"]] if many else system.operator["Authorization"]
    file = tmp_path / "request.json"
    file.write_text(json.dumps(request))
    assert invoke(system, "QueryFunction", file)["statusCode"] == 200
    refused = invoke(system, "QueryFunction", PROJECT / "events" / "query-events.json")
    assert refused["statusCode"] == 401  # the sample's key is made up
    health = invoke(system, "QueryFunction", PROJECT / "events" / "query-health.json")
    assert (health["statusCode"], json.loads(health["body"])["status"]) == (200, "ok")


def test_archive_runs_on_the_sample_schedule(system: System) -> None:
    summary = invoke(system, "ArchiveFunction", PROJECT / "events" / "archive-schedule.json")
    assert summary["waiting"] == []

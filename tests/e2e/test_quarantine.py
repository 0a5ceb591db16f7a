"""Quarantine and dead letters in the deployed system, mended by the commands that the documentation names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner, Result

from prooftrail.cli import app
from tests.e2e.conftest import System, eventually
from tests.factories import native


def prooftrail(system: System, *arguments: str, **environment: str) -> Result:
    """Run a command as `source .local/stack.env` would have it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (system.environment | environment).items():
            patch.setenv(name, value)
        return CliRunner().invoke(app, arguments)


def test_a_quarantined_record_is_seen_over_the_api_and_replayed_under_its_own_identity(system: System) -> None:
    time = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    system.send([json.dumps(native(id=None, tenant="early", time=time))])
    system.wait_until_drained()
    (item,) = system.get("/quarantine", reason="time-out-of-range")["quarantine"]
    assert json.loads(prooftrail(system, "quarantine", "list", "--json").stdout)[0]["id"] == item["id"]
    assert prooftrail(system, "quarantine", "replay", str(item["id"])).exit_code == 2
    result = prooftrail(system, "quarantine", "replay", str(item["id"]), MAX_FUTURE_HOURS="96")
    assert result.exit_code == 0, result.output
    assert system.get("/quarantine/" + str(item["id"]))["state"] == "replayed"
    assert [event["id"] for event in system.all_events(tenant="early")] == [item["origin"]]


def test_a_dead_letter_comes_back_as_the_event_that_it_was(system: System) -> None:
    sqs = system.client("sqs")
    names = ["VisibilityTimeout", "RedrivePolicy"]
    as_deployed = sqs.get_queue_attributes(QueueUrl=system.queue, AttributeNames=names)["Attributes"]
    impatient = json.loads(as_deployed["RedrivePolicy"]) | {"maxReceiveCount": 2}
    sqs.set_queue_attributes(
        QueueUrl=system.queue, Attributes={"VisibilityTimeout": "3", "RedrivePolicy": json.dumps(impatient)}
    )
    with system.database() as admin:
        try:
            admin.execute("REVOKE INSERT ON prooftrail.event_key FROM prooftrail_ingest")
            body = json.dumps(native(id=None, tenant="returned"))
            id = sqs.send_message(QueueUrl=system.queue, MessageBody=body)["MessageId"]
            eventually(lambda: system.get("/health")["queue"]["dead_letters"], lambda dead: dead == 1, 90)
        finally:
            admin.execute("GRANT INSERT ON prooftrail.event_key TO prooftrail_ingest")
            sqs.set_queue_attributes(QueueUrl=system.queue, Attributes=as_deployed)
    result = prooftrail(system, "redrive")
    assert result.output == "1 dead letters were sent back, 0 stay\n"
    queue = system.queue.rpartition("/")[2]
    eventually(
        lambda: [event["id"] for event in system.all_events(tenant="returned")],
        lambda events: events == [f"sqs:{queue}:{id}"],
    )
    system.wait_until_drained()

"""`prooftrail quarantine` and `prooftrail redrive`, as an operator types them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import moto
import pytest
from typer.testing import CliRunner, Result

from prooftrail import verification
from prooftrail.cli import app
from tests.conftest import LogDatabase
from tests.factories import native, sqs

Ingesting = Callable[..., list[str]]
FOUR_DAYS = str(4 * 24)


@pytest.fixture
def quarantined(database: LogDatabase, ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch) -> Iterator[LogDatabase]:
    """Three records: one ahead of its time, one that names no tenant, one that is no JSON. At the end all is as logged."""
    soon = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    ingesting(sqs(native(id="ahead", time=soon)))
    ingesting(sqs(native(id="nobody's", tenant=None)))
    ingesting(sqs('{"a\x1b[31m": "\u202e', queue="other"))
    monkeypatch.setenv("DATABASE_URL", database.url)
    yield database
    report = verification.verify(database.admin)
    assert (report.findings, report.unchecked) == ([], [])


def run(*arguments: str, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(app, ["quarantine", *arguments], env=environment)


def ids(*arguments: str) -> list[int]:
    result = run("list", "--json", *arguments)
    assert result.exit_code == 0
    return [item["id"] for item in json.loads(result.stdout)]


@pytest.mark.usefixtures("quarantined")
def test_the_list_says_what_waits_where_it_is_from_and_why() -> None:
    lines = [line.split("\t") for line in run("list").stdout.splitlines()]
    assert [line[0] for line in lines] == ["3", "2", "1"]
    assert [line[2] for line in lines] == ["waiting"] * 3
    assert [line[3] for line in lines] == ["invalid-json", "invalid-field", "time-out-of-range"]
    assert lines[0][4].startswith("sqs:other:")
    assert "check the clock" in lines[2][5]


@pytest.mark.usefixtures("quarantined")
def test_the_list_is_filtered_and_goes_on_where_it_ended() -> None:
    assert ids() == [3, 2, 1]
    assert ids("--reason", "invalid-field") == [2]
    assert ids("--origin", "sqs:events:") == [2, 1]
    assert ids("--since", "2100-01-01") == []
    assert ids("--since", "2020-01-01T00:00:00+02:00") == [3, 2, 1]
    assert ids("--limit", "2") == [3, 2]
    assert ids("--limit", "2", "--before", "2") == [1]
    assert "perhaps there are more: --before 2" in run("list", "--limit", "2").stderr
    assert ids("--state", "replayed") == []
    assert ids("--state", "all") == [3, 2, 1]
    result = run("list", "--since", "yesterday")
    assert (result.exit_code, "--since: expected a time" in result.stderr) == (1, True)


@pytest.mark.usefixtures("quarantined")
def test_a_record_is_shown_with_its_bytes_and_nothing_that_a_terminal_would_obey() -> None:
    shown = run("show", "3")
    assert shown.exit_code == 0
    assert "\x1b" not in shown.stdout
    assert "\u202e" not in shown.stdout
    assert '{"a\\x1b[31m": "\\u202e' in shown.stdout
    assert run("show", "3", "--raw").stdout_bytes == '{"a\x1b[31m": "\u202e'.encode()
    document = json.loads(run("show", "3", "--json").stdout)
    assert base64.b64decode(document["raw"]) == '{"a\x1b[31m": "\u202e'.encode()
    assert (document["id"], document["state"], document["headers"]) == (3, "waiting", {})


def test_of_a_long_record_the_beginning_is_shown(quarantined: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs("x" * 10_000))
    quarantined.admin.execute("SELECT 1")
    shown = run("show", "4", environment={"DATABASE_URL": quarantined.url})
    assert "x" * 4096 in shown.stdout
    assert "x" * 4097 not in shown.stdout
    assert "and 5,904 bytes more: see them with --raw" in shown.stderr


def test_after_a_fix_records_are_replayed_by_number(quarantined: LogDatabase) -> None:
    result = run("replay", "1", environment={"MAX_FUTURE_HOURS": FOUR_DAYS})
    assert result.exit_code == 0
    assert "stored acme clinic/records ahead" in result.stdout
    assert "1 records replayed, 0 still refused" in result.stderr
    assert ids() == [3, 2]
    assert run("list", "--state", "replayed").stdout.endswith("\tacme clinic/records ahead\n")
    assert run("replay", "1").exit_code == 1
    assert quarantined.count("event") == 1


def test_what_is_refused_still_is_said_and_waits(quarantined: LogDatabase) -> None:
    result = run("replay", "--all", environment={"DEFAULT_TENANT": "acme"})
    assert result.exit_code == 2
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [(line[0], line[2]) for line in lines] == [
        ("1", "still refused"),
        ("2", "stored acme clinic/records nobody's"),
        ("3", "still refused"),
    ]
    assert "1 records replayed, 2 still refused" in result.stderr
    assert ids() == [3, 1]
    assert ids("--state", "replayed") == [2]


def test_replays_by_filter_tell_machines_how_each_ended(quarantined: LogDatabase) -> None:
    result = run("replay", "--reason", "invalid-field", "--json", environment={"DEFAULT_TENANT": "acme"})
    (attempt,) = json.loads(result.stdout)
    event = {"tenant": "acme", "source": "clinic/records", "id": "nobody's"}
    assert (result.exit_code, attempt["id"], attempt["reason"]) == (0, 2, None)
    assert attempt["stored"] == [{"event": event, "status": "stored", "index": 0}]
    assert json.loads(run("replay", "--origin", "kafka:", "--json").stdout) == []


@pytest.mark.parametrize("arguments", [[], ["1", "--all"], ["1", "--reason", "x"], ["--all", "--origin", "x"]])
def test_a_replay_must_be_told_which(quarantined: LogDatabase, arguments: list[str]) -> None:
    result = run("replay", *arguments)
    assert (result.exit_code, "expected numbers, or a filter" in result.stderr) == (1, True)


def test_records_are_discarded_with_a_reason(quarantined: LogDatabase) -> None:
    assert run("discard", "3").exit_code == 2  # typer's: --reason is missing
    assert run("discard", "3", "--reason", "").exit_code == 1
    result = run("discard", "3", "1", "--reason", "sent by a test")
    assert (result.exit_code, result.stdout) == (0, "record 3 is discarded\nrecord 1 is discarded\n")
    assert "sent by a test" in run("list", "--state", "discarded").stdout
    again = run("discard", "3", "--reason", "sent by a test")
    assert (again.exit_code, "record 3 does not wait" in again.stderr) == (1, True)
    assert "expected the number of a record" in run("discard", "9", "--reason", "x").stderr


def test_bytes_are_deleted_only_by_who_says_so(quarantined: LogDatabase) -> None:
    asked = CliRunner().invoke(app, ["quarantine", "discard", "3", "--reason", "x", "--clear"], input="n\n")
    assert asked.exit_code == 1
    assert ids() == [3, 2, 1]
    assert "its bytes are gone" in run("discard", "3", "--reason", "x", "--clear", "--yes").stdout
    assert run("show", "3", "--raw").stdout == ""


# -------------------------------------------------------------------------------------------------------------- redrive


class Queues:
    """A queue with dead letters, of which each was delivered once too often."""

    def __init__(self) -> None:
        self.client = boto3.client("sqs")
        self.dead = self.client.create_queue(QueueName="events-dlq")["QueueUrl"]
        arn = self.client.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "1"})
        self.live = self.client.create_queue(
            QueueName="events", Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"}
        )["QueueUrl"]

    def dead_letter(self, body: Any, attributes: dict[str, Any] | None = None) -> str:
        """Send a message and let it die; returns its id."""
        sent = self.client.send_message(
            QueueUrl=self.live, MessageBody=json.dumps(body), MessageAttributes=attributes or {}
        )
        for _ in range(2):
            self.client.receive_message(QueueUrl=self.live, MaxNumberOfMessages=10)
        return sent["MessageId"]

    def received(self, url: str) -> list[Any]:
        found: list[Any] = []
        while messages := self.client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
            VisibilityTimeout=60,
        ).get("Messages"):
            found += messages
        return found

    def as_delivered(self) -> dict[str, Any]:
        """What waits in the queue, as Lambda's mapping hands it to the function."""
        messages = self.received(self.live)
        batch = sqs(*(message["Body"] for message in messages))
        for record, message in zip(batch["Records"], messages, strict=True):
            record["messageId"] = message["MessageId"]
            record["attributes"] = message["Attributes"]
            record["messageAttributes"] = {
                name: {"dataType": value["DataType"], "stringValue": value["StringValue"]}
                for name, value in message.get("MessageAttributes", {}).items()
            }
        return batch


@pytest.fixture
def queues(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queues]:
    with moto.mock_aws():
        queues = Queues()
        monkeypatch.setenv("PROOFTRAIL_QUEUE_URL", queues.live)
        monkeypatch.setenv("PROOFTRAIL_DLQ_URL", queues.dead)
        yield queues


def redrive() -> Result:
    return CliRunner().invoke(app, ["redrive"])


def test_a_redriven_event_without_an_id_keeps_the_one_that_it_had(
    database: LogDatabase, ingesting: Ingesting, queues: Queues
) -> None:
    tenant = {"prooftrail-tenant": {"DataType": "String", "StringValue": "acme"}}
    id = queues.dead_letter(native(id=None, tenant=None), tenant)
    assert redrive().stdout == "1 dead letters were sent back, 0 stay\n"
    batch = queues.as_delivered()
    assert [record["messageId"] for record in batch["Records"]] != [id]  # else this would prove nothing
    assert ingesting(batch) == []
    rows = database.admin.execute("SELECT tenant, id FROM prooftrail.event_key WHERE source <> 'prooftrail'").fetchall()
    assert rows == [("acme", f"sqs:events:{id}")]
    assert queues.received(queues.dead) == []


def test_redriven_twice_it_still_has_its_first_name_and_what_was_ingested_before_is_a_duplicate(
    database: LogDatabase, ingesting: Ingesting, queues: Queues
) -> None:
    event = native(id=None)
    id = queues.dead_letter(event)
    first = sqs(event)
    first["Records"][0]["messageId"] = id
    ingesting(first)  # it was stored, but the acknowledgement was lost every time
    redrive()
    for _ in range(2):
        queues.client.receive_message(QueueUrl=queues.live)
    assert redrive().stdout == "1 dead letters were sent back, 0 stay\n"
    ingesting(queues.as_delivered())
    assert database.count("event") == 1


def test_a_redriven_event_without_a_time_keeps_the_one_of_its_first_message(
    database: LogDatabase, ingesting: Ingesting, queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = {"event_id": "e-1", "functionality": "stock", "event_type": "sold", "company_id": "acme"}
    first = sqs(event)
    first["Records"][0]["messageId"] = queues.dead_letter(event)
    sent = queues.client.receive_message(QueueUrl=queues.dead, AttributeNames=["All"], VisibilityTimeout=0)
    first["Records"][0]["attributes"] = sent["Messages"][0]["Attributes"]
    ingesting(first)  # it was stored, but the acknowledgement was lost every time
    later = datetime.now(UTC) + timedelta(hours=1)
    monkeypatch.setattr("moto.sqs.models.unix_time_millis", lambda *_: later.timestamp() * 1000)
    redrive()
    batch = queues.as_delivered()
    assert batch["Records"][0]["attributes"]["SentTimestamp"] != sent["Messages"][0]["Attributes"]["SentTimestamp"]
    assert ingesting(batch) == []
    assert (database.count("event"), database.count("quarantine")) == (1, 0)


def test_what_sqs_does_not_take_back_stays_and_is_named(
    queues: Queues, database: LogDatabase, ingesting: Ingesting
) -> None:
    stays = queues.dead_letter(native(message="x" * 2000))
    goes = [queues.dead_letter(native()) for _ in range(25)]
    queues.client.set_queue_attributes(QueueUrl=queues.live, Attributes={"MaximumMessageSize": "1024"})
    result = redrive()
    assert result.exit_code == 2
    assert result.stdout == f"{len(goes)} dead letters were sent back, 1 stay\n"
    assert f"{stays} stays: " in result.stderr
    ingesting(queues.as_delivered())
    assert database.count("event") == 25


def test_a_producer_cannot_take_the_name_of_another_source(database: LogDatabase, ingesting: Ingesting) -> None:
    for name in ("kafka:main:audit:0:1:2", "sqs:other:" + "0" * 36, "sqs:events:../" + "0" * 33, "sqs:events:", ""):
        batch = sqs("{broken")
        batch["Records"][0]["messageAttributes"] = {"prooftrail-origin": {"dataType": "String", "stringValue": name}}
        ingesting(batch)
    origins = [origin for (origin,) in database.admin.execute("SELECT origin FROM prooftrail.quarantine")]
    assert len(origins) == 5
    assert all(len(origin) == len("sqs:events:") + 36 for origin in origins)


def test_queues_that_are_not_there_end_it_with_one_sentence(queues: Queues, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROOFTRAIL_DLQ_URL", queues.dead + "x")
    result = redrive()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "0 dead letters were sent back, then: " in result.stderr

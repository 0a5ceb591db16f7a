"""An event's whole life in the deployed system: queue, function, database, API, archive."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import psutil
import pytest

from local import containers
from prooftrail import api_keys
from tests.conftest import DATA
from tests.e2e.conftest import System, eventually
from tests.factories import native


def test_an_event_sent_to_the_queue_is_answered_by_the_api(system: System) -> None:
    event = native(tenant="e2e") | {"level": "info"}
    system.send([json.dumps(event)])
    answer = eventually(
        lambda: system.api.get(f"/events/{event['id']}", headers=system.operator), lambda answer: answer.status_code == 200
    )
    assert answer.json() == event
    assert system.get("/events", tenant="e2e", actor="dr-lee")["events"] == [event]


def test_an_id_comes_through_the_gateway_whatever_it_is_made_of(system: System) -> None:
    event = native(tenant="odd", id="a b/c%20d:e?f#g+ü")
    system.send([json.dumps(event)])
    system.wait_until_drained()
    assert system.get("/events/a%20b%2Fc%2520d%3Ae%3Ff%23g%2B%C3%BC")["id"] == event["id"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"x-api-key": "wrong"}])
def test_without_a_good_key_the_api_refuses(system: System, headers: dict[str, str]) -> None:
    answer = system.api.get("/events", headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")


def test_a_tenant_s_key_reads_that_tenant_only(system: System) -> None:
    with system.database() as admin:
        key = {"Authorization": f"Bearer {api_keys.create(admin, 'mine')}"}
    system.send([json.dumps(native(tenant="mine")), json.dumps(native(tenant="theirs"))])
    system.wait_until_drained()
    assert {event["tenant"] for event in system.api.get("/events", headers=key).json()["events"]} == {"mine"}
    assert system.api.get("/events", headers=key, params={"tenant": "theirs"}).status_code == 403


def test_wrong_parameters_and_routes_are_problems_through_the_gateway_too(system: System) -> None:
    for path, status in (("/events?limit=x", 400), ("/nothing", 404)):
        answer = system.api.get(path, headers=system.operator)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_health_needs_no_key(system: System) -> None:
    health = system.api.get("/health").json()
    assert (health["status"], health["queue"]["dead_letters"]) == ("ok", 0)


def test_a_thousand_messages_with_poison_among_them(system: System) -> None:
    """Every healthy event once, every poison in quarantine with its exact bytes, the queues empty."""
    tenant = "poisoned"
    largest = 1024 * 1024 if _takes_a_mebibyte(system) else 256 * 1024
    poison = [
        "{broken",
        json.dumps(native(tenant=tenant, action=[])),
        json.dumps(native(tenant=tenant, message="a\0b")),
        json.dumps(native(tenant=tenant, message="\ud83d")),
        json.dumps(native(tenant=tenant))[:-1] + ', "after": ' + '{"a":' * 10_000 + "1" + "}" * 10_001,
        ("x" * largest)[: largest - 10],
        json.dumps(native(tenant=tenant, time=5, message="y" * (largest - 1000))),
    ] * 3
    healthy = [native(tenant=tenant) for _ in range(1000 - len(poison))]
    with system.database() as admin:
        (before,) = admin.execute("SELECT coalesce(max(id), 0) FROM prooftrail.quarantine").fetchone() or ()
    for number, body in enumerate(poison):
        system.client("sqs").send_message(QueueUrl=system.queue, MessageBody=body)
        system.send([json.dumps(event) for event in healthy[number * 46 : (number + 1) * 46]])
    system.send([json.dumps(event) for event in healthy[len(poison) * 46 :]])
    system.wait_until_drained()
    assert sorted(event["id"] for event in system.all_events(tenant=tenant)) == sorted(event["id"] for event in healthy)
    with system.database() as admin:
        kept = [bytes(raw) for (raw,) in admin.execute("SELECT raw FROM prooftrail.quarantine WHERE id > %s", [before])]
    assert sorted(kept) == sorted(body.encode() for body in poison)


def _takes_a_mebibyte(system: System) -> bool:
    attributes = system.client("sqs").get_queue_attributes(QueueUrl=system.queue, AttributeNames=["MaximumMessageSize"])
    return int(attributes["Attributes"]["MaximumMessageSize"]) == 1024 * 1024


@pytest.mark.skipif(not DATA.is_dir(), reason="the CloudTrail logs of an attack simulation are not on this machine")
def test_real_cloudtrail_records_come_back_by_actor_action_target_and_time(system: System) -> None:
    files = [json.loads(file.read_bytes())["Records"] for file in sorted((DATA / "cloudtrail").glob("*.json"))]
    bodies = [json.dumps({"Records": records[n : n + 40]}) for records in files for n in range(0, len(records), 40)]
    records = {record["eventID"]: record for records in files for record in records}
    for _ in range(2):  # sent twice, nothing doubles
        system.send(bodies)
        system.wait_until_drained()
    account = next(iter(records.values()))["recipientAccountId"]
    found = {event["id"]: event for event in system.all_events(tenant=account)}
    assert found.keys() == records.keys()
    for name, path in {"actor": ("actor", "id"), "target_id": ("target", "id"), "action": ("action",)}.items():
        values = {id: _at(event, path) for id, event in found.items()}
        for value in set(values.values()):
            answered = {event["id"] for event in system.all_events(tenant=account, **{name: value})}
            assert answered == {id for id, own in values.items() if own == value}
    moment = "2023-07-10T12:05:00Z"
    later = {event["id"] for event in system.all_events(tenant=account, **{"from": moment})}
    assert later == {id for id, record in records.items() if record["eventTime"] >= moment}


def _at(event: dict[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        event = event[name]
    return event


def test_old_months_move_to_parquet_and_out_of_the_database(system: System, tmp_path: Path) -> None:
    old = [native(tenant="old", time=f"2021-0{month}-15T08:00:00Z") for month in (1, 2) for _ in range(50)]
    system.send([json.dumps(event) for event in old])
    system.wait_until_drained()
    answer = system.client("lambda").invoke(FunctionName=system.output("ArchiveFunctionName"), Payload=b"{}")
    assert "FunctionError" not in answer, answer["Payload"].read()
    assert {"2021-01", "2021-02"} <= set(json.loads(answer["Payload"].read())["archived"])
    assert system.all_events(tenant="old") == []
    gone = system.api.get(f"/events/{old[0]['id']}", headers=system.operator)
    assert (gone.status_code, "archived" in gone.json()["detail"]) == (404, True)
    s3 = system.client("s3")
    listing = s3.list_objects_v2(Bucket=system.bucket, Prefix="tenant=old/")["Contents"]
    for number, item in enumerate(listing):
        s3.download_file(system.bucket, item["Key"], str(tmp_path / f"{number}.parquet"))
    relation = duckdb.sql(f"SELECT id FROM '{tmp_path}/*.parquet'")
    assert relation is not None
    assert sorted(id for (id,) in relation.fetchall()) == sorted(event["id"] for event in old)
    locked = s3.get_object_retention(Bucket=system.bucket, Key=listing[0]["Key"])["Retention"]
    assert locked["Mode"] == "GOVERNANCE"


def test_the_archive_and_the_checkpoints_run_by_their_schedules(system: System) -> None:
    rules = system.client("events")
    scheduled = {
        rule["Name"]: rule["ScheduleExpression"] for rule in rules.list_rules()["Rules"] if "ScheduleExpression" in rule
    }
    targets = {name: rules.list_targets_by_rule(Rule=name)["Targets"] for name in scheduled}
    called = {target["Arn"].rpartition(":")[2]: scheduled[name] for name, (target,) in targets.items()}
    assert called[system.output("ArchiveFunctionName")] == "cron(15 2 * * ? *)"
    assert called[system.output("CheckpointFunctionName")] == "rate(1 minute)"


def test_what_cannot_be_stored_for_long_rests_in_the_dead_letter_queue_and_comes_back_by_redrive(system: System) -> None:
    sqs = system.client("sqs")
    names = ["VisibilityTimeout", "RedrivePolicy", "QueueArn"]
    as_deployed = sqs.get_queue_attributes(QueueUrl=system.queue, AttributeNames=names)["Attributes"]
    arn = as_deployed.pop("QueueArn")
    impatient = json.loads(as_deployed["RedrivePolicy"]) | {"maxReceiveCount": 2}
    sqs.set_queue_attributes(
        QueueUrl=system.queue, Attributes={"VisibilityTimeout": "3", "RedrivePolicy": json.dumps(impatient)}
    )
    event = native(tenant="patient", id=str(uuid.uuid4()))
    with system.database() as admin:
        try:
            admin.execute("REVOKE INSERT ON prooftrail.event_key FROM prooftrail_ingest")
            system.send([json.dumps(event)])
            eventually(lambda: system.get("/health")["queue"]["dead_letters"], lambda dead: dead == 1, 90)
        finally:
            admin.execute("GRANT INSERT ON prooftrail.event_key TO prooftrail_ingest")
            sqs.set_queue_attributes(QueueUrl=system.queue, Attributes=as_deployed)
    dead_arn = sqs.get_queue_attributes(QueueUrl=system.dead_letters, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sqs.start_message_move_task(SourceArn=dead_arn, DestinationArn=arn)
    eventually(lambda: system.all_events(tenant="patient"), lambda events: [e["id"] for e in events] == [event["id"]])
    system.wait_until_drained()


def test_the_functions_log_in_as_their_own_roles(system: System) -> None:
    with system.database() as admin:
        users = admin.execute("SELECT DISTINCT usename FROM pg_stat_activity WHERE usename LIKE 'prooftrail_%'").fetchall()
    assert {"prooftrail_ingest", "prooftrail_query"} <= {user for (user,) in users}


def test_every_resource_of_the_template_was_created(system: System) -> None:
    """And none is only pretended: this LocalStack refuses types that it does not have (see test_emulator)."""
    cloudformation = system.client("cloudformation")
    resources = cloudformation.describe_stack_resources(StackName="prooftrail")["StackResources"]
    assert len(resources) > 30
    assert {resource["ResourceStatus"] for resource in resources} == {"CREATE_COMPLETE"}


def test_the_stack_listens_to_this_machine_only(system: System) -> None:
    ports = {urlsplit(system.environment[name]).port for name in ("AWS_ENDPOINT_URL", "DATABASE_URL")}
    listening = [at.laddr for at in psutil.net_connections("tcp") if at.status == psutil.CONN_LISTEN]
    assert {address.ip for address in listening if address.port in ports} <= {"127.0.0.1", containers.bridge()}


def test_the_stack_tells_the_shell_all_it_needs(system: System) -> None:
    assert system.environment.keys() >= {
        "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "DATABASE_URL",
        "PROOFTRAIL_API_URL", "PROOFTRAIL_API_KEY", "PROOFTRAIL_QUEUE_URL", "PROOFTRAIL_DLQ_URL",
        "PROOFTRAIL_ARCHIVE_BUCKET", "PROOFTRAIL_EVIDENCE_BUCKET", "LOG_ORIGIN", "SIGNING_KEYS",
        "KAFKA_BOOTSTRAP_SERVERS", "PROOFTRAIL_TOPIC", "RABBITMQ_URL", "PROOFTRAIL_RABBITMQ_QUEUE",
    }  # fmt: skip

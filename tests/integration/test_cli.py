"""The `prooftrail` command: what an operator sees, and one sentence where something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from typer.testing import CliRunner, Result

from prooftrail import api_keys
from prooftrail.cli import app
from prooftrail.evidence import Evidence
from prooftrail.ledger.note import VerifierKey
from tests.conftest import PROJECT, LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import signing_secret, verifier_key
from tests.unit.test_events_samples import BROKERS

EVENTS = PROJECT / "events"


@pytest.fixture
def url(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DATABASE_URL", database.url)
    return database.url


def run(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, arguments, input=stdin)


def fails(result: Result) -> str:
    """The one sentence on standard error."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("prooftrail: ")
    return line


def invoke(function: str, event: Path, url: str) -> Any:
    """In a process of its own, because a function's settings and connection live as long as its process."""
    command = [sys.executable, "-c", "from prooftrail.cli import app; app()", "invoke", function, str(event)]
    answer = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ | {"DATABASE_URL": url})
    # What comes before the answer is the function's log, one line each.
    return json.loads(answer.stdout[answer.stdout.rindex("\n{\n") if "\n{\n" in answer.stdout else 0 :])


def test_migrating_what_is_migrated_does_nothing_and_says_so(url: str) -> None:
    result = run("migrate")
    assert (result.exit_code, result.stdout) == (0, "already up to date\n")


def test_migrating_an_empty_database_names_the_files(database: LogDatabase, url: str) -> None:
    database.admin.execute("DROP SCHEMA prooftrail CASCADE")
    result = run("migrate")
    names = [file.name for file in sorted((PROJECT / "migrations").glob("*.sql"))]
    assert (result.exit_code, result.stdout) == (0, f"applied {', '.join(names)}\n")
    assert run("migrate").stdout == "already up to date\n"


def test_a_new_key_is_printed_once_alone_on_its_line_and_works(database: LogDatabase, url: str) -> None:
    operator = run("key", "create", "--operator", "--label", "on call").stdout
    tenant = run("key", "create", "--tenant", "acme").stdout
    assert operator.endswith("\n")
    assert operator.count("\n") == tenant.count("\n") == 1
    assert tenant_of(database, operator) == api_keys.ALL_TENANTS
    assert tenant_of(database, tenant) == "acme"


def test_a_key_that_writes_is_asked_for_by_its_role(database: LogDatabase, url: str) -> None:
    holder = api_keys.holder_of(database.admin, run("key", "create", "--tenant", "acme", "--role", "writer").stdout.strip())
    assert holder is not None
    assert (holder.tenant, holder.role) == ("acme", "writer")


def tenant_of(database: LogDatabase, key: str) -> str:
    holder = api_keys.holder_of(database.admin, key.strip())
    assert holder is not None
    return holder.tenant


def test_keys_are_listed_without_themselves_and_revoked_by_number(database: LogDatabase, url: str) -> None:
    key = run("key", "create", "--tenant", "acme", "--label", "ward 3").stdout.strip()
    (number, hint, tenant, state, role, label) = run("key", "list").stdout.rstrip("\n").split("\t")
    assert (tenant, state, role, label) == ("acme", "in use", "reader", "ward 3")
    assert key not in run("key", "list").stdout
    assert key.startswith(hint.rstrip("\u2026"))
    assert run("key", "revoke", number).stdout == f"key {number} is revoked\n"
    assert "\trevoked " in run("key", "list").stdout
    assert api_keys.holder_of(database.admin, key) is None
    assert "expected the id of a key in use" in fails(run("key", "revoke", number))


def test_what_an_administrator_does_is_on_record_with_the_login(database: LogDatabase, url: str) -> None:
    run("key", "create", "--tenant", "acme")
    run("hold", "place", "--tenant", "acme", "--reason", "lawsuit")
    rows = database.admin.execute("SELECT action, actor_type, actor_id FROM prooftrail.event ORDER BY batch_id").fetchall()
    ((login,),) = database.admin.execute("SELECT session_user").fetchall()
    assert rows == [(action, "database_login", login) for action in ("key.create", "hold.place")]


@pytest.mark.parametrize("options", [[], ["--tenant", "acme", "--operator"]], ids=["neither", "both"])
def test_a_key_is_for_one_tenant_or_for_an_operator(options: list[str]) -> None:
    assert "expected either --tenant NAME or --operator" in fails(run("key", "create", *options))


@pytest.mark.parametrize("tenant", ["*", "a b", "x" * 65, "-"])
def test_a_key_for_a_tenant_that_no_event_can_have_is_refused(url: str, tenant: str) -> None:
    assert "--tenant: expected" in fails(run("key", "create", "--tenant", tenant))


@pytest.mark.parametrize(
    "command",
    [
        ["migrate"],
        ["key", "list"],
        ["key", "create", "--operator"],
        ["key", "revoke", "1"],
        ["invoke", "query", str(EVENTS / "query-events.json")],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_without_a_database_one_sentence_says_what_is_missing(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    assert "DATABASE_URL" in fails(run(*command))


def test_a_database_without_the_schema_is_told_in_one_sentence(database: LogDatabase, url: str) -> None:
    database.admin.execute("DROP SCHEMA prooftrail CASCADE")
    result = run("key", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("prooftrail: PostgreSQL refused: relation ")
    run("migrate")


def test_an_event_file_that_is_not_json_is_named(url: str, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    event.write_text("{broken")
    assert "event.json: expected a Lambda event as JSON" in fails(run("invoke", "ingest", str(event)))


@pytest.mark.parametrize(("sample", "expected"), BROKERS.items())
def test_a_sample_batch_is_ingested_in_process_as_the_functions_role(
    database: LogDatabase, sample: str, expected: tuple[int, int, int]
) -> None:
    assert invoke("ingest", EVENTS / sample, database.url) == {"batchItemFailures": []}
    assert (database.count("event"), database.count("quarantine")) == expected[:2]


def test_the_keys_of_a_log_are_printed_as_its_verifiers_need_them(evidence: Evidence) -> None:
    printed = run("log", "keys", "--tenant", "acme")
    assert printed.stdout == f"{verifier_key('acme')}\n"
    both = run("log", "keys", "--tenant", "acme", "--signing-keys", f"{os.environ['SIGNING_KEYS']},{signing_secret(2)}")
    assert both.stdout.splitlines() == [str(verifier_key("acme")), str(verifier_key("acme", 2))]
    witness = run("log", "witness-key", "--name", "witness.example/w1")
    assert VerifierKey.parse(witness.stdout.strip()) == VerifierKey("witness.example/w1", 4, verifier_key("x").public_key)


def test_a_generated_key_can_sign(evidence: Evidence) -> None:
    made = [run("log", "generate-key").stdout for _ in range(2)]
    assert made[0] != made[1]
    arn = boto3.client("secretsmanager").create_secret(Name="generated", SecretString=made[0])["ARN"]
    assert VerifierKey.parse(run("log", "keys", "--tenant", "acme", "--signing-keys", arn).stdout.strip())


def test_keys_that_cannot_be_asked_for_are_told_in_one_sentence(evidence: Evidence) -> None:
    nobody = "arn:aws:secretsmanager:us-east-1:123456789012:secret:nobody"
    assert "nobody" in fails(run("log", "keys", "--tenant", "acme", "--signing-keys", nobody))
    assert "--tenant: expected" in fails(run("log", "keys", "--tenant", "a b"))


def test_sample_requests_are_answered_in_process(database: LogDatabase, tmp_path: Path) -> None:
    event = tmp_path / "batch.json"
    event.write_text(json.dumps(sqs(native(id="one", message="hello"))))
    invoke("ingest", event, database.url)
    request = json.loads((EVENTS / "query-events.json").read_bytes())
    key = request["headers"]["Authorization"].removeprefix("Bearer ")
    assert invoke("query", EVENTS / "query-events.json", database.url)["statusCode"] == 401
    database.admin.execute(
        "INSERT INTO prooftrail.api_key (hash, hint) VALUES (%s, 'sample')", [hashlib.sha256(key.encode()).digest()]
    )
    answer = invoke("query", EVENTS / "query-events.json", database.url)
    assert answer["statusCode"] == 200
    assert set(json.loads(answer["body"])) == {"events", "next"}
    (tmp_path / "request.json").write_text(
        json.dumps(request | {"queryStringParameters": None, "multiValueQueryStringParameters": None})
    )
    (found,) = json.loads(invoke("query", tmp_path / "request.json", database.url)["body"])["events"]
    assert (found["id"], found["message"]) == ("one", "hello")

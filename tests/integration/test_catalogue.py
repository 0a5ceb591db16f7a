"""The catalogue: what events do is learned, operators name and describe it, and rules say what it must look like."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prooftrail import api_keys, catalogue, quarantine, rules, sources
from prooftrail.catalogue import InvalidSeed, Seed, UnknownSchema
from prooftrail.cli import app
from prooftrail.rules import InvalidSchema, OnViolation
from prooftrail.settings import IngestSettings
from prooftrail.store import Store
from tests.conftest import PROJECT, LogDatabase
from tests.factories import accepted, native, sqs

Asking = Callable[..., tuple[int, Any]]
Ingesting = Callable[..., list[str]]

AGE = {"properties": {"after": {"properties": {"age": {"type": "integer", "minimum": 0}}, "required": ["age"]}}}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def rule(
    database: LogDatabase,
    schema: dict[str, Any],
    on_violation: OnViolation = "quarantine",
    category: str | None = "records",
) -> None:
    catalogue.seed(
        database.admin,
        [Seed(tenant="acme", category=category, action="patient.read", schema=schema, on_violation=on_violation)],
    )


def send(database: LogDatabase, *events: dict[str, Any]) -> list[str]:
    """Store events as a function does that has just started; says what became of each."""
    with database.connect("ingest") as connection:
        return [receipt.status for receipt in Store(connection).append([accepted(event) for event in events], [])]


def record(**fields: Any) -> dict[str, Any]:
    return native(**{"category": "records"} | fields)


def fold(database: LogDatabase) -> None:
    with database.connect("checkpoint") as connection:
        for tenant in sources.due(connection):
            assert sources.fold(connection, tenant, time.monotonic() + 60)


def own(database: LogDatabase, action: str) -> list[dict[str, Any]]:
    """The metadata of our own events of an action in the tenant's log, in its order."""
    rows = database.admin.execute(
        "SELECT metadata FROM prooftrail.event WHERE source = 'prooftrail' AND tenant = 'acme' AND action = %s "
        "ORDER BY batch_id, position",
        [action],
    )
    return [metadata for (metadata,) in rows]


def test_what_events_do_is_learned(database: LogDatabase) -> None:
    send(database, record(), record(), record(action="patient.write"), native(category=None), native(tenant="globex"))
    fold(database)
    learned = catalogue.actions(database.admin, "acme")
    assert [(item.category, item.action, item.events) for item in learned] == [
        (None, "patient.read", 1),
        ("records", "patient.read", 2),
        ("records", "patient.write", 1),
    ]
    assert all(item.first_seen == item.last_seen and item.seeded_at is None for item in learned)
    found = catalogue.categories(database.admin, "*")
    assert [(item.tenant, item.category, item.actions, item.events) for item in found] == [
        ("acme", None, 1, 1),
        ("acme", "records", 2, 3),
        ("globex", None, 1, 1),
    ]


def test_what_is_seeded_is_there_before_events_are_and_stays_seeded(database: LogDatabase) -> None:
    seeds = [
        Seed(tenant="acme", category="records", action="patient.read", description="Somebody looked"),
        Seed(tenant="acme", category="records", action="patient.write"),
    ]
    assert catalogue.seed(database.admin, seeds) == 2
    assert [(item.events, item.first_seen) for item in catalogue.actions(database.admin, "acme")] == [(0, None)] * 2
    send(database, record())
    fold(database)
    read = catalogue.actions(database.admin, "acme")[0]
    assert (read.events, read.description) == (1, "Somebody looked")
    assert read.first_seen
    assert read.seeded_at
    assert read.seeded_at < read.first_seen


def test_seeding_is_recorded_and_the_second_time_changes_nothing(database: LogDatabase) -> None:
    seeds = [Seed(tenant="acme", action="a", description="one"), Seed(tenant="acme", action="b", schema=AGE)]
    assert catalogue.seed(database.admin, seeds) == 2
    assert catalogue.seed(database.admin, seeds) == 0
    assert catalogue.seed(database.admin, [Seed(tenant="acme", action="a", description="other")]) == 1
    assert catalogue.seed(database.admin, [Seed(tenant="acme", action="a"), Seed(tenant="acme", action="b")]) == 0
    assert own(database, "catalogue.seed") == [{"actions": 2}, {"actions": 1}]
    assert own(database, "catalogue.schema") == [
        {"category": None, "action": "b", "schema": AGE, "on_violation": "quarantine"}
    ]
    assert [(item.action, item.description) for item in catalogue.actions(database.admin, "acme")] == [
        ("a", "other"),
        ("b", None),
    ]


def test_a_violation_is_quarantined_with_the_path_and_what_was_expected(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    rule(database, AGE)
    good, bad = record(after={"age": 7}), record(after={"age": "seven"})
    assert ingesting(sqs(good, bad, record(after={"age": -1}), record(after={}), native(after={}))) == []
    assert database.count("event") == 2
    found = database.admin.execute("SELECT reason, detail FROM prooftrail.quarantine ORDER BY detail").fetchall()
    assert found == [
        ("schema-violation", "at /after/age: the value is less than the minimum of 0"),
        ("schema-violation", 'at /after/age: the value is not of type "integer"'),
        ("schema-violation", 'at /after: "age" is a required property'),
    ]
    ingesting(sqs(good, bad))
    assert (database.count("event"), database.count("quarantine")) == (2, 4)


def test_the_receipt_of_each_stays_its_own(database: LogDatabase) -> None:
    rule(database, AGE)
    assert send(database, record(after={}), record(after={"age": 1}), native(), record()) == [
        "quarantined",
        "stored",
        "stored",
        "stored",
    ]


def test_a_violation_is_replayed_once_the_rule_lets_it_through(database: LogDatabase, ingesting: Ingesting) -> None:
    rule(database, AGE)
    ingesting(sqs(record(id="bad", after={})))
    read = quarantine.reading(IngestSettings(database_url=database.url))
    attempt = quarantine.replay(database.admin, 1, read)
    assert (attempt.reason, attempt.detail) == ("schema-violation", 'at /after: "age" is a required property')
    catalogue.remove_schema(database.admin, "acme", "records", "patient.read")
    (stored,) = quarantine.replay(database.admin, 1, read).stored
    assert (stored.event.id, database.count("event")) == ("bad", 1)


def test_a_refusal_names_the_fields(database: LogDatabase) -> None:
    rule(database, AGE)
    with database.connect("ingest") as connection:
        events = [accepted(record(after={"age": "7"})), accepted(record(after={}))]
        refusals = [receipt.refusal for receipt in Store(connection).append(events, [])]
    assert [refusal and refusal.fields for refusal in refusals] == [
        {"after.age": 'the value is not of type "integer"'},
        {"after": '"age" is a required property'},
    ]


def test_a_flagged_event_is_stored_as_it_is_and_told_of_by_one_of_ours(database: LogDatabase) -> None:
    rule(database, AGE, "flag")
    bad = record(id="bad", after={"age": "of Dr. Who", "name": "Dr. Who"})
    assert send(database, record(after={"age": 1}), bad, bad) == ["stored", "stored", "duplicate"]
    assert send(database, bad) == ["duplicate"]
    (flagged,) = own(database, "catalogue.violation")
    assert flagged == {
        "category": "records",
        "action": "patient.read",
        "count": 1,
        "events": [
            {
                "id": "bad",
                "source": "clinic/records",
                "schema_paths": ["/properties/after/properties/age/type"],
            }
        ],
    }
    (after,) = database.admin.execute("SELECT after FROM prooftrail.event WHERE id = 'bad'").fetchone() or ()
    assert after == bad["after"]


def test_many_flagged_events_are_all_named(database: LogDatabase) -> None:
    rule(database, AGE, "flag")
    send(database, *(record(id=f"e{number:03}", after={}) for number in range(250)))
    told = own(database, "catalogue.violation")
    assert [item["count"] for item in told] == [100, 100, 50]
    assert [event["id"] for item in told for event in item["events"]] == [f"e{number:03}" for number in range(250)]


def test_what_was_stored_before_the_rule_is_a_duplicate_when_it_comes_again(database: LogDatabase) -> None:
    old = record(after={})
    assert send(database, old) == ["stored"]
    rule(database, AGE)
    assert send(database, old, record(after={})) == ["duplicate", "quarantined"]


def test_a_rule_is_of_one_tenant_category_and_action(database: LogDatabase) -> None:
    rule(database, {"not": {}})
    others = [record(tenant="globex"), native(category=None), record(action="other"), record(category="other")]
    assert send(database, record(), *others) == ["quarantined", *["stored"] * 4]
    rule(database, {"not": {}}, category=None)
    assert send(database, native(category=None), record(category="other")) == ["quarantined", "stored"]


def test_the_rule_sees_the_event_as_native_json(database: LogDatabase) -> None:
    schema = {
        "required": ["id", "time", "tenant", "source", "action", "outcome", "level", "actor", "metadata", "sequence"],
        "properties": {
            "time": {"type": "string", "format": "date-time"},
            "actor": {"properties": {"id": {"const": "dr-lee"}}},
            "metadata": {"properties": {"big": {"const": 2**64 - 1}, "half": {"const": 0.5}, "null": {"type": "null"}}},
            "before": False,
        },
        "additionalProperties": True,
    }
    rule(database, schema)
    good = record(sequence=3, metadata={"big": 2**64 - 1, "half": 0.5, "null": None})
    assert send(database, good, record(sequence=3, metadata={"big": 2**64 - 2})) == ["stored", "quarantined"]


def test_rules_are_believed_for_a_while_and_then_read_again(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.connect("ingest") as connection:
        store = Store(connection)
        bad = [accepted(record(after={})) for _ in range(3)]
        assert store.append(bad[:1], [])[0].status == "stored"
        rule(database, AGE)
        assert store.append(bad[1:2], [])[0].status == "stored"
        monkeypatch.setattr(rules, "BELIEVED", 0.0)
        assert store.append(bad[2:], [])[0].status == "quarantined"
        catalogue.remove_schema(database.admin, "acme", "records", "patient.read")
        assert store.append(bad[2:], [])[0].status == "stored"


def test_a_schema_that_is_removed_is_recorded_and_was_there(database: LogDatabase) -> None:
    rule(database, AGE)
    catalogue.remove_schema(database.admin, "acme", "records", "patient.read")
    assert [item["schema"] for item in own(database, "catalogue.schema")] == [AGE, None]
    with pytest.raises(UnknownSchema, match="expected an action with a schema"):
        catalogue.remove_schema(database.admin, "acme", "records", "patient.read")


def test_a_rule_that_cannot_be_used_stops_nothing(database: LogDatabase) -> None:
    rule(database, AGE)
    rule(database, AGE, category=None)
    database.admin.execute("UPDATE prooftrail.action_schema SET schema = '{\"type\": 1}' WHERE category = ''")
    assert send(database, record(after={}), native(category=None, after={})) == ["quarantined", "stored"]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "expected a JSON Schema"),
        ("[]", "that is an object"),
        ('{"type": "nonsense"}', "at /type: "),
        ('{"properties": {"after": {"minimum": "x"}}}', "at /properties/after/minimum: "),
        ('{"$ref": "https://example.org/schema.json"}', "https://example.org/schema.json"),
        ('{"$ref": "file:///etc/passwd"}', "file:///etc/passwd"),
        ('{"$ref": "#/$defs/none"}', "none"),
        ('{"pattern": "(?=a)a"}', "at /pattern: "),
        ('{"pattern": "("}', "at /pattern: "),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', f"expected \\$schema to be {DIALECT}"),
        ('{"a": 1, "a": 2}', "twice"),
        (json.dumps({"description": "x" * 70_000}), "at most 65536 bytes"),
    ],
)
def test_what_is_no_schema_for_events_is_refused_when_it_is_set(schema: str, why: str) -> None:
    with pytest.raises(InvalidSchema, match=why):
        catalogue.read_schema(schema.encode())


@pytest.mark.parametrize("schema", [{}, {"$schema": DIALECT}, {"$ref": "#"}, {"$ref": "#/$defs/a", "$defs": {"a": AGE}}])
def test_a_schema_may_refer_to_itself(schema: dict[str, Any]) -> None:
    assert catalogue.read_schema(json.dumps(schema).encode()) == schema


def test_a_pattern_that_would_take_for_ever_does_not() -> None:
    validator = rules.compiled('{"pattern": "^(a+)+$"}')
    began = time.monotonic()
    assert not validator.is_valid("a" * 100_000 + "b")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"nothing", "expected a JSON list, or one JSON object a line"),
        (b'[{"tenant": "acme"}]', "number 1: .*action"),
        (b'{"tenant": "acme", "action": "a"}\n{"tenant": "a b", "action": "a"}', "number 2: .*tenant"),
        (b'[{"tenant": "acme", "action": "a", "colour": 1}]', "number 1: .*colour"),
        (b'[{"tenant": "acme", "action": "a", "on_violation": "explode"}]', "number 1: .*on_violation"),
    ],
)
def test_what_cannot_be_seeded_is_named(content: bytes, why: str) -> None:
    with pytest.raises(InvalidSeed, match=why):
        catalogue.read_seeds(content)


def test_a_wrong_schema_in_a_seed_is_named() -> None:
    with pytest.raises(InvalidSchema, match="number 1, its schema: at /type"):
        catalogue.read_seeds(b'[{"tenant": "acme", "action": "a", "schema": {"type": 1}}]')


def test_the_documented_example_can_be_seeded(database: LogDatabase) -> None:
    example = (PROJECT / "docs" / "sources.md").read_text(encoding="utf-8").split("```json\n")[1].split("```")[0]
    assert catalogue.seed(database.admin, catalogue.read_seeds(example.encode())) == 2
    assert [item.on_violation for item in catalogue.actions(database.admin, "acme")] == [None, "flag"]


def test_where_no_tenant_has_a_rule_the_library_for_them_is_not_loaded(database: LogDatabase) -> None:
    program = (
        "import sys, psycopg; from prooftrail.store import Store; from tests.factories import accepted, native; "
        "connection = psycopg.connect(sys.argv[1], autocommit=True); Store(connection).append([accepted(native())], []); "
        "assert 'jsonschema_rs' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, database.url_of("ingest")], check=True, cwd=PROJECT)
    assert database.count("event") == 1


def test_the_api_tells_of_categories_and_their_actions(database: LogDatabase, asking: Asking) -> None:
    rule(database, AGE)
    send(database, record(after={"age": 1}), native(category="a/b", action="x"), native(), native(tenant="globex"))
    fold(database)
    status, answer = asking("/categories", tenant="acme")
    assert status == 200
    assert [(item["category"], item["actions"], item["events"]) for item in answer["categories"]] == [
        (None, 1, 1),
        ("a/b", 1, 1),
        ("records", 1, 1),
    ]
    assert [(log["tenant"], log["folded"]) for log in answer["logs"]] == [("acme", 5)]
    (read,) = asking("/categories/records/actions", tenant="acme")[1]["actions"]
    assert (read["action"], read["events"], read["on_violation"], read["schema"]) == ("patient.read", 1, "quarantine", None)
    (read,) = asking("/categories/records/actions", tenant="acme", action="patient.read")[1]["actions"]
    assert read["schema"] == AGE
    assert [item["action"] for item in asking("/categories/a%2Fb/actions")[1]["actions"]] == ["x"]
    assert [item["tenant"] for item in asking("/categories/actions")[1]["actions"]] == ["acme", "globex"]
    for name in ("none", "%00", "%ED%A0%80"):
        assert asking(f"/categories/{name}/actions")[0] == 404


def test_a_reader_s_catalogue_is_that_of_its_tenant(database: LogDatabase, asking: Asking) -> None:
    rule(database, AGE)
    send(database, native(tenant="globex", category="records"))
    fold(database)
    key = api_keys.create(database.admin, "globex")
    (category,) = asking("/categories", key)[1]["categories"]
    assert (category["tenant"], category["actions"]) == ("globex", 1)
    (action,) = asking("/categories/records/actions", key, action="patient.read")[1]["actions"]
    assert (action["tenant"], action["schema"]) == ("globex", None)
    assert asking("/categories", key, tenant="acme")[0] == 403


def test_categories_and_actions_come_page_by_page(database: LogDatabase, asking: Asking) -> None:
    names = [f"n{number}" for number in range(5)]
    send(
        database, *(native(category=name, action="x") for name in names), *(native(category="n0", action=n) for n in names)
    )
    fold(database)
    for path, kind, field, expected in (
        ("/categories", "categories", "category", names),
        ("/categories/n0/actions", "actions", "action", [*names, "x"]),
    ):
        found: list[str] = []
        answer = asking(path, limit=2)[1]
        while True:
            found += [item[field] for item in answer[kind]]
            if answer["next"] is None:
                break
            answer = asking(path, limit=2, cursor=answer["next"])[1]
        assert found == expected


def test_the_commands_seed_list_and_rule(database: LogDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)
    seeds, schema = tmp_path / "seeds.ndjson", tmp_path / "schema.json"
    seeds.write_text(
        '{"tenant": "acme", "category": "records", "action": "patient.read", "description": "Somebody looked"}\n'
        f'{{"tenant": "acme", "action": "login", "schema": {json.dumps(AGE)}, "on_violation": "flag"}}\n'
    )
    assert run("catalogue", "seed", str(seeds)) == "2 actions are new or were changed\n"
    assert [line.split("\t") for line in run("catalogue", "list").splitlines()] == [
        ["acme", "(none)", "login", "0 events", "never seen", "seeded", "schema: flag", ""],
        ["acme", "records", "patient.read", "0 events", "never seen", "seeded", "no schema", "Somebody looked"],
    ]
    schema.write_text(json.dumps(AGE))
    of = ["--tenant", "acme", "--category", "records", "--action", "patient.read"]
    assert run("catalogue", "schema", "set", str(schema), *of) == "in force within 60 seconds\n"
    assert run("catalogue", "schema", "set", str(schema), *of) == "it is in force already\n"
    assert json.loads(run("catalogue", "list", "--json").splitlines()[1])["schema"] == AGE
    assert send(database, record()) == ["stored"]
    assert send(database, record(after={})) == ["quarantined"]
    assert run("catalogue", "schema", "remove", *of) == "gone within 60 seconds\n"
    assert send(database, record(after={})) == ["stored"]


def test_commands_say_in_one_sentence_what_is_wrong(
    database: LogDatabase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)
    file = tmp_path / "file.json"
    file.write_text('{"type": 1}')
    of = ["--tenant", "acme", "--action", "a"]
    for arguments, why in (
        (["catalogue", "seed", str(file)], "number 1: "),
        (["catalogue", "schema", "set", str(file), *of], "at /type: "),
        (["catalogue", "schema", "remove", *of], "expected an action with a schema"),
        (["catalogue", "schema", "remove", "--tenant", "a b", "--action", "a"], "--tenant: expected"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        (line,) = result.stderr.splitlines()
        assert line.startswith("prooftrail: ")
        assert why in line


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout

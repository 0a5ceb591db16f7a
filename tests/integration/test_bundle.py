"""Evidence bundles: what one proves holds on a machine with nothing but Python, and nothing forged passes."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from typer.testing import CliRunner

from prooftrail import bundle, entries
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.bundle import BundleFailed, Sources
from prooftrail.bundle.erasures import ErasureRunning, Unexplained
from prooftrail.bundle.question import Question, UnknownFilter
from prooftrail.bundle.summary import Result
from prooftrail.cli import app
from prooftrail.entries import EntryChanged, EntryMissing
from prooftrail.event import OWN_TENANT
from prooftrail.ledger.merkle import leaf_hash
from prooftrail.ledger.note import COSIGNATURE, UntrustedNote
from prooftrail.proofs import NotCovered
from prooftrail.search import Owner
from tests.bundles import Unpacked, canonical, run_verifier
from tests.conftest import LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import BUCKET
from tests.publishing import ORIGIN, Publishing
from tests.trees import Signer, signed_note

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]
Bundling = Callable[..., Result]

NEW, OLD = datetime(2026, 10, 1, tzinfo=UTC), datetime(2020, 1, 15, tzinfo=UTC)
END = 2**63 - 1


@pytest.fixture
def bundling(database: LogDatabase, publishing: Publishing, tmp_path: Path) -> Bundling:
    """Make a bundle of the tenant acme at `file`, in the role that reads."""

    def call(
        file: Path = tmp_path / "bundle.zip",
        first: int = 0,
        end: int = END,
        since: datetime | None = None,
        until: datetime | None = None,
        **equal: str,
    ) -> Result:
        with database.connect("query") as connection:
            sources = Sources(connection, ArchiveBucket(BUCKET), publishing.evidence)
            return bundle.make(sources, Question("acme", equal, since, until, first, end), publishing.keys("acme"), file)

    return call


def at(seconds: int, base: datetime = NEW) -> str:
    return (base + timedelta(seconds=seconds)).isoformat()


def made_up(random: random.Random, number: int) -> dict[str, Any]:
    """An event of one of a few kinds, so that every filter has something to find and something to leave."""
    return native(
        id=f"{number}/ü ☃",
        time=(at(random.randrange(100), OLD) if number % 3 else at(random.randrange(100))),
        action=random.choice(["patient.read", "patient.update", "login"]),
        category=random.choice([None, "access", "admin"]),
        level=random.choice(["info", "warning"]),
        outcome=random.choice(["success", "failure"]),
        site=random.choice([None, "ward-3", "ward-4"]),
        source=random.choice(["clinic/records", "kiosk"]),
        actor=random.choice(
            [None, {"id": "dr-lee", "type": "user"}, {"id": 'dr "ü" \n☃', "name": "A"}, {"type": "system"}]
        ),
        target=random.choice(
            [None, {"type": "Patient", "id": "p-1"}, {"type": "Device", "id": "p-2"}, {"type": "Patient"}]
        ),
        message=random.choice([None, "seen </td><script>alert(1)</script>", "\u202etxet"]),
        metadata=random.choice([None, {"n": 1.5, "π": [None, 2**60]}]),
    )


def matches(event: dict[str, Any], equal: dict[str, str]) -> bool:
    """The oracle: a filter as the words of the API say it."""
    column = {
        "actor": (event.get("actor") or {}).get("id"),
        "target_id": (event.get("target") or {}).get("id"),
        "target_type": (event.get("target") or {}).get("type"),
    }
    return all(column.get(name, event.get(name)) == value for name, value in equal.items())


@pytest.fixture
def mixed(ingesting: Ingesting, archiving: Archiving, publishing: Publishing) -> list[dict[str, Any]]:
    """A log of 200 events of acme, two thirds of them archived, among those of another tenant and Prooftrail's own."""
    chance = random.Random(7)
    events = [made_up(chance, number) for number in range(200)]
    for start in range(0, 200, 40):
        ingesting(sqs(*events[start : start + 40], native(tenant="globex")))
        if start == 120:
            archiving()
    publishing("acme")
    return events


@pytest.fixture
def prepared(request: pytest.FixtureRequest, tmp_path: Path) -> Unpacked:
    """A bundle of dr-lee's logins, some of them archived, some erased; made once, for many to tamper with."""
    if "files" not in _PREPARED:
        ingesting, archiving, publishing, run, bundling = map(
            request.getfixturevalue, ("ingesting", "archiving", "publishing", "run", "bundling")
        )
        for batch in range(3):
            people = [{"id": name} for name in ("dr-lee", "dr-who", "dr-gone", "dr-lee")] + [None]
            ingesting(
                sqs(
                    *(
                        native(
                            id=f"{batch}/{n}", actor=actor, action="login", target=None, time=at(n, OLD if n == 0 else NEW)
                        )
                        for n, actor in enumerate(people)
                    ),
                    native(id=f"read {batch}"),
                )
            )
        archiving()
        assert run("erase", "--tenant", "acme", "--actor", "dr-gone", "--reason", "asked", "--yes").exit_code == 0
        publishing("acme")
        file = tmp_path / "prepared.zip"
        result = bundling(file, actor="dr-lee", action="login")
        assert (result.events, result.unknown) == (6, 3)
        _PREPARED["files"] = Unpacked.of(file)
    return _PREPARED["files"].copy()


_PREPARED: dict[str, Unpacked] = {}
LOG_KEY, WITNESS_KEY = str(Signer(f"{ORIGIN}/acme").key), str(Signer("witness.example", COSIGNATURE, seed=2).key)


@pytest.fixture
def run(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `prooftrail` as the administrator."""

    def call(*arguments: str) -> Any:
        monkeypatch.setenv("DATABASE_URL", database.url)
        return CliRunner().invoke(app, arguments)

    return call


def test_a_bundle_verifies_with_nothing_but_python(prepared: Unpacked, tmp_path: Path) -> None:
    folder, file = prepared.save(tmp_path / "unpacked"), prepared.zipped(tmp_path / "again.zip")
    for verified in (
        run_verifier(file),
        run_verifier(folder),
        run_verifier(folder, program=folder / "verify.py"),
        run_verifier(file, "--key", LOG_KEY, "--key", WITNESS_KEY),
    ):
        assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout
        assert verified.stdout.startswith("PROVED\n")
        assert "6 of 21 entries are such events" in verified.stdout
        assert "3 entries, on record: whether they matched can no longer be known" in verified.stdout
    assert "WARNING" not in verified.stdout
    assert "shown this same log" not in verified.stdout


def test_without_the_key_from_elsewhere_the_verifier_warns_and_shows_the_key(prepared: Unpacked, tmp_path: Path) -> None:
    verified = run_verifier(prepared.zipped(tmp_path / "bundle.zip"))
    assert "WARNING: the log's key came with the bundle" in verified.stdout
    assert LOG_KEY in verified.stdout
    assert "NOT PROVED: that others were shown this same log" in verified.stdout


PYTHONS = sorted(
    {
        str(path)
        for version in range(8, 16)
        for path in [*Path.home().glob(f".pyenv/versions/3.{version}.*/bin/python"), shutil.which(f"python3.{version}")]
        if path and "shims" not in str(path) and Path(path).resolve() != Path(sys.executable).resolve()
    }
)


@pytest.mark.skipif(not PYTHONS, reason="no other Python from 3.8 on: install one, by pyenv for example")
def test_a_bundle_verifies_with_every_python_there_is(prepared: Unpacked, tmp_path: Path) -> None:
    file = prepared.zipped(tmp_path / "bundle.zip")
    for python in PYTHONS:
        verified = run_verifier(file, python=python)
        assert (verified.returncode, verified.stderr) == (0, ""), (python, verified.stdout, verified.stderr)


def test_the_same_question_gives_the_same_bytes(mixed: list[dict[str, Any]], bundling: Bundling, tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        bundling(tmp_path / name, actor="dr-lee")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_whatever_is_asked_the_bundle_has_what_an_oracle_finds(
    mixed: list[dict[str, Any]], bundling: Bundling, tmp_path: Path
) -> None:
    chance = random.Random(11)
    events = {event["id"]: event for event in mixed}
    values = {
        "actor": ["dr-lee", 'dr "ü" \n☃', "nobody"], "action": ["patient.read", "login"], "target_id": ["p-1", "p-2"],
        "target_type": ["Patient", "Device"], "outcome": ["success", "failure"], "source": ["kiosk", "clinic/records"],
        "category": ["access"], "level": ["warning"], "site": ["ward-3"],
    }  # fmt: skip
    for round in range(40):
        equal = {name: chance.choice(values[name]) for name in chance.sample(sorted(values), chance.randrange(4))}
        first, end = sorted(chance.sample(range(201), 2)) if round % 2 else (0, END)
        since, until = [(None, None), (OLD + timedelta(seconds=20), NEW + timedelta(seconds=70))][chance.randrange(2)]
        file = tmp_path / f"{round}.zip"
        result = bundling(file, first, end, since, until, **equal)
        unpacked = Unpacked.of(file)
        headers = [record["event"] for record in unpacked.records("entries.jsonl")]
        assert [headers[record["index"] - first]["id"] for record in unpacked.records("events.jsonl")] == [
            header["id"]
            for header in headers
            if header["id"] in events
            and matches(events[header["id"]], equal)
            and (since is None or since <= datetime.fromisoformat(header["time"]))
            and (until is None or datetime.fromisoformat(header["time"]) < until)
        ], (equal, first, end)
        assert result.entries == len(headers) == min(end, 201) - first
        assert unpacked.reason(LOG_KEY, WITNESS_KEY) == ""


def test_everything_that_an_event_says_can_be_read_and_nothing_of_the_others(
    ingesting: Ingesting, publishing: Publishing, bundling: Bundling, tmp_path: Path
) -> None:
    ingesting(
        sqs(
            native(id="mine", message="mine alone", actor={"id": "a", "name": "Ada"}, metadata={"n": 1.50}),
            native(
                id="other", message="secret", actor={"id": "b", "name": "Bob B."}, target={"type": "Patient", "id": "p-2"}
            ),
            native(id="elsewhere", action="login", message="secret", actor={"id": "hidden", "name": "Cyd C."}),
        )
    )
    publishing("acme")
    bundling(actor="a", action="patient.read")
    unpacked = Unpacked.of(tmp_path / "bundle.zip")
    (event,) = unpacked.records("events.jsonl")
    private = json.loads(event["private"]["value"])
    assert (private["actor_name"], private["message"], private["metadata"]) == ("Ada", "mine alone", {"n": 1.5})
    (opening,) = unpacked.records("openings.jsonl")
    assert opening.keys() == {"actor", "index"}
    assert opening["actor"]["value"] == '"b"'
    everything = b"".join(unpacked.files.values()).decode()
    assert not [word for word in ("secret", "Bob B.", "Cyd C.", "hidden", "p-2") if word in everything]


def test_of_two_parts_that_differ_one_is_opened(
    ingesting: Ingesting, publishing: Publishing, bundling: Bundling, tmp_path: Path
) -> None:
    ingesting(sqs(native(actor={"id": "b"}, target={"id": "p-2"}), native(target={"id": "p-2"}), native(actor={"id": "b"})))
    publishing("acme")
    bundling(actor="dr-lee", target_id="p-1")
    openings = Unpacked.of(tmp_path / "bundle.zip").records("openings.jsonl")
    assert [sorted(opening) for opening in openings] == [["actor", "index"], ["index", "target"], ["actor", "index"]]


def test_that_nothing_matches_is_proved_too(mixed: list[dict[str, Any]], bundling: Bundling, tmp_path: Path) -> None:
    assert bundling(actor="nobody").events == 0
    verified = run_verifier(tmp_path / "bundle.zip", "--key", LOG_KEY)
    assert (verified.returncode, "0 of 201 entries" in verified.stdout) == (0, True), verified.stdout
    assert "None of 201 entries matches" in Unpacked.of(tmp_path / "bundle.zip").files["summary.html"].decode()


def test_prooftrail_s_own_events_are_there_for_who_asks_for_them(
    mixed: list[dict[str, Any]], bundling: Bundling, tmp_path: Path
) -> None:
    bundling(source="prooftrail", action="archive.month")
    (event,) = Unpacked.of(tmp_path / "bundle.zip").records("events.jsonl")
    assert "segments" in json.loads(event["private"]["value"])["metadata"]
    assert Unpacked.of(tmp_path / "bundle.zip").reason() == ""


def test_what_was_erased_after_the_range_is_explained_by_a_record_outside_of_it(
    *,
    ingesting: Ingesting, archiving: Archiving, publishing: Publishing, run: Callable[..., Any], bundling: Bundling,
    tmp_path: Path,
) -> None:  # fmt: skip
    ingesting(sqs(*(native(time=at(0, OLD), actor={"id": "gone" if number % 2 else "here"}) for number in range(6))))
    archiving()
    ingesting(sqs(*(native(actor={"id": "gone"}) for _ in range(3)), native(tenant="globex", actor={"id": "gone"})))
    assert run("erase", "--tenant", "acme", "--actor", "gone", "--reason", "asked", "--yes").exit_code == 0
    with pytest.raises(NotCovered):
        bundling(end=7, action="patient.read")
    publishing("acme")
    assert bundling(end=7, action="patient.read").events == 6
    unpacked = Unpacked.of(tmp_path / "bundle.zip")
    (record,) = unpacked.records("erasures.jsonl")
    assert f"proofs/{record['index']}.tlog-proof" in unpacked.files
    erased = [event for event in unpacked.records("events.jsonl") if event["actor"] == {"erased": record["index"]}]
    assert (len(erased), erased[0]["private"]) == (3, {"erased": record["index"]})
    assert "3 of these events have lost parts to an erasure" in run_verifier(tmp_path / "bundle.zip").stdout
    assert '<span class="soft">erased</span>' in unpacked.files["summary.html"].decode()
    result = bundling(actor="here")
    assert (result.events, result.unknown) == (3, 6)


@contextmanager
def tampered(database: LogDatabase, table: str, statement: str, *values: Any) -> Iterator[None]:
    """What somebody with all rights does to a table; afterwards it is as it was."""
    name, pristine = sql.Identifier("prooftrail", table), sql.Identifier("public", table)
    database.admin.execute("SET session_replication_role = replica")
    database.admin.execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(pristine, name))
    database.admin.execute(statement.encode(), values)
    try:
        yield
    finally:
        database.admin.execute(sql.SQL("DELETE FROM {}").format(name))
        database.admin.execute(sql.SQL("INSERT INTO {} TABLE {}").format(name, pristine))


@pytest.mark.parametrize(
    ("table", "statement", "error"),
    [
        ("event_2026_10", "UPDATE prooftrail.event SET message = 'else' WHERE id = '1'", EntryChanged),
        ("event_2026_10", "UPDATE prooftrail.event SET action = 'else' WHERE id = '1'", EntryChanged),
        ("event_2026_10", "UPDATE prooftrail.event SET metadata = '1e400' WHERE id = '1'", EntryChanged),
        ("event_2026_10", "UPDATE prooftrail.event SET salt = substr(salt, 2) || '\\x00' WHERE id = '1'", EntryChanged),
        ("event_2026_10", "UPDATE prooftrail.event SET salt = NULL WHERE id = '1'", EntryChanged),
        ("event_2026_10", "UPDATE prooftrail.event SET commitments = '\\x00' WHERE id = '1'", EntryChanged),
        ("event_2026_10", "UPDATE prooftrail.event SET tenant = 'globex' WHERE id = '1'", EntryMissing),
        ("event_2026_10", "UPDATE prooftrail.event SET position = position + 1 WHERE id = '2'", EntryMissing),
        ("event_2026_10", "DELETE FROM prooftrail.event WHERE id = '1'", EntryMissing),
        ("event_2026_10", "INSERT INTO prooftrail.event SELECT * FROM prooftrail.event WHERE id = '1'", EntryChanged),
        ("batch", "DELETE FROM prooftrail.batch", EntryMissing),
        ("batch", "UPDATE prooftrail.batch SET first_index = first_index + 1", EntryMissing),
        ("batch", "UPDATE prooftrail.batch SET leaf_hashes = decode(repeat('00', 96), 'hex')", EntryChanged),
    ],
)  # fmt: skip
def test_of_a_log_that_was_changed_there_is_no_bundle(
    *,
    database: LogDatabase,
    ingesting: Ingesting,
    publishing: Publishing,
    bundling: Bundling,
    tmp_path: Path,
    table: str,
    statement: str,
    error: type[Exception],
) -> None:
    ingesting(sqs(native(id="0"), native(id="1"), native(id="2")))
    publishing("acme")
    with tampered(database, table, statement), pytest.raises(error):
        bundling()
    assert list(tmp_path.iterdir()) == []


def test_while_something_is_being_erased_there_is_no_bundle(
    database: LogDatabase, ingesting: Ingesting, publishing: Publishing, bundling: Bundling
) -> None:
    ingesting(sqs(native(), native(tenant="globex")))
    publishing("acme")
    running = (
        "INSERT INTO prooftrail.erasure (tenant, part, subject_id, reason, state) VALUES (%s, 'actor', 'x', 'y', 'running')"
    )
    database.admin.execute(running, ["globex"])
    assert bundling().events == 1
    database.admin.execute(running, ["acme"])
    with pytest.raises(ErasureRunning):
        bundling()


def test_parts_that_are_gone_without_a_record_make_no_bundle(
    database: LogDatabase, ingesting: Ingesting, publishing: Publishing, bundling: Bundling, tmp_path: Path
) -> None:
    """Somebody erased by hand: what is left gives the leaf, but nothing in the log says that it was to go."""
    ingesting(sqs(native(id="1"), native()))
    publishing("acme")
    bundling(tmp_path / "before.zip")
    header = Unpacked.of(tmp_path / "before.zip").records("entries.jsonl")[0]
    kept = bytes.fromhex("".join(header["commitments"][part] for part in ("actor", "target", "private")))
    erase = "UPDATE prooftrail.event SET actor_id = NULL, salt = %s || substr(salt, 17), commitments = %s WHERE id = '1'"
    with tampered(database, "event_2026_10", erase, bytes(16), kept), pytest.raises(Unexplained, match="its actor is gone"):
        bundling()


def test_a_log_that_was_computed_anew_does_not_give_what_was_signed(
    database: LogDatabase, ingesting: Ingesting, publishing: Publishing, bundling: Bundling
) -> None:
    """A superuser changed an event, and made its leaf hash fit."""
    ingesting(sqs(native(id="1", message="true")))
    publishing("acme")
    with tampered(database, "event_2026_10", "UPDATE prooftrail.event SET message = 'false'"):
        owner = Owner("acme", "clinic/records", datetime(2026, 10, 1, 12, tzinfo=UTC))
        forged = leaf_hash(entries.find(database.admin, ArchiveBucket(BUCKET), owner, "1").header())
        rehash = "UPDATE prooftrail.batch SET leaf_hashes = %s WHERE tenant = 'acme'"
        with tampered(database, "batch", rehash, forged), pytest.raises(BundleFailed, match="not lead to the root"):
            bundling()


def test_before_the_first_checkpoint_and_with_other_keys_there_is_no_bundle(
    ingesting: Ingesting, publishing: Publishing, bundling: Bundling, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingesting(sqs(native()))
    with pytest.raises(NotCovered):
        bundling()
    publishing("acme")
    with pytest.raises(NotCovered):
        bundling(first=1)
    with pytest.raises(UnknownFilter):
        bundling(message="x")
    monkeypatch.setattr(publishing, "keys", lambda tenant: [Signer(f"{ORIGIN}/{tenant}", seed=9).key])
    with pytest.raises(UntrustedNote):
        bundling()


def test_any_byte_changed_in_any_file_is_noticed(prepared: Unpacked) -> None:
    for name, content in prepared.files.items():
        every = range(len(content)) if len(content) < 1000 else {0, 1, len(content) // 2, len(content) - 1}
        further = set() if len(content) < 1000 else set(random.Random(name).sample(range(len(content)), 60))
        for place in sorted({*every, *further}):
            forged = prepared.copy()
            forged.files[name] = content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]
            assert name in (reason := forged.reason()) or (reason and name == "manifest.json"), (name, place)


def test_a_changed_byte_ends_the_program_with_1_and_a_reason(prepared: Unpacked, tmp_path: Path) -> None:
    for name in sorted(prepared.files):
        forged = prepared.copy()
        forged.files[name] = forged.files[name][:-1] + b"\0"
        verified = run_verifier(forged.save(tmp_path / name.replace("/", "-")))
        assert (verified.returncode, verified.stderr) == (1, "")
        assert verified.stdout.startswith("NOT PROVED: "), verified.stdout
        assert name in verified.stdout or "manifest.json" in verified.stdout


def test_a_byte_changed_in_evidence_is_noticed_whatever_the_manifest_says(prepared: Unpacked) -> None:
    """The forger makes the manifest fit. What is only there to be read, and the program, cannot defend themselves; and a
    question may be changed into one that has the same answer.
    """
    proofs = [name for name in prepared.files if name.startswith("proofs/")]
    for name, content in prepared.files.items():
        if name in {*proofs[2:], "README.txt", "summary.html", "verify.py", "manifest.json", "filter.json"}:
            continue
        for place in random.Random(name).sample(range(len(content)), min(len(content), 70)):
            forged = prepared.copy()
            forged.files[name] = content[:place] + bytes([content[place] ^ 1 << place % 7]) + content[place + 1 :]
            assert forged.seal().reason(LOG_KEY), (name, place, content[place : place + 20])


def drop(name: str, index: int) -> Callable[[Unpacked], None]:
    def forge(files: Unpacked) -> None:
        files.write(name, *(record for record in files.records(name) if record["index"] != index))

    return forge


def left_out(files: Unpacked) -> None:
    drop("events.jsonl", 3)(files)
    del files.files["proofs/3.tlog-proof"]


def left_out_and_opened(files: Unpacked) -> None:
    """As if it were somebody else's: opened with what it says."""
    event = next(record for record in files.records("events.jsonl") if record["index"] == 3)
    left_out(files)
    opening = {"index": 3, "actor": event["actor"]}
    files.write("openings.jsonl", *sorted([*files.records("openings.jsonl"), opening], key=lambda record: record["index"]))


def left_out_and_falsely_opened(files: Unpacked) -> None:
    left_out_and_opened(files)
    openings = files.records("openings.jsonl")
    openings[[record["index"] for record in openings].index(3)]["actor"]["value"] = '"dr-who"'
    files.write("openings.jsonl", *openings)


def left_out_and_said_to_be_erased(files: Unpacked) -> None:
    left_out_and_opened(files)
    openings = files.records("openings.jsonl")
    (record,) = files.records("erasures.jsonl")
    openings[[record["index"] for record in openings].index(3)]["actor"] = {"erased": record["index"]}
    files.write("openings.jsonl", *openings)


def left_out_and_erased_by_another_entry(files: Unpacked) -> None:
    left_out_and_opened(files)
    openings, records = files.records("openings.jsonl"), files.records("erasures.jsonl")
    openings[[record["index"] for record in openings].index(3)]["actor"] = {"erased": 0}
    said = json.dumps({"metadata": {"parts": ["actor"], "entries": [[3, 3]]}})
    files.write("openings.jsonl", *openings)
    files.write("erasures.jsonl", {"index": 0, "private": {"salt": "00" * 16, "value": said}}, *records)


def widened_erasure(files: Unpacked) -> None:
    left_out_and_said_to_be_erased(files)
    (record,) = files.records("erasures.jsonl")
    said = json.loads(record["private"]["value"])
    said["metadata"]["entries"] = [[0, 100]]
    record["private"]["value"] = json.dumps(said)
    files.write("erasures.jsonl", record)


def foreign(files: Unpacked) -> None:
    """Somebody else's event, opened and with the proof of its own."""
    opening = files.records("openings.jsonl")[0]
    events = [*files.records("events.jsonl"), opening | {"private": {"salt": "00" * 16, "value": "{}"}}]
    drop("openings.jsonl", opening["index"])(files)
    files.write("events.jsonl", *sorted(events, key=lambda record: record["index"]))
    files.files[f"proofs/{opening['index']}.tlog-proof"] = files.files["proofs/0.tlog-proof"]


def foreign_public(files: Unpacked) -> None:
    """An event of another action: nothing of it is secret but its parts."""
    index = next(at for at, item in enumerate(files.records("entries.jsonl")) if item["event"]["action"] == "patient.read")
    events = files.records("events.jsonl")
    files.write("events.jsonl", *sorted([*events, events[0] | {"index": index}], key=lambda record: record["index"]))


def changed_value(files: Unpacked) -> None:
    events = files.records("events.jsonl")
    events[1]["private"]["value"] = events[1]["private"]["value"].replace("Lee", "Leo").replace("{}", '{"message":"x"}')
    files.write("events.jsonl", *events)


def without_private(files: Unpacked) -> None:
    events = files.records("events.jsonl")
    del events[1]["private"]
    files.write("events.jsonl", *events)


def dropped_entry(files: Unpacked) -> None:
    files.files["entries.jsonl"] = b"".join(files.lines("entries.jsonl")[:-1])


def added_entry(files: Unpacked) -> None:
    files.files["entries.jsonl"] += files.lines("entries.jsonl")[-1]


def swapped_entries(files: Unpacked) -> None:
    lines = files.lines("entries.jsonl")
    lines[5], lines[11] = lines[11], lines[5]
    files.files["entries.jsonl"] = b"".join(lines)


def changed_entry(files: Unpacked) -> None:
    files.files["entries.jsonl"] = files.files["entries.jsonl"].replace(b"patient.read", b"patient.rEAD", 1)


def entry_in_two_readings(files: Unpacked) -> None:
    files.files["entries.jsonl"] = files.files["entries.jsonl"].replace(b'"version":1}', b'"version":1,"version":1}', 1)


def another_question(**changes: Any) -> Callable[[Unpacked], None]:
    def forge(files: Unpacked) -> None:
        asked = json.loads(files.files["filter.json"])
        asked["equal"] |= changes.pop("equal", {})
        files.files["filter.json"] = canonical(asked | changes)

    return forge


def swapped_proofs(files: Unpacked) -> None:
    a, b = [name for name in files.files if name.startswith("proofs/")][:2]
    files.files[a], files.files[b] = files.files[b], files.files[a]


def proof_of_another_log(files: Unpacked) -> None:
    files.files["proofs/0.tlog-proof"] = (
        files.files["proofs/0.tlog-proof"].partition(b"\n\n")[0] + b"\n\n" + other_note(files, size=999)
    )


def shorter_proof(files: Unpacked) -> None:
    lines = files.lines("proofs/0.tlog-proof")
    files.files["proofs/0.tlog-proof"] = b"".join([*lines[:3], *lines[4:]])


def other_note(files: Unpacked, signer: Signer | None = None, size: int | None = None, name: str = "") -> bytes:
    origin, length, root = files.files["checkpoint"].decode().split("\n")[:3]
    text = f"{name or origin}\n{size or length}\n{root}\n"
    return signed_note(text, signer or Signer(f"{ORIGIN}/acme"), Signer("witness.example", COSIGNATURE, seed=2))


def with_checkpoint(**changes: Any) -> Callable[[Unpacked], None]:
    def forge(files: Unpacked) -> None:
        files.files["checkpoint"] = other_note(files, **changes)

    return forge


def forged_key(files: Unpacked) -> None:
    """All of it signed anew, with a key of the forger's own."""
    forger = Signer(f"{ORIGIN}/acme", seed=66)
    note = other_note(files, forger)
    for name, content in list(files.files.items()):
        if name.startswith("proofs/"):
            files.files[name] = content.partition(b"\n\n")[0] + b"\n\n" + note
    files.files |= {"checkpoint": note, "keys.txt": f"{forger.key}\n{WITNESS_KEY}\n".encode()}


def another_key_named(files: Unpacked) -> None:
    files.files["keys.txt"] += f"{Signer('other.example', COSIGNATURE, seed=5).key}\n".encode()


def stranger(files: Unpacked) -> None:
    files.files["proofs/7777.tlog-proof"] = b"x"


def without(name: str) -> Callable[[Unpacked], None]:
    def forge(files: Unpacked) -> None:
        del files.files[name]

    return forge


def twice(files: Unpacked) -> None:
    events = files.lines("events.jsonl")
    files.files["events.jsonl"] = b"".join([events[0], *events])


def out_of_order(files: Unpacked) -> None:
    files.files["openings.jsonl"] = b"".join(files.lines("openings.jsonl")[::-1])


def needless_opening(files: Unpacked) -> None:
    opening = files.records("openings.jsonl")[0]
    index = next(at for at, item in enumerate(files.records("entries.jsonl")) if item["event"]["action"] == "patient.read")
    openings = [*files.records("openings.jsonl"), opening | {"index": index}]
    files.write("openings.jsonl", *sorted(openings, key=lambda record: record["index"]))


FORGERIES: dict[Callable[[Unpacked], None], str] = {
    left_out: "events.jsonl: entry 3 is left out: nothing shows",
    left_out_and_opened: 'is left out: its actor is "dr-lee", as was asked',
    left_out_and_falsely_opened: "openings.jsonl: entry 3: its actor is not what the log committed to",
    left_out_and_said_to_be_erased: "entry 3: its actor was not erased by the entry that is named",
    left_out_and_erased_by_another_entry: "erasures.jsonl: entry 0 does not record that erasure",
    widened_erasure: "does not record that erasure",
    foreign: "not what the log committed to",
    foreign_public: "was not asked for: its action is 'patient.read'",
    changed_value: "its private is not what the log committed to",
    without_private: "expected its parts actor, private and no other",
    dropped_entry: "is missing",
    added_entry: "entries",
    swapped_entries: "do not give the root that was signed",
    changed_entry: "do not give the root that was signed",
    entry_in_two_readings: "sorted and without spaces",
    another_question(equal={"actor": "dr-who"}): 'was not asked for: its actor is "dr-lee"',
    another_question(equal={"action": "patient.read"}): "was not asked for: its action is 'login'",
    another_question(equal={"outcome": "failure"}): "was not asked for: its outcome is 'success'",
    another_question(equal={"colour": "red"}): "it asks for something that this program does not know",
    another_question(equal={"actor": 5}): "it asks for something that this program does not know",
    another_question(tenant="globex"): "is not one of the tenant globex",
    another_question(range={"first": 0, "end": 5}): "outside",
    another_question(range={"first": 0, "end": 500}): "expected a range of the log's",
    another_question(since="x"): "expected tenant, range, from, to, equal and not",
    another_question(to="2026-10-01T00:00:00.000000Z"): "its time is",
    swapped_proofs: "expected a proof of entry",
    proof_of_another_log: "it is a proof of another log",
    shorter_proof: "does not lead to the root that was signed",
    with_checkpoint(size=999): "it is a proof of another log",
    with_checkpoint(name=f"{ORIGIN}/globex"): "keys.txt: no key is that of the log log.example/globex",
    with_checkpoint(signer=Signer(f"{ORIGIN}/acme", seed=66)): "it is not signed with the key",
    forged_key: "it is not signed with the key",
    another_key_named: "it is not signed with the key other.example",
    stranger: "proofs/7777.tlog-proof: this file does not belong here",
    without("proofs/0.tlog-proof"): "proofs/0.tlog-proof: this file is missing",
    without("openings.jsonl"): "openings.jsonl: this file is missing",
    without("summary.html"): "summary.html: this file is missing",
    without("erasures.jsonl"): "erased on record",
    twice: "left out",
    out_of_order: "left out",
    needless_opening: "is opened without need",
}


def test_no_forgery_passes_and_each_is_named(prepared: Unpacked, subtests: pytest.Subtests) -> None:
    for number, (forge, reason) in enumerate(FORGERIES.items()):
        with subtests.test(f"{number}: {forge.__name__}"):
            forged = prepared.copy()
            forge(forged)
            assert reason in forged.seal().reason(LOG_KEY)


def test_keys_that_are_given_must_have_signed_and_one_must_be_the_log_s(prepared: Unpacked) -> None:
    other = Signer(f"{ORIGIN}/acme", seed=9)
    assert "it is not signed with the key" in prepared.reason(str(other.key))
    assert "expected NAME+ID+BASE64" in prepared.reason("log.example/acme+00000000+" + LOG_KEY.rpartition("+")[2])
    prepared.files["keys.txt"] = f"{WITNESS_KEY}\n".encode()
    assert "no key is that of the log" in prepared.seal().reason()
    assert prepared.reason(LOG_KEY) == ""


def test_what_the_verifier_prints_does_nothing_to_a_terminal(prepared: Unpacked, tmp_path: Path) -> None:
    prepared.files["\x1b[2J\nPROVED\u202e.txt"] = b""
    verified = run_verifier(prepared.zipped(tmp_path / "bundle.zip"))
    assert verified.stdout == "NOT PROVED: ?[2J?PROVED?.txt: this file does not belong here\n"


def test_two_files_of_one_name_are_refused(prepared: Unpacked, tmp_path: Path) -> None:
    file = prepared.zipped(tmp_path / "bundle.zip")
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as container:
        warnings.simplefilter("ignore")
        container.writestr("events.jsonl", b"")
    assert "several files of one name" in run_verifier(file).stdout


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_bundle_ends_with_a_reason(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bundle.zip"
    file.write_bytes(content)
    (tmp_path / "empty").mkdir()
    for path in (file, tmp_path / "empty", tmp_path / "nowhere"):
        verified = run_verifier(path)
        assert (verified.returncode, verified.stderr) == (1, "")
        assert verified.stdout.startswith("NOT PROVED: ")


def test_deep_json_ends_with_a_reason_too(prepared: Unpacked, tmp_path: Path) -> None:
    for name in ("filter.json", "manifest.json"):
        forged = prepared.copy()
        forged.files[name] = b"[" * 100_000
        verified = run_verifier((forged.seal() if name != "manifest.json" else forged).zipped(tmp_path / f"{name}.zip"))
        assert (verified.returncode, verified.stderr) == (1, ""), verified.stderr[-200:]


class Page(HTMLParser):
    """What a browser would make of the summary."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, set[str]] = {}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_summary_tells_everything_runs_nothing_and_asks_nobody(
    mixed: list[dict[str, Any]], bundling: Bundling, tmp_path: Path
) -> None:
    result = bundling(actor='dr "ü" \n☃', since=OLD)
    page = Page(Unpacked.of(tmp_path / "bundle.zip").files["summary.html"].decode())
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object", "form", "base", "a"})
    assert not [name for name in page.attributes if name.startswith("on") or name in {"src", "href", "style"}]
    assert page.attributes["content"] >= {"default-src 'none'; style-src 'unsafe-inline'"}
    assert "seen </td><script>alert(1)</script>" in page.text
    assert f"{result.events} of 201 entries match" in page.text
    for word in ("cannot prove", "python3 verify.py", LOG_KEY, "witness.example", 'dr "ü" \n☃', "2020-01-15 00:00:00 UTC"):
        assert word in page.text


def test_a_long_summary_lists_some_and_says_how_many_more(
    ingesting: Ingesting, publishing: Publishing, bundling: Bundling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("prooftrail.bundle.summary.LISTED", 3)
    ingesting(sqs(*(native() for _ in range(5))))
    publishing("acme")
    bundling()
    page = Unpacked.of(tmp_path / "bundle.zip").files["summary.html"].decode()
    assert (page.count('<td class="time">'), "And 2 more" in page) == (3, True)


def test_memory_does_not_grow_with_the_log(ingesting: Ingesting, publishing: Publishing, bundling: Bundling) -> None:
    peaks = []
    for batches in (3, 6):
        for _ in range(batches):
            ingesting(sqs(*(native(actor={"id": "other"}, message="x" * 500) for _ in range(1000))))
        publishing("acme")
        tracemalloc.start()
        bundling(actor="dr-lee")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1_000_000


@pytest.fixture
def command(publishing: Publishing, run: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command about acme, with the log's and the witness's key."""
    keys = [option for key in publishing.keys("acme") for option in ("--key", str(key))]

    def call(name: str, *arguments: str) -> Any:
        return run(name, *arguments, *keys)

    return call


def test_the_command_writes_a_bundle_and_the_log_says_so(
    mixed: list[dict[str, Any]], command: Callable[..., Any], asking: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "evidence.zip"
    asked = ["--filter", "actor=dr-lee", "--filter", "action=login", "--from", "2020-01-01T00:00:00Z", "--range", "10:"]
    told = command("bundle", "--tenant", "acme", *asked, "-o", str(file))
    assert told.exit_code == 0, told.stderr
    assert "of 191 entries match" in told.stdout
    assert Unpacked.of(file).reason(LOG_KEY) == ""
    (made,) = asking("/events", tenant="acme", source="prooftrail", action="bundle.make")[1]["events"]
    assert made["metadata"]["asked"]["equal"] == {"actor": "dr-lee", "action": "login"}


def test_the_log_of_what_concerns_no_tenant_has_bundles_and_proofs_too(
    ingesting: Ingesting, publishing: Publishing, run: Callable[..., Any], tmp_path: Path
) -> None:
    ingesting(sqs("no event"))
    publishing(OWN_TENANT)
    keys = [option for key in publishing.keys(OWN_TENANT) for option in ("--key", str(key))]
    told = run("bundle", "--tenant", OWN_TENANT, "-o", str(tmp_path / "own.zip"), *keys)
    assert told.exit_code == 0, told.stderr
    unpacked = Unpacked.of(tmp_path / "own.zip")
    put = [json.loads(event["private"]["value"])["metadata"].get("reason") for event in unpacked.records("events.jsonl")]
    assert "invalid-json" in put
    assert unpacked.reason(keys[1]) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--filter", "actor"], "--filter: expected NAME=VALUE"),
        (["--filter", "actor=a", "--filter", "actor=b"], "--filter: expected each name once"),
        (["--filter", "name=a"], "expected a filter of action, actor, category"),
        (["--from", "yesterday"], "--from: expected a time with its zone"),
        (["--to", "2026-10-01T00:00:00"], "--to: expected a time with its zone"),
        (["--range", "5"], "--range: expected FIRST:END"),
        (["--range", "-1:5"], "--range: expected FIRST:END"),
        (["--range", "5:5"], "--range: expected a first entry before the end"),
        (["--range", "9000:"], "no checkpoint of acme covers entry 9000 yet"),
        (["--tenant", "a b"], "--tenant: expected"),
        (["--tenant", "nobody"], "no checkpoint of nobody covers entry 0 yet"),
        (["--key", "x"], "--key: expected"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_in_one_sentence(
    *,
    ingesting: Ingesting,
    publishing: Publishing,
    command: Callable[..., Any],
    tmp_path: Path,
    options: list[str],
    said: str,
) -> None:
    ingesting(sqs(native()))
    publishing("acme")
    told = command("bundle", "--tenant", "acme", "-o", str(tmp_path / "x.zip"), *options)
    assert (told.exit_code, told.stdout) == (1, "")
    assert said in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_proof_is_written_checked_and_refused_when_it_was_changed(
    mixed: list[dict[str, Any]], command: Callable[..., Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "event.tlog-proof"
    for event in mixed[:3]:
        assert run("proof", event["id"], "--tenant", "acme", "--out", str(file)).exit_code == 0
        told = command("proof-check", str(file))
        assert told.exit_code == 0, told.stderr
        assert f'"id":"{event["id"]}"' in told.stdout
    assert run("proof", mixed[0]["id"]).stdout_bytes.startswith(b"c2sp.org/tlog-proof@v1\n")
    content = file.read_bytes()
    for place in random.Random(3).sample(range(len(content)), 60):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert command("proof-check", str(file)).exit_code == 1, place
    file.write_bytes(content)
    assert "nothing is proved" in run("proof-check", str(file), "--key", WITNESS_KEY).stderr
    assert "no event has the id" in run("proof", "unknown").stderr

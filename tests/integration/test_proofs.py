"""Proofs through the API: checked as an outsider would, with nothing but the log's key."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from typer.testing import CliRunner

from prooftrail import api_keys, proofs
from prooftrail.archive_bucket import ArchiveBucket, Version
from prooftrail.cli import app
from prooftrail.ledger import tiles
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.merkle import InvalidProof, leaf_hash, verify_consistency, verify_inclusion
from prooftrail.ledger.note import open_note
from prooftrail.ledger.tiles import Tile
from prooftrail.ledger.tlog_proof import TlogProof
from tests.conftest import LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import denied
from tests.publishing import Publishing
from tests.trees import Signer, Tree

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]
Asking = Callable[..., tuple[int, Any]]
Requesting = Callable[..., dict[str, Any]]

TEXT = "text/plain; charset=utf-8"


def path_of(id: str) -> str:
    return f"/events/{quote(id, safe='')}/proof"


def content_type(answer: dict[str, Any]) -> str:
    return str(answer["multiValueHeaders"]["Content-Type"][0])


def checked(answer: dict[str, Any], publishing: Publishing, tenant: str = "acme") -> dict[str, Any]:
    """The public part of the event that a proof proves; fails where it proves nothing."""
    assert (answer["statusCode"], content_type(answer)) == (200, TEXT), answer["body"]
    proof = TlogProof.parse(answer["body"].encode())
    opened = open_note(proof.checkpoint_note, [publishing.signer(tenant).key])
    checkpoint = Checkpoint.parse(opened.text)
    assert proof.extra is not None
    verify_inclusion(leaf_hash(proof.extra), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
    event: dict[str, Any] = json.loads(proof.extra)["event"]
    return event


def test_every_event_has_a_proof_that_the_log_s_key_alone_confirms(
    ingesting: Ingesting, requesting: Requesting, publishing: Publishing
) -> None:
    sent = [native(time=f"2026-{month:02}-01T00:00:00Z") for month in (8, 9, 10)]
    for start in range(3):
        ingesting(sqs(*sent[start:], native(tenant="globex")))
    publishing("acme")
    for event in sent:
        proved = checked(requesting(path_of(event["id"]), tenant="acme"), publishing)
        assert (proved["id"], proved["action"]) == (event["id"], event["action"])
        assert "dr-lee" not in str(proved)


def test_a_proof_leads_to_the_latest_checkpoint(
    ingesting: Ingesting, requesting: Requesting, publishing: Publishing
) -> None:
    event = native()
    for batch in ([event], [native() for _ in range(300)]):
        ingesting(sqs(*batch))
        size = publishing("acme").size
        proof = TlogProof.parse(requesting(path_of(event["id"]))["body"].encode())
        assert Checkpoint.parse(open_note(proof.checkpoint_note, publishing.keys("acme")).text).size == size


def test_a_proof_leads_to_an_older_checkpoint_for_who_asks(
    ingesting: Ingesting, requesting: Requesting, asking: Asking, publishing: Publishing
) -> None:
    first, second = native(), native()
    for event in (first, second, native()):
        ingesting(sqs(event))
        publishing("acme")
    for size in (1, 2, 3):
        proof = TlogProof.parse(requesting(path_of(first["id"]), size=size)["body"].encode())
        assert Checkpoint.parse(open_note(proof.checkpoint_note, publishing.keys("acme")).text).size == size
        assert proofs.check(proof.encode(), publishing.keys("acme")).entry.index == 0
    assert asking(path_of(first["id"]), size=9)[0] == 404
    assert asking(path_of(first["id"]), size=0)[0] == 400
    assert asking(path_of(second["id"]), size=1)[0] == 409


def test_an_event_that_no_checkpoint_covers_yet_says_when_to_come_again(
    ingesting: Ingesting, requesting: Requesting, publishing: Publishing
) -> None:
    first, second = native(), native()
    ingesting(sqs(first))
    assert requesting(path_of(first["id"]))["statusCode"] == 409
    publishing("acme")
    ingesting(sqs(second))
    answer = requesting(path_of(second["id"]))
    assert (answer["statusCode"], answer["multiValueHeaders"]["Retry-After"]) == (409, ["60"])
    assert "no checkpoint of acme covers entry" in json.loads(answer["body"])["detail"]
    publishing("acme")
    assert checked(requesting(path_of(second["id"])), publishing)["id"] == second["id"]


@pytest.mark.parametrize("id", ["a/b", "a/proof", "proof", "/proof", "ü ☃/%2F?&#", "x" * 256])
def test_ids_of_all_sorts_have_proofs(
    ingesting: Ingesting, requesting: Requesting, asking: Asking, publishing: Publishing, id: str
) -> None:
    ingesting(sqs(native(id=id)))
    publishing("acme")
    assert checked(requesting(path_of(id)), publishing)["id"] == id
    assert asking(f"/events/{quote(id, safe='')}")[1]["id"] == id


def test_an_archived_event_has_a_proof_read_from_its_row_group_alone(
    ingesting: Ingesting, requesting: Requesting, archiving: Archiving, publishing: Publishing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("prooftrail.parquet.ROW_GROUP", 10)
    sent = [native(time=f"2020-01-{1 + number % 28:02}T00:00:00Z", message=os.urandom(5000).hex()) for number in range(60)]
    for start in range(0, 60, 20):
        ingesting(sqs(*sent[start : start + 20], native(time="2020-02-01T00:00:00Z"), native()))
    archiving()
    publishing("acme")
    fetched: list[int] = []
    read = ArchiveBucket.read

    def counting(bucket: ArchiveBucket, key: str, version: Version, begin: int, end: int) -> bytes:
        assert version.size > 300_000
        fetched.append(end - begin)
        return read(bucket, key, version, begin, end)

    monkeypatch.setattr(ArchiveBucket, "read", counting)
    for event in sent[::7]:
        assert checked(requesting(path_of(event["id"]), tenant="acme"), publishing)["id"] == event["id"]
        assert sum(fetched) < 180_000
        fetched.clear()


def test_while_an_archived_object_cannot_be_read_its_events_proofs_are_to_be_asked_for_again(
    ingesting: Ingesting, requesting: Requesting, archiving: Archiving, publishing: Publishing, bucket: str
) -> None:
    event = native(time="2020-01-01T00:00:00Z")
    ingesting(sqs(event))
    archiving()
    publishing("acme")
    with denied(bucket):
        answer = requesting(path_of(event["id"]))
    assert (answer["statusCode"], answer["multiValueHeaders"]["Retry-After"]) == (503, ["10"])
    assert checked(requesting(path_of(event["id"])), publishing)["id"] == event["id"]


def test_an_erased_event_has_a_proof_hot_and_archived_and_older_ones_stay_good(
    *,
    database: LogDatabase,
    ingesting: Ingesting,
    archiving: Archiving,
    requesting: Requesting,
    publishing: Publishing,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ingesting(sqs(native(id="hot"), native(id="cold", time="2020-01-01T00:00:00Z"), native(id="other", actor={"id": "x"})))
    archiving()
    publishing("acme")
    before = [requesting(path_of(id))["body"] for id in ("hot", "cold")]
    monkeypatch.setenv("DATABASE_URL", database.url)
    erase = ["erase", "--tenant", "acme", "--actor", "dr-lee", "--reason", "asked", "--yes", "--no-rewrite"]
    assert CliRunner().invoke(app, erase).exit_code == 0
    publishing("acme")
    for id, older in zip(("hot", "cold"), before, strict=True):
        assert checked(requesting(path_of(id)), publishing)["id"] == id
        assert proofs.check(older.encode(), publishing.keys("acme")).entry.header


def test_an_unknown_event_and_one_of_several_sources(
    ingesting: Ingesting, asking: Asking, requesting: Requesting, publishing: Publishing
) -> None:
    ingesting(sqs(native(id="1", source="a"), native(id="1", source="b")))
    publishing("acme")
    assert asking("/events/2/proof")[0] == 404
    status, problem = asking("/events/1/proof")
    assert (status, {choice["source"] for choice in problem["choices"]}) == (409, {"a", "b"})
    assert checked(requesting("/events/1/proof", source="b"), publishing)["source"] == "b"


def test_a_stored_event_that_was_changed_gets_no_proof(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, publishing: Publishing
) -> None:
    ingesting(sqs(native(id="1", message="true")))
    publishing("acme")
    database.admin.execute("SET session_replication_role = replica")  # no triggers: as an attacker would
    database.admin.execute("UPDATE prooftrail.event SET message = 'false' WHERE id = '1'")
    status, problem = asking("/events/1/proof")
    database.admin.execute("UPDATE prooftrail.event SET message = 'true' WHERE id = '1'")
    assert status == 500
    assert "is not what its log committed to" in problem["detail"]


def test_reading_a_proof_is_on_record_in_the_log(
    ingesting: Ingesting, asking: Asking, requesting: Requesting, publishing: Publishing
) -> None:
    ingesting(sqs(native(id="1")))
    publishing("acme")
    requesting("/events/1/proof")
    (read,) = asking("/events", source="prooftrail", action="proof.read", tenant="acme")[1]["events"]
    assert (read["target"]["id"], read["metadata"]["path"]) == ("1", "/events/1/proof")


def test_the_latest_checkpoint_is_answered_as_it_was_signed(
    ingesting: Ingesting, requesting: Requesting, asking: Asking, publishing: Publishing
) -> None:
    ingesting(sqs(native()))
    assert asking("/log/checkpoint", tenant="acme")[0] == 404
    for _ in range(2):
        ingesting(sqs(native()))
        published = publishing("acme")
        answer = requesting("/log/checkpoint", tenant="acme")
        assert (answer["statusCode"], content_type(answer)) == (200, TEXT)
        opened = open_note(answer["body"].encode(), publishing.keys("acme"))
        assert [key for key, _ in opened.verified] == publishing.keys("acme")
        assert Checkpoint.parse(opened.text) == published


def test_every_tile_is_served_and_the_tree_follows_from_them(
    ingesting: Ingesting, requesting: Requesting, publishing: Publishing
) -> None:
    ingesting(sqs(*(native() for _ in range(300))))
    size = publishing("acme").size
    tree = Tree(publishing.leaves("acme"))
    for tile in tiles.tiles_between(0, size):
        answer = requesting(f"/log/{tile.path}", tenant="acme")
        assert (answer["statusCode"], content_type(answer)) == (200, "application/octet-stream")
        assert base64.b64decode(answer["body"]) == tree.tile(tile)
        assert answer["isBase64Encoded"] is True
        assert "immutable" in answer["multiValueHeaders"]["Cache-Control"][0]


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/001", "tile/0/000.p/2", "tile/1/000", "tile/0/0", "tile/0/000/", "tile/00/000", "tile/0/000.p/256",
        "tile/0/000.p/0", "tile/64/000", "tile/entries/000", "tile/0/../../checkpoint", "tile/0/x000/000", "tile/-1/000",
        "tile/0/%30%30%30",
    ],
)  # fmt: skip
def test_what_is_no_tile_of_the_log_is_not_found(
    ingesting: Ingesting, asking: Asking, publishing: Publishing, path: str
) -> None:
    ingesting(sqs(native()))
    publishing("acme")
    assert asking(f"/log/{Tile(0, 0, 1).path}x", tenant="acme")[0] == 404
    assert asking(f"/log/{path}", tenant="acme")[0] == 404


def test_every_checkpoint_is_proved_to_continue_every_older_one(
    ingesting: Ingesting, asking: Asking, publishing: Publishing
) -> None:
    checkpoints = []
    for count in (1, 2, 4, 1, 70, 190, 300):
        ingesting(sqs(*(native() for _ in range(count))))
        checkpoints.append(publishing("acme"))
    for old, new in itertools.combinations_with_replacement(checkpoints, 2):
        status, proof = asking("/log/consistency", tenant="acme", from_=old.size, to=new.size)
        assert status == 200, proof
        hashes = [base64.b64decode(item) for item in proof["hashes"]]
        verify_consistency(old.size, old.root, new.size, new.root, hashes)
        assert base64.b64decode(proof["from"]["root"]) == old.root
        assert base64.b64decode(proof["to"]["root"]) == new.root
        if old != new:
            with pytest.raises(InvalidProof):
                verify_consistency(old.size, old.root[::-1], new.size, new.root, hashes)
    status, proof = asking("/log/consistency", tenant="acme", from_=checkpoints[0].size)
    assert (status, proof["to"]["size"]) == (200, checkpoints[-1].size)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({}, 400),
        ({"from_": 0}, 400),
        ({"from_": -1}, 400),
        ({"from_": "x"}, 400),
        ({"from_": 3, "to": 1}, 400),
        ({"from_": 2}, 404),
        ({"from_": 1, "to": 9}, 404),
        ({"from_": 2**63}, 400),
        ({"from_": 1, "size": 1}, 400),
    ],
)
def test_sizes_that_are_no_checkpoints_are_refused(
    ingesting: Ingesting, asking: Asking, publishing: Publishing, asked: dict[str, Any], status: int
) -> None:
    for batch in ([native()], [native(), native()]):
        ingesting(sqs(*batch))
        publishing("acme")
    assert asking("/log/consistency", tenant="acme", **asked)[0] == status


def test_an_operator_has_to_say_whose_log(asking: Asking) -> None:
    for path in ("/log/checkpoint", "/log/tile/0/000", "/log/consistency"):
        status, problem = asking(path, **({"from_": 1} if path.endswith("consistency") else {}))
        assert (status, problem["errors"][0]["field"]) == (400, "tenant")


def test_a_tenant_s_key_gets_proofs_of_its_own_log_only(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, requesting: Requesting, publishing: Publishing
) -> None:
    ingesting(sqs(native(id="a"), native(id="g", tenant="globex")))
    acme, globex = publishing("acme"), publishing("globex")
    key = api_keys.create(database.admin, "acme")
    for path in ("/log/checkpoint", "/log/tile/0/000.p/1", "/log/consistency"):
        sizes = {"from_": globex.size} if path.endswith("consistency") else {}
        assert asking(path, key=key, tenant="globex", **sizes)[0] == 403
        assert asking(path, key=None, **sizes)[0] == 401
    assert asking("/events/g/proof", key=key)[0] == 404
    note = requesting("/log/checkpoint", key=key)["body"].encode()
    assert Checkpoint.parse(open_note(note, publishing.keys("acme")).text) == acme


def test_without_the_evidence_bucket_the_answer_is_503(
    ingesting: Ingesting, asking: Asking, publishing: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingesting(sqs(native(id="1"), native()))
    publishing("acme")
    monkeypatch.setenv("PROOFTRAIL_EVIDENCE_BUCKET", "not-there")
    assert asking("/events/1/proof")[0] == 503


def test_another_log_s_signature_is_not_taken_for_this_one_s(
    ingesting: Ingesting, requesting: Requesting, publishing: Publishing
) -> None:
    """So the tests above do test something."""
    ingesting(sqs(native(id="1")))
    publishing("acme")
    publishing.signer = lambda tenant: Signer(f"log.example/{tenant}", seed=9)  # type: ignore[method-assign]
    with pytest.raises(Exception, match="expected a signature by a known key"):
        checked(requesting("/events/1/proof"), publishing)

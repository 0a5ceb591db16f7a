"""The evidence bucket: written once, found again, read back as nodes; on moto's S3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import boto3
import moto
import pytest
from botocore.config import Config

from prooftrail import evidence as evidence_module
from prooftrail.aws import AwsUnavailable
from prooftrail.evidence import Evidence, EvidenceConflict, EvidenceMissing
from prooftrail.ledger import merkle, tiles
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import Note, SignatureLine
from prooftrail.ledger.tiles import Tile

BUCKET = "evidence"


@pytest.fixture
def s3() -> Iterator[object]:
    with moto.mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        yield client


@pytest.fixture
def evidence(s3: object) -> Evidence:
    return Evidence(BUCKET)


def leaf(index: int) -> bytes:
    return hashlib.sha256(str(index).encode()).digest()


def subtree(level: int, index: int) -> bytes:
    return merkle.root_of(leaf(n) for n in range(index << level, (index + 1) << level))


def write_tiles(evidence: Evidence, old: int, new: int) -> None:
    for tile in tiles.tiles_between(old, new):
        hashes = [subtree(tile.level * tiles.HEIGHT, tile.number * tiles.WIDTH + place) for place in range(tile.width)]
        evidence.put_tile("acme", tile, b"".join(hashes))


def signed(size: int, root: bytes = bytes(32), signature: bytes = b"x") -> bytes:
    return Note(Checkpoint("o", size, root).encode(), [SignatureLine("o", b"abcd", signature)]).encode()


def test_the_latest_checkpoint_is_the_largest_wherever_one_begins_to_look(evidence: Evidence) -> None:
    assert evidence.latest("acme") is None
    assert evidence.latest("acme", after=7) is None
    for size in (9, 10, 2, 1000):
        evidence.put_checkpoint("acme", size, signed(size))
    evidence.put_checkpoint("acme-2", 5000, signed(5000))
    for after in (0, 1, 9, 10, 11, 999, 1000, 1001, 10**15):
        assert evidence.latest("acme", after) == signed(1000)
    assert list(evidence.sizes("acme")) == [2, 9, 10, 1000]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("spread", [1, 1000, 10**12])
def test_many_checkpoints_are_found_without_reading_them_all(
    s3: object, monkeypatch: pytest.MonkeyPatch, count: int, spread: int
) -> None:
    """With pages of two keys, as S3's of a thousand would be for five hundred times as many."""
    client = boto3.client("s3")
    asked = []
    whole = client.list_objects_v2

    def small_pages(**parameters: object) -> object:
        asked.append(parameters)
        return whole(**parameters, MaxKeys=2)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "list_objects_v2", small_pages)
    evidence = Evidence(BUCKET, client)
    sizes = [1 + n * spread for n in range(count)]
    for size in sizes:
        evidence.put_checkpoint("acme", size, signed(size))
    assert evidence.latest("acme") == signed(sizes[-1])
    assert len(asked) <= 2 + 2 * sizes[-1].bit_length()
    assert list(evidence.sizes("acme")) == sizes


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_every_log_in_the_bucket_is_named_once(s3: object, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    client = boto3.client("s3")
    whole = client.list_objects_v2
    monkeypatch.setattr(client, "list_objects_v2", lambda **parameters: whole(**parameters, MaxKeys=2))
    evidence = Evidence(BUCKET, client)
    for number in range(count):
        for size in (1, 2, 300):
            evidence.put_checkpoint(f"t{number}", size, signed(size))
    assert list(evidence.tenants()) == [f"t{number}" for number in range(count)]


def test_a_checkpoint_says_one_thing_for_ever(evidence: Evidence) -> None:
    assert evidence.put_checkpoint("acme", 5, signed(5)) == signed(5)
    # The same again, and the same with another cosignature, find what is there.
    assert evidence.put_checkpoint("acme", 5, signed(5)) == signed(5)
    assert evidence.put_checkpoint("acme", 5, signed(5, signature=b"later")) == signed(5)
    with pytest.raises(EvidenceConflict, match="acme/checkpoint/00000000000000000005"):
        evidence.put_checkpoint("acme", 5, signed(5, root=b"\1" * 32))
    assert evidence.checkpoint("acme", 5) == signed(5)


def test_a_checkpoint_under_another_s_size_is_none(s3: object, evidence: Evidence) -> None:
    boto3.client("s3").put_object(Bucket=BUCKET, Key=f"acme/checkpoint/{9:020d}", Body=signed(5))
    with pytest.raises(EvidenceConflict, match="size 9"):
        evidence.latest("acme")


def test_objects_are_what_tlog_tiles_says_with_a_checksum_and_the_bucket_s_lock(evidence: Evidence) -> None:
    client = boto3.client("s3")
    client.put_object_lock_configuration(
        Bucket=BUCKET,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}},
        },
    )
    evidence.put_checkpoint("acme", 300, signed(300))
    write_tiles(evidence, 0, 300)
    listed = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert listed == [
        "acme/checkpoint/00000000000000000300", "acme/tile/0/000", "acme/tile/0/001.p/44", "acme/tile/1/000.p/1",
    ]  # fmt: skip
    for key, kind in ((listed[0], "text/plain; charset=utf-8"), (listed[1], "application/octet-stream")):
        found = client.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
        assert (found["ContentType"], found["ObjectLockMode"]) == (kind, "COMPLIANCE")
        assert found["ChecksumSHA256"]


def test_a_tile_of_another_history_is_refused_and_the_first_one_stays(evidence: Evidence) -> None:
    tile = Tile(0, 0, 2)
    evidence.put_tile("acme", tile, leaf(0) + leaf(1))
    evidence.put_tile("acme", tile, leaf(0) + leaf(1))
    with pytest.raises(EvidenceConflict, match=r"acme/tile/0/000\.p/2"):
        evidence.put_tile("acme", tile, leaf(0) + leaf(2))
    assert evidence.tile("acme", tile) == leaf(0) + leaf(1)


def test_a_tile_that_is_missing_or_of_the_wrong_length_is_no_tile(evidence: Evidence) -> None:
    with pytest.raises(EvidenceMissing, match="acme/tile/0/003"):
        evidence.tile("acme", Tile(0, 3, tiles.WIDTH))
    evidence.put_tile("acme", Tile(0, 3, 2), leaf(0))
    with pytest.raises(EvidenceConflict, match="2 hashes"):
        evidence.tile("acme", Tile(0, 3, 2))


@pytest.mark.parametrize("sizes", [(1,), (255, 256, 257), (100, 300, 700), (70_000,)])
def test_nodes_are_read_from_tiles_at_every_size_up_to_the_last_checkpoint(
    evidence: Evidence, sizes: tuple[int, ...]
) -> None:
    old = 0
    for size in sizes:
        write_tiles(evidence, old, size)
        old = size
    for size in {1, 2, 99, 150, 256, 299, *sizes}:
        if size > sizes[-1]:
            continue
        node = evidence.node_reader("acme", size)
        proof = merkle.inclusion_proof(size // 2, size, node)
        root = merkle.root_of(map(leaf, range(size)))
        merkle.verify_inclusion(leaf(size // 2), size // 2, size, proof, root)
    with pytest.raises(EvidenceMissing, match="at least as wide"):
        evidence.node_reader("acme", sizes[-1] + 300)(0, sizes[-1] + 280)


def test_full_tiles_are_fetched_once(s3: object, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("s3")
    evidence = Evidence(BUCKET, client)
    write_tiles(evidence, 0, 600)
    fetched = []
    get = client.get_object

    def counted(**parameters: str) -> object:
        fetched.append(parameters["Key"])
        return get(**parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(client, "get_object", counted)
    for _ in range(2):
        node = evidence.node_reader("acme", 600)
        for index in range(600):
            assert node(0, index) == leaf(index)
    assert sorted(fetched) == ["acme/tile/0/000", "acme/tile/0/001", *["acme/tile/0/002.p/88"] * 2]


def test_a_bucket_that_does_not_answer_or_is_not_there_is_a_fault_that_may_pass() -> None:
    silent = boto3.client(
        "s3",
        endpoint_url="http://127.0.0.1:9",
        config=Config(connect_timeout=1, retries={"total_max_attempts": 1}),
    )
    with pytest.raises(AwsUnavailable, match="acme"):
        Evidence(BUCKET, silent).latest("acme")
    with moto.mock_aws(), pytest.raises(AwsUnavailable, match="NoSuchBucket"):
        Evidence("nowhere").latest("acme")


def test_the_module_is_cheap_to_load() -> None:
    assert not {"boto3", "botocore"} & set(vars(evidence_module))

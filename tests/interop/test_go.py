"""What we publish is accepted by two implementations that are not ours, and refused by them once it was tampered with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from prooftrail.ledger import canonical, entry, merkle
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.lines import encode_base64
from prooftrail.ledger.note import COSIGNATURE, Note
from prooftrail.ledger.tiles import tiles_between
from prooftrail.ledger.tlog_proof import TlogProof
from tests.interop.conftest import Refused, Verifier
from tests.trees import Signer, Tree, signed_note

ORIGIN = "prooftrail.example/acme"
LOG, WITNESS = Signer(ORIGIN), Signer("witness.example/w1", COSIGNATURE, seed=2)
OTHER_LOG, OTHER_WITNESS = Signer(ORIGIN, seed=3), Signer("witness.example/w1", COSIGNATURE, seed=4)


def header(number: int) -> bytes:
    public = canonical.encode({"action": "patient.read", "id": f"event-{number}", "sequence": number})
    return entry.header(public, (None, None, entry.commitment(bytes(16), b"{}")))


def publish(directory: Path, tree: Tree, sizes: Sequence[int], indexes: Sequence[int]) -> None:
    """Write a log as it was at some sizes, and proofs in the last one for some indexes."""
    old = 0
    for size in sizes:
        note = checkpoint_note(tree, size)
        write(directory / "checkpoint" / f"{size:020d}", note)
        for tile in tiles_between(old, size):
            write(directory / tile.path, tree.tile(tile))
        if old:
            hashes = merkle.consistency_proof(old, size, tree.node)
            lines = "".join(f"{encode_base64(item)}\n" for item in hashes)
            write(directory / "consistency" / f"{old}-{size}", lines.encode())
        old = size
    for index in indexes:
        proof = TlogProof(index, merkle.inclusion_proof(index, old, tree.node), note, extra=b"salts")
        write(directory / "proof" / f"{index}.tlog-proof", proof.encode())
        write(directory / "entry" / str(index), header(index))


def checkpoint_note(tree: Tree, size: int, log: Signer = LOG, witness: Signer = WITNESS) -> bytes:
    text = Checkpoint(ORIGIN, size, merkle.root_of(tree.leaves[:size])).encode()
    return signed_note(text, log, witness)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_log_of_70_000_entries_is_accepted(verify: Verifier, tmp_path: Path) -> None:
    tree = Tree([merkle.leaf_hash(header(number)) for number in range(70_000)])
    sizes, indexes = (
        (1, 255, 256, 257, 1000, 65_535, 65_536, 70_000),
        (0, 1, 255, 256, 65_535, 65_536, 69_887, 69_888, 69_999),
    )
    publish(tmp_path, tree, sizes, indexes)
    assert verify(tmp_path, LOG, WITNESS).splitlines() == [
        "8 checkpoints, 70000 leaves",
        "7 times grown",
        "7 consistency proofs",
        "9 inclusion proofs",
    ]


def test_a_log_of_one_entry_is_accepted(verify: Verifier, tmp_path: Path) -> None:
    publish(tmp_path, Tree([merkle.leaf_hash(header(0))]), [1], [0])
    assert "1 checkpoints, 1 leaves" in verify(tmp_path, LOG, WITNESS)


TREE = Tree([merkle.leaf_hash(header(number)) for number in range(1000)])
FORK = Tree([*TREE.leaves[:4], bytes(32), *TREE.leaves[5:]])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    publish(directory, TREE, [5, 300, 1000], [0, 4, 511, 999])
    return directory


def change(path: str, place: int = -3, bit: int = 1) -> Callable[[Path], None]:
    """Flip a bit of a file."""

    def tamper(directory: Path) -> None:
        content = bytearray((directory / path).read_bytes())
        content[place] ^= bit
        (directory / path).write_bytes(content)

    return tamper


def replace(path: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    def tamper(directory: Path) -> None:
        content = (directory / path).read_bytes()
        assert old in content
        (directory / path).write_bytes(content.replace(old, new, 1))

    return tamper


def put(path: str, content: bytes) -> Callable[[Path], None]:
    return lambda directory: write(directory / path, content)


def cut_a_line(path: str, number: int) -> Callable[[Path], None]:
    def tamper(directory: Path) -> None:
        lines = (directory / path).read_bytes().splitlines(keepends=True)
        del lines[number]
        (directory / path).write_bytes(b"".join(lines))

    return tamper


LAST = f"checkpoint/{1000:020d}"
AT_300, AT_1000 = (Note.parse(checkpoint_note(TREE, size)) for size in (300, 1000))
TAMPERINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "the size in a checkpoint": (replace(LAST, b"\n1000\n", b"\n1001\n"), "invalid signature for key prooftrail.example"),
    "the log's signature": (
        put(LAST, Note(AT_1000.text, [AT_300.signatures[0], AT_1000.signatures[1]]).encode()),
        "invalid signature for key prooftrail.example",
    ),
    "the witness's signature": (
        put(LAST, Note(AT_1000.text, [AT_1000.signatures[0], AT_300.signatures[1]]).encode()),
        "invalid signature for key witness.example",
    ),
    "a checkpoint by another log": (put(LAST, checkpoint_note(TREE, 1000, log=OTHER_LOG)), "no log signature found"),
    "a checkpoint by another witness": (
        put(LAST, checkpoint_note(TREE, 1000, witness=OTHER_WITNESS)),
        "1 signatures of 2 are good",
    ),
    "the witness's line": (cut_a_line(LAST, -1), "1 signatures of 2 are good"),
    "the log's line": (cut_a_line(LAST, -2), "no log signature found"),
    "a leaf in a full tile": (change("tile/0/001"), "tiles of size 1000 lead to the root"),
    "a leaf in a partial tile": (change("tile/0/003.p/232"), "tiles of size 1000 lead to the root"),
    "a leaf in an older partial tile": (change("tile/0/001.p/44"), "tiles of size 300 lead to the root"),
    "a node in a tile of level 1": (change("tile/1/000.p/3"), "1/000.p/3 is not the tile of its leaves"),
    "a tile too short": (put("tile/0/000", bytes(8160)), "only got 255 leaves"),
    "a tile not there": (lambda directory: (directory / "tile/0/002").unlink(), "tile/0/002: no such file"),
    "a consistency proof": (replace("consistency/300-1000", b"A", b"B"), "300-1000: invalid transparency proof"),
    "a hash of a consistency proof": (cut_a_line("consistency/300-1000", 0), "300-1000: invalid transparency proof"),
    "a history that goes another way": (put(LAST, checkpoint_note(FORK, 1000)), "tiles of size 1000 lead to the root"),
    "an entry": (change("entry/511"), "511.tlog-proof: invalid transparency proof"),
    "an entry's index": (
        replace("proof/511.tlog-proof", b"index 511", b"index 4"),
        "511.tlog-proof: invalid transparency proof",
    ),
    "a hash of an inclusion proof": (cut_a_line("proof/511.tlog-proof", 3), "511.tlog-proof: invalid transparency proof"),
    "a proof's first line": (change("proof/511.tlog-proof", 0), "511.tlog-proof: tlog proof missing expected header"),
    "a proof's checkpoint": (
        replace("proof/511.tlog-proof", b"\n1000\n", b"\n1001\n"),
        "511.tlog-proof: .*invalid signature",
    ),
}


def test_what_is_tampered_with_was_good_before(verify: Verifier, small: Path) -> None:
    assert "4 inclusion proofs" in verify(small, LOG, WITNESS)


@pytest.mark.parametrize("what", TAMPERINGS)
def test_what_was_tampered_with_is_refused(what: str, verify: Verifier, small: Path, tmp_path: Path) -> None:
    directory = tmp_path / "log"
    shutil.copytree(small, directory)
    tamper, complaint = TAMPERINGS[what]
    tamper(directory)
    with pytest.raises(Refused, match=complaint):
        verify(directory, LOG, WITNESS)


def test_a_whole_log_recomputed_is_refused_beside_one_old_checkpoint(verify: Verifier, tmp_path: Path) -> None:
    """The forger has the log's key: every file fits every other, but for the one that somebody kept."""
    publish(tmp_path, FORK, [5, 300, 1000], [0, 511])
    assert "2 inclusion proofs" in verify(tmp_path, LOG, WITNESS)
    write(tmp_path / f"checkpoint/{5:020d}", checkpoint_note(TREE, 5))
    with pytest.raises(Refused):
        verify(tmp_path, LOG, WITNESS)

"""Proof files: one form for everything, and a whole proof from the entry to the signature."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.lines import InvalidNote
from prooftrail.ledger.merkle import InvalidProof, inclusion_proof, leaf_hash, verify_inclusion
from prooftrail.ledger.note import UntrustedNote, open_note
from prooftrail.ledger.tlog_proof import TlogProof
from tests.trees import Signer, Tree, signed_checkpoint

HASH = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ="

hashes = st.binary(min_size=32, max_size=32)
proofs = st.builds(
    TlogProof,
    st.integers(0, 2**63 - 1) | st.integers(0, 9),
    st.lists(hashes, max_size=63),
    st.binary(max_size=40),
    st.none() | st.binary(min_size=1, max_size=40),
)


def test_a_file_is_as_the_specification_says() -> None:
    text = f"c2sp.org/tlog-proof@v1\nextra AAEC\nindex 73894\n{HASH}\n{HASH}\n\nexample.com/log\n5\n...\n"
    proof = TlogProof.parse(text.encode())
    assert (proof.index, proof.extra, len(proof.hashes)) == (73894, b"\0\1\2", 2)
    assert proof.hashes[0].hex().startswith("8122b25e8619")
    assert proof.checkpoint_note == b"example.com/log\n5\n...\n"
    assert proof.encode() == text.encode()
    without = TlogProof.parse(text.replace("extra AAEC\n", "").encode())
    assert without == TlogProof(proof.index, proof.hashes, proof.checkpoint_note)


@given(proofs)
def test_a_proof_is_read_as_it_was_written(proof: TlogProof) -> None:
    assert TlogProof.parse(proof.encode()) == proof


some_lines = st.lists(
    st.sampled_from(["extra AAEC", "extra ", "extra AAEB=", "index 5", "index 05", "index", HASH, HASH[1:], "", "\r"])
).map(lambda lines: "\n".join(["c2sp.org/tlog-proof@v1", *lines]).encode())


@given(some_lines | some_lines.map(lambda head: head + b"\n\nnote") | st.binary(max_size=40))
def test_a_proof_has_one_form_and_nothing_else_is_raised(data: bytes) -> None:
    with contextlib.suppress(InvalidNote):
        assert TlogProof.parse(data).encode() == data


@pytest.mark.parametrize(
    "data",
    [
        "",
        "c2sp.org/tlog-proof@v1",
        "c2sp.org/tlog-proof@v1\n\nnote",
        f"c2sp.org/tlog-proof@v1\nindex 5\n{HASH}\n",  # no checkpoint
        "c2sp.org/tlog-proof@v2\nindex 5\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex 05\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex  5\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex -5\n\nnote",
        f"c2sp.org/tlog-proof@v1\nindex {2**63}\n\nnote",
        "c2sp.org/tlog-proof@v1\nextra AAEC\n\nnote",
        "c2sp.org/tlog-proof@v1\nextra \nindex 5\n\nnote",
        "c2sp.org/tlog-proof@v1\nextra\nindex 5\n\nnote",
        "c2sp.org/tlog-proof@v1\nextra AAE\nindex 5\n\nnote",
        "c2sp.org/tlog-proof@v1\nextra AAEC\nextra AAEC\nindex 5\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex 5\nextra AAEC\n\nnote",
        f"c2sp.org/tlog-proof@v1\n{HASH}\nindex 5\n\nnote",
        f"c2sp.org/tlog-proof@v1\nindex 5\n{HASH[:-1]}\n\nnote",
        f"c2sp.org/tlog-proof@v1\nindex 5\n{HASH[:-1]}A=\n\nnote",
        "c2sp.org/tlog-proof@v1\nindex 5\nAAAA\n\nnote",
        "c2sp.org/tlog-proof@v1\r\nindex 5\r\n\r\nnote",
        "c2sp.org/tlog-proof@v1\nindex 5\n" + f"{HASH}\n" * 64 + "\nnote",
    ],
)
def test_what_is_not_quite_a_proof_is_refused(data: str) -> None:
    with pytest.raises(InvalidNote):
        TlogProof.parse(data.encode())


@pytest.mark.parametrize(
    ("index", "hashes", "extra"),
    [(-1, [], None), (2**63, [], None), (0, [bytes(31)], None), (0, [bytes(32)] * 64, None), (0, [], b"")],
)
def test_what_no_proof_can_hold_is_refused(index: int, hashes: list[bytes], extra: bytes | None) -> None:
    with pytest.raises(InvalidNote):
        TlogProof(index, hashes, b"note", extra)


LOG, WITNESS = Signer("example.com/log"), Signer("witness.example/w1", kind=4, seed=2)
ENTRIES = [f"entry {number}".encode() for number in range(100)]
TREE = Tree([leaf_hash(entry) for entry in ENTRIES])
FILE = TlogProof(41, inclusion_proof(41, 100, TREE.node), signed_checkpoint("example.com/log", TREE.leaves, LOG, WITNESS))


def check(data: bytes, entry: bytes) -> None:
    """What a verifier does (tlog-proof, "Verifying a tlog proof")."""
    proof = TlogProof.parse(data)
    opened = open_note(proof.checkpoint_note, [LOG.key, WITNESS.key])
    if len(opened.verified) != 2:
        raise UntrustedNote("this test asks for log and witness")
    checkpoint = Checkpoint.parse(opened.text)
    verify_inclusion(leaf_hash(entry), proof.index, checkpoint.size, proof.hashes, checkpoint.root)


def test_a_proof_convinces_from_the_entry_to_the_signatures() -> None:
    check(FILE.encode(), b"entry 41")
    with pytest.raises(InvalidProof):
        check(FILE.encode(), b"entry 42")


def test_a_proof_with_any_byte_changed_convinces_nobody() -> None:
    data = FILE.encode()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 7
        with pytest.raises((InvalidNote, InvalidProof)):
            check(bytes(changed), b"entry 41")

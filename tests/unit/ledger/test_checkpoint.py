"""Checkpoints, cosignatures and requests to a witness: the specifications' examples, and one form for everything."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail.ledger.checkpoint import AddCheckpoint, Checkpoint, cosignature_message
from prooftrail.ledger.lines import InvalidNote

ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
# C2SP tlog-checkpoint and tlog-witness.
EXAMPLE = f"example.com/behind-the-sofa\n20852163\n{ROOT}\n"
SIGNATURE = (
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
REQUEST = f"""old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

{EXAMPLE}
{SIGNATURE}""".encode()

a_line = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
sizes = st.integers(0, 2**63 - 1) | st.integers(0, 9)
hashes = st.binary(min_size=32, max_size=32)
checkpoints = st.builds(Checkpoint, a_line, sizes, hashes, st.lists(a_line, max_size=3).map(tuple))
requests = st.builds(AddCheckpoint, sizes, st.lists(hashes, max_size=63), st.binary(max_size=30))


def test_the_example_of_the_specification_is_read() -> None:
    checkpoint = Checkpoint.parse(EXAMPLE)
    assert (checkpoint.origin, checkpoint.size, checkpoint.extensions) == ("example.com/behind-the-sofa", 20852163, ())
    assert checkpoint.root.hex().startswith("0ac5186a9186")
    assert checkpoint.encode() == EXAMPLE


def test_the_message_of_a_cosignature_is_as_the_specification_says() -> None:
    assert cosignature_message(1679315147, EXAMPLE) == b"cosignature/v1\ntime 1679315147\n" + EXAMPLE.encode()


def test_the_request_of_the_specification_is_read() -> None:
    request = AddCheckpoint.parse(REQUEST)
    assert request.old_size == 20852014
    assert [item.hex()[:4] for item in request.proof] == ["3e54", "8eb2", "e7ea", "ffa5"]
    assert request.checkpoint_note == f"{EXAMPLE}\n{SIGNATURE}".encode()
    assert request.encode() == REQUEST


def test_extension_lines_are_kept() -> None:
    checkpoint = Checkpoint.parse(f"{EXAMPLE}one\n two \n")
    assert checkpoint.extensions == ("one", " two ")
    assert checkpoint.encode() == f"{EXAMPLE}one\n two \n"


@given(checkpoints)
def test_a_checkpoint_is_read_as_it_was_written(checkpoint: Checkpoint) -> None:
    assert Checkpoint.parse(checkpoint.encode()) == checkpoint


@given(requests)
def test_a_request_is_read_as_it_was_written(request: AddCheckpoint) -> None:
    assert AddCheckpoint.parse(request.encode()) == request


some_lines = st.lists(
    st.sampled_from(["origin", "0", "5", "05", ROOT, ROOT.replace("=", ""), "old 5", "old 05", "", "\ud800", "\r"])
    | a_line,
    max_size=5,
).map("\n".join)


@given(some_lines | some_lines.map("{}\n".format) | st.text(max_size=30))
def test_a_checkpoint_has_one_form_and_nothing_else_is_raised(text: str) -> None:
    with contextlib.suppress(InvalidNote):
        assert Checkpoint.parse(text).encode() == text


@given(some_lines.map(lambda text: text.encode("utf-8", "surrogatepass") + b"\n\nnote\n") | st.binary(max_size=60))
def test_a_request_has_one_form_and_nothing_else_is_raised(body: bytes) -> None:
    with contextlib.suppress(InvalidNote):
        assert AddCheckpoint.parse(body).encode() == body


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n\n",
        f"origin\n5\n{ROOT}",
        "origin\n5\n",
        f"\n5\n{ROOT}\n",
        f"origin\n\n{ROOT}\n",
        f"origin\n05\n{ROOT}\n",
        f"origin\n-5\n{ROOT}\n",
        f"origin\n+5\n{ROOT}\n",
        f"origin\n5 \n{ROOT}\n",
        f"origin\n5.0\n{ROOT}\n",
        f"origin\n0x5\n{ROOT}\n",
        f"origin\n5_0\n{ROOT}\n",
        f"origin\n\u0665\n{ROOT}\n",
        f"origin\n{2**63}\n{ROOT}\n",
        f"origin\n{'9' * 20}\n{ROOT}\n",
        f"origin\n5\n{ROOT[:-1]}\n",
        f"origin\n5\n{ROOT}=\n",
        f"origin\n5\n{ROOT.replace('I=', 'J=')}\n",  # bits beyond the last byte
        f"origin\n5\n{ROOT.replace('/', '_')}\n",
        f"origin\n5\n {ROOT}\n",
        "origin\n5\nAAAA\n",
        f"origin\n5\n{ROOT[:-1]}AAAA\n",
        f"origin\r\n5\r\n{ROOT}\r\n",
        f"origin\n5\n{ROOT}\n\n",
        f"origin\n5\n{ROOT}\nextension\n\nmore\n",
        f"ori\0gin\n5\n{ROOT}\n",
        f"\ud800\n5\n{ROOT}\n",
    ],
)
def test_what_is_not_quite_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 5\n",
        b"\n\nnote",
        b"old\n\nnote",
        b"old 05\n\nnote",
        b"old  5\n\nnote",
        b"Old 5\n\nnote",
        b"old 5\nAAAA\n\nnote",
        b"old 5\r\n\r\nnote",
        b"old 5\n\xff\n\nnote",
        b"old 9223372036854775808\n\nnote",
        b"old 5\n" + f"{ROOT}\n".encode() * 64 + b"\nnote",
    ],
)
def test_what_is_not_quite_a_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidNote):
        AddCheckpoint.parse(body)


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 0, bytes(32), ()),
        ("a\nb", 0, bytes(32), ()),
        ("a\tb", 0, bytes(32), ()),
        ("a", -1, bytes(32), ()),
        ("a", 2**63, bytes(32), ()),
        ("a", 0, bytes(31), ()),
        ("a", 0, bytes(33), ()),
        ("a", 0, bytes(32), ("",)),
        ("a", 0, bytes(32), ("b\nc",)),
    ],
)
def test_what_no_checkpoint_can_hold_is_refused(origin: str, size: int, root: bytes, extensions: tuple[str, ...]) -> None:
    with pytest.raises(InvalidNote):
        Checkpoint(origin, size, root, extensions)


@pytest.mark.parametrize(("old_size", "proof"), [(-1, []), (2**63, []), (1, [bytes(31)]), (1, [bytes(32)] * 64)])
def test_what_no_request_can_hold_is_refused(old_size: int, proof: list[bytes]) -> None:
    with pytest.raises(InvalidNote):
        AddCheckpoint(old_size, proof, b"note")

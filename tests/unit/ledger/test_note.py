"""Signed notes: the specification's example, who counts as a signer, and one form for everything."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail.ledger.note import (
    COSIGNATURE,
    ED25519,
    MOST_SIGNATURES,
    InvalidNote,
    Note,
    SignatureLine,
    UntrustedNote,
    VerifierKey,
    open_note,
)
from tests.trees import Signer, signed_note

# C2SP signed-note.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n\u2014 example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
TEXT = "example.com/log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
LOG, WITNESS = Signer("example.com/log"), Signer("witness.example/w1", COSIGNATURE, seed=2)
STRANGER = Signer("stranger.example", seed=3)

names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="+"), min_size=1, max_size=12)
keys = st.builds(VerifierKey, names, st.sampled_from([ED25519, COSIGNATURE]), st.binary(min_size=32, max_size=32))
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=40).map("{}\n".format)
signature_lines = st.builds(SignatureLine, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=80))
notes = st.builds(Note, texts, st.lists(signature_lines, min_size=1, max_size=5))


def test_the_example_of_the_specification_verifies() -> None:
    key = VerifierKey.parse(EXAMPLE_KEY)
    assert (key.name, key.kind, key.key_id.hex()) == ("example.com/foo", ED25519, "530d903a")
    opened = open_note(EXAMPLE, [key])
    assert opened.text == "This is an example message.\n"
    assert opened.verified == [(key, None)]


def test_a_log_and_a_witness_sign_the_same_text() -> None:
    opened = open_note(signed_note(TEXT, LOG, WITNESS), [WITNESS.key, LOG.key])
    assert opened == (TEXT, [(LOG.key, None), (WITNESS.key, 1_700_000_000)])


def test_who_is_not_known_counts_for_nothing() -> None:
    note = signed_note(TEXT, STRANGER, LOG)
    assert open_note(note, [LOG.key]).verified == [(LOG.key, None)]
    for keys in ([], [WITNESS.key]):
        with pytest.raises(UntrustedNote, match="expected a signature by a known key, got none"):
            open_note(note, keys)


def test_a_name_or_a_key_id_alone_makes_nobody_known() -> None:
    line = LOG.sign(TEXT)
    same_name = SignatureLine(line.name, bytes(4), line.signature)
    same_id = SignatureLine("elsewhere.example", line.key_id, line.signature)
    note = Note(TEXT, [same_name, same_id]).encode()
    with pytest.raises(UntrustedNote, match="got none"):
        open_note(note, [LOG.key])
    assert open_note(Note(TEXT, [same_name, same_id, line]).encode(), [LOG.key]).verified == [(LOG.key, None)]


@pytest.mark.parametrize("signer", [LOG, WITNESS], ids=["log", "witness"])
def test_a_false_signature_of_a_known_key_spoils_the_note(signer: Signer) -> None:
    line, other = signer.sign(TEXT), STRANGER.sign(TEXT)
    for place in (0, 7, 8, -1):
        changed = bytearray(line.signature)
        changed[place] ^= 1
        note = Note(TEXT, [other, SignatureLine(line.name, line.key_id, bytes(changed))]).encode()
        with pytest.raises(UntrustedNote, match="is not of that key: the note was changed"):
            open_note(note, [STRANGER.key, signer.key])
    for length in (1, 8, 63, 65, 71, 73):
        short = SignatureLine(line.name, line.key_id, (line.signature * 2)[:length])
        with pytest.raises(UntrustedNote, match="is not of that key"):
            open_note(Note(TEXT, [other, short]).encode(), [STRANGER.key, signer.key])


def test_a_changed_text_is_refused() -> None:
    with pytest.raises(UntrustedNote):
        open_note(signed_note(TEXT, LOG).replace(b"\n5\n", b"\n6\n"), [LOG.key])


def test_a_cosignature_is_no_signature_and_the_other_way_round() -> None:
    as_witness = VerifierKey(LOG.key.name, COSIGNATURE, LOG.key.public_key)
    assert as_witness.key_id != LOG.key.key_id
    with pytest.raises(UntrustedNote, match="got none"):
        open_note(signed_note(TEXT, LOG), [as_witness])
    line = LOG.sign(TEXT)
    posing = SignatureLine(as_witness.name, as_witness.key_id, bytes(8) + line.signature)
    with pytest.raises(UntrustedNote, match="is not of that key"):
        open_note(Note(TEXT, [posing]).encode(), [as_witness])


def test_a_time_of_more_than_63_bits_is_refused() -> None:
    assert open_note(Note(TEXT, [WITNESS.sign(TEXT, 2**63 - 1)]).encode(), [WITNESS.key]).verified[0][1] == 2**63 - 1
    with pytest.raises(UntrustedNote):
        open_note(Note(TEXT, [WITNESS.sign(TEXT, 2**63)]).encode(), [WITNESS.key])


def test_who_signs_twice_counts_once_and_must_be_right_both_times() -> None:
    first, second = WITNESS.sign(TEXT, 100), WITNESS.sign(TEXT, 200)
    assert open_note(Note(TEXT, [first, second]).encode(), [WITNESS.key]).verified == [(WITNESS.key, 100)]
    false = SignatureLine(second.name, second.key_id, bytes(72))
    with pytest.raises(UntrustedNote, match="is not of that key"):
        open_note(Note(TEXT, [first, false]).encode(), [WITNESS.key])


def test_keys_that_a_line_cannot_tell_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VerifierKey, "key_id", LOG.key.key_id)
    twin = VerifierKey(LOG.key.name, ED25519, WITNESS.key.public_key)
    assert open_note(signed_note(TEXT, LOG), [LOG.key, LOG.key]).verified == [(LOG.key, None)]
    with pytest.raises(UntrustedNote, match="expected keys that differ in name or key id"):
        open_note(signed_note(TEXT, LOG), [LOG.key, twin])


def test_many_signatures_are_read_and_too_many_are_not() -> None:
    line = STRANGER.sign(TEXT)
    most = Note(TEXT, [*[line] * (MOST_SIGNATURES - 1), LOG.sign(TEXT)]).encode()
    assert MOST_SIGNATURES >= 16
    assert open_note(most, [LOG.key]).verified == [(LOG.key, None)]
    with pytest.raises(InvalidNote):
        Note.parse(most + f"{line.encode()}\n".encode())
    with pytest.raises(InvalidNote, match="expected 1 to 100 signatures, got 101"):
        Note(TEXT, [line] * 101)


@given(notes)
def test_a_note_is_read_as_it_was_written(note: Note) -> None:
    assert Note.parse(note.encode()) == note


@given(keys)
def test_a_key_is_read_as_it_was_written(key: VerifierKey) -> None:
    assert VerifierKey.parse(str(key)) == key


pieces = st.lists(
    st.sampled_from(
        [b"\n", b"\n\n", b"\xe2\x80\x94 ", b" ", b"name", b"AAAAAAA=", b"AAAAAAAA", b"\xff", b"+", b"\r", b"\0"]
    )
    | st.binary(max_size=3)
).map(b"".join)


@given(st.binary(max_size=60) | pieces)
def test_whatever_is_read_has_one_form_and_nothing_else_is_raised(data: bytes) -> None:
    with contextlib.suppress(InvalidNote):
        assert Note.parse(data).encode() == data
    with contextlib.suppress(InvalidNote):
        open_note(data, [LOG.key])


@given(st.text(max_size=60) | st.from_regex(r"[a-z]{1,3}\+[0-9a-f]{8}\+A[QR][A-Za-z0-9+/]{42}"))
def test_a_key_has_one_form_and_nothing_else_is_raised(text: str) -> None:
    with contextlib.suppress(InvalidNote):
        assert str(VerifierKey.parse(text)) == text
    with contextlib.suppress(InvalidNote):
        assert SignatureLine.parse(text).encode() == text


LINE = LOG.sign(TEXT).encode()
ENCODED = LINE.split(" ")[2]


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}{LINE}\n",  # no empty line
        f"{TEXT}\n{LINE}",  # no line feed at the end
        f"{TEXT}\n{LINE}\n\n",
        f"{TEXT}\n{LINE}\nsomething else\n",
        f"{TEXT}\nsomething else\n{LINE}\n",
        f"{TEXT}\n-{LINE[1:]}\n",  # another dash
        f"{TEXT}\n{LINE[0]}{LINE[2:]}\n",  # no space after it
        f"{TEXT}\n {LINE}\n",
        f"{TEXT}\n{LINE} \n",
        f"{TEXT}\n{LINE} {ENCODED}\n",
        f"{TEXT}\n{LINE.replace(' ' + ENCODED, '  ' + ENCODED)}\n",
        f"{TEXT}\n{LINE}\r\n",
        f"{TEXT}\n\u2014 a+b {ENCODED}\n",
        f"{TEXT}\n\u2014 a\u00a0b {ENCODED}\n",  # a space that is none of ASCII
        f"{TEXT}\n\u2014 a\u3000b {ENCODED}\n",
        f"{TEXT}\n\u2014  {ENCODED}\n",
        f"{TEXT}\n\u2014 name \n",
        f"{TEXT}\n\u2014 name AAAAAA==\n",  # a key id and no signature
        f"{TEXT}\n\u2014 name AAAA\n",
        f"{TEXT}\n\u2014 name AAAAAAA\n",  # no padding
        f"{TEXT}\n\u2014 name AAAAAAB=\n",  # bits beyond the last byte
        f"{TEXT}\n\u2014 name AAAAAAA==\n",
        f"{TEXT}\n\u2014 name AAAA-AAA\n",  # base64url
        f"{TEXT}\n\u2014 name AA AAAAAA\n",
        f"a\tb\n\n{LINE}\n",
        f"a\0b\n\n{LINE}\n",
        f"a\x1fb\n\n{LINE}\n",
    ],
)
def test_what_is_not_quite_a_note_is_refused(note: str) -> None:
    with pytest.raises(InvalidNote):
        Note.parse(note.encode())


@pytest.mark.parametrize("data", [b"\xff", b"\xc0\xaf\n", b"\xed\xa0\x80\n"], ids=["no UTF-8", "overlong", "surrogate"])
def test_what_is_not_utf_8_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidNote, match="expected UTF-8, got byte"):
        Note.parse(data + EXAMPLE)


def test_the_text_ends_at_the_last_empty_line() -> None:
    text = "first\n\n\u2014 not a signature\n\n\n"
    opened = open_note(signed_note(text, LOG), [LOG.key])
    assert opened.text == text


def vkey(name: str, key_id: bytes, data: bytes) -> str:
    return f"{name}+{key_id.hex()}+{base64.b64encode(data).decode()}"


KEY_ID, DATA = LOG.key.key_id, b"\x01" + LOG.key.public_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+",
        "++",
        EXAMPLE_KEY.upper(),
        EXAMPLE_KEY.replace("530d903a", "530D903A"),
        EXAMPLE_KEY.replace("530d903a", "530d903b"),
        EXAMPLE_KEY.replace("530d903a", "30d903a"),
        EXAMPLE_KEY.replace("foo", "fo"),
        EXAMPLE_KEY.replace("foo", "f o"),
        f"{EXAMPLE_KEY}\n",
        f"{EXAMPLE_KEY}+",
        EXAMPLE_KEY.removesuffix("k") + "l",
        vkey("example.com/log", KEY_ID, DATA[:-1]),
        vkey("example.com/log", KEY_ID, DATA + b"x"),
        vkey("example.com/log", KEY_ID, b"\x02" + DATA[1:]),
        vkey("", KEY_ID, DATA),
        vkey("\ud800", KEY_ID, DATA),
    ],
)
def test_what_is_not_quite_a_key_is_refused(text: str) -> None:
    assert VerifierKey.parse(vkey("example.com/log", KEY_ID, DATA)) == LOG.key
    with pytest.raises(InvalidNote):
        VerifierKey.parse(text)


@pytest.mark.parametrize("text", ["", "no line feed", "control\x07\n", "\ud800\n"])
def test_what_no_note_can_hold_is_refused(text: str) -> None:
    with pytest.raises(InvalidNote):
        Note(text, [LOG.sign(TEXT)])
    with pytest.raises(InvalidNote):
        Note(TEXT, [])


@pytest.mark.parametrize(
    ("name", "key_id", "signature"),
    [("", bytes(4), b"x"), ("a b", bytes(4), b"x"), ("a\nb", bytes(4), b"x"), ("a", bytes(3), b"x"), ("a", bytes(4), b"")],
)
def test_what_no_signature_line_can_hold_is_refused(name: str, key_id: bytes, signature: bytes) -> None:
    with pytest.raises(InvalidNote):
        SignatureLine(name, key_id, signature)

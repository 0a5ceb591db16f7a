"""Signed notes: a text, and below it a line for each who signed it (C2SP signed-note, tlog-cosignature).

    <text, ending in a line feed>

    — <key name> <base64 of key id and signature>

Nothing of a note may be believed before `open_note` returned it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prooftrail.ledger import ed25519, lines
from prooftrail.ledger.checkpoint import cosignature_message
from prooftrail.ledger.lines import InvalidNote

__all__ = [
    "COSIGNATURE",
    "ED25519",
    "MOST_SIGNATURES",
    "InvalidNote",
    "Note",
    "OpenedNote",
    "SignatureLine",
    "UntrustedNote",
    "VerifierKey",
    "open_note",
]

# Kinds of keys: how a log signs, and how a witness does.
ED25519, COSIGNATURE = 0x01, 0x04
MOST_SIGNATURES = 100  # the specification asks for 16 at least, and for some limit
_DASH = "\u2014 "


class UntrustedNote(InvalidNote):
    """No known key has signed the note, or one seems to have and did not."""


@dataclass(frozen=True)
class VerifierKey:
    """Somebody's public key (32 bytes), by which notes of theirs are known; `kind` is `ED25519` or `COSIGNATURE`.

    Raises `InvalidNote` for what is not such a key.
    """

    name: str
    kind: int
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in {ED25519, COSIGNATURE} or len(self.public_key) != 32:
            got = f"kind 0x{self.kind:02x} and {len(self.public_key)} bytes"
            raise InvalidNote(f"expected a key of kind 0x01 or 0x04 and 32 bytes, got {got}")

    @property
    def key_id(self) -> bytes:
        """Four bytes that stand for name, kind and key in a signature line."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:4]

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read ``name+key id in hex+base64 of kind and key``. Raises `InvalidNote` for all but what `str` gives."""
        name, _, rest = vkey.partition("+")
        _, _, encoded = rest.partition("+")
        data = lines.decode_base64(encoded)
        key = cls(name, data[0] if data else 0, data[1:])
        if str(key) != vkey:
            raise InvalidNote(f"expected the key {key}, got {vkey[:200]!a}: name, key id and key do not belong together")
        return key

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{lines.encode_base64(bytes([self.kind]) + self.public_key)}"


@dataclass(frozen=True)
class SignatureLine:
    """Who seems to have signed, and what they seem to have written: for a cosignature, the time comes first (8 bytes)."""

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_id) != 4 or not self.signature:
            got = f"{len(self.key_id)} and {len(self.signature)}"
            raise InvalidNote(f"expected a key id of 4 bytes and a signature of 1 or more, got {got}")

    @classmethod
    def parse(cls, line: str) -> SignatureLine:
        """Read a line, without its line feed. Raises `InvalidNote` for all but what `encode` writes."""
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        data = lines.decode_base64(encoded)
        found = cls(name, data[:4], data[4:])
        if found.encode() != line:
            raise InvalidNote(f"expected a signature line as in `{found.encode()}`, got {line[:200]!a}")
        return found

    def encode(self) -> str:
        """Write the line, without its line feed."""
        return f"{_DASH}{self.name} {lines.encode_base64(self.key_id + self.signature)}"


@dataclass(frozen=True)
class Note:
    """A text, and who seems to have signed it: one to `MOST_SIGNATURES` lines, none of them verified yet."""

    text: str
    signatures: list[SignatureLine]

    def __post_init__(self) -> None:
        lines.check_text(self.text)
        if not self.text.endswith("\n"):
            raise InvalidNote("expected a note's text to end in a line feed")
        if not 1 <= len(self.signatures) <= MOST_SIGNATURES:
            raise InvalidNote(f"expected 1 to {MOST_SIGNATURES} signatures, got {len(self.signatures)}")

    @classmethod
    def parse(cls, data: bytes) -> Note:
        """Read a note. Raises `InvalidNote` for all but what `encode` writes."""
        text, blank, signatures = lines.decode_text(data).rpartition("\n\n")
        if not blank or not signatures.endswith("\n"):
            raise InvalidNote("expected a text, an empty line and lines of signatures, the last one ended by a line feed")
        found = signatures.removesuffix("\n").split("\n", MOST_SIGNATURES)
        return cls(text + "\n", [SignatureLine.parse(line) for line in found])

    def encode(self) -> bytes:
        """Write the note."""
        return "".join([self.text, "\n", *(f"{line.encode()}\n" for line in self.signatures)]).encode()


class OpenedNote(NamedTuple):
    """A note's text, and the known keys that have signed it, each once; with a witness's key, when (seconds since 1970)."""

    text: str
    verified: list[tuple[VerifierKey, int | None]]


def open_note(note: bytes, keys: Iterable[VerifierKey]) -> OpenedNote:
    """Verify a note by the keys that the reader knows. Signatures of unknown keys count for nothing.

    Raises `InvalidNote` where it is not a note, `UntrustedNote` where no known key has signed it or a signature under a
    known key's name and id is false.
    """
    parsed = Note.parse(note)
    known = _by_name_and_id(keys)
    verified: dict[VerifierKey, int | None] = {}
    for line in parsed.signatures:
        key = known.get((line.name, line.key_id))
        if key is not None:
            verified.setdefault(key, _verified_time(key, parsed.text, line.signature))
    if not verified:
        raise UntrustedNote("expected a signature by a known key, got none: see whether the right keys were given")
    return OpenedNote(parsed.text, list(verified.items()))


def _by_name_and_id(keys: Iterable[VerifierKey]) -> dict[tuple[str, bytes], VerifierKey]:
    """Find keys as a signature line names them; two that it could not tell apart are refused."""
    wanted = set(keys)
    known = {(key.name, key.key_id): key for key in wanted}
    if len(known) != len(wanted):
        raise UntrustedNote("expected keys that differ in name or key id, got two that do not: leave one out")
    return known


def _verified_time(key: VerifierKey, text: str, signature: bytes) -> int | None:
    """When a witness signed, None for a log. Raises `UntrustedNote` where the signature is false."""
    if key.kind == ED25519:
        time, message = None, text.encode()
    else:
        stated, signature = signature[:8], signature[8:]
        time = int.from_bytes(stated, "big")
        message = cosignature_message(time, text)
    if (time or 0) > lines.LARGEST or not ed25519.verify(key.public_key, message, signature):
        raise UntrustedNote(f"the signature under the name and id of {key} is not of that key: the note was changed")
    return time


def _check_name(name: str) -> None:
    lines.check_line(name, "a key's name")
    if "+" in name or any(map(str.isspace, name)):
        raise InvalidNote(f"expected a key's name without spaces and plus signs, got {name[:80]!a}")

"""What the text formats share: lines of UTF-8, numbers and hashes, each in the one form that it may have."""

from __future__ import annotations

import base64
import binascii
import re

from prooftrail.errors import PermanentError

LARGEST = 2**63 - 1  # no size, index or time is larger
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")  # all below U+0020 but the line feed


class InvalidNote(PermanentError):
    """Bytes are not the note, checkpoint or proof that they should be."""


def decode_text(data: bytes) -> str:
    """Read UTF-8 without control characters but line feeds (C2SP signed-note). Raises `InvalidNote`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidNote(f"expected UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}") from None
    check_text(text)
    return text


def check_text(text: str) -> None:
    """Raise `InvalidNote` where a text has control characters, or what UTF-8 cannot hold."""
    control = _CONTROL.search(text)
    if control:
        raise InvalidNote(f"expected no control character but line feeds, got U+{ord(control[0]):04X} at {control.start()}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidNote(f"expected text, got the lone surrogate U+{ord(text[error.start]):04X}") from None


def check_line(line: str, what: str) -> None:
    """Raise `InvalidNote` for what is not exactly one line, and not empty."""
    check_text(line)
    if not line or "\n" in line:
        raise InvalidNote(f"expected {what} to be one line and not empty, got {line[:80]!a}")


def check_number(number: int, what: str) -> None:
    """Raise `InvalidNote` for a number below 0 or beyond 63 bits."""
    if not 0 <= number <= LARGEST:
        raise InvalidNote(f"expected {what} from 0 to 2**63 - 1, got {number}")


def check_hashes(hashes: list[bytes], most: int) -> None:
    """Raise `InvalidNote` for hashes of other than 32 bytes, or too many."""
    if len(hashes) > most:
        raise InvalidNote(f"expected up to {most} hashes, got {len(hashes)}")
    for item in hashes:
        if len(item) != 32:
            raise InvalidNote(f"expected hashes of 32 bytes, got one of {len(item)}")


def encode_base64(data: bytes) -> str:
    """Write base64 (RFC 4648 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Read base64. Raises `InvalidNote` for all but what `encode_base64` writes, down to padding and trailing bits."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if encode_base64(data) != text:
        raise InvalidNote(f"expected base64 in its canonical form, got {text[:80]!a}")
    return data


def decode_hash(text: str) -> bytes:
    """Read a hash in base64. Raises `InvalidNote`."""
    data = decode_base64(text)
    check_hashes([data], 1)
    return data


def decode_number(text: str) -> int:
    """Read decimal digits without leading zeroes, up to 2**63 - 1. Raises `InvalidNote`."""
    if not _DECIMAL.fullmatch(text) or int(text) > LARGEST:
        raise InvalidNote(f"expected a number from 0 to 2**63 - 1 without leading zeroes, got {text[:80]!a}")
    return int(text)


def decode_named_number(line: str, name: str) -> int:
    """Read a line such as ``index 5``. Raises `InvalidNote`."""
    if not line.startswith(f"{name} "):
        raise InvalidNote(f"expected a line `{name} <number>`, got {line[:80]!a}")
    return decode_number(line.removeprefix(f"{name} "))

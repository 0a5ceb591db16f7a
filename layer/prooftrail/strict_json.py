r"""JSON in, without silent changes.

Parsers differ where it hurts: which of two equal keys wins, what becomes of ``1e400``, ``\ud800`` or a 40-digit number. An
audit trail may not choose, so what is not exactly one value that PostgreSQL and RFC 8785 can both hold is refused:

- not UTF-8, not JSON, nested deeper than `MAX_DEPTH`
- a key twice in one object (RFC 7493 2.3)
- NUL and lone surrogates in strings (``jsonb`` and UTF-8 cannot hold them)
- numbers that are neither integers of 64 bits nor exactly what an IEEE 754 double says they are (RFC 7493 2.2)

`decode` takes the fast parser's answer where it is provably the same, else it asks the slow, exact one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

import msgspec

from prooftrail.errors import InvalidRecord

MAX_DEPTH = 128  # levels; PostgreSQL and every parser we know can hold them
INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1
_LONGEST_NUMBER = 400  # characters; a double's shortest form never needs more than 25
# PostgreSQL writes 1e300 as 301 digits: all numbers of a text together may grow to so many, or answers would be endless.
MOST_DIGITS = 500_000

_decode_fast = msgspec.json.Decoder().decode


def decode(body: bytes, inexact: Callable[[str], Any] | None = None) -> Any:
    """Decode one JSON text into plain Python values; `inexact` may say what a number is that no double holds, or raise.

    Raises `InvalidRecord`, whose reason is one of ``not-utf8``, ``invalid-json``, ``too-deep``, ``duplicate-key``,
    ``nul-character``, ``lone-surrogate``, ``number-not-representable``.
    """
    # All that the fast parser would let through wrongly leaves a trace in the bytes or in the value.
    if inexact or b"\\u0000" in body or b"\\ud" in body or b"\\uD" in body:
        return _decode_exact(body, inexact)
    try:
        value = _decode_fast(body)
        if _keys_of_plain(value, 1) == _keys_in_text(body):
            return value
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, _NotPlain):
        pass
    return _decode_exact(body)


class _NotPlain(Exception):
    """The value holds a number that the fast parser may have changed, or is nested too deep."""


def _keys_of_plain(value: Any, depth: int) -> int:
    """Count the keys of all objects in `value`; raises `_NotPlain` at floats, large integers and depth."""
    if depth > MAX_DEPTH:
        raise _NotPlain
    if type(value) is dict:
        count = len(value)
        for item in value.values():
            kind = type(item)
            if kind is dict or kind is list:
                count += _keys_of_plain(item, depth + 1)
            elif kind is float or (kind is int and not INT64_MIN <= item <= UINT64_MAX):
                raise _NotPlain
        return count
    if type(value) is list:
        return sum(_keys_of_plain(item, depth + 1) for item in value)
    if type(value) is float or (type(value) is int and not INT64_MIN <= value <= UINT64_MAX):
        raise _NotPlain
    return 0


def _keys_in_text(body: bytes) -> int:
    """Count what may be keys in the text: at least as many as there are, or -1 where counting is not safe.

    Every key ends in a quote and a colon, so this is never too low once no white space stands between the two; it is too
    high where a string holds an escaped quote and a colon. Equal to the keys of the decoded value, it proves none was lost.
    """
    if b'" ' in body or b'"\n' in body or b'"\t' in body or b'"\r' in body:
        return -1
    return body.count(b'":')


def _decode_exact(body: bytes, inexact: Callable[[str], Any] | None = None) -> Any:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRecord(
            "not-utf8", f"expected UTF-8, got byte 0x{body[error.start]:02x} at offset {error.start}"
        ) from None
    digits = 0

    def number(text: str) -> Any:
        nonlocal digits
        try:
            value = _number(text)
        except InvalidRecord:
            if inexact is None:
                raise
            return inexact(text)
        digits += _zeros(value)
        if digits > MOST_DIGITS:
            raise InvalidRecord("number-not-representable", f"its numbers have more than {MOST_DIGITS} digits in all")
        return value

    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_float=number,
            parse_int=_integer,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise InvalidRecord("invalid-json", f"expected one JSON value: {error}") from None
    except RecursionError:
        raise InvalidRecord("too-deep", f"nested deeper than {MAX_DEPTH} levels") from None
    _check_strings(value, 1)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRecord("duplicate-key", f"the key {twice!a} stands twice in one object")
    return result


def _integer(text: str) -> float:
    if len(text) <= 20 and INT64_MIN <= int(text) <= UINT64_MAX:
        return int(text)
    return _number(text)  # PostgreSQL writes 1e22 as digits: what we give out must be good to come in again


def _number(text: str) -> float:
    number = float(text)
    if len(text) > _LONGEST_NUMBER or not _is_exactly(number, text):
        raise InvalidRecord(
            "number-not-representable",
            f"the number {text[:40]} is neither a 64-bit integer nor exactly a double: send it as a string",
        )
    return number


def _zeros(number: float) -> int:
    """About how many zeros stand before or after the digits once the number is written without an exponent."""
    return 0 if number == 0 else round(abs(math.log10(abs(number))))


def _is_exactly(number: float, text: str) -> bool:
    try:
        return Decimal(text) == Decimal(repr(number))
    except InvalidOperation:  # an exponent that even Decimal cannot hold
        return False


def _refuse_constant(text: str) -> NoReturn:
    raise InvalidRecord("invalid-json", f"{text} is not JSON")


def _check_strings(value: Any, depth: int) -> None:
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict | list) and depth > MAX_DEPTH:
        raise InvalidRecord("too-deep", f"nested deeper than {MAX_DEPTH} levels")
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            _check_strings(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_strings(item, depth + 1)


def check_text(text: str) -> None:
    """Check that PostgreSQL and UTF-8 can hold a string, also one that does not come from JSON.

    Raises `InvalidRecord`, whose reason is ``nul-character`` or ``lone-surrogate``.
    """
    if "\0" in text:
        raise InvalidRecord("nul-character", "a string holds NUL (U+0000), which PostgreSQL cannot store")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRecord(
            "lone-surrogate", f"a string holds the lone surrogate U+{ord(text[error.start]):04X}, which is not text"
        ) from None

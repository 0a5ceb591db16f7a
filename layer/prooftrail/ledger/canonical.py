"""Canonical JSON (RFC 8785): equal values, equal bytes. This is the rule; `prooftrail.canonical` is quicker, not different.

One extension, so that no digit is lost: integers are written as digits, not rounded to a double (events hold those of 64
bits).
"""

from __future__ import annotations

import json
import math
from typing import Any

from prooftrail.errors import PermanentError

_DIGITS_UP_TO = 21  # ECMAScript writes 1e20 as digits and 1e21 with an exponent (ECMA-262 Number::toString)


class NotCanonical(PermanentError):
    """A value that JSON cannot hold without changing it: it has no canonical form."""


def encode(value: Any) -> bytes:
    """Encode plain values (str, int, float, bool, None, dict, list) canonically, as UTF-8.

    Raises `NotCanonical` for other types, numbers that are not finite and lone surrogates.
    """
    try:
        return _text(value).encode("utf-8")
    except UnicodeEncodeError as error:
        surrogate = ord(error.object[error.start])
        raise NotCanonical(f"expected text, got the lone surrogate U+{surrogate:04X}") from None


def _text(value: Any) -> str:
    if isinstance(value, dict):
        members = sorted(value.items(), key=_utf_16)
        return "{" + ",".join(f"{_text(key)}:{_text(item)}" for key, item in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    if isinstance(value, float):
        return number(value)
    if value is None or isinstance(value, str | int):
        return json.dumps(value, ensure_ascii=False)
    raise NotCanonical(f"expected a value of JSON, got {type(value).__name__}")


def _utf_16(member: tuple[Any, Any]) -> bytes:
    """Keys are in the order of their UTF-16 code units (RFC 8785 3.2.3)."""
    key = member[0]
    if not isinstance(key, str):
        raise NotCanonical(f"expected keys to be strings, got {type(key).__name__}")
    return key.encode("utf-16-be")


def number(value: float) -> str:
    """Write a double as ECMAScript does: Python finds the same shortest digits and only places them otherwise."""
    if not math.isfinite(value):
        raise NotCanonical(f"expected a finite number, got {value}")
    if value == 0:
        return "0"
    mantissa, has_exponent, exponent = repr(value).partition("e")
    if not has_exponent:
        return mantissa.removesuffix(".0")
    sign = "-" if value < 0 else ""
    digits = mantissa.removeprefix("-").replace(".", "")
    point = int(exponent) + 1  # the decimal point stands after so many of the digits
    if 0 < point <= _DIGITS_UP_TO:  # never among them: Python takes an exponent from 17 digits on, and needs no more
        return sign + digits.ljust(point, "0")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"

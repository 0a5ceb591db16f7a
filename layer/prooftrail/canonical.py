"""Canonical JSON (RFC 8785): equal values, equal bytes. Pure; the fast path needs msgspec, the rule needs nothing.

One extension, so that no digit is lost: integers of 64 bits are written as digits, not rounded to a double.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_DIGITS_UP_TO = 21  # ECMAScript writes 1e20 as digits and 1e21 with an exponent (ECMA-262 Number::toString)


def encode(value: Any) -> bytes:
    """Encode plain values (str, int, float, bool, None, dict, list) canonically, as UTF-8.

    msgspec's sorted form is the canonical one but for floats and for keys beyond the Basic Multilingual Plane.
    """
    if _is_plain(value):
        return _encode_sorted(value)
    return _exact(value).encode("utf-8")


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is dict:
        return all(map(_is_bmp, value)) and all(map(_is_plain, value.values()))
    if kind is list:
        return all(map(_is_plain, value))
    return kind is not float


def _is_bmp(key: str) -> bool:
    return key.isascii() or max(key) < "\U00010000"


def _exact(value: Any) -> str:
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_exact(key)}:{_exact(item)}" for key, item in members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_exact, value)) + "]"
    if isinstance(value, float):
        return _number(value)
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Write a double as ECMAScript does: Python finds the same shortest digits and only places them otherwise."""
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = f"{abs(value)!r}".partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The decimal point stands after so many of the digits.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    if 0 < point <= _DIGITS_UP_TO:
        padded = digits.ljust(point, "0")
        return sign + padded[:point] + ("." + padded[point:] if len(padded) > point else "")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"

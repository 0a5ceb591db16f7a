"""JSON out, such that the service takes it back without a change: what it would refuse is refused here, with its place.

The standard library's encoder does the work; its text and the keys are then looked at for what only a closer look can
judge.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, NoReturn
from uuid import UUID

from prooftrail_client.errors import AuditValidationError

MAX_DEPTH = 128  # levels, as the service has it
INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1
_MAY_BE_REFUSED = re.compile(r"\\u0000|[0-9]{19}")
_CONTAINERS = frozenset({dict, list, tuple})
_SCALARS = frozenset({str, int, float, bool, type(None)})


class _NotPlain(Exception):
    """A closer look is needed."""


def encode(document: dict[str, Any]) -> str:
    """Write a document as JSON, of which every character is UTF-8.

    Raises `AuditValidationError` with the place of what JSON, or the service, cannot hold.
    """
    try:
        _check_shape(document, 1)
        text = _encode(document)
        text.encode()
        if not _MAY_BE_REFUSED.search(text):
            return text
    except (_NotPlain, ValueError, TypeError, RecursionError):
        pass
    return _encode(_examined(document, "", 1))


def _check_shape(value: Any, depth: int) -> None:
    """Check keys and depth, of plain containers only: for whatever else there is, a closer look is needed."""
    if depth > MAX_DEPTH:
        raise _NotPlain
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                raise _NotPlain
        value = value.values()
    for item in value:
        kind = type(item)
        if kind in _CONTAINERS:
            _check_shape(item, depth + 1)
        elif kind not in _SCALARS:
            raise _NotPlain


def plain(value: Any) -> Any:
    """Turn what JSON has no word for into what it has: text, a list or a dict; all else is returned as it is."""
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping) and type(value) is not dict:
        return dict(value)
    return value


def _default(_value: Any) -> NoReturn:
    raise _NotPlain


_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_default
).encode


def _examined(value: Any, place: str, depth: int) -> Any:
    """A copy of the value that is JSON through and through."""
    value = plain(value)
    if depth > MAX_DEPTH and isinstance(value, dict | list):
        raise AuditValidationError(place, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_key(key, place): _examined(item, _inside(place, key), depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_examined(item, f"{place}[{number}]", depth + 1) for number, item in enumerate(value)]
    if isinstance(value, str):
        return _text(value, place)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _number(value, place)
    raise AuditValidationError(place, f"expected JSON, got {type(value).__name__}")


def _inside(place: str, key: Any) -> str:
    return f"{place}.{key}" if place else str(key)


def _key(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise AuditValidationError(_inside(place, key), f"expected a key that is text, got {type(key).__name__}")
    return _text(key, _inside(place, ascii(key)))


def _text(text: str, place: str) -> str:
    if "\0" in text:
        raise AuditValidationError(place, "holds NUL (U+0000), which the service cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise AuditValidationError(place, f"holds the lone surrogate U+{code:04X}, which is not text") from None
    return text


def _number(number: float, place: str) -> float:
    fits = INT64_MIN <= number <= UINT64_MAX if isinstance(number, int) else math.isfinite(number)
    if not fits and not _is_double(number):
        raise AuditValidationError(place, "is a number neither of 64 bits nor exactly a double: send it as text")
    return number


def _is_double(number: float) -> bool:
    """Whether the digits of a large integer are exactly those that a double is written with."""
    try:
        return Decimal(number) == Decimal(repr(float(number)))
    except OverflowError:
        return False

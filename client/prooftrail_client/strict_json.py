"""JSON out, such that the service takes it back without a change: what it would refuse is refused here, with its place.

The standard library's encoder does the work; its text and the keys are then looked at for what only a closer look can
judge.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from prooftrail_client.errors import AuditValidationError

if TYPE_CHECKING:
    from prooftrail_client.redaction import Redaction

MAX_DEPTH = 128  # levels, as the service has it
INT64_MIN, UINT64_MAX = -(2**63), 2**64 - 1
MOST_KNOWN_KEYS = 10_000
FREE = ("before", "after", "metadata")  # the fields in which a producer may put any JSON
_CONTAINERS = frozenset({dict, list, tuple})
_SCALARS = frozenset({str, float, bool, type(None)})


class _NotPlain(Exception):
    """A closer look is needed."""


class Encoder:
    """Writes documents without what a `Redaction` hides. It remembers the keys that it has met, for most come again."""

    def __init__(self, redaction: Redaction | None = None) -> None:
        self._redaction = redaction
        self._patterns = redaction is not None and redaction.has_patterns
        self._harmless: set[str] = set()  # keys that are text and hide nothing

    def encode(self, document: dict[str, Any]) -> bytes:
        """Write an event's document as JSON.

        Raises `AuditValidationError` with the place of what JSON, or the service, cannot hold.
        """
        try:
            # The other fields were checked when they were set.
            hidden = self._walk([document[name] for name in FREE if name in document], 1)
            text = _encode(self._redacted(document) if hidden or self._patterns else document)
            if "\\u0000" not in text:  # NUL, or text that looks like its escape
                return text.encode()
        except (_NotPlain, ValueError, TypeError):
            pass
        return _encode(_examined(self._redacted(document), "", 1)).encode()

    def _redacted(self, document: dict[str, Any]) -> dict[str, Any]:
        return document if self._redaction is None else self._redaction.applied(document)

    def _walk(self, value: Any, depth: int) -> bool:
        """Whether keys are there that hide something; of plain values only, all else needs the closer look."""
        if depth > MAX_DEPTH:
            raise _NotPlain
        hidden = False
        if type(value) is dict:
            if not self._harmless.issuperset(value):
                hidden = self._look_at_keys(value)
            value = value.values()
        for item in value:
            kind = type(item)
            if kind in _CONTAINERS:
                hidden = self._walk(item, depth + 1) or hidden
            elif kind not in _SCALARS and not (kind is int and INT64_MIN <= item <= UINT64_MAX):
                raise _NotPlain
        return hidden

    def _look_at_keys(self, keys: Iterable[Any]) -> bool:
        hidden = False
        for key in keys:
            if type(key) is not str:
                raise _NotPlain
            if self._redaction is not None and self._redaction.hides(key):
                hidden = True
            elif len(self._harmless) < MOST_KNOWN_KEYS:
                self._harmless.add(key)
        return hidden


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


def _refuse(_value: Any) -> NoReturn:
    raise _NotPlain


def _encoder() -> Callable[[Any], str]:
    """The standard library's encoder, its C part made once where there is one: `JSONEncoder.encode` makes it each time."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        settings = json.JSONEncoder(
            ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"), default=_refuse
        )
        return settings.encode
    chunks = make(None, _refuse, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(chunks(value, 0))


_encode = _encoder()


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
        return math.isfinite(number) and Decimal(number) == Decimal(repr(float(number)))
    except OverflowError:
        return False

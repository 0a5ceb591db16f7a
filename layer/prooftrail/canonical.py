"""Canonical JSON (RFC 8785) at full speed: the same bytes as `prooftrail.ledger.canonical`, by msgspec.

msgspec's sorted form is the canonical one but for floats, which are given to it already written, and for keys beyond the
Basic Multilingual Plane, which UTF-16 sorts otherwise than UTF-8: those are left to the ledger's exact way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from prooftrail.ledger import canonical as exact

_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class _NotPlain(Exception):
    """The value holds what msgspec would not write canonically."""


def encode(value: Any) -> bytes:
    """Encode plain values (str, int, float, bool, None, dict, list) canonically, as UTF-8.

    Raises `ledger.canonical.NotCanonical` for what JSON cannot hold.
    """
    try:
        return _encode_sorted(_with_floats_written(value))
    except (_NotPlain, UnicodeEncodeError):
        return exact.encode(value)


def _with_floats_written(value: Any) -> Any:
    """The value itself, or a copy of its containers as far as there are floats in them."""
    members: Iterable[tuple[Any, Any]]
    kind = type(value)
    if kind is float:
        return msgspec.Raw(exact.number(value))
    if kind is dict:
        if not _is_bmp("".join(value)):
            raise _NotPlain
        members = value.items()
    elif kind is list:
        members = enumerate(value)
    else:
        return value
    copy = None
    for place, item in members:
        kind = type(item)
        if kind is float or kind is dict or kind is list:
            written = _with_floats_written(item)
            if written is not item:
                copy = copy or value.copy()
                copy[place] = written
    return copy or value


def _is_bmp(text: str) -> bool:
    return text.isascii() or max(text) < "\U00010000"

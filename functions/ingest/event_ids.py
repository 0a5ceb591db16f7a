"""Ids for events that came over HTTP without one."""

from __future__ import annotations

import os
import time
import uuid

_OF_KEYS = uuid.UUID("5a5ab2dc-7c8a-4a45-9b3a-6f6c3f0c8d5e")  # any; it must never change


def new() -> str:
    """A UUIDv7: 48 bits of Unix time in milliseconds, 12 of its fraction, then chance (RFC 9562 5.7 and 6.2, method 3)."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    chance = int.from_bytes(os.urandom(8), "big") >> 2
    fraction = nanoseconds * 4096 // 1_000_000
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | chance))


def derived(idempotency_key: str, number: int) -> str:
    """The id of the event at this place of a request with this key; a retry derives it again (UUIDv5, RFC 9562 5.5)."""
    return str(uuid.uuid5(_OF_KEYS, f"{number}:{idempotency_key}"))

"""That a format loses nothing: every value of a document is in the event that it became."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

from prooftrail.event import Event

LATEST = datetime(2100, 1, 1, tzinfo=UTC)

# Text that JSON, UTF-8 and PostgreSQL can hold, and numbers that are the same for all.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)


def leaves(value: Any) -> Iterator[tuple[type, Any]]:
    """All values in a document that are no objects or lists; null says nothing, and is none."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield type(value), value


def lost(document: Any, event: Event) -> Counter[tuple[type, Any]]:
    """The values of the document that the event has not, or not as often; in which of its fields does not matter."""
    return Counter(leaves(document)) - Counter(leaves(msgspec.to_builtins(event)))

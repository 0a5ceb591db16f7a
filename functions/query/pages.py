"""Lists, page by page: where one ends, and the cursor that leads to the next."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from prooftrail import search

PAGE_BYTES = 2_000_000  # of items in one answer; escaped once more it must stay below Lambda's 6 MB

_Place = TypeVar("_Place", bound=tuple[Any, ...])
_Item = TypeVar("_Item")


def page_of(found: list[_Item], limit: int) -> tuple[list[_Item], _Item | None]:
    """Cut a page where `limit` or `PAGE_BYTES` says, after one item at least; and its last item, if more were found."""
    page: list[_Item] = []
    size = 0
    for item in found[:limit]:
        size += len(msgspec.json.encode(item))
        if page and size > PAGE_BYTES:
            break
        page.append(item)
    return page, page[-1] if len(page) < len(found) else None


def cursor_after(place: tuple[Any, ...] | None) -> str | None:
    """The cursor that leads on from a place in the list's order, None where there is nothing more."""
    return None if place is None else search.encode_cursor(place)


def place_before(cursor: str | None, kind: type[_Place]) -> _Place | None:
    """The place that a cursor leads on from. Raises `search.InvalidCursor` for one that no list of the kind gave out."""
    if cursor is None:
        return None
    place = search.decode_cursor(cursor, kind)
    if any("\0" in value for value in place if isinstance(value, str)):  # which nothing that is stored has
        raise search.InvalidCursor
    return place

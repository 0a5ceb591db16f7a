"""What the tables of the formats are applied with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

import msgspec

from prooftrail.errors import InvalidRecord
from prooftrail.event import LONGEST_IDENTIFIER, Event


def move(rest: dict[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """Take out of `rest` what the table (theirs -> ours) names, under our names."""
    return {ours: rest.pop(theirs) for theirs, ours in table.items() if theirs in rest}


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


def is_identifier(value: Any) -> bool:
    """Tell whether a value may identify an actor or a target; where none does, `metadata` still has them all."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_IDENTIFIER


def convert(fields: dict[str, Any]) -> Event:
    """Check the fields' types and limits and make the event, its time in UTC.

    Raises `InvalidRecord` or `msgspec.ValidationError` with the path of the field, what was expected and what came.
    """
    event = msgspec.convert(fields, Event)
    try:
        return msgspec.structs.replace(event, time=event.time.astimezone(UTC))
    except OverflowError:
        raise InvalidRecord(
            "time-out-of-range", f"time is {event.time.isoformat()}, in UTC beyond the years 1 to 9999"
        ) from None

"""What the tables of the formats are applied with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from prooftrail.errors import InvalidRecord
from prooftrail.event import LONGEST_IDENTIFIER, LONGEST_LABEL, Event


def move(rest: dict[str, Any], table: Mapping[str, str]) -> dict[str, Any]:
    """Take out of `rest` what the table (theirs -> ours) names, under our names."""
    return {ours: rest.pop(theirs) for theirs, ours in table.items() if theirs in rest}


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are None."""
    return {name: value for name, value in fields.items() if value is not None}


def is_identifier(value: Any) -> bool:
    """Tell whether a value may identify an actor or a target; where none does, `metadata` still has them all."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_IDENTIFIER


def find(document: Any, *path: str | int) -> Any:
    """What stands at a path of names and places in lists; None where nothing does."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    return document


def first_identifier(*values: Any) -> str | None:
    """The first of the values that may identify an actor or a target; a number does as its digits."""
    texts = (str(value) if type(value) is int else value for value in values)
    return next(filter(is_identifier, texts), None)


def first_text(*values: Any, longest: int = LONGEST_LABEL) -> str | None:
    """The first of the values that is text, neither empty nor too long for the field that it is to go into."""
    return next((value for value in values if isinstance(value, str) and 0 < len(value) <= longest), None)


def convert(fields: dict[str, Any]) -> Event:
    """Check the fields' types and limits and make the event, its time in UTC.

    Raises `InvalidRecord` with the path of every wrong field, what was expected and what came.
    """
    try:
        event = msgspec.convert(fields, Event)
    except msgspec.ValidationError:
        raise _invalid(fields) from None
    try:
        return msgspec.structs.replace(event, time=event.time.astimezone(UTC))
    except OverflowError:
        raise InvalidRecord(
            "time-out-of-range",
            f"time is {event.time.isoformat()}, in UTC beyond the years 1 to 9999",
            {"time": "expected a time whose year in UTC is between 1 and 9999"},
        ) from None


# What stands in for a required field while the others are looked at.
_STAND_INS = {"id": "-", "time": datetime(1970, 1, 1, tzinfo=UTC), "tenant": "x", "source": "-", "action": "-"}
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_AT = re.compile(r" - at `\$\.(\w+)(?:\.(\w+))?[^`]*`\Z")


def _invalid(fields: Mapping[str, Any]) -> InvalidRecord:
    """Find every wrong field: msgspec names the first one, so that one is put right and the rest is asked again."""
    draft = {name: dict(value) if isinstance(value, dict) else value for name, value in fields.items()}
    wrong: dict[str, str] = {}
    messages: list[str] = []
    while message := _fault(draft):
        missing, at = _MISSING.fullmatch(message), _AT.search(message)
        name, member = (missing[1], None) if missing else at.groups() if at else ("", None)
        path = f"{name}.{member}" if member else name
        messages.append(message)
        if not name or path in wrong:
            break
        wrong[path] = _AT.sub("", message)
        if member and isinstance(draft[name], dict):
            del draft[name][member]
        elif name in _STAND_INS:
            draft[name] = _STAND_INS[name]
        else:
            del draft[name]
    return InvalidRecord("invalid-field", "; ".join(messages), wrong)


def _fault(fields: Mapping[str, Any]) -> str | None:
    try:
        msgspec.convert(fields, Event)
    except msgspec.ValidationError as error:
        return str(error)
    return None

"""The spellings of time that producers use, and their one RFC 3339 text: exact, so that nothing is rounded on the way.

- text: RFC 3339, with a space for the ``T``, without seconds (``OffsetDateTime.toString``), with ``+0000`` or ``+00`` for
  the offset, with a zone's name in brackets (``ZonedDateTime``), as Go's ``Time.String`` writes it, or without a zone
- numbers, also as text: seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size
- arrays: ``[year, month, day, hour, minute, second, nanosecond]``, the last ones left out where they are zero (Jackson)
- objects: ``{"seconds": …, "nanos": …}`` (Protocol Buffers), ``{"epochSecond": …, "nano": …}`` (a Java ``Instant``)

A time without a zone is in the zone that the caller names, else in UTC. Where a clock was set back, it is the first of two.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any

from prooftrail.errors import InvalidRecord

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A number below the first is seconds (to the year 5138), below the second milliseconds (from March 1973), and so on.
_UNITS = ((10**11, 0), (10**14, 3), (10**17, 6), (10**20, 9))

_TEXT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(:\d\d)?(?:[.,](\d+))?"
    r" ?(?:([Zz]|UTC)|([+-]\d\d)(?::?(\d\d))?(?: [A-Z]{3,5}| [+-]\d\d(?:\d\d)?)?(?: m=[+-][\d.]+)?)?(?:\[([^\]\[]+)\])?",
    re.ASCII,
)
_NUMBER = re.compile(r"-?\d{1,20}(?:\.\d{1,20})?", re.ASCII)
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d\d?)(?::?(\d\d))?", re.ASCII)
_FINER = re.compile(r"\.\d{6}\d*[1-9]")
_NAMED = re.compile(r"\[| [A-Z]{3,5}| m=", re.ASCII)
_ZERO = re.compile(r"0001-01-01T00:00:00(?:Z|[+-]\d\d:\d\d)?", re.ASCII)


def rfc3339(value: Any, zone: tzinfo = UTC) -> str | None:
    """Spell a time as RFC 3339 with all its digits; None where `value` is no time that is known here.

    Raises `InvalidRecord` where the text names a zone that does not exist.
    """
    if isinstance(value, str):
        return _from_number(value) if _NUMBER.fullmatch(value) else _from_text(value, zone)
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _from_number(repr(value))
    if isinstance(value, list):
        return _from_array(value, zone)
    return _from_object(value) if isinstance(value, dict) else None


def is_finer(text: str) -> bool:
    """Tell whether a text of RFC 3339 is finer than microseconds, which are what PostgreSQL keeps."""
    return _FINER.search(text) is not None


def says_more(value: Any, text: str) -> bool:
    """Tell whether the producer's spelling says more than the instant that is kept of it: finer, or with a zone's name."""
    return is_finer(text) or (isinstance(value, str) and _NAMED.search(value) is not None)


def is_zero(value: Any) -> bool:
    """Tell whether this is Go's zero ``Time``, which means that there is none."""
    return isinstance(value, str) and _ZERO.fullmatch(value) is not None


def from_unit(value: Any, digits: int) -> str | None:
    """Spell a whole number of ``10**-digits`` seconds since 1970, also as text, whose unit is known by its name."""
    if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,20}", str(value), re.ASCII):
        return None
    return _since_1970(int(value), digits)


def zone(name: str) -> tzinfo:
    """The zone of an offset (``+02:00``) or of a name (``Europe/Berlin``).

    Raises `InvalidRecord` where there is none of that name.
    """
    if name in {"Z", "UTC", "GMT"}:
        return UTC
    offset = _OFFSET.fullmatch(name)
    try:
        return _fixed(offset[1], int(offset[2]), int(offset[3] or 0)) if offset else _named(name)
    except (LookupError, ValueError, OSError):  # what zoneinfo raises for a name that is none
        detail = f"expected a zone such as Europe/Berlin or +02:00, got {name[:64]!a}"
        raise InvalidRecord("invalid-field", f"{detail} - for a time") from None


def _fixed(sign: str, hours: int, minutes: int) -> tzinfo:
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if sign == "-" else offset)


def _named(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo  # few records need it

    return ZoneInfo(name)


def _from_text(text: str, local: tzinfo) -> str | None:
    match = _TEXT.fullmatch(text)
    if match is None:
        return None
    date, minutes, seconds, fraction, utc, hours, rest, name = match.groups()
    if utc or hours:
        offset = "Z" if utc else f"{hours}:{rest or '00'}"
        return f"{date}T{minutes}{seconds or ':00'}{_fraction(fraction)}{offset}"
    return _in_utc(f"{date}T{minutes}{seconds or ':00'}", fraction, zone(name) if name else local)


def _from_array(parts: list[Any], local: tzinfo) -> str | None:
    if not 3 <= len(parts) <= 7 or not all(type(part) is int and 0 <= part < 10**9 for part in parts):
        return None
    year, month, day, hour, minute, second, nanosecond = parts + [0] * (7 - len(parts))
    text = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    return _in_utc(text, f"{nanosecond:09d}".rstrip("0"), local)


def _from_object(parts: dict[str, Any]) -> str | None:
    seconds, nanos = (
        parts.get("seconds", parts.get("epochSecond")), parts.get("nanos", parts.get("nano", 0)),
    )  # fmt: skip
    known = parts.keys() <= {"seconds", "nanos"} or parts.keys() <= {"epochSecond", "nano"}
    if not known or type(seconds) is not int or type(nanos) is not int or not 0 <= nanos < 10**9:
        return None
    return _since_1970(seconds * 10**9 + nanos, 9)


def _from_number(text: str) -> str | None:
    number = Decimal(text)
    digits = next((digits for limit, digits in _UNITS if abs(number) < limit), None)
    if digits is None:
        return None
    numerator, denominator = number.as_integer_ratio()
    places = max(0, -int(number.as_tuple().exponent))
    return _since_1970(numerator * 10**places // denominator, digits + places)


def _since_1970(count: int, digits: int) -> str | None:
    seconds, rest = divmod(count, 10**digits)
    try:
        whole = EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return None
    return f"{whole.isoformat()[:19]}{_fraction(str(rest).zfill(digits).rstrip('0'))}Z"


def _in_utc(text: str, fraction: str | None, local: tzinfo) -> str | None:
    try:
        whole = datetime.fromisoformat(text).replace(tzinfo=local).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{whole.isoformat()[:19]}{_fraction(fraction)}Z"


def _fraction(digits: str | None) -> str:
    return f".{digits}" if digits else ""

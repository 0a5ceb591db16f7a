"""Times come out to the last digit, however they were spelled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prooftrail.errors import InvalidRecord
from prooftrail.formats import times
from tests.leaves import JSON

NANOS = st.integers(0, 253402300799 * 10**9)  # to the end of the year 9999
RECENT = st.integers(10**9 * 10**9, 10**10 * 10**9)  # 2001 to 2286: where seconds and their parts are told apart
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def text_of(nanos: int) -> str:
    """What RFC 3339 makes of nanoseconds since 1970, by arithmetic of its own."""
    whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=nanos // 10**9)
    fraction = f"{nanos % 10**9:09d}".rstrip("0")
    return f"{whole:%Y-%m-%dT%H:%M:%S}".zfill(19) + (f".{fraction}" if fraction else "") + "Z"


@given(RECENT)
def test_nanoseconds_since_1970_are_exact_however_they_are_counted(nanos: int) -> None:
    seconds, rest = divmod(nanos, 10**9)
    spelled = [nanos, str(nanos), f"{seconds}.{rest:09d}", {"seconds": seconds, "nanos": rest}]
    spelled += [{"epochSecond": seconds, "nano": rest}]
    assert {times.rfc3339(value) for value in spelled} == {text_of(nanos)}


@given(RECENT, st.sampled_from([0, 3, 6, 9]))
def test_the_unit_of_a_number_is_told_by_its_size(nanos: int, digits: int) -> None:
    count = nanos // 10 ** (9 - digits)
    assert times.rfc3339(count) == times.from_unit(count, digits) == text_of(count * 10 ** (9 - digits))


@given(st.floats(10**9, 10**10))
def test_a_float_is_the_shortest_number_that_it_prints_as(seconds: float) -> None:
    text = times.rfc3339(seconds)
    assert text is not None
    whole, _, fraction = text.rstrip("Z").partition(".")
    found = Decimal(int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())) + Decimal(f"0.{fraction or 0}")
    assert found == Decimal(repr(seconds))


@given(NANOS)
def test_an_array_of_jackson_leaves_out_zeros_at_its_end(nanos: int) -> None:
    whole = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=nanos // 10**9)
    parts = [whole.year, whole.month, whole.day, whole.hour, whole.minute, whole.second, nanos % 10**9]
    while len(parts) > 5 and parts[-1] == 0:
        del parts[-1]
    assert times.rfc3339(parts) == text_of(nanos)


@given(NANOS, OFFSETS, st.sampled_from(["T", "t", " "]), st.booleans())
def test_an_offset_is_kept_and_only_its_spelling_mended(nanos: int, offset: timezone, between: str, colon: bool) -> None:
    local = datetime(2001, 1, 1, tzinfo=UTC).astimezone(offset)
    fraction = f"{nanos % 10**9:09d}"
    hours = f"{local:%z}"
    spelled = f"{local:%Y-%m-%d}{between}{local:%H:%M:%S}.{fraction}{hours[:3]}{':' if colon else ''}{hours[3:]}"
    assert times.rfc3339(spelled) == f"{local:%Y-%m-%dT%H:%M:%S}.{fraction}{hours[:3]}:{hours[3:]}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-10-01T12:00Z", "2026-10-01T12:00:00Z"),
        ("2026-10-01T12:00+02", "2026-10-01T12:00:00+02:00"),
        ("2026-10-01 12:00:00.5 +0200 CEST m=+0.000123", "2026-10-01T12:00:00.5+02:00"),
        ("2026-10-01 12:00:00 +0000 UTC", "2026-10-01T12:00:00+00:00"),
        ("2026-10-01 12:00:00 +0300 +03", "2026-10-01T12:00:00+03:00"),
        ("2026-10-01T12:00:00+02:00[Europe/Berlin]", "2026-10-01T12:00:00+02:00"),
        ("2026-07-01T12:00:00[Europe/Berlin]", "2026-07-01T10:00:00Z"),
        ("2026-10-01T12:00:00,123", "2026-10-01T12:00:00.123Z"),
        ([2026, 10, 1], "2026-10-01T00:00:00Z"),
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (-0.5, "1969-12-31T23:59:59.5Z"),
        (1_790_000_000.25, "2026-09-21T14:13:20.25Z"),
    ],
)
def test_other_spellings(value: Any, expected: str) -> None:
    assert times.rfc3339(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None, True, "", "yesterday", "2026-10-01", "2026-13-01T00:00:00", "12:00", "2026-10-01 12:00:00 CEST", [],
        [2026, 13, 1], [2026, 1], [2026, 1, 1, 0, 0, 0, 0, 0], [2026, 1, 1, "0"], [2026, True, 1], {}, {"nanos": 1},
        {"seconds": "1"},
        {"seconds": 1, "nanos": 10**9}, {"seconds": 1, "more": 1}, 10**20, 1e300, "1e9",
    ],
)  # fmt: skip
def test_what_is_no_time_is_none(value: Any) -> None:
    assert times.rfc3339(value) is None


@given(JSON | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers(), max_size=8))
@example([9999, 12, 31, 23, 59, 59, 999_999_999])
@example("9999-12-31T23:59:59-23:59")
@example({"seconds": 2**53})
def test_any_value_has_a_text_or_none(value: Any) -> None:
    text = times.rfc3339(value, timezone(timedelta(hours=-12)))
    assert text is None or times.rfc3339(text) == text


class TestZones:
    @pytest.mark.parametrize("name", ["America/Chicago", "-05:00", "-0500", "UTC-5", "GMT-5"])
    def test_a_time_without_one_is_in_the_one_that_is_named(self, name: str) -> None:
        assert times.rfc3339("2026-07-01T12:00:00.5", times.zone(name)) == "2026-07-01T17:00:00.5Z"
        assert times.rfc3339([2026, 7, 1, 12, 0], times.zone(name)) == "2026-07-01T17:00:00Z"

    @pytest.mark.parametrize("value", ["2026-07-01T12:00:00Z", 1_782_907_200, 1_782_907_200_000])
    def test_a_time_with_one_keeps_it(self, value: Any) -> None:
        assert times.rfc3339(value, ZoneInfo("America/Chicago")) == "2026-07-01T12:00:00Z"

    def test_an_hour_that_is_there_twice_is_the_first(self) -> None:
        assert times.rfc3339("2026-10-25T02:30:00", ZoneInfo("Europe/Berlin")) == "2026-10-25T00:30:00Z"

    @pytest.mark.parametrize("name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "+25:00", "Europe", "CST!"])
    def test_one_that_does_not_exist_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(InvalidRecord, match="expected a zone such as") as refused:
            times.zone(name)
        assert repr(name) in refused.value.detail


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "0001-01-01T00:00:00"])
def test_gos_zero_time_is_none_at_all(text: str) -> None:
    assert times.is_zero(text)
    assert not times.is_zero(f"{text} was no time")
    assert not times.is_zero("0001-01-02T00:00:00Z")

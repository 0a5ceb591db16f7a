"""JSON in: what is refused and why, and that the fast way never differs from the exact one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import strict_json
from prooftrail.errors import InvalidRecord
from tests.conftest import DATA

SUITE = DATA / "json_test_suite" / "test_parsing"
REASONS = {
    "not-utf8",
    "invalid-json",
    "too-deep",
    "duplicate-key",
    "nul-character",
    "lone-surrogate",
    "number-not-representable",
}
# Valid JSON that we refuse all the same: our documented stricter rules.
STRICTER = {
    "y_object_duplicated_key.json": "duplicate-key",
    "y_object_duplicated_key_and_value.json": "duplicate-key",
    "y_object_escaped_null_in_key.json": "nul-character",
    "y_string_null_escape.json": "nul-character",
}


def verdict(body: bytes) -> Any:
    """The decoded value, or the reason why there is none."""
    try:
        return "decoded", strict_json.decode(body)
    except InvalidRecord as error:
        return "refused", error.reason


def exactly(body: bytes) -> Any:
    try:
        return "decoded", strict_json._decode_exact(body)
    except InvalidRecord as error:
        return "refused", error.reason


def suite(prefix: str) -> list[Path]:
    """The suite's files; where they are absent, one parameter that skips and says so."""
    files = sorted(SUITE.glob(f"{prefix}_*.json"))
    reason = f"JSONTestSuite is not in {SUITE}: set PROOFTRAIL_TEST_DATA"
    return files or [pytest.param(SUITE, marks=pytest.mark.skip(reason=reason))]  # type: ignore[list-item]


@pytest.mark.skipif(not SUITE.is_dir(), reason="JSONTestSuite is absent: set PROOFTRAIL_TEST_DATA")
def test_the_suite_is_whole() -> None:
    assert [len(suite(prefix)) for prefix in "yni"] == [95, 188, 35]


@pytest.mark.parametrize("file", suite("y"), ids=lambda file: file.name)
def test_valid_json_is_decoded_as_the_standard_library_does_unless_a_stricter_rule_refuses_it(file: Path) -> None:
    body = file.read_bytes()
    if file.name in STRICTER:
        assert verdict(body) == ("refused", STRICTER[file.name])
    else:
        assert verdict(body) == ("decoded", json.loads(body))


@pytest.mark.parametrize("file", suite("n"), ids=lambda file: file.name)
def test_invalid_json_is_refused(file: Path) -> None:
    assert verdict(file.read_bytes())[0] == "refused"


@pytest.mark.parametrize("file", suite("i"), ids=lambda file: file.name)
def test_where_the_standard_leaves_it_open_the_verdict_is_one_and_the_same_for_both_ways(file: Path) -> None:
    body = file.read_bytes()
    assert verdict(body) == verdict(body) == exactly(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "not-utf8"),
        (b'"\xed\xa0\x80"', "not-utf8"),
        (b'{"a": "\xc0\x80"}', "not-utf8"),
        ('{"a": 1}'.encode("utf-16"), "not-utf8"),
        (b"", "invalid-json"),
        (b"\xef\xbb\xbf{}", "invalid-json"),
        (b"{} {}", "invalid-json"),
        (b"[1,]", "invalid-json"),
        (b"NaN", "invalid-json"),
        (b"[Infinity]", "invalid-json"),
        (b"-Infinity", "invalid-json"),
        (b"01", "invalid-json"),
        (b"1.", "invalid-json"),
        (b'"a\nb"', "invalid-json"),
        (b'"\x00"', "invalid-json"),
        (b'{"a":1,"a":1}', "duplicate-key"),
        (b'{"a" :1,"a" :2,"b":"\\":"}', "duplicate-key"),
        (b'{"a"  :1,"a"  :2,"b":"\\":"}', "duplicate-key"),
        (b'{"a" \t:1,"a"\n\n:2,"b":"\\":"}', "duplicate-key"),
        (b'{"a":1,"\\u0061":2}', "duplicate-key"),
        (b'[{"b":{"a":1,"c":[],"a":null}}]', "duplicate-key"),
        (b'"\\u0000"', "nul-character"),
        (b'{"\\u0000":1}', "nul-character"),
        (b'"\\ud800"', "lone-surrogate"),
        (b'{"\\uDFFF":1}', "lone-surrogate"),
        (b'"\\udc00\\ud800"', "lone-surrogate"),
    ],
)
def test_each_fault_has_its_reason(body: bytes, reason: str) -> None:
    assert verdict(body) == ("refused", reason)


@pytest.mark.parametrize("body", [b'"\\ud834\\udd1e"', b'"\\\\ud800"', b'"\\\\u0000"', b'{"a":"\\":","b":":"}'])
def test_what_only_looks_like_a_fault_is_decoded(body: bytes) -> None:
    assert verdict(body) == ("decoded", json.loads(body))


@pytest.mark.parametrize(
    "number",
    [
        "1e400",
        "-1e400",
        "1e-999",
        "18446744073709551616",
        "-9223372036854775809",
        "1.000000000000000005",
        "0.10000000000000001",
        "1e-999999999999999999999",
        "0e-999999999999999999999",
        "1e999999999999999999999",
        "9" * 10_000,
        "1" + "0" * 10_000,
        "0." + "1" * 10_000,
        "1e" + "9" * 10_000,
        str(10**30 + 1),
    ],
    ids=lambda number: number[:30],
)
@pytest.mark.parametrize("around", ["{}", "[{}]", '{{"a": {}}}'])
def test_a_number_that_would_be_changed_is_refused(number: str, around: str) -> None:
    assert verdict(around.format(number).encode()) == ("refused", "number-not-representable")


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("-9223372036854775808", -(2**63)),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1e16", 1e16),
        ("1E+2", 100.0),
        ("1.50", 1.5),
        ("5e-324", 5e-324),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("0e999", 0.0),
        ("10000000000000000000000", 1e22),
        (format(1.7976931348623157e308, ".0f")[:17] + "0" * 292, 1.7976931348623157e308),
    ],
    ids=lambda given: str(given)[:30],
)
def test_a_number_that_is_held_exactly_is_kept(number: str, value: float) -> None:
    assert verdict(number.encode()) == ("decoded", value)
    assert type(strict_json.decode(number.encode())) is type(value)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('{"a" :', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("leaf", ["1", '"text"', "null", "1.5"])
def test_depth_is_counted_in_arrays_and_objects_whichever_way_is_taken(opening: str, closing: str, leaf: str) -> None:
    levels = strict_json.MAX_DEPTH // len(closing)
    deepest = (opening * levels + leaf + closing * levels).encode()
    assert verdict(deepest) == exactly(deepest) == ("decoded", json.loads(deepest))
    deeper = (opening * (levels + 1) + leaf + closing * (levels + 1)).encode()
    assert verdict(deeper) == exactly(deeper) == ("refused", "too-deep")


def test_depth_beyond_any_stack_is_refused() -> None:
    assert verdict(b"[" * 1_000_000)[0] == "refused"
    assert verdict(b'{"a":' * 100_000 + b"1" + b"}" * 100_000) == ("refused", "too-deep")


# JSON texts, not values: what a producer may write, with the spaces, escapes, twins and numbers that parsers differ on.
spaces = st.text(" \t\r\n", max_size=3)
strings = st.one_of(
    st.text(max_size=6).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(max_size=6).map(json.dumps),
    st.lists(st.sampled_from(['\\"', ":", '\\":', "\\\\", "a", " ", "\\u0061", "\\u0000", "\\ud834", "\\uDD1E"])).map(
        lambda parts: f'"{"".join(parts)}"'
    ),
)
numbers = st.one_of(
    st.integers().map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
)
keys = st.one_of(st.sampled_from(['"a"', '"b"', '"\\u0061"', '"a\\":"']), strings)


def _padded(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(spaces, parts, spaces).map("".join)


def _containers(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.tuples(_padded(keys), _padded(items)).map(":".join)
    return st.one_of(
        st.lists(_padded(items), max_size=4).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(members, max_size=4).map(lambda parts: f"{{{','.join(parts)}}}"),
    )


texts = _padded(
    st.recursive(st.one_of(strings, numbers, st.sampled_from(["true", "false", "null"])), _containers, max_leaves=12)
)


@given(texts)
def test_the_fast_way_and_the_exact_one_agree_on_every_text(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    assert repr(verdict(body)) == repr(exactly(body))


@given(texts, st.binary(min_size=1, max_size=3), st.integers(0, 200))
def test_they_agree_on_damaged_texts_too(text: str, damage: bytes, place: int) -> None:
    body = text.encode("utf-8", "surrogatepass")
    damaged = body[:place] + damage + body[place + 1 :]
    assert repr(verdict(damaged)) == repr(exactly(damaged))


@given(st.binary(max_size=50))
def test_any_bytes_are_decoded_or_refused_with_a_known_reason(body: bytes) -> None:
    outcome, got = verdict(body)
    assert outcome == "decoded" or got in REASONS


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(st.characters(), max_size=8),
    lambda items: st.lists(items, max_size=4) | st.dictionaries(st.text(st.characters(), max_size=4), items, max_size=4),
    max_leaves=12,
)


@given(values, st.sampled_from([None, 1]), st.booleans())
def test_what_json_writes_comes_back_equal_or_is_refused_for_a_documented_reason(
    value: Any, indent: int | None, ascii_only: bool
) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    outcome, got = verdict(body)
    if outcome == "decoded":
        assert got == value
    elif "NaN" not in str(body) and "Infinity" not in str(body):
        assert got in {"nul-character", "lone-surrogate", "number-not-representable", "not-utf8"}


def test_numbers_that_postgresql_would_write_with_endless_digits_are_bounded() -> None:
    few, many = ["1e300"] * 1000, ["1e-300", "1e300"] * 1000
    assert strict_json.decode(f"[{','.join(few)}]".encode()) == [1e300] * 1000
    with pytest.raises(InvalidRecord) as refused:
        strict_json.decode(f"[{','.join(many)}]".encode())
    assert refused.value.reason == "number-not-representable"

"""Canonical JSON: RFC 8785's own vectors, a second implementation, and what we add to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import canonical, strict_json
from tests.conftest import DATA

VECTORS = DATA / "jcs" / "testdata"

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
doubles = st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | doubles | texts,
    lambda items: st.lists(items, max_size=4) | st.dictionaries(texts, items, max_size=5),
    max_leaves=16,
)


def vectors() -> list[Path]:
    """RFC 8785's test data; where it is absent, one parameter that skips and says so."""
    files = sorted(VECTORS.glob("input/*.json"))
    reason = f"RFC 8785's vectors are not in {VECTORS}: set PROOFTRAIL_TEST_DATA"
    return files or [pytest.param(VECTORS, marks=pytest.mark.skip(reason=reason))]  # type: ignore[list-item]


@pytest.mark.parametrize("file", vectors(), ids=lambda file: file.stem)
def test_the_vectors_of_the_standard_hold_to_the_byte(file: Path) -> None:
    expected = bytes.fromhex((VECTORS / "outhex" / f"{file.stem}.txt").read_text())
    assert canonical.encode(json.loads(file.read_bytes())) == expected


@given(documents)
def test_agrees_with_a_second_implementation(document: Any) -> None:
    assert canonical.encode(document) == rfc8785.dumps(document)


@given(doubles | st.integers(-400, 400).map(lambda exponent: 10.0**exponent if abs(exponent) < 308 else 5e-324))
def test_a_double_of_any_magnitude_is_written_as_ecmascript_does(number: float) -> None:
    assert canonical.encode(number) == rfc8785.dumps(number)
    assert float(canonical.encode(number)) == number


@given(st.dictionaries(st.text("a\u00e9\ue000\uffff\U00010000\U0010ffff", max_size=2), st.integers(0, 9)))
def test_keys_are_in_the_order_of_utf_16(document: dict[str, int]) -> None:
    assert canonical.encode(document) == rfc8785.dumps(document)


@given(st.integers(-(2**63), 2**64 - 1))
def test_an_integer_of_64_bits_keeps_its_digits(number: int) -> None:
    assert canonical.encode(number) == str(number).encode()
    # The slow way, which a float beside it asks for, writes it alike.
    assert canonical.encode([number, 0.5]) == f"[{number},0.5]".encode()


@given(documents)
def test_equal_values_give_equal_bytes_however_they_were_written(document: Any) -> None:
    written = json.dumps(document, indent=2, sort_keys=False)
    backwards = json.loads(written, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert canonical.encode(backwards) == canonical.encode(document)


@given(documents)
def test_the_bytes_are_read_back_to_a_value_of_the_same_bytes(document: Any) -> None:
    written = canonical.encode(document)
    assert canonical.encode(strict_json.decode(written)) == written


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-0.0, b"0"),
        (1.0, b"1"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (1e-6, b"0.000001"),
        (1e-7, b"1e-7"),
        (5e-324, b"5e-324"),
        (-1.7976931348623157e308, b"-1.7976931348623157e+308"),
        ('\x00\x1f\x7f\u2028\b\t\n\f\r"\\/', b'"\\u0000\\u001f\x7f\xe2\x80\xa8\\b\\t\\n\\f\\r\\"\\\\/"'),
        ({}, b"{}"),
        ([[], {"": None}, True], b'[[],{"":null},true]'),
    ],
)
def test_forms_that_are_easy_to_get_wrong(value: Any, expected: bytes) -> None:
    assert canonical.encode(value) == expected
    # The same beside a float, which takes the slow way.
    assert canonical.encode([value, 0.5]) == b"[" + expected + b",0.5]"

"""Canonical JSON: RFC 8785's own vectors, a second implementation, and what we add to it.

All of it holds for the ledger's exact way and for the fast one alike. PROOFTRAIL_TEST_DOCUMENTS says how many random
documents are compared with the second implementation (a thousand take two seconds).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftrail import canonical, strict_json
from prooftrail.ledger import canonical as exact
from prooftrail.ledger.canonical import NotCanonical
from tests.conftest import DATA

VECTORS = DATA / "jcs" / "testdata"
PARTS = 4  # for as many processes
MANY = settings(max_examples=int(os.environ.get("PROOFTRAIL_TEST_DOCUMENTS", "1000")) // PARTS, deadline=None)

both_ways = pytest.mark.parametrize("encode", [exact.encode, canonical.encode], ids=["exact", "fast"])

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


@both_ways
@pytest.mark.parametrize("file", vectors(), ids=lambda file: file.stem)
def test_the_vectors_of_the_standard_hold_to_the_byte(file: Path, encode: Callable[[Any], bytes]) -> None:
    expected = bytes.fromhex((VECTORS / "outhex" / f"{file.stem}.txt").read_text())
    assert encode(json.loads(file.read_bytes())) == expected


@pytest.mark.parametrize("part", range(PARTS))
@MANY
@given(document=documents)
def test_both_ways_agree_with_a_second_implementation(document: Any, part: int) -> None:
    assert part < PARTS
    assert canonical.encode(document) == exact.encode(document) == rfc8785.dumps(document)


@given(doubles | st.integers(-400, 400).map(lambda exponent: 10.0**exponent if abs(exponent) < 308 else 5e-324))
def test_a_double_of_any_magnitude_is_written_as_ecmascript_does(number: float) -> None:
    assert canonical.encode(number) == exact.encode(number) == rfc8785.dumps(number)
    assert float(canonical.encode(number)) == number


@given(st.dictionaries(st.text("a\u00e9\ue000\uffff\U00010000\U0010ffff", max_size=2), st.integers(0, 9)))
def test_keys_are_in_the_order_of_utf_16(document: dict[str, int]) -> None:
    assert canonical.encode(document) == exact.encode(document) == rfc8785.dumps(document)


@both_ways
@given(number=st.integers(-(2**63), 2**64 - 1))
def test_an_integer_of_64_bits_keeps_its_digits(number: int, encode: Callable[[Any], bytes]) -> None:
    assert encode(number) == str(number).encode()
    assert encode([number, 0.5]) == f"[{number},0.5]".encode()


@given(documents)
def test_equal_values_give_equal_bytes_however_they_were_written(document: Any) -> None:
    written = json.dumps(document, indent=2, sort_keys=False)
    backwards = json.loads(written, object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert canonical.encode(backwards) == canonical.encode(document)


@given(documents)
def test_the_bytes_are_read_back_to_a_value_of_the_same_bytes(document: Any) -> None:
    written = canonical.encode(document)
    assert canonical.encode(strict_json.decode(written)) == written


@given(documents)
def test_encoding_leaves_the_value_as_it_was(document: Any) -> None:
    before = repr(document)
    canonical.encode(document)
    assert repr(document) == before


@both_ways
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-0.0, b"0"),
        (1.0, b"1"),
        (-1.5, b"-1.5"),
        (1e16, b"10000000000000000"),
        (-12345678901234567000.0, b"-12345678901234567000"),
        (1e20, b"100000000000000000000"),
        (1e21, b"1e+21"),
        (0.0001, b"0.0001"),
        (1e-6, b"0.000001"),
        (1.25e-6, b"0.00000125"),
        (1e-7, b"1e-7"),
        (5e-324, b"5e-324"),
        (-1.7976931348623157e308, b"-1.7976931348623157e+308"),
        ('\x00\x1f\x7f\u2028\b\t\n\f\r"\\/', b'"\\u0000\\u001f\x7f\xe2\x80\xa8\\b\\t\\n\\f\\r\\"\\\\/"'),
        ({}, b"{}"),
        ([[], {"": None}, True], b'[[],{"":null},true]'),
        ({"b": [1.0, {"y": 2.50, "x": []}], "a": False}, b'{"a":false,"b":[1,{"x":[],"y":2.5}]}'),
    ],
)
def test_forms_that_are_easy_to_get_wrong(value: Any, expected: bytes, encode: Callable[[Any], bytes]) -> None:
    assert encode(value) == expected
    assert encode([value, 0.5]) == b"[" + expected + b",0.5]"
    assert encode({"\U00010000": value}) == '{"\U00010000":'.encode() + expected + b"}"


@both_ways
@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (float("nan"), "expected a finite number, got nan"),
        ([{"a": float("-inf")}], "expected a finite number, got -inf"),
        ("a\ud800", "the lone surrogate U\\+D800"),
        ({"\udfff": 1}, "the lone surrogate U\\+DFFF"),
    ],
)
def test_what_json_cannot_hold_is_refused(value: Any, complaint: str, encode: Callable[[Any], bytes]) -> None:
    with pytest.raises(NotCanonical, match=complaint):
        encode(value)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [(b"bytes", "expected a value of JSON, got bytes"), ({1: 2}, "expected keys to be strings, got int")],
)
def test_the_exact_way_refuses_what_is_not_json(value: Any, complaint: str) -> None:
    with pytest.raises(NotCanonical, match=complaint):
        exact.encode(value)

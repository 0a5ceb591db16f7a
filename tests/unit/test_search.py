"""Cursors: a place in the order, good for one question, and nothing else passes for one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prooftrail import search
from prooftrail.search import InvalidCursor, Place, Question

QUESTION = Question("acme", since=datetime(2026, 1, 1, tzinfo=UTC), equal={"actor": "dr-lee"})
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
places = st.builds(Place, times, st.integers(1, 2**63 - 1), st.integers(0, 2**31 - 1))
questions = st.builds(
    Question,
    st.text(st.characters(exclude_categories=["Cs"])),
    st.none() | times,
    st.none() | times,
    st.dictionaries(st.sampled_from(sorted(search.FILTERS)), st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
)


@given(questions, places)
def test_a_cursor_leads_back_to_its_place_to_the_microsecond(question: Question, place: Place) -> None:
    cursor = search.encode_cursor(place, question.fingerprint())
    assert search.decode_cursor(cursor, Place, question.fingerprint()) == place
    assert len(cursor) <= 200
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(questions, questions, places)
def test_a_cursor_of_another_question_is_refused(question: Question, other: Question, place: Place) -> None:
    cursor = search.encode_cursor(place, question.fingerprint())
    if question == other:
        assert search.decode_cursor(cursor, Place, other.fingerprint()) == place
    else:
        with pytest.raises(InvalidCursor, match="another question"):
            search.decode_cursor(cursor, Place, other.fingerprint())


@given(st.text())
@example("")
@example("\ud800")
@example("A")
@example("AAAAAAAAAAA")
@example(base64.urlsafe_b64encode(QUESTION.fingerprint()).decode())
def test_any_garbage_is_an_invalid_cursor(garbage: str) -> None:
    with pytest.raises(InvalidCursor):
        search.decode_cursor(garbage, Place, QUESTION.fingerprint())


@given(st.binary(max_size=40))
def test_any_bytes_behind_the_right_fingerprint_are_a_place_or_an_invalid_cursor(tail: bytes) -> None:
    cursor = base64.urlsafe_b64encode(QUESTION.fingerprint() + tail).decode()
    try:
        place = search.decode_cursor(cursor, Place, QUESTION.fingerprint())
    except InvalidCursor:
        return
    assert isinstance(place, Place)


@pytest.mark.parametrize(
    "place", [["2026-01-01T00:00:00", 1, 0], ["x", 1, 0], [1, 2, 3], [], {"time": 1}, [datetime(2026, 1, 1, tzinfo=UTC), 1]]
)
def test_a_place_of_the_wrong_form_is_an_invalid_cursor(place: object) -> None:
    forged = base64.urlsafe_b64encode(QUESTION.fingerprint() + msgspec.msgpack.encode(place)).decode()
    with pytest.raises(InvalidCursor):
        search.decode_cursor(forged, Place, QUESTION.fingerprint())


def test_the_order_in_which_filters_are_named_does_not_matter() -> None:
    one = Question("acme", equal={"actor": "a", "action": "b"})
    other = Question("acme", equal={"action": "b", "actor": "a"})
    assert one.fingerprint() == other.fingerprint()

"""Event: the row it becomes, the event the row becomes again, and the digest that holds them together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import store
from prooftrail.event import Actor, Error, Event, Target
from tests.oracle import digest_of

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
names = texts.filter(bool)
json_values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda items: st.lists(items | st.none(), max_size=3) | st.dictionaries(texts, items | st.none(), max_size=3),
    max_leaves=8,
)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def part(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object of the event, or None: one without any field is never made (the formats see to that)."""
    strategies = {name: optional(fields.get(name, texts)) for name in kind.__struct_fields__}
    return optional(st.builds(kind, **strategies).filter(lambda made: made != kind()))


events = st.builds(
    Event,
    id=names,
    time=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    tenant=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    source=names,
    sequence=optional(st.integers(0, 2**63 - 1)),
    category=optional(names),
    action=names,
    level=st.sampled_from(["debug", "info", "notice", "warning", "error", "critical"]),
    outcome=st.sampled_from(["success", "failure", "unknown"]),
    actor=part(Actor, id=names, roles=st.lists(texts, max_size=3)),
    target=part(Target, id=names, type=names),
    site=optional(texts),
    message=optional(texts),
    before=optional(json_values),
    after=optional(json_values),
    error=part(Error),
    duration_ms=optional(st.floats(0, 2**53 - 1)),
    request_id=optional(texts),
    trace_id=optional(texts),
    metadata=optional(st.dictionaries(texts, json_values, max_size=3)),
)


@given(events, st.integers(1, 2**63 - 1), st.integers(0, 10_000))
def test_a_row_holds_the_whole_event_and_its_place(event: Event, batch_id: int, position: int) -> None:
    row = store.to_row(event, batch_id, position)
    assert len(row) == len(store.COLUMNS)
    again = store.from_row(row)
    assert (row[2], row[3]) == (batch_id, position)
    assert msgspec.json.decode(msgspec.json.encode(again)) == msgspec.json.decode(msgspec.json.encode(event))
    assert digest_of(again) == event.statement().digest()


@given(events)
def test_the_digest_tells_any_change(event: Event) -> None:
    for field, other in {
        "action": event.action + "!",
        "message": (event.message or "") + "!",
        "after": ["other", {}],
    }.items():
        assert msgspec.structs.replace(event, **{field: other}).statement().digest() != event.statement().digest()
    assert len(event.statement().digest()) == 32


def test_the_digest_does_not_see_how_json_was_written() -> None:
    event = Event(
        id="i", time=datetime(2026, 1, 1, tzinfo=UTC), tenant="t", source="s", action="a", metadata={"a": 1, "b": 2.0}
    )
    assert event.statement().digest() == msgspec.structs.replace(event, metadata={"b": 2, "a": 1.0}).statement().digest()


def test_keys_are_locked_in_the_order_of_the_index() -> None:
    event = Event(id="i", time=datetime(2026, 1, 1, tzinfo=UTC), tenant="t", source="s", action="a")
    assert event.key == ("t", "i", "s")


def test_what_is_absent_is_left_out_of_json_but_level_and_outcome_never_are() -> None:
    event = Event(id="i", time=datetime(2026, 1, 1, tzinfo=UTC), tenant="t", source="s", action="a")
    assert msgspec.json.decode(msgspec.json.encode(event)) == {
        "id": "i",
        "time": "2026-01-01T00:00:00Z",
        "tenant": "t",
        "source": "s",
        "action": "a",
        "level": "info",
        "outcome": "unknown",
    }

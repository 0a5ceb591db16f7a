"""A tenant's default may be any format: what is not of it is refused with reason, whatever it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail import formats
from prooftrail.errors import ConfigurationError, InvalidRecord
from prooftrail.event import Event
from prooftrail.formats import FORMATS, Defaults, Given
from tests.leaves import JSON, TEXT
from tests.unit.formats.reading import event_of, refusal_of

NAMES = st.sampled_from(
    ["action", "time", "source", "op", "payload", "schema", "type", "specversion", "data", "resourceLogs", "resourceType"]
)


@pytest.mark.parametrize("name", FORMATS)
@given(st.dictionaries(NAMES | TEXT, JSON, max_size=4))
def test_a_format_maps_or_refuses_what_it_would_not_have_recognised(name: str, document: dict[str, Any]) -> None:
    try:
        event = FORMATS[name].to_event(document, Given("origin", {}, "acme"))
    except (InvalidRecord, msgspec.ValidationError):
        return
    assert isinstance(event, Event)


def test_the_default_is_by_tenant() -> None:
    document = {"action": "read", "timestamp": 1_790_000_000, "source": "s"}
    assert event_of(document, Defaults("acme", {"acme": "java"})).source == "s"
    assert refusal_of(document, Defaults("other", {"acme": "java"}))[0] == "invalid-field"
    assert refusal_of(document, Defaults("acme", {"acme": "debezium"}))[0] == "unknown-shape"


def test_a_zone_that_does_not_exist_is_refused_where_it_is_set() -> None:
    assert Defaults.parse("", "", "America/Chicago").zone == "America/Chicago"
    assert Defaults.parse("", "").zone is None
    with pytest.raises(ConfigurationError, match="DEFAULT_TIMEZONE"):
        Defaults.parse("", "", "Central")


@pytest.mark.parametrize(
    ("zone", "headers", "fields", "hour"),
    [
        (None, {}, {}, 12),
        ("America/Chicago", {}, {}, 17),
        ("America/Chicago", {formats.ZONE_HEADER: "+02:00"}, {}, 10),
        ("America/Chicago", {formats.ZONE_HEADER: "+02:00"}, {"zoneOffset": "+03:00"}, 9),
        ("America/Chicago", {}, {"timeZone": ""}, 17),
    ],
)
def test_the_zone_is_the_nearest_that_is_named(
    zone: str | None, headers: dict[str, str], fields: dict[str, str], hour: int
) -> None:
    document = {"action": "read", "timestamp": [2026, 7, 1, 12, 0], "serviceName": "s", **fields}
    assert event_of(document, Defaults("acme", {}, zone), headers).time.hour == hour


def test_a_zone_that_does_not_exist_is_refused_in_a_record() -> None:
    document = {"action": "read", "timestamp": "2026-07-01T12:00:00", "serviceName": "s", "timeZone": "Mars"}
    assert refusal_of(document) == (
        "invalid-field", "expected a zone such as Europe/Berlin or +02:00, got 'Mars' - for a time",
    )  # fmt: skip

"""Foreign text on its way to a terminal, and names that dead letters claim to have had."""

from __future__ import annotations

import uuid

from hypothesis import given
from hypothesis import strategies as st

import envelopes
from prooftrail.cli import quarantine
from prooftrail.redrive import ORIGIN
from tests.factories import sqs

ANYTHING = st.text(st.characters())  # lone surrogates too


@given(ANYTHING)
def test_nothing_that_a_terminal_would_obey_is_shown_and_what_is_plain_stays(text: str) -> None:
    shown = quarantine._printable(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    if text.isprintable():
        assert shown == text


def origin_of(name: str) -> tuple[str, str, dict[str, str]]:
    """The message's own name, the one that it gets, and its headers."""
    batch = sqs("{}")
    batch["Records"][0]["messageAttributes"] = {ORIGIN: {"dataType": "String", "stringValue": name}}
    (delivery,) = envelopes.of(batch).deliveries
    return f"sqs:events:{delivery.identifier}", delivery.record.origin, dict(delivery.record.headers)


@given(st.one_of(ANYTHING, ANYTHING.map("sqs:events:{}".format), st.uuids().map("sqs:other:{}".format)))
def test_a_name_that_no_message_of_the_queue_can_have_is_not_believed(name: str) -> None:
    own, found, headers = origin_of(name)
    assert found == own
    assert ORIGIN in headers


@given(st.uuids())
def test_the_name_of_a_message_of_the_queue_is_its_own_again(id: uuid.UUID) -> None:
    assert origin_of(f"sqs:events:{id}")[1:] == (f"sqs:events:{id}", {})

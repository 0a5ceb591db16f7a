"""Change events: who did it, to which row, and under which name a connector that starts again sends it once more."""

from __future__ import annotations

import base64
import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from prooftrail.event import Actor, Event, Target
from tests.unit.formats.reading import ORIGIN, event_of, refusal_of
from tests.unit.formats.samples import PRODUCERS

CHANGED: dict[str, Any] = json.loads((PRODUCERS / "debezium" / "changed.json").read_bytes())


def change(operation: str = "u", source: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    document = copy.deepcopy(CHANGED) | {"op": operation} | fields
    document["source"] |= source or {}
    return document


def event(operation: str = "u", key: Any = None, **fields: Any) -> Event:
    return event_of(change(operation, **fields), headers={":key": json.dumps(key)} if key is not None else {})


@pytest.mark.parametrize(
    ("operation", "action"), [("c", "create"), ("u", "update"), ("d", "delete"), ("r", "read"), ("t", "truncate")]
)
def test_the_operation_is_the_action(operation: str, action: str) -> None:
    assert event(operation).action == action


@pytest.mark.parametrize(
    ("operation", "row", "actor"),
    [
        ("c", {"created_by": "ann", "updated_by": "bob"}, "ann"),
        ("c", {"updated_by": "bob"}, "bob"),
        ("u", {"created_by": "ann", "modified_by": 7}, "7"),
        ("u", {"created_by": "ann"}, None),
        ("d", {"updated_by": "bob"}, None),
        ("d", {"deleted_by": "eve", "updated_by": "bob"}, "eve"),
        ("r", {"updated_by": "bob"}, None),
        ("u", {"updated_by": ""}, None),
    ],
)
def test_the_actor_is_who_did_this_and_not_who_did_something_before(
    operation: str, row: dict[str, Any], actor: str | None
) -> None:
    states = {"before": row, "after": None} if operation == "d" else {"before": None, "after": row}
    assert event(operation, **states).actor == (Actor(id=actor) if actor else None)


@pytest.mark.parametrize(
    ("key", "id"),
    [
        ({"id": "p-9"}, "p-9"),
        ({"schema": {"type": "struct"}, "payload": {"id": "p-9"}}, "p-9"),
        ({"clinic": 3, "number": 7}, "3,7"),
        (None, "p-1"),
        ("text", "p-1"),
        ([1], "p-1"),
    ],
)
def test_the_target_is_the_row_by_the_records_key_else_by_its_own_column(key: Any, id: str) -> None:
    assert event(key=key).target == Target(type="patient", id=id)


def test_a_row_without_anything_like_a_key_is_its_table() -> None:
    assert event(before=None, after={"name": "x"}).target == Target(type="patient")


class TestIdentity:
    def test_a_connector_that_starts_again_sends_the_same_event(self) -> None:
        again = event(ts_ms=1, ts_us=2, ts_ns=3)
        assert again == event()

    @pytest.mark.parametrize(
        "other",
        [
            {"source": {"lsn": 1}}, {"source": {"txId": 1}}, {"source": {"table": "other"}}, {"source": {"name": "other"}},
            {"operation": "c"}, {"key": {"id": "p-2"}},
        ],
    )  # fmt: skip
    def test_another_change_has_another_name(self, other: dict[str, Any]) -> None:
        assert event(**other).id != event().id

    def test_rows_without_a_key_are_told_apart_by_what_is_in_them(self) -> None:
        assert len({event("c", before=None, after={"name": name}).id for name in "aab"}) == 2

    def test_mysql_counts_rows_inside_of_an_event_of_its_log(self) -> None:
        place = {"lsn": None, "txId": None, "file": "mysql-bin.000003", "pos": 484}
        ids = {event(source=place | {"row": row}, key={"id": "p-1"}).id for row in (0, 1, 1)}
        assert len(ids) == 2

    def test_a_change_without_a_place_is_named_after_its_record(self) -> None:
        assert event(source={"lsn": None, "txId": None}).id == ORIGIN


class TestTime:
    def test_it_is_the_databases_own_the_finest_there_is(self) -> None:
        assert event(source={"ts_ns": 1_790_000_000_123_456_000}).time.microsecond == 123_456
        older = {"ts_ns": None, "ts_us": None, "ts_ms": 1_790_000_000_123}
        assert event(source=older).time.microsecond == 123_000
        assert event(source=older | {"ts_ms": None, "ts_usec": 1_790_000_000_000_007}).time.microsecond == 7

    def test_it_is_the_connectors_where_the_database_says_none(self) -> None:
        nothing = {"ts_ns": None, "ts_us": None, "ts_ms": 0}
        found = event(source=nothing, ts_ns=None, ts_us=None, ts_ms="1790000000123")
        assert found.time == datetime(2026, 9, 21, 14, 13, 20, 123_000, tzinfo=UTC)
        assert refusal_of(change(source=nothing, ts_ns=None, ts_us=None, ts_ms=None))[1].endswith("`time`")


class TestIntent:
    def test_a_row_of_an_outbox_is_what_it_says(self) -> None:
        row = {
            "id": "406c07f3", "aggregatetype": "patient", "aggregateid": 7, "type": "PatientDischarged",
            "payload": '{"ward":4}', "created_by": "ann",
        }  # fmt: skip
        found = event("c", before=None, after=row)
        assert (found.id, found.action, found.target) == ("406c07f3", "PatientDischarged", Target(type="patient", id="7"))
        assert (found.actor, found.after) == (Actor(id="ann"), row)

    def test_a_message_in_the_log_names_action_and_actor(self) -> None:
        said = base64.b64encode(b'{"actor": "dr-lee", "request_id": "r-1", "tenant": "north"}').decode()
        message = {"prefix": "chart.opened", "content": said}
        found = event(
            "m", before=None, after=None, message=message, source={"table": "", "schema": ""}, key={"prefix": "x"}
        )
        assert (found.action, found.actor, found.request_id, found.tenant) == (
            "chart.opened", Actor(id="dr-lee"), "r-1", "north",
        )  # fmt: skip
        assert found.target is None or found.target.id is None
        assert found.metadata
        assert found.metadata["message"] == message

    @pytest.mark.parametrize("content", ["Ymfy", "not base64!", None, 5])
    def test_a_message_of_anything_else_is_kept(self, content: Any) -> None:
        found = event("m", before=None, after=None, message={"prefix": "foo", "content": content})
        assert (found.action, found.actor) == ("foo", None)


def test_documents_of_mongodb_come_as_text() -> None:
    place = {"connector": "mongodb", "lsn": None, "txId": None, "table": None, "collection": "patients", "ord": 31}
    found = event("c", source=place, before=None, after='{"_id": {"$oid": "5a"}, "updated_by": "lee"}', key={"id": "5a"})
    assert found.after == {"_id": {"$oid": "5a"}, "updated_by": "lee"}
    assert (found.target, found.actor) == (Target(type="patients", id="5a"), Actor(id="lee"))
    assert event("c", before=None, after="{not JSON").after == "{not JSON"

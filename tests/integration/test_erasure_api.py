"""Erasure over the API: it takes two privacy keys, and tells what it did and never of whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

import pytest

from prooftrail import api_keys, holds
from tests.conftest import LogDatabase
from tests.factories import native, sqs

Ingesting = Callable[..., list[str]]
Archiving = Callable[..., dict[str, Any]]
Asking = Callable[..., tuple[int, Any]]

REQUEST = {"actor": "dr-lee", "reason": "asked for on 2026-11-01"}


@pytest.fixture
def keys(database: LogDatabase) -> dict[str, str]:
    """A key of each kind."""
    return {
        "one": api_keys.create(database.admin, "acme", "officer", "privacy"),
        "two": api_keys.create(database.admin, "acme", "lawyer", "privacy"),
        "operator": api_keys.create(database.admin, None, "operator", "privacy"),
        "reader": api_keys.create(database.admin, "acme"),
        "globex": api_keys.create(database.admin, "globex", "theirs", "privacy"),
    }


def test_one_key_asks_another_approves_and_the_next_run_erases(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, archiving: Archiving, keys: dict[str, str]
) -> None:
    ingesting(sqs(native(id="e"), native(actor={"id": "other"})))
    status, asked = asking("/erasures", keys["one"], posted=REQUEST)
    assert (status, asked["state"], asked["actor"], asked["entries"]) == (201, "requested", "dr-lee", 0)
    assert archiving()["erased"] == []
    status, approved = asking(f"/erasures/{asked['id']}/approval", keys["two"], posted="")
    assert (status, approved["state"]) == (202, "approved")
    assert archiving()["erased"] == [asked["id"]]
    status, done = asking(f"/erasures/{asked['id']}", keys["one"])
    assert (status, done["state"], done["actor"], done["entries"]) == (200, "done", None, 1)
    assert asking("/erasures", keys["two"])[1] == {"erasures": [done], "next": None}
    assert "dr-lee" not in str(asking("/events/e", keys["reader"]))


def test_where_a_request_lies_is_told_relative_to_where_it_was_posted(
    requesting: Callable[..., dict[str, Any]], keys: dict[str, str]
) -> None:
    answer = requesting("/erasures", keys["one"], posted=REQUEST)
    location = answer["multiValueHeaders"]["Location"][0]
    assert urljoin("https://host/v1/erasures", location) == "https://host/v1/erasures/1"
    assert urljoin("https://host/erasures", location) == "https://host/erasures/1"  # a domain of one's own has no stage


def test_every_step_is_an_event_and_names_nobody(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, archiving: Archiving, keys: dict[str, str]
) -> None:
    ingesting(sqs(native()))
    asking("/erasures", keys["one"], posted=REQUEST)
    asking("/erasures/1/approval", keys["two"], posted="")
    archiving()
    events = database.admin.execute(
        "SELECT action, actor_name, target_id, metadata::text FROM prooftrail.event "
        "WHERE tenant = 'acme' AND category = 'privacy' ORDER BY batch_id"
    ).fetchall()
    assert [event[:3] for event in events] == [
        ("privacy.request", "officer", "1"),
        ("privacy.approve", "lawyer", "1"),
        ("privacy.erase", None, "1"),
        ("privacy.done", None, "1"),
    ]
    assert not [event for event in events if "dr-lee" in event[3]]


def test_the_same_key_cannot_approve_and_nothing_is_approved_twice(asking: Asking, keys: dict[str, str]) -> None:
    asking("/erasures", keys["operator"], posted=REQUEST | {"tenant": "acme"})
    status, problem = asking("/erasures/1/approval", keys["operator"], posted="")
    assert (status, problem["detail"]) == (403, "erasure 1 was asked for with this key: it takes another one")
    assert asking("/erasures/1/approval", keys["one"], posted="")[0] == 202
    status, problem = asking("/erasures/1/approval", keys["two"], posted="")
    assert (status, problem["detail"]) == (409, "erasure 1 is approved already")


def test_what_is_under_way_is_not_asked_for_again(asking: Asking, keys: dict[str, str]) -> None:
    assert asking("/erasures", keys["one"], posted=REQUEST)[0] == 201
    status, problem = asking("/erasures", keys["two"], posted=REQUEST)
    assert (status, problem["detail"]) == (409, "an erasure of this actor is under way already")
    assert asking("/erasures", keys["two"], posted={"target": "dr-lee", "reason": "too"})[0] == 201


@pytest.mark.parametrize("path", ["/erasures", "/erasures/1"])
def test_it_takes_the_role(asking: Asking, keys: dict[str, str], path: str) -> None:
    asking("/erasures", keys["one"], posted=REQUEST)
    assert asking(path, keys["reader"])[0] == 403
    assert asking(path, None)[0] == 401
    assert asking("/erasures", keys["reader"], posted=REQUEST)[0] == 403
    assert asking("/erasures/1/approval", keys["reader"], posted="")[0] == 403


def test_another_tenants_erasures_are_not_there(asking: Asking, keys: dict[str, str]) -> None:
    asking("/erasures", keys["one"], posted=REQUEST)
    assert asking("/erasures", keys["globex"])[1] == {"erasures": [], "next": None}
    assert asking("/erasures/1", keys["globex"])[0] == 404
    assert asking("/erasures/1/approval", keys["globex"], posted="")[0] == 404
    assert asking("/erasures", keys["globex"], posted=REQUEST | {"tenant": "acme"})[0] == 403


def test_of_many_each_page_fits_into_an_answer_and_they_join_up(
    database: LogDatabase, asking: Asking, keys: dict[str, str]
) -> None:
    database.admin.execute(
        "INSERT INTO prooftrail.erasure (tenant, part, subject_id, reason) "
        "SELECT 'acme', 'actor', 'u-' || number, repeat('\u3042', 512) FROM generate_series(1, 3000) AS number"
    )
    seen: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        status, answer = asking("/erasures", keys["one"], limit=1000, **cursor)
        assert (status, len(str(answer).encode()) < 3_000_000) == (200, True)
        seen += [item["id"] for item in answer["erasures"]]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert seen == list(range(3000, 0, -1))
    assert len(asking("/erasures", keys["two"])[1]["erasures"]) == 100
    assert len(asking("/erasures", keys["globex"], **cursor)[1]["erasures"]) == 0


@pytest.mark.parametrize(
    "wrong", [{"cursor": "x"}, {"cursor": "kaEx"}, {"cursor": ""}, {"limit": 0}, {"limit": 1001}, {"colour": "red"}]
)
def test_what_cannot_be_asked_is_named(asking: Asking, keys: dict[str, str], wrong: dict[str, Any]) -> None:
    status, problem = asking("/erasures", keys["one"], **wrong)
    assert (status, [error["field"] for error in problem["errors"]]) == (400, list(wrong))


@pytest.mark.parametrize(
    ("posted", "status", "field"),
    [
        ("{", 400, "body"),
        ("", 400, "body"),
        ([], 422, "body"),
        ({"reason": "x"}, 422, "actor"),
        ({"actor": "a", "target": "b", "reason": "x"}, 422, "actor"),
        ({"actor": "a"}, 422, "reason"),
        ({"actor": "a", "reason": ""}, 422, "reason"),
        ({"actor": 7, "reason": "x"}, 422, "actor"),
        ({"actor": "a\u0000", "reason": "x"}, 422, "actor"),
        ({"actor": "\ud800", "reason": "x"}, 400, "body"),
        ({"actor": "x" * 513, "reason": "x"}, 422, "actor"),
        ({"actor": "a", "reason": "x", "who": "me"}, 422, "who"),
    ],
)
def test_a_request_that_cannot_be_used_is_told_why(
    asking: Asking, keys: dict[str, str], posted: Any, status: int, field: str
) -> None:
    got, problem = asking("/erasures", keys["one"], posted=posted)
    assert (got, problem["errors"][0]["field"]) == (status, field)


def test_an_operator_names_the_tenant(asking: Asking, keys: dict[str, str]) -> None:
    status, problem = asking("/erasures", keys["operator"], posted=REQUEST)
    assert (status, problem["errors"][0]["field"]) == (422, "tenant")


@pytest.mark.parametrize("id", ["2", "x", "-1", "9" * 30, "٣"])
def test_there_is_no_such_erasure(asking: Asking, keys: dict[str, str], id: str) -> None:
    assert asking(f"/erasures/{id}", keys["one"])[0] == 404


def test_a_refusal_is_told_with_its_reason(
    database: LogDatabase, ingesting: Ingesting, asking: Asking, archiving: Archiving, keys: dict[str, str]
) -> None:
    ingesting(sqs(native()))
    holds.place(database.admin, "acme", "lawsuit 12")
    asking("/erasures", keys["one"], posted=REQUEST)
    asking("/erasures/1/approval", keys["two"], posted="")
    archiving()
    _, refused = asking("/erasures/1", keys["one"])
    assert (refused["state"], refused["actor"]) == ("refused", None)
    assert refused["refusal"].endswith("forbids it until it is released: lawsuit 12")


def test_the_database_itself_asks_for_the_role_and_the_second_key(database: LogDatabase, keys: dict[str, str]) -> None:
    """Whatever the function would let through."""
    from prooftrail import erasure

    with database.connect("query") as connection:
        for name in ("reader", "globex"):
            with pytest.raises(erasure.Forbidden, match="a key with the role privacy in tenant acme"):
                erasure.request(connection, keys[name], "acme", "actor", "dr-lee", reason="why")
        id = erasure.request(connection, keys["one"], "acme", "actor", "dr-lee", reason="why")
        for name, message in (("reader", "role privacy"), ("globex", "role privacy"), ("one", "another one")):
            with pytest.raises(erasure.Forbidden, match=message):
                erasure.approve(connection, keys[name], id)
        erasure.approve(connection, keys["two"], id)

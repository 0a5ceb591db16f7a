"""The quarantine over the API: operators see what waits there, nobody else does, and every look is an event."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from prooftrail import api_keys, quarantine
from prooftrail.formats import RawRecord, Rejected
from prooftrail.store import Store
from tests.conftest import LogDatabase

Asking = Callable[..., tuple[int, Any]]


def put(database: LogDatabase, *records: RawRecord, reason: str = "invalid-json", detail: str = "no JSON") -> None:
    with database.connect("ingest") as connection:
        for record in records:
            Store(connection).append([], [Rejected(record, reason, detail)])


def test_an_operator_sees_what_waits_and_why(database: LogDatabase, asking: Asking) -> None:
    put(database, RawRecord("sqs:events:1", b"{broken", {"content-type": "text/plain"}))
    status, answer = asking("/quarantine")
    (item,) = answer["quarantine"]
    assert (status, answer["next"]) == (200, None)
    assert item["received_at"]
    assert {name: item[name] for name in ("id", "origin", "state", "reason", "detail", "bytes", "attempts")} == {
        "id": 1,
        "origin": "sqs:events:1",
        "state": "waiting",
        "reason": "invalid-json",
        "detail": "no JSON",
        "bytes": 7,
        "attempts": 0,
    }
    assert "raw" not in item
    assert asking("/quarantine/1") == (
        200,
        item | {"headers": {"content-type": "text/plain"}, "raw": base64.b64encode(b"{broken").decode()},
    )


@pytest.mark.parametrize("header", ["\0", "\ud800", "é\n\u2028", ""])
def test_whatever_is_in_a_header_is_answered(database: LogDatabase, asking: Asking, header: str) -> None:
    put(database, RawRecord("o", b"\xff\x00", {"x": header}))
    status, item = asking("/quarantine/1")
    assert (status, item["headers"], item["raw"]) == (200, {"x": header}, "/wA=")


def test_of_a_large_record_the_first_bytes_are_answered(database: LogDatabase, asking: Asking) -> None:
    put(database, RawRecord("o", b"x" * 4_000_001))
    status, item = asking("/quarantine/1")
    assert (status, item["bytes"]) == (200, 4_000_001)
    assert base64.b64decode(item["raw"]) == b"x" * 4_000_000


def test_pages_and_filters(database: LogDatabase, asking: Asking) -> None:
    put(database, *(RawRecord(f"sqs:events:{number}", b"{") for number in range(5)))
    put(database, RawRecord("kafka:audit:0:1", b"{}"), reason="invalid-field")
    quarantine.discard(database.admin, 1, "why")

    def ids(**parameters: Any) -> tuple[list[int], str | None]:
        status, answer = asking("/quarantine", **parameters)
        assert status == 200
        return [item["id"] for item in answer["quarantine"]], answer["next"]

    assert ids() == ([6, 5, 4, 3, 2], None)
    assert ids(limit=2) == ([6, 5], "5")
    assert ids(limit=2, cursor=5) == ([4, 3], "3")
    assert ids(limit=2, cursor=3) == ([2], None)
    assert ids(state="discarded") == ([1], None)
    assert ids(state="all", limit=1) == ([6], "6")
    assert ids(reason="invalid-field") == ([6], None)
    assert ids(origin="sqs:") == ([5, 4, 3, 2], None)
    assert ids(from_="2100-01-01T00:00:00Z") == ([], None)


def test_a_page_of_long_explanations_is_cut_and_goes_on(database: LogDatabase, asking: Asking) -> None:
    put(database, *(RawRecord(f"o:{number}", b"{") for number in range(5)), detail="x" * 900_000)
    seen: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        _, answer = asking("/quarantine", **cursor)
        assert len(answer["quarantine"]) in {1, 2}
        seen += [item["id"] for item in answer["quarantine"]]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize("path", ["/quarantine", "/quarantine/1"])
def test_whoever_reads_one_tenant_reads_no_record(database: LogDatabase, asking: Asking, path: str) -> None:
    put(database, RawRecord("o", b'{"tenant": "acme"'))
    for role in ("reader", "privacy"):
        status, problem = asking(path, api_keys.create(database.admin, "acme", role=role))
        assert status == 403
        assert "operator" in problem["detail"]
    assert asking(path, None)[0] == 401
    status, problem = asking(path, tenant="acme")
    assert (status, problem["errors"][0]["field"]) == (400, "tenant")


@pytest.mark.parametrize("id", ["2", "0", "-1", "x", "1" * 30, "1'", "%31"])
def test_a_record_that_is_not_there_is_not_found(database: LogDatabase, asking: Asking, id: str) -> None:
    put(database, RawRecord("o", b"{"))
    assert asking(f"/quarantine/{id}")[0] == 404


@pytest.mark.parametrize(
    "parameters",
    [
        {"state": "gone"},
        {"limit": 0},
        {"limit": 1001},
        {"cursor": "x"},
        {"cursor": 0},
        {"from_": "yesterday"},
        {"reason": ""},
        {"origin": "a\0"},
        {"colour": "red"},
    ],
)
def test_what_cannot_be_asked_is_said(asking: Asking, parameters: dict[str, Any]) -> None:
    status, problem = asking("/quarantine", **parameters)
    assert status == 400
    assert [error["field"] for error in problem["errors"]] == [next(iter(parameters)).replace("from_", "from")]


def test_every_look_is_an_event_in_our_own_log(database: LogDatabase, asking: Asking) -> None:
    put(database, RawRecord("sqs:events:1", b"{"))
    asking("/quarantine", origin="sqs:")
    asking("/quarantine/1")
    asking("/quarantine/2")
    events = database.admin.execute(
        "SELECT tenant, actor_type, target_id, metadata FROM prooftrail.event WHERE action = 'quarantine.read' "
        "ORDER BY batch_id"
    ).fetchall()
    assert events == [
        ("_prooftrail", "api_key", None, {"path": "/quarantine", "query": {"origin": "sqs:"}, "returned": 1}),
        ("_prooftrail", "api_key", "sqs:events:1", {"path": "/quarantine/1", "query": {}, "returned": 1}),
    ]

"""API requests in; the right events out, page by page, and nobody else's."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import moto
import psycopg
import pytest

from prooftrail import api_keys, segments
from tests.conftest import LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import BUCKET

Ingesting = Callable[..., list[str]]
Asking = Callable[..., tuple[int, Any]]

MIDNIGHT = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)


def at(minutes: int) -> str:
    return (MIDNIGHT + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def all_pages(asking: Asking, **parameters: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        status, page = asking("/events", **parameters, **cursor)
        assert status == 200, page
        events += page["events"]
        if page["next"] is None:
            return events
        assert page["events"]
        cursor = {"cursor": page["next"]}


def test_answers_newest_first_as_native_json(ingesting: Ingesting, asking: Asking) -> None:
    sent = [native(time=at(minute), metadata={"n": minute}) | {"level": "info"} for minute in range(5)]
    ingesting(sqs(*sent))
    assert asking("/events", tenant="acme") == (200, {"events": sent[::-1], "next": None})


@pytest.mark.parametrize("operator_sees_all", [True, False])
def test_pages_join_up_without_gap_or_overlap_across_months_and_equal_times(
    ingesting: Ingesting, asking: Asking, *, operator_sees_all: bool
) -> None:
    sent = [native(time=at(number // 10), tenant=f"t{number % 3}") for number in range(100)]
    for start in range(0, 100, 30):
        ingesting(sqs(*sent[start : start + 30]))
    chosen = [event for event in sent if operator_sees_all or event["tenant"] == "t1"]
    for limit in (1, 7, 100):
        events = all_pages(asking, limit=limit, **({} if operator_sees_all else {"tenant": "t1"}))
        assert sorted(event["id"] for event in events) == sorted(event["id"] for event in chosen)
        assert [event["time"] for event in events] == sorted((event["time"] for event in chosen), reverse=True)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"actor": "dr-who"}, {1}),
        ({"action": "patient.update"}, {2}),
        ({"target_type": "Device"}, {3}),
        ({"target_id": "p-9"}, {4}),
        ({"target_type": "Device", "target_id": "p-9"}, set()),
        ({"outcome": "failure"}, {5}),
        ({"source": "kiosk"}, {6}),
        ({"from_": at(5)}, {5, 6}),
        ({"to": at(2)}, {0, 1}),
        ({"from_": at(2), "to": at(4)}, {2, 3}),
        ({"from_": "2026-11-01T02:00:00+02:00"}, {1, 2, 3, 4, 5, 6}),
        ({"actor": "dr-lee", "action": "patient.read", "outcome": "success", "source": "clinic/records"}, {0, 3, 4}),
    ],
)
def test_each_filter_finds_its_events_and_no_others(
    ingesting: Ingesting, asking: Asking, asked: dict[str, str], expected: set[int]
) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"actor": {"id": "dr-who"}},
        {"action": "patient.update"},
        {"target": {"type": "Device", "id": "d-1"}},
        {"target": {"type": "Patient", "id": "p-9"}},
        {"outcome": "failure"},
        {"source": "kiosk"},
    ]
    ingesting(sqs(*(native(id=str(number), time=at(number)) | change for number, change in enumerate(changes))))
    for reader in ({"tenant": "acme"}, {}):
        assert {int(event["id"]) for event in all_pages(asking, **asked, **reader)} == expected


def test_a_page_is_cut_before_it_outgrows_what_lambda_may_answer(ingesting: Ingesting, asking: Asking) -> None:
    ingesting(sqs(*(native(message='"' * 400_000) for _ in range(9))))
    status, page = asking("/events", tenant="acme", limit=9)
    assert (status, len(page["events"])) == (200, 2)
    assert len(all_pages(asking, tenant="acme", limit=9)) == 9


@pytest.mark.parametrize("limit", [1, 99, 199])  # less, and more, than is fetched at a time
def test_a_page_that_has_a_next_one_cancels_nothing(
    ingesting: Ingesting, asking: Asking, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr(psycopg.Connection, "_try_cancel", lambda *_, **__: cancelled.append(1))
    ingesting(sqs(*(native() for _ in range(250))))
    _, page = asking("/events", limit=limit)
    assert (len(page["events"]), page["next"] is not None, cancelled) == (limit, True, [])


class TestArchivedMonths:
    @pytest.fixture(autouse=True)
    def archived(self, ingesting: Ingesting, archiving: Callable[..., dict[str, Any]]) -> None:
        old = [native(id=f"o{month}", time=f"2020-{month:02}-15T00:00:00Z") for month in (1, 3)]
        theirs = native(id="theirs", time="2020-01-31T23:59:59.999999Z", tenant="globex")
        ingesting(sqs(*old, theirs, *(native(id=f"hot-{number}", time=at(number)) for number in range(3))))
        assert archiving()["archived"] == ["2020-01", "2020-03"]

    def test_are_told_on_every_page_that_does_not_show_their_events(self, asking: Asking) -> None:
        told = [
            {"month": "2020-03", "tenants": 1, "objects": 1, "events": 1},
            {"month": "2020-01", "tenants": 1, "objects": 1, "events": 1},
        ]
        first = asking("/events", tenant="acme", limit=2)[1]
        last = asking("/events", tenant="acme", limit=2, cursor=first["next"])[1]
        assert [len(first["events"]), len(last["events"]), last["next"]] == [2, 1, None]
        assert (first["not_searched"], last["not_searched"]) == (told, told)

    def test_are_told_where_a_page_is_cut_before_it_grows_too_large(
        self, ingesting: Ingesting, asking: Asking, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("query.PAGE_BYTES", 1_000)
        ingesting(sqs(*(native(time=at(60), message="x" * 20_000) for _ in range(300))))
        status, page = asking("/events", tenant="acme", limit=299)
        assert (status, len(page["events"]), len(page["not_searched"])) == (200, 1, 2)

    def test_are_told_as_far_as_the_question_reaches_into_them(self, asking: Asking) -> None:
        questions: list[tuple[dict[str, str], list[str]]] = [
            ({}, ["2020-03", "2020-01"]),
            ({"from_": "2019-06-01T00:00:00Z"}, ["2020-03", "2020-01"]),
            ({"from_": "2020-01-31T23:59:59.999999Z"}, ["2020-03", "2020-01"]),
            ({"from_": "2020-02-01T00:00:00Z"}, ["2020-03"]),
            ({"from_": "2020-02-01T00:00:00+00:01"}, ["2020-03", "2020-01"]),
            ({"from_": "2020-04-01T00:00:00Z"}, []),
            ({"to": "2020-01-01T00:00:00Z"}, []),
            ({"to": "2020-01-01T00:00:00.000001Z"}, ["2020-01"]),
            ({"from_": "2020-02-01T00:00:00Z", "to": "2020-03-01T00:00:00Z"}, []),
            ({"from_": "0001-01-01T00:00:00Z", "to": "9999-12-31T23:59:59.999999Z"}, ["2020-03", "2020-01"]),
        ]
        for asked, months in questions:
            _, page = asking("/events", actor="nobody", **asked)
            assert [told["month"] for told in page.get("not_searched", [])] == months, asked
            assert ("not_searched" in page) == bool(months)

    def test_are_told_of_the_tenants_that_the_key_reads(self, database: LogDatabase, asking: Asking) -> None:
        def told(**reader: str) -> list[tuple[str, int, int]]:
            months = asking("/events", **reader)[1].get("not_searched", [])
            return [(month["month"], month["tenants"], month["events"]) for month in months]

        keys = {name: api_keys.create(database.admin, name) for name in ("acme", "globex", "other")}
        assert told(key=keys["acme"]) == told(tenant="acme") == [("2020-03", 1, 1), ("2020-01", 1, 1)]
        assert told(key=keys["globex"]) == [("2020-01", 1, 1)]
        assert told(key=keys["other"]) == []
        assert told() == [("2020-03", 1, 1), ("2020-01", 2, 2)]

    def test_are_bounded_and_say_so(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segments, "MOST_MONTHS", 1)
        (told,) = asking("/events")[1]["not_searched"]
        assert (told["month"], told["and_earlier"]) == ("2020-03", True)

    def test_are_not_looked_for_where_nothing_so_young_is_archived(
        self, asking: Asking, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        statements: list[str] = []
        execute = psycopg.Connection.execute

        def noted(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
            statements.append(str(query))
            return execute(self, query, *arguments, **options)

        monkeypatch.setattr(psycopg.Connection, "execute", noted)
        for days, asked in ((27, False), (62, True)):
            statements.clear()
            asking("/events", from_=(datetime.now(UTC) - timedelta(days=days)).isoformat())
            assert any("archive_segment" in statement for statement in statements) == asked

    def test_hide_no_event_that_is_asked_for_by_its_id(self, asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
        status, problem = asking("/events/o3")
        assert (status, problem["reason"], problem["month"]) == (404, "archived", "2020-03")
        (key,) = problem["objects"]
        assert key in {item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]}
        monkeypatch.setattr(segments, "archived", lambda *_: [])
        assert asking("/events/o3")[0] == 500  # neither here nor there: that is no answer, and a finding


def test_one_event_by_its_id(ingesting: Ingesting, asking: Asking) -> None:
    event = native(id="odd id/with:all?sorts%20of&things") | {"level": "info"}
    ingesting(sqs(event))
    assert asking("/events/odd%20id%2Fwith:all%3Fsorts%2520of&things", tenant="acme") == (200, event)
    assert asking("/events/odd%20id%2Fwith:all%3Fsorts%2520of&things") == (200, event)
    assert asking("/events/other", tenant="acme")[0] == 404


def test_an_id_that_several_sources_use_asks_which_one(ingesting: Ingesting, asking: Asking) -> None:
    ingesting(sqs(native(id="1", source="a"), native(id="1", source="b")))
    status, problem = asking("/events/1")
    assert (status, {choice["source"] for choice in problem["choices"]}) == (409, {"a", "b"})
    assert asking("/events/1", source="b")[1]["source"] == "b"


def test_a_tenant_s_key_sees_that_tenant_and_cannot_name_another(
    database: LogDatabase, ingesting: Ingesting, asking: Asking
) -> None:
    ingesting(sqs(native(tenant="acme", id="a"), native(tenant="globex", id="g"), native(tenant="globex", id="a")))
    key = api_keys.create(database.admin, "acme")
    assert [event["tenant"] for event in all_pages(asking, key=key)] == ["acme"]
    assert asking("/events", key=key, tenant="globex")[0] == 403
    assert asking("/events/g", key=key)[0] == 404
    assert asking("/events/a", key=key)[1]["tenant"] == "acme"


def test_a_key_is_taken_from_x_api_key_where_there_is_no_bearer_token(database: LogDatabase, asking: Asking) -> None:
    key = api_keys.create(database.admin, "acme")
    assert asking("/events", key=None, headers={"x-api-key": key})[0] == 200
    assert asking("/events", key="wrong", headers={"x-api-key": key})[0] == 401


@pytest.mark.parametrize("key", [None, "", "wrong", "pt_" + "x" * 43, "\ud800", "'; DROP TABLE event --"])
def test_without_a_good_key_nothing_is_told(asking: Asking, key: str | None) -> None:
    status, problem = asking("/events", key=key)
    assert (status, problem["status"], problem["title"]) == (401, 401, "Unauthorized")


def test_a_revoked_key_is_refused(database: LogDatabase, asking: Asking) -> None:
    key = api_keys.create(database.admin, "acme", "for a test")
    (listed,) = [item for item in api_keys.listing(database.admin) if item.label == "for a test"]
    api_keys.revoke(database.admin, listed.id)
    assert asking("/events", key=key)[0] == 401
    with pytest.raises(api_keys.UnknownKey):
        api_keys.revoke(database.admin, listed.id)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"from_": "yesterday"}, "from"),
        ({"to": "2026-01-01T00:00:00"}, "to"),
        ({"from_": "0001-01-01T00:00:00+14:00"}, "from"),
        ({"to": "9999-12-31T23:59:59-14:00"}, "to"),
        ({"outcome": "maybe"}, "outcome"),
        ({"actor": ""}, "actor"),
        ({"action": "a\0b"}, "action"),
        ({"unknown": "1"}, "unknown"),
        ({"actor": ["a", "b"]}, "actor"),
        ({"cursor": "nonsense"}, "cursor"),
        ({"cursor": "====="}, "cursor"),
        ({"cursor": "AAAAAAAAAAAAAAAAAAAAAAAA"}, "cursor"),
        ({"from_": at(1), "to": at(0)}, "from"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named(asking: Asking, asked: dict[str, Any], field: str) -> None:
    status, problem = asking("/events", **asked)
    assert (status, [error["field"] for error in problem["errors"]]) == (400, [field])


def test_a_cursor_of_another_question_is_refused(ingesting: Ingesting, asking: Asking) -> None:
    ingesting(sqs(native(), native()))
    cursor = asking("/events", limit=1)[1]["next"]
    assert asking("/events", limit=1, cursor=cursor)[0] == 200
    status, problem = asking("/events", limit=1, cursor=cursor, actor="dr-lee")
    assert (status, problem["errors"][0]["field"]) == (400, "cursor")


def test_an_unknown_route_is_a_problem_too(asking: Asking) -> None:
    assert asking("/nothing")[0] == 404


def test_errors_tell_nothing_of_the_inside(asking: Asking, database: LogDatabase) -> None:
    database.admin.execute("ALTER TABLE prooftrail.event RENAME COLUMN action TO hidden")
    status, problem = asking("/events")
    database.admin.execute("ALTER TABLE prooftrail.event RENAME COLUMN hidden TO action")
    assert status == 500
    assert "action" not in str(problem)


def test_while_the_database_is_away_the_answer_is_503(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reader.PATIENCE", 0)
    assert asking("/events", url="postgresql://nobody@127.0.0.1:1/none")[0] == 503


@pytest.mark.usefixtures("secrets_manager_away")
def test_while_nobody_gives_out_the_password_the_answer_is_503(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reader.PATIENCE", 0)
    status, problem = asking("/events")
    assert (status, problem["detail"]) == (503, "the database does not answer: try again")


def test_a_connection_that_died_while_idle_is_replaced_unseen(database: LogDatabase, asking: Asking) -> None:
    assert asking("/events")[0] == 200
    database.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert asking("/events")[0] == 200


def test_health_tells_of_the_database_and_the_queues_without_a_key(
    database: LogDatabase, asking: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.admin.execute(
        "UPDATE prooftrail.migration SET applied_at = now()"
    )  # that it was not verified yet is no failure
    with moto.mock_aws():
        sqs_client = boto3.client("sqs")
        for variable, name in (("PROOFTRAIL_QUEUE_URL", "events"), ("PROOFTRAIL_DLQ_URL", "dead")):
            url = sqs_client.create_queue(QueueName=name)["QueueUrl"]
            monkeypatch.setenv(variable, url)
            sqs_client.send_message(QueueUrl=url, MessageBody="{}")
        status, health = asking("/health", key=None)
    assert (status, health["status"], health["database"]["status"]) == (200, "ok", "ok")
    assert health["queue"] == {"status": "ok", "waiting": 1, "in_flight": 0, "dead_letters": 1}


def test_health_says_which_part_fails(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reader.PATIENCE", 0)
    with moto.mock_aws():
        status, health = asking("/health", key=None, url="postgresql://nobody@127.0.0.1:1/none")
    assert (status, health["status"], health["database"]) == (503, "failing", {"status": "failing"})


@pytest.mark.parametrize("table", ["event", "event_key", "tenant", "archive_segment"])
def test_without_a_tenant_the_query_role_sees_no_row(database: LogDatabase, ingesting: Ingesting, table: str) -> None:
    ingesting(sqs(native()))
    database.admin.execute(
        "INSERT INTO prooftrail.archive_segment (tenant, month, batches, event_count) "
        "VALUES ('acme', '2020-01-01', '{[9,10)}', 1)"
    )
    with database.connect("query") as connection:
        assert connection.execute(f"SELECT count(*) FROM prooftrail.{table}".encode()).fetchone() == (0,)
        with connection.transaction():
            connection.execute("SELECT set_config('prooftrail.tenant', 'acme', true)")
            assert connection.execute(f"SELECT count(*) FROM prooftrail.{table}".encode()).fetchone() == (1,)


def test_the_indexes_serve_the_questions(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(*(native(time=at(-number), actor={"id": f"a{number % 50}"}) for number in range(2000))))
    database.admin.execute("ANALYZE prooftrail.event")
    questions = {
        "event_2026_10_tenant_time": "true",
        "event_2026_10_tenant_actor_id": "actor_id = 'a1'",
        "event_2026_10_tenant_target_id": "target_id = 'none'",
        "event_2026_10_tenant_action": "action = 'none'",
    }
    with database.connect("query") as connection, connection.transaction():
        connection.execute("SELECT set_config('prooftrail.tenant', 'acme', true)")
        connection.execute("SET LOCAL enable_seqscan = off")  # the table is small
        for index, condition in questions.items():
            plan = connection.execute(
                f"EXPLAIN SELECT * FROM prooftrail.event WHERE tenant = 'acme' AND time < '2026-10-31' AND {condition} "
                "ORDER BY time DESC, batch_id DESC, position DESC LIMIT 10".encode()
            ).fetchall()
            assert any(index in line for (line,) in plan), plan


@pytest.mark.parametrize("role", ["ingest", "query", "archive"])
def test_no_function_can_change_or_remove_what_was_stored(database: LogDatabase, ingesting: Ingesting, role: str) -> None:
    ingesting(sqs(native()))
    statements = [
        f"{verb} prooftrail.{table} {rest}"
        for table in ("event", "event_2026_10", "event_key", "batch")
        for verb, rest in (("UPDATE", "SET tenant = 'x'"), ("DELETE FROM", ""), ("TRUNCATE", ""), ("DROP TABLE", ""))
    ]
    for statement in statements:
        with database.connect(role) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())
    owned = "SELECT count(*) FROM pg_class WHERE relowner = %s::regrole"
    assert database.admin.execute(owned, [f"prooftrail_{role}"]).fetchone() == (0,)


def test_even_the_owner_s_slip_is_refused(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native(id=str(uuid.uuid4()))))
    for table in ("event", "event_2026_10", "event_key", "batch"):
        for statement in (
            f"UPDATE prooftrail.{table} SET tenant = 'x'",
            f"DELETE FROM prooftrail.{table}",
            f"TRUNCATE prooftrail.{table}",
        ):
            with pytest.raises(psycopg.Error, match="append-only"):
                database.admin.execute(statement.format(f"prooftrail.{table}").encode())

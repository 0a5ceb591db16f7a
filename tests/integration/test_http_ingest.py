"""Events over HTTP: what is answered, with which receipt, and what the log holds then."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import http_ingest
import http_request
import writer
from prooftrail import api_keys, formats, store
from prooftrail.errors import RetryableError
from prooftrail.invocation import Context
from prooftrail.ledger.tlog_proof import TlogProof
from tests.conftest import PROJECT, LogDatabase
from tests.factories import native, sqs
from tests.integration.test_hostile_input import (
    NAUGHTY,
    NEEDS_NAUGHTY,
    NEEDS_SUITE,
    SUITE,
    all_events,
    naughty_events,
)

Posting = Callable[..., Any]
Asking = Callable[..., tuple[int, Any]]
NDJSON = "application/x-ndjson"
AWAY = "postgresql://nobody@127.0.0.1:1/none"


# One request in a process that is killed while it commits, or when it has.
KILLED = """
import json, os, signal, sys
import http_ingest, writer
from prooftrail import store
from prooftrail.invocation import Context
moment, request = sys.argv[1], json.loads(sys.argv[2])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "before":
    extend = store.Store._extend_logs
    store.Store._extend_logs = lambda self, batches: (extend(self, batches), die())
else:
    writer.report = die
http_ingest.handler(request, Context("http"))
"""


def lines(*items: Any) -> str:
    return "".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in items)


def quarantined(database: LogDatabase) -> list[tuple[str, bytes, dict[str, str]]]:
    return database.admin.execute("SELECT reason, raw, headers FROM prooftrail.quarantine ORDER BY id").fetchall()


def statuses(document: dict[str, Any]) -> list[str]:
    return [result["status"] for result in document["results"]]


class TestOneEvent:
    def test_is_stored_when_it_is_answered_and_its_receipt_names_its_place(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        posting("/events/batch", [native(), native()])
        event = native(id="a b/c")
        answer = posting("/events", event, answer=True)
        location = "events/a%20b%2Fc?source=clinic%2Frecords&tenant=acme"
        assert (answer["statusCode"], answer["headers"]["Location"]) == (201, location)
        assert json.loads(answer["body"]) == {
            "id": "a b/c", "tenant": "acme", "source": "clinic/records", "status": "stored", "index": 2,
        }  # fmt: skip
        assert database.count("event") == 3

    def test_is_read_where_its_location_leads_whoever_else_uses_its_id(
        self, database: LogDatabase, posting: Posting, asking: Asking
    ) -> None:
        keys = {tenant: api_keys.create(database.admin, tenant, role="writer") for tenant in (None, "acme", "globex")}
        for tenant, source in [("acme", "a+b &c"), ("acme", "é/d"), ("globex", "é/d"), (None, "operator's")]:
            event = native(id="1", source=source, tenant=tenant or "acme")
            answer = posting("/events", event, key=keys[tenant], answer=True)
            url = urlsplit(urljoin("https://host/v1/events", answer["headers"]["Location"]))
            parameters = dict(parse_qsl(url.query, strict_parsing=True))
            reader = api_keys.create(database.admin, tenant)
            status, found = asking(url.path.removeprefix("/v1"), reader, **parameters)
            assert (status, found.get("source"), found.get("tenant")) == (200, source, event["tenant"])
        twin = posting("/events", native(id="1", source="operator's", tenant="globex"), answer=True)
        assert asking("/events/1", **dict(parse_qsl(urlsplit(twin["headers"]["Location"]).query)))[1]["tenant"] == "globex"

    def test_sent_again_is_a_duplicate_with_the_place_of_the_original(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        events = [native() for _ in range(3)]
        receipts = [posting("/events", event)[1] for event in events]
        for event, receipt in zip(events, receipts, strict=True):
            assert posting("/events", event) == (200, receipt | {"status": "duplicate"})
        assert database.count("event") == 3

    def test_s_receipt_names_the_index_that_its_proof_is_for(
        self, posting: Posting, requesting: Callable[..., dict[str, Any]], publishing: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        posting("/events/batch", [native() for _ in range(5)])
        event = native()
        _, receipt = posting("/events", event)
        posting("/events/batch", [native() for _ in range(5)])
        publishing("acme")
        answer = requesting(f"/events/{event['id']}/proof")
        assert answer["statusCode"] == 200, answer
        assert TlogProof.parse(answer["body"].encode()).index == receipt["index"] == 5

    def test_that_was_erased_or_archived_is_a_duplicate_whose_place_is_not_told(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        event = native()
        posting("/events", event)
        key = ("acme", event["id"], "clinic/records")
        with database.admin.transaction(force_rollback=True):
            database.admin.execute("ALTER TABLE prooftrail.event_key DISABLE TRIGGER append_only")
            database.admin.execute("UPDATE prooftrail.event_key SET digest = NULL WHERE source <> 'prooftrail'")
            assert store.Store(database.admin).places([key]) == {}
        with database.admin.transaction(force_rollback=True):
            database.admin.execute("DROP TABLE prooftrail.event_2026_10")
            assert store.Store(database.admin).places([key]) == {}
        assert store.Store(database.admin).places([key]) == {key: 0}

    def test_of_other_content_under_a_known_id_is_a_conflict_and_kept_as_evidence_once(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        event = native()
        posting("/events", event)
        other = json.dumps(event | {"message": "other"})
        for _ in range(2):
            status, problem = posting("/events", other)
            assert (status, problem["reason"], problem["id"]) == (409, "conflict", event["id"])
            assert problem["errors"][0]["field"] == "id"
        ((reason, raw, headers),) = quarantined(database)
        assert (reason, raw) == ("conflict", other.encode())
        assert headers.keys() == {"content-type", ":received"}  # and no key

    def test_that_cannot_be_one_is_told_field_by_field_and_not_quarantined(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        status, problem = posting("/events", native(action=5, time="yesterday", actor={"id": 5}, source=None))
        assert (status, problem["status"], problem["reason"]) == (422, 422, "invalid-field")
        assert {error["field"] for error in problem["errors"]} == {"action", "time", "actor.id", "source"}
        assert all(error["message"] for error in problem["errors"])
        assert (database.count("event"), database.count("quarantine")) == (0, 0)

    @pytest.mark.parametrize(
        ("body", "answered"),
        [
            (b"", (400, "invalid-json", "body")),
            (b"{broken", (400, "invalid-json", "body")),
            (b"\xff\xfe", (400, "not-utf8", "body")),
            (b"5", (422, "unknown-shape", "body")),
            (b"[]", (422, "unknown-shape", "body")),
            (b'{"a": 1, "a": 2}', (422, "duplicate-key", "body")),
            (b"[" * 100_000, (422, "too-deep", "body")),
            (json.dumps(native(time="1969-01-01T00:00:00Z")).encode(), (422, "time-out-of-range", "time")),
            (json.dumps(native(source="prooftrail")).encode(), (422, "reserved-source", "source")),
            (json.dumps(native(message="a\0b")).encode(), (422, "nul-character", "body")),
            (json.dumps(native(level="x" * 1_000_000)).encode(), (422, "invalid-field", "level")),
        ],
        ids=itertools.count(),
    )
    def test_that_is_no_event_is_a_problem_that_says_why(
        self, database: LogDatabase, posting: Posting, body: bytes, answered: tuple[int, str, str]
    ) -> None:
        status, reason, field = answered
        answer = posting("/events", body, answer=True)
        assert (answer["statusCode"], answer["headers"]["Content-Type"]) == (status, "application/problem+json")
        problem = json.loads(answer["body"])
        assert (problem["status"], problem["reason"], problem["errors"][0]["field"]) == (status, reason, field)
        assert len(answer["body"]) < 2_000
        assert database.count("quarantine") == 0

    def test_is_not_two(self, database: LogDatabase, posting: Posting) -> None:
        status, problem = posting("/events", [native(), native()])
        assert (status, "/events/batch" in problem["detail"]) == (422, True)
        assert database.count("event") == 0

    def test_that_the_database_alone_refuses_is_told_and_kept(self, database: LogDatabase, posting: Posting) -> None:
        posting("/events", native())
        database.admin.execute("ALTER TABLE prooftrail.event_2026_10 ADD CONSTRAINT no_ghosts CHECK (action <> 'ghost')")
        status, problem = posting("/events", native(action="ghost"))
        assert (status, problem["reason"]) == (422, "refused-by-database")
        assert [reason for reason, _, _ in quarantined(database)] == ["refused-by-database"]


class TestBodies:
    @pytest.mark.parametrize("path", ["/events", "/events/batch"])
    def test_that_are_too_large_are_refused_before_they_are_read(self, posting: Posting, path: str) -> None:
        assert posting(path, b"x" * http_request.MOST_BYTES)[0] == 400
        assert posting(path, b"x" * (http_request.MOST_BYTES + 1))[0] == 413

    @pytest.mark.parametrize(
        ("path", "content_type", "headers"),
        [
            ("/events", "application/x-www-form-urlencoded", {}),
            ("/events", "text/plain", {}),
            ("/events", NDJSON, {}),
            ("/events", "application/json", {"Content-Encoding": "gzip"}),
            ("/events/batch", "application/octet-stream", {}),
            ("/events/batch", "application/json", {"ce-specversion": "1.0"}),
        ],
    )
    def test_of_unknown_types_are_refused_with_those_that_are_known(
        self, posting: Posting, path: str, content_type: str, headers: dict[str, str]
    ) -> None:
        answer = posting(path, native(), content_type, headers=headers, answer=True)
        assert answer["statusCode"] == 415
        assert answer["headers"].keys() & {"Accept-Post", "Accept-Encoding"}

    def test_need_no_content_type(self, posting: Posting) -> None:
        assert posting("/events", native(), None)[0] == 201

    def test_may_come_as_text(self, posting: Posting, database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", database.url_of("ingest"))
        key = api_keys.create(database.admin, "acme", role="writer")
        request = {"httpMethod": "POST", "path": "/events", "headers": {"X-API-Key": key}, "body": json.dumps(native())}
        assert http_ingest.handler(request, Context("http"))["statusCode"] == 201

    def test_to_another_route_are_not_found(self, posting: Posting) -> None:
        assert posting("/events/one", native())[0] == 404


class TestBatches:
    @pytest.mark.parametrize("as_lines", [True, False], ids=["NDJSON", "array"])
    def test_are_stored_as_one_and_answered_one_by_one_in_their_order(
        self, database: LogDatabase, posting: Posting, *, as_lines: bool
    ) -> None:
        events = [native(tenant="acme" if number % 2 else "globex") for number in range(6)]
        body = lines(*events) if as_lines else events
        status, answer = posting("/events/batch", body, NDJSON if as_lines else "application/json")
        assert status == 200
        assert answer == {
            "stored": 6, "duplicate": 0, "conflict": 0, "rejected": 0,
            "results": [
                {
                    "item": number, "id": event["id"], "tenant": event["tenant"], "source": event["source"],
                    "status": "stored", "index": number // 2,
                }
                for number, event in enumerate(events)
            ],
        }  # fmt: skip
        assert database.count("batch") == 2 + len(own_batches(database))

    @pytest.mark.parametrize("as_lines", [True, False], ids=["NDJSON", "array"])
    def test_with_poison_keep_its_neighbours(self, database: LogDatabase, posting: Posting, *, as_lines: bool) -> None:
        known = native()
        posting("/events", known)
        twin = native()
        items = [native(), native(action=None), 5, known, known | {"message": "x"}, "text", [], twin, twin, native(id=None)]
        sent = [json.dumps(item) for item in items]
        body = lines(*sent) if as_lines else f"[{','.join(sent)}]"
        status, answer = posting("/events/batch", body, NDJSON if as_lines else "application/json")
        assert status == 207
        assert statuses(answer) == [
            "stored", "rejected", "rejected", "duplicate", "conflict", "rejected", "rejected", "stored", "duplicate",
            "stored",
        ]  # fmt: skip
        assert [result["item"] for result in answer["results"]] == list(range(10))
        assert {name: answer[name] for name in ("stored", "duplicate", "conflict", "rejected")} == {
            "stored": 3, "duplicate": 2, "conflict": 1, "rejected": 4,
        }  # fmt: skip
        results = answer["results"]
        assert results[1]["errors"] == [{"field": "action", "message": "Object missing required field `action`"}]
        assert (results[3]["index"], results[7]["index"], results[8]["index"]) == (0, 2, 2)
        assert (results[4]["reason"], results[4]["id"]) == ("conflict", known["id"])
        assert database.count("event") == 4
        assert [raw for _, raw, _ in quarantined(database)] == [sent[4].encode()]

    def test_of_lines_lose_only_the_line_that_is_broken(self, posting: Posting) -> None:
        status, answer = posting("/events/batch", b"%s\n\xff\n\r\n{\n%s" % (one(), one()), NDJSON)
        assert (status, statuses(answer)) == (207, ["stored", "rejected", "rejected", "stored"])
        assert [result.get("reason") for result in answer["results"]] == [None, "not-utf8", "invalid-json", None]

    def test_of_lines_are_answered_by_the_numbers_that_these_have_in_the_body(self, posting: Posting) -> None:
        body = b"\n%s\r\n \t\r\n\n{}\n%s\n\n" % (one(), one())
        _, answer = posting("/events/batch", body, NDJSON)
        assert [(result["item"], result["status"]) for result in answer["results"]] == [
            (1, "stored"), (4, "rejected"), (5, "stored"),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("body", "content_type", "status"),
        [
            (b"", "application/json", 400),
            (b"[{", "application/json", 400),
            (b"\xff", "application/json", 400),
            (b"[" * 100_000, "application/json", 400),
            (b"[]", "application/json", 422),
            (b"", NDJSON, 422),
            (b"\r\n \n", NDJSON, 422),
            (b"[%s]" % b",".join([b"{}"] * 1001), "application/json", 413),
            (b"{}\n" * 1001, NDJSON, 413),
            (b'{"Records": [%s]}' % b",".join([b'{"eventName": "%s"}' % (b"x" * 50)] * 1001), "application/json", 413),
        ],
        ids=[
            "nothing",
            "broken",
            "no text",
            "deep",
            "empty",
            "no lines",
            "blank lines",
            "many",
            "many lines",
            "one of many",
        ],
    )
    def test_that_are_unusable_as_a_whole_are_a_problem(
        self, database: LogDatabase, posting: Posting, body: bytes, content_type: str, status: int
    ) -> None:
        assert posting("/events/batch", body, content_type)[0] == status
        assert (database.count("event"), database.count("quarantine")) == (0, 0)

    def test_of_one_document_that_holds_several_events_are_answered_event_by_event(self, posting: Posting) -> None:
        status, answer = posting("/events/batch", {"Records": [native(), native(action=None), native()]})
        assert (status, statuses(answer)) == (207, ["stored", "rejected", "stored"])
        assert [result["item"] for result in answer["results"]] == [0, 0, 0]

    def test_of_a_thousand_hostile_ids_are_answered_within_lambda_s_limit(self, posting: Posting) -> None:
        for character in ('"', "\x01", "\U0001f600"):
            events = [native(id=f"{number:04}{character * 252}", source=character * 256) for number in range(1000)]
            answer = posting("/events/batch", json.dumps(events, ensure_ascii=False), answer=True)
            assert answer["statusCode"] == 200
            assert len(json.dumps(answer, ensure_ascii=False).encode()) < 6_000_000


def one() -> bytes:
    return json.dumps(native()).encode()


def own_batches(database: LogDatabase) -> list[Any]:
    return database.admin.execute("SELECT id FROM prooftrail.batch WHERE tenant = '_prooftrail'").fetchall()


class TestIds:
    def test_are_uuids_of_version_7_in_the_order_of_the_events(self, posting: Posting) -> None:
        _, answer = posting("/events/batch", [native(id=None) for _ in range(100)])
        ids = [result["id"] for result in answer["results"]]
        assert {(uuid.UUID(id).version, uuid.UUID(id).variant) for id in ids} == {(7, uuid.RFC_4122)}
        assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id) for id in ids)
        assert len(set(ids)) == 100
        assert [id[:15] for id in ids] == sorted(id[:15] for id in ids)

    def test_derive_from_the_idempotency_key_so_that_a_retry_is_a_duplicate(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        event, key = native(id=None), {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
        status, receipt = posting("/events", event, headers=key)
        assert (status, receipt["status"]) == (201, "stored")
        assert posting("/events", event, headers=key) == (200, receipt | {"status": "duplicate"})
        bare = {"idempotency-key": key["Idempotency-Key"].strip('"')}
        assert posting("/events", event, headers=bare)[0] == 200
        assert posting("/events", event)[0] == 201
        assert database.count("event") == 2

    def test_of_a_batch_derive_from_the_key_and_the_place(self, database: LogDatabase, posting: Posting) -> None:
        events, key = [native(id=None)] * 3 + [native()], {"Idempotency-Key": "k"}
        assert statuses(posting("/events/batch", events, headers=key)[1]) == ["stored"] * 4
        assert statuses(posting("/events/batch", lines(*events), NDJSON, headers=key)[1]) == ["duplicate"] * 4
        apart = lines(*events).replace("\n", "\n\n")
        assert statuses(posting("/events/batch", apart, NDJSON, headers=key)[1]) == ["duplicate"] * 4
        assert database.count("event") == 4

    def test_under_one_key_for_other_content_are_a_conflict_and_never_silent(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        event, key = native(id=None), {"Idempotency-Key": "k"}
        posting("/events", event, headers=key)
        status, problem = posting("/events", event | {"message": "other"}, headers=key)
        assert (status, problem["errors"][0]["field"]) == (422, "Idempotency-Key")
        _, answer = posting("/events/batch", [event | {"message": "other"}, native(id=None)], headers=key)
        assert statuses(answer) == ["conflict", "stored"]
        assert len(quarantined(database)) == 1

    def test_under_one_key_are_apart_by_tenant_and_source(self, database: LogDatabase, posting: Posting) -> None:
        key = {"Idempotency-Key": "1"}
        for fields in ({}, {"tenant": "globex"}, {"source": "other"}):
            assert posting("/events", native(id=None, **fields), headers=key)[0] == 201
        assert database.count("event") == 3

    def test_under_one_key_are_the_same_for_another_api_key_of_the_tenant(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        event, retry = native(id=None), {"Idempotency-Key": "1"}
        old, new = (api_keys.create(database.admin, "acme", role="writer") for _ in range(2))
        assert posting("/events", event, key=old, headers=retry)[0] == 201
        assert posting("/events", event, key=new, headers=retry)[0] == 200

    @pytest.mark.parametrize("key", ["", " ", '""', '"a', "a b", "ü", "x" * 256, '"a"b"'])
    def test_do_not_derive_from_what_is_no_key(self, posting: Posting, key: str) -> None:
        status, problem = posting("/events", native(id=None), headers={"Idempotency-Key": f" {key}"})
        assert (status, problem["errors"][0]["field"]) == (400, "Idempotency-Key")

    @pytest.mark.parametrize("round", range(5))
    def test_of_two_requests_with_one_key_at_once_are_one_stored_and_one_duplicate(
        self, database: LogDatabase, posting: Posting, monkeypatch: pytest.MonkeyPatch, round: int
    ) -> None:
        """Two environments of the function: each has a writer of its own."""
        posting("/events", native())
        body, key = native(id=None), {"Idempotency-Key": f"k{round}"}
        request = http_request.Request(
            "POST", "/events", {"idempotency-key": key["Idempotency-Key"]}, json.dumps(body).encode()
        )
        holder = api_keys.Holder(1, "acme", "", "writer")
        items = [http_ingest._read(request, holder, [(0, request.body)]) for _ in range(2)]

        def append(of_one: list[http_ingest._Item]) -> tuple[str, int | None]:
            with database.connect("ingest") as connection:
                ((receipt),) = store.Store(connection).append([of_one[0].outcome], [])  # type: ignore[list-item]
                return receipt.status, receipt.index

        with ThreadPoolExecutor(2) as pool:
            found = sorted(pool.map(append, items))
        assert found == [("duplicate", None), ("stored", 1)]
        assert posting("/events", body, headers=key)[1]["index"] == 1


class TestKeys:
    def test_are_needed(self, posting: Posting) -> None:
        for key in (None, "pt_wrong", "\ud800", "\0"):
            answer = posting("/events", native(), key=key, answer=True)
            assert (answer["statusCode"], "WWW-Authenticate" in answer["headers"]) == (401, True)

    @pytest.mark.parametrize("role", ["reader", "privacy"])
    def test_that_read_do_not_write(self, database: LogDatabase, posting: Posting, role: api_keys.Role) -> None:
        for tenant in (None, "acme"):
            key = api_keys.create(database.admin, tenant, role=role)
            assert posting("/events", native(), key=key)[0] == 403
            assert posting("/events/batch", [native()], key=key)[0] == 403
        assert database.count("event") == 0

    def test_that_were_revoked_do_not_write(self, database: LogDatabase, posting: Posting) -> None:
        key = api_keys.create(database.admin, "acme", "sender", "writer")
        (listed,) = [item for item in api_keys.listing(database.admin) if item.label == "sender"]
        api_keys.revoke(database.admin, listed.id)
        assert posting("/events", native(), key=key)[0] == 401

    @pytest.mark.parametrize("path", ["/events", "/log/checkpoint", "/erasures", "/events/x", "/events/x/proof"])
    @pytest.mark.parametrize("tenant", [None, "acme"])
    def test_that_write_do_not_read(self, database: LogDatabase, asking: Asking, path: str, tenant: str | None) -> None:
        key = api_keys.create(database.admin, tenant, role="writer")
        assert asking(path, key=key)[0] == 403

    def test_of_a_tenant_are_its_events_tenant_where_they_name_none(self, database: LogDatabase, posting: Posting) -> None:
        key = api_keys.create(database.admin, "globex", role="writer")
        assert posting("/events", native(tenant=None), key=key)[1]["tenant"] == "globex"
        status, answer = posting("/events/batch", [native(tenant=None), native(tenant="globex")], key=key)
        assert (status, [result["tenant"] for result in answer["results"]]) == (200, ["globex", "globex"])

    def test_of_a_tenant_do_not_write_for_another(self, database: LogDatabase, posting: Posting) -> None:
        key = api_keys.create(database.admin, "globex", role="writer")
        status, problem = posting("/events", native(tenant="acme"), key=key)
        assert (status, problem["errors"][0]["field"]) == (403, "tenant")
        named = {"prooftrail-tenant": "acme"}
        assert posting("/events", native(tenant=None), key=key, headers=named)[0] == 403
        status, answer = posting("/events/batch", [native(tenant="acme"), native(tenant="globex")], key=key)
        assert (status, statuses(answer), answer["results"][0]["reason"]) == (
            207,
            ["rejected", "stored"],
            "forbidden-tenant",
        )
        assert database.count("event") == 1

    def test_of_an_operator_write_for_the_tenant_that_is_named(self, posting: Posting) -> None:
        assert posting("/events", native(tenant=None))[0] == 422
        status, receipt = posting("/events", native(tenant=None), headers={"Prooftrail-Tenant": "acme"})
        assert (status, receipt["tenant"]) == (201, "acme")

    def test_are_all_that_ingest_can_ask_about(self, database: LogDatabase) -> None:
        with database.connect("ingest") as connection:
            for statement in (b"SELECT hash FROM prooftrail.api_key", b"SELECT message FROM prooftrail.event"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)


class TestOutages:
    def test_of_the_database_are_answered_with_503_and_when_to_come_again(self, posting: Posting) -> None:
        for path in ("/events", "/events/batch"):
            answer = posting(path, native(), url=AWAY, seconds=3, answer=True)
            assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "10")
            assert answer["headers"]["Content-Type"] == "application/problem+json"

    def test_that_are_a_lock_which_somebody_holds_are_answered_likewise_while_there_is_time(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        event = native()
        month = f"prooftrail.event_{event['time'][:4]}_{event['time'][5:7]}"
        impatient = make_conninfo(database.url, options="-c role=prooftrail_ingest -c lock_timeout=500ms")
        posting("/events", native(), url=impatient)
        with database.admin.transaction():
            database.admin.execute(f"LOCK {month} IN ACCESS EXCLUSIVE MODE".encode())  # as an erasure does that rewrites it
            assert posting("/events", event, seconds=3)[0] == 503
        assert posting("/events", event)[0] == 201

    @pytest.mark.usefixtures("secrets_manager_away")
    def test_of_who_gives_out_the_password_are_answered_with_503(self, posting: Posting) -> None:
        answer = posting("/events", native(), seconds=3, answer=True)
        assert (answer["statusCode"], answer["headers"]["Retry-After"]) == (503, "10")

    def test_of_a_schema_registry_are_answered_with_503_and_nothing_is_stored(
        self, database: LogDatabase, posting: Posting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = formats.read

        def away(record: formats.RawRecord, *arguments: Any) -> Any:
            if b"registry" in record.body:
                raise RetryableError("the schema registry does not answer")
            return read(record, *arguments)

        monkeypatch.setattr(formats, "read", away)
        assert posting("/events/batch", [native(), native(message="registry")])[0] == 503
        assert database.count("event") == 0

    def test_that_break_a_warm_connection_are_survived(self, database: LogDatabase, posting: Posting) -> None:
        posting("/events", native())
        writer.writer().connection(0).close()
        assert posting("/events", native())[0] == 201

    @pytest.mark.parametrize(("moment", "status"), [("before", "stored"), ("after", "duplicate")])
    def test_of_the_function_itself_leave_nothing_before_the_commit_and_after_it_a_duplicate(
        self, database: LogDatabase, posting: Posting, moment: str, status: str
    ) -> None:
        key = api_keys.create(database.admin, "acme", role="writer")
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "k", "Content-Type": "application/json"}
        event = json.dumps(native(id=None))
        request = {"httpMethod": "POST", "path": "/events", "headers": headers, "body": event}
        environment = os.environ | {
            "DATABASE_URL": database.url_of("ingest"),
            "PYTHONPATH": f"{PROJECT / 'functions' / 'ingest'}:{PROJECT}",
        }
        command = [sys.executable, "-c", KILLED, moment, json.dumps(request)]
        assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
        assert database.count("event") == (moment == "after")
        assert posting("/events", event, key=key, headers=headers)[1]["status"] == status
        assert database.count("event") == 1

    def test_before_the_commit_leave_nothing_and_after_it_a_duplicate(
        self, database: LogDatabase, posting: Posting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server goes away under the function: 503, and the retry is stored, or known, but never twice."""
        event = native()
        posting("/events", native())
        append = store.Store.append

        def killed_before(self: store.Store, *arguments: Any) -> Any:
            raise psycopg.OperationalError("the connection is lost")

        def killed_after(self: store.Store, *arguments: Any) -> Any:
            append(self, *arguments)
            raise psycopg.OperationalError("the connection is lost")

        for killed, status in ((killed_before, "stored"), (killed_after, "duplicate")):
            body = event if killed is killed_after else native()
            with monkeypatch.context() as patch:
                patch.setattr(store.Store, "append", killed)
                assert posting("/events", body, seconds=3)[0] == 503
            assert posting("/events", body)[1]["status"] == status

    def test_after_the_commit_take_at_most_the_place(
        self, database: LogDatabase, posting: Posting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        event = native()
        posting("/events", event)

        def gone(*_: Any) -> Any:
            raise psycopg.OperationalError("the connection is lost")

        monkeypatch.setattr(store.Store, "places", gone)
        status, receipt = posting("/events", event)
        assert (status, receipt["status"], receipt["index"]) == (200, "duplicate", None)

    def test_that_nobody_expected_are_told_without_the_trace(
        self, posting: Posting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http_ingest, "_read", lambda *_: 1 / 0)
        status, problem = posting("/events", native())
        assert (status, "division" in json.dumps(problem)) == (500, False)

    def test_of_a_format_take_the_one_event_that_it_failed_on_and_keep_it(
        self, database: LogDatabase, posting: Posting, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, bad = formats.read, native(message="fails")

        def failing(record: formats.RawRecord, *arguments: Any) -> Any:
            return 1 / 0 if b"fails" in record.body else read(record, *arguments)

        monkeypatch.setattr(formats, "read", failing)
        status, answer = posting("/events/batch", [native(), bad, native()])
        assert (status, statuses(answer)) == (207, ["stored", "rejected", "stored"])
        assert (answer["results"][1]["reason"], "division" in json.dumps(answer)) == ("reader-failed", False)
        assert posting("/events", bad)[0] == 422
        assert [(reason, raw) for reason, raw, _ in quarantined(database)] == [("reader-failed", json.dumps(bad).encode())]


CLOUDEVENT = {
    "specversion": "1.0", "id": "ce-1", "source": "records", "type": "patient.update", "time": "2026-10-01T12:00:00Z",
    "datacontenttype": "application/json", "authtype": "user", "authid": "dr-lee", "data": {"ward": "9"},
}  # fmt: skip


class TestFormats:
    def test_a_cloudevent_is_one_event_in_each_of_its_modes(self, database: LogDatabase, posting: Posting) -> None:
        key = api_keys.create(database.admin, "acme", role="writer")
        attributes = {f"ce-{name}": value for name, value in CLOUDEVENT.items() if not name.startswith("data")}
        answers = [
            posting("/events", CLOUDEVENT["data"], key=key, headers=attributes),
            posting("/events", CLOUDEVENT, "application/cloudevents+json; charset=utf-8", key=key),
            posting("/events", CLOUDEVENT, key=key),
        ]
        _, batch = posting("/events/batch", [CLOUDEVENT, CLOUDEVENT], "application/cloudevents-batch+json", key=key)
        assert [(status, receipt["id"]) for status, receipt in answers] == [(201, "ce-1"), (200, "ce-1"), (200, "ce-1")]
        assert statuses(batch) == ["duplicate", "duplicate"]

    def test_a_binary_cloudevent_may_have_data_of_any_type(self, database: LogDatabase, posting: Posting) -> None:
        attributes = {f"ce-{name}": value for name, value in CLOUDEVENT.items() if not name.startswith("data")}
        tenant = {"prooftrail-tenant": "acme"}
        for number, (content_type, data) in enumerate(
            [("text/plain", "ward 9"), ("image/png", b"\x89PNG\r\n"), (None, "")]
        ):
            headers = attributes | tenant | {"ce-id": f"b-{number}"}
            assert posting("/events", data, content_type, headers=headers)[0] == 201

    def test_a_document_that_holds_several_events_is_answered_event_by_event(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        record = {"timeUnixNano": "1790856000000000000", "severityText": "INFO", "body": {"stringValue": "read"}}
        named = [{"key": "event.name", "value": {"stringValue": "patient.read"}}]
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "records"}}]}
        document = {
            "resourceLogs": [
                {"resource": resource, "scopeLogs": [{"logRecords": [record | {"attributes": named} for _ in range(3)]}]}
            ]
        }
        key = api_keys.create(database.admin, "acme", role="writer")
        retry = {"Idempotency-Key": "otlp"}
        for status in ("stored", "duplicate"):
            _, answer = posting("/events/batch", document, key=key, headers=retry)
            assert statuses(answer) == [status] * 3, answer
            assert [result["index"] for result in answer["results"]] == [1, 2, 3]  # the key's making is the first entry
        assert posting("/events", document, key=key)[0] == 422


class TestHostileInput:
    @NEEDS_SUITE
    def test_every_file_of_the_suite_is_answered_as_the_body_of_one_event(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        for file in SUITE:
            status, problem = posting("/events", file.read_bytes())
            assert status in ((400, 422) if file.name[:2] in ("n_", "i_") else (422,)), file.name
            assert problem["errors"], file.name
        assert (database.count("event"), database.count("quarantine")) == (0, 0)

    @NEEDS_SUITE
    def test_every_file_of_the_suite_leaves_its_neighbours_alone(self, database: LogDatabase, posting: Posting) -> None:
        stored = 0
        for file in SUITE:
            text = file.read_bytes()
            single = b" ".join(text.splitlines()) if b"\n" in text else text
            status, answer = posting("/events/batch", b"%s\n%s\n%s" % (one(), single, one()), NDJSON)
            found = statuses(answer)
            assert (found[0], found[-1]) == ("stored", "stored"), file.name
            assert (status == 207 and set(found[1:-1]) == {"rejected"}) or not single.strip(b" \t\r"), file.name
            stored += 2
            status, answer = posting("/events/batch", b"[%s,%s]" % (one(), text))
            assert status in (207, 400), file.name
            if status == 207:
                assert statuses(answer)[0] == "stored", file.name
                stored += 1
        assert database.count("event") == stored

    @NEEDS_SUITE
    def test_every_file_of_the_suite_inside_an_event_is_answered(self, database: LogDatabase, posting: Posting) -> None:
        event = json.dumps(native(id=None))[:-1].encode()
        stored = 0
        for file in SUITE:
            status, _ = posting("/events", b'%s, "metadata": {"value": %s}}' % (event, file.read_bytes()))
            assert status in (201, 400, 422), file.name
            stored += status == 201
            assert status == 201 or not file.name.startswith("y_") or "duplicated_key" in file.name or "u" in file.name
        assert database.count("event") == stored

    @NEEDS_NAUGHTY
    def test_every_naughty_string_comes_back_as_it_was_sent(
        self, database: LogDatabase, posting: Posting, asking: Asking
    ) -> None:
        events = naughty_events()
        half = len(events) // 2
        assert posting("/events/batch", json.dumps(events[:half], ensure_ascii=False))[0] == 200
        assert posting("/events/batch", lines(*events[half:]), NDJSON)[0] == 200
        found = {event["source"]: event for event in all_events(asking)}
        assert found == {event["source"]: event for event in events}

    @NEEDS_NAUGHTY
    def test_every_naughty_string_is_answered_as_a_body_and_as_every_header(
        self, database: LogDatabase, posting: Posting
    ) -> None:
        texts = json.loads(NAUGHTY.read_bytes())
        for text in texts:
            status, _ = posting("/events", text.encode())
            assert status in (400, 422), text
            assert posting("/events/batch", text.encode())[0] in (207, 400, 422), text
            for name in ("Idempotency-Key", "Content-Type", "Prooftrail-Tenant", "Authorization", "ce-id", "ce-source"):
                status, _ = posting("/events", native(tenant=None), headers={name: text})
                assert status in (201, 400, 401, 403, 415, 422), (name, text)


def test_an_event_by_sqs_and_by_http_is_one(database: LogDatabase, ingesting: Any, posting: Posting) -> None:
    event = native()
    ingesting(sqs(event))
    status, receipt = posting("/events", base64.b64decode(base64.b64encode(json.dumps(event).encode())))
    assert (status, receipt["status"], receipt["index"]) == (200, "duplicate", 0)


@pytest.mark.parametrize(("name", "statuses"), [("ingest-http.json", [201, 200]), ("ingest-http-batch.json", [200, 200])])
def test_a_sample_request_is_answered(
    database: LogDatabase, monkeypatch: pytest.MonkeyPatch, posting: Posting, name: str, statuses: list[int]
) -> None:
    """Twice: the second time all of it is known, by its ids or by its Idempotency-Key."""
    monkeypatch.setenv("DATABASE_URL", database.url_of("ingest"))
    request = json.loads((PROJECT / "events" / name).read_bytes())
    key = api_keys.create(database.admin, "clinic-north", role="writer")
    assert http_ingest.handler(request, Context("http"))["statusCode"] == 401  # the sample's key is made up
    request["multiValueHeaders"]["Authorization"] = [f"Bearer {key}"]
    assert [http_ingest.handler(request, Context("http"))["statusCode"] for _ in statuses] == statuses


def test_no_statement_looks_for_places_that_nobody_asks_for(
    database: LogDatabase, ingesting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.Store, "places", lambda *_: 1 / 0)
    event = native()
    assert ingesting(sqs(event)) == ingesting(sqs(event)) == []


class TestEventsWithoutATime:
    """Of the services that are replaced, whose database put the time."""

    document = json.dumps({"functionality": "ward", "event_type": "opened", "company_id": "acme", "user": "dr-lee"})

    def test_have_that_of_their_request(self, posting: Posting, database: LogDatabase) -> None:
        before = datetime.now(UTC)
        status, _ = posting("/events", self.document)
        (time,) = database.admin.execute("SELECT time FROM prooftrail.event WHERE action = 'opened'").fetchone() or ()
        assert (status, before <= time <= datetime.now(UTC)) == (201, True)

    def test_need_one_where_a_retry_must_say_the_same(self, posting: Posting) -> None:
        status, problem = posting("/events", self.document, headers={"Idempotency-Key": "k-1"})
        assert (status, problem["errors"][0]["field"]) == (422, "time")
        with_an_id = self.document.replace("{", '{"event_id": "e-1", ')
        assert posting("/events", with_an_id)[0] == 422

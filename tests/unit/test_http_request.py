"""Requests over HTTP before anything touches the database: whatever they hold, they are taken or refused with a problem."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import event_ids
import http_answers
import http_ingest
import writer
from http_request import MOST_BYTES, Request
from prooftrail.api_keys import ALL_TENANTS, Holder
from prooftrail.formats import Accepted, RawRecord
from prooftrail.problem import LONGEST_MESSAGE, Problem
from tests.factories import native

OPERATOR = Holder(1, ALL_TENANTS, "", "writer")
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.fixture(autouse=True, scope="module")
def settings() -> Iterator[None]:
    """What the function is told, without a database behind it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
        caches = (writer.own_settings, writer.defaults)
        for cache in caches:
            cache.cache_clear()
        yield
        for cache in caches:
            cache.cache_clear()


def request(body: bytes, headers: dict[str, Any] | None = None, path: str = "/events") -> Request:
    envelope = {
        "httpMethod": "POST",
        "path": path,
        "headers": headers,
        "multiValueHeaders": None,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    return Request.of(envelope)


def taken(asked: Request) -> list[Any]:
    """What either route makes of a request, the batch's last; a problem is an answer too."""
    return [item for route in (as_one, as_batch) for item in answered(route, asked)]


def answered(route: Callable[[Request], list[Any]], asked: Request) -> list[Any]:
    try:
        return route(asked)
    except Problem as caught:
        problem = caught
    assert 400 <= http_answers.problem_answer(problem)["statusCode"] < 500
    return []


def as_one(asked: Request) -> list[Any]:
    asked.check_one()
    return http_ingest._read(asked, OPERATOR, [(0, asked.body)])


def as_batch(asked: Request) -> list[Any]:
    asked.check_batch()
    bodies = http_ingest._bodies(asked)
    items = http_ingest._read(asked, OPERATOR, bodies)
    assert {item.number for item in items} == {number for number, _ in bodies}
    return items


@given(st.binary(), st.sampled_from(["application/json", "application/x-ndjson", "application/avro"]))
@example(b"\0\0\0\0\x01", "application/avro")
def test_any_bytes_are_taken_or_refused(body: bytes, content_type: str) -> None:
    assert not any(isinstance(item.outcome, Accepted) for item in taken(request(body, {"Content-Type": content_type})))


@given(st.lists(JSON_VALUES, max_size=5), st.booleans())
def test_any_neighbours_leave_an_event_alone(neighbours: list[Any], as_lines: bool) -> None:
    texts = [json.dumps(item).encode() for item in [*neighbours, native()]]
    body = b"\n".join(texts) if as_lines else b"[%s]" % b",".join(texts)
    asked = request(body, {"Content-Type": "application/x-ndjson" if as_lines else "application/json"})
    assert isinstance(taken(asked)[-1].outcome, Accepted)


@given(
    st.dictionaries(
        st.sampled_from(["Content-Type", "Idempotency-Key", "Prooftrail-Tenant", "ce-specversion", "ce-id", "X-Other"]),
        st.text(),
    )
)
def test_any_headers_are_taken_or_refused(headers: dict[str, str]) -> None:
    taken(request(json.dumps(native(tenant=None, id=None)).encode(), headers))


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "Cookie", "X-Amz-Security-Token", "Idempotency-Key"])
def test_what_proves_who_the_client_is_goes_no_further(name: str) -> None:
    asked = request(
        b"{}",
        {
            name: "secret",
            "Content-Type": "application/json",
            "__TypeId__": "a.B",
            "CE-Id": "1",
            "Prooftrail-Timezone": "+02:00",
        },
    )
    assert asked.headers_of_records("acme") == {
        "content-type": "application/json", "__typeid__": "a.B", "ce-id": "1", "prooftrail-tenant": "acme",
        "prooftrail-timezone": "+02:00",
    }  # fmt: skip


def test_headers_that_came_twice_are_one_and_without_a_list_of_them_the_plain_ones_count() -> None:
    several = {"multiValueHeaders": {"Content-Type": ["application/json", "text/plain"]}, "headers": {"Content-Type": "x"}}
    assert Request.of(several).headers == {"content-type": "application/json, text/plain"}
    assert Request.of({"headers": {"Content-Type": "x"}}).headers == {"content-type": "x"}
    assert Request.of({}).body == b""


def test_a_body_that_is_text_is_taken_as_its_bytes() -> None:
    assert Request.of({"body": "é ☃"}).body == "é ☃".encode()


def test_a_body_of_the_largest_size_reaches_lambda_with_its_headers() -> None:
    assert len(base64.b64encode(bytes(MOST_BYTES))) + 64 * 1024 < 6 * 1024 * 1024


def test_a_message_that_quotes_what_came_stays_short() -> None:
    problem = Problem(HTTPStatus.BAD_REQUEST, "x" * 1_000_000 + "\ud800")
    assert len(json.loads(problem.to_json())["detail"]) == LONGEST_MESSAGE + 1


def test_an_id_says_when_it_was_made() -> None:
    before = time.time_ns() // 1_000_000
    made = [uuid.UUID(event_ids.new()) for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert all(before <= id.int >> 80 <= after for id in made)
    assert {(id.version, id.variant) for id in made} == {(7, uuid.RFC_4122)}
    assert len(set(made)) == 1000
    assert [id.int >> 64 for id in made] == sorted(id.int >> 64 for id in made)


def test_an_id_that_derives_from_a_key_is_what_it_was_when_the_key_was_first_used() -> None:
    """Pinned: were it another after an update, a retry would be stored twice."""
    assert event_ids.derived("k", 0) == "692f691a-7e1a-5161-b613-8a0e162ac28e"
    assert event_ids.derived("k", 1) == "8a5ae4c0-4a61-5634-b42a-1a642ca5e1d0"


def test_an_event_that_http_refuses_has_one_name_for_the_same_bytes_and_headers() -> None:
    one, other = RawRecord("a", b"{}", {"ce-id": "1"}), RawRecord("b", b"{}", {"ce-id": "2"})
    again = RawRecord("c", b"{}", {"ce-id": "1", ":received": "2026-10-01T12:00:00+00:00"})
    names = [http_ingest._as_evidence(record).origin for record in (one, other, again)]
    assert (names[0] == names[2], names[0] == names[1]) == (True, False)

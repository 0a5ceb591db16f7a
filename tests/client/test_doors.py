"""The ways into a client: coroutines, logging, ASGI and WSGI."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import UserDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from prooftrail_client import Actor, AsyncAuditClient, AuditClient, AuditEvent, AuditHandler, Result, asgi, wsgi
from tests.client.conftest import Recorder, event


@pytest.fixture
def client(recorder: Recorder) -> Iterator[AuditClient]:
    with AuditClient(recorder, tenant="acme", source="app") as client:
        yield client


def logged(client: AuditClient, recorder: Recorder) -> list[dict[str, Any]]:
    assert client.flush(30)
    return recorder.events


# Coroutines


def test_coroutines_log_flush_and_close(recorder: Recorder) -> None:
    async def work() -> None:
        async with AsyncAuditClient(AuditClient(recorder)) as client:
            await asyncio.gather(*(client.log(event()) for _ in range(20)))
            assert await client.flush(30)
            assert client.stats.delivered == 20

    asyncio.run(work())
    assert len(set(recorder.ids)) == 20
    assert recorder.closed


@pytest.mark.parametrize(
    ("settings", "elsewhere"), [({}, False), ({"when_full": "block"}, True), ({"durability": "disk"}, True)]
)
def test_the_event_loop_never_waits_for_a_disk_or_for_room(
    recorder: Recorder, tmp_path: Path, settings: dict[str, Any], elsewhere: bool
) -> None:
    threads: list[int] = []

    def log(_event: AuditEvent) -> None:
        threads.append(threading.get_ident())

    async def work() -> None:
        inner = AuditClient(recorder, spool=tmp_path, **settings)
        async with AsyncAuditClient(inner) as client:
            with mock.patch.object(inner, "log", log):
                await client.log(event())

    asyncio.run(work())
    assert (threads != [threading.get_ident()]) == elsewhere


# Logging


@pytest.fixture
def log(client: AuditClient) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.audited")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    handler = AuditHandler(client)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def test_a_record_becomes_an_event(client: AuditClient, recorder: Recorder, log: logging.Logger) -> None:
    log.warning("%d records exported", 7)
    try:
        int("x")
    except ValueError:
        log.exception("failed")
    log.debug("x")
    first, second, third = logged(client, recorder)
    assert (first["action"], first["level"], first["message"]) == ("log.record", "warning", "7 records exported")
    assert (first["category"], first["outcome"]) == ("tests.audited", "unknown")
    assert (second["level"], second["outcome"], second["error"]["code"]) == ("error", "failure", "ValueError")
    assert third["level"] == "debug"


def test_a_record_carries_an_event(client: AuditClient, recorder: Recorder, log: logging.Logger) -> None:
    given = event(action="patient.read")
    log.info("seen", extra={"audit": given})
    log.info("not used", extra={"audit": event(message="own")})
    first, second = logged(client, recorder)
    assert (first["id"], first["action"], first["message"]) == (given.id, "patient.read", "seen")
    assert second["message"] == "own"


def test_a_record_that_is_no_event_goes_to_the_handlers_error_and_not_to_the_caller(
    client: AuditClient, recorder: Recorder, log: logging.Logger
) -> None:
    with mock.patch.object(AuditHandler, "handleError") as failed:
        log.info("nul \0")
    assert failed.call_count == 1
    log.info("next")
    assert [each["message"] for each in logged(client, recorder)] == ["next"]


def test_records_that_come_of_auditing_make_no_events(client: AuditClient, recorder: Recorder, log: logging.Logger) -> None:
    def answer(_event: dict[str, Any]) -> Result:
        log.info("a transport's own record")  # in the client's thread, as boto3 does
        logging.getLogger("tests.audited").error("and an error")
        return Result("delivered")

    class Chatty(UserDict[str, int]):
        def __iter__(self) -> Iterator[str]:
            log.info("while an event is written")
            return super().__iter__()

    recorder.answer = answer
    log.info("chatty", extra={"audit": event(after=Chatty(a=1))})
    logging.getLogger("prooftrail_client").addHandler(log.handlers[0])
    logging.getLogger("prooftrail_client").error("the client's own")
    logging.getLogger("prooftrail_client").removeHandler(log.handlers[0])
    assert [each["message"] for each in logged(client, recorder)] == ["chatty"]


# ASGI


Send = Callable[[dict[str, Any]], Awaitable[None]]


def ask_asgi(app: Any, client: AuditClient, scope: dict[str, Any] | None = None, **settings: Any) -> list[Any]:
    """One request; what was sent back."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {
        "type": "http",
        "method": "GET",
        "path": "/patients/p-1/notes",
        "headers": [
            (b"x-request-id", b"r-1"),
            (b"user-agent", b"curl/8"),
            (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ],
        "client": ("10.0.0.9", 1234),
        "query_string": b"token=secret",
    }
    asyncio.run(asgi.AuditMiddleware(app, client, **settings)(given | (scope or {}), receive, send))
    return sent


def responding(status: int, **into_scope: Any) -> Any:
    async def app(scope: dict[str, Any], _receive: Any, send: Send) -> None:
        scope.update(into_scope)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})

    return app


def test_asgi_a_request_is_audited_with_who_what_and_how_it_ended(client: AuditClient, recorder: Recorder) -> None:
    app = responding(200, route=SimpleNamespace(path="/patients/{id}/notes"), user="dr-lee")
    sent = ask_asgi(app, client, actor=lambda scope: scope["user"])
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    (audited,) = logged(client, recorder)
    assert audited["action"] == "GET /patients/{id}/notes"
    assert (audited["category"], audited["outcome"], audited["level"]) == ("http", "success", "info")
    assert audited["actor"] == {"type": "user", "id": "dr-lee", "ip": "10.0.0.9", "user_agent": "curl/8"}
    assert (audited["request_id"], audited["trace_id"]) == ("r-1", "4bf92f3577b34da6a3ce929d0e0e4736")
    assert audited["metadata"] == {"method": "GET", "path": "/patients/p-1/notes", "status": 200}
    assert audited["duration_ms"] >= 0
    assert "secret" not in str(audited)


@pytest.mark.parametrize(
    ("status", "outcome", "level"),
    [(204, "success", "info"), (302, "success", "info"), (403, "failure", "info"), (500, "failure", "error")],
)
def test_asgi_the_status_says_how_it_ended(
    client: AuditClient, recorder: Recorder, status: int, outcome: str, level: str
) -> None:
    ask_asgi(responding(status), client)
    (audited,) = logged(client, recorder)
    assert (audited["outcome"], audited["level"]) == (outcome, level)


def test_asgi_an_exception_is_audited_and_goes_on(client: AuditClient, recorder: Recorder) -> None:
    async def app(*_arguments: Any) -> None:
        raise LookupError("no such patient")

    with pytest.raises(LookupError):
        ask_asgi(app, client)
    (audited,) = logged(client, recorder)
    assert (audited["outcome"], audited["error"]["code"]) == ("failure", "LookupError")


@pytest.mark.parametrize(
    ("scope", "action"),
    [
        ({"path_params": {"id": "p-1"}}, "GET /patients/{id}/notes"),
        ({"path": "/a b/\0/é", "path_params": {}}, "GET /a%20b/%00/%C3%A9"),
        ({"path": "/\ud800"}, "GET /%3F"),
        ({"path": "/" + "x" * 1000}, "GET /" + "x" * 251),
        ({"headers": [(b"user-agent", b"\x00\xff"), (b"x-request-id", b"\x00")]}, "GET /patients/p-1/notes"),
    ],
)
def test_asgi_no_strange_request_gets_past_the_audit(
    client: AuditClient, recorder: Recorder, scope: dict[str, Any], action: str
) -> None:
    ask_asgi(responding(200), client, scope)
    assert [audited["action"] for audited in logged(client, recorder)] == [action]


@pytest.mark.parametrize("actor", [lambda _scope: 1 // 0, lambda _scope: "x" * 600, lambda _scope: 5])
def test_asgi_a_faulty_actor_function_is_noted_and_the_request_audited(
    client: AuditClient, recorder: Recorder, actor: Any
) -> None:
    assert len(ask_asgi(responding(200), client, actor=actor)) == 2
    (audited,) = logged(client, recorder)
    assert len(audited["metadata"]["audit_problems"]) == 1
    assert audited["actor"] == {"ip": "10.0.0.9", "user_agent": "curl/8"}


def test_asgi_a_client_that_fails_breaks_no_request(client: AuditClient, caplog: pytest.LogCaptureFixture) -> None:
    client.close()
    assert len(ask_asgi(responding(200), client)) == 2
    assert "a request was not audited: GET /patients/p-1/notes" in caplog.text


def test_asgi_what_is_no_request_passes_untouched(client: AuditClient, recorder: Recorder) -> None:
    seen: list[str] = []

    async def app(scope: dict[str, Any], _receive: Any, _send: Any) -> None:
        seen.append(scope["type"])

    ask_asgi(app, client, {"type": "lifespan"})
    assert seen == ["lifespan"]
    assert logged(client, recorder) == []


# WSGI


def ask_wsgi(app: Any, client: AuditClient, path: str = "/patients/p-1", **settings: Any) -> tuple[str, bytes]:
    """One request, as a server makes it; the status and the body."""
    statuses: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "token=secret",
        "REMOTE_ADDR": "10.0.0.9",
        "REMOTE_USER": "dr-lee",
        "HTTP_X_REQUEST_ID": "r-1",
    }
    answer = wsgi.AuditMiddleware(app, client, **settings)(environ, lambda status, *_more: statuses.append(status))  # type: ignore[arg-type]
    try:
        body = b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]
    return statuses[0], body


def hello(_environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("201 Created", [])
    return [b"hel", b"lo"]


def test_wsgi_a_request_is_audited_once_its_answer_is_closed(client: AuditClient, recorder: Recorder) -> None:
    answered = ask_wsgi(hello, client, template=lambda _environ: "/patients/{id}")
    assert answered == ("201 Created", b"hello")
    (audited,) = logged(client, recorder)
    assert (audited["action"], audited["outcome"]) == ("POST /patients/{id}", "success")
    assert audited["actor"] == {"type": "user", "id": "dr-lee", "ip": "10.0.0.9"}
    assert audited["request_id"] == "r-1"
    assert audited["metadata"] == {"method": "POST", "path": "/patients/p-1", "status": 201}


def test_wsgi_failures_before_and_while_answering_are_audited_and_go_on(client: AuditClient, recorder: Recorder) -> None:
    def at_once(_environ: Any, _start_response: Any) -> Iterable[bytes]:
        raise LookupError("at once")

    def midway(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"hel"
        raise LookupError("midway")

    for app in (at_once, midway):
        with pytest.raises(LookupError):
            ask_wsgi(app, client)
    first, second = logged(client, recorder)
    assert (first["error"]["message"], first["outcome"], first["level"]) == ("at once", "failure", "error")
    assert (second["error"]["message"], second["metadata"]["status"]) == ("midway", 200)


def test_wsgi_the_programs_answer_is_closed_and_strange_paths_are_audited(client: AuditClient, recorder: Recorder) -> None:
    closed: list[bool] = []

    class Answer(list[bytes]):
        def close(self) -> None:
            closed.append(True)

    def app(_environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("404 Not Found", [])
        return Answer([b""])

    ask_wsgi(app, client, "/\0\xff", actor=lambda _environ: Actor(id="svc", type="service"))
    (audited,) = logged(client, recorder)
    assert closed == [True]
    assert (audited["action"], audited["outcome"], audited["actor"]["type"]) == ("POST /%00%FF", "failure", "service")

"""A transport that does as it is told, and a service over HTTP that does likewise."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from prooftrail_client import AuditEvent, AuditTransportError, Result
from prooftrail_client.transports import DELIVERED
from tests.integration.conftest import posting

__all__ = ["posting"]  # a fixture


class Recorder:
    """A transport that keeps what it gets; `answers` says what becomes of an event, and while `down` it takes nothing."""

    largest_event = 1_000_000

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.down = False
        self.attempted = threading.Event()
        self.closed = False
        self.answer: Callable[[dict[str, Any]], Result] = lambda _event: DELIVERED

    def send(self, events: Sequence[bytes]) -> Sequence[Result]:
        self.attempted.set()
        if self.down:
            raise AuditTransportError("nobody answers")
        self.batches.append(list(events))
        return [self.answer(json.loads(event)) for event in events]

    def close(self) -> None:
        self.closed = True

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(event) for batch in self.batches for event in batch]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


class Service(ThreadingHTTPServer):
    """`POST /events/batch`: keeps requests, and answers as `answers` says, else that all is stored."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, body: bytes, _authorization: str) -> tuple[int, dict[str, str], bytes]:
        if self.answers:
            return self.answers.pop(0)
        return 200, {}, stored(len(body.splitlines()))

    @property
    def ids(self) -> list[str]:
        return [json.loads(line)["id"] for _, _, body in self.requests for line in body.splitlines()]


def stored(count: int) -> bytes:
    return json.dumps({"results": [{"status": "stored", "index": number} for number in range(count)]}).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        status, headers, answer = self.server.answer(body, self.headers["Authorization"])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(BrokenPipeError):  # a producer that was killed
            self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


class RealService(Service):
    """What answers is the real handler, on the test's database."""

    def __init__(self, posting: Callable[..., Any]) -> None:
        super().__init__()
        self._posting = posting
        self._one_at_a_time = threading.Lock()

    def answer(self, body: bytes, authorization: str) -> tuple[int, dict[str, str], bytes]:
        key = authorization.removeprefix("Bearer ")
        with self._one_at_a_time:
            given = self._posting("/events/batch", body, "application/x-ndjson", key=key, answer=True)
        return given["statusCode"], {}, given["body"].encode()


@pytest.fixture
def real_service(posting: Callable[..., Any]) -> Iterator[Service]:
    yield from serving(RealService(posting))


@pytest.fixture
def service() -> Iterator[Service]:
    yield from serving(Service())


def serving(server: Service) -> Iterator[Service]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def event(**fields: Any) -> AuditEvent:
    """An event that says all that it must; give fields to change."""
    given: dict[str, Any] = {"action": "patient.read", "tenant": "acme", "source": "clinic/records"}
    return AuditEvent(**given | fields)

"""AWS's Lambda Runtime API for one process: it asks for events and posts answers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread
from typing import Literal

MAXIMUM_RESPONSE_BYTES = 6 * 1024 * 1024 + 100
VERSION = "/2018-06-01/runtime"


@dataclass(frozen=True)
class Invocation:
    """One event on its way to a function."""

    id: str
    function_arn: str
    trace: str
    payload: bytes
    timeout_seconds: float


@dataclass(frozen=True)
class Outcome:
    """What a process told us, or what became of it."""

    kind: Literal["ready", "response", "error", "init_error", "exit"]
    payload: bytes = b""


class RuntimeApi:
    """Serves the API on a loopback port; outcomes arrive in `outcomes` in the order in which they happened."""

    def __init__(self) -> None:
        self.outcomes: Queue[Outcome] = Queue()
        self.events: Queue[Invocation | None] = Queue()
        self._asked_before = False
        api = self

        class Handler(_Handler):
            runtime = api

        self._server = _Server(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, args=(0.05,), name="runtime-api", daemon=True).start()

    @property
    def address(self) -> str:
        """Host and port for AWS_LAMBDA_RUNTIME_API."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop serving and release a waiting request."""
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()

    def next_event(self) -> Invocation | None:
        """Wait for the next event; the first call says that initialisation is over."""
        if not self._asked_before:
            self._asked_before = True
            self.outcomes.put(Outcome("ready"))
        return self.events.get()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Joining handler threads would wait for the request that waits for an event.
    block_on_close = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    runtime: RuntimeApi

    def do_GET(self) -> None:
        if self.path != f"{VERSION}/invocation/next":
            self._answer(404)
            return
        invocation = self.runtime.next_event()
        if invocation is None:
            self.close_connection = True
            return
        self._answer(200, invocation.payload, _headers(invocation))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == f"{VERSION}/init/error":
            self._report("init_error", body)
        elif self.path.endswith("/error"):
            self._report("error", body)
        elif self.path.endswith("/response"):
            self._response(body)
        else:
            self._answer(404)

    def _response(self, body: bytes) -> None:
        if len(body) <= MAXIMUM_RESPONSE_BYTES:
            self._report("response", body)
            return
        # AWS refuses with 413, upon which its client ends; accepting keeps the process for the next event.
        message = f"Response payload size exceeded maximum allowed payload size ({MAXIMUM_RESPONSE_BYTES} bytes)."
        error = {"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"}
        self._report("error", json.dumps(error).encode())

    def _report(self, kind: Literal["response", "error", "init_error"], body: bytes) -> None:
        self._answer(202, b'{"status":"OK"}')
        self.runtime.outcomes.put(Outcome(kind, body))

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the function's own log tells its story."""


def _headers(invocation: Invocation) -> dict[str, str]:
    return {
        "Lambda-Runtime-Aws-Request-Id": invocation.id,
        "Lambda-Runtime-Deadline-Ms": str(int((time.time() + invocation.timeout_seconds) * 1000)),
        "Lambda-Runtime-Invoked-Function-Arn": invocation.function_arn,
        "Lambda-Runtime-Trace-Id": invocation.trace,
    }

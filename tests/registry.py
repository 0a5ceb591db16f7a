"""A small schema registry on a port of its own: real HTTP, and faults to order."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import fastavro


class Registry:
    """Schemas by number; `asked` holds the paths that were asked for, `fault` what to answer instead of the truth."""

    def __init__(self, port: int = 0, user: str | None = None, fault: int | bytes | None = None) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, int] = {}
        self.asked: list[str] = []
        self.fault = fault
        self.delay = 0.0
        self._user = user
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, schema: Any, subject: str | None = None, references: Any = (), kind: str | None = None) -> int:
        """Register a schema; returns its id."""
        id = len(self.schemas) + 1
        self.schemas[id] = {"schema": json.dumps(schema)} | ({"schemaType": kind} if kind else {})
        if references:
            self.schemas[id]["references"] = [
                {"name": name, "subject": subject, "version": version} for name, subject, version in references
            ]
        if subject:
            self.subjects[f"{subject}/versions/1"] = id
        return id

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes]:
        self.asked.append(path)
        time.sleep(self.delay)
        if isinstance(self.fault, int):
            return self.fault, b'{"error_code":50001,"message":"broken"}'
        if self.fault is not None:
            return 200, self.fault
        if self._user and authorization != f"Basic {base64.b64encode(self._user.encode()).decode()}":
            return 401, b'{"error_code":40101,"message":"who are you"}'
        if path.startswith("/schemas/ids/"):
            found, code = self.schemas.get(int(path.rpartition("/")[2])), 40403
        else:
            found, code = self.schemas.get(self.subjects.get(path.removeprefix("/subjects/"), 0)), 40401
        return (200, json.dumps(found).encode()) if found else (404, json.dumps({"error_code": code}).encode())


def _handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # http.server's name
            status, body = registry.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def running(port: int = 0, user: str | None = None) -> Iterator[Registry]:
    registry = Registry(port, user)
    try:
        yield registry
    finally:
        registry.stop()


def encoded(id: int, schema: Any, value: Any) -> bytes:
    """What a serializer of Confluent's makes of a value."""
    body = BytesIO()
    fastavro.schemaless_writer(body, fastavro.parse_schema(schema), value)
    return struct.pack(">BI", 0, id) + body.getvalue()

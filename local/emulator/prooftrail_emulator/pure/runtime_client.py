"""The part of AWS's runtime client that is compiled and made for Linux only, in Python: used where it is missing.

It lies last on a function's path, so that the compiled one wins.
"""

from __future__ import annotations

import os
from http.client import HTTPConnection, HTTPMessage

INVOCATION = "/2018-06-01/runtime/invocation"


def initialize_client(user_agent: str) -> None:
    """Remember who calls."""
    _headers["User-Agent"] = user_agent


def next() -> tuple[bytes, HTTPMessage]:
    """Wait for the next event; return it and its headers."""
    return _call("GET", f"{INVOCATION}/next", None, {})


def post_invocation_result(request_id: str, data: bytes, content_type: str, invocation_id: str | None = None) -> None:
    """Answer an event."""
    _call("POST", f"{INVOCATION}/{request_id}/response", data, {"Content-Type": content_type})


def post_error(request_id: str, error: str, xray_cause: str, invocation_id: str | None = None) -> None:
    """Report that the function failed."""
    _call("POST", f"{INVOCATION}/{request_id}/error", error.encode(), {"Content-Type": "application/json"})


_headers: dict[str, str] = {}


def _call(method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[bytes, HTTPMessage]:
    connection = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        connection.request(method, path, body, {**_headers, **headers})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    if response.status >= 300:
        message = f"the runtime API answered {response.status} to {method} {path}"
        raise RuntimeError(message)
    return data, response.headers

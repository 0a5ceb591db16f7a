"""HTTP answers, and those to what went wrong as problem+json (RFC 9457): what was expected, what came, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

LONGEST_MESSAGE = 500  # characters; messages quote what came, and an answer must stay below Lambda's 6 MB


class Problem(Exception):
    """An answer other than 2xx, on purpose."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def response(self) -> dict[str, Any]:
        """The answer as API Gateway wants it, with `members` as further members of the problem document."""
        body = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status,
            "detail": shortened(self.detail),
        }
        return response(self.status, body | self.members, {"Content-Type": "application/problem+json"} | self.headers)


def response(status: HTTPStatus, document: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """A JSON answer as API Gateway wants it (Lambda proxy integration)."""
    return {
        "statusCode": int(status),
        "headers": {"Content-Type": "application/json"} | (headers or {}),
        "body": msgspec.json.encode(document).decode(),
        "isBase64Encoded": False,
    }


def errors(fields: Mapping[str, str]) -> list[dict[str, str]]:
    """What is wrong, each with its `field` and a `message`."""
    return [{"field": field, "message": shortened(message)} for field, message in fields.items()]


def shortened(message: str) -> str:
    """A message that quotes foreign input, of bearable length and fit for JSON."""
    text = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
    return text.encode("utf-8", "backslashreplace").decode()

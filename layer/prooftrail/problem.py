"""Problem: an HTTP answer to what went wrong, as problem+json (RFC 9457): what was expected, what came, what to do.

Ingest and query share the document; how it becomes an answer is theirs, because ingest must not load a router.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec

MEDIA_TYPE = "application/problem+json"
LONGEST_MESSAGE = 500  # characters; messages quote what came, and an answer must stay below Lambda's 6 MB


class Problem(Exception):
    """An answer other than 2xx, on purpose; `members` are further members of its document."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def document(self) -> dict[str, Any]:
        """The problem document."""
        about = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": shortened(self.detail),
        }
        return about | self.members

    def to_json(self) -> str:
        """The problem document, as text."""
        return msgspec.json.encode(self.document()).decode()


def unauthorized() -> Problem:
    """The answer to who presents no key, or one that is not good."""
    realm = {"WWW-Authenticate": 'Bearer realm="prooftrail"'}
    return Problem(HTTPStatus.UNAUTHORIZED, "expected a valid key in `Authorization: Bearer ...`", realm)


def errors(fields: Mapping[str, str]) -> list[dict[str, str]]:
    """What is wrong, each with its `field` and a `message`."""
    return [{"field": field, "message": shortened(message)} for field, message in fields.items()]


def shortened(message: str) -> str:
    """A message that quotes foreign input, of bearable length and fit for JSON."""
    text = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
    return text.encode("utf-8", "backslashreplace").decode()

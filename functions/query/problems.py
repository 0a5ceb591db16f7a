"""Answers to what went wrong, as problem+json (RFC 9457): what was expected, what came, what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import Response


class Problem(Exception):
    """An answer other than 2xx, on purpose."""

    def __init__(self, status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def response(self) -> Response[str]:
        """The HTTP response, with `members` as further members of the problem document."""
        body = {"type": "about:blank", "title": self.status.phrase, "status": self.status, "detail": self.detail}
        return Response(
            status_code=self.status,
            content_type="application/problem+json",
            headers=dict(self.headers),
            body=msgspec.json.encode(body | self.members).decode(),
        )


def bad_request(errors: list[dict[str, str]]) -> Problem:
    """The answer to parameters that cannot be used; each error names its `field` and says a `message`."""
    return Problem(HTTPStatus.BAD_REQUEST, f"{len(errors)} parameter(s) cannot be used: see errors", errors=errors)

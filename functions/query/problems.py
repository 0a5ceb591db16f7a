"""Answers to what went wrong, as problem+json (RFC 9457): what was expected, what came, what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import Response

from prooftrail.search import Owner


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


def unusable_body(status: HTTPStatus, errors: list[dict[str, str]]) -> Problem:
    """The answer to a body that cannot be used; each error names its `field` and says a `message`."""
    return Problem(status, f"{len(errors)} member(s) of the body cannot be used: see errors", errors=errors)


def one_owner(owners: list[Owner], id: str) -> Owner:
    """The one event that has the id. Raises a `Problem` where there is none, or where several sources use it."""
    if not owners:
        raise Problem(HTTPStatus.NOT_FOUND, f"no event has the id {id!a}")
    if len(owners) > 1:
        choices = [{"tenant": owner.tenant, "source": owner.source} for owner in owners]
        raise Problem(HTTPStatus.CONFLICT, f"{len(owners)} events have the id {id!a}: choose by `source`", choices=choices)
    return owners[0]

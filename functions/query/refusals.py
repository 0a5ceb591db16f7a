"""What the API refuses: a `Problem` as Powertools wants it, and those that several routes give."""

from __future__ import annotations

from http import HTTPStatus

from aws_lambda_powertools.event_handler import Response

from prooftrail.problem import MEDIA_TYPE, Problem
from prooftrail.search import Owner


def response(problem: Problem) -> Response[str]:
    """The HTTP response that a problem is."""
    return Response(
        status_code=problem.status, content_type=MEDIA_TYPE, headers=dict(problem.headers), body=problem.to_json()
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
        raise Problem(
            HTTPStatus.CONFLICT,
            f"{len(owners)} events have the id {id!a}: choose by `source` and `tenant`",
            choices=choices,
        )
    return owners[0]

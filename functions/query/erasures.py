"""The erasures' routes: one privacy key asks, another one approves; the archive function does it at its next run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayRouter

from answers import answer
from pages import cursor_after, page_of, place_before
from parameters import ListParameters, ReaderParameters, body_of, number_of, parameters_of
from prooftrail import api_keys, erasure, search
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.erasure import Conflict, Erasure, Forbidden
from prooftrail.event import Target
from prooftrail.problem import Problem
from reader import Reader, reader_of
from refusals import unusable_body

router = APIGatewayRouter()  # type: ignore[no-untyped-call]  # theirs


@router.get("/erasures")
def erasures() -> Response[str]:
    """A page of the tenant's erasures, newest first: ``{"erasures": [...], "next": cursor or null}``."""
    asked = parameters_of(router.current_event, ListParameters)
    reader = _privacy_reader(asked)
    (before,) = place_before(asked.cursor, tuple[int]) or (None,)
    with search.reading_as(reader.connection, reader.tenant):
        found = erasure.listing(reader.connection, before, asked.limit + 1)
    page, last = page_of(found, asked.limit)
    reader.record("erasures.read", {item.tenant for item in page}, returned=len(page))
    return answer({"erasures": list(map(_document, page)), "next": cursor_after((last.id,) if last else None)})


@router.get("/erasures/<id>")
def one_erasure(id: str) -> Response[str]:
    """One erasure: how far it is, what it erased, or why it is refused."""
    reader = _privacy_reader(parameters_of(router.current_event, ReaderParameters))
    found = _found(reader, id)
    reader.record("erasures.read", {found.tenant}, _target(found.id), returned=1)
    return answer(_document(found))


@router.post("/erasures")
def request() -> Response[str]:
    """Ask for an erasure; it waits for somebody else's approval."""
    asked = body_of(router.current_event)
    reader = _privacy_reader(ReaderParameters(tenant=asked.tenant))
    if reader.tenant == ALL_TENANTS:
        message = "an operator's key is of all tenants: name the one whose log it is"
        raise unusable_body(HTTPStatus.UNPROCESSABLE_ENTITY, [{"field": "tenant", "message": message}])
    part: erasure.Part = "target" if asked.actor is None else "actor"
    with _refusals(), reader.connection.transaction():
        key = api_keys.presented(router.current_event.headers) or ""
        subject = asked.actor or asked.target or ""
        id = erasure.request(reader.connection, key, reader.tenant, part, subject, reason=asked.reason)
        reader.record("privacy.request", {reader.tenant}, _target(id), erasure=id, part=part, reason=asked.reason)
        # Commit: the request, and the record that it was made.
    # Relative to the request's URL, before whose path the gateway has its stage.
    return answer(_document(_found(reader, str(id))), HTTPStatus.CREATED, {"Location": f"erasures/{id}"})


@router.post("/erasures/<id>/approval")
def approval(id: str) -> Response[str]:
    """Approve an erasure that another key asked for."""
    reader = _privacy_reader(parameters_of(router.current_event, ReaderParameters))
    found = _found(reader, id)
    with _refusals(), reader.connection.transaction():
        erasure.approve(reader.connection, api_keys.presented(router.current_event.headers) or "", found.id)
        reader.record("privacy.approve", {found.tenant}, _target(found.id), erasure=found.id)
        # Commit: the approval, and the record that it was given. What follows is the archive function's affair.
    return answer(_document(_found(reader, id)), HTTPStatus.ACCEPTED)


def _privacy_reader(asked: ReaderParameters) -> Reader:
    reader = reader_of(router.current_event, asked)
    if reader.holder.role != "privacy":
        raise Problem(
            HTTPStatus.FORBIDDEN, "this takes a key with the role privacy (`prooftrail key create --role privacy`)"
        )
    return reader


@contextmanager
def _refusals() -> Iterator[None]:
    """What the database refuses: 403 to a key that may not, 409 to a step that is out of order."""
    try:
        yield
    except Forbidden as error:
        raise Problem(HTTPStatus.FORBIDDEN, str(error)) from None
    except Conflict as error:
        raise Problem(HTTPStatus.CONFLICT, str(error)) from None


def _found(reader: Reader, id: str) -> Erasure:
    with search.reading_as(reader.connection, reader.tenant):
        found = erasure.get(reader.connection, number_of(id))
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, f"no erasure has the number {id!a}")
    return found


def _target(id: int) -> Target:
    return Target(type="erasure", id=str(id))


def _document(item: Erasure) -> dict[str, Any]:
    """What is told of an erasure; whose values they were, only until it is done or refused."""
    return {
        "id": item.id,
        "tenant": item.tenant,
        "part": item.part,
        item.part: item.subject_id,
        "reason": item.reason,
        "state": item.state,
        "requested_at": item.requested_at,
        "approved_at": item.approved_at,
        "begun_at": item.begun_at,
        "finished_at": item.finished_at,
        "pages_rewritten_at": item.rewritten_at,
        "refusal": item.refusal,
        "entries": item.entries,
        "quarantined": item.quarantined,
    }

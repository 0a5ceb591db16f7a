"""The quarantine's routes, for operators alone: whose a record is that could not be read, nobody knows."""

from __future__ import annotations

import base64
import json
from http import HTTPStatus

import msgspec
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayRouter

from answers import answer
from pages import page_of
from parameters import QuarantineParameters, ReaderParameters, number_of, parameters_of
from prooftrail import quarantine, search
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.event import Target
from prooftrail.problem import Problem
from prooftrail.quarantine import Filter, UnknownRecord
from reader import Reader, reader_of
from refusals import bad_request

router = APIGatewayRouter()  # type: ignore[no-untyped-call]  # theirs

MOST_BYTES = 4_000_000  # of one record in an answer, where they are in base64


@router.get("/quarantine")
def records() -> Response[str]:
    """A page of records, the last one that came first: ``{"quarantine": [...], "next": cursor or null}``."""
    asked = parameters_of(router.current_event, QuarantineParameters)
    reader = _operator(asked)
    wanted = Filter(None if asked.state == "all" else asked.state, asked.reason, asked.origin, asked.since)
    with search.reading_as(reader.connection, ALL_TENANTS):
        found = quarantine.listing(reader.connection, wanted, asked.cursor, asked.limit + 1)
    page, last = page_of(found, asked.limit)
    reader.record("quarantine.read", set(), returned=len(page))
    return answer({"quarantine": page, "next": str(last.id) if last else None})


@router.get("/quarantine/<id>")
def one_record(id: str) -> Response[str]:
    """One record, with its headers and its bytes in base64: of more than 4,000,000 the first ones."""
    reader = _operator(parameters_of(router.current_event, ReaderParameters))
    with search.reading_as(reader.connection, ALL_TENANTS):
        try:
            found = quarantine.get(reader.connection, number_of(id))
            content = quarantine.content(reader.connection, found.id)
        except UnknownRecord:
            raise Problem(HTTPStatus.NOT_FOUND, f"no record in quarantine has the number {id!a}") from None
    reader.record("quarantine.read", set(), Target(type="record", id=found.origin), returned=1)
    # What no text can hold, a lone surrogate in a header, is escaped in what `json` writes.
    headers = msgspec.Raw(json.dumps(dict(content.headers)).encode())
    raw = base64.b64encode(content.body[:MOST_BYTES]).decode()
    return answer(msgspec.to_builtins(found) | {"headers": headers, "raw": raw})


def _operator(asked: ReaderParameters) -> Reader:
    reader = reader_of(router.current_event, asked)
    if reader.holder.tenant != ALL_TENANTS:
        raise Problem(
            HTTPStatus.FORBIDDEN, "this takes an operator's key: whose a record is that could not be read, nobody knows"
        )
    if asked.tenant is not None:
        raise bad_request([{"field": "tenant", "message": "records in quarantine are of no tenant: leave it out"}])
    return reader

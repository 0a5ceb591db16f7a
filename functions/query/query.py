"""The query function: API requests in, JSON out. Routes and status codes only; what is found is `search`'s affair."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote

import msgspec
import psycopg
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

import erasures
import log
import observed
import quarantine
from answers import answer
from pages import PAGE_BYTES
from parameters import EventParameters, EventsParameters, parameters_of
from prooftrail import aws, search, segments
from prooftrail.aws import AwsUnavailable
from prooftrail.database import Connection
from prooftrail.entries import EntryChanged, EntryMissing
from prooftrail.errors import DatabaseUnavailable
from prooftrail.event import Target
from prooftrail.problem import Problem
from prooftrail.segments import ArchivedMonth
from prooftrail.telemetry import logger
from reader import Reader, connect, database, own_settings, reader_of
from refusals import bad_request, one_owner, response

LONGEST_SILENCE = timedelta(hours=1)  # of continuous verification, which is scheduled every quarter of it
MOST_OBJECTS = 100  # that are named as those that may hold an event

_Page: TypeAlias = list[tuple[search.Found, bytes]]

app = APIGatewayRestResolver()
app.include_router(erasures.router)
app.include_router(observed.router)
app.include_router(quarantine.router)
app.include_router(log.router)  # first, for /events/{id} would take /events/{id}/proof too


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one API Gateway request."""
    return app.resolve(event, context)


@app.get("/events")
def events() -> Response[str]:
    """A page of events, newest first: ``{"events": [...], "next": cursor or null}``.

    PostgreSQL is searched. The archived months that the question reaches into are told as ``not_searched``, on every page:
    any of their events may be missing between two of any page, and whoever wants the newest ones never reads the last page.
    """
    asked = parameters_of(app.current_event, EventsParameters)
    reader = reader_of(app.current_event, asked)
    equal = {name: value for name in search.FILTERS if (value := getattr(asked, name)) is not None}
    question = search.Question(reader.tenant, asked.since, asked.until, equal)
    page, next_cursor, archived = _searched(reader, question, asked)
    reader.record("events.read", {found.event.tenant for found, _ in page}, returned=len(page))
    found = {"events": [msgspec.Raw(document) for _, document in page], "next": next_cursor}
    return answer(found | {"not_searched": archived} if archived else found)


def _searched(
    reader: Reader, question: search.Question, asked: EventsParameters
) -> tuple[_Page, str | None, list[ArchivedMonth]]:
    """A page, the cursor of the next one, and the months that were not searched.

    The months are looked for last: one that was archived before the search is seen then, and none is archived during it.
    """
    with search.reading_as(reader.connection, reader.tenant):
        page, next_cursor = _page(reader.connection, question, asked)
        if next_cursor is None or len(page) == asked.limit:
            return page, next_cursor, _archived_months(reader.connection, question)
    # The search was cancelled, and its transaction with it. What has been archived since is told of in vain.
    with search.reading_as(reader.connection, reader.tenant):
        return page, next_cursor, _archived_months(reader.connection, question)


def _archived_months(connection: Connection, question: search.Question) -> list[ArchivedMonth]:
    return segments.archived_months(connection, question.tenant, question.since, question.until)


def _page(connection: Connection, question: search.Question, asked: EventsParameters) -> tuple[_Page, str | None]:
    """Cut the page where `limit` or `PAGE_BYTES` says; one more event is read to know whether there is a next page."""
    after = search.decode_cursor(asked.cursor, search.Place, question.fingerprint()) if asked.cursor else None
    page: _Page = []
    size, more = 0, False
    for found in search.events(connection, question, after, asked.limit + 1):
        if len(page) == asked.limit:
            more = True
            continue  # it is the last one that was asked for, and the search ends by itself
        document = msgspec.json.encode(found.event)
        size += len(document)
        if page and size > PAGE_BYTES:
            more = True
            break  # which cancels the search, for what is left of it may be any size
        page.append((found, document))
    return page, search.encode_cursor(page[-1][0].place, question.fingerprint()) if more else None


@app.get("/events/.+")
def event() -> Response[str]:
    """One event by its id."""
    id = unquote(app.current_event.path.removeprefix("/events/"))
    asked = parameters_of(app.current_event, EventParameters)
    reader = reader_of(app.current_event, asked)
    with search.reading_as(reader.connection, reader.tenant):
        owner = one_owner(search.owners(reader.connection, reader.tenant, id, asked.source), id)
        found = search.by_id(reader.connection, owner, id)
        objects = [] if found else segments.archived(reader.connection, owner.tenant, owner.month)
    if found is None:
        raise _archived(owner, id, [segment.object_key for segment in objects])
    reader.record("event.read", {found.tenant}, Target(type="event", id=id))
    return answer(found)


def _archived(owner: search.Owner, id: str, objects: list[str]) -> Exception:
    """The answer to an event that is not in PostgreSQL: it was archived, or else somebody was at the rows."""
    if not objects:
        return EntryMissing(f"event {id!a} of {owner.source!a}: expected it in PostgreSQL or in the archive")
    month = f"{owner.month:%Y-%m}"
    detail = f"the event {id!a} was archived: read it from one of {len(objects)} objects of {month}, which are Parquet"
    return Problem(HTTPStatus.NOT_FOUND, detail, reason="archived", month=month, objects=objects[:MOST_OBJECTS])


@app.get("/health")
def health() -> Response[str]:
    """Whether the database answers and how much waits in the queues; 503 where something is wrong. Needs no key."""
    checks = {
        "database": _checked(_database_health),
        "queue": _checked(_queue_health),
        "verification": _checked(_verification_health),
    }
    well = all(check["status"] == "ok" for check in checks.values())
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return answer({"status": "ok" if well else "failing", **checks}, status)


def _checked(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"status": "ok", **check()}
    except Exception as error:  # noqa: BLE001  # whatever is wrong, a health check says so rather than fail
        logger.error("health check failed", extra={"check": check.__name__, "cause": str(error)})
        return {"status": "failing"}


def _database_health() -> dict[str, Any]:
    began = time.monotonic()
    connect()  # which asks the server whether it is there
    return {"milliseconds": round((time.monotonic() - began) * 1000, 1)}


def _verification_health() -> dict[str, Any]:
    """What continuous verification said last; it fails on findings, on silence, and on what could not be looked at.

    Of the latter only how much, for this needs no key, and objects are named after tenants.
    """
    verdict = connect().execute("SELECT * FROM prooftrail.verification_verdict()").fetchone()
    if verdict is None:
        raise LookupError("the database has not been migrated")
    verified_at, until, findings, unchecked, waiting_since = verdict
    silent = datetime.now(UTC) - waiting_since > LONGEST_SILENCE
    said = {"verified_at": verified_at, "history_verified_until": until, "unchecked": len(unchecked) or None}
    return {
        "status": "failing" if findings or unchecked or silent else "ok",
        "findings": findings,
        **{name: value for name, value in said.items() if value is not None},
    }


def _queue_health() -> dict[str, Any]:
    sqs = aws.client("sqs")

    def depth(url: str, name: Literal["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]) -> int:
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    return {
        "waiting": depth(own_settings().prooftrail_queue_url, "ApproximateNumberOfMessages"),
        "in_flight": depth(own_settings().prooftrail_queue_url, "ApproximateNumberOfMessagesNotVisible"),
        "dead_letters": depth(own_settings().prooftrail_dlq_url, "ApproximateNumberOfMessages"),
    }


@app.exception_handler(Problem)
def _problem(problem: Problem) -> Response[str]:
    return response(problem)


@app.exception_handler(search.InvalidCursor)
def _invalid_cursor(error: search.InvalidCursor) -> Response[str]:
    return response(bad_request([{"field": "cursor", "message": str(error)}]))


@app.exception_handler(psycopg.errors.QueryCanceled)
def _too_slow(_error: psycopg.errors.QueryCanceled) -> Response[str]:
    logger.warning("query took too long", extra={"path": app.current_event.path})
    return response(
        Problem(HTTPStatus.GATEWAY_TIMEOUT, "the search took too long: narrow `from` and `to`, or add a filter")
    )


@app.exception_handler([DatabaseUnavailable, psycopg.OperationalError])
def _unavailable(error: Exception) -> Response[str]:
    logger.error("database unavailable", extra={"cause": str(error)})
    database().discard()
    return response(
        Problem(HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer: try again", {"Retry-After": "10"})
    )


@app.exception_handler(AwsUnavailable)
def _aws_unavailable(error: AwsUnavailable) -> Response[str]:
    logger.error("AWS unavailable", extra={"cause": str(error)})
    return response(Problem(HTTPStatus.SERVICE_UNAVAILABLE, "S3 does not answer: try again", {"Retry-After": "10"}))


@app.exception_handler([EntryChanged, EntryMissing])
def _not_what_was_stored(error: EntryChanged | EntryMissing) -> Response[str]:
    logger.error("an entry is not what its log committed to", extra={"cause": str(error)})
    return response(
        Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the event is not what its log committed to: run `prooftrail verify`")
    )


@app.not_found
def _no_route(_error: NotFoundError) -> Response[str]:
    return response(
        Problem(
            HTTPStatus.NOT_FOUND,
            "there is no such route: try /events, /events/{id}, /events/{id}/proof, /log/checkpoint, /sources, "
            "/categories, /categories/{name}/actions, /quarantine, /erasures or /health",
        )
    )


@app.exception_handler(Exception)
def _unexpected(_error: Exception) -> Response[str]:
    logger.exception("unexpected error")  # the log has the trace, the caller must not
    database().discard()
    return response(
        Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong on our side: the log of this request says what")
    )

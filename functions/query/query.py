"""The query function: API requests in, JSON out. Routes and status codes only; what is found is `search`'s affair."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote

import msgspec
import psycopg
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import ValidationError

from parameters import EventParameters, EventsParameters, ReaderParameters
from problems import Problem
from prooftrail import api_keys, search, settings, system
from prooftrail.database import Connection, Database
from prooftrail.errors import DatabaseUnavailable
from prooftrail.event import OWN_TENANT, Actor, Target, own_event
from prooftrail.telemetry import logger

PATIENCE = 5.0  # seconds to wait for the database: a person is waiting too
PAGE_BYTES = 2_000_000  # of events in one answer; escaped once more it must stay below Lambda's 6 MB

app = APIGatewayRestResolver()


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer one API Gateway request."""
    return app.resolve(event, context)


@app.get("/events")
def events() -> Response[str]:
    """A page of events, newest first: ``{"events": [...], "next": cursor or null}``."""
    asked = _parameters(EventsParameters)
    reader = _reader(asked)
    equal = {name: value for name in search.FILTERS if (value := getattr(asked, name)) is not None}
    question = search.Question(reader.tenant, asked.since, asked.until, equal)
    with search.reading_as(reader.connection, reader.tenant):
        page, next_cursor = _page(reader.connection, question, asked)
    reader.record("events.read", {found.event.tenant for found, _ in page}, returned=len(page))
    return _json({"events": [msgspec.Raw(document) for _, document in page], "next": next_cursor})


def _page(
    connection: Connection, question: search.Question, asked: EventsParameters
) -> tuple[list[tuple[search.Found, bytes]], str | None]:
    """Cut the page where `limit` or `PAGE_BYTES` says; one more event is read to know whether there is a next page."""
    after = search.decode_cursor(question, asked.cursor) if asked.cursor else None
    page: list[tuple[search.Found, bytes]] = []
    size = 0
    for found in search.events(connection, question, after, asked.limit + 1):
        document = msgspec.json.encode(found.event)
        size += len(document)
        if page and (len(page) == asked.limit or size > PAGE_BYTES):
            return page, search.encode_cursor(question, page[-1][0].place)
        page.append((found, document))
    return page, None


@app.get("/events/.+")
def event() -> Response[str]:
    """One event by its id."""
    id = unquote(app.current_event.path.removeprefix("/events/"))
    asked = _parameters(EventParameters)
    reader = _reader(asked)
    with search.reading_as(reader.connection, reader.tenant):
        owners, found = search.by_id(reader.connection, reader.tenant, id, asked.source)
    if found is not None:
        reader.record("event.read", {found.tenant}, Target(type="event", id=id))
        return _json(found)
    if len(owners) > 1:
        choices = [{"tenant": owner, "source": source} for owner, source in owners]
        raise Problem(HTTPStatus.CONFLICT, f"{len(owners)} events have the id {id!a}: choose by `source`", choices=choices)
    if owners:
        raise Problem(
            HTTPStatus.NOT_FOUND, f"the event {id!a} was archived: its month is in the archive bucket, as Parquet"
        )
    raise Problem(HTTPStatus.NOT_FOUND, f"no event has the id {id!a}")


@app.get("/health")
def health() -> Response[str]:
    """Whether the database answers and how much waits in the queues; 503 where something is wrong. Needs no key."""
    checks = {"database": _checked(_database_health), "queue": _checked(_queue_health)}
    well = all(check["status"] == "ok" for check in checks.values())
    status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
    return _json({"status": "ok" if well else "failing", **checks}, status)


def _checked(check: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"status": "ok", **check()}
    except Exception as error:  # noqa: BLE001  # whatever is wrong, a health check says so rather than fail
        logger.error("health check failed", extra={"check": check.__name__, "cause": str(error)})
        return {"status": "failing"}


def _database_health() -> dict[str, Any]:
    began = time.monotonic()
    _database().connection(PATIENCE)  # which asks the server whether it is there
    return {"milliseconds": round((time.monotonic() - began) * 1000, 1)}


def _queue_health() -> dict[str, Any]:
    import boto3  # loaded here alone: it costs a cold start more than all the rest

    sqs = boto3.client("sqs")

    def depth(url: str, name: Literal["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]) -> int:
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    return {
        "waiting": depth(_settings().prooftrail_queue_url, "ApproximateNumberOfMessages"),
        "in_flight": depth(_settings().prooftrail_queue_url, "ApproximateNumberOfMessagesNotVisible"),
        "dead_letters": depth(_settings().prooftrail_dlq_url, "ApproximateNumberOfMessages"),
    }


Parameters = TypeVar("Parameters", bound=ReaderParameters)


def _parameters(kind: type[Parameters]) -> Parameters:
    """Check the query string; every wrong parameter is named in the problem."""
    given = app.current_event.resolved_query_string_parameters
    twice = [name for name, values in given.items() if len(values) > 1]
    if twice:
        raise _bad_request([{"field": name, "message": "expected one value, got several"} for name in twice])
    try:
        return kind.model_validate({name: values[0] for name, values in given.items()})
    except ValidationError as error:
        raise _bad_request(
            [{"field": ".".join(map(str, fault["loc"])) or "from", "message": fault["msg"]} for fault in error.errors()]
        ) from None


def _bad_request(errors: list[dict[str, str]]) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"{len(errors)} parameter(s) cannot be used: see errors", errors=errors)


class Reader(NamedTuple):
    """Who asks, and the tenant whose events are asked for (`ALL_TENANTS` for every one)."""

    connection: Connection
    holder: api_keys.Holder
    tenant: str

    def record(self, action: str, tenants: set[str], target: Target | None = None, **outcome: Any) -> None:
        """Append the read to the log of every tenant whose events are about to be answered.

        Where there are none: to the log of the reader's own tenant, or, for an operator, of none.
        """
        request = app.current_event
        actor = Actor(
            type="api_key",
            id=str(self.holder.id),
            name=self.holder.label or None,
            ip=request.request_context.identity.source_ip,
            user_agent=request.request_context.identity.user_agent,
        )
        query = {name: values[0] for name, values in request.resolved_query_string_parameters.items()}
        asked = {"path": request.path, "query": query, **outcome}
        named = tenants or ({self.holder.tenant} - {api_keys.ALL_TENANTS}) or {OWN_TENANT}
        reads = [own_event(action, tenant=name, actor=actor, target=target, metadata=asked) for name in sorted(named)]
        with self.connection.transaction():
            system.record(self.connection, *reads)
            # Commit. A crash after it leaves a read on record that was never answered; before, neither.


def _reader(asked: ReaderParameters) -> Reader:
    connection = _database().connection(PATIENCE)
    key = _presented_key()
    holder = api_keys.holder_of(connection, key) if key else None
    if holder is None:
        raise Problem(
            HTTPStatus.UNAUTHORIZED,
            "expected a valid key in `Authorization: Bearer ...`",
            {"WWW-Authenticate": 'Bearer realm="prooftrail"'},
        )
    if asked.tenant in (None, holder.tenant) or holder.tenant == api_keys.ALL_TENANTS:
        return Reader(connection, holder, asked.tenant or holder.tenant)
    raise Problem(HTTPStatus.FORBIDDEN, "this key reads one tenant only: leave `tenant` out or name that one")


def _presented_key() -> str | None:
    """Our key: the bearer token, or `x-api-key` where the gateway asks for no key of its own there."""
    headers = app.current_event.headers
    scheme, _, token = (headers.get("Authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


@app.exception_handler(Problem)
def _problem(problem: Problem) -> Response[str]:
    return problem.response()


@app.exception_handler(search.InvalidCursor)
def _invalid_cursor(error: search.InvalidCursor) -> Response[str]:
    return _bad_request([{"field": "cursor", "message": str(error)}]).response()


@app.exception_handler(psycopg.errors.QueryCanceled)
def _too_slow(_error: psycopg.errors.QueryCanceled) -> Response[str]:
    logger.warning("query took too long", extra={"path": app.current_event.path})
    return Problem(
        HTTPStatus.GATEWAY_TIMEOUT, "the search took too long: narrow `from` and `to`, or add a filter"
    ).response()


@app.exception_handler([DatabaseUnavailable, psycopg.OperationalError])
def _unavailable(error: Exception) -> Response[str]:
    logger.error("database unavailable", extra={"cause": str(error)})
    _database().discard()
    return Problem(
        HTTPStatus.SERVICE_UNAVAILABLE, "the database does not answer: try again", {"Retry-After": "10"}
    ).response()


@app.not_found
def _no_route(_error: NotFoundError) -> Response[str]:
    return Problem(HTTPStatus.NOT_FOUND, "there is no such route: try /events, /events/{id} or /health").response()


@app.exception_handler(Exception)
def _unexpected(_error: Exception) -> Response[str]:
    logger.exception("unexpected error")  # the log has the trace, the caller must not
    _database().discard()
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong on our side: the log of this request says what"
    ).response()


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response[str]:
    return Response(status_code=status, content_type="application/json", body=msgspec.json.encode(value).decode())


@functools.cache
def _settings() -> settings.QuerySettings:
    return settings.read(settings.QuerySettings)


@functools.cache
def _database() -> Database:
    return Database(_settings())

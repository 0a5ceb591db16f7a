"""The routes that tell what the logs say of who sends and of what they do; nothing here is about persons.

Reads of these are not recorded, unlike reads of events, and like those of checkpoints: what watches for silence asks every
minute, and a log that grew by each such question would never be folded to its end.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.router import APIGatewayRouter

from answers import answer
from pages import cursor_after, page_of, place_before
from parameters import ActionsParameters, ListParameters, SourcesParameters, parameters_of
from prooftrail import catalogue, search, sources
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.problem import Problem
from prooftrail.sources import Folded
from reader import Reader, reader_of

router = APIGatewayRouter()  # type: ignore[no-untyped-call]  # theirs


@router.get("/sources")
def all_sources() -> Response[str]:
    """Each source: when it was last seen, for how long it is silent, which of its numbers are missing, late or repeated."""
    asked = parameters_of(router.current_event, SourcesParameters)
    reader = reader_of(router.current_event, asked)
    with search.reading_as(reader.connection, reader.tenant):
        found = sources.listing(
            reader.connection,
            reader.tenant,
            source=asked.source,
            after=place_before(asked.cursor, tuple[str, str]),
            limit=asked.limit + 1,
            ranges=sources.MOST_RANGES if asked.source and reader.tenant != ALL_TENANTS else sources.RANGES,
        )
        page, last = page_of(found, asked.limit)
        logs = _logs(reader, (item.tenant for item in page))
    next_cursor = cursor_after((last.tenant, last.source) if last else None)
    return answer({"sources": page, "next": next_cursor, "logs": logs})


@router.get("/categories")
def categories() -> Response[str]:
    """The categories that events have, or were announced; null stands for events that have none."""
    asked = parameters_of(router.current_event, ListParameters)
    reader = reader_of(router.current_event, asked)
    with search.reading_as(reader.connection, reader.tenant):
        after = place_before(asked.cursor, tuple[str, str])
        found = catalogue.categories(reader.connection, reader.tenant, after, asked.limit + 1)
        page, last = page_of(found, asked.limit)
        logs = _logs(reader, (item.tenant for item in page))
    next_cursor = cursor_after((last.tenant, last.category or "") if last else None)
    return answer({"categories": page, "next": next_cursor, "logs": logs})


@router.get("/categories/actions")
def actions_without_category() -> Response[str]:
    """The actions of events that have no category."""
    return _actions("")


@router.get("/categories/.+/actions")
def actions() -> Response[str]:
    """The actions of a category; where one of them is asked for, with its schema."""
    name = unquote(router.current_event.path.removeprefix("/categories/").removesuffix("/actions"))
    if "\0" in name or name != name.encode("utf-8", "replace").decode():  # neither NUL nor lone surrogates are ever stored
        raise _no_category(name)
    return _actions(name)


def _actions(category: str) -> Response[str]:
    asked = parameters_of(router.current_event, ActionsParameters)
    reader = reader_of(router.current_event, asked)
    with search.reading_as(reader.connection, reader.tenant):
        found = catalogue.actions(
            reader.connection,
            reader.tenant,
            category=category,
            action=asked.action,
            schemas=asked.action is not None and reader.tenant != ALL_TENANTS,
            after=place_before(asked.cursor, tuple[str, str, str]),
            limit=asked.limit + 1,
        )
        page, last = page_of(found, asked.limit)
        logs = _logs(reader, (item.tenant for item in page))
    if category and not page and not asked.cursor:
        raise _no_category(category)
    next_cursor = cursor_after((last.tenant, last.category or "", last.action) if last else None)
    return answer({"actions": page, "next": next_cursor, "logs": logs})


def _no_category(name: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, f"no event has, and nobody announced, what was asked for in the category {name!a}")


def _logs(reader: Reader, tenants: Iterable[str]) -> list[Folded]:
    """How far the logs behind an answer are folded; where it is empty, that of the reader."""
    return sources.folded(reader.connection, sorted(set(tenants) | ({reader.tenant} - {ALL_TENANTS})))

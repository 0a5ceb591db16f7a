"""Who asks: the key that a request presents, the tenant that it may read, and the record of what was read."""

from __future__ import annotations

import functools
from http import HTTPStatus
from typing import Any, NamedTuple

from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from parameters import ReaderParameters
from prooftrail import api_keys, settings, system
from prooftrail.database import Connection, Database
from prooftrail.event import OWN_TENANT, Actor, Event, Target, own_event
from prooftrail.problem import Problem, unauthorized

PATIENCE = 5.0  # seconds to wait for the database: a person is waiting too


class Reader(NamedTuple):
    """Who asks, and the tenant whose events are asked for (`ALL_TENANTS` for every one)."""

    request: APIGatewayProxyEvent
    connection: Connection
    holder: api_keys.Holder
    tenant: str

    def record(self, action: str, tenants: set[str], target: Target | None = None, **outcome: Any) -> None:
        """Append the read to the log of every tenant whose events are about to be answered.

        Where there are none: to the log of the reader's own tenant, or, for an operator, of none. A question to all tenants
        may name a person of one, whom an erasure must find: it is kept in the log of none, and theirs refer to it.
        """
        named = tenants or {self.holder.tenant} - {api_keys.ALL_TENANTS} or {OWN_TENANT}
        query = {name: values[0] for name, values in self.request.resolved_query_string_parameters.items()}
        questions: list[Event] = []
        asked: dict[str, Any] = {"query": query}
        if query and self.tenant == api_keys.ALL_TENANTS and named != {OWN_TENANT}:
            questions = [self._read(OWN_TENANT, action, target, asked | outcome)]
            asked = {"question": questions[0].id}
        reads = [self._read(name, action, target, asked | outcome) for name in sorted(named)]
        with self.connection.transaction():
            system.record(self.connection, *questions, *reads)
            # Commit. A crash after it leaves a read on record that was never answered; before, neither.

    def _read(self, tenant: str, action: str, target: Target | None, said: dict[str, Any]) -> Event:
        identity = self.request.request_context.identity
        actor = Actor(
            type="api_key",
            id=str(self.holder.id),
            name=self.holder.label or None,
            ip=identity.source_ip,
            user_agent=identity.user_agent,
        )
        metadata = {"path": self.request.path, **said}
        return own_event(action, tenant=tenant, actor=actor, target=target, metadata=metadata)


def reader_of(request: APIGatewayProxyEvent, asked: ReaderParameters) -> Reader:
    """Tell who sent the request. Raises a `Problem` where the key is not good, writes, or reads another tenant only."""
    connection = connect()
    key = api_keys.presented(request.headers)
    holder = api_keys.holder_of(connection, key) if key else None
    if holder is None:
        raise unauthorized()
    if holder.role == "writer":
        raise Problem(HTTPStatus.FORBIDDEN, "this key sends events and reads nothing: ask with a reader's")
    if asked.tenant in (None, holder.tenant) or holder.tenant == api_keys.ALL_TENANTS:
        return Reader(request, connection, holder, asked.tenant or holder.tenant)
    raise Problem(HTTPStatus.FORBIDDEN, "this key reads one tenant only: leave `tenant` out or name that one")


def connect() -> Connection:
    """The function's connection, seen to be alive."""
    return database().connection(PATIENCE)


@functools.cache
def database() -> Database:
    """What the function connects with."""
    return Database(own_settings())


@functools.cache
def own_settings() -> settings.QuerySettings:
    """What the function was told by its environment."""
    return settings.read(settings.QuerySettings)

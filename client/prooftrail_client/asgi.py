"""ASGI middleware: an event for each HTTP request (ASGI 3, of which Starlette and FastAPI are examples)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prooftrail_client.client import AuditClient
from prooftrail_client.event import Actor
from prooftrail_client.requests import Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def route_of(scope: Scope) -> str | None:
    """The path's template, as a router left it in the scope: FastAPI does, and Starlette leaves the parameters."""
    route = getattr(scope.get("route"), "path", None)
    if isinstance(route, str):
        return route
    parameters = {str(value): name for name, value in (scope.get("path_params") or {}).items()}
    parts = scope["path"].split("/")
    return "/".join(f"{{{parameters[part]}}}" if part in parameters else part for part in parts) if parameters else None


class AuditMiddleware:
    """Audits each HTTP request once it has ended, its failures included.

    `actor` tells who asks, of the scope as the program left it: an id, an `Actor`, or None. `template` tells the path's
    template, without which ids in paths would be in actions. Neither these nor an outage ever break a request. The client
    should not be one with ``when_full="block"`` or ``durability="disk"``, for their waiting is the event loop's.
    """

    def __init__(
        self,
        app: App,
        client: AuditClient,
        *,
        actor: Callable[[Scope], Actor | str | None] = lambda _scope: None,
        template: Callable[[Scope], str | None] = route_of,
    ) -> None:
        self._app = app
        self._client = client
        self._actor = actor
        self._template = template

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and audit it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _request(scope)

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
            await send(message)

        failure: BaseException | None = None
        try:
            await self._app(scope, receive, watched)
        except BaseException as error:
            failure = error
            raise
        finally:
            request.log(self._client, lambda: self._template(scope), lambda: self._actor(scope), failure)


def _request(scope: Scope) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", [])}
    client = scope.get("client")
    return Request(scope["method"], scope["path"].encode(errors="replace"), headers, client[0] if client else None)

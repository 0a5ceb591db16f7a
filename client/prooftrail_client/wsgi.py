"""WSGI middleware: an event for each request (PEP 3333, of which Django and Flask are examples)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prooftrail_client.client import AuditClient
from prooftrail_client.event import Actor
from prooftrail_client.requests import Request

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def user_of(environ: WSGIEnvironment) -> str | None:
    """Whom the server authenticated."""
    return environ.get("REMOTE_USER")


class AuditMiddleware:
    """Audits each request once its answer is closed, failures included.

    `actor` tells who asks, of the environ as the program left it: an id, an `Actor`, or None. `template` tells the path's
    template, without which ids in paths would be in actions. Neither these nor an outage ever break a request.
    """

    def __init__(
        self,
        app: WSGIApplication,
        client: AuditClient,
        *,
        actor: Callable[[WSGIEnvironment], Actor | str | None] = user_of,
        template: Callable[[WSGIEnvironment], str | None] = lambda _environ: None,
    ) -> None:
        self._app = app
        self._client = client
        self._actor = actor
        self._template = template

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Pass the request on, and audit it."""
        request = _request(environ)

        def watched(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            request.status = int(status.split(" ", 1)[0])
            return start_response(status, headers, exc_info)

        def log(error: BaseException | None) -> None:
            request.log(self._client, lambda: self._template(environ), lambda: self._actor(environ), error)

        try:
            return _Answer(self._app(environ, watched), log)
        except BaseException as error:
            log(error)
            raise


class _Answer:
    """The program's answer, which tells when it has ended."""

    def __init__(self, answer: Iterable[bytes], log: Callable[[BaseException | None], None]) -> None:
        self._answer = answer
        self._log = log
        self._failure: BaseException | None = None

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._answer
        except Exception as error:
            self._failure = error
            raise

    def close(self) -> None:
        """Close the program's answer; every server calls it (PEP 3333)."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._log(self._failure)


def _request(environ: WSGIEnvironment) -> Request:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    path = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1", errors="replace")
    return Request(environ["REQUEST_METHOD"], path, headers, environ.get("REMOTE_ADDR"))

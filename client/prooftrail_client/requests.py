"""What ASGI and WSGI middleware share: the event of a request, and no harm to the program whatever happens."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from prooftrail_client.client import AuditClient
from prooftrail_client.event import Actor, AuditEvent, Error

_T = TypeVar("_T")
_log = logging.getLogger("prooftrail_client")


class Request:
    """A request from its begin to its end. The query is left out, for it may hold what nobody should keep."""

    def __init__(self, method: str, path: bytes, headers: Mapping[str, str], ip: str | None) -> None:
        self._time = datetime.now(UTC)
        self._begin = time.perf_counter()
        self._method = _clean(method)
        self._path = quote(path, safe="/:@!$&'()*+,;=~")
        self._headers = {name: _clean(value) for name, value in headers.items()}
        self._ip = ip
        self.status: int | None = None

    def log(
        self,
        client: AuditClient,
        template: Callable[[], str | None],
        actor: Callable[[], Actor | str | None],
        error: BaseException | None,
    ) -> None:
        """Log the request's event; what goes wrong is told to the program's log, for the request must not fail of it."""
        try:
            client.log(self._event(template, actor, error))
        except Exception:  # noqa: BLE001 - see above
            _log.exception("a request was not audited: %s %s", self._method, self._path)

    def _event(
        self, template: Callable[[], str | None], actor: Callable[[], Actor | str | None], error: BaseException | None
    ) -> AuditEvent:
        """Action is method and path template, outcome comes of the status."""
        problems: list[str] = []
        failed = error is not None or (self.status is not None and self.status >= 400)
        path = _attempted(template, problems) or self._path
        who = _attempted(lambda: self._actor(actor()), problems) or self._actor(None)
        metadata: dict[str, Any] = {"method": self._method, "path": self._path, "status": self.status}
        return AuditEvent(
            action=f"{self._method} {path}"[:256],
            time=self._time,
            category="http",
            level="error" if error is not None or (self.status or 0) >= 500 else "info",
            outcome="failure" if failed else "unknown" if self.status is None else "success",
            actor=who,
            error=None if error is None else Error.of(error),
            duration_ms=round((time.perf_counter() - self._begin) * 1000, 3),
            request_id=self._headers.get("x-request-id"),
            trace_id=_trace_id(self._headers.get("traceparent")),
            metadata=metadata | ({"audit_problems": problems} if problems else {}),
        )

    def _actor(self, actor: Actor | str | None) -> Actor:
        if isinstance(actor, Actor):
            return actor
        kind = None if actor is None else "user"
        return Actor(type=kind, id=actor or None, ip=self._ip, user_agent=self._headers.get("user-agent"))


def _attempted(make: Callable[[], _T], problems: list[str]) -> _T | None:
    """What the program's own function makes; where it fails, the request is audited without it, and the event says so."""
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - it is the program's, and anything may go wrong there
        problems.append(_clean(f"{type(error).__name__}: {error}"))
        return None


def _clean(text: str) -> str:
    """The text without what the service cannot hold: nobody gets past the audit by a strange header."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _trace_id(traceparent: str | None) -> str | None:
    """The trace's id in a ``traceparent`` (W3C Trace Context)."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and len(parts[1]) == 32 else None

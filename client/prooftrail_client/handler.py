"""AuditHandler: a `logging.Handler`, for programs that audit by logging."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime

from prooftrail_client.client import AuditClient
from prooftrail_client.event import AuditEvent, Error, Level

_LEVELS: list[tuple[int, Level]] = [
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
]


class AuditHandler(logging.Handler):
    """Makes an event of each record that it gets, and logs it.

    ``logger.info("…", extra={"audit": event})`` gives the event; its message is the record's if it has none. Any other
    record becomes an event with the action `action`, the logger's name as its category, and the exception as its error.
    Faults go to `logging.Handler.handleError`, never to the caller. Records of the client's own, and those made while it
    sends (by boto3, say), are left alone, since each of them would make another.
    """

    def __init__(self, client: AuditClient, *, action: str = "log.record", level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._client = client
        self._action = action
        self._inside = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what comes of auditing itself; asked before the handler takes its lock."""
        own = record.name.startswith("prooftrail_client") or self._client.sends_in_this_thread()
        return not own and not getattr(self._inside, "emit", False) and bool(super().filter(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's event."""
        self._inside.emit = True
        try:
            self._client.log(self._event(record))
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)
        finally:
            self._inside.emit = False

    def _event(self, record: logging.LogRecord) -> AuditEvent:
        given = getattr(record, "audit", None)
        if isinstance(given, AuditEvent):
            return given if given.message is not None else given.having(message=record.getMessage())
        event = AuditEvent(
            action=self._action,
            time=datetime.fromtimestamp(record.created, UTC),
            category=record.name[:256],
            level=next((ours for theirs, ours in _LEVELS if record.levelno >= theirs), "debug"),
            message=self.format(record) if self.formatter else record.getMessage(),
        )
        failure = record.exc_info and record.exc_info[1]
        return event.having(outcome="failure", error=Error.of(failure)) if failure else event

"""Everything that can go wrong for a producer."""

from __future__ import annotations


class AuditError(Exception):
    """The root of all errors that the client raises on purpose."""


class AuditValidationError(AuditError):
    """An event is not one that the service takes: `field` names the place, as in ``actor.id`` or ``after.items[2]``."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field}: {detail}")
        self.field = field
        self.detail = detail


class AuditTransportError(AuditError):
    """Nothing of a batch was taken, and it may be later: after `retry_after` seconds, where that is known."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuditStorageError(AuditError):
    """An event is not logged, for it could not be kept here: the queue is full or closed, or its disk fails."""

"""Ways to the service: a transport sends one batch at a time, in the client's own thread, and says what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol


class Result(NamedTuple):
    """What became of an event: ``delivered``, to be sent again (``retry``), or never taken (``rejected``), and why."""

    status: Literal["delivered", "retry", "rejected"]
    reason: str = ""


DELIVERED = Result("delivered")


class Transport(Protocol):
    """Takes events in the form of `AuditEvent.to_json`.

    `largest_event` is in bytes: `AuditClient.log` refuses what is larger.
    """

    largest_event: int

    def send(self, events: Sequence[bytes], /) -> Sequence[Result]:
        """Send a batch; returns a result for each event, in their order, once the other side answers for it.

        Raises `AuditTransportError` where none was taken; all are sent again then.
        """

    def close(self) -> None:
        """Let go of connections."""

"""AsyncAuditClient: the same client for coroutines, which it never keeps from running."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from prooftrail_client.client import AuditClient, Stats
from prooftrail_client.event import AuditEvent


class AsyncAuditClient:
    """Awaitable methods of an `AuditClient`, which it closes as a context manager.

    What takes microseconds is done at once; what waits for a disk, or for room, is done in another thread.
    """

    def __init__(self, client: AuditClient) -> None:
        self._client = client

    async def log(self, event: AuditEvent) -> None:
        """See `AuditClient.log`."""
        if self._client.log_may_wait:
            await asyncio.to_thread(self._client.log, event)
        else:
            self._client.log(event)

    async def flush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - it is the thread's
        """See `AuditClient.flush`."""
        return await asyncio.to_thread(self._client.flush, timeout)

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - it is the thread's
        """See `AuditClient.close`."""
        await asyncio.to_thread(self._client.close, timeout)

    @property
    def stats(self) -> Stats:
        """See `AuditClient.stats`."""
        return self._client.stats

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

"""AuditClient: takes events without waiting, and sees to it that they arrive."""

from __future__ import annotations

import atexit
import json
import logging
import os
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from prooftrail_client import strict_json
from prooftrail_client.errors import AuditError, AuditStorageError, AuditTransportError, AuditValidationError
from prooftrail_client.event import AuditEvent, require_identity
from prooftrail_client.queues import Key, MemoryQueue, Queue, QueueFull, Record
from prooftrail_client.redaction import Redaction
from prooftrail_client.spool import Durability, Spool, Unsynced
from prooftrail_client.transports import Result, Transport

WhenFull = Literal["raise", "drop", "block"]

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 30.0  # seconds between attempts, before chance shortens them
SEQUENCE_BYTES = 40  # for the number that the queue adds

_log = logging.getLogger("prooftrail_client")


@dataclass(frozen=True)
class Stats:
    """What became of the events so far: of this client's, but for `waiting`, which an earlier process may have left."""

    waiting: int = 0
    delivered: int = 0
    rejected: int = 0  # never taken: in rejected.jsonl beside the spool
    dropped: int = 0  # not even queued, for the queue was full or its disk failed
    retries: int = 0  # attempts after which something had to be sent again
    damaged: int = 0  # in the spool once, and not readable


class AuditClient:
    """Logs events by way of a transport. Any thread may call it; it has one thread of its own that sends.

    `tenant` and `source` are for events that do not name theirs. `spool` is a directory for this process alone; without
    one, events wait in memory, `memory_events` at most, and end with the process. `durability` says what `log` waits for
    (see `Spool`); `spool_bytes` is what may wait there. `when_full`, `log` raises `AuditStorageError` (``raise``), or
    counts the event as dropped and uses up its number, so that the service sees it missing (``drop``), or waits
    (``block``).

    A batch is sent when `batch_events` wait, or `interval` seconds after its first; it has `batch_bytes` at most, unless
    that is one event.
    `redaction` is applied before anything is kept or sent. With `numbered`, and a spool, each event of a (tenant, source)
    gets the next `sequence`, from 1 on, so two processes must not share a source. `on_rejected` is called with an event's
    JSON and the reason why it will never be taken, `on_error` with each failed attempt, both in the client's thread.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        tenant: str | None = None,
        source: str | None = None,
        spool: str | Path | None = None,
        durability: Durability = "process",
        spool_bytes: int = 2**30,
        memory_events: int = 10_000,
        when_full: WhenFull = "raise",
        batch_events: int = 500,
        batch_bytes: int = 2**20,
        interval: float = 0.5,
        redaction: Redaction | None = None,
        numbered: bool = True,
        on_rejected: Callable[[bytes, str], None] | None = None,
        on_error: Callable[[AuditError], None] | None = None,
    ) -> None:
        """Open the spool and send what it holds. Raises `AuditStorageError`, `SpoolLocked` among them."""
        self._transport = transport
        self._defaults = {name: value for name, value in (("tenant", tenant), ("source", source)) if value is not None}
        AuditEvent(action="any", tenant=tenant, source=source)  # raises now, not at the first event
        self._encoder = strict_json.Encoder(Redaction() if redaction is None else redaction)
        self._directory = None if spool is None else Path(spool)
        self._numbered = numbered and spool is not None
        self._when_full = when_full
        # Whether `log` may take longer than it takes to hand the event to the operating system.
        self.log_may_wait = when_full == "block" or (durability == "disk" and spool is not None)
        self._batch_events, self._batch_bytes, self._interval = batch_events, batch_bytes, interval
        self._on_rejected, self._on_error = on_rejected, on_error
        self._stats = Stats()
        self._progress = threading.Condition()  # over `_stats`; told of what was delivered
        self._wake = threading.Event()  # there is something to send, or a batch of it
        self._hurry = threading.Event()  # somebody waits for it: no pause
        self._flush_to = 0  # the index before which all is wanted at once
        self._idle = self._failing = False
        self._closing = self._stopped = self._forked = False
        self._queue: Queue = (
            MemoryQueue(memory_events) if self._directory is None else Spool(self._directory, durability, spool_bytes)
        )
        self._sender = threading.Thread(target=self._send_all, name="prooftrail", daemon=True)
        self._sender.start()
        _clients.add(self)
        atexit.register(self.close)

    def log(self, event: AuditEvent) -> None:
        """Queue an event, durably as the client is set up. Whether the service can be reached makes no difference.

        Raises `AuditValidationError` for an event that the service would not take, and `AuditStorageError` where it could
        not be queued (with ``drop``, that is counted and not raised).
        """
        key, head = self._encoded(event)
        if self._closing or self._forked:
            raise AuditStorageError(self._why_not())
        try:
            waiting = self._append(key, head)
        except Unsynced:
            raise  # it is queued
        except AuditStorageError as error:
            if self._when_full != "drop":
                raise
            self._drop(key, error)
            return
        if (self._idle or waiting >= self._batch_events) and not self._wake.is_set():
            self._wake.set()

    def flush(self, timeout: float | None = None) -> bool:
        """Send what waits now, at once; tells whether all that had been logged was settled within so many seconds."""
        if self._forked:
            return False
        _, end = self._queue.span()
        with self._progress:
            self._flush_to = max(self._flush_to, end)
            self._hurry.set()
            self._wake.set()
            return self._progress.wait_for(lambda: self._queue.span()[0] >= end or self._stopped, timeout) and (
                self._queue.span()[0] >= end
            )

    def close(self, timeout: float = 5.0) -> None:
        """Send what waits for so many seconds, then stop. What is left stays in the spool for the next client that opens
        it.

        Called at the interpreter's exit too, where the program did not. Nothing can be logged afterwards. It may take a
        second longer, while the last attempt ends.
        """
        if self._forked:
            return
        with self._progress:
            if self._closing:
                return
            self._closing = True
            self._progress.notify_all()
        atexit.unregister(self.close)
        self.flush(timeout)
        self._stopped = True
        self._hurry.set()
        self._wake.set()
        self._tell_what_is_left()
        self._sender.join(1.0)

    def abandon(self) -> None:
        """Make a client that came with a fork refuse events: its thread and its spool are the parent's."""
        self._forked = True
        if isinstance(self._queue, Spool):
            self._queue.abandon()

    @property
    def stats(self) -> Stats:
        """What became of the events so far."""
        damaged = self._queue.damaged if isinstance(self._queue, Spool) else 0
        return replace(self._stats, waiting=self._waiting(), damaged=damaged)

    def sends_in_this_thread(self) -> bool:
        """Whether the caller runs in the client's own thread, in a transport or a callback."""
        return threading.current_thread() is self._sender

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _tell_what_is_left(self) -> None:
        waiting = self._waiting()
        if waiting and self._directory is None:
            _log.error("%d events were not delivered, and are lost: there is no spool", waiting)
        elif waiting:
            _log.warning("%d events wait in %s for the next client that opens it", waiting, self._directory)

    # In the caller's thread

    def _encoded(self, event: AuditEvent) -> tuple[Key, bytes]:
        """The event's key, and its JSON without what is to be redacted and without the last brace."""
        document = self._defaults | event.document()
        require_identity(document)
        if self._numbered and "sequence" in document:
            raise AuditValidationError(
                "sequence", "the client numbers events: leave it out, or set the client's numbered=False"
            )
        head = self._encoder.encode(document)[:-1]
        if len(head) + SEQUENCE_BYTES > self._transport.largest_event:
            raise AuditValidationError(
                "event", f"expected at most {self._transport.largest_event} bytes of JSON, got {len(head) + SEQUENCE_BYTES}"
            )
        return (document["tenant"], document["source"]), head

    def _append(self, key: Key, head: bytes) -> int:
        if self._when_full != "block":
            return self._queue.append(key, head, self._numbered)
        while True:
            settled = self._settled()  # read first, lest room that appears meanwhile be missed
            try:
                return self._queue.append(key, head, self._numbered)
            except QueueFull:
                self._wait_for_room(settled)

    def _wait_for_room(self, settled: int) -> None:
        with self._progress:
            self._progress.wait_for(lambda: self._closing or self._settled() > settled)
        if self._closing:
            raise AuditStorageError(self._why_not())

    def _settled(self) -> int:
        return self._stats.delivered + self._stats.rejected

    def _drop(self, key: Key, error: AuditStorageError) -> None:
        if self._numbered:
            self._queue.skip_number(key)
        with self._progress:
            first = not self._stats.dropped
            self._stats = replace(self._stats, dropped=self._stats.dropped + 1)
        if first:
            _log.error("an event was dropped, and those that follow are only counted: %s", error)

    def _why_not(self) -> str:
        if self._forked:
            return f"this client belongs to the process that {os.getpid()} was forked from: make one after the fork"
        return "the client is closed: the event is not logged"

    # In the client's own thread

    def _send_all(self) -> None:
        try:
            while not self._stopped:
                self._send_some()
        finally:
            self._transport.close()
            self._queue.close()

    def _send_some(self) -> None:
        try:
            batch = self._next_batch()
            if batch:
                self._deliver(batch)
        except Exception as error:  # noqa: BLE001 - the disk fails, most likely; this thread is the only one that sends
            self._report(error if isinstance(error, AuditError) else AuditStorageError(f"{type(error).__name__}: {error}"))
            self._pause(LONGEST_PAUSE)  # then the batch is read again, and what was sent of it is sent once more

    def _next_batch(self) -> list[Record]:
        """Wait for something to send, then for a batch of it or for the interval to be over."""
        self._idle = True  # from now on `log` wakes us: either it sees this, or we see its event
        while not self._waiting() and not self._stopped:
            self._wake.wait()
            self._wake.clear()
        self._idle = False
        end = time.monotonic() + self._interval
        while self._lingers() and (left := end - time.monotonic()) > 0:
            self._wake.wait(left)
            self._wake.clear()
        return [] if self._stopped else self._queue.read(self._batch_events, self._batch_bytes)

    def _waiting(self) -> int:
        first, end = self._queue.span()
        return end - first

    def _lingers(self) -> bool:
        first, end = self._queue.span()
        return end - first < self._batch_events and first >= self._flush_to and not self._stopped

    def _deliver(self, batch: list[Record]) -> None:
        """Send a batch until each of its events is delivered or rejected, letting go of it from its begin on."""
        unsettled = batch
        for pause in _pauses():
            results, failure = self._attempt(unsettled)
            self._put_aside(unsettled, results)
            again = [record for record, result in zip(unsettled, results, strict=True) if result.status == "retry"]
            settled = [record for record in batch if not again or record.index < again[0].index]
            self._settle(settled, results)
            if not again:
                self._recovered()
                return
            batch, unsettled = batch[len(settled) :], again
            self._report(failure or AuditTransportError(f"{len(again)} events have to be sent again: {_reason(results)}"))
            if not self._pause(max(pause, (failure and failure.retry_after) or 0.0)):
                return
            self._queue.sync()  # an outage may be long, and what is logged meanwhile is not read

    def _attempt(self, records: list[Record]) -> tuple[Sequence[Result], AuditTransportError | None]:
        try:
            results = self._transport.send([record.payload for record in records])
            if len(results) == len(records):
                return results, None
            failure = AuditTransportError(f"expected {len(records)} results of the transport, got {len(results)}")
        except AuditTransportError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - a fault of a transport must not end the thread that all events wait for
            failure = AuditTransportError(f"{type(error).__name__}: {error}")
        return [Result("retry", str(failure))] * len(records), failure

    def _put_aside(self, records: list[Record], results: Sequence[Result]) -> None:
        """Keep the events that will never be taken where people find them, so that those behind them pass."""
        for record, result in zip(records, results, strict=True):
            if result.status == "rejected":
                self._reject(record.payload, result.reason)

    def _reject(self, event: bytes, reason: str) -> None:
        _log.error("an event will never be taken: %s", reason)
        if self._directory is not None:
            line = {"time": datetime.now(UTC).isoformat(), "reason": reason, "event": json.loads(event)}
            with (self._directory / "rejected.jsonl").open("ab") as file:
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())  # before it is let go of in the spool
        if self._on_rejected is not None:
            _call(self._on_rejected, event, reason)

    def _settle(self, settled: list[Record], results: Sequence[Result]) -> None:
        """Let go of what is settled and count it, in one step for those who wait."""
        counts = Counter(result.status for result in results)
        with self._progress:
            if settled:
                # Each of them is at the other side, or in rejected.jsonl: a crash before this sends them once more.
                self._queue.acknowledge(settled[-1])
            self._stats = replace(
                self._stats,
                delivered=self._stats.delivered + counts["delivered"],
                rejected=self._stats.rejected + counts["rejected"],
                retries=self._stats.retries + bool(counts["retry"]),
            )
            self._progress.notify_all()

    def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt, unless somebody asks for one; tells whether there is to be one."""
        self._hurry.wait(seconds)
        self._hurry.clear()
        return not self._stopped

    def _report(self, error: AuditError) -> None:
        """Tell of a failed attempt: `on_error` of each, the log of the first only."""
        if not self._failing:
            _log.warning("events cannot be sent and wait: %s", error)
        self._failing = True
        if self._on_error is not None:
            _call(self._on_error, error)

    def _recovered(self) -> None:
        if self._failing:
            _log.warning("events are sent again")
        self._failing = False


def _pauses() -> Iterator[float]:
    """Ever longer, and by chance, lest all producers come back at once."""
    longest = FIRST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - no secret
        longest = min(2 * longest, LONGEST_PAUSE)


def _reason(results: Sequence[Result]) -> str:
    return next(result.reason for result in results if result.status == "retry")


def _call(callback: Callable[..., None], *arguments: object) -> None:
    """Call what the producer gave us, whose faults are not ours."""
    try:
        callback(*arguments)
    except Exception:  # noqa: BLE001 - see above
        _log.exception("a callback failed")


_clients: weakref.WeakSet[AuditClient] = weakref.WeakSet()


def _abandon_clients() -> None:
    """In a forked process: its parent has the threads and goes on to use the spools."""
    for client in list(_clients):
        client.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_clients)

"""Where events wait for the transport: what the two kinds of queue share, and the one in memory."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from prooftrail_client.errors import AuditStorageError

Key = tuple[str, str]  # (tenant, source): what numbers events


class QueueFull(AuditStorageError):
    """The queue has as much as it may hold, and the transport takes nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event that waits: `index` counts from the queue's first event on, and `end` is where its bytes end."""

    index: int
    payload: bytes
    end: int


class Queue(Protocol):
    """Many threads append, one reads."""

    def append(self, key: Key, head: bytes, numbered: bool, /) -> int:
        """Take an event's JSON but for its last brace, and give it the key's next number if it is to be `numbered`.

        Returns how many events wait. Raises `QueueFull` and other `AuditStorageError`s: the event is not in the queue then.
        """

    def skip_number(self, key: Key, /) -> None:
        """Use up a number, for an event that could not be taken: it will be missing, and so be noticed."""

    def read(self, most_events: int, most_bytes: int, /) -> list[Record]:
        """The first events that wait, one at least if there are any, such that what is read may be sent."""

    def acknowledge(self, record: Record, /) -> None:
        """Let go of an event and of all before it."""

    def span(self) -> tuple[int, int]:
        """The index of the first event that waits, and that which the next one will get."""

    def sync(self) -> None:
        """Have the disk hold what was appended, where there is a disk."""

    def close(self) -> None:
        """Let go of what the queue holds open."""


class MemoryQueue:
    """A queue that ends with the process. Events are not numbered: the next process would begin at 1 again."""

    def __init__(self, most_events: int) -> None:
        self._most_events = most_events
        self._payloads: deque[bytes] = deque()
        self._first = 0
        self._closed = False
        self._lock = threading.Lock()

    def append(self, _key: Key, head: bytes, _numbered: bool) -> int:
        """See `Queue`."""
        with self._lock:
            if self._closed:
                raise AuditStorageError("the queue is closed")
            if len(self._payloads) >= self._most_events:
                raise QueueFull(f"{self._most_events} events wait in memory: the transport fails, or is too slow")
            self._payloads.append(head + b"}")
            return len(self._payloads)

    def skip_number(self, _key: Key) -> None:
        """See `Queue`."""

    def read(self, most_events: int, most_bytes: int) -> list[Record]:
        """See `Queue`."""
        records: list[Record] = []
        with self._lock:
            for payload in self._payloads:
                most_bytes -= len(payload)
                if len(records) == most_events or (records and most_bytes < 0):
                    break
                records.append(Record(self._first + len(records), payload, 0))
        return records

    def acknowledge(self, record: Record) -> None:
        """See `Queue`."""
        with self._lock:
            while self._first <= record.index:
                self._payloads.popleft()
                self._first += 1

    def span(self) -> tuple[int, int]:
        """See `Queue`."""
        with self._lock:
            return self._first, self._first + len(self._payloads)

    def sync(self) -> None:
        """See `Queue`."""

    def close(self) -> None:
        """See `Queue`."""
        with self._lock:
            self._closed = True

"""What explains that parts of an entry are gone: a later entry, which records their erasure and names them by index."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from prooftrail import canonical, entries, proofs
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.bundle.question import Parts, Question, parts_of
from prooftrail.database import Connection
from prooftrail.entries import Stored
from prooftrail.errors import PermanentError, RetryableError
from prooftrail.event import OWN_SOURCE
from prooftrail.proofs import Entry

ACTION = "privacy.erase"


class Unexplained(PermanentError):
    """Parts of an entry are gone, and no entry of the log, as far as it was signed, records an erasure of them."""


class ErasureRunning(RetryableError):
    """Something is being erased, and an archived object may still hold it; what a bundle holds cannot be taken back."""


def refuse_while_running(connection: Connection, tenant: str) -> None:
    """Raise `ErasureRunning` while values of the tenant are being erased; inside `search.reading_as`."""
    running = connection.execute("SELECT FROM prooftrail.erasure WHERE tenant = %s AND state = 'running'", [tenant])
    if running.rowcount:
        raise ErasureRunning(f"an erasure is running in {tenant}: try again when `prooftrail erase` has ended")


class Record(NamedTuple):
    """An entry that records an erasure, with what opens its private part."""

    entry: Entry
    opening: dict[str, str]

    def line(self) -> bytes:
        """What erasures.jsonl says of it."""
        return canonical.encode({"index": self.entry.index, "private": self.opening}) + b"\n"


class Erasures:
    """The records of erasures in a log of `size` entries; inside `search.reading_as`."""

    def __init__(self, connection: Connection, archive: ArchiveBucket, question: Question, size: int) -> None:
        self._connection, self._archive = connection, archive
        self._question, self._size = question, size
        self._noted: list[Stored] = []
        self._ranges: dict[str, list[tuple[int, int, Record]]] = {}  # by part: first and last entry, ascending
        self._used: dict[int, Record] = {}
        self._read_on = False

    def note(self, stored: Stored) -> None:
        """Look at an entry of the range: whether it is a record."""
        if stored.event.source == OWN_SOURCE and stored.event.action == ACTION:
            self._noted.append(stored)

    def explain(self, index: int, parts: Parts) -> Parts:
        """The parts of an entry, and for each erased one the entry that records it. Raises `Unexplained`."""
        return {name: {"erased": self._find(index, name)} if "erased" in part else part for name, part in parts.items()}

    def used(self) -> list[Record]:
        """The records that explained something, in the order of the log."""
        return [self._used[index] for index in sorted(self._used)]

    def _find(self, index: int, part: str) -> int:
        self._take(self._noted)
        record = self._covering(index, part)
        if record is None and not self._read_on:
            # Erased after the range ended: read on to the end of what was signed, once.
            self._read_on = True
            span = (self._question.end, self._size)
            for stored in entries.between(self._connection, self._archive, self._question.tenant, *span):
                self.note(stored)
            self._take(self._noted)
            record = self._covering(index, part)
        if record is None:
            raise Unexplained(
                f"entry {index} of {self._question.tenant}: its {part} is gone, and none of {self._size} signed entries "
                "records that it was erased: if that was just now, try again in a minute, else run `prooftrail verify`"
            )
        self._used[record.entry.index] = record
        return record.entry.index

    def _covering(self, index: int, part: str) -> Record | None:
        ranges = self._ranges.get(part, [])
        for at in range(bisect_right(ranges, index, key=_first), 0, -1):
            _, last, record = ranges[at - 1]
            if index <= last:
                return record
        return None

    def _take(self, noted: list[Stored]) -> None:
        """Find the places of the records, and sort what they name."""
        if not noted:
            return
        while noted:
            stored = noted.pop()
            entry, said = proofs.place(self._connection, stored), stored.event.metadata or {}
            if entry.index < self._size:
                record = Record(entry, parts_of(stored)["private"])
                for part in said["parts"]:
                    self._ranges.setdefault(part, []).extend((first, last, record) for first, last in said["entries"])
        for ranges in self._ranges.values():
            ranges.sort(key=_first)


def _first(of_range: tuple[int, int, Record]) -> int:
    return of_range[0]

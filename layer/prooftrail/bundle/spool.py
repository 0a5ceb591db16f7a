"""A place on disk where entries wait, come in any order, until all are there and can be written in theirs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prooftrail.entries import EntryChanged


class Waiting(NamedTuple):
    """An entry's header, and what else a bundle shows of it: as JSON, None where nothing; and whether it is an event."""

    batch_id: int
    position: int
    header: bytes
    parts: bytes | None
    is_event: bool


class Spool:
    """Entries by batch and position, in a file of its own; memory stays what it is however many there are."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        for setting in ("journal_mode = OFF", "synchronous = OFF"):
            self._database.execute(f"PRAGMA {setting}")  # a crash loses it all, and nothing with it
        self._database.execute("BEGIN")  # and never a COMMIT: nobody else reads the file
        self._database.execute(
            "CREATE TABLE entry (batch_id INTEGER, position INTEGER, header BLOB, parts BLOB, is_event INTEGER, "
            "PRIMARY KEY (batch_id, position))"
        )

    def add(self, entry: Waiting) -> None:
        """Take an entry in. Raises `EntryChanged` where it is there already: no two are stored under one place."""
        try:
            self._database.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", entry)
        except sqlite3.IntegrityError:
            raise EntryChanged(f"two entries are stored as number {entry.position} of batch {entry.batch_id}") from None

    def of_batch(self, batch_id: int) -> Iterator[Waiting]:
        """A batch's entries, in order of position."""
        rows = self._database.execute("SELECT * FROM entry WHERE batch_id = ? ORDER BY position", [batch_id])
        for batch, position, header, parts, is_event in rows:
            yield Waiting(batch, position, header, parts, bool(is_event))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

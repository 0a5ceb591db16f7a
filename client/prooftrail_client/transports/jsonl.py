"""A file with a line per event, for a log shipper, or for a machine that has no way out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from prooftrail_client.errors import AuditTransportError
from prooftrail_client.transports import DELIVERED, Result


class JsonlTransport:
    """Appends to the file at `path`; at `largest_file` bytes it becomes ``<path>.1``, and that ``<path>.2``, and so on.

    Beyond so many `backups` the oldest is removed, and with it its events: whoever ships the files must be quicker. Lines
    are on the disk before they count as delivered. One process writes to a file; after a crash its last lines may stand
    there twice.
    """

    largest_event = 64 * 1024 * 1024

    def __init__(self, path: str | Path, *, largest_file: int = 100 * 1024 * 1024, backups: int = 100) -> None:
        self._path = Path(path)
        self._largest_file = largest_file
        self._backups = backups
        self._file: int | None = None
        self._size = 0

    def send(self, events: Sequence[bytes]) -> Sequence[Result]:
        """See `Transport`."""
        try:
            for event in events:
                self._append(event + b"\n")
            if self._file is not None:
                os.fsync(self._file)
        except OSError as error:
            self.close()  # what was half written is cut off when the file is opened again
            raise AuditTransportError(f"{self._path}: {error}") from error
        return [DELIVERED] * len(events)

    def close(self) -> None:
        """See `Transport`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        if self._file is None:
            self._file = self._open()
        if self._size and self._size + len(line) > self._largest_file:
            self._rotate()
        if os.write(self._file, line) != len(line):
            raise OSError("no space left for a whole line")
        self._size += len(line)

    def _open(self) -> int:
        """Open the file, and cut off a last line that has no end: its event was not acknowledged and comes again."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = _end_of_lines(file, os.fstat(file).st_size)
        os.ftruncate(file, self._size)
        return file

    def _rotate(self) -> None:
        if self._file is not None:
            os.fsync(self._file)
        self.close()
        self._backup(self._backups).unlink(missing_ok=True)
        for number in range(self._backups - 1, -1, -1):
            if self._backup(number).exists():
                self._backup(number).replace(self._backup(number + 1))
        if self._backups == 0:
            self._path.unlink(missing_ok=True)
        self._file = self._open()

    def _backup(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _end_of_lines(file: int, size: int) -> int:
    """Where the last whole line ends, looked for from the end."""
    step = 64 * 1024
    while size:
        start = max(0, size - step)
        found = os.pread(file, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0

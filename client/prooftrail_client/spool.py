"""The spool: events that wait for the transport, in files that survive the process.

A directory holds segments, named by the index of their first event. A segment is a sequence of frames: length and CRC-32, 4
bytes each, little endian, then the payload. The CRC covers the payload, its length and its index, so that neither a zeroed
page nor a frame from another place passes for one. The first frame is the segment's head: which number each key gives next.
Hence a segment can go as soon as all its events are acknowledged and a younger segment exists, and numbers still never come
twice.

    lock                          held by the process that has the spool
    00000000000000000000.segment  appended to; the last one only
    acknowledged                  the index of the first event that is not, and its CRC
    *.torn, *.damaged             bytes that no event could be read from, for people to look at
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Literal, NamedTuple
from zlib import crc32

from prooftrail_client.errors import AuditStorageError
from prooftrail_client.queues import Key, QueueFull, Record

Durability = Literal["process", "disk"]

SEGMENT_BYTES = 4 * 1024 * 1024  # about ten thousand events
_FRAME = struct.Struct("<II")  # length of the payload, CRC
_SEED = struct.Struct("<QI")  # index, length of the payload
_HEAD = 2**63  # stands for the index in a head's CRC
_LONGEST = 64 * 1024 * 1024  # bytes of a payload: a length beyond is none
# At once: each system call lets go of the interpreter, and waits until those that log let it have it again.
_READ_BYTES = 256 * 1024
_SEGMENT_NAME = re.compile(r"(\d{20})\.segment")

_log = logging.getLogger("prooftrail_client")
_datasync = getattr(os, "fdatasync", os.fsync)


class SpoolLocked(AuditStorageError):
    """Another process has the spool open."""


class Unsynced(AuditStorageError):
    """The operating system has the event, which will be sent; but a loss of power may lose it, for its disk fails."""


def frame(index: int, payload: bytes) -> bytes:
    """Put an event's bytes into the form in which they lie in a segment."""
    size = len(payload)
    return _FRAME.pack(size, crc32(payload, crc32(_SEED.pack(index, size)))) + payload


def read_frame(file: IO[bytes], index: int) -> bytes | None:
    """Read the payload of the frame at the file's position; None where there is no whole and sound one of this index."""
    prefix = file.read(_FRAME.size)
    if len(prefix) < _FRAME.size:
        return None
    size, crc = _FRAME.unpack(prefix)
    if not 0 < size <= _LONGEST:
        return None
    payload = file.read(size)
    sound = len(payload) == size and crc32(payload, crc32(_SEED.pack(index, size))) == crc
    return payload if sound else None


class _Segment(NamedTuple):
    path: Path
    first: int  # the index of its first event


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the first event begins that is not acknowledged."""

    segment: _Segment
    index: int
    offset: int


class Spool:
    """A queue in a directory, of one process at a time. See `Queue` for its methods.

    `durability` says what `append` waits for. ``process``: the operating system has the event, and no end of the process,
    be it SIGKILL, loses it; the machine's may lose what came last. ``disk``: the disk has it too; threads that append at
    the same time share one fsync. In both, the disk has an event before `read` hands it out: what was sent is never
    numbered again. `most_bytes` bounds the events that wait. Raises `AuditStorageError`, `SpoolLocked` among them.
    """

    def __init__(
        self,
        directory: Path,
        durability: Durability = "process",
        most_bytes: int = 2**30,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._directory = directory
        self._durability = durability
        self._most_bytes = most_bytes
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()  # over all that follows
        self._syncing = threading.Lock()  # one fsync at a time; taken before _lock, never after
        self._numbers: dict[Key, int] = {}  # that come next; a key that is not here begins at 1
        self._segments: list[_Segment] = []
        self._file = self._lock_file = self._acknowledged_file = -1
        self._size = 0  # of the last segment, in bytes
        self._ragged = False  # bytes of a failed write may stand behind that
        self._next = 0  # the index of the next event
        self._synced = 0  # the disk has all events before this index
        self._place: _Place
        self._waiting_bytes = 0
        self.damaged = 0  # events that were in the spool once and cannot be read
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = _lock_directory(directory)
            self._acknowledged_file = os.open(directory / "acknowledged", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._recover()
        except (OSError, AuditStorageError) as error:
            self.abandon()  # lest it seem to be in use when somebody has mended it
            if isinstance(error, AuditStorageError):
                raise
            raise AuditStorageError(f"spool {directory}: {error}") from error

    def append(self, key: Key, head: bytes, numbered: bool) -> int:
        """See `Queue`."""
        with self._lock:
            number = self._numbers.get(key, 1) if numbered else 0
            payload = b'%b,"sequence":%d}' % (head, number) if numbered else head + b"}"
            framed = frame(self._next, payload)
            self._make_room(len(framed))
            self._write(framed)
            # The operating system has the event: if the process dies here, it is sent all the same, with its number.
            index = self._next
            self._next += 1
            if numbered:
                self._numbers[key] = number + 1
            waiting = self._next - self._place.index
        if self._durability == "disk":
            self._sync(index)
        return waiting

    def skip_number(self, key: Key) -> None:
        """See `Queue`. The next event's number tells of it; a crash before that event forgets it."""
        with self._lock:
            self._numbers[key] = self._numbers.get(key, 1) + 1

    def read(self, most_events: int, most_bytes: int) -> list[Record]:
        """See `Queue`. Raises `AuditStorageError` where the disk fails."""
        with self._lock:
            place, end = self._place, min(self._end_of(self._place.segment), self._place.index + most_events)
        if place.index == end:
            return []
        # What is sent is on the disk first: after a loss of power its number must not go to another event.
        self._sync(end - 1)
        try:
            return self._records(place, end, most_bytes) or self._skip_damage(most_events, most_bytes)
        except OSError as error:
            raise AuditStorageError(f"spool {self._directory}: {error}") from error

    def acknowledge(self, record: Record) -> None:
        """See `Queue`."""
        with self._lock:
            self._move(replace(self._place, index=record.index + 1, offset=record.end))
            self._remove_acknowledged()
            place = self._place
        # A crash before this write sends the events once more, which their ids make harmless; so does its loss with the
        # power.
        self._write_acknowledged(place.index)

    def span(self) -> tuple[int, int]:
        """See `Queue`."""
        with self._lock:
            return self._place.index, self._next

    def sync(self) -> None:
        """See `Queue`. Raises `Unsynced`."""
        self._sync(self.span()[1] - 1)

    def close(self) -> None:
        """Put what was appended on the disk and let another process have the spool."""
        if self._file < 0:
            return  # it is closed
        try:
            self.sync()
        finally:
            with self._lock:
                self.abandon()

    def abandon(self) -> None:
        """Close the files: a forked process, whose parent goes on to use the spool, may do nothing else."""
        files = self._file, self._lock_file, self._acknowledged_file
        self._file = self._lock_file = self._acknowledged_file = -1
        for file in files:
            if file >= 0:
                os.close(file)

    # Appending

    def _make_room(self, size: int) -> None:
        if size > self._most_bytes:
            raise AuditStorageError(f"expected an event of at most {self._most_bytes} bytes, got {size}")
        if self._waiting_bytes + size > self._most_bytes:
            raise QueueFull(
                f"spool {self._directory}: {self._next - self._place.index} events of {self._waiting_bytes} bytes wait, "
                f"and {self._most_bytes} bytes are allowed: the transport fails, or is too slow"
            )
        if self._size >= self._segment_bytes and self._next > self._segments[-1].first:
            try:
                self._roll()
            except OSError as error:
                raise AuditStorageError(f"spool {self._directory}: {error}") from error

    def _write(self, framed: bytes) -> None:
        """Append to the last segment; what could not be written wholly is cut off again."""
        try:
            if self._ragged:
                os.ftruncate(self._file, self._size)
                self._ragged = False
            _write_wholly(self._file, framed)
        except OSError as error:
            self._ragged = True
            raise AuditStorageError(f"spool {self._directory}: {error}: the event is not logged") from error
        self._size += len(framed)
        self._waiting_bytes += len(framed)

    def _roll(self) -> None:
        """Begin another segment; the old one is on the disk wholly before there is a younger one."""
        os.fsync(self._file)
        segment, file, size = _create(self._directory, self._next, self._numbers)
        os.close(self._file)
        self._segments.append(segment)
        self._file, self._size, self._ragged = file, size, False
        self._synced = max(self._synced, self._next)
        self._remove_acknowledged()

    def _sync(self, index: int) -> None:
        """Have the disk hold the event of this index, and all before it; whoever waits meanwhile is served along."""
        with self._syncing:
            if index < self._synced:
                return
            with self._lock:
                end, file = self._next, os.dup(self._file)  # a copy, for another thread may begin a new segment
            try:
                _datasync(file)
            except OSError as error:
                raise Unsynced(f"spool {self._directory}: {error}: not known to be on the disk") from error
            finally:
                os.close(file)
            with self._lock:
                self._synced = max(self._synced, end)

    # Reading

    def _records(self, place: _Place, end: int, most_bytes: int) -> list[Record]:
        """The records from a place to an index in its segment, as far as they are sound."""
        records: list[Record] = []
        index, offset = place.index, place.offset
        with place.segment.path.open("rb", _READ_BYTES) as file:
            file.seek(offset)
            while index < end and (payload := read_frame(file, index)) is not None:
                most_bytes -= len(payload)
                if records and most_bytes < 0:
                    break
                offset += _FRAME.size + len(payload)
                records.append(Record(index, payload, offset))
                index += 1
        return records

    def _end_of(self, segment: _Segment) -> int:
        """The index behind a segment's last event; the lock is held."""
        younger = self._segments.index(segment) + 1
        return self._segments[younger].first if younger < len(self._segments) else self._next

    def _skip_damage(self, most_events: int, most_bytes: int) -> list[Record]:
        """Go on behind a place where a disk gave back other bytes than it got; they are kept, and told of."""
        with self._lock:
            place = self._place
            path, end = place.segment.path, self._end_of(place.segment)
            kept = _keep(path, place.offset, ".damaged")
            self.damaged += end - place.index
            self._move(replace(place, index=end, offset=place.offset + kept))
            self._remove_acknowledged()
        _log.error("%s: %d events cannot be read; the bytes are kept beside it", path, end - place.index)
        return self.read(most_events, most_bytes)

    def _move(self, place: _Place) -> None:
        self._waiting_bytes -= place.offset - self._place.offset
        self._place = place

    def _read_acknowledged(self) -> int:
        """The index of the first event that is not acknowledged; 0 where nothing sound says so: all is sent again then."""
        index, _, crc = os.pread(self._acknowledged_file, 100, 0).partition(b" ")
        return int(index) if crc == b"%08x" % crc32(index) and index.isdigit() else 0

    def _write_acknowledged(self, index: int) -> None:
        """Write over what stood there, which is as long: half of it, after a loss of power, has not the CRC."""
        text = b"%020d" % index
        try:
            os.pwrite(self._acknowledged_file, b"%b %08x" % (text, crc32(text)), 0)
        except OSError as error:
            _log.warning("spool %s: %s: what was sent will be sent again after a restart", self._directory, error)

    def _remove_acknowledged(self) -> None:
        """Remove the segments of which every event is acknowledged, but never the last: it has the numbers."""
        while len(self._segments) > 1 and self._segments[1].first <= self._place.index:
            self._segments.pop(0).path.unlink(missing_ok=True)
            self._place = _begin(self._segments[0])

    # Recovery

    def _recover(self) -> None:
        for path in self._directory.glob("*.new"):
            path.unlink()
        found = (_SEGMENT_NAME.fullmatch(path.name) for path in self._directory.iterdir())
        self._segments = sorted(_Segment(self._directory / name[0], int(name[1])) for name in found if name)
        if self._segments:
            self._continue(self._segments[-1])
        else:
            segment, self._file, self._size = _create(self._directory, 0, {})
            self._segments = [segment]
        self._seek(self._read_acknowledged())

    def _continue(self, segment: _Segment) -> None:
        """Find the last segment's end and the numbers that come next; cut off what a crash left half written."""
        with segment.path.open("rb") as file:
            head = read_frame(file, segment.first | _HEAD)
            if head is None:
                raise AuditStorageError(
                    f"{segment.path}: expected a sound head, which holds the numbers that come next: "
                    "restore the file, or move the directory away and begin numbering anew under another source"
                )
            self._numbers = {(tenant, source): number for tenant, source, number in json.loads(head)["numbers"]}
            index, self._size = segment.first, file.tell()
            while (payload := read_frame(file, index)) is not None:
                self._count(payload)
                index, self._size = index + 1, file.tell()
            self._next = index
        torn = _keep(segment.path, self._size, ".torn")
        self._file = os.open(segment.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        if torn:
            _log.warning("spool %s: the last %d bytes were no whole event: cut off and kept", self._directory, torn)
            os.ftruncate(self._file, self._size)

    def _count(self, payload: bytes) -> None:
        event = json.loads(payload)
        if "sequence" in event:
            key = event["tenant"], event["source"]
            self._numbers[key] = max(self._numbers.get(key, 1), event["sequence"] + 1)

    def _seek(self, acknowledged: int) -> None:
        """Find the place of the first event that is not acknowledged."""
        index = min(max(acknowledged, self._segments[0].first), self._next)
        if index < acknowledged:  # a disk lost events that were sent: what comes in their places is not acknowledged
            self._write_acknowledged(index)
        here = max(number for number, segment in enumerate(self._segments) if segment.first <= index)
        place = _begin(self._segments[here])
        with place.segment.path.open("rb") as file:
            file.seek(place.offset)
            while place.index < index and read_frame(file, place.index) is not None:
                place = replace(place, index=place.index + 1, offset=file.tell())
        self._place = place
        later = self._segments[here + 1 :]
        self._waiting_bytes = sum(segment.path.stat().st_size - _begin(segment).offset for segment in later)
        self._waiting_bytes += place.segment.path.stat().st_size - place.offset
        self._remove_acknowledged()


def _write_wholly(file: int, data: bytes) -> None:
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, "no space left for the whole event")


def _lock_directory(directory: Path) -> int:
    import fcntl

    file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise SpoolLocked(
            f"spool {directory}: another client has it open: each process needs a directory of its own"
        ) from None
    return file


def _create(directory: Path, first: int, numbers: dict[Key, int]) -> tuple[_Segment, int, int]:
    """Make a segment that is there wholly, with its head, or not at all."""
    path = directory / f"{first:020d}.segment"
    new = path.with_suffix(".new")
    head = json.dumps({"format": 1, "numbers": [[*key, number] for key, number in numbers.items()]}).encode()
    file = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        framed = frame(first | _HEAD, head)
        _write_wholly(file, framed)
        os.fsync(file)
        new.rename(path)
        _sync_directory(directory)
    except OSError:
        os.close(file)
        new.unlink(missing_ok=True)
        path.unlink(missing_ok=True)  # else events that go on into the segment before would seem to end here
        raise
    return _Segment(path, first), file, len(framed)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _begin(segment: _Segment) -> _Place:
    """The place of a segment's first event."""
    with segment.path.open("rb") as file:
        if read_frame(file, segment.first | _HEAD) is None:
            file.seek(0)  # no frame will be found from here on: the segment is skipped as damaged, and kept
        return _Place(segment, segment.first, file.tell())


def _keep(path: Path, offset: int, suffix: str) -> int:
    """Keep the bytes from an offset on beside their segment; says how many there are."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = file.read()
    if rest:
        with path.with_suffix(suffix).open("ab") as kept:
            kept.write(rest)
    return len(rest)

"""A session: one snapshot of the database, and the jobs that look at parts of it, here or in many processes.

The archive cannot drop a month while a session lasts, so what the snapshot shows stays readable; ingest, checkpoints and
erasure go on meanwhile and are not seen. Objects of the archive are looked up as the snapshot's manifest names them.
"""

from __future__ import annotations

import functools
import gc
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import psycopg
from psycopg import sql

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.aws import AwsUnavailable
from prooftrail.database import Connection
from prooftrail.errors import ArchiveMismatch, RetryableError
from prooftrail.ledger.merkle import Frontier
from prooftrail.segments import Segment
from prooftrail.verification import scan
from prooftrail.verification.findings import Finding
from prooftrail.verification.scan import Scan, Scope, Unread
from prooftrail.verification.walk import Signed, Walk, walk

NEVER = float("inf")
# What reading an object raises that is not of our archive's form: whoever put it there ends no verification by it.
UNFIT = (ArchiveMismatch, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class View(NamedTuple):
    """What a session sees: the months that have a partition, and the snapshot's name for processes that join."""

    months: tuple[date, ...]
    snapshot: str | None = None


class HotJob(NamedTuple):
    """Scan PostgreSQL."""

    scope: Scope


class ColdJob(NamedTuple):
    """Scan a segment's object. Where it is not the one that the manifest names, that is a finding if the job is `final`."""

    segment: Segment
    scope: Scope
    final: bool = False


class WalkJob(NamedTuple):
    """Walk along a log."""

    tenant: str
    start: Frontier
    signed: tuple[Signed, ...]


Job: TypeAlias = HotJob | ColdJob | WalkJob
Result: TypeAlias = Scan | Walk
Perform: TypeAlias = Callable[[View, Iterable[Job]], Iterator[tuple[Job, Result]]]


@contextmanager
def snapshot(connection: Connection, *, shared: bool = False) -> Iterator[View]:
    """Begin a session on the connection; `shared` where other processes will join it."""
    with connection.transaction():
        _begin(connection)
        # Takes no snapshot; so nothing can be dropped between it and the snapshot, which the next statement takes.
        connection.execute("LOCK TABLE prooftrail.event IN ACCESS SHARE MODE")
        months = tuple(segments.months(connection))
        name = connection.execute("SELECT CASE WHEN %s THEN pg_export_snapshot() END", [shared]).fetchone()
        yield View(months, name[0] if name else None)


def _begin(connection: Connection) -> None:
    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    # The join with the keys shall be one in memory, all rows will be fetched, and there are processes enough. A join that
    # goes over materialised keys for every row is right for a handful only, and nobody knows beforehand how many there are.
    connection.execute(
        "SET LOCAL work_mem = '64MB'; SET LOCAL cursor_tuple_fraction = 1; SET LOCAL max_parallel_workers_per_gather = 0; "
        "SET LOCAL enable_material = off"
    )


class Desk:
    """Where jobs are done: a connection that is in the session, and the archive's bucket (None where there is none)."""

    def __init__(self, connection: Connection, archive: ArchiveBucket | None, deadline: float = NEVER) -> None:
        self._connection = connection
        self._archive = archive
        self._deadline = deadline

    def perform(self, view: View, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Do jobs one after the other."""
        for job in jobs:
            yield job, self.do(view, job)

    def do(self, view: View, job: Job) -> Result:
        """Do one job."""
        if isinstance(job, HotJob):
            return scan.hot(self._connection, view.months, job.scope)
        if isinstance(job, ColdJob):
            return self._scan_object(view, job)
        return walk(self._connection, job.tenant, job.start, job.signed, lambda: time.monotonic() > self._deadline)

    def _scan_object(self, view: View, job: ColdJob) -> Scan:
        segment = job.segment
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch, "segment.parquet")
            try:
                sha256 = fetch(self._archive, segment, file)
            except ObjectUnread as error:  # which says nothing against any other one
                return Scan(unread=[error.unread])
            if sha256 != segment.object_sha256 and not job.final:
                return Scan(disputed=[segment])
            found = _scan_file(self._connection, view, job, file) if sha256 else Scan()
        if sha256 != segment.object_sha256:
            found.findings.append(_changed_object(segment, sha256))
        return found


class ObjectUnread(RetryableError):
    """A segment's object could not be read, so nothing is known of what it holds: it is neither right nor wrong."""

    def __init__(self, segment: Segment, why: str) -> None:
        self.unread = Unread(segment, why)
        super().__init__(str(self.unread))


def fetch(archive: ArchiveBucket | None, segment: Segment, file: Path) -> bytes | None:
    """Fetch the object that is the place to read; its SHA-256, None where it is not there. Raises `ObjectUnread`."""
    if archive is None:
        raise ObjectUnread(segment, "no bucket to read it from")
    try:
        version = archive.find(segment.object_key, segment.object_version)
        return None if version is None else archive.fetch(segment.object_key, version, file)
    except AwsUnavailable as error:
        raise ObjectUnread(segment, str(error)) from error


def _scan_file(connection: Connection, view: View, job: ColdJob, file: Path) -> Scan:
    try:
        return scan.cold(connection, view.months, job.segment, file, job.scope)
    except UNFIT as error:
        detail = str(error) if isinstance(error, ArchiveMismatch) else f"expected a segment's columns, got {error!r}"
        return Scan(
            findings=[Finding(kind="segment", tenant=job.segment.tenant, where=job.segment.object_key, detail=detail)]
        )


def _changed_object(segment: Segment, found: bytes | None) -> Finding:
    return Finding(
        kind="segment",
        tenant=segment.tenant,
        where=segment.object_key,
        column="object_sha256",
        expected=(segment.object_sha256 or b"").hex(),
        found=found.hex() if found else None,
        detail="" if found else f"no such object, or no version {segment.object_version} of it",
    )


class Workers:
    """So many processes that do jobs in the session of another; `login` is libpq's parameters."""

    def __init__(self, count: int, login: str, archive_bucket: str | None) -> None:
        self.count = count
        # Forked while there is but one thread: that saves each of them a third of a second of imports.
        method = "fork" if sys.platform == "linux" and threading.active_count() == 1 else "spawn"
        self._pool = multiprocessing.get_context(method).Pool(count, _start, [login, archive_bucket])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()
        self._pool.join()

    def perform(self, view: View, jobs: Iterable[Job]) -> Iterator[tuple[Job, Result]]:
        """Do jobs at the same time, in any order."""
        return self._pool.imap_unordered(functools.partial(_do, view), jobs)


_worker: tuple[Connection, ArchiveBucket | None]
_joined: str | None = None


def _start(login: str, archive_bucket: str | None) -> None:
    global _worker  # noqa: PLW0603  # a process of a pool has no other place
    gc.disable()  # rows have no cycles, and there are millions of them
    connection = psycopg.connect(login, autocommit=True, prepare_threshold=None)
    _worker = connection, ArchiveBucket(archive_bucket) if archive_bucket else None


def _do(view: View, job: Job) -> tuple[Job, Result]:
    global _joined  # noqa: PLW0603
    connection, archive = _worker
    if _joined != view.snapshot:
        connection.rollback()
        connection.autocommit = False
        _begin(connection)
        connection.execute(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(view.snapshot)))
        _joined = view.snapshot
    return job, Desk(connection, archive).do(view, job)

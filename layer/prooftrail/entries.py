"""Entries as they are stored, in PostgreSQL or in Parquet: what the log committed to is derived again from the columns."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from psycopg import sql

from prooftrail import row_groups, segments
from prooftrail.archive_bucket import ArchiveBucket, Version
from prooftrail.database import Connection
from prooftrail.errors import ArchiveMismatch, InvalidRecord, PermanentError
from prooftrail.event import Event
from prooftrail.ledger import entry
from prooftrail.ledger.canonical import NotCanonical
from prooftrail.ledger.entry import Statement
from prooftrail.search import Owner
from prooftrail.segments import Segment
from prooftrail.store import COLUMNS, JSON_COLUMNS, from_row, parsed

_READ = (*COLUMNS, "salt", "commitments")
_TIME, _ID, _SOURCE = map(_READ.index, ("time", "id", "source"))
_FETCH = 100  # rows asked of the server at a time


class EntryMissing(PermanentError):
    """An entry of the log is neither in PostgreSQL nor in an archived object."""


class EntryChanged(PermanentError):
    """What is stored of an entry is not what its log committed to; `prooftrail verify` tells more."""


class Stored(NamedTuple):
    """An entry as it is stored; `kept` are the commitments of parts that were erased (see `ledger.entry`)."""

    event: Event
    batch_id: int
    position: int
    statement: Statement
    salts: bytes
    kept: bytes | None

    def commitments(self) -> entry.Commitments:
        """To actor, target and private part."""
        return entry.commitments(self.statement, self.salts, self.kept)

    def header(self) -> bytes:
        """What its leaf is the hash of."""
        return entry.header(self.statement.public, self.commitments())


def find(connection: Connection, archive: ArchiveBucket, owner: Owner, id: str) -> Stored:
    """The entry of an event, hot or cold; inside `search.reading_as`.

    Raises `EntryMissing` where it is nowhere, `EntryChanged` where its columns cannot be what was stored.
    """
    query = sql.SQL("SELECT {} FROM prooftrail.event WHERE tenant = %s AND source = %s AND time = %s AND id = %s")
    hot_row = connection.execute(query.format(_select_list()), [*owner, id]).fetchone()
    if hot_row is not None:
        return _stored(hot_row)
    # Not hot when we looked, so archived by now if it ever was: a month changes hands in one transaction.
    for segment in segments.archived(connection, owner.tenant, owner.month):
        for row in _rows_at(archive, segment, owner.time):
            if (row[_ID], row[_SOURCE], row[_TIME]) == (id, owner.source, owner.time):
                return _stored(row)
    raise EntryMissing(
        f"event {id!a} of {owner.source!a}: expected it in PostgreSQL or in the archive, found it in neither"
    )


def between(connection: Connection, archive: ArchiveBucket, tenant: str, first: int, end: int) -> Iterator[Stored]:
    """All entries from `first` to before `end`, hot and cold, and perhaps others of the same batches, in no order.

    Inside `search.reading_as`, of one moment. Raises `EntryChanged`, and `ArchiveMismatch` where an object is not the one
    that was verified.
    """
    row = connection.execute(
        """
        SELECT min(id), max(id), min(min_time), max(max_time) FROM prooftrail.batch
        WHERE tenant = %s AND first_index < %s AND first_index + event_count > %s
        """,
        [tenant, end, first],
    ).fetchone()
    if row is not None and row[0] is not None:
        lowest, highest, *times = row
        yield from _hot(connection, tenant, lowest, highest, times)
        for segment in _cold_segments(connection, tenant, lowest, highest):
            yield from (item for item in _cold(archive, segment) if lowest <= item.batch_id <= highest)


def _hot(connection: Connection, tenant: str, lowest: int, highest: int, times: Sequence[datetime]) -> Iterator[Stored]:
    query = sql.SQL(
        "SELECT {} FROM prooftrail.event WHERE tenant = %s AND batch_id BETWEEN %s AND %s AND time BETWEEN %s AND %s"
    ).format(_select_list())
    with connection.cursor() as cursor:
        for row in cursor.stream(query, [tenant, lowest, highest, *times], size=_FETCH):
            yield _stored(row)


def _cold_segments(connection: Connection, tenant: str, lowest: int, highest: int) -> list[Segment]:
    rows = connection.execute(
        """
        SELECT id FROM prooftrail.archive_segment
        WHERE tenant = %s AND state = 'archived' AND batches && int8range(%s, %s, '[]')
        """,
        [tenant, lowest, highest],
    )
    wanted = {id for (id,) in rows}
    return [segment for segment in segments.archived(connection, tenant) if segment.id in wanted]


def _cold(archive: ArchiveBucket, segment: Segment) -> Iterator[Stored]:
    """All entries of a segment; its object is meanwhile in a file of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "segment.parquet")
        sha256 = archive.fetch(segment.object_key, _version(archive, segment), file)
        if sha256 != segment.object_sha256:
            raise _not_there(segment)
        yield from map(_stored, _rows(file, segment.tenant))


def _rows_at(archive: ArchiveBucket, segment: Segment, time: datetime) -> Iterator[Sequence[Any]]:
    """The rows of the row groups that may hold a time."""
    version = _version(archive, segment)
    fetch = functools.partial(archive.read, segment.object_key, version)
    file = row_groups.at(fetch, version.size, time)
    return iter(()) if file is None else _rows(file, segment.tenant)


def _version(archive: ArchiveBucket, segment: Segment) -> Version:
    version = archive.find(segment.object_key, segment.object_version)
    if version is None:
        raise _not_there(segment)
    return version


def _not_there(segment: Segment) -> ArchiveMismatch:
    return ArchiveMismatch(
        f"object {segment.object_key}: expected the one that the manifest names, found another or none: "
        "try again, for an erasure may be replacing it; if it stays so, run `prooftrail verify`"
    )


def _rows(file: Path | BinaryIO, tenant: str) -> Iterator[Sequence[Any]]:
    """The rows of a Parquet file, laid out as those of PostgreSQL."""
    from arro3.io import read_parquet  # only where something is archived

    for batch in read_parquet(file, batch_size=_FETCH):
        columns = [[tenant] * batch.num_rows if name == "tenant" else batch.column(name).to_pylist() for name in _READ]
        yield from zip(*columns, strict=True)


def _stored(row: Sequence[Any]) -> Stored:
    *columns, salts, kept = row
    if len(salts or b"") != entry.SALTS or len(kept or b"") not in {0, 3 * entry.HASH}:
        raise EntryChanged(
            f"event {columns[4]!a} of {columns[5]!a}: its salts or commitments are not of the length that they had"
        )
    try:
        event = parsed(from_row(columns))
        return Stored(event, columns[2], columns[3], event.statement(), salts, kept)
    except (InvalidRecord, NotCanonical) as error:
        raise EntryChanged(
            f"event {columns[4]!a} of {columns[5]!a}: it could never have been stored so: {error}"
        ) from error


def _select_list() -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{0}::text" if name in JSON_COLUMNS else "{0}").format(sql.Identifier(name)) for name in _READ
    )

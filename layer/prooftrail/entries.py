"""Entries as they are stored, in PostgreSQL or in Parquet: what the log committed to is derived again from the columns."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec
from psycopg import sql

from prooftrail import aws, row_groups, segments, strict_json
from prooftrail.archive_bucket import ArchiveBucket, Version
from prooftrail.database import Connection
from prooftrail.errors import ArchiveMismatch, InvalidRecord, PermanentError
from prooftrail.event import Event
from prooftrail.ledger import entry
from prooftrail.ledger.canonical import NotCanonical
from prooftrail.ledger.entry import Statement
from prooftrail.search import Owner
from prooftrail.segments import Segment
from prooftrail.store import COLUMNS, from_row

_READ = (*COLUMNS, "salt", "commitments")
_JSON = ("before", "after", "metadata")  # read as text
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

    def header(self) -> bytes:
        """What its leaf is the hash of."""
        return entry.header(self.statement.public, entry.commitments(self.statement, self.salts, self.kept))


def find(connection: Connection, archive: ArchiveBucket, owner: Owner, id: str) -> Stored:
    """The entry of an event, hot or cold; inside `search.reading_as`.

    Raises `EntryMissing` where it is nowhere, `EntryChanged` where its columns cannot be what was stored.
    """
    query = sql.SQL("SELECT {} FROM prooftrail.event WHERE tenant = %s AND source = %s AND time = %s AND id = %s")
    hot_row = connection.execute(query.format(_select_list()), [*owner, id]).fetchone()
    if hot_row is not None:
        return _stored(hot_row)
    # Not hot when we looked, so archived by now if it ever was: a month changes hands in one transaction.
    for segment in segments.archived(connection, owner.tenant):
        if segment.month == owner.time.astimezone(UTC).date().replace(day=1):
            for row in _rows_at(archive, segment, owner.time):
                if (row[_ID], row[_SOURCE], row[_TIME]) == (id, owner.source, owner.time):
                    return _stored(row)
    raise EntryMissing(
        f"event {id!a} of {owner.source!a}: expected it in PostgreSQL or in the archive, found it in neither"
    )


def hot(connection: Connection, tenant: str, first: int, end: int) -> Iterator[Stored]:
    """All entries from `first` to before `end` that are in PostgreSQL, and perhaps some more, in no order."""
    query = sql.SQL(
        """
        WITH wanted AS MATERIALIZED (
            SELECT id, min_time, max_time FROM prooftrail.batch
            WHERE tenant = %(tenant)s AND first_index < %(end)s AND first_index + event_count > %(first)s
        )
        SELECT {} FROM prooftrail.event
        WHERE tenant = %(tenant)s AND batch_id IN (SELECT id FROM wanted)
            AND time BETWEEN (SELECT min(min_time) FROM wanted) AND (SELECT max(max_time) FROM wanted)
        """
    ).format(_select_list())
    with connection.cursor() as cursor:
        for row in cursor.stream(query, {"tenant": tenant, "first": first, "end": end}, size=_FETCH):
            yield _stored(row)


def cold(archive: ArchiveBucket, segment: Segment) -> Iterator[Stored]:
    """All entries of an archived segment, in the order of time; its object is meanwhile in a file of its own.

    Raises `ArchiveMismatch` where the object is not the one that was verified.
    """
    version = _version(archive, segment)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "segment.parquet")
        if archive.fetch(segment.object_key, version, file) != segment.object_sha256:
            raise ArchiveMismatch(f"object {segment.object_key}: expected the one that was verified, got another")
        for row in _rows(file, segment.tenant):
            yield _stored(row)


def _rows_at(archive: ArchiveBucket, segment: Segment, time: datetime) -> Iterator[Sequence[Any]]:
    """The rows of the row groups that may hold a time."""
    with aws.faults(f"reading {segment.object_key} from the archive"):
        version = _version(archive, segment)
        fetch = functools.partial(archive.read, segment.object_key, version)
        file = row_groups.at(fetch, version.size, time)
    return iter(()) if file is None else _rows(file, segment.tenant)


def _version(archive: ArchiveBucket, segment: Segment) -> Version:
    version = archive.find(segment.object_key, segment.object_version)
    if version is None:
        raise ArchiveMismatch(f"object {segment.object_key}: expected it in the archive's bucket, found none")
    return version


def _rows(file: Path | BinaryIO, tenant: str) -> Iterator[Sequence[Any]]:
    """The rows of a Parquet file, laid out as those of PostgreSQL."""
    from arro3.io import read_parquet  # only where something is archived

    for batch in read_parquet(file, batch_size=_FETCH):
        columns = [[tenant] * batch.num_rows if name == "tenant" else batch.column(name).to_pylist() for name in _READ]
        yield from zip(*columns, strict=True)


def _stored(row: Sequence[Any]) -> Stored:
    *columns, salts, kept = row
    try:
        event = _parsed(from_row(columns))
        return Stored(event, columns[2], columns[3], event.statement(), salts, kept)
    except (InvalidRecord, NotCanonical) as error:
        raise EntryChanged(
            f"event {columns[4]!a} of {columns[5]!a}: it could never have been stored so: {error}"
        ) from error


def _parsed(event: Event) -> Event:
    """The event with its JSON parsed, for it is the value that counts and not how it is written."""
    values = {name: strict_json.decode(bytes(raw)) for name in _JSON if (raw := getattr(event, name)) is not None}
    return msgspec.structs.replace(event, **values)


def _select_list() -> sql.Composable:
    return sql.SQL(", ").join(
        sql.SQL("{0}::text" if name in _JSON else "{0}").format(sql.Identifier(name)) for name in _READ
    )

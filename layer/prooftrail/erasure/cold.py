"""The values in the archive: looked for first, and last put out of the objects, one object after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from prooftrail import segments, strict_json
from prooftrail.archive_bucket import ArchiveBucket, Version
from prooftrail.database import Connection
from prooftrail.erasure.record import Busy, Erasure, Refused
from prooftrail.erasure.rows import commitments, runs, salts_left
from prooftrail.errors import ArchiveMismatch, ConfigurationError
from prooftrail.event import OWN_SOURCE
from prooftrail.ledger import entry
from prooftrail.segments import Segment
from prooftrail.store import COLUMNS

if TYPE_CHECKING:
    from arro3.core import RecordBatch


def survey(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    """Note which entries of the person an archived object holds, unless another erasure is just replacing the object.

    Raises `Refused` where its lock cannot be lifted.
    """
    indexes: list[int] = []
    persons: dict[tuple[str | None, str | None], datetime] = {}
    with tempfile.TemporaryDirectory() as scratch:
        try:
            batches = _object(bucket, segment, Path(scratch, "surveyed.parquet"))
        except ArchiveMismatch:
            if segments.by_id(connection, segment.id) == segment:
                raise
            return  # whoever begins anew is told again to look at it
        for batch in batches:
            rows = _rows_of(erasure, segment.tenant, batch)
            indexes += [index for index, _ in _places(connection, batch, rows)]
            columns = [batch.column(name).to_pylist() for name in ("actor_id", "target_id", "time")]
            for row in rows:
                actor, target, at = (column[row] for column in columns)
                persons[actor, target] = max(at, persons.get((actor, target), at))
    if indexes:
        check_locks(bucket, segment.object_key)
    seen = [[actor, target, at.isoformat()] for (actor, target), at in persons.items()]
    connection.execute(
        "SELECT prooftrail.survey_segment(%s, %s, %s::int8multirange, %s::jsonb)",
        [erasure.id, segment.id, Multirange(Range(*run) for run in runs(indexes)), msgspec.json.encode(seen).decode()],
    )


def _object(bucket: ArchiveBucket, segment: Segment, file: Path) -> Iterator[RecordBatch]:
    """Fetch the object that is the place to read into a file, and read that."""
    from prooftrail import parquet  # loads Arrow

    version = bucket.find(segment.object_key, segment.object_version)
    sha256 = None if version is None else bucket.fetch(segment.object_key, version, file)
    if sha256 is None or sha256 != segment.object_sha256:
        raise ArchiveMismatch(f"object {segment.object_key}: expected the one that the manifest names, got another or none")
    return parquet.batches(file)


def check_locks(bucket: ArchiveBucket, key: str) -> None:
    """Raises `Refused` where a version of the object is locked so that nobody can delete it."""
    for version in bucket.versions(key):
        if not version.removable():
            raise Refused(f"object {key} holds such events and cannot be replaced: {_lock(version)}")


def _lock(version: Version) -> str:
    if version.legal_hold:
        return "it is under a legal hold in S3, until that is lifted"
    return (
        f"its Object Lock (COMPLIANCE) keeps it until {version.locked_until:%Y-%m-%d}, "
        "a retention duty that goes before erasure (GDPR 17(3)(b))"
    )


def _rows_of(erasure: Erasure, tenant: str, batch: RecordBatch) -> list[int]:
    """The numbers of the rows that are the person's: by its id, or, of our own events, by what they were asked about."""
    sources = batch.column("source").to_pylist()
    ids = batch.column(f"{erasure.part}_id").to_pylist()
    rows = []
    for row, (source, id) in enumerate(zip(sources, ids, strict=True)):
        if source == OWN_SOURCE:
            if _asks_about(erasure, tenant, batch.column("metadata")[row].as_py()):
                rows.append(row)
        elif id == erasure.subject_id and tenant == erasure.tenant:
            rows.append(row)
    return rows


def _asks_about(erasure: Erasure, tenant: str, metadata: str | None) -> bool:
    """What `prooftrail.asks_about` says of a row in PostgreSQL."""
    if metadata is None:
        return False
    value = strict_json.decode(metadata.encode())
    asked_of = (value.get("query") or {}).get("tenant", erasure.tenant)
    return erasure.tenant in (tenant, asked_of) and _names(value, {erasure.part, f"{erasure.part}_id"}, erasure.subject_id)


def _names(value: Any, keys: set[str], subject: str | None) -> bool:
    if isinstance(value, dict):
        return any(value.get(key) == subject for key in keys) or any(_names(item, keys, subject) for item in value.values())
    return isinstance(value, list) and any(_names(item, keys, subject) for item in value)


def _places(connection: Connection, batch: RecordBatch, rows: Sequence[int]) -> list[tuple[int, bytes]]:
    """The leaf index and the leaf hash of each of these rows."""
    if not rows:
        return []
    batch_ids, positions = batch.column("batch_id").to_pylist(), batch.column("position").to_pylist()
    found = connection.execute(
        """
        SELECT first_index + position, substring(leaf_hashes FROM position * 32 + 1 FOR 32)
        FROM unnest(%s::bigint[], %s::integer[]) WITH ORDINALITY AS wanted (batch_id, position, place)
        JOIN prooftrail.batch ON batch.id = batch_id ORDER BY place
        """,
        [[batch_ids[row] for row in rows], [positions[row] for row in rows]],
    ).fetchall()
    return [(index, leaf) for index, leaf in found]


def work_left(connection: Connection, erasure: Erasure) -> list[tuple[Segment, str]]:
    """The segments whose objects are still to be replaced (``rewrite``) or deleted (``remove``)."""
    rows = connection.execute(
        "SELECT segment_id, work FROM prooftrail.erasure_segment WHERE erasure_id = %s AND done_at IS NULL ORDER BY 1",
        [erasure.id],
    ).fetchall()
    return [(segments.by_id(connection, id), work) for id, work in rows]


def replace(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    """Put a version without the values in the place of the object, then delete every other version of it."""
    with connection.transaction():
        if not segments.lock(connection, segment.id):
            raise Busy(f"erasure {erasure.id}: another one is at segment {segment.id}")
        segment = segments.by_id(connection, segment.id)
        if not _is_replaced(connection, erasure, segment):
            _write_version(connection, bucket, erasure, segment)
        # Commit. The new version is durable and is the one to read. A crash before leaves it unknown: the next run writes
        # another, and deletes it with the first.
    segment = segments.by_id(connection, segment.id)
    for version in bucket.versions(segment.object_key):
        if version.id != segment.object_version:
            bucket.remove(segment.object_key, version)
    connection.execute("SELECT prooftrail.finish_segment(%s, %s)", [erasure.id, segment.id])


def _is_replaced(connection: Connection, erasure: Erasure, segment: Segment) -> bool:
    replaced = connection.execute(
        "SELECT FROM prooftrail.erasure_segment WHERE erasure_id = %s AND segment_id = %s AND replaced_at IS NOT NULL",
        [erasure.id, segment.id],
    )
    return replaced.fetchone() is not None


def _write_version(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    from prooftrail import parquet  # loads Arrow

    with tempfile.TemporaryDirectory() as scratch:
        former, written, fetched = (Path(scratch, f"{name}.parquet") for name in ("former", "written", "fetched"))
        erased: list[tuple[str, str]] = []
        row_group = parquet.rows_in_a_group(segment.event_count, segment.stored_bytes)
        without = _without(connection, erasure, segment, _object(bucket, segment, former), erased)
        parquet.rewrite(former, without, written, segment.footer(), row_group)
        locked = bucket.find(segment.object_key, segment.object_version)
        assert locked is not None
        id = bucket.replace(segment.object_key, written, locked)
        written.unlink()  # before the other comes: there is room for two
        version = bucket.find(segment.object_key, id)
        assert version is not None
        sha256 = bucket.fetch(segment.object_key, version, fetched)
        assert sha256 is not None
        without = _without(connection, erasure, segment, parquet.batches(former), [])
        if parquet.count_equal_rows(without, fetched) != segment.event_count:
            raise ArchiveMismatch(f"object {segment.object_key}: expected the former rows but for the erased values")
        _check_leaves(connection, segment, parquet.batches(fetched))
        connection.execute(
            "SELECT prooftrail.replace_object(%s, %s, %s, %s, %s, %s::text[], %s::text[])",
            [erasure.id, segment.id, version.size, sha256, version.id, [id for id, _ in erased], [of for _, of in erased]],
        )


def _without(
    connection: Connection,
    erasure: Erasure,
    segment: Segment,
    batches: Iterable[RecordBatch],
    erased: list[tuple[str, str]],
) -> Iterator[RecordBatch]:
    """The batches without the person's values; ids and sources of the events that lost some go into `erased`."""
    from prooftrail import parquet  # loads Arrow

    for batch in batches:
        rows = _rows_of(erasure, segment.tenant, batch)
        if not rows:
            yield batch
            continue
        events = dict(zip(rows, parquet.rows(batch, rows, COLUMNS, {"tenant": segment.tenant}), strict=True))
        erased += [(columns[4], columns[5]) for columns in events.values()]
        by_id = {row for row, columns in events.items() if columns[5] != OWN_SOURCE}
        salts, kept = batch.column("salt").to_pylist(), batch.column("commitments").to_pylist()
        places = zip(rows, _places(connection, batch, rows), strict=True)
        yield parquet.changed(
            batch,
            nulls={name: set(rows) for name in entry.PRIVATE} | {f"{erasure.part}_id": by_id},
            values={
                "salt": {row: salts_left(salts[row], erasure.part if row in by_id else None) for row in rows},
                "commitments": {row: commitments(events[row], salts[row], kept[row], leaf) for row, (_, leaf) in places},
            },
        )


def _check_leaves(connection: Connection, segment: Segment, batches: Iterable[RecordBatch]) -> None:
    """See that every entry of which something was erased still derives its leaf."""
    from prooftrail import parquet  # loads Arrow

    for batch in batches:
        salts, kept = batch.column("salt").to_pylist(), batch.column("commitments").to_pylist()
        rows = [row for row, commitments in enumerate(kept) if commitments is not None]
        events = parquet.rows(batch, rows, COLUMNS, {"tenant": segment.tenant})
        for row, columns, (_, leaf) in zip(rows, events, _places(connection, batch, rows), strict=True):
            commitments(columns, salts[row], kept[row], leaf)


def remove(connection: Connection, bucket: ArchiveBucket, erasure: Erasure, segment: Segment) -> None:
    """Delete what was written for a segment that is abandoned."""
    for version in bucket.versions(segment.object_key):
        bucket.remove(segment.object_key, version)
    connection.execute("SELECT prooftrail.finish_segment(%s, %s)", [erasure.id, segment.id])


def needed(bucket: ArchiveBucket | None) -> ArchiveBucket:
    """The bucket. Raises `ConfigurationError` where none was named."""
    if bucket is None:
        raise ConfigurationError(
            "PROOFTRAIL_ARCHIVE_BUCKET: expected the archive's bucket, for there are archived events to look at; "
            "without it the archive function does the erasure at its next run"
        )
    return bucket

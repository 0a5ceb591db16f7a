"""Settling: where the entries of a batch are that no place held whole, or that more than one seems to hold."""

from __future__ import annotations

import operator
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

from psycopg import sql

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.segments import Segment
from prooftrail.verification import rows
from prooftrail.verification.diagnosis import Place
from prooftrail.verification.findings import Finding
from prooftrail.verification.scan import Batch, Unread
from prooftrail.verification.session import UNFIT, ObjectUnread, fetch


class Settled(NamedTuple):
    """What is nowhere, what is in two places, and which objects could not be looked at."""

    missing: list[Place]
    doubled: list[Finding]
    unread: list[Unread]


def settle(
    connection: Connection, months: Iterable[date], archive: ArchiveBucket | None, batches: Mapping[int, Batch]
) -> Settled:
    """Look for the entries of these batches wherever entries are kept."""
    whereabouts: dict[Place, set[str]] = defaultdict(set)
    for month in months:
        for place in _in_partition(connection, month, list(batches)):
            whereabouts[place].add(rows.partition(month))
    unread: list[Unread] = []
    for segment in segments.holding(connection, list(batches)):
        for place in _in_object(archive, segment, unread):
            if place.batch in batches and batches[place.batch].tenant == segment.tenant:
                whereabouts[place].add(segment.object_key)
    # What is not found may be in an object that was not read; then it is not said to be missing.
    unknown = {item.segment.tenant for item in unread}
    missing = [
        Place(batch.id, position)
        for batch in batches.values()
        if batch.tenant not in unknown
        for position in range(batch.event_count)
        if Place(batch.id, position) not in whereabouts
    ]
    doubled = [_doubled(batches[place.batch], place, where) for place, where in whereabouts.items() if len(where) > 1]
    return Settled(missing, doubled, unread)


def _in_partition(connection: Connection, month: date, ids: list[int]) -> Iterator[Place]:
    partition = sql.Identifier("prooftrail", rows.partition(month))
    query = sql.SQL("SELECT batch_id, position FROM {} WHERE batch_id = ANY (%s::bigint[])").format(partition)
    return (Place(*row) for row in connection.execute(query, [ids]))


def _in_object(archive: ArchiveBucket | None, segment: Segment, unread: list[Unread]) -> Iterator[Place]:
    from prooftrail import parquet  # loads Arrow

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "segment.parquet")
        try:
            sha256 = fetch(archive, segment, file)
        except ObjectUnread as error:
            unread.append(error.unread)
            return
        if sha256 is None:
            unread.append(Unread(segment, "it is not there"))
            return
        with suppress(*UNFIT):  # as the scan of it says: so nothing of it is there
            for batch in parquet.batches(file):
                columns = (map(operator.index, batch.column(name).to_pylist()) for name in ("batch_id", "position"))
                yield from map(Place, *columns)


def _doubled(batch: Batch, place: Place, where: set[str]) -> Finding:
    first, *others = sorted(where)
    return Finding(
        kind="doubled",
        tenant=batch.tenant,
        where=first,
        index=batch.first_index + place.position,
        batch=place.batch,
        position=place.position,
        detail=f"it is in {' and '.join(others)} too",
    )

"""Erasure: one person's values leave PostgreSQL, the archive and the quarantine, and every proof stays what it was.

In this order, so that at every moment what is missing is explained by an event in the log:

1. survey: which entries each archived object holds of the person, and whether its lock can be lifted; nothing changes.
2. begin, one transaction: all values in PostgreSQL go, and `privacy.erase` names every entry, those in objects too. Holds
   are looked at here, by the database; one that forbids it, or a lock that nobody can lift, refuses the whole.
3. objects: of each a version without the values is written, read back, compared and made the one to read, and all others
   are deleted; an object that never was the place to read is deleted.
4. done: the record forgets the person. `scrub` rewrites the pages in which PostgreSQL still has what nobody can ask for.

A run that is killed is taken up by the next: each step is a transaction, or leaves a version of an object that the next run
deletes.
"""

from __future__ import annotations

from collections.abc import Callable

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.erasure import cold, hot
from prooftrail.erasure.pages import scrub
from prooftrail.erasure.record import (
    Busy,
    Conflict,
    EntryDiffers,
    Erasure,
    Forbidden,
    Part,
    Refused,
    approve,
    get,
    known,
    listing,
    order,
    request,
    waiting,
)

__all__ = [
    "Busy",
    "Conflict",
    "EntryDiffers",
    "Erasure",
    "Forbidden",
    "Part",
    "Refused",
    "approve",
    "execute",
    "get",
    "listing",
    "order",
    "request",
    "scrub",
    "waiting",
]


def execute(
    connection: Connection, bucket: ArchiveBucket | None, id: int, has_time: Callable[[], bool] = lambda: True
) -> Erasure:
    """Take an approved erasure as far as time allows; returns it as it is then.

    `bucket` may be None where nothing was ever archived. Raises `Busy` to come again, `EntryDiffers` and `ArchiveMismatch`
    where what is stored is not what the log or the manifest says.
    """
    erasure = known(connection, id)
    try:
        while erasure.state == "approved" and has_time():
            for unknown in hot.begin(connection, bucket, erasure):
                if has_time():
                    cold.survey(connection, cold.needed(bucket), erasure, segments.by_id(connection, unknown))
            erasure = known(connection, id)
    except Refused as refusal:
        hot.refuse(connection, erasure, str(refusal))
    if erasure.state == "running":
        for segment, work in cold.work_left(connection, erasure):
            if has_time():
                (cold.replace if work == "rewrite" else cold.remove)(connection, cold.needed(bucket), erasure, segment)
        hot.finish(connection, erasure)
    return known(connection, id)

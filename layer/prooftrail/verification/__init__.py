"""Verification: whether everything stored is what the logs committed to, derived anew from the columns.

What is done, and by which module:

- ``signed`` fetches the last checkpoints from the evidence bucket, first of all, so that what was signed must be there
- ``session`` opens one snapshot of the database, which many processes may share
- ``scan`` derives the leaf of every stored row (``rows``), hot and cold, and compares it with the leaf hashes of its batch
- ``walk`` derives the root of every log from those leaf hashes and compares it with batches, head and checkpoints
- ``inquiry`` gathers what they come upon; ``settle``, ``explained``, ``forks``, ``examine`` and ``diagnosis`` name it

It changes nothing, and waits for nobody: ingest, archive, checkpoints and erasure go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from psycopg import sql

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.ledger.merkle import Frontier
from prooftrail.verification import explained, signed
from prooftrail.verification.findings import Finding
from prooftrail.verification.inquiry import Inquiry, Report
from prooftrail.verification.scan import Scope
from prooftrail.verification.session import ColdJob, HotJob, Job, WalkJob, Workers, snapshot
from prooftrail.verification.signed import NOTHING_PUBLISHED, Authority, LogKeys, OfLog, keys_of

__all__ = ["Authority", "Finding", "LogKeys", "Question", "Report", "Workers", "keys_of", "verify"]

UNIT = 100_000  # entries of one job, about; fewer where that keeps all workers busy
_SMALLEST_UNIT = 10_000

Progress = Callable[[int, int], None]


class Question(msgspec.Struct, frozen=True):
    """What to verify: everything, one tenant, or of a tenant's log the entries from `first` to before `end`."""

    tenant: str | None = None
    first: int | None = None
    end: int | None = None
    every_checkpoint: bool = False

    @property
    def is_range(self) -> bool:
        """Whether it is about a part of a log."""
        return self.first is not None or self.end is not None


def verify(
    connection: Connection,
    question: Question = Question(),  # noqa: B008  # it never changes
    *,
    authority: Authority | None = None,
    archive: ArchiveBucket | None = None,
    workers: Workers | None = None,
    progress: Progress = lambda _done, _of: None,
) -> Report:
    """Verify what is asked; `connection` is in autocommit mode. Without `authority` nothing is compared with checkpoints.

    `progress` is told how many entries are done, of about how many. What cannot be read of a bucket is in the report's
    `unchecked`, and nothing is found fault with because of it.
    """
    inquiry = Inquiry(connection, authority, archive, perform=workers.perform if workers else None)
    published = _published(connection, question, authority)
    for of_log in published.values():
        inquiry.report.add(of_log.findings)
    with snapshot(connection, shared=workers is not None) as view:
        ids = _batches(connection, question)
        total = sum(count for _, count in ids)
        jobs = [
            *_walks(connection, question, authority, published, inquiry.report),
            *_scans(connection, question, ids, workers.count if workers else 1),
        ]
        inquiry.look(view, jobs, lambda: progress(inquiry.report.entries, total))
        # Where an object was not read, there are fewer entries than keys for no other reason.
        keys_differ = not inquiry.unread and _keys_differ(connection, question, inquiry.report.entries)
        quarantined = explained.quarantined(connection) if question.tenant is None else None
    inquiry.conclude(keys_differ=keys_differ)
    if quarantined is not None:
        inquiry.compare_quarantine(quarantined)
    return inquiry.report


def _published(connection: Connection, question: Question, authority: Authority | None) -> dict[str, OfLog]:
    """What the evidence bucket has of the logs, those included that PostgreSQL has forgotten."""
    if authority is None:
        return {}
    known = {tenant for (tenant,) in connection.execute("SELECT name FROM prooftrail.tenant")}
    tenants = {question.tenant} if question.tenant else known
    return signed.published(authority, tenants, every=question.every_checkpoint, others=question.tenant is None)


def _batches(connection: Connection, question: Question) -> list[tuple[int, int]]:
    """Id and number of events of all batches that the question is about, in the order of the ids."""
    rows = connection.execute(
        """
        SELECT id, event_count FROM prooftrail.batch
        WHERE (%(tenant)s::text IS NULL OR tenant = %(tenant)s)
            AND (%(first)s::bigint IS NULL OR first_index + event_count > %(first)s)
            AND (%(end)s::bigint IS NULL OR first_index < %(end)s)
        ORDER BY id
        """,
        {"tenant": question.tenant, "first": question.first, "end": question.end},
    )
    return [(id, count) for id, count in rows]


def _scans(connection: Connection, question: Question, batches: list[tuple[int, int]], workers: int) -> Iterator[Job]:
    """Jobs that look at every row the question is about, those included that are of no batch."""
    share = sum(count for _, count in batches) // workers
    for first, end, ids in _parts(batches, min(UNIT, max(share, _SMALLEST_UNIT))):
        yield HotJob(Scope(first, end, question.tenant, tuple(ids) if question.is_range else None))
    only = tuple(id for id, _ in batches) if question.is_range else None
    for segment in segments.archived(connection, question.tenant):
        yield ColdJob(segment, Scope(tenant=question.tenant, only=only))


def _parts(batches: list[tuple[int, int]], unit: int) -> Iterator[tuple[int | None, int | None, list[int]]]:
    """Cut at ids into parts of about `unit` entries; the first has no lower bound, the last no upper one."""
    first: int | None = None
    ids: list[int] = []
    entries = 0
    for id, count in batches:
        if entries >= unit:
            yield first, id, ids
            first, ids, entries = id, [], 0
        ids.append(id)
        entries += count
    yield first, None, ids


def _walks(
    connection: Connection,
    question: Question,
    authority: Authority | None,
    published: Mapping[str, OfLog],
    report: Report,
) -> Iterator[Job]:
    """Jobs that walk along the logs, whole ones even where the question is about a part: the root is of all."""
    logs = {
        tenant
        for (tenant,) in connection.execute(
            "SELECT tenant FROM prooftrail.log UNION SELECT DISTINCT tenant FROM prooftrail.batch"
        )
    }
    for tenant in sorted(logs | published.keys()):
        if question.tenant in (None, tenant):
            known = signed.remembered(connection, tenant, 0, authority, published.get(tenant, NOTHING_PUBLISHED))
            report.add(known.findings)
            report.leave(known.unread)
            yield WalkJob(tenant, Frontier(), tuple(known.signed))


def _keys_differ(connection: Connection, question: Question, entries: int) -> bool:
    """Whether there are more or fewer keys than entries: each entry was seen to have one, but a key may be of none."""
    if question.is_range:
        return False
    condition = sql.SQL("tenant = {}").format(sql.Literal(question.tenant)) if question.tenant else sql.SQL("true")
    row = connection.execute(sql.SQL("SELECT count(*) FROM prooftrail.event_key WHERE {}").format(condition)).fetchone()
    return row is not None and row[0] != entries

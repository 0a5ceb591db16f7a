"""Continuous verification: run by run what the logs appended, and in rounds of some days all of history.

A run walks along each log from where the last one came to, derives the entries on that way anew, and goes on with the
round: PostgreSQL by ranges of batches, then the archived segments, then the logs from their beginning. How far it came is
kept in the database and believed for one thing only, where to go on: what a changed note of progress hides from a run, the
next round comes to.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.ledger.merkle import Frontier
from prooftrail.verification import explained, signed
from prooftrail.verification.inquiry import Inquiry, Report
from prooftrail.verification.scan import Scope
from prooftrail.verification.session import ColdJob, HotJob, Job, View, WalkJob, snapshot
from prooftrail.verification.signed import Authority, Published
from prooftrail.verification.walk import Walk

UNIT = 100_000  # entries of one job, about, and the fewest of history that a run with time left derives
AHEAD = timedelta(days=1)  # by which a round is ahead of its pace, so that a day without runs does not make it late
MOST_KEPT = 100  # findings, in the record of a run


class Place(msgspec.Struct, frozen=True):
    """How far along a log: the frontier in hexadecimal."""

    size: int = 0
    frontier: str = ""

    def read(self) -> Frontier:
        """The frontier itself."""
        return Frontier.from_bytes(self.size, bytes.fromhex(self.frontier))

    @classmethod
    def of(cls, frontier: Frontier) -> Place:
        """The place that a frontier is."""
        return cls(frontier.size, frontier.to_bytes().hex())


class Round(msgspec.Struct):
    """How far a round is: `batch`, `segment` and `tenant` are the last ones done, `place` is in the log after `tenant`."""

    began_at: datetime
    entries: int
    done: int = 0
    batch: int = 0
    hot_is_done: bool = False
    segment: int = 0
    tenant: str = ""
    place: Place = Place()

    def due(self, now: datetime, days: float) -> int:
        """How many entries should be done by now, for the round to end in time."""
        return int(self.entries * min(1.0, (now - self.began_at + AHEAD) / timedelta(days=days)))


class Progress(msgspec.Struct):
    """Where the next run goes on; `verified_until` is when the last complete round began."""

    logs: dict[str, Place] = {}
    round: Round | None = None
    verified_until: datetime | None = None


def run(
    connection: Connection, authority: Authority, archive: ArchiveBucket | None, *, deadline: float, days: float
) -> Report:
    """Verify until everything due is done or time (`time.monotonic`) is up, and record what was found.

    Raises `AwsUnavailable` where a bucket cannot be reached.
    """
    began_at, progress = datetime.now(UTC), _read(connection)
    published = signed.published(authority, _tenants(connection, authority), every=False)
    inquiry = Inquiry(connection, authority, archive, deadline=deadline)
    inquiry.report.add(published.findings)
    with snapshot(connection) as view:
        this = _Run(connection, view, inquiry, progress, authority, published)
        this.look_at_news()
        if this.go_on(deadline, days):
            inquiry.compare_quarantine(explained.quarantined(connection))
    inquiry.look_again()
    if inquiry.has_questions():
        with snapshot(connection) as view:
            inquiry.examine(view)
    _record(connection, began_at, inquiry.report, progress)
    return inquiry.report


def _tenants(connection: Connection, authority: Authority) -> list[str]:
    known = {tenant for (tenant,) in connection.execute("SELECT name FROM prooftrail.tenant")}
    return sorted(known | set(authority.evidence.tenants()))


class _Run(NamedTuple):
    """One run in its snapshot; `progress` is what the next one begins from."""

    connection: Connection
    view: View
    inquiry: Inquiry
    progress: Progress
    authority: Authority
    published: Published

    def look_at_news(self) -> None:
        """Walk on along each log and derive the entries on the way; one that is not as it must be is walked again."""
        for tenant in sorted(self.published.signed):
            start = self.progress.logs.get(tenant, Place()).read()
            walk = self._walk(tenant, start)
            self.inquiry.look(self.view, self._entries(tenant, start.size, walk.reached.size))
            if not walk.findings and walk.broken is None:
                self.progress.logs[tenant] = Place.of(walk.reached)

    def go_on(self, deadline: float, days: float) -> bool:
        """Go on with the round as far as it is due; says whether this run alone went through all of history."""
        report, before = self.inquiry.report, self.inquiry.report.entries
        began_here = self.progress.round is None
        current = self.progress.round = self.progress.round or self._new_round()
        while time.monotonic() < deadline and (
            report.entries - before < UNIT or current.done < current.due(datetime.now(UTC), days)
        ):
            done = report.entries
            if not self._step(current):
                self.progress.verified_until, self.progress.round = current.began_at, None
                return began_here
            current.done += report.entries - done
        return False

    def _new_round(self) -> Round:
        row = self.connection.execute("SELECT coalesce(sum(size), 0) FROM prooftrail.log").fetchone()
        assert row is not None
        return Round(began_at=datetime.now(UTC), entries=int(row[0]))

    def _step(self, current: Round) -> bool:
        """Do what the round has to do next; false when it is through."""
        if not current.hot_is_done:
            self.inquiry.look(self.view, [self._next_range(current)])
            return True
        for segment in segments.archived(self.connection, None):
            if segment.id > current.segment:
                current.segment = segment.id
                self.inquiry.look(self.view, [ColdJob(segment, Scope())])
                return True
        for tenant in sorted(self.published.signed):
            if tenant > current.tenant:
                self._walk_history(current, tenant)
                return True
        return False

    def _next_range(self, current: Round) -> HotJob:
        """The next batches; the last range has no end, so that rows of no batch are come upon too."""
        rows = self.connection.execute(
            "SELECT id, event_count FROM prooftrail.batch WHERE id > %s ORDER BY id LIMIT %s", [current.batch, UNIT]
        ).fetchall()
        first = current.batch + 1 if current.batch else None
        parts = list(_units(rows))
        if len(parts) <= 1:
            current.hot_is_done = True
            return HotJob(Scope(first=first))
        current.batch = parts[0][-1]
        return HotJob(Scope(first=first, end=current.batch + 1))

    def _walk_history(self, current: Round, tenant: str) -> None:
        """Walk on from where time cut the walk off; what else ended it before the head is in its findings."""
        walk = self._walk(tenant, current.place.read())
        head = self.connection.execute("SELECT size FROM prooftrail.log WHERE tenant = %s", [tenant]).fetchone()
        if head is None or walk.reached.size >= head[0] or walk.findings or walk.broken:
            current.tenant, current.place = tenant, Place()
        else:
            current.place = Place.of(walk.reached)

    def _walk(self, tenant: str, start: Frontier) -> Walk:
        known, findings = signed.remembered(self.connection, tenant, start.size, self.authority, self.published.notes)
        self.inquiry.report.add(findings)
        self.inquiry.look(self.view, [WalkJob(tenant, start, (*self.published.signed.get(tenant, ()), *known))])
        return self.inquiry.walks[-1]

    def _entries(self, tenant: str, first: int, end: int) -> Iterator[Job]:
        """Jobs that derive what a log has from one index to another."""
        rows = self.connection.execute(
            """
            SELECT id, event_count FROM prooftrail.batch
            WHERE tenant = %s AND first_index >= %s AND first_index < %s ORDER BY first_index
            """,
            [tenant, first, end],
        ).fetchall()
        return (HotJob(Scope(only=tuple(ids))) for ids in _units(rows))


def _units(rows: list[tuple[Any, ...]]) -> Iterator[list[int]]:
    """Batches, given by id and number of entries, in parts of about `UNIT` entries."""
    ids: list[int] = []
    entries = 0
    for id, count in rows:
        ids.append(id)
        entries += count
        if entries >= UNIT:
            yield ids
            ids, entries = [], 0
    if ids:
        yield ids


def _read(connection: Connection) -> Progress:
    row = connection.execute("SELECT value::text FROM prooftrail.verification_progress WHERE name = 'progress'").fetchone()
    return msgspec.json.decode(row[0], type=Progress) if row else Progress()


def _record(connection: Connection, began_at: datetime, report: Report, progress: Progress) -> None:
    findings = [finding.without_values() for finding in report.findings[:MOST_KEPT]]
    with connection.transaction():
        connection.execute(
            """
            INSERT INTO prooftrail.verification (began_at, entries, found, findings, unchecked, history_verified_until)
            VALUES (%s, %s, %s, %s::jsonb, %s, %s)
            """,
            [
                began_at,
                report.entries,
                len(report.findings) + report.more,
                msgspec.json.encode(findings).decode(),
                report.unchecked,
                progress.verified_until,
            ],
        )
        connection.execute(
            """
            INSERT INTO prooftrail.verification_progress (name, value) VALUES ('progress', %s::jsonb)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value
            """,
            [msgspec.json.encode(progress).decode()],
        )
        # Commit. A crash before it, and the next run does the same again.

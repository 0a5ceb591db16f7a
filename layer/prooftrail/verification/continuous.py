"""Continuous verification: run by run what the logs appended, and in rounds of some days all of history.

A run walks along each log from where the last one came to, derives the entries on that way anew, and goes on with the
round: PostgreSQL by ranges of batches, then the archived segments, then the logs from their beginning. How far it came is
kept in the database and believed for one thing only, where to go on: what a changed note of progress hides from a run, the
next round comes to.

An object that cannot be read holds up nothing. The round goes past it, each run tries it again, and until one has read it,
it is said to be unchecked and no round counts that comes to its end.
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
from prooftrail.verification.signed import Authority, OfLog
from prooftrail.verification.walk import Walk

UNIT = 100_000  # entries of one job, about, and the fewest of history that a run with time left derives
AHEAD = timedelta(days=1)  # by which a round is ahead of its pace, so that a day without runs does not make it late
MOST_KEPT = 100  # findings, and things not looked at, in the record of a run


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
    """How far a round is: `batch`, `segment` and `tenant` are the last ones done, `place` is in the log after `tenant`.

    It `counts` while each log was compared with what was signed of it.
    """

    began_at: datetime
    entries: int
    done: int = 0
    batch: int = 0
    hot_is_done: bool = False
    segment: int = 0
    tenant: str = ""
    place: Place = Place()
    counts: bool = True

    def due(self, now: datetime, days: float) -> int:
        """How many entries should be done by now, for the round to end in time."""
        return int(self.entries * min(1.0, (now - self.began_at + AHEAD) / timedelta(days=days)))


class Progress(msgspec.Struct):
    """Where the next run goes on; `verified_until` is when the last complete round began.

    `unread` are objects that could not be read when it was their turn, and why.
    """

    logs: dict[str, Place] = {}
    round: Round | None = None
    verified_until: datetime | None = None
    unread: dict[str, str] = {}


def run(
    connection: Connection,
    authority: Authority,
    archive: ArchiveBucket | None,
    report: Report,
    *,
    deadline: float,
    days: float,
) -> None:
    """Verify until everything due is done or time (`time.monotonic`) is up, and record what was found.

    The report is filled on the way: where this raises, it holds what was found until then. That is recorded too, and the
    next run begins where this one did.
    """
    began_at, progress = datetime.now(UTC), _read(connection)
    inquiry = Inquiry(connection, authority, archive, deadline=deadline, report=report)
    try:
        _verify(connection, authority, inquiry, progress, deadline=deadline, days=days)
    except Exception as error:
        report.leave([f"the rest: the run ended in an error, {type(error).__name__}, which the function's log has"])
        _record(connection, began_at, report, progress.verified_until)
        raise
    with connection.transaction():
        _record(connection, began_at, report, progress.verified_until)
        _save(connection, progress)
        # Commit. A crash before it, and the next run does the same again.


def _verify(
    connection: Connection, authority: Authority, inquiry: Inquiry, progress: Progress, *, deadline: float, days: float
) -> None:
    """Do what is to be done; `progress` is changed, at last to what the next run begins from."""
    published = _published(connection, authority, inquiry.report)
    is_new, quarantined = progress.round is None, None
    try:
        with snapshot(connection) as view:
            this = _Run(connection, view, inquiry, progress, authority, published, deadline)
            this.look_at_news()
            this.try_again()
            ended = this.go_on(days)
            if ended and is_new:  # then this run alone went through all of history
                quarantined = explained.quarantined(connection)
    finally:  # what was come upon until then has a name, whatever ended it
        inquiry.conclude()
    if quarantined is not None:
        inquiry.compare_quarantine(quarantined)
    _close(progress, inquiry, ended)


def _published(connection: Connection, authority: Authority, report: Report) -> dict[str, OfLog]:
    known = {tenant for (tenant,) in connection.execute("SELECT name FROM prooftrail.tenant")}
    published = signed.published(authority, known, every=False, others=True)
    for of_log in published.values():
        report.add(of_log.findings)
    return published


def _close(progress: Progress, inquiry: Inquiry, ended: Round | None) -> None:
    """Note what is still to be read; the round that ended counts where nothing is."""
    left = {key: why for key, why in progress.unread.items() if key not in inquiry.read}
    progress.unread = left | {key: item.why for key, item in inquiry.unread.items()}
    inquiry.report.leave(f"{key}: {why}" for key, why in progress.unread.items())
    if ended and ended.counts and not progress.unread:
        progress.verified_until = ended.began_at


class _Run(NamedTuple):
    """One run in its snapshot; `progress` is what the next one begins from."""

    connection: Connection
    view: View
    inquiry: Inquiry
    progress: Progress
    authority: Authority
    published: dict[str, OfLog]
    deadline: float

    def look_at_news(self) -> None:
        """Walk on along each log and derive the entries on the way; one that is not as it must be is walked again."""
        for tenant in sorted(self.published):
            start = self.progress.logs.get(tenant, Place()).read()
            walk, is_compared = self._walk(tenant, start)
            self.inquiry.look(self.view, self._entries(tenant, start.size, walk.reached.size))
            if is_compared and not walk.findings and walk.broken is None:
                self.progress.logs[tenant] = Place.of(walk.reached)

    def try_again(self) -> None:
        """Look at what no run could read since it was its turn: most faults of S3 pass."""
        for segment in segments.archived(self.connection, None):
            if segment.object_key in self.progress.unread and time.monotonic() < self.deadline:
                self.inquiry.look(self.view, [ColdJob(segment, Scope())])

    def go_on(self, days: float) -> Round | None:
        """Go on with the round as far as it is due; returns it where it came to its end."""
        report, before = self.inquiry.report, self.inquiry.report.entries
        current = self.progress.round = self.progress.round or self._new_round()
        while time.monotonic() < self.deadline and (
            report.entries - before < UNIT or current.done < current.due(datetime.now(UTC), days)
        ):
            done = report.entries
            if not self._step(current):
                self.progress.round = None
                return current
            current.done += report.entries - done
        return None

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
                if segment.object_key not in self.inquiry.read | self.inquiry.unread.keys():
                    self.inquiry.look(self.view, [ColdJob(segment, Scope())])
                return True
        for tenant in sorted(self.published):
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
        walk, is_compared = self._walk(tenant, current.place.read())
        current.counts = current.counts and is_compared
        head = self.connection.execute("SELECT size FROM prooftrail.log WHERE tenant = %s", [tenant]).fetchone()
        if head is None or walk.reached.size >= head[0] or walk.findings or walk.broken:
            current.tenant, current.place = tenant, Place()
        else:
            current.place = Place.of(walk.reached)

    def _walk(self, tenant: str, start: Frontier) -> tuple[Walk, bool]:
        """Walk on, and say whether all that was signed of the log could be read to compare it with."""
        known = signed.remembered(self.connection, tenant, start.size, self.authority, self.published[tenant])
        self.inquiry.report.add(known.findings)
        self.inquiry.report.leave(known.unread)
        self.inquiry.look(self.view, [WalkJob(tenant, start, tuple(known.signed))])
        return self.inquiry.walks[-1], not known.unread

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


def _record(connection: Connection, began_at: datetime, report: Report, verified_until: datetime | None) -> None:
    findings = [finding.without_values() for finding in report.findings[:MOST_KEPT]]
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
            report.unchecked[:MOST_KEPT],
            verified_until,
        ],
    )


def _save(connection: Connection, progress: Progress) -> None:
    connection.execute(
        """
        INSERT INTO prooftrail.verification_progress (name, value) VALUES ('progress', %s::jsonb)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value
        """,
        [msgspec.json.encode(progress).decode()],
    )

"""Inquiry: what scans and walks came upon is gathered, and what is not plainly right is looked into until it has a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from prooftrail import segments
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.event import OWN_TENANT
from prooftrail.verification import explained, forks, rows, scan
from prooftrail.verification.diagnosis import Place
from prooftrail.verification.examine import Examiner, unexamined
from prooftrail.verification.explained import Erasures, Record
from prooftrail.verification.findings import Finding
from prooftrail.verification.scan import Batch, Erased, Note, Suspect, Unread
from prooftrail.verification.session import NEVER, ColdJob, Desk, Job, Perform, Result, View, snapshot
from prooftrail.verification.settle import settle
from prooftrail.verification.signed import Authority
from prooftrail.verification.walk import Walk

MOST_FINDINGS = 1000  # that are kept; of more, the number is
TRIES = 3  # sessions for objects that an erasure is replacing


class Report(msgspec.Struct):
    """What was verified, what was found, and what could not be looked at and why.

    `entries` are rows that were derived anew, `erased` those of which parts are gone and an erasure says so, `checkpoints`
    those whose root was derived. `more` findings were not kept.
    """

    entries: int = 0
    erased: int = 0
    logs: int = 0
    checkpoints: int = 0
    findings: list[Finding] = []
    more: int = 0
    unchecked: list[str] = []

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings, as many as there is room for."""
        for finding in findings:
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(finding)
            else:
                self.more += 1

    def leave(self, reasons: Iterable[str]) -> None:
        """Keep why something could not be looked at, each reason once."""
        self.unchecked = list(dict.fromkeys([*self.unchecked, *reasons]))


class Inquiry:
    """A verification on its way; `connection` is in autocommit mode, and in a session wherever a view is asked for."""

    def __init__(
        self,
        connection: Connection,
        authority: Authority | None,
        archive: ArchiveBucket | None,
        *,
        perform: Perform | None = None,
        deadline: float = NEVER,
        report: Report | None = None,
    ) -> None:
        self.report = report or Report()
        self.walks: list[Walk] = []
        self.read: set[str] = set()  # objects
        self.unread: dict[str, Unread] = {}  # by object
        self._connection = connection
        self._authority = authority
        self._archive = archive
        self._perform = perform or Desk(connection, archive, deadline).perform
        self._suspects: list[Suspect] = []
        self._partly: dict[int, bytes] = {}
        self._doubtful: set[int] = set()
        self._erased: list[Erased] = []
        self._notes: list[Note] = []
        self._disputed: list[ColdJob] = []

    def look(self, view: View, jobs: Iterable[Job], progress: Callable[[], None] = lambda: None) -> None:
        """Do the jobs and gather what they come upon."""
        for job, result in self._perform(view, jobs):
            self._gather(job, result)
            progress()

    def conclude(self, *, keys_differ: bool = False) -> None:
        """Give everything that was come upon a name, and where that fails the little that is known of it."""
        try:
            self._look_again()
        finally:
            if keys_differ or self.has_questions():
                self._name(keys_differ=keys_differ)

    def _name(self, *, keys_differ: bool) -> None:
        try:
            with snapshot(self._connection) as view:
                self.examine(view, keys_differ=keys_differ)
        except Exception:
            self.report.add(walk.broken.finding for walk in self.walks if walk.broken)
            self.report.add(unexamined(self._suspects))
            raise

    def _look_again(self) -> None:
        """Look at disputed objects as the manifest names them by now: an erasure may have replaced them since."""
        for last in (False,) * (TRIES - 1) + (True,):
            disputed, self._disputed = self._disputed, []
            if not disputed:
                return
            with snapshot(self._connection, shared=True) as view:
                self.look(view, [self._anew(job, last=last) for job in disputed])

    def _anew(self, job: ColdJob, *, last: bool) -> ColdJob:
        named = segments.by_id(self._connection, job.segment.id)
        return ColdJob(named, job.scope, final=last or named == job.segment)

    def _gather(self, job: Job, result: Result) -> None:
        if isinstance(result, Walk):
            self.walks.append(result)
            self.report.logs += 1
            self.report.checkpoints += result.compared
            self.report.add(result.findings)
            return
        self.report.entries += result.entries
        self.report.add(result.findings)
        self.report.more += result.more_suspects
        self._leave(result.unread)
        self._suspects += result.suspects
        self._doubtful |= set(result.doubtful)
        self._erased += result.erased
        self._notes += result.notes
        if isinstance(job, ColdJob):
            if result.disputed:
                self._disputed.append(job)
            elif not result.unread:
                self.read.add(job.segment.object_key)
        for id, seen in result.partly.items():
            earlier = self._partly.get(id, bytes(len(seen)))
            self._partly[id] = bytes(map(int.__add__, earlier, seen))

    def _leave(self, unread: Iterable[Unread]) -> None:
        """Note objects that could not be read, with the reason that came first."""
        for item in unread:
            if self.unread.setdefault(item.segment.object_key, item) is item:
                self.report.leave([str(item)])

    def has_questions(self) -> bool:
        """Whether anything is to be examined."""
        troubled = any(walk.broken or walk.forked for walk in self.walks)
        return troubled or bool(self._suspects or self._erased or self._unsettled())

    def _unsettled(self) -> set[int]:
        """Batches of which some entries were not seen, or seen more than once."""
        return {id for id, seen in self._partly.items() if seen.count(1) != len(seen)} | self._doubtful

    def compare_quarantine(self, records: Sequence[Record]) -> None:
        """Compare all that is in the quarantine with what our own log says was put there; all logs were scanned.

        What the log says may be in an object that was not read; then no record is said to be wrong.
        """
        if any(item.segment.tenant == OWN_TENANT for item in self.unread.values()):
            self.report.leave(["the quarantine: what the log says of it may be in an object that could not be read"])
            return
        self.report.add(explained.quarantine(records, self._notes, Erasures(self._notes)))

    def examine(self, view: View, *, keys_differ: bool = False) -> None:
        """Look into everything that is not plainly right."""
        self._explain_erased(view)
        published = self._published()
        suspects = [*self._suspects, *self._rows_at(view, published)]
        unsettled = self._unsettled()
        breaks = [walk.broken for walk in self.walks if walk.broken]
        named = {suspect.row[rows.BATCH] for suspect in suspects}
        batches = scan.batches(self._connection, unsettled | named | {broken.batch for broken in breaks})
        settled = settle(
            self._connection, view.months, self._archive, {id: batches[id] for id in unsettled if id in batches}
        )
        self.report.add(settled.doubled)
        self._leave(settled.unread)
        examiner = Examiner(self._connection, view.months, batches, published)
        for broken in breaks:
            findings, suspects = examiner.explain(broken, suspects)
            self.report.add(findings)
        self.report.add(examiner.examine(suspects, settled.missing, keys_differ=keys_differ))

    def _explain_erased(self, view: View) -> None:
        """What is gone must have been erased: by an erasure that was scanned too, or by another, which is looked for."""
        known = Erasures(self._notes)
        open_questions = [erased for erased in self._erased if not known.explain(erased)]
        self.report.erased += len(self._erased) - len(open_questions)
        if open_questions:
            tenants = {erased.tenant for erased in open_questions}
            notes, unread = explained.erasures(self._connection, view.months, self._archive, tenants)
            self._leave(unread)
            others, unknown = Erasures(notes), {item.segment.tenant for item in unread}
            unexplained = [erased for erased in open_questions if not others.explain(erased)]
            self.report.erased += len(open_questions) - len(unexplained)
            # The erasure may be told of in an object that was not read; then nothing is said to be gone without one.
            self.report.add(explained.unexplained(erased) for erased in unexplained if erased.tenant not in unknown)

    def _published(self) -> dict[Place, bytes]:
        """Of logs that are not what was signed: the published leaf hashes of the entries that differ."""
        published: dict[Place, bytes] = {}
        for walk in self.walks:
            if walk.forked is not None and self._authority is not None:
                evidence = self._authority.evidence
                for item in forks.different(self._connection, evidence, walk.tenant, walk.forked.size):
                    published[Place(item.batch, item.position)] = item.published
        return published

    def _rows_at(self, view: View, published: Mapping[Place, bytes]) -> list[Suspect]:
        """The rows in places where another entry was published; places whose rows are archived are named at once."""
        known = {(suspect.row[rows.BATCH], suspect.row[rows.POSITION]) for suspect in self._suspects}
        found = list(scan.rows_at(self._connection, view.months, list(published)))
        batches = scan.batches(self._connection, {place.batch for place in published})
        there = {(suspect.row[rows.BATCH], suspect.row[rows.POSITION]) for suspect in found}
        for place, leaf in published.items():
            if place not in there:
                self.report.add([_other_leaf(batches[place.batch], place, leaf)])
        return [suspect for suspect in found if (suspect.row[rows.BATCH], suspect.row[rows.POSITION]) not in known]


def _other_leaf(batch: Batch, place: Place, leaf: bytes) -> Finding:
    return Finding(
        kind="changed",
        tenant=batch.tenant,
        where="batch",
        index=batch.first_index + place.position,
        batch=place.batch,
        position=place.position,
        column="leaf_hashes",
        expected=leaf.hex(),
        found=batch.leaf(place.position).hex(),
        detail="not what was published",
    )

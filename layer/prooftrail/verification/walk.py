"""Walks: along a log from batch to batch, deriving its root from the leaf hashes, and comparing that with what was signed.

Whether the leaf hashes are those of the stored entries is what `scan` says; the two together say that the entries are those
that were signed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prooftrail.database import Connection
from prooftrail.ledger.merkle import HASH, Frontier
from prooftrail.verification.findings import Finding

BATCHES_AT_ONCE = 50  # of up to some thousand leaf hashes each


class Signed(NamedTuple):
    """What a verified checkpoint says, and where it lies."""

    size: int
    root: bytes
    where: str


class Break(NamedTuple):
    """The first batch from which on no stored root is what the leaf hashes give, and the log before it."""

    batch: int
    root: bytes
    before: Frontier
    finding: Finding


class Walk(NamedTuple):
    """How far a walk came, what it found, where the log broke, and the first checkpoint that has another root.

    `compared` is how many checkpoints had the root that was derived.
    """

    tenant: str
    reached: Frontier
    findings: list[Finding]
    broken: Break | None
    forked: Signed | None
    compared: int


class _Batch(NamedTuple):
    id: int
    first_index: int
    event_count: int
    leaf_hashes: bytes
    root: bytes


class _Fork(NamedTuple):
    """A checkpoint, and the root that was derived at its size, which is another."""

    signed: Signed
    derived: bytes


class _Wrong(NamedTuple):
    """A batch whose root is not the derived one."""

    batch: _Batch
    derived: bytes
    before: Frontier


def walk(
    connection: Connection, tenant: str, start: Frontier, signed: Iterable[Signed], time_is_up: Callable[[], bool]
) -> Walk:
    """Walk from `start` to the head of the log, or as far as time allows. What was signed up to `start` is left out."""
    walker = _Walker(tenant, start, signed)
    for batch in _batches(connection, tenant, start.size):
        if time_is_up() or not walker.take(batch):
            break
    else:
        walker.arrive(_head(connection, tenant))
    return walker.result()


class _Walker:
    """A walk in progress."""

    def __init__(self, tenant: str, start: Frontier, signed: Iterable[Signed]) -> None:
        self._tenant = tenant
        self._frontier = Frontier(start.size, start.hashes)
        self._ahead = deque(sorted(item for item in signed if item.size > start.size))
        self._wrong: list[_Wrong] = []  # batches since the last one whose root was right
        self._forks: list[_Fork] = []
        self._compared = 0
        self._findings: list[Finding] = []

    def take(self, batch: _Batch) -> bool:
        """Go over a batch; false where it does not begin where the log ends, so that no root can be derived any more."""
        if batch.first_index != self._frontier.size:
            self._findings.append(self._out_of_place(batch))
            return False
        before = Frontier(self._frontier.size, self._frontier.hashes)
        leaves = [batch.leaf_hashes[start : start + HASH] for start in range(0, len(batch.leaf_hashes), HASH)]
        if len(leaves) != batch.event_count:
            self._findings.append(self._finding(batch, "event_count", str(len(leaves)), str(batch.event_count)))
        self._extend(leaves)
        derived = self._frontier.root()
        if derived == batch.root:
            self._take_for_changed_roots()
        else:
            self._wrong.append(_Wrong(batch, derived, before))
        return True

    def arrive(self, head: Frontier | None) -> None:
        """At the last batch: the head must be there, and no checkpoint beyond it."""
        head = head or Frontier()  # a log without entries may have no row
        if (head.size, head.hashes) == (self._frontier.size, self._frontier.hashes):
            self._take_for_changed_roots()
        elif not self._wrong:
            self._findings.append(self._wrong_head(head))
        if self._ahead:
            self._findings.append(self._cut(self._ahead[-1]))

    def result(self) -> Walk:
        """What the walk came to."""
        broken = None
        if self._wrong:
            first = self._wrong[0]
            broken = Break(first.batch.id, first.batch.root, first.before, self._broken(first))
        if self._forks:
            self._findings.append(self._forked(self._forks[0]))
        forked = self._forks[0].signed if self._forks else None
        return Walk(self._tenant, self._frontier, self._findings, broken, forked, self._compared)

    def _extend(self, leaves: list[bytes]) -> None:
        """Let the log grow by leaves, and stop wherever a checkpoint was signed."""
        while self._ahead and self._ahead[0].size <= self._frontier.size + len(leaves):
            signed = self._ahead.popleft()
            part = signed.size - self._frontier.size
            self._frontier.extend(leaves[:part])
            leaves = leaves[part:]
            if self._frontier.root() == signed.root:
                self._compared += 1
            else:
                self._forks.append(_Fork(signed, self._frontier.root()))
        self._frontier.extend(leaves)

    def _take_for_changed_roots(self) -> None:
        """The log goes on as it must, so of the batches in between it was the roots that were changed."""
        for batch, derived, _ in self._wrong:
            self._findings.append(self._finding(batch, column="root", expected=derived.hex(), found=batch.root.hex()))
        self._wrong = []

    def _out_of_place(self, batch: _Batch) -> Finding:
        expected = self._frontier.size
        what = "entries are missing" if batch.first_index > expected else "two batches have the same place"
        return self._finding(batch, column="first_index", expected=str(expected), found=str(batch.first_index), detail=what)

    def _wrong_head(self, head: Frontier) -> Finding:
        expected = f"size {self._frontier.size}, frontier {self._frontier.to_bytes().hex()}"
        found = f"size {head.size}, frontier {head.to_bytes().hex()}"
        return Finding(kind="log", tenant=self._tenant, where="log", expected=expected, found=found)

    def _cut(self, signed: Signed) -> Finding:
        lost = signed.size - self._frontier.size
        detail = f"{lost} entries that were signed are gone: the end was cut off, or an older copy was restored"
        size = str(self._frontier.size)
        return Finding(
            kind="checkpoint", tenant=self._tenant, where=signed.where, expected=str(signed.size), found=size, detail=detail
        )

    def _broken(self, first: _Wrong) -> Finding:
        batch, derived, _ = first
        more = f" and {len(self._wrong) - 1} batches after it" if len(self._wrong) > 1 else ""
        detail = f"from here on the roots are not those of the leaf hashes: this batch{more}"
        return self._finding(
            batch, column="leaf_hashes or root", expected=batch.root.hex(), found=derived.hex(), detail=detail
        )

    def _forked(self, fork: _Fork) -> Finding:
        signed, derived = fork
        more = f", and neither are the {len(self._forks) - 1} others that were compared" if len(self._forks) > 1 else ""
        detail = f"the log is not what was signed at size {signed.size}{more}"
        return Finding(
            kind="checkpoint",
            tenant=self._tenant,
            where=signed.where,
            column="root",
            expected=signed.root.hex(),
            found=derived.hex(),
            detail=detail,
        )

    def _finding(self, batch: _Batch, column: str, expected: str, found: str, detail: str = "") -> Finding:
        return Finding(
            kind="batch",
            tenant=self._tenant,
            where="batch",
            batch=batch.id,
            index=batch.first_index,
            column=column,
            expected=expected,
            found=found,
            detail=detail,
        )


def _batches(connection: Connection, tenant: str, size: int) -> Iterator[_Batch]:
    """The batches from a size on, in the order of the log."""
    query = """
        SELECT id, first_index, event_count, leaf_hashes, root FROM prooftrail.batch
        WHERE tenant = %s AND first_index >= %s ORDER BY first_index, id
        """
    with connection.cursor("walk", binary=True) as cursor:
        cursor.itersize = BATCHES_AT_ONCE
        cursor.execute(query, [tenant, size])
        for row in cursor:
            yield _Batch(*row)


def _head(connection: Connection, tenant: str) -> Frontier | None:
    row = connection.execute(
        "SELECT size, frontier FROM prooftrail.log WHERE tenant = %s", [tenant], binary=True
    ).fetchone()
    if row is None:
        return None
    size, frontier = row
    return Frontier(size, [frontier[start : start + HASH] for start in range(0, len(frontier), HASH)])

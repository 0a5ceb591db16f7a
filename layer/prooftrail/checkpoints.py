"""Checkpoints: how a log's size and root leave the database, signed, for a place where nobody can take them back.

From the last checkpoint in the evidence bucket to the next, one step of a log:

1. the last checkpoint is read, its signature verified, and its root derived from the tiles;
2. what PostgreSQL appended since is read in one snapshot and hashed: it must continue that tree and lead to the roots that
   the batches and the head of the log state, else nothing is signed;
3. the new tiles are stored;
4. the checkpoint is signed, shown to the witnesses, and stored: from here on it is published;
5. PostgreSQL is told, for quick answers.

All of it may be killed anywhere and done twice, by two at once: objects are never overwritten, equal ones are no conflict,
and what was stored without a checkpoint is found equal, or refused, by the next run.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg

from prooftrail import signing
from prooftrail.database import Connection
from prooftrail.errors import PermanentError
from prooftrail.evidence import Evidence, EvidenceConflict
from prooftrail.ledger import merkle, tiles
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.merkle import Frontier
from prooftrail.ledger.note import Note, SignatureLine, open_note
from prooftrail.ledger.tiles import Tile
from prooftrail.signing import SigningKey
from prooftrail.witness_client import Prove, Witness, WitnessAbsent, WitnessFailed

STEP = 2**17  # the most leaves of one step, and then to the end of a batch: 4 MiB of hashes
WRITERS = 16  # tiles stored at once
ABSENCE = 60.0  # seconds for which a witness that did not answer is not asked again


class LogForked(PermanentError):
    """PostgreSQL's log does not continue the one that was signed: it was changed, and nothing is signed any more."""


class LogShrank(PermanentError):
    """PostgreSQL's log is shorter than the one that was signed: an older backup was restored, or entries were removed."""


class CheckpointLost(PermanentError):
    """The evidence bucket has lost a checkpoint that was published to it, or it is another bucket."""


class Due(NamedTuple):
    """A log whose head is not what was signed last; `age` in seconds is that of the oldest batch not signed for."""

    tenant: str
    signed_size: int
    age: float


class Published(NamedTuple):
    """The log's last checkpoint, whether PostgreSQL has more than that, and how witnesses failed."""

    checkpoint: Checkpoint
    behind: bool
    failed: list[WitnessFailed]


class _Growth(NamedTuple):
    """The leaves that follow on a checkpoint, the log's frontier after them, and how far PostgreSQL has it."""

    leaves: bytes
    frontier: Frontier
    head_size: int


def due(connection: Connection) -> list[Due]:
    """The logs to sign for, the one that has waited longest first; what PostgreSQL remembers of checkpoints is believed."""
    rows = connection.execute(
        """
        SELECT log.tenant, coalesce(signed.size, 0),
               coalesce(extract(epoch FROM clock_timestamp() - oldest.received_at), 0)::float8 AS age
        FROM prooftrail.log
        LEFT JOIN LATERAL (
            SELECT size FROM prooftrail.checkpoint WHERE checkpoint.tenant = log.tenant ORDER BY size DESC LIMIT 1
        ) AS signed ON true
        LEFT JOIN LATERAL (
            SELECT received_at FROM prooftrail.batch
            WHERE batch.tenant = log.tenant AND first_index >= coalesce(signed.size, 0) ORDER BY first_index LIMIT 1
        ) AS oldest ON true
        WHERE log.size <> coalesce(signed.size, 0)
        ORDER BY age DESC, log.tenant
        """
    )
    return [Due(*row) for row in rows]


class Publisher:
    """Signs logs into one bucket; for several threads at once, each with a log of its own.

    `origin` is the first part of the logs' names: that of a tenant's log is `<origin>/<tenant>`.
    """

    def __init__(
        self, evidence: Evidence, keys: Sequence[SigningKey], origin: str, witnesses: Sequence[Witness] = ()
    ) -> None:
        self._one_at_a_time = threading.Lock()  # on a connection
        self._evidence = evidence
        self._keys = keys
        self._origin = origin
        self._witnesses = witnesses
        self._absent_until: dict[Witness, float] = {}
        self._writers = ThreadPoolExecutor(WRITERS, "tiles")

    def step(self, connection: Connection, tenant: str, signed_size: int) -> Published:
        """Take the log one step further, from the last checkpoint in the bucket.

        `signed_size` is the size of the last checkpoint that PostgreSQL remembers, 0 for none. Raises `LogForked`,
        `LogShrank`, `CheckpointLost`, or whatever else the bucket, the keys and PostgreSQL say; then nothing was published.
        """
        last, signed = self._last_checkpoint(tenant, signed_size)
        edge = self._right_edge(tenant, last.size)
        growth = self._growth(connection, tenant, _signed_frontier(tenant, last, edge))
        if signed and last.size > signed_size:
            self._remember(connection, tenant, last, signed)
        size = growth.frontier.size
        if size == last.size:
            return Published(last, behind=False, failed=[])
        new_tiles = _tiles(edge, last.size, growth.leaves)
        list(self._writers.map(lambda new: self._evidence.put_tile(tenant, *new), new_tiles))
        # The tiles are durable, and nobody looks for them yet. A crash here leaves what the next run would write.
        checkpoint = Checkpoint(f"{self._origin}/{tenant}", size, growth.frontier.root())
        new, failed = self._signed(tenant, checkpoint, last.size)
        # Only the witnesses have seen the signature. A crash here, and the next run signs this checkpoint or a later one.
        published = self._evidence.put_checkpoint(tenant, size, new)
        # Published. A crash here, and the next run finds it in the bucket and tells PostgreSQL.
        self._remember(connection, tenant, checkpoint, published)
        return Published(checkpoint, size < growth.head_size, failed)

    def _last_checkpoint(self, tenant: str, signed_size: int) -> tuple[Checkpoint, bytes]:
        """The last one in the bucket, verified, and its note; that of the empty log, without one, where there is none."""
        name = f"{self._origin}/{tenant}"
        signed = self._evidence.latest(tenant, signed_size) or b""
        if signed:
            last = Checkpoint.parse(open_note(signed, signing.verifier_keys(name, self._keys)).text)
        else:
            last = Checkpoint(name, 0, merkle.EMPTY_ROOT)
        if last.size < signed_size:
            raise CheckpointLost(
                f"log {tenant}: expected the checkpoint of size {signed_size} in the evidence bucket, the last one there "
                f"is of size {last.size}: see whether it is the right bucket"
            )
        return last, signed

    def _right_edge(self, tenant: str, size: int) -> dict[int, bytes]:
        """The partial tiles of a log of that size by level: from them its root can be told, and they go on growing."""
        counts = ((level, size >> level * tiles.HEIGHT) for level in range(tiles.HIGHEST + 1))
        return {
            level: self._evidence.tile(tenant, Tile(level, count // tiles.WIDTH, count % tiles.WIDTH))
            for level, count in counts
            if count % tiles.WIDTH
        }

    def _growth(self, connection: Connection, tenant: str, frontier: Frontier) -> _Growth:
        """What the log appended after the frontier, up to a step, proved to continue it; the frontier grows by it."""
        signed_size = frontier.size
        with self._one_at_a_time:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # head and batches of one moment
            with connection.transaction():
                head = _head(connection, tenant)
                batches = _batches(connection, tenant, signed_size)
        if head.size < signed_size:
            raise LogShrank(
                f"log {tenant}: expected at least the {signed_size} entries that were signed, PostgreSQL has {head.size}"
            )
        for first_index, leaves, root in batches:
            _absorb(tenant, frontier, first_index, leaves, root)
        if frontier.size >= head.size or frontier.size < signed_size + STEP:
            _check_end(tenant, frontier, head)
        return _Growth(b"".join(leaves for _, leaves, _ in batches), frontier, head.size)

    def _signed(self, tenant: str, checkpoint: Checkpoint, old_size: int) -> tuple[bytes, list[WitnessFailed]]:
        """The checkpoint's note with the signatures of all our keys and of the witnesses that answer, verified."""
        note = signing.sign(checkpoint.encode(), checkpoint.origin, self._keys)
        node = self._evidence.node_reader(tenant, checkpoint.size)
        ask = functools.partial(
            self._cosigned, note, old_size, lambda old: merkle.consistency_proof(old, checkpoint.size, node)
        )
        with ThreadPoolExecutor(len(self._witnesses) or 1, "witnesses") as pool:
            answers = list(pool.map(ask, self._witnesses))
        lines = [answer for answer in answers if isinstance(answer, SignatureLine)]
        signed = Note(note.text, [*note.signatures, *lines]).encode()
        # What a key signs wrongly, or another key in its place, is not published.
        open_note(signed, signing.verifier_keys(checkpoint.origin, self._keys))
        return signed, [answer for answer in answers if isinstance(answer, WitnessFailed)]

    def _cosigned(self, note: Note, old_size: int, prove: Prove, witness: Witness) -> SignatureLine | WitnessFailed:
        """A witness's line; one that did not answer is left alone for a while, lest each log wait for it anew.

        Whatever a witness sends, and whatever we make of it: no log is left unsigned for that.
        """
        if time.monotonic() < self._absent_until.get(witness, 0.0):
            return WitnessAbsent(f"witness {witness.key.name} did not answer a moment ago")
        try:
            return witness.cosign(note, old_size, prove)
        except WitnessAbsent as error:
            self._absent_until[witness] = time.monotonic() + ABSENCE
            return error
        except WitnessFailed as error:
            return error
        except Exception as error:  # noqa: BLE001
            return WitnessFailed(f"witness {witness.key.name}: expected a cosignature, got {error!r}")

    def _remember(self, connection: Connection, tenant: str, checkpoint: Checkpoint, signed: bytes) -> None:
        with self._one_at_a_time:
            connection.execute(
                """
                INSERT INTO prooftrail.checkpoint (tenant, size, root, note) VALUES (%s, %s, %s, %s)
                ON CONFLICT DO NOTHING
                """,
                [tenant, checkpoint.size, checkpoint.root, signed.decode()],
            )


def _head(connection: Connection, tenant: str) -> Frontier:
    query = "SELECT size, frontier FROM prooftrail.log WHERE tenant = %s"
    row = connection.execute(query, [tenant], binary=True).fetchone()
    return Frontier.from_bytes(*row) if row else Frontier()


def _batches(connection: Connection, tenant: str, size: int) -> list[tuple[Any, ...]]:
    """First index, leaf hashes and root of the batches that begin within a step from `size` on."""
    return connection.execute(
        """
        SELECT first_index, leaf_hashes, root FROM prooftrail.batch
        WHERE tenant = %s AND first_index >= %s AND first_index < %s ORDER BY first_index
        """,
        [tenant, size, size + STEP],
        binary=True,
    ).fetchall()


def _signed_frontier(tenant: str, last: Checkpoint, edge: Mapping[int, bytes]) -> Frontier:
    """The frontier at the last checkpoint, from the tiles at the log's right edge: no other one has its root."""
    frontier = Frontier(last.size)
    for level in sorted(edge, reverse=True):
        of_level = Frontier()
        of_level.extend(_hashes(edge[level]))
        frontier.hashes += of_level.hashes
    if frontier.root() != last.root:
        raise EvidenceConflict(
            f"log {tenant}: expected tiles that lead to the root {last.root.hex()} of the checkpoint of size {last.size}, "
            f"those in the evidence bucket lead to {frontier.root().hex()}"
        )
    return frontier


def _absorb(tenant: str, frontier: Frontier, first_index: int, leaves: bytes, root: bytes) -> None:
    """Let the frontier grow by a batch, which must begin where it ends and lead to the root that it states."""
    if first_index != frontier.size:
        raise LogForked(f"log {tenant}: expected the batch that begins at {frontier.size}, got the one at {first_index}")
    frontier.extend(_hashes(leaves))
    if frontier.root() != root:
        raise LogForked(
            f"log {tenant}: expected the root {root.hex()} that the batch from {first_index} on states for size "
            f"{frontier.size}, its leaves lead from the last checkpoint to {frontier.root().hex()}"
        )


def _check_end(tenant: str, frontier: Frontier, head: Frontier) -> None:
    """The last batch must lead to the head of the log."""
    if frontier.size != head.size:
        raise LogForked(
            f"log {tenant}: expected batches without a gap up to the head's size {head.size}, they end at {frontier.size}"
        )
    if frontier.hashes != head.hashes:
        raise LogForked(
            f"log {tenant}: expected the head of size {head.size} to have the root {frontier.root().hex()}, "
            f"it has {head.root().hex()}"
        )


def _tiles(edge: Mapping[int, bytes], size: int, leaves: bytes) -> Iterator[tuple[Tile, bytes]]:
    """Every new tile of a log that grows from `size` on, with its content; the same as `tiles.tiles_between` names."""
    full = tiles.WIDTH * merkle.HASH
    row = leaves
    for level in range(tiles.HIGHEST + 1):
        if not row:
            return
        row = edge.get(level, b"") + row
        contents = [row[start : start + full] for start in range(0, len(row), full)]
        for number, content in enumerate(contents, size >> (level + 1) * tiles.HEIGHT):
            yield Tile(level, number, len(content) // merkle.HASH), content
        row = b"".join(merkle.root_of(_hashes(content)) for content in contents if len(content) == full)


def _hashes(joined: bytes) -> list[bytes]:
    return [joined[start : start + merkle.HASH] for start in range(0, len(joined), merkle.HASH)]

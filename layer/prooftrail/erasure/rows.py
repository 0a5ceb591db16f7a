"""What stays of a row when parts of its event go: what its leaf is made of, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prooftrail.erasure.record import EntryDiffers, Part
from prooftrail.errors import InvalidRecord
from prooftrail.ledger import entry, merkle
from prooftrail.ledger.canonical import NotCanonical
from prooftrail.store import from_row, parsed


def commitments(columns: Sequence[Any], salts: bytes, kept: bytes | None, leaf: bytes) -> bytes:
    """What the leaf needs of the parts that go (96 bytes), once it is seen that the leaf is made of them.

    Raises `EntryDiffers` where it is not.
    """
    differs = EntryDiffers(
        f"event {columns[4]!a} of {columns[5]!a}: expected what the log committed to, found another content"
    )
    try:
        statement = parsed(from_row(columns)).statement()
    except (InvalidRecord, NotCanonical) as error:
        raise differs from error
    of = entry.commitments(statement, salts, kept)
    if merkle.leaf_hash(entry.header(statement.public, of)) != leaf:
        raise differs
    return entry.pack(of)


def salts_left(salts: bytes, part: Part | None) -> bytes:
    """The salts but those of the private part and of `part`."""
    actor, target = salts[: entry.SALT], salts[entry.SALT : 2 * entry.SALT]
    return (entry.ERASED if part == "actor" else actor) + (entry.ERASED if part == "target" else target) + entry.ERASED


def runs(indexes: Iterable[int]) -> list[tuple[int, int]]:
    """The indexes as ranges, each as long as can be: the first, and the one after the last."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs

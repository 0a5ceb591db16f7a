"""Diagnosis: what was done to a row that is not the entry it should be.

A leaf hash says no more than "changed". But it knows its entry when it sees it: so simple changes are undone on trial, one
at a time, until the leaf fits. What undid it was the change.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args

from prooftrail import canonical, strict_json
from prooftrail.errors import ProoftrailError
from prooftrail.event import Level, Outcome, canonical_time
from prooftrail.ledger import entry
from prooftrail.ledger.entry import PRIVATE, PUBLIC, Statement
from prooftrail.verification import rows
from prooftrail.verification.rows import AT, FIELDS, Row, Unreadable

MOST_TRIALS = 20_000  # for one column; the columns with short values come first
_COMMITTED = ("actor_id", "target_id", *PUBLIC, *PRIVATE)
_WORDS = {"level": get_args(Level), "outcome": get_args(Outcome)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A place in the log whose entry is not there."""

    batch: int
    position: int


class Repair(NamedTuple):
    """What undoes a change: the row is the entry of `place` once `column` holds `value`; or as it is, without a column."""

    place: Place
    column: str | None = None
    value: Any = None


def as_text(value: Any) -> str | None:
    """A column's value as findings show it."""
    if value is None or isinstance(value, str):
        return value
    return value.hex() if isinstance(value, bytes) else repr(value)


def repair(row: Row, wanted: Mapping[bytes, Place], hints: Mapping[str, Sequence[Any]]) -> Repair | None:
    """Find the change that makes the row one of the entries that are `wanted` (by their leaves), if it is a simple one.

    `hints` are likely values by column: what a key says, what other rows hold.
    """
    trial = _Trial(row)
    if (leaf := trial.leaf()) in wanted:
        return Repair(wanted[leaf])
    for column, value in _candidates(row, hints):
        leaf = trial.leaf(AT[column], value)
        if leaf in wanted:
            return Repair(wanted[leaf], column, value)
    return None


def suspects(row: Row) -> tuple[str, ...]:
    """The columns of a readable row that may have been changed, as far as can be told without finding the change."""
    derived = rows.derive(row)
    if derived.digest is not None and derived.digest == row[rows.KEY]:
        return ("salt", "batch.leaf_hashes")  # all that the event said is what was received
    return (*_COMMITTED, "salt")


def replaced(row: Row, at: int, value: Any) -> Row:
    """The row with another value in a column."""
    return (*row[:at], value, *row[at + 1 :])


class _Trial:
    """A row of which one column is changed on trial; only the part that the column is in is encoded anew."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._salts = row[rows.SALT] or b""
        self._kept = row[rows.COMMITMENTS]
        self._said = _parts(row, Statement(b"", None, None, b""), range(len(FIELDS)))

    def leaf(self, at: int | None = None, value: Any = None) -> bytes:
        """The leaf of the row, or of the row with `value` in the column `at`; empty where it has none."""
        if at is None:
            said, salts = self._said, self._salts
        elif at == rows.SALT:
            said, salts = self._said, value
        else:
            said, salts = _parts(replaced(self._row, at, value), self._said, [at]), self._salts
        return entry.leaf(said, salts, self._kept) if len(salts) == entry.SALTS else b""


def _parts(row: Row, said: Statement, changed: Iterable[int]) -> Statement:
    """The statement with those parts anew that the changed columns are in; a part that cannot be read stays."""
    new = {_part(at) for at in changed}
    try:
        if "public" in new:
            said = said._replace(public=rows.public(row))
        if "actor" in new:
            said = said._replace(actor=rows.text(row[rows.ACTOR]))
        if "target" in new:
            said = said._replace(target=rows.text(row[rows.TARGET]))
        if "private" in new:
            said = said._replace(private=rows.private(row))
    except Unreadable:
        pass
    return said


@functools.cache
def _part(at: int) -> str:
    name = FIELDS[at]
    return {"actor_id": "actor", "target_id": "target"}.get(name) or ("public" if name in PUBLIC else "private")


def _candidates(row: Row, hints: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Any]]:
    """What may have been there, the likeliest first."""
    by_length = sorted(_COMMITTED, key=lambda name: len(as_text(row[AT[name]]) or ""))
    for column in by_length:
        for value in dict.fromkeys([*hints.get(column, ()), *_WORDS.get(column, ()), None]):
            if value != row[AT[column]]:
                yield column, value
    for column in by_length:
        others = [value for value in hints.get(column, ()) if value is not None]
        for value in itertools.islice(_variants(column, row[AT[column]], others), MOST_TRIALS):
            yield column, value
    for salt in _flipped_bytes(row[rows.SALT] or b""):
        yield "salt", salt


def _variants(column: str, value: Any, others: Sequence[Any]) -> Iterator[Any]:
    """Values from which a small change leads to `value`."""
    if value is None:
        return
    if column in ("before", "after", "metadata", "actor_roles"):
        yield from _json_texts(value, others)
    elif column == "time":
        yield from _times(value)
    elif column == "sequence":
        yield from _flipped_integer(value)
    elif column == "duration_ms":
        yield from _flipped_float(value)
    else:
        yield from _flipped_text(value)


def _json_texts(value: str, others: Sequence[str]) -> Iterator[str]:
    try:
        parsed = strict_json.decode(value.encode())
        known = [strict_json.decode(other.encode()) for other in others]
    except ProoftrailError:
        return
    for variant in _json_values(parsed, known):
        try:
            yield canonical.encode(variant).decode()
        except ProoftrailError:
            continue


def _json_values(value: Any, others: Sequence[Any]) -> Iterator[Any]:
    """Values that differ from `value` in one thing; `others` are what stands in the same place elsewhere."""
    yield from (other for other in others if other != value)
    if isinstance(value, dict):
        for key, item in value.items():
            rest = {name: value[name] for name in value if name != key}
            yield rest
            known = [other[key] for other in others if isinstance(other, dict) and key in other]
            yield from ({**rest, key: variant} for variant in [None, *_json_values(item, known)])
            yield from ({**rest, name: item} for name in _flipped_text(key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            before, after = value[:place], value[place + 1 :]
            yield before + after
            yield from ([*before, variant, *after] for variant in [None, *_json_values(item, [])])
    else:
        yield from _scalars(value)


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield from _flipped_text(value)
    elif isinstance(value, int):
        yield from _flipped_integer(value)
    elif isinstance(value, float):
        yield from _flipped_float(value)


def _flipped_bytes(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def _flipped_text(text: str) -> Iterator[str]:
    for data in _flipped_bytes(text.encode()):
        try:
            yield data.decode()
        except UnicodeDecodeError:
            continue


def _flipped_integer(value: int) -> Iterator[int]:
    return (value ^ 1 << bit for bit in range(63))


def _flipped_float(value: float) -> Iterator[float]:
    for data in _flipped_bytes(struct.pack(">d", value)):
        (flipped,) = struct.unpack(">d", data)
        if flipped - flipped == 0:  # finite
            yield flipped


def _times(value: str) -> Iterator[str]:
    """Times that are one bit away from this one, as PostgreSQL stores it: microseconds."""
    try:
        microseconds = (datetime.fromisoformat(value) - _EPOCH) // timedelta(microseconds=1)
    except ValueError:
        return
    for flipped in _flipped_integer(microseconds):
        try:
            yield canonical_time(_EPOCH + timedelta(microseconds=flipped))
        except OverflowError:
            continue


__all__ = ["Place", "Repair", "repair", "suspects"]

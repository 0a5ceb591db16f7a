"""Examination: rows that a scan suspected, and entries that are nowhere, become findings that say what was done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import msgspec
from psycopg import sql

from prooftrail.database import Connection
from prooftrail.ledger.merkle import HASH, Frontier
from prooftrail.verification import diagnosis, rows, scan
from prooftrail.verification.diagnosis import Place, Repair
from prooftrail.verification.findings import Finding, Kind
from prooftrail.verification.rows import AT, BATCH, FIELDS, KEY, KEY_TIME, POSITION, Row, Unreadable
from prooftrail.verification.scan import Batch, Suspect
from prooftrail.verification.walk import Break

MOST_DIAGNOSED = 100  # rows on which changes are undone on trial; of more, only the place is named
MOST_NAMED = 3  # events that may be the missing one
_ALIKE = 100  # rows of the same batch, the same actor and the same target that are looked at for likely values
_TENANT, _TIME, _ID, _SOURCE = (AT[name] for name in ("tenant", "time", "id", "source"))
# What a row is that a scan suspects of this, if no more is found out.
_KINDS: dict[str, Kind] = {
    "changed": "changed",
    "stranger": "inserted",
    "inserted": "inserted",
    "doubled": "doubled",
    "key": "key",
    "tenant": "batch",
}


class Orphan(NamedTuple):
    """A key whose event is not where it must be."""

    tenant: str
    id: str
    source: str
    time: str


class Examiner:
    """What is known while suspects are examined.

    `batches` are those that suspects and missing entries name. `published` are leaf hashes by place, where what was
    published is not what the batch says.
    """

    def __init__(
        self, connection: Connection, months: Sequence[date], batches: Mapping[int, Batch], published: Mapping[Place, bytes]
    ) -> None:
        self._connection = connection
        self._months = months
        self._batches = batches
        self._published = published
        self._orphans: list[Orphan] = []
        self._explained: set[Orphan] = set()

    def examine(self, suspects: Sequence[Suspect], missing: Sequence[Place], *, keys_differ: bool) -> Iterator[Finding]:
        """All findings about suspects, missing entries and, where there are more or fewer keys than entries, those."""
        if keys_differ or missing or any(suspect.what != "key" for suspect in suspects):
            self._orphans = list(self._find_orphans())
        suspects = list(map(self._with_key, suspects))
        claimed = {_place(suspect.row) for suspect in suspects if suspect.what == "entry"}
        wanted = self._wanted(suspects, missing, claimed)
        repaired: set[Place] = set()
        for number, suspect in enumerate(_one_of_each_batch(suspects)):
            repair = self._repair(suspect, wanted) if number < MOST_DIAGNOSED else None
            if repair is not None:
                repaired.add(repair.place)
            yield from self._judge(suspect, repair, claimed)
        yield from self._name_missing([place for place in missing if place not in repaired])

    def explain(self, broken: Break, suspects: Sequence[Suspect]) -> tuple[list[Finding], list[Suspect]]:
        """Where a log broke: whether it was leaf hashes that were changed, and not the rows that are suspected for it."""
        batch = self._batches[broken.batch]
        of_rows = {place: leaf for suspect in suspects if (place := _place(suspect.row)) and (leaf := _leaf(suspect))}
        leaves = [
            of_rows.get(Place(batch.id, position), batch.leaf(position))
            for position in range(len(batch.leaf_hashes) // HASH)
        ]
        log = Frontier(broken.before.size, broken.before.hashes)
        log.extend(leaves)
        if log.root() != broken.root:
            return [broken.finding], list(suspects)
        changed = [position for position, leaf in enumerate(leaves) if leaf != batch.leaf(position)]
        findings = [_changed_hash(batch, position, leaves[position]) for position in changed]
        innocent = {Place(batch.id, position) for position in changed}
        return findings, [suspect for suspect in suspects if _place(suspect.row) not in innocent]

    def _with_key(self, suspect: Suspect) -> Suspect:
        """The suspect with its key, which a scan does not find where it is of another month."""
        if suspect.row[KEY] != rows.NO_KEY:
            return suspect
        (row,) = scan.with_keys(self._connection, [suspect.row[:KEY]])
        return msgspec.structs.replace(suspect, row=row)

    def _wanted(self, suspects: Sequence[Suspect], missing: Sequence[Place], claimed: set[Place]) -> dict[bytes, Place]:
        """The entries that are not in their places, by their leaves."""
        places = {_place(suspect.row) for suspect in suspects if suspect.what == "changed"} - claimed
        return {self._leaf_of(place): place for place in [*places, *missing]}

    def _leaf_of(self, place: Place) -> bytes:
        return self._published.get(place) or self._batches[place.batch].leaf(place.position)

    def _repair(self, suspect: Suspect, wanted: Mapping[bytes, Place]) -> Repair | None:
        if suspect.what not in ("changed", "inserted", "stranger"):
            return None
        return diagnosis.repair(suspect.row, wanted, self._hints(suspect))

    def _hints(self, suspect: Suspect) -> dict[str, list[Any]]:
        """Likely values by column: what the key says, and what rows alike hold."""
        row, hints = suspect.row, defaultdict[str, list[Any]](list)
        hints["time"].append(row[KEY_TIME])
        if (batch := self._batches.get(_place(row).batch)) is not None:
            hints["tenant"].append(batch.tenant)
        for orphan in self._orphans:
            if row[_TENANT] == orphan.tenant or row[_TIME] == orphan.time:
                for column, value in orphan._asdict().items():
                    hints[column].append(value)
        for other in self._alike(suspect):
            for column, value in zip(FIELDS, other, strict=False):
                hints[column].append(value)
        return hints

    def _alike(self, suspect: Suspect) -> Iterator[Row]:
        """Rows of the same partition that are likely to hold the same values."""
        month = next((month for month in self._months if rows.partition(month) == suspect.where), None)
        if month is None:  # the row is in an object
            return
        conditions = [sql.SQL("event.batch_id = {}").format(sql.Literal(suspect.row[BATCH]))]
        for column in ("actor_id", "target_id"):
            value = suspect.row[AT[column]]
            if value is not None:
                same = sql.SQL("event.tenant = {} AND {} = {}")
                name = sql.Identifier("event", column)
                conditions.append(same.format(sql.Literal(suspect.row[_TENANT]), name, sql.Literal(value)))
        for condition in conditions:
            for other in scan.stored(self._connection, month, condition, limit=_ALIKE):
                if _place(other) != _place(suspect.row):
                    yield other

    def _judge(self, suspect: Suspect, repair: Repair | None, claimed: set[Place]) -> Iterator[Finding]:
        """What a suspected row is, given the change that undoes what was done to it, if that was found."""
        place = _place(suspect.row)
        if suspect.what == "entry":
            return
        if suspect.what == "tenant":
            yield self._finding("batch", suspect, "tenant", suspect.row[_TENANT], self._batches[place.batch].tenant)
        elif suspect.what == "key":
            yield self._wrong_key(suspect)
        elif suspect.what == "doubled":
            yield self._finding("doubled", suspect, detail="it is there twice")
        elif repair is not None and repair != Repair(place):
            yield self._repaired(suspect, repair)
        elif suspect.what == "changed" and place not in claimed:
            column, _, why = suspect.why.partition(": ")
            columns = () if column else diagnosis.suspects(suspect.row)
            detail = why or self._keys_at_its_time(suspect)
            yield self._finding("changed", suspect, column or None, columns=columns, detail=detail)
        else:
            why = "it is no entry of the log" if place.batch in self._batches else f"there is no batch {place.batch}"
            yield self._finding("inserted", suspect, detail=why)

    def _repaired(self, suspect: Suspect, repair: Repair) -> Finding:
        column, expected = repair.column, diagnosis.as_text(repair.value)
        found = diagnosis.as_text(suspect.row[AT[column]]) if column else None
        original = diagnosis.replaced(suspect.row, AT[column], repair.value) if column else suspect.row
        self._explained |= {orphan for orphan in self._orphans if orphan[:3] == _key(original)}
        if repair.place == _place(suspect.row):
            return self._finding("changed", suspect, column, expected, found)
        home = self._batches[repair.place.batch]
        detail = (
            f"it is entry {home.first_index + repair.place.position} of log {home.tenant}, "
            f"batch {home.id} position {repair.place.position}"
        )
        return self._finding("moved", suspect, column, expected, found, detail=detail)

    def _wrong_key(self, suspect: Suspect) -> Finding:
        row = suspect.row
        if row[KEY] == rows.NO_KEY:
            return self._finding("key", suspect, detail="it has no key, so it could be stored again")
        if row[KEY_TIME] is not None:
            return self._finding("key", suspect, "event_key.time", row[_TIME], row[KEY_TIME])
        return self._finding("key", suspect, "event_key.digest", suspect.why or None, row[KEY].hex())

    def _keys_at_its_time(self, suspect: Suspect) -> str:
        """Of a row without a key: the keys without a row that may be its own."""
        if suspect.row[KEY] != rows.NO_KEY:
            return ""
        own = [orphan for orphan in self._orphans if orphan.time == suspect.row[_TIME]]
        self._explained |= set(own)
        return f"it was {_named(own)}" if own else ""

    def _name_missing(self, missing: Sequence[Place]) -> Iterator[Finding]:
        """Missing entries, with the event that each of them was where only one can have been it; and keys of no event."""
        free = [orphan for orphan in self._orphans if orphan not in self._explained]
        # With very many of both, which may have been which is not worth the time.
        fitting = {
            place: [orphan for orphan in free[:MOST_DIAGNOSED] if _fits(orphan, self._batches[place.batch])]
            for place in missing
        }
        uses = Counter(orphan for orphans in fitting.values() for orphan in orphans)
        for place, orphans in fitting.items():
            yield self._missing(place, orphans, sure=len(orphans) == 1 and uses[orphans[0]] == 1)
        for orphan in free:
            if orphan not in uses:
                yield _key_of_nothing(orphan)

    def _missing(self, place: Place, orphans: Sequence[Orphan], *, sure: bool) -> Finding:
        batch = self._batches[place.batch]
        return Finding(
            kind="missing",
            tenant=batch.tenant,
            where="event",
            index=batch.first_index + place.position,
            batch=place.batch,
            position=place.position,
            source=orphans[0].source if sure else None,
            id=orphans[0].id if sure else None,
            detail=f"it is nowhere; it was {_named(orphans)}" if orphans and not sure else "it is nowhere",
        )

    def _finding(
        self,
        kind: Kind,
        suspect: Suspect,
        column: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        *,
        columns: tuple[str, ...] = (),
        detail: str = "",
    ) -> Finding:
        row, place = suspect.row, _place(suspect.row)
        batch = self._batches.get(place.batch)
        return Finding(
            kind=kind,
            tenant=batch.tenant if batch else row[_TENANT] or "",
            where=suspect.where,
            index=batch.first_index + place.position if batch else None,
            batch=place.batch,
            position=place.position,
            source=row[_SOURCE],
            id=row[_ID],
            column=column,
            columns=columns,
            expected=expected,
            found=found,
            detail=detail,
        )

    def _find_orphans(self) -> Iterator[Orphan]:
        """Keys whose event is not in the hot month where its time says it is. (Archived months are not looked into.)"""
        for month in self._months:
            query = sql.SQL(
                """
                SELECT key.tenant, key.id, key.source, {time}
                FROM prooftrail.event_key AS key LEFT JOIN {partition} AS event USING (tenant, id, source, time)
                WHERE {in_month} AND event.batch_id IS NULL
                    AND NOT EXISTS (SELECT FROM prooftrail.archive_segment
                                    WHERE tenant = key.tenant AND month = {month} AND state = 'archived')
                ORDER BY key.time
                """
            ).format(
                time=rows.time_of(sql.Identifier("key", "time")),
                partition=sql.Identifier("prooftrail", rows.partition(month)),
                in_month=rows.within(sql.SQL("key.time"), month),
                month=sql.Literal(month),
            )
            for row in self._connection.execute(query):
                yield Orphan(*row)


def unexamined(suspects: Iterable[Suspect]) -> Iterator[Finding]:
    """What a scan alone knows of the rows that it suspected, for where they cannot be examined."""
    for suspect in suspects:
        if suspect.what != "entry":
            row, place = suspect.row, _place(suspect.row)
            yield Finding(
                kind=_KINDS[suspect.what],
                tenant=row[_TENANT] or "",
                where=suspect.where,
                batch=place.batch,
                position=place.position,
                source=row[_SOURCE],
                id=row[_ID],
                detail="it could not be examined further: run `prooftrail verify`",
            )


def _place(row: Row) -> Place:
    return Place(row[BATCH], row[POSITION])


def _key(row: Row) -> tuple[str, ...]:
    return row[_TENANT], row[_ID], row[_SOURCE]


def _leaf(suspect: Suspect) -> bytes | None:
    if suspect.what != "changed":
        return None
    try:
        return rows.derive(suspect.row).leaf
    except Unreadable:
        return None


def _fits(orphan: Orphan, batch: Batch) -> bool:
    return orphan.tenant == batch.tenant and batch.min_time <= orphan.time <= batch.max_time


def _named(orphans: Sequence[Orphan]) -> str:
    if len(orphans) > MOST_NAMED:
        return f"one of {len(orphans)} events whose keys are left"
    return " or ".join(f"event {orphan.id!a} of {orphan.source!a}" for orphan in orphans)


def _one_of_each_batch(suspects: Iterable[Suspect]) -> Iterator[Suspect]:
    """All suspects, but of a batch that says it is of another tenant than its entries, one."""
    batches: set[int] = set()
    for suspect in suspects:
        if suspect.what != "tenant" or _place(suspect.row).batch not in batches:
            yield suspect
        if suspect.what == "tenant":
            batches.add(_place(suspect.row).batch)


def _key_of_nothing(orphan: Orphan) -> Finding:
    return Finding(
        kind="key",
        tenant=orphan.tenant,
        where="event_key",
        source=orphan.source,
        id=orphan.id,
        detail=f"there is no such event at {orphan.time}",
    )


def _changed_hash(batch: Batch, position: int, leaf: bytes) -> Finding:
    return Finding(
        kind="batch",
        tenant=batch.tenant,
        where="batch",
        index=batch.first_index + position,
        batch=batch.id,
        position=position,
        column="leaf_hashes",
        expected=leaf.hex(),
        found=batch.leaf(position).hex(),
        detail="the entry itself is as it was",
    )

"""What somebody with all rights in the database may do to it; a row's change can be undone, for the next one."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.types.json import Jsonb

from prooftrail import segments
from prooftrail.database import Connection
from prooftrail.ledger.merkle import Frontier
from prooftrail.store import COLUMNS
from prooftrail.verification import rows, scan
from tests.factories import native

JSON = ("before", "after", "metadata")
STORED = (*COLUMNS, "salt", "commitments")
REQUIRED = {"tenant", "time", "batch_id", "position", "id", "source", "action", "level", "outcome"}  # by the database
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's


class Place(NamedTuple):
    """Where a row says that it is in the log."""

    batch: int
    position: int


class Tamperer:
    """A superuser's hand. No trigger and no foreign key stands in its way."""

    def __init__(self, admin: Connection) -> None:
        self.admin = admin
        admin.execute("SET session_replication_role = replica")
        admin.execute("CREATE TABLE IF NOT EXISTS public.pristine AS TABLE prooftrail.event")

    def places(self, tenant: str) -> list[Place]:
        query = "SELECT batch_id, position FROM prooftrail.event WHERE tenant = %s ORDER BY batch_id, position"
        return [Place(*row) for row in self.admin.execute(query, [tenant])]

    def value(self, place: Place, column: str) -> Any:
        query = sql.SQL("SELECT {} FROM public.pristine WHERE batch_id = %s AND position = %s").format(
            sql.Identifier(column)
        )
        row = self.admin.execute(query, place).fetchone()
        assert row is not None
        return row[0]

    @contextmanager
    def changed(self, place: Place, column: str, value: Any) -> Iterator[None]:
        """The row of that place with another value in a column, and afterwards as it was."""
        if value is not None and column in JSON:
            value = Jsonb(value)
        query = sql.SQL(
            "UPDATE prooftrail.event SET {} = %s WHERE (batch_id, position) = (%s, %s) "
            "RETURNING tableoid::regclass::text, ctid"
        ).format(sql.Identifier(column))
        ((table, ctid),) = self.admin.execute(query, [value, *place]).fetchall()
        yield
        self.admin.execute(sql.SQL("DELETE FROM {} WHERE ctid = %s::tid").format(sql.SQL(table)), [ctid])
        self.admin.execute(
            "INSERT INTO prooftrail.event SELECT * FROM public.pristine WHERE batch_id = %s AND position = %s", place
        )


def flip_bit(table: str, column: str, condition: str) -> str:
    """SQL that changes one bit in the middle of a bytea, whatever it holds."""
    return (
        f"UPDATE prooftrail.{table} SET {column} = set_bit({column}, length({column}) * 4, "
        f"1 - get_bit({column}, length({column}) * 4)) WHERE {condition}"
    )


def flipped(value: Any, chance: random.Random) -> Any:
    """The value with one bit of it changed, such that the column can still hold it."""
    if isinstance(value, str):
        return _flipped_text(value, chance)
    if isinstance(value, bytes):
        return _flip(value, chance)
    if isinstance(value, datetime):
        microseconds = (value - _EPOCH) // timedelta(microseconds=1) ^ 1 << chance.randrange(40)
        return _EPOCH + timedelta(microseconds=microseconds)
    if isinstance(value, float):
        return struct.unpack(
            ">d", struct.pack(">q", struct.unpack(">q", struct.pack(">d", value))[0] ^ 1 << chance.randrange(52))
        )[0]
    if isinstance(value, int):
        return value ^ 1 << chance.randrange(20)
    if isinstance(value, list):
        place = chance.randrange(len(value))
        return [*value[:place], _flipped_text(value[place], chance), *value[place + 1 :]]
    raise TypeError(value)


def deeply_changed(value: Any, chance: random.Random) -> Any:
    """JSON with one scalar in it changed, as deep down as there is one."""
    if isinstance(value, dict) and value:
        key = chance.choice(sorted(value))
        return value | {key: deeply_changed(value[key], chance)}
    if isinstance(value, list) and value:
        place = chance.randrange(len(value))
        return [*value[:place], deeply_changed(value[place], chance), *value[place + 1 :]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str | int | float) and value != "":
        return flipped(value, chance)
    return {"new": True} if value in (None, "") else None


def _flip(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]


def _flipped_text(text: str, chance: random.Random) -> str:
    while True:
        try:
            other = _flip(text.encode(), chance).decode()
        except UnicodeDecodeError:
            continue
        if "\0" not in other:
            return other


def rich(number: int, chance: random.Random, **fields: Any) -> dict[str, Any]:
    """A native event that uses most columns, some of them now and then."""
    return native(
        **{
            "id": f"event-{number}",
            "time": f"2026-{chance.choice(['09', '10'])}-{chance.randrange(10, 29)}T12:00:00.{chance.randrange(10**6):06}Z",
            "sequence": number,
            "category": "patient",
            "action": chance.choice(["patient.read", "patient.update"]),
            "level": chance.choice(["info", "warning"]),
            "actor": chance.choice(
                [
                    None,
                    {"type": "user", "id": "dr-lee", "name": "Dr. Lee", "ip": "10.0.0.1", "roles": ["doctor", "admin"]},
                    {
                        "type": "user",
                        "id": "dr-wu",
                        "name": 'Dr. \U0001f9d1\u200d\u2695 "Wu"\t\\N',
                        "session_id": f"s-{number}",
                        "user_agent": "curl/8",
                    },
                ]
            ),
            "target": chance.choice([None, {"type": "Patient", "id": f"p-{number % 7}", "name": "Ann Onym\n"}]),
            "site": chance.choice([None, "ward-3"]),
            "message": f"opened record {number}\\",
            "before": chance.choice(
                [None, {"status": "open", "tags": ["a", {"deep": [1, 2.5, None]}], "\U0001f600": -1e-7}]
            ),
            "after": chance.choice(
                [
                    None,
                    {"status": "closed", "version": number, "big": 9007199254740993, "x": 1e22},
                    [True, number],
                    "text",
                    1.5,
                ]
            ),
            "error": chance.choice([None, {"code": "E1", "message": "no", "stack_trace": "a\nb"}]),
            "duration_ms": chance.choice([None, 0.1, 12, 1e-9, 123456.789]),
            "request_id": f"r-{number}",
            "trace_id": chance.choice([None, f"{number:032x}"]),
            "metadata": {"release": "2026.10", "feature": {"on": True, "rollout": number}},
        }
        | fields
    )


def recompute(admin: Connection, tenant: str) -> None:
    """What an attacker does who knows our code: derive leaves, digests, roots and head anew from the rows as they are."""
    frontier = Frontier()
    batches = admin.execute("SELECT id FROM prooftrail.batch WHERE tenant = %s ORDER BY first_index", [tenant]).fetchall()
    for (batch,) in batches:
        leaves = [_leaf_again(admin, row) for row in _rows_of(admin, batch)]
        first = frontier.size
        frontier.extend(leaves)
        admin.execute(
            "UPDATE prooftrail.batch SET first_index = %s, event_count = %s, leaf_hashes = %s, root = %s WHERE id = %s",
            [first, len(leaves), b"".join(leaves), frontier.root(), batch],
        )
    admin.execute(
        "UPDATE prooftrail.log SET size = %s, frontier = %s WHERE tenant = %s", [frontier.size, frontier.to_bytes(), tenant]
    )


def _rows_of(admin: Connection, batch: int) -> list[rows.Row]:
    """The rows of a batch, which get positions without a gap."""
    condition = sql.SQL("event.batch_id = {}").format(sql.Literal(batch))
    found: list[rows.Row] = []
    with admin.transaction():
        for month in segments.months(admin):
            found += scan.stored(admin, month, condition)
    found.sort(key=lambda row: int(row[rows.POSITION]))
    for position, row in enumerate(found):
        admin.execute(
            "UPDATE prooftrail.event SET position = %s WHERE batch_id = %s AND position = %s",
            [position, batch, row[rows.POSITION]],
        )
    return found


def _leaf_again(admin: Connection, row: rows.Row) -> bytes:
    derived = rows.derive(row)
    admin.execute(
        "UPDATE prooftrail.event_key SET digest = %s WHERE tenant = %s AND id = %s AND source = %s",
        [derived.digest, *(row[rows.AT[name]] for name in ("tenant", "id", "source"))],
    )
    return derived.leaf

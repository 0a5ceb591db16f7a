"""Drill: tamper with a copy of a log in twelve ways, as whoever owns the database could, and see each one found out.

The copy is a database of its own on the same server; the checkpoints it is verified against are the published ones, which
no owner of the database can change. Nothing here writes to the original.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from prooftrail import entries, migrations
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Connection
from prooftrail.errors import PermanentError
from prooftrail.ledger import merkle
from prooftrail.ledger.merkle import Frontier
from prooftrail.search import Owner

# In this order, because later tables refer to earlier ones. `event` is copied month by month.
_TABLES = ("tenant", "log", "batch", "checkpoint", "event_key", "archive_segment")
_NAME_OF_TENANT = {"tenant": "name"}
NOTHING = "nothing"
_NO_ARCHIVE = ArchiveBucket("")  # tampered with are events in PostgreSQL


class NothingToDrill(PermanentError):
    """There is no log that a drill could be held on."""


class Place(NamedTuple):
    """A row of the copy, by where it lies: names and values may be tampered with, the line pointer stays."""

    partition: str
    batch_id: int
    position: int


class Copy(NamedTuple):
    """The copy about to be tampered with, and the rows that it happens to."""

    connection: Connection
    tenant: str
    first: Place
    second: Place

    def change(self, place: Place, assignment: str, *values: object) -> None:
        """Update one row, past triggers and privileges."""
        self._execute("UPDATE {} SET " + assignment, place, values)  # noqa: S608  # assignments are our own words

    def delete(self, place: Place) -> None:
        """Delete one row likewise."""
        self._execute("DELETE FROM {}", place)

    def _execute(self, statement: str, place: Place, values: tuple[object, ...] = ()) -> None:
        query = sql.SQL(statement + " WHERE batch_id = %s AND position = %s")
        partition = sql.Identifier("prooftrail", place.partition)
        self.connection.execute(query.format(partition), [*values, place.batch_id, place.position])


Tamper: TypeAlias = Callable[[Copy], object]


class Exercise(NamedTuple):
    """What was done to the copy, and what verification said."""

    what: str
    findings: list[str]


# What no checkpoint covers yet can be computed anew by whoever owns the database, and nobody could tell.
_SIGNED = sql.SQL(
    """
    prooftrail.event JOIN prooftrail.batch ON batch.id = event.batch_id AND first_index + position < (
        SELECT max(size) FROM prooftrail.checkpoint WHERE checkpoint.tenant = event.tenant
    )
    """
)


def logs(connection: Connection) -> list[str]:
    """The tenants of whose logs two events are in PostgreSQL and covered by a checkpoint, the shortest log first."""
    rows = connection.execute(
        sql.SQL(
            """
            SELECT tenant FROM prooftrail.log
            WHERE tenant <> '_prooftrail'
                AND (SELECT count(*) FROM (SELECT FROM {} WHERE event.tenant = log.tenant LIMIT 2) AS two) = 2
            ORDER BY size, tenant
            """
        ).format(_SIGNED)
    )
    return [tenant for (tenant,) in rows]


def run(
    original: Connection, login: str, tenant: str, migrations_in: Path, verify: Callable[[str], list[str]]
) -> Iterator[Exercise]:
    """Copy the tenant's log, then tamper with copies of the copy, one way at a time.

    `login` is libpq's, of who may make and drop databases beside the original. `verify` is given a login to a copy and says
    what it finds; the first exercise is the copy as it is. Raises `NothingToDrill` where the log is not in `logs`.
    """
    if tenant not in logs(original):
        raise NothingToDrill(f"expected a log with two events in PostgreSQL that a checkpoint covers, {tenant!a} is none")
    with (
        psycopg.connect(login, autocommit=True) as server,
        _database(server, "template0") as pristine,
        _database(server, None) as tampered,
    ):
        _copy(original, make_conninfo(login, dbname=pristine), tenant, migrations_in)
        yield Exercise(NOTHING, verify(make_conninfo(login, dbname=pristine)))
        for what, tamper in TAMPERS.items():
            _recreate(server, tampered, pristine)
            _tamper(make_conninfo(login, dbname=tampered), tenant, tamper)
            yield Exercise(what, verify(make_conninfo(login, dbname=tampered)))


@contextmanager
def _database(server: Connection, template: str | None) -> Iterator[str]:
    name = f"prooftrail_drill_{secrets.token_hex(6)}"
    if template:
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield name
    finally:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _recreate(server: Connection, name: str, template: str) -> None:
    server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))


def _copy(original: Connection, to_url: str, tenant: str, migrations_in: Path) -> None:
    with psycopg.connect(to_url, autocommit=True) as copy, original.transaction():
        original.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        migrations.apply(copy, migrations_in)
        months = [month for (month,) in original.execute("SELECT month FROM prooftrail.partition_months()")]
        for table in _TABLES:
            _copy_rows(original, copy, table, _NAME_OF_TENANT.get(table, "tenant"), tenant)
        for month in months:
            copy.execute("SELECT prooftrail.create_partition(%s)", [month])
            _copy_rows(original, copy, f"event_{month:%Y_%m}", "tenant", tenant)


def _copy_rows(original: Connection, copy: Connection, table: str, owner: str, tenant: str) -> None:
    rows = original.execute(
        """
        SELECT column_name FROM information_schema.columns
        WHERE table_schema = 'prooftrail' AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position
        """,
        [table],
    )
    parts = {
        "table": sql.Identifier("prooftrail", table),
        "columns": sql.SQL(", ").join(sql.Identifier(name) for (name,) in rows),
        "owner": sql.Identifier(owner),
        "tenant": sql.Literal(tenant),
    }
    out = sql.SQL("COPY (SELECT {columns} FROM {table} WHERE {owner} = {tenant}) TO STDOUT").format(**parts)
    back = sql.SQL("COPY {table} ({columns}) FROM STDIN").format(**parts)
    with original.cursor().copy(out) as source, copy.cursor().copy(back) as target:
        for block in source:
            target.write(block)


def _tamper(url: str, tenant: str, tamper: Tamper) -> None:
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'prooftrail'::regnamespace AND relkind IN ('r', 'p')"
        ).fetchall()
        for (table,) in tables:
            name = sql.Identifier("prooftrail", table)
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(name))
        places = connection.execute(
            sql.SQL(
                "SELECT relname, batch_id, position FROM {} JOIN pg_class ON pg_class.oid = event.tableoid "
                "WHERE event.tenant = %s ORDER BY random() LIMIT 2"
            ).format(_SIGNED),
            [tenant],
        ).fetchall()
        first, second = (Place(*place) for place in places)
        tamper(Copy(connection, tenant, first, second))


def _insert_row(copy: Copy) -> None:
    copied = sql.SQL(
        """
        INSERT INTO {table} SELECT (jsonb_populate_record(event, jsonb_build_object('id', 'invented', 'position',
            (SELECT event_count FROM prooftrail.batch WHERE batch.id = event.batch_id)))).*
        FROM {table} AS event WHERE batch_id = %s AND position = %s
        """
    )
    table = sql.Identifier("prooftrail", copy.first.partition)
    copy.connection.execute(copied.format(table=table), [copy.first.batch_id, copy.first.position])


def _swap_rows(copy: Copy) -> None:
    for place, batch_id, position in (
        (copy.first, 0, -1),
        (copy.second, copy.first.batch_id, copy.first.position),
        (copy.first._replace(batch_id=0, position=-1), copy.second.batch_id, copy.second.position),
    ):
        copy.change(place, "batch_id = %s, position = %s", batch_id, position)


def _move_to_another_month(copy: Copy) -> None:
    """The row goes through the parent, which puts it where its new time belongs."""
    copy.connection.execute("SELECT prooftrail.create_partition(((now() + interval '1 month') AT TIME ZONE 'UTC')::date)")
    copy.connection.execute(
        "UPDATE prooftrail.event SET time = now() + interval '1 month' WHERE batch_id = %s AND position = %s",
        [copy.first.batch_id, copy.first.position],
    )


def _cut_tail(copy: Copy) -> None:
    """Remove the last batch that was signed for, and all after it, wherever a reader would look.

    (What came within the last minute and no checkpoint covers yet could be removed unnoticed.)
    """
    _cut(
        copy,
        "SELECT max(first_index) FROM prooftrail.batch JOIN prooftrail.checkpoint USING (tenant) "
        "WHERE tenant = %s AND first_index < checkpoint.size",
    )


def _restore_older_state(copy: Copy) -> None:
    """As if the second half had never been, or at least the last batch that was signed for: batches, events, keys,
    checkpoints and head are those of an older backup.
    """
    _cut(
        copy,
        "SELECT least(max(checkpoint.size) / 2, max(first_index)) FROM prooftrail.batch JOIN prooftrail.checkpoint "
        "USING (tenant) WHERE tenant = %s AND first_index < checkpoint.size",
    )
    copy.connection.execute(
        "DELETE FROM prooftrail.checkpoint USING prooftrail.log "
        "WHERE checkpoint.tenant = log.tenant AND checkpoint.size > log.size"
    )


def _cut(copy: Copy, from_index: str) -> None:
    row = copy.connection.execute(from_index.encode(), [copy.tenant]).fetchone()
    assert row is not None
    gone = "SELECT id FROM prooftrail.batch WHERE tenant = %(tenant)s AND first_index >= %(from_index)s"
    for statement in (
        "DELETE FROM prooftrail.event_key USING prooftrail.event WHERE event_key.id = event.id AND batch_id IN ({})",
        "DELETE FROM prooftrail.event WHERE batch_id IN ({})",
        "DELETE FROM prooftrail.batch WHERE id IN ({})",
    ):
        copy.connection.execute(sql.SQL(statement).format(sql.SQL(gone)), {"tenant": copy.tenant, "from_index": row[0]})
    _rewrite_log(copy)


def _recompute_log(copy: Copy) -> None:
    """Change an event, and then everything that the database derives from it: leaf hash, key, roots, head, checkpoints."""
    copy.change(copy.first, "action = 'forged'")
    row = copy.connection.execute(
        sql.SQL("SELECT id, source, time FROM {} WHERE batch_id = %s AND position = %s").format(
            sql.Identifier("prooftrail", copy.first.partition)
        ),
        copy.first[1:],
    ).fetchone()
    assert row is not None
    id, source, time = row
    forged = entries.find(copy.connection, _NO_ARCHIVE, Owner(copy.tenant, source, time), id)
    copy.connection.execute(
        "UPDATE prooftrail.batch SET leaf_hashes = overlay(leaf_hashes PLACING %b FROM %s) WHERE id = %s",
        [merkle.leaf_hash(forged.header()), forged.position * merkle.HASH + 1, forged.batch_id],
    )
    copy.connection.execute(
        "UPDATE prooftrail.event_key SET digest = %b WHERE tenant = %s AND source = %s AND id = %s",
        [forged.statement.digest(), copy.tenant, source, id],
    )
    _rewrite_log(copy)
    copy.connection.execute("DELETE FROM prooftrail.checkpoint")


def _rewrite_log(copy: Copy) -> None:
    """Make all roots and the head fit the batches that there are."""
    frontier = Frontier()
    batches = copy.connection.execute(
        "SELECT id, leaf_hashes FROM prooftrail.batch WHERE tenant = %s ORDER BY first_index", [copy.tenant]
    ).fetchall()
    for id, leaves in batches:
        frontier.extend(leaves[at : at + merkle.HASH] for at in range(0, len(leaves), merkle.HASH))
        copy.connection.execute("UPDATE prooftrail.batch SET root = %b WHERE id = %s", [frontier.root(), id])
    copy.connection.execute(
        "UPDATE prooftrail.log SET size = %s, frontier = %b WHERE tenant = %s",
        [frontier.size, frontier.to_bytes(), copy.tenant],
    )


TAMPERS: dict[str, Tamper] = {
    "a column of an event is changed": lambda copy: copy.change(copy.first, "action = action || '!'"),
    "one value deep in JSON is changed": lambda copy: copy.change(
        copy.first, "metadata = jsonb_set(coalesce(metadata, jsonb_build_object()), ARRAY['forged'], to_jsonb(ARRAY[1, 2]))"
    ),
    "an event is deleted": lambda copy: copy.delete(copy.first),
    "an event is inserted": _insert_row,
    "two events change places": _swap_rows,
    "an event is moved to another tenant": lambda copy: copy.change(copy.first, "tenant = 'somebody-else'"),
    "an event is moved to another month": _move_to_another_month,
    "a batch's leaf hashes are changed": lambda copy: copy.connection.execute(
        "UPDATE prooftrail.batch SET leaf_hashes = set_byte(leaf_hashes, 0, 255 - get_byte(leaf_hashes, 0)) WHERE id = %s",
        [copy.first.batch_id],
    ),
    "a checkpoint is changed": lambda copy: copy.connection.execute(
        "UPDATE prooftrail.checkpoint SET root = sha256(root) WHERE size = (SELECT max(size) FROM prooftrail.checkpoint)"
    ),
    "the tail of the log is cut off": _cut_tail,
    "an older backup is restored": _restore_older_state,
    "the whole log is computed anew": _recompute_log,
}

"""Migrations: applied once, whoever runs them and how often, whole or not at all; and the schema is the documented one."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from prooftrail import migrations
from prooftrail.migrations import MigrationError
from tests.conftest import PROJECT, LogDatabase

DIRECTORY = PROJECT / "migrations"
NAMES = [file.name for file in migrations.files(DIRECTORY)]
DOCUMENT = PROJECT / "docs" / "schema.md"
UPDATE = "UPDATE_SCHEMA_DOCUMENT"  # set it to write the document instead of comparing it


@pytest.fixture
def new_database(server_url: str) -> Iterator[Callable[[], str]]:
    """Makes an empty database and returns its URL."""
    made: list[sql.Identifier] = []
    with psycopg.connect(server_url, autocommit=True) as server:

        def make() -> str:
            name = f"prooftrail_test_{uuid.uuid4().hex[:12]}"
            made.append(sql.Identifier(name))
            server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(made[-1]))
            return make_conninfo(server_url, dbname=name)

        yield make
        for name in made:
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def migrate(url: str, directory: Path = DIRECTORY) -> list[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        return migrations.apply(connection, directory)


def relations(url: str) -> list[str]:
    """Everything in the schema, and what was applied to make it."""
    with psycopg.connect(url) as connection:
        found = [
            str(name)
            for (name,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('prooftrail') ORDER BY 1"
            )
        ]
        if "migration" in found:
            found += [name for (name,) in connection.execute("SELECT name FROM prooftrail.migration ORDER BY 1")]
        return found


def test_the_files_are_numbered_without_a_gap() -> None:
    assert [name[:4] for name in NAMES] == [f"{number:04}" for number in range(1, len(NAMES) + 1)]
    assert sorted(file.name for file in DIRECTORY.glob("*.sql")) == NAMES


def test_applied_twice_the_second_time_does_nothing(new_database: Callable[[], str]) -> None:
    url = new_database()
    assert migrate(url) == NAMES
    before = relations(url)
    assert migrate(url) == []
    assert relations(url) == before


def test_many_runners_at_once_apply_each_file_once(new_database: Callable[[], str]) -> None:
    url = new_database()
    with ThreadPoolExecutor(8) as pool:
        applied = list(pool.map(lambda _: migrate(url), range(8)))
    assert sorted(applied, reverse=True) == [NAMES, *([[]] * 7)]


def test_two_databases_of_one_server_are_migrated_at_the_same_time(new_database: Callable[[], str]) -> None:
    urls = [new_database(), new_database()]
    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(migrate, urls * 2))
    assert sorted(map(len, applied)) == [0, 0, len(NAMES), len(NAMES)]
    assert relations(urls[0]) == relations(urls[1])


def test_only_what_is_new_is_applied(new_database: Callable[[], str], tmp_path: Path) -> None:
    url = new_database()
    for name in NAMES[:2]:
        shutil.copy(DIRECTORY / name, tmp_path)
    assert migrate(url, tmp_path) == NAMES[:2]
    assert migrate(url) == NAMES[2:]


@pytest.mark.parametrize("fresh", [True, False], ids=["empty", "migrated"])
@pytest.mark.parametrize("broken", ["SELECT 1 / 0;", "CREATE TABLE (;", "SELECT no_such_function();"])
def test_a_broken_file_is_named_and_leaves_everything_as_it_was(
    new_database: Callable[[], str], tmp_path: Path, broken: str, *, fresh: bool
) -> None:
    url = new_database()
    if not fresh:
        migrate(url)
    before = relations(url)
    for name in NAMES:
        shutil.copy(DIRECTORY / name, tmp_path)
    (tmp_path / "9998_good.sql").write_text("CREATE TABLE prooftrail.good ();")
    (tmp_path / "9999_broken.sql").write_text(f"CREATE TABLE prooftrail.half ();\n{broken}")
    with pytest.raises(MigrationError, match=r"migration 9999_broken\.sql failed and nothing was changed"):
        migrate(url, tmp_path)
    assert relations(url) == before


def test_the_template_runs_the_migrations_again_when_there_is_a_new_one() -> None:
    version = re.search(r"SchemaVersion: '(\d{4})'", (PROJECT / "template.yaml").read_text())
    assert version
    assert version[1] == NAMES[-1][:4]


def test_no_table_shows_the_query_role_rows_without_row_level_security(database: LogDatabase) -> None:
    database.admin.execute("SELECT prooftrail.create_partition('2026-10-01')")
    tables = database.admin.execute(
        """
        SELECT relname, relrowsecurity, has_any_column_privilege('prooftrail_query', oid, 'SELECT, INSERT, UPDATE')
            OR has_table_privilege('prooftrail_query', oid, 'DELETE, TRUNCATE, TRIGGER') AS granted
        FROM pg_class WHERE relnamespace = 'prooftrail'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
        """
    ).fetchall()
    assert [name for name, secured, granted in tables if granted and not secured] == []
    assert {name for name, _, granted in tables if granted} == {
        "event",
        "event_key",
        "tenant",
        "archive_segment",
        "erasure",
        "quarantine",
        "log",
        "batch",
        "checkpoint",
        "folded",
        "source",
        "action",
        "action_schema",
    }


def test_the_functions_own_nothing_and_change_nothing_of_the_log(database: LogDatabase) -> None:
    database.admin.execute("SELECT prooftrail.create_partition('2026-10-01')")
    roles = list(migrations.ROLES)
    owned = database.admin.execute(
        "SELECT relname FROM pg_class WHERE pg_get_userbyid(relowner) = ANY(%s)", [roles]
    ).fetchall()
    assert owned == []
    changeable = database.admin.execute(
        """
        SELECT rolname, relname FROM pg_class CROSS JOIN pg_roles
        WHERE relnamespace = 'prooftrail'::regnamespace AND relkind IN ('r', 'p')
            AND relname NOT IN ('log', 'verification_progress')
            AND rolname = ANY(%s)
            AND (has_any_column_privilege(rolname, pg_class.oid, 'UPDATE')
                OR has_table_privilege(rolname, pg_class.oid, 'DELETE, TRUNCATE'))
        """,
        [roles],
    ).fetchall()
    assert changeable == []


def test_the_documented_schema_is_the_one_that_the_migrations_make(database: LogDatabase) -> None:
    document = schema_document(database)
    if UPDATE in os.environ:
        DOCUMENT.write_text(document)
    assert DOCUMENT.read_text() == document, f"docs/schema.md is out of date: run this test with {UPDATE}=1"


def schema_document(database: LogDatabase) -> str:
    """The catalog's tables as Markdown."""
    columns = database.admin.execute(
        """
        SELECT relname, attname, format_type(atttypid, atttypmod), NOT attnotnull, col_description(attrelid, attnum)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'prooftrail'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
            AND attnum > 0 AND NOT attisdropped
        ORDER BY relname, attnum
        """
    ).fetchall()
    lines = [
        "# Schema",
        "",
        "What the files in `migrations/` add up to, as the database's own catalog says it. Made, and compared, by",
        f"`tests/integration/test_migrations.py`; `{UPDATE}=1` writes it anew. Why each table is as it is stands in the",
        "migrations' comments.",
    ]
    table = None
    for name, column, kind, nullable, meaning in columns:
        if name != table:
            lines += ["", f"## {name}", "", "| column | type | null | meaning |", "|---|---|---|---|"]
            table = name
        lines.append(f"| {column} | {kind} | {'yes' if nullable else 'no'} | {meaning or ''} |")
    return "\n".join(lines) + "\n"


def test_a_function_s_login_waits_for_no_lock_and_holds_none_for_ever(
    database: LogDatabase, template_database: str
) -> None:
    query = """
        SELECT rolname, setting FROM pg_db_role_setting
        JOIN pg_database ON pg_database.oid = setdatabase
        JOIN pg_roles ON pg_roles.oid = setrole, unnest(setconfig) AS setting
        WHERE datname = %s
    """
    settings = set(database.admin.execute(query, [template_database]))
    idle = "idle_in_transaction_session_timeout"
    assert settings >= {("prooftrail_ingest", "lock_timeout=5s"), ("prooftrail_ingest", f"{idle}=60s")}
    assert settings >= {("prooftrail_query", "statement_timeout=20s"), ("prooftrail_query", f"{idle}=30s")}

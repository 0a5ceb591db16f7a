"""Migrations: numbered SQL files, each applied once, in order; all that are pending in one transaction.

Safe to run twice and at once: a lock lets one runner through, and the next finds the work done.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

from prooftrail.database import Connection
from prooftrail.errors import PermanentError

ROLES = ("prooftrail_ingest", "prooftrail_query", "prooftrail_archive", "prooftrail_checkpoint", "prooftrail_verify")
_LOCK = 7_307_199_021  # any number that nobody else uses for an advisory lock in this database


class MigrationError(PermanentError):
    """A migration failed or does not fit what was applied before; the database is as it was before."""


def apply(connection: Connection, directory: Path) -> list[str]:
    """Apply the files of `directory` that this database has not seen and return their names.

    Raises `MigrationError` naming the file.
    """
    with connection.transaction():
        # Held to the end: all files or none, and a second runner waits here.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        connection.execute("CREATE SCHEMA IF NOT EXISTS prooftrail")
        connection.execute(
            """
            CREATE TABLE IF NOT EXISTS prooftrail.migration (
                name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
            )
            """
        )
        applied = {name for (name,) in connection.execute("SELECT name FROM prooftrail.migration")}
        pending = [file for file in files(directory) if file.name not in applied]
        for file in pending:
            _apply_file(connection, file)
    return [file.name for file in pending]


def files(directory: Path) -> list[Path]:
    """The migrations in their order."""
    return sorted(directory.glob("[0-9][0-9][0-9][0-9]_*.sql"))


def _apply_file(connection: Connection, file: Path) -> None:
    try:
        connection.execute(file.read_bytes())
        connection.execute("INSERT INTO prooftrail.migration (name) VALUES (%s)", [file.name])
    except psycopg.Error as error:
        raise MigrationError(f"migration {file.name} failed and nothing was changed: {error}") from error


def allow_iam_login(connection: Connection) -> None:
    """Let the functions' roles log in with RDS IAM tokens, and then only so."""
    for role in ROLES:
        connection.execute(sql.SQL("GRANT rds_iam TO {}").format(sql.Identifier(role)))


def set_passwords(connection: Connection, passwords: dict[str, str]) -> None:
    """Set the passwords of the functions' roles; hashed here, so that no statement log ever holds one."""
    for role in ROLES:
        hashed = connection.pgconn.encrypt_password(passwords[role].encode(), role.encode(), b"scram-sha-256").decode()
        command = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(hashed))
        connection.execute(command)

"""What the commands share: the administrator's connection, and how a command ends with one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import msgspec
import psycopg
import typer

from prooftrail import database, invocation, settings
from prooftrail.database import Connection
from prooftrail.errors import ProoftrailError
from prooftrail.event import Tenant

PROJECT = Path(__file__).parents[3]  # the checkout, where functions/ and migrations/ lie
PATIENCE = 10.0  # seconds to wait for the database


def commands(about: str) -> typer.Typer:
    """A group of commands; `about` is its help."""
    return typer.Typer(help=about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@contextmanager
def admin(role: str | None = None) -> Iterator[Connection]:
    """Connect as whoever DATABASE_URL names, to act as one of the functions' roles if one is given.

    Faults end the command with one sentence.
    """
    try:
        login = settings.read(settings.DatabaseSettings)
        if role is not None:
            login = msgspec.structs.replace(login, database_url=invocation.as_role(os.environ, role))
        with database.connect(login, PATIENCE) as connection:
            yield connection
    except ProoftrailError as error:
        fail(str(error))
    except psycopg.Error as error:
        fail(f"PostgreSQL refused: {error}")


def fail(message: str, code: int = 1) -> NoReturn:
    """End the command: the message on standard error, `code` as its exit code."""
    typer.echo(f"prooftrail: {message}", err=True)
    raise typer.Exit(code)


def checked_tenant(name: str) -> str:
    """The tenant that an option names; ends the command where no event could carry it."""
    try:
        return msgspec.convert(name, Tenant)
    except msgspec.ValidationError:
        fail(f"--tenant: expected up to 64 letters, digits and ._- as events carry it, got {name!a}")

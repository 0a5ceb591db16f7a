"""The `prooftrail` command: what an operator does from a shell. Reads the same variables that `.local/stack.env` sets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import psycopg
import typer

from prooftrail import api_keys, database, invocation, migrations, settings
from prooftrail.database import Connection
from prooftrail.errors import ProoftrailError
from prooftrail.event import Tenant

PROJECT = Path(__file__).parents[2]  # the checkout, where functions/ and migrations/ lie
PATIENCE = 10.0  # seconds to wait for the database

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
key = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
app.add_typer(key, name="key")


@contextmanager
def _admin() -> Iterator[Connection]:
    """Connect as whoever DATABASE_URL names; faults end the command with one sentence."""
    try:
        with database.connect(settings.read(settings.DatabaseSettings), PATIENCE) as connection:
            yield connection
    except ProoftrailError as error:
        _fail(str(error))
    except psycopg.Error as error:
        _fail(f"PostgreSQL refused: {error}")


def _fail(message: str) -> NoReturn:
    typer.echo(f"prooftrail: {message}", err=True)
    raise typer.Exit(1)


@app.command()
def migrate(
    roles_passwords: Annotated[
        bool, typer.Option(help="Also set the functions' passwords, read from standard input as JSON: role to password.")
    ] = False,
) -> None:
    """Bring the database's schema up to date. Safe to run at any time, twice, and by several at once."""
    with _admin() as connection:
        applied = migrations.apply(connection, PROJECT / "migrations")
        if roles_passwords:
            migrations.set_passwords(connection, json.loads(typer.get_text_stream("stdin").read()))
    typer.echo(f"applied {', '.join(applied)}" if applied else "already up to date")


@key.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="The tenant whose events the key reads.")] = "",
    operator: Annotated[bool, typer.Option("--operator", help="A key for an operator, who reads all tenants.")] = False,
    label: Annotated[str, typer.Option(help="Whom or what the key is for.")] = "",
) -> None:
    """Make a key and print it. It is shown this once; the database keeps its hash only."""
    if bool(tenant) == operator:
        _fail("expected either --tenant NAME or --operator")
    if tenant and not _is_tenant(tenant):
        _fail(f"--tenant: expected up to 64 letters, digits and ._- as events carry it, got {tenant!a}")
    with _admin() as connection:
        typer.echo(api_keys.create(connection, tenant or None, label))


def _is_tenant(name: str) -> bool:
    try:
        msgspec.convert(name, Tenant)
    except msgspec.ValidationError:
        return False
    return True


@key.command("list")
def list_keys() -> None:
    """List all keys, without the keys themselves."""
    with _admin() as connection:
        for item in api_keys.listing(connection):
            state = f"revoked {item.revoked_at:%Y-%m-%d}" if item.revoked_at else "in use"
            typer.echo(f"{item.id}\t{item.hint}…\t{item.tenant or '(operator)'}\t{state}\t{item.label}")


@key.command("revoke")
def revoke_key(id: Annotated[int, typer.Argument(help="The key's number in `prooftrail key list`.")]) -> None:
    """Make a key useless from now on."""
    with _admin() as connection:
        api_keys.revoke(connection, id)
    typer.echo(f"key {id} is revoked")


class Function(StrEnum):
    """The functions that can be invoked."""

    ingest = "ingest"
    query = "query"
    archive = "archive"


@app.command()
def invoke(
    function: Annotated[Function, typer.Argument(help="Which function.")],
    event: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A Lambda event, as in events/.")],
) -> None:
    """Call a function in this process, without Docker, as its own database role, and print its answer."""
    try:
        answer = invocation.invoke(PROJECT / "functions" / function, json.loads(event.read_bytes()), os.environ)
    except ProoftrailError as error:
        _fail(str(error))
    except psycopg.Error as error:
        _fail(f"PostgreSQL refused: {error}")
    except json.JSONDecodeError as error:
        _fail(f"{event}: expected a Lambda event as JSON: {error}")
    typer.echo(json.dumps(answer, indent=2))

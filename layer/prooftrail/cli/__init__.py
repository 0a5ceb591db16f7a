"""The `prooftrail` command: what an operator does from a shell. Reads the same variables that `.local/stack.env` sets."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import psycopg
import typer

from prooftrail import invocation, migrations
from prooftrail.cli import erasure, keys, logs, observed, proofs, quarantine, redrive, verify
from prooftrail.cli.common import PROJECT, admin, commands, fail
from prooftrail.errors import ProoftrailError

app = commands(__doc__)
app.add_typer(keys.app, name="key")
app.add_typer(logs.app, name="log")
app.add_typer(erasure.holds_app, name="hold")
app.add_typer(quarantine.app, name="quarantine")
app.command()(redrive.redrive)
app.add_typer(observed.catalogue_app, name="catalogue")
app.command("sources")(observed.list_sources)
app.command()(erasure.erase)
app.command()(erasure.scrub)
app.command()(proofs.proof)
app.command()(proofs.proof_check)
app.command()(proofs.bundle)
app.command()(verify.verify)
app.command("drill")(verify.run_drill)


@app.command()
def migrate(
    roles_passwords: Annotated[
        bool, typer.Option(help="Also set the functions' passwords, read from standard input as JSON: role to password.")
    ] = False,
) -> None:
    """Bring the database's schema up to date. Safe to run at any time, twice, and by several at once."""
    with admin() as connection:
        applied = migrations.apply(connection, PROJECT / "migrations")
        if roles_passwords:
            migrations.set_passwords(connection, json.loads(typer.get_text_stream("stdin").read()))
    typer.echo(f"applied {', '.join(applied)}" if applied else "already up to date")


class Function(StrEnum):
    """The functions that can be invoked."""

    ingest = "ingest"
    query = "query"
    archive = "archive"
    checkpoint = "checkpoint"
    verify = "verify"


@app.command()
def invoke(
    function: Annotated[Function, typer.Argument(help="Which function.")],
    event: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A Lambda event, as in events/.")],
) -> None:
    """Call a function in this process, without Docker, as its own database role, and print its answer."""
    try:
        answer = invocation.invoke(PROJECT / "functions" / function, json.loads(event.read_bytes()), os.environ)
    except ProoftrailError as error:
        fail(str(error))
    except psycopg.Error as error:
        fail(f"PostgreSQL refused: {error}")
    except json.JSONDecodeError as error:
        fail(f"{event}: expected a Lambda event as JSON: {error}")
    typer.echo(json.dumps(answer, indent=2))

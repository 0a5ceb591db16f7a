"""`prooftrail key`: who may ask."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from prooftrail import api_keys
from prooftrail.cli.common import admin, checked_tenant, commands, fail

app = commands("Make, list and revoke API keys.")


class Role(StrEnum):
    """What a key may do."""

    reader = "reader"
    privacy = "privacy"
    writer = "writer"


@app.command("create")
def create(
    tenant: Annotated[str, typer.Option(help="The tenant whose events the key reads, or sends.")] = "",
    operator: Annotated[bool, typer.Option("--operator", help="A key for an operator, for all tenants.")] = False,
    label: Annotated[str, typer.Option(help="Whom or what the key is for.")] = "",
    role: Annotated[
        Role,
        typer.Option(
            help="privacy: it may also ask for erasures, and approve another's. writer: it sends, and reads nothing."
        ),
    ] = Role.reader,
) -> None:
    """Make a key and print it. It is shown this once; the database keeps its hash only."""
    if bool(tenant) == operator:
        fail("expected either --tenant NAME or --operator")
    owner = checked_tenant(tenant) if tenant else None
    with admin() as connection:
        typer.echo(api_keys.create(connection, owner, label, role.value))


@app.command("list")
def listing() -> None:
    """List all keys, without the keys themselves."""
    with admin() as connection:
        for item in api_keys.listing(connection):
            state = f"revoked {item.revoked_at:%Y-%m-%d}" if item.revoked_at else "in use"
            typer.echo(f"{item.id}\t{item.hint}…\t{item.tenant or '(operator)'}\t{state}\t{item.role}\t{item.label}")


@app.command("revoke")
def revoke(id: Annotated[int, typer.Argument(help="The key's number in `prooftrail key list`.")]) -> None:
    """Make a key useless from now on."""
    with admin() as connection:
        api_keys.revoke(connection, id)
    typer.echo(f"key {id} is revoked")

"""`prooftrail erase`, `prooftrail scrub` and `prooftrail hold`: what must go, and what must stay."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from prooftrail import erasure, holds
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.cli.common import admin, checked_tenant, commands, fail
from prooftrail.database import Connection
from prooftrail.erasure import Erasure, Part

holds_app = commands("Forbid erasing events, for good or for a time; every change is recorded in the tenant's log.")

REFUSED = 2  # exit code


def erase(
    *,
    tenant: Annotated[str, typer.Option(help="Whose log.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded in the log, so name no person in it.")],
    actor: Annotated[str, typer.Option(help="The id of the actor whose values go.")] = "",
    target: Annotated[str, typer.Option(help="The id of the target whose values go.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    rewrite: Annotated[
        bool, typer.Option(help="Rewrite the pages that held the values (see `scrub`), which locks the months meanwhile.")
    ] = True,
) -> None:
    """Erase one person's values for ever: in PostgreSQL, in the archive and in the quarantine. Every proof stays good.

    An erasure that was interrupted is taken up by the same command. Exit code 2: refused, and nothing was changed.
    """
    if bool(actor) == bool(target) or not reason:
        fail("expected either --actor ID or --target ID, and a --reason")
    part: Part = "actor" if actor else "target"
    owner = checked_tenant(tenant)
    if not yes:
        typer.confirm(
            f"Erase all values of the {part} {actor or target} in tenant {owner}? It cannot be undone", abort=True
        )
    with admin() as connection:
        id = erasure.order(connection, owner, part, actor or target, reason)
        _tell(erasure.execute(connection, _bucket(), id))
        if rewrite:
            _scrub(connection)


def scrub() -> None:
    """Rewrite the pages in which PostgreSQL still has what was erased (VACUUM FULL). Locks those months meanwhile."""
    with admin() as connection:
        _scrub(connection)


def _tell(item: Erasure) -> None:
    if item.state == "refused":
        fail(f"erasure {item.id} is refused, nothing was changed: {item.refusal}", REFUSED)
    typer.echo(f"erasure {item.id} is done: {item.entries} events, {item.quarantined} quarantined records")


def _scrub(connection: Connection) -> None:
    months = erasure.scrub(connection)
    typer.echo(f"rewrote the pages of {', '.join(f'{month:%Y-%m}' for month in months) or 'no month'}")


def _bucket() -> ArchiveBucket | None:
    name = os.environ.get("PROOFTRAIL_ARCHIVE_BUCKET")
    return ArchiveBucket(name) if name else None


@holds_app.command("place")
def place(
    tenant: Annotated[str, typer.Option(help="Whose log.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded in the log, so name no person in it.")],
    actor: Annotated[str, typer.Option(help="Only events of the actor with this id.")] = "",
    target: Annotated[str, typer.Option(help="Only events on the target with this id.")] = "",
    keep_months: Annotated[
        int, typer.Option(min=0, help="A duty to keep events while they are younger; 0: until released.")
    ] = 0,
) -> None:
    """Forbid erasing a tenant's events, and print the hold's number."""
    if not reason:
        fail("expected a --reason")
    owner = checked_tenant(tenant)
    with admin() as connection:
        hold = holds.place(
            connection,
            owner,
            reason,
            actor_id=actor or None,
            target_id=target or None,
            keep_months=keep_months or None,
        )
        typer.echo(hold.id)


@holds_app.command("list")
def listing() -> None:
    """List all holds."""
    with admin() as connection:
        for hold in holds.listing(connection):
            state = f"released {hold.released_at:%Y-%m-%d}" if hold.released_at else "in force"
            kept = f"{hold.keep_months} months" if hold.keep_months else "until released"
            who = f"actor {hold.actor_id or '(any)'}\ttarget {hold.target_id or '(any)'}"
            typer.echo(f"{hold.id}\t{hold.tenant}\t{who}\t{kept}\t{state}\t{hold.placed_at:%Y-%m-%d}\t{hold.reason}")


@holds_app.command("release")
def release(id: Annotated[int, typer.Argument(help="The hold's number in `prooftrail hold list`.")]) -> None:
    """Release a hold."""
    with admin() as connection:
        holds.release(connection, id)
    typer.echo(f"hold {id} is released")

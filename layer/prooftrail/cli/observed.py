"""`prooftrail sources` and `prooftrail catalogue`: who sends, what they do, and what their events must look like."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from prooftrail import catalogue, rules, sources
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.catalogue import Seed
from prooftrail.cli.common import admin, checked_tenant, commands, fail
from prooftrail.rules import OnViolation
from prooftrail.sources import Numbers, Sequence, Source

catalogue_app = commands("Name categories and actions, and say what their events must look like; changes are recorded.")
schema_app = commands("Say what the events of an action must look like (JSON Schema, draft 2020-12).")
catalogue_app.add_typer(schema_app, name="schema")

OneTenant = Annotated[str, typer.Option(help="Of this tenant only.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, with all there is.")]
File = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
Whose = Annotated[str, typer.Option(help="Whose events.")]
Category = Annotated[str, typer.Option(help="Their category; left out: events that have none.")]
ActionName = Annotated[str, typer.Option("--action", help="Their action.")]


def list_sources(*, tenant: OneTenant = "", as_json: AsJson = False) -> None:
    """Tell of each source what was seen last, for how long it is silent, and which of its numbers are missing or late."""
    of_tenant = checked_tenant(tenant) if tenant else ALL_TENANTS
    with admin() as connection, connection.transaction():
        found = sources.listing(connection, of_tenant, ranges=sources.MOST_RANGES if as_json else 3)
        logs = sources.folded(connection, sorted({item.tenant for item in found} | ({of_tenant} - {ALL_TENANTS})))
    for item in found:
        typer.echo(msgspec.json.encode(item).decode() if as_json else "\t".join(_columns(item)))
    for log in logs:
        if log.folded < log.entries:
            typer.echo(f"prooftrail: {log.tenant}: as of entry {log.folded} of {log.entries}, {_utc(log.as_of)}", err=True)
        if log.gone:
            typer.echo(f"prooftrail: {log.tenant}: of {log.gone} archived entries nothing is known", err=True)


def _columns(item: Source) -> list[str]:
    silent = f"silent {_seconds(item.silence_seconds)}{', longer than ever' if item.longer_than_ever else ''}"
    return [
        item.tenant,
        item.source,
        f"{item.events} events",
        f"last {_utc(item.last_seen)}",
        silent,
        *_numbering(item.sequence),
    ]


def _numbering(of: Sequence | None) -> list[str]:
    if of is None:
        return ["not numbered"]
    forgotten = [f"forgotten below {of.tracked_from}"] if of.tracked_from else []
    sides = {"missing": of.missing, "late": of.late, "repeated": of.repeated}
    return [
        f"{of.lowest} to {of.contiguous} of {of.highest}",
        *(f"{name} {_ranges(side)}" for name, side in sides.items()),
        *forgotten,
    ]


def _ranges(numbers: Numbers) -> str:
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in numbers.ranges]
    told = sum(last - first + 1 for first, last in numbers.ranges)
    return f"{numbers.count}" + (f" ({', '.join(shown)}{', …' if told < numbers.count else ''})" if shown else "")


def _utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _seconds(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@catalogue_app.command("seed")
def seed(file: File) -> None:
    """Put actions into the catalogue from a JSON list or JSON lines.

    Each names a tenant, an action, and if it likes a category, description, schema and on_violation (quarantine or flag).
    """
    with admin() as connection:
        changed = catalogue.seed(connection, catalogue.read_seeds(file.read_bytes()))
    typer.echo(f"{changed} actions are new or were changed")


@catalogue_app.command("list")
def listing(*, tenant: OneTenant = "", as_json: AsJson = False) -> None:
    """List all categories and actions: learned from events, seeded, or both."""
    of_tenant = checked_tenant(tenant) if tenant else ALL_TENANTS
    with admin() as connection:
        found = catalogue.actions(connection, of_tenant, schemas=as_json)
    for item in found:
        if as_json:
            typer.echo(msgspec.json.encode(item).decode())
            continue
        last = f"last {_utc(item.last_seen)}" if item.last_seen else "never seen"
        rule = f"schema: {item.on_violation}" if item.on_violation else "no schema"
        kind = "seeded" if item.seeded_at else "learned"
        columns = [item.tenant, item.category or "(none)", item.action, f"{item.events} events", last, kind, rule]
        typer.echo("\t".join([*columns, item.description or ""]))


@schema_app.command("set")
def set_schema(
    file: File,
    *,
    tenant: Whose,
    action: ActionName,
    category: Category = "",
    on_violation: Annotated[
        OnViolation, typer.Option(help="What becomes of events that it does not let through.")
    ] = "quarantine",
) -> None:
    """Compare the events of an action, as native JSON, with a schema from now on (within a minute)."""
    with admin() as connection:
        schema = catalogue.read_schema(file.read_bytes())
        wanted = _seed(tenant=tenant, category=category or None, action=action, schema=schema, on_violation=on_violation)
        changed = catalogue.seed(connection, [wanted])
    typer.echo(f"in force within {rules.BELIEVED:.0f} seconds" if changed else "it is in force already")


@schema_app.command("remove")
def remove_schema(*, tenant: Whose, action: ActionName, category: Category = "") -> None:
    """Let the events of an action look as they like again."""
    with admin() as connection:
        catalogue.remove_schema(connection, checked_tenant(tenant), category or None, action)
    typer.echo(f"gone within {rules.BELIEVED:.0f} seconds")


def _seed(**fields: Any) -> Seed:
    try:
        return msgspec.convert(fields, Seed)
    except msgspec.ValidationError as error:
        fail(f"expected the tenant, category and action of an event: {error}")

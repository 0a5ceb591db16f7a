"""`prooftrail quarantine`: what could not become an event, and what becomes of it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import msgspec
import typer
from rich.console import Console
from rich.progress import track

from prooftrail import quarantine, settings
from prooftrail.cli.common import admin, commands, fail
from prooftrail.database import Connection
from prooftrail.errors import RetryableError
from prooftrail.formats import RawRecord
from prooftrail.quarantine import Attempt, Filter, NotWaiting, Quarantined
from prooftrail.settings import IngestSettings

app = commands("Show, replay and discard records that could not become events; each step is recorded in the log.")

STILL_REFUSED = 2  # exit code
MOST_SHOWN = 4096  # bytes of a record on a terminal

Id = Annotated[int, typer.Argument(help="The record's number in `prooftrail quarantine list`.")]
Ids = Annotated[list[int] | None, typer.Argument(help="Numbers in `prooftrail quarantine list`.", show_default=False)]
Reason = Annotated[str, typer.Option(help="Only those refused for this reason, such as invalid-field.")]
Origin = Annotated[str, typer.Option(help="Only those whose origin begins so, such as kafka:main:audit:.")]
Since = Annotated[str, typer.Option(help="Only those received since then: RFC 3339, or a date in UTC.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Wanted(StrEnum):
    """Which state records are in."""

    waiting = "waiting"
    replayed = "replayed"
    discarded = "discarded"
    all = "all"


@app.command("list")
def listing(
    *,
    reason: Reason = "",
    origin: Origin = "",
    since: Since = "",
    state: Annotated[Wanted, typer.Option(help="Only those in this state.")] = Wanted.waiting,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    before: Annotated[int | None, typer.Option(min=1, help="Go on before this number, the last one of a list.")] = None,
    as_json: AsJson = False,
) -> None:
    """List records, the last one that came first."""
    wanted = _filter(reason, origin, since)
    wanted = msgspec.structs.replace(wanted, state=None if state is Wanted.all else state.value)
    with admin() as connection:
        found = quarantine.listing(connection, wanted, before, limit)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for item in found:
        typer.echo(
            f"{item.id}\t{item.received_at:%Y-%m-%d %H:%M}\t{item.state}\t{item.reason}\t{item.origin}\t{_line(item)}"
        )
    if len(found) == limit:
        typer.echo(f"perhaps there are more: --before {found[-1].id}", err=True)


def _line(item: Quarantined) -> str:
    """What else there is to say, on one line, and nothing that a terminal would obey."""
    became = "; ".join(f"{event.tenant} {event.source} {event.id}" for event in item.became or [])
    return _printable(item.discard_reason or became or item.detail)


@app.command("show")
def show(
    id: Id,
    *,
    raw: Annotated[bool, typer.Option("--raw", help="Print its exact bytes and nothing else.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a record with its headers and bytes, and how it ended if it did."""
    with admin() as connection:
        item, content = quarantine.get(connection, id), quarantine.content(connection, id)
    if raw:
        sys.stdout.buffer.write(content.body)
    elif as_json:
        typer.echo(json.dumps(_document(item, content)))
    else:
        _tell(item, content)


def _document(item: Quarantined, content: RawRecord) -> dict[str, Any]:
    """As the API answers it, but with all of the bytes."""
    fields: dict[str, Any] = json.loads(msgspec.json.encode(item))
    return fields | {"headers": dict(content.headers), "raw": msgspec.to_builtins(content.body)}


def _tell(item: Quarantined, content: RawRecord) -> None:
    fields: dict[str, Any] = {name: value for name, value in msgspec.to_builtins(item).items() if value is not None}
    for name, value in fields.items():
        typer.echo(f"{name + ':':16}{_printable(value if isinstance(value, str) else json.dumps(value))}")
    for name, value in content.headers.items():
        typer.echo(f"{'header:':16}{_printable(name)}: {_printable(value)}")
    if content.body:
        typer.echo()
        typer.echo(_printable(content.body[:MOST_SHOWN].decode("utf-8", "backslashreplace"), "\n\t"))
    if len(content.body) > MOST_SHOWN:
        typer.echo(f"and {len(content.body) - MOST_SHOWN:,} bytes more: see them with --raw", err=True)


def _printable(text: str, besides: str = "") -> str:
    """Foreign text for a terminal: what it would obey is escaped."""
    return "".join(c if c.isprintable() or c in besides else c.encode("unicode_escape").decode() for c in text)


@app.command("replay")
def replay(
    ids: Ids = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    reason: Reason = "",
    origin: Origin = "",
    since: Since = "",
    as_json: AsJson = False,
) -> None:
    """Read records again as ingest does by now, and store what they hold under the identity they would have had.

    Which ones: numbers, or a filter, or --all. Give it the environment of the ingest function: MAX_FUTURE_HOURS,
    DEFAULT_TENANT, DEFAULT_FORMATS, DEFAULT_TIMEZONE, SCHEMA_REGISTRY_URL. Exit code 2: at least one is refused still,
    and waits.
    """
    wanted = _filter(reason, origin, since)
    if sum((bool(ids), everything, wanted != Filter())) != 1:
        fail("expected numbers, or a filter (--reason, --origin, --since), or --all")
    with admin() as connection:
        chosen = ids or quarantine.waiting(connection, wanted)
        attempts = _replay(connection, chosen, named=bool(ids), quiet=as_json)
    if as_json:
        typer.echo(msgspec.json.encode(attempts))
    _conclude(attempts)


def _replay(connection: Connection, ids: list[int], *, named: bool, quiet: bool) -> list[Attempt]:
    """Replay one after the other, each in a transaction of its own, so that what was done stays done."""
    read, attempts = quarantine.reading(settings.read(IngestSettings)), []
    console = Console(stderr=True)
    for id in track(ids, "replaying", console=console, transient=True, disable=not console.is_terminal):
        try:
            attempts.append(quarantine.replay(connection, id, read))
        except NotWaiting as error:
            if named:
                fail(str(error))
            continue  # somebody else was quicker
        except RetryableError as error:
            fail(f"{len(attempts)} of {len(ids)} records were read again, then came one that cannot be now: {error}")
        if not quiet:
            typer.echo(_how(attempts[-1]))
    return attempts


def _how(attempt: Attempt) -> str:
    start = f"{attempt.id}\t{attempt.origin}\t"
    if attempt.reason is not None:
        return f"{start}still refused\t{attempt.reason}\t{_printable(attempt.detail or '')}"
    ended = [f"{item.status} {item.event.tenant} {item.event.source} {item.event.id}" for item in attempt.stored]
    parts = [f"{attempt.parts} parts in quarantine alone"] if attempt.parts else []
    return start + _printable("; ".join([*ended, *parts]))


def _conclude(attempts: list[Attempt]) -> NoReturn:
    refused = [attempt for attempt in attempts if attempt.reason is not None]
    typer.echo(f"{len(attempts) - len(refused)} records replayed, {len(refused)} still refused", err=True)
    raise typer.Exit(STILL_REFUSED if refused else 0)


@app.command("discard")
def discard(
    ids: Annotated[list[int], typer.Argument(help="Numbers in `prooftrail quarantine list`.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; it is recorded in the log, so name no person in it.")],
    clear: Annotated[
        bool, typer.Option("--clear", help="Delete its bytes and headers too, for good; also of one discarded before.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Give records up for good. The log keeps their SHA-256, and the quarantine their bytes unless they are cleared."""
    if not reason:
        fail("expected a --reason")
    if clear and not yes:
        typer.confirm(f"Delete the bytes of {len(ids)} records? It cannot be undone", abort=True)
    with admin() as connection:
        for id in ids:
            quarantine.discard(connection, id, reason, clear=clear)
            typer.echo(f"record {id} is discarded{', and its bytes are gone' if clear else ''}")


def _filter(reason: str, origin: str, since: str) -> Filter:
    """Of those that wait; ends the command where the time is none."""
    return Filter(reason=reason or None, origin=origin or None, since=_time(since) if since else None)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.replace(tzinfo=UTC)
    except ValueError:
        fail(f"--since: expected a time as 2026-11-21T15:00:00Z, or a date, got {text!a}")

"""`prooftrail proof`, `proof-check` and `bundle`: evidence to give to others, and to check."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from prooftrail import bundle as bundles
from prooftrail import entries, proofs, search, signing, system, witness_client
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.bundle.question import Question
from prooftrail.cli.common import admin, checked_tenant, fail
from prooftrail.database import Connection
from prooftrail.errors import ProoftrailError
from prooftrail.event import OWN_TENANT, Event, Target, Time, own_event
from prooftrail.evidence import Evidence
from prooftrail.ledger.note import VerifierKey
from prooftrail.search import Owner

LARGEST = 2**63 - 1  # no index is larger
READER = "prooftrail_query"  # the role that reads, and no more than a tenant's own

ArchiveName = Annotated[str, typer.Option("--archive-bucket", envvar="PROOFTRAIL_ARCHIVE_BUCKET", help="Of old months.")]
EvidenceName = Annotated[
    str, typer.Option("--evidence-bucket", envvar="PROOFTRAIL_EVIDENCE_BUCKET", help="Of checkpoints and tiles.")
]
Keys = Annotated[
    list[str], typer.Option("--key", help="A verifier key of the log or of a witness; see `prooftrail log keys`.")
]


def proof(
    *,
    id: Annotated[str, typer.Argument(help="The event's id.")],
    archive_bucket: ArchiveName,
    evidence_bucket: EvidenceName,
    tenant: Annotated[str, typer.Option(help="Whose event, where several tenants have the id.")] = "",
    source: Annotated[str, typer.Option(help="Whose event, where several sources use the id.")] = "",
    out: Annotated[Path | None, typer.Option(dir_okay=False, help="The file to write; else it is printed.")] = None,
) -> None:
    """Write the proof that an event is in its log: one file, to be checked offline with the log's key."""
    with admin(READER) as connection:
        with search.reading_as(connection, _log(tenant) if tenant else ALL_TENANTS):
            owner = _owner(connection, tenant, id, source)
            stored = entries.find(connection, ArchiveBucket(archive_bucket), owner, id)
            place = proofs.place(connection, stored)
            made = proofs.inclusion(connection, Evidence(evidence_bucket), owner.tenant, place)
        with connection.transaction():
            system.record(connection, own_event("proof.read", tenant=owner.tenant, target=Target(type="event", id=id)))
            # Commit: the read is on record before anybody sees what was read.
    if out is None:
        typer.echo(made.encode(), nl=False)
    else:
        out.write_bytes(made.encode())
        typer.echo(f"{out} proves that the event is entry {made.index} of the log of {owner.tenant}")


def _log(tenant: str) -> str:
    """Whose log: a tenant's, or that of what concerns none."""
    return tenant if tenant == OWN_TENANT else checked_tenant(tenant)


def _owner(connection: Connection, tenant: str, id: str, source: str) -> Owner:
    owners = search.owners(connection, tenant or ALL_TENANTS, id, source or None)
    if not owners:
        fail(f"no event has the id {id!a}")
    if len(owners) > 1:
        choices = ", ".join(f"--tenant {owner.tenant} --source {owner.source}" for owner in owners)
        fail(f"{len(owners)} events have the id {id!a}: choose one of {choices}")
    return owners[0]


def proof_check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .tlog-proof of an event.")],
    key: Keys,
) -> None:
    """Check a proof offline, with keys that you have from elsewhere, and print what it proves."""
    try:
        proved = proofs.check(file.read_bytes(), _parsed(key))
    except ProoftrailError as error:
        fail(f"{file}: nothing is proved: {error}")
    typer.echo(f"entry {proved.entry.index} of the {proved.checkpoint.size} of {proved.checkpoint.origin} is this event:")
    typer.echo(proved.entry.header)
    for signer, time in proved.signers:
        typer.echo(f"signed by {signer}" + (f" at {datetime.fromtimestamp(time).astimezone().isoformat()}" if time else ""))


def bundle(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", dir_okay=False, help="The zip to write.")],
    tenant: Annotated[str, typer.Option(help="Whose log.")],
    archive_bucket: ArchiveName,
    evidence_bucket: EvidenceName,
    filters: Annotated[
        list[str], typer.Option("--filter", help="NAME=VALUE, named as in the API; an event must fit all.")
    ] = [],  # noqa: B006  # typer makes a new one
    since: Annotated[str, typer.Option("--from", help="Events from this time on, as 2026-10-01T00:00:00Z.")] = "",
    until: Annotated[str, typer.Option("--to", help="Events before this time.")] = "",
    span: Annotated[str, typer.Option("--range", help="FIRST:END, the entries of the log from one index to another.")] = "",
    key: Keys = [],  # noqa: B006
    origin: Annotated[str, typer.Option(envvar="LOG_ORIGIN", help="The first part of the logs' names.")] = "",
    signing_keys: Annotated[str, typer.Option(envvar="SIGNING_KEYS", help="To name the log's key, without --key.")] = "",
    witnesses: Annotated[str, typer.Option(envvar="WITNESSES", help="To name the witnesses' keys, without --key.")] = "",
) -> None:
    """Write an evidence bundle: the events that match, proved to be in the log and to be all there are.

    Whoever gets it checks it offline with nothing but Python. Without filters, it has every event of the log.
    """
    owner = _log(tenant)
    first, end = _range(span)
    with admin(READER) as connection:
        question = Question(owner, _filters(filters), _time("--from", since), _time("--to", until), first, end)
        known = _parsed(key) or _known_keys(f"{origin}/{owner}", signing_keys, witnesses)
        with connection.transaction():
            system.record(connection, _made(question))
            # Commit: that the bundle is made is on record before anything of it is there.
        with _progress() as progress:
            task = progress.add_task("reading", total=None)
            sources = bundles.Sources(
                connection,
                ArchiveBucket(archive_bucket),
                Evidence(evidence_bucket),
                lambda entries: progress.advance(task, entries),
            )
            result = bundles.make(sources, question, known, out)
    typer.echo(f"{out}: {result.events} of {result.entries} entries match; it was checked as its reader will")
    if result.unknown:
        typer.echo(f"{result.unknown} entries were erased: whether they matched can no longer be known")


def _made(question: Question) -> Event:
    asked = msgspec.json.decode(question.encode())
    return own_event("bundle.make", tenant=question.tenant, metadata={"asked": asked})


def _range(span: str) -> tuple[int, int]:
    """``FIRST:END``, of which either may be left out."""
    first, colon, end = (span or ":").partition(":")
    if not colon or not all(number.isascii() and (number.isdigit() or not number) for number in (first, end)):
        fail(f"--range: expected FIRST:END as in 0:1000, got {span!a}")
    if int(first or 0) >= int(end or LARGEST):
        fail(f"--range: expected a first entry before the end, got {span!a}")
    return int(first or 0), int(end or LARGEST)


def _filters(given: Sequence[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    if not all(equals for _, equals, _ in pairs):
        fail("--filter: expected NAME=VALUE, as in actor=dr-lee")
    equal = {name: value for name, _, value in pairs}
    if len(equal) != len(pairs):
        fail("--filter: expected each name once, for an event has one value of it")
    return equal


def _time(option: str, text: str) -> datetime | None:
    try:
        return msgspec.convert(text, Time) if text else None
    except msgspec.ValidationError:
        fail(f"{option}: expected a time with its zone, as 2026-10-01T00:00:00Z, got {text!a}")


def _parsed(keys: Sequence[str]) -> list[VerifierKey]:
    try:
        return [VerifierKey.parse(key) for key in keys]
    except ProoftrailError as error:
        fail(f"--key: {error}")


def _known_keys(name: str, signing_keys: str, witnesses: str) -> list[VerifierKey]:
    """The keys that sign this log now, and those of its witnesses, as the checkpoint function knows them."""
    if not signing_keys:
        fail("expected --key, or LOG_ORIGIN and SIGNING_KEYS as the checkpoint function has them")
    return signing.verifier_keys(name, signing.keys(signing_keys)) + [item.key for item in witness_client.read(witnesses)]


def _progress() -> Progress:
    """What is told on standard error while entries are read, where somebody looks."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} entries read"), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)

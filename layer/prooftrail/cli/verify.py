"""`prooftrail verify` and `drill`: whether what is stored is what was signed, and whether we would notice if not."""

from __future__ import annotations

import os
import traceback
from contextlib import nullcontext
from typing import Annotated, NoReturn

import msgspec
import psycopg
import typer
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from prooftrail import database, drill, settings, signing, verification
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.cli.common import PATIENCE, PROJECT, admin, checked_tenant, fail
from prooftrail.database import Connection
from prooftrail.errors import ProoftrailError
from prooftrail.evidence import Evidence
from prooftrail.settings import DatabaseSettings
from prooftrail.verification import Authority, LogKeys, Question, Report, Workers

FOUND, NOT_VERIFIED = 1, 2  # exit codes
MOST_SHOWN = 50  # findings

ArchiveName = Annotated[str, typer.Option("--archive-bucket", envvar="PROOFTRAIL_ARCHIVE_BUCKET", help="Of old months.")]
EvidenceName = Annotated[
    str, typer.Option("--evidence-bucket", envvar="PROOFTRAIL_EVIDENCE_BUCKET", help="Of checkpoints and tiles.")
]
Keys = Annotated[list[str], typer.Option("--key", help="A verifier key of any of the logs; else the deployment's own.")]
Origin = Annotated[str, typer.Option(envvar="LOG_ORIGIN", help="The first part of the logs' names.")]
SigningKeys = Annotated[str, typer.Option(envvar="SIGNING_KEYS", help="Whose public keys to ask for, without --key.")]


def verify(
    *,
    tenant: Annotated[str, typer.Option(help="One log only.")] = "",
    first: Annotated[int | None, typer.Option("--from", min=0, help="The first leaf index, with --tenant.")] = None,
    end: Annotated[int | None, typer.Option("--to", min=1, help="The leaf index to stop before, with --tenant.")] = None,
    archive_bucket: ArchiveName = "",
    evidence_bucket: EvidenceName = "",
    key: Keys = [],  # noqa: B006  # typer makes a new one
    origin: Origin = "",
    signing_keys: SigningKeys = "",
    every_checkpoint: Annotated[bool, typer.Option("--all-checkpoints", help="Fetch all, not only the latest.")] = False,
    without_checkpoints: Annotated[
        bool, typer.Option("--without-checkpoints", help="Compare the database with itself alone.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at once.")] = os.cpu_count() or 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Derive everything anew from what is stored, hot and cold, and compare it with what was logged and signed.

    Ends with 0 where all is as it was, 1 where something is not (each finding names it), 2 where it could not be seen.
    """
    if (first, end) != (None, None) and not tenant:
        fail("--from and --to are indexes in one log: expected --tenant with them", NOT_VERIFIED)
    question = Question(checked_tenant(tenant) if tenant else None, first, end, every_checkpoint)
    try:
        authority = None if without_checkpoints else _authority(evidence_bucket, key, origin, signing_keys)
        report = _verify(question, authority, archive_bucket, jobs)
    except ProoftrailError as error:
        fail(str(error), NOT_VERIFIED)
    except psycopg.Error as error:
        fail(f"PostgreSQL refused: {error}", NOT_VERIFIED)
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001  # Python's own exit code for it would say that something was changed
        traceback.print_exception(error)
        fail(f"broken off by a fault of ours, which please report: {error!r}", NOT_VERIFIED)
    _tell(report, as_json=as_json, authority=authority)


def _authority(bucket: str, keys: list[str], origin: str, signing_keys: str) -> Authority:
    """The evidence bucket, with the keys that were given, else those that the deployment signs with."""
    if not bucket or not (keys or (origin and signing_keys)):
        fail(
            "expected --evidence-bucket and --key (or LOG_ORIGIN and SIGNING_KEYS), as in the function's environment; "
            "--without-checkpoints compares the database with itself alone",
            NOT_VERIFIED,
        )
    known = verification.keys_of(keys) if keys else LogKeys(origin, _public_keys(signing_keys))
    return Authority(Evidence(bucket), known)


def _public_keys(arns: str) -> tuple[bytes, ...]:
    return tuple(key.public_key for key in signing.keys(arns))


def _verify(question: Question, authority: Authority | None, archive_bucket: str, jobs: int) -> Report:
    login = settings.read(DatabaseSettings)
    workers = Workers(jobs, make_conninfo(**database.login(login)), archive_bucket or None) if jobs > 1 else nullcontext()
    with database.connect(login, PATIENCE) as connection, workers as many, _progress() as progress:
        task = progress.add_task("entries", total=None)
        return verification.verify(
            connection,
            question,
            authority=authority,
            archive=ArchiveBucket(archive_bucket) if archive_bucket else None,
            workers=many,
            progress=lambda done, of: progress.update(task, completed=done, total=of),
        )


def _tell(report: Report, *, as_json: bool, authority: Authority | None) -> NoReturn:
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        for finding in report.findings[:MOST_SHOWN]:
            typer.echo(finding)
        if (left := len(report.findings) + report.more - MOST_SHOWN) > 0:
            typer.echo(f"and {left:,} findings more: see them with --json")
        for reason in report.unchecked:
            typer.echo(f"not verified: {reason}", err=True)
        erased = f", {report.erased:,} of them erased in part" if report.erased else ""
        typer.echo(f"{report.entries:,} entries of {report.logs} logs{erased}; {report.checkpoints:,} checkpoints")
    if authority is None:
        typer.echo("not verified: whether this is what was signed (--without-checkpoints)", err=True)
    if report.findings or report.more:
        fail(f"{len(report.findings) + report.more:,} findings: this is not what was logged", FOUND)
    if report.unchecked:
        fail("no findings, but not everything could be looked at", NOT_VERIFIED)
    signed = ", and as the checkpoints say" if report.checkpoints else "; no checkpoint was there to compare it with"
    typer.echo(f"everything is as it was logged{signed}", err=as_json)
    raise typer.Exit(0)


def _progress() -> Progress:
    """On standard error, where somebody looks."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def run_drill(
    *,
    tenant: Annotated[str, typer.Option(help="Whose log to copy; else the shortest that has a checkpoint.")] = "",
    evidence_bucket: EvidenceName = "",
    archive_bucket: ArchiveName = "",
    key: Keys = [],  # noqa: B006
    origin: Origin = "",
    signing_keys: SigningKeys = "",
) -> None:
    """Tamper with a copy of a log in twelve ways, and show how each one is found out. Ends with 1 where one is not."""
    with admin() as connection:
        authority = _authority(evidence_bucket, key, origin, signing_keys)
        candidates = [checked_tenant(tenant)] if tenant else drill.logs(connection)
        if not candidates:
            fail("expected a log with two events in PostgreSQL that a checkpoint covers: send some and wait for a minute")
        archive = ArchiveBucket(archive_bucket) if archive_bucket else None
        unnoticed = _run_drill(connection, candidates[0], authority, archive)
    if unnoticed:
        fail(f"not found out: {'; '.join(unnoticed)}")


def _run_drill(connection: Connection, tenant: str, authority: Authority, archive: ArchiveBucket | None) -> list[str]:
    """Run the drill and show it; returns the exercises that did not end as they must."""

    def look(url: str) -> list[str]:
        with database.connect(DatabaseSettings(database_url=url), PATIENCE) as copy:
            report = verification.verify(copy, Question(tenant), authority=authority, archive=archive)
            return [str(finding) for finding in report.findings]

    login = make_conninfo(**database.login(settings.read(DatabaseSettings)))
    table = Table("what was done to a copy", "findings", "the first of them", title=f"The log of {tenant}")
    unnoticed = []
    with Console(stderr=True).status("tampering"):
        for what, findings in drill.run(connection, login, tenant, PROJECT / "migrations", look):
            table.add_row(what, str(len(findings)), findings[0] if findings else "")
            if bool(findings) == (what == drill.NOTHING):
                unnoticed.append(what)
    Console().print(table)
    return unnoticed

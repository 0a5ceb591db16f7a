"""The demo: real events by five ways through functions, database, API and archive, an account that adds up, its proof."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local import producers, sending
from local.errors import StackError

EVENTS = 10_000
DRAIN_SECONDS = 240  # the queue is empty long before, or something is wrong

console = Console(highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Account:
    """Where events are: counted in the database, and, for duplicates, in what the ingest function reported."""

    hot: int = 0
    archived: int = 0
    quarantined: int = 0
    duplicate: int = 0

    @property
    def handled(self) -> int:
        """Events that came to an end before the archive ran."""
        return self.hot + self.quarantined + self.duplicate

    def __sub__(self, earlier: Account) -> Account:
        return Account(
            self.hot - earlier.hot,
            self.archived - earlier.archived,
            self.quarantined - earlier.quarantined,
            self.duplicate - earlier.duplicate,
        )


def run(environment: dict[str, str], brokers: dict[str, str]) -> None:
    """Show everything once on a running stack; raises `StackError` where the account does not add up.

    `brokers` says of Kafka and RabbitMQ what they are, ``none`` where there is none.
    """
    before = _account(environment)
    ways = [way for way in sending.SENDERS if brokers.get(way) != "none"]
    mail = producers.messages(EVENTS, datetime.now(UTC), ways)
    _send(environment, mail.bodies, brokers)
    _wait_until_stored(environment, before, mail.sent)
    _ask(environment, mail)
    stored = _account(environment) - before
    reported = _archive(environment)
    after = _account(environment)
    in_parquet = _read_parquet(environment)
    _prove(environment, mail)
    _settle(
        mail,
        stored,
        after - before,
        {
            "archived = what the archive reported": (after - before).archived == reported > 0,
            "all archived = what DuckDB counts in the bucket": after.archived == in_parquet,
        },
    )


def _send(environment: dict[str, str], bodies: dict[str, list[str]], brokers: dict[str, str]) -> None:
    """Send by all ways at once."""
    total = sum(map(len, bodies.values()))
    console.print(f"\n[bold]Sending {total:,} messages in {len(bodies)} ways[/bold]")
    if brokers["RabbitMQ"] == "none":
        console.print("    [yellow]no RabbitMQ on this machine: its part goes the other ways[/yellow]")
    with _progress() as progress, ThreadPoolExecutor(len(bodies)) as pool:
        sent = []
        for way, part in bodies.items():
            task = progress.add_task(f"{way} ({brokers[way]})" if way in brokers else way, total=len(part))
            sent.append(pool.submit(_send_by, way, environment, part, partial(progress.advance, task)))
        for future in sent:
            future.result()


def _send_by(way: str, environment: dict[str, str], bodies: list[str], advance: Callable[[float], None]) -> None:
    for number in sending.SENDERS[way](environment, bodies):
        advance(number)


def _wait_until_stored(environment: dict[str, str], before: Account, sent: int) -> None:
    """Wait until every event has become something: stored, a duplicate, or quarantined."""
    console.print("\n[bold]Ingest drains queues and topic[/bold]")
    deadline = time.monotonic() + DRAIN_SECONDS
    with _progress() as progress:
        task = progress.add_task("drained", total=sent)
        while (done := (_account(environment) - before).handled) < sent:
            progress.update(task, completed=done)
            if time.monotonic() > deadline:
                raise StackError(f"{sent - done} events are not there after {DRAIN_SECONDS} s; see .local/logs.")
            time.sleep(1)
        progress.update(task, completed=sent)
    queue = httpx.get(f"{environment['PROOFTRAIL_API_URL']}/health", timeout=30).json()["queue"]
    if queue["dead_letters"]:
        raise StackError(f"{queue['dead_letters']} messages went to the dead-letter queue; see .local/logs.")


def _ask(environment: dict[str, str], mail: producers.Mail) -> None:
    console.print("\n[bold]The API answers[/bold]")
    key = {"Authorization": f"Bearer {environment['PROOFTRAIL_API_KEY']}"}
    with httpx.Client(base_url=environment["PROOFTRAIL_API_URL"], timeout=30) as api:
        for path in (
            f"/events?tenant={mail.tenant}&limit=2",
            f"/events?tenant={mail.tenant}&actor={mail.actor}&outcome=failure&limit=1",
            f"/events?target_type=Patient&target_id={mail.target}&limit=1",
            f"/events/{mail.id}",
        ):
            _show(path, api.get(path, headers=key))
        _show("/events (without a key)", api.get("/events"), expected=401)


def _show(path: str, answer: httpx.Response, expected: int = 200) -> None:
    console.print(f"[cyan]GET {path}[/cyan] → {answer.status_code}")
    if answer.status_code != expected:
        raise StackError(f"GET {path}: expected {expected}, got {answer.status_code}: {answer.text[:300]}")
    document = answer.json()
    for event in document.get("events", [document]):
        shown = {name: event[name] for name in ("time", "tenant", "action", "outcome", "target", "detail") if name in event}
        console.print(f"    {json.dumps(shown, ensure_ascii=False)}", markup=False)


def _archive(environment: dict[str, str]) -> int:
    """Run the archive function and return how many events it says it archived."""
    console.print("\n[bold]The archive runs[/bold]")
    return int(_invoke(environment, "ArchiveFunctionName", {"source": "aws.events"})["events"])


def _invoke(environment: dict[str, str], output: str, event: dict[str, Any]) -> dict[str, Any]:
    """Call the function that an output of the stack names, and show its answer."""
    name = _output(environment, output)
    answer = sending.client(environment, "lambda").invoke(FunctionName=name, Payload=json.dumps(event).encode())
    summary: dict[str, Any] = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise StackError(f"{name} failed: {summary.get('errorMessage')}")
    console.print(f"    {json.dumps(summary)}", markup=False)
    return summary


def _prove(environment: dict[str, str], mail: producers.Mail) -> None:
    """Sign the logs, verify them, and hand one actor's failures to somebody who trusts nobody and has only Python."""
    console.print("\n[bold]The logs are signed[/bold]")
    _invoke(environment, "CheckpointFunctionName", {})
    prooftrail = Path(sys.executable).with_name("prooftrail")
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder, "evidence.zip")
        asked = ["--tenant", mail.tenant, "--filter", f"actor={mail.actor}", "--filter", "outcome=failure"]
        _run(os.environ | environment, prooftrail, "verify")
        _run(os.environ | environment, prooftrail, "bundle", *asked, "--out", bundle)
        with zipfile.ZipFile(bundle) as content:
            content.extractall(folder)
        _run({}, sys.executable, "-I", Path(folder, "verify.py"), bundle)


def _run(environment: dict[str, str], *command: str | Path) -> None:
    """Run a command and show it with its last lines."""
    shown = " ".join(Path(part).name if Path(part).is_absolute() else str(part) for part in command)
    console.print(f"\n[bold]{shown}[/bold]")
    result = subprocess.run([str(part) for part in command], check=False, env=environment, capture_output=True, text=True)
    console.print(textwrap.indent(result.stdout.rstrip(), "    "), markup=False, highlight=False, soft_wrap=True)
    if result.returncode != 0:
        raise StackError(f"`{shown}` failed: {result.stderr.strip()}")


def _read_parquet(environment: dict[str, str]) -> int:
    """Read all archived objects as one Hive-partitioned table and return how many events they hold."""
    console.print("\n[bold]DuckDB reads the Parquet[/bold]")
    s3, bucket = sending.client(environment, "s3"), environment["PROOFTRAIL_ARCHIVE_BUCKET"]
    with tempfile.TemporaryDirectory() as folder:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        for item in (item for page in pages for item in page.get("Contents", [])):
            file = Path(folder, item["Key"])
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, item["Key"], str(file))
        files = duckdb.read_parquet(f"{folder}/*/*/*/*.parquet", hive_partitioning=True)
        counted = files.aggregate("tenant, year, month, count(*), min(time)::DATE, max(time)::DATE")
        rows = counted.order("tenant, year, month").fetchall()
    table = Table("tenant", "year", "month", "events", "first", "last")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)
    return sum(row[3] for row in rows)


def _account(environment: dict[str, str]) -> Account:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        row = connection.execute(
            """
            SELECT (SELECT count(*) FROM prooftrail.event WHERE source <> 'prooftrail'),
                   (SELECT coalesce(sum(event_count), 0)::int FROM prooftrail.archive_segment WHERE state = 'archived'),
                   (SELECT count(*) FROM prooftrail.quarantine)
            """
        ).fetchone()
    assert row is not None
    hot, archived, quarantined = row
    return Account(hot, archived, quarantined, duplicate=sum(_reported_duplicates(environment)))


def _output(environment: dict[str, str], name: str) -> str:
    """An output of the one stack that has it."""
    stacks = sending.client(environment, "cloudformation").describe_stacks()["Stacks"]
    outputs = [output for stack in stacks for output in stack.get("Outputs", []) if output["OutputKey"] == name]
    return str(outputs[0]["OutputValue"])


def _reported_duplicates(environment: dict[str, str]) -> Iterator[int]:
    """What each batch wrote in the log of its function, that of the brokers or that of HTTP."""
    logs = sending.client(environment, "logs")
    stack = _output(environment, "IngestFunctionName").removesuffix("-ingest")
    for name in ("ingest", "http"):
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{stack}-{name}")
        for line in (line for page in pages for line in page["events"]):
            if '"batch committed"' in line["message"]:
                yield json.loads(line["message"])["duplicate"]


def _settle(mail: producers.Mail, stored: Account, account: Account, claims: dict[str, bool]) -> None:
    """Print the account, before the archive ran (`stored`) and after, with what must be true of it."""
    table = Table("", "events", title="\nThe account", title_justify="left")
    for name, number in (
        ("sent", mail.sent),
        ("stored", stored.hot),
        ("duplicate", stored.duplicate),
        ("quarantined", stored.quarantined),
        ("hot (PostgreSQL)", account.hot),
        ("archived (Parquet)", account.archived),
    ):
        table.add_row(name, f"{number:,}")
    console.print(table)
    claims = {
        "sent = stored + duplicate + quarantined": mail.sent == stored.hot + stored.duplicate + stored.quarantined,
        "stored = what the producers sent once": stored.hot == mail.distinct,
        "quarantined = what the producers spoiled": stored.quarantined == mail.spoiled,
        "stored = hot + archived": stored.hot == account.hot + account.archived,
    } | claims
    for claim, true in claims.items():
        console.print(f"  {'[green]✓[/green]' if true else '[red]✗[/red]'} {claim}")
    if not all(claims.values()):
        raise StackError("The account does not add up.")


def _progress() -> Progress:
    return Progress(
        TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )

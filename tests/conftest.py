"""What all tests share: a clean environment, and a real PostgreSQL with one database per test.

The server is the one that DATABASE_URL names, else the wheel's own. The schema is migrated once into a template database;
a clone of it takes a tenth of a second.
"""

from __future__ import annotations

import os
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from local import ports, postgres
from prooftrail import invocation, migrations
from prooftrail.database import Connection
from tests.oracle import check_log

PROJECT = Path(__file__).parents[1]
# Real material that is not part of the repository: CloudTrail logs, JSONTestSuite, naughty strings, RFC 8785 vectors.
DATA = Path(os.environ.get("PROOFTRAIL_TEST_DATA", PROJECT.parent / "shared" / "data"))
# Kept under a name of its own, because it is scrubbed below and parallel workers inherit what is left.
SERVER_VARIABLE = "TEST_SERVER_URL"
if "DATABASE_URL" in os.environ:
    os.environ[SERVER_VARIABLE] = os.environ["DATABASE_URL"]

# The same examples each time, so that a run can be repeated; PROOFTRAIL_TEST_RANDOM=1 looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
if "PROOFTRAIL_TEST_RANDOM" not in os.environ:
    hypothesis.settings.load_profile("repeatable")

# Parallel workers read the latter ones.
KEPT = {
    "PROOFTRAIL_STATE_DIR", "PROOFTRAIL_TEST_DATA", "PROOFTRAIL_TEST_DOCUMENTS", "PROOFTRAIL_TEST_ROWS",
    "PROOFTRAIL_TEST_RANDOM",
}  # fmt: skip

# Tests must not depend on what the developer's shell has set; functions read all of these.
for name in list(os.environ):
    if name.startswith(("AWS_", "PROOFTRAIL_", "DATABASE_", "POWERTOOLS_", "PG")) and name not in KEPT:
        del os.environ[name]
os.environ |= {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "POWERTOOLS_METRICS_NAMESPACE": "Prooftrail",
    "POWERTOOLS_SERVICE_NAME": "tests",
    "POWERTOOLS_LOG_LEVEL": "WARNING",
}


class LogDatabase:
    """A migrated database of a test's own; `url` is the admin's."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.admin: Connection = psycopg.connect(url, autocommit=True)

    def url_of(self, role: str) -> str:
        """A URL that acts as one of the functions' roles: ingest, query or archive."""
        return invocation.as_role({"DATABASE_URL": self.url}, f"prooftrail_{role}")

    def connect(self, role: str) -> Connection:
        return psycopg.connect(self.url_of(role), autocommit=True, prepare_threshold=None)

    def count(self, table: str) -> int:
        """How many rows a table has; of the events, those that producers sent."""
        query = sql.SQL("SELECT count(*) FROM prooftrail.{}").format(sql.Identifier(table))
        if table in ("event", "event_key"):
            query += sql.SQL(" WHERE source <> 'prooftrail'")
        row = self.admin.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def segments(self, state: str) -> list[str]:
        """The object keys of the segments in a state."""
        query = "SELECT object_key FROM prooftrail.archive_segment WHERE state = %s ORDER BY id"
        return [key for (key,) in self.admin.execute(query, [state])]


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The admin's URL of a running server."""
    if SERVER_VARIABLE in os.environ:
        yield os.environ[SERVER_VARIABLE]
        return
    directory = tmp_path_factory.mktemp("postgres")
    server = postgres.Server(directory / "data", directory / "log")
    yield server.start(ports.choose("postgres", directory, None), postgres.new_password()).url
    server.stop()


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """The name of a migrated database to clone."""
    with psycopg.connect(server_url, autocommit=True) as server:
        name = _create_database(server, "template0")
        with psycopg.connect(make_conninfo(server_url, dbname=name), autocommit=True) as connection:
            migrations.apply(connection, PROJECT / "migrations")
        yield name
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(server_url: str, template_database: str) -> Iterator[LogDatabase]:
    """A migrated database; when the test is over, whatever it did, the log in it must be sound."""
    with psycopg.connect(server_url, autocommit=True) as server:
        name = _create_database(server, template_database)
        database = LogDatabase(make_conninfo(server_url, dbname=name))
        try:
            yield database
            check_log(database.admin)
        finally:
            database.admin.close()
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create_database(server: Connection, template: str) -> str:
    name = f"prooftrail_test_{uuid.uuid4().hex[:12]}"
    server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
    return name


KINDS = {
    "unit": "no servers",
    "integration": "the handlers on a real PostgreSQL, AWS by moto",
    "interop": "our files read by implementations not ours",
    "client": "the producers' own package, killed and restarted",
    "faults": "processes killed, servers stopped",
    "e2e": "the deployed system in LocalStack",
    "docs": "the README's commands",
}


@pytest.hookimpl(tryfirst=True)  # before the plug-in that reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of the deployed system, and begins with them, because they take longest."""
    for item in items:
        if kind_of(item.nodeid) == "e2e":
            item.add_marker(pytest.mark.xdist_group("stack"))
    items.sort(key=lambda item: kind_of(item.nodeid) != "e2e")


def kind_of(nodeid: str) -> str:
    return nodeid.partition("/")[2].partition("/")[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every kind of test with how it ended, and say loudly what could not run here, and why."""
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    skipped: set[str] = set()
    brokers: set[str] = set()
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            if outcome != "passed" or report.when == "call":
                outcomes[kind_of(report.nodeid)][outcome] += 1
                brokers |= {str(value) for name, value in report.user_properties if name == "broker"}
            if outcome == "skipped":
                skipped.add(f"{report.nodeid.partition('::')[0]}: {report.longrepr[2]}")
    terminalreporter.section("by kind")
    for kind, what in KINDS.items():
        counts = ", ".join(f"{number} {outcome}" for outcome, number in outcomes[kind].items()) or "not asked for"
        terminalreporter.write_line(f"{kind:12} {what:48} {counts}")
    if brokers:
        terminalreporter.write_line(f"brokers      {', '.join(sorted(brokers))}")
    for reason in sorted(skipped):
        terminalreporter.write_line(f"NOT RUN      {reason}", yellow=True, bold=True)

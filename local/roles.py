"""The database's schema, and the passwords of its roles as secrets for the functions."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess

from local.aws import Clients, publish_secret
from local.errors import StackError
from local.layout import Layout
from local.postgres import Database, new_password
from local.store import Store

ROLES = ("prooftrail_ingest", "prooftrail_query", "prooftrail_archive", "prooftrail_checkpoint", "prooftrail_verify")


def passwords(database: Database, store: Store, own_server: bool) -> dict[str, str]:
    """Return the roles' passwords: random on our own server, derived on a shared one, whose users must agree."""
    if not own_server:
        return {role: _derived(database, role) for role in ROLES}
    if not store.get("role_passwords"):
        store.set("role_passwords", {role: new_password() for role in ROLES})
    return dict(store.get("role_passwords"))


def migrate(layout: Layout, database: Database, role_passwords: dict[str, str]) -> str:
    """Apply the migrations and set the passwords; return what the command said."""
    return command(layout, database, "migrate", "--roles-passwords", text=json.dumps(role_passwords))


def command(layout: Layout, database: Database, *arguments: str, text: str = "") -> str:
    """Run `prooftrail` as the administrator and return what it printed."""
    environment = {**os.environ, "DATABASE_URL": database.url, "DATABASE_AUTH": "url"}
    program = [str(layout.scripts / "prooftrail"), *arguments]
    result = subprocess.run(program, check=False, env=environment, input=text, capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip() or "it said nothing").splitlines()[-1]
        raise StackError(f"`prooftrail {arguments[0]}` failed: {reason}")
    return result.stdout.strip()


def publish(clients: Clients, database: Database, role_passwords: dict[str, str]) -> dict[str, str]:
    """Put the passwords where the functions look for them; return the template's parameters."""
    parts = database.parts
    admin = {"username": parts.get("user", ""), "password": parts.get("password", "")}
    return {
        "DatabaseHost": parts["host"],
        "DatabasePort": parts.get("port", "5432"),
        "DatabaseName": parts.get("dbname", parts.get("user", "")),
        "DatabaseTls": _tls(parts.get("sslmode", "prefer")),
        "DatabaseAuth": "secret",
        "DatabaseSecretArn": publish_secret(clients, "prooftrail/roles", role_passwords),
        "DatabaseAdminSecretArn": publish_secret(clients, "prooftrail/admin", admin),
    }


def _derived(database: Database, role: str) -> str:
    parts = database.parts
    key = f"{parts.get('user', '')}:{parts.get('password', '')}"
    return hmac.new(key.encode(), role.encode(), hashlib.sha256).hexdigest()


def _tls(mode: str) -> str:
    # What libpq would merely prefer, the template does not know.
    return {"verify-full": "verify-full", "verify-ca": "require", "require": "require"}.get(mode, "disable")

"""API keys: who asks, and for which tenant. The key itself is shown once and never stored."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

import msgspec

from prooftrail.database import Connection
from prooftrail.errors import PermanentError

ALL_TENANTS = "*"
_PREFIX = "pt_"


class UnknownKey(PermanentError):
    """There is no such key, or it was revoked already."""


class ApiKey(msgspec.Struct, frozen=True):
    """What may be known of a key: `hint` is its beginning, `tenant` None for an operator's."""

    id: int
    hint: str
    tenant: str | None
    label: str
    created_at: datetime
    revoked_at: datetime | None


def create(connection: Connection, tenant: str | None, label: str = "") -> str:
    """Make a key of 256 random bits for one tenant, or for an operator of all (None), and return it."""
    key = _PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO prooftrail.api_key (hash, hint, tenant, label) VALUES (%s, %s, %s, %s)",
        [_hash(key), key[:8], tenant, label],
    )
    return key


def listing(connection: Connection) -> list[ApiKey]:
    """All keys ever made, oldest first."""
    rows = connection.execute("SELECT id, hint, tenant, label, created_at, revoked_at FROM prooftrail.api_key ORDER BY id")
    return [ApiKey(*row) for row in rows]


def revoke(connection: Connection, id: int) -> None:
    """Make a key useless from now on. Raises `UnknownKey` where there is none in use under that id."""
    revoked = connection.execute(
        "UPDATE prooftrail.api_key SET revoked_at = clock_timestamp() WHERE id = %s AND revoked_at IS NULL", [id]
    )
    if not revoked.rowcount:
        raise UnknownKey(f"expected the id of a key in use (see `prooftrail key list`), got {id}")


def tenant_of(connection: Connection, key: str) -> str | None:
    """The tenant that a key reads, `ALL_TENANTS` for an operator's, None for one that is not good."""
    row = connection.execute("SELECT tenant FROM prooftrail.authenticate(%s)", [_hash(key)]).fetchone()
    return None if row is None else str(row[0])


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

"""API keys: who asks, and for which tenant. The key itself is shown once and never stored; its making is an event."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

from prooftrail import system
from prooftrail.database import Connection
from prooftrail.errors import PermanentError
from prooftrail.event import OWN_TENANT, Target, own_event

ALL_TENANTS = "*"
# privacy reads too, and may ask for erasures, and approve another's; a writer sends events and reads nothing
Role: TypeAlias = Literal["reader", "privacy", "writer"]

_PREFIX = "pt_"


class UnknownKey(PermanentError):
    """There is no such key, or it was revoked already."""


class ApiKey(msgspec.Struct, frozen=True):
    """What may be known of a key: `hint` is its beginning, `tenant` None for an operator's."""

    id: int
    hint: str
    tenant: str | None
    label: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


class Holder(msgspec.Struct, frozen=True):
    """Who asks: the key's number and label, the tenant that it is for (`ALL_TENANTS` for an operator's), its role."""

    id: int
    tenant: str
    label: str
    role: Role


def create(connection: Connection, tenant: str | None, label: str = "", role: Role = "reader") -> str:
    """Make a key of 256 random bits for one tenant, or for an operator of all (None), and return it."""
    key = _PREFIX + secrets.token_urlsafe(32)
    with connection.transaction():
        row = connection.execute(
            "INSERT INTO prooftrail.api_key (hash, hint, tenant, label, role) VALUES (%s, %s, %s, %s, %s) RETURNING id",
            [hash_of(key), key[:8], tenant, label, role],
        ).fetchone()
        assert row is not None
        _record(connection, "key.create", row[0], tenant, label=label, role=role)
    return key


def listing(connection: Connection) -> list[ApiKey]:
    """All keys ever made, oldest first."""
    rows = connection.execute(
        "SELECT id, hint, tenant, label, role, created_at, revoked_at FROM prooftrail.api_key ORDER BY id"
    )
    return [ApiKey(*row) for row in rows]


def revoke(connection: Connection, id: int) -> None:
    """Make a key useless from now on. Raises `UnknownKey` where there is none in use under that id."""
    with connection.transaction():
        revoked = connection.execute(
            """
            UPDATE prooftrail.api_key SET revoked_at = clock_timestamp() WHERE id = %s AND revoked_at IS NULL
            RETURNING tenant, label, role
            """,
            [id],
        ).fetchone()
        if revoked is None:
            raise UnknownKey(f"expected the id of a key in use (see `prooftrail key list`), got {id}")
        _record(connection, "key.revoke", id, revoked[0], label=revoked[1], role=revoked[2])


def _record(connection: Connection, action: str, id: int, tenant: str | None, *, label: str, role: Role) -> None:
    key = Target(type="key", id=str(id), name=label or None)
    system.record(connection, own_event(action, tenant=tenant or OWN_TENANT, target=key, metadata={"role": role}))


def presented(headers: Mapping[str, str]) -> str | None:
    """The key of a request: the bearer token, or `x-api-key` where the gateway asks for no key of its own there.

    The names of the headers are in lower case, or found in any.
    """
    scheme, _, token = (headers.get("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


def holder_of(connection: Connection, key: str) -> Holder | None:
    """Whose key this is; None for one that is not good."""
    row = connection.execute("SELECT id, tenant, label, role FROM prooftrail.authenticate(%s)", [hash_of(key)]).fetchone()
    return None if row is None else Holder(*row)


def hash_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

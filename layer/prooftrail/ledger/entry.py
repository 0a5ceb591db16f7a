"""Entry: what an event says, which of it is public for ever, and the leaf that stands for it in the Merkle log.

The leaf is ``SHA-256(0x00 || header)`` (RFC 6962 2.1). The header is canonical JSON (RFC 8785):

    {"commitments":{"actor":H,"private":H,"target":H},"event":{...},"version":1}

``event`` says what kind of thing happened, where and when, and names no person. Who did it (`actor`), to whom (`target`)
and everything free-form (`private`) are there as salted commitments ``H = SHA-256(0x02 || salt || value)``: whoever is
shown salt and value can check them, whoever is not learns nothing, and once both are erased the leaf is what it was.
"""

from __future__ import annotations

import hashlib
from binascii import hexlify
from typing import NamedTuple, TypeAlias

from prooftrail.ledger import merkle

HASH = 32  # bytes of a SHA-256
SALT = 16  # bytes of a salt: 128 random bits cannot be guessed
SALTS = 3 * SALT  # an entry's salts in one: actor, target, private
ERASED = bytes(SALT)  # stands where a salt was, and where none is needed
NONE = bytes(HASH)  # stands for the commitment to an actor or a target that the event does not have

# The columns in the header, and those in the private part; actor_id and target_id have a commitment each.
PUBLIC = (
    "action", "actor_type", "category", "id", "level", "outcome", "sequence", "site", "source", "target_type", "tenant",
    "time",
)  # fmt: skip
PRIVATE = (
    "actor_ip", "actor_name", "actor_roles", "actor_session_id", "actor_user_agent", "after", "before", "duration_ms",
    "error_code", "error_message", "error_stack_trace", "message", "metadata", "request_id", "target_name", "trace_id",
)  # fmt: skip

# To actor, target and private part; None where the event has no actor or no target.
Commitments: TypeAlias = tuple[bytes | None, bytes | None, bytes]


class Statement(NamedTuple):
    """What an event says, as canonical JSON; actor and target are None where it has none, or they were erased."""

    public: bytes
    actor: bytes | None
    target: bytes | None
    private: bytes

    def digest(self) -> bytes:
        """SHA-256 over all of it, without salts: equal events, equal digests (32 bytes)."""
        return hashlib.sha256(b"\n".join([self.public, self.actor or b"", self.target or b"", self.private])).digest()


def commitment(salt: bytes, value: bytes) -> bytes:
    """Commit to a value in canonical JSON: 32 bytes that tell nothing without the salt (16 bytes)."""
    return hashlib.sha256(b"\x02" + salt + value).digest()


def commitments(statement: Statement, salts: bytes, kept: bytes | None = None) -> Commitments:
    """The entry's commitments, from its salts (48 bytes); those of erased parts are taken from `kept` (96 bytes)."""
    _, actor, target, private = statement
    derived = (
        None if actor is None else commitment(salts[:SALT], actor),
        None if target is None else commitment(salts[SALT : 2 * SALT], target),
        commitment(salts[2 * SALT :], private),
    )
    return derived if kept is None else _with_kept(derived, salts, kept)


def _with_kept(derived: Commitments, salts: bytes, kept: bytes) -> Commitments:
    actor, target, private = (
        kept[part * HASH : (part + 1) * HASH] if salts[part * SALT : (part + 1) * SALT] == ERASED else derived[part]
        for part in range(3)
    )
    return None if actor == NONE else actor, None if target == NONE else target, private or NONE


def used(salts: bytes, statement: Statement) -> bytes:
    """The salts (48 bytes), zeros for parts that the event does not have: what binds nothing could be changed unseen."""
    if statement.actor is None:
        salts = ERASED + salts[SALT:]
    if statement.target is None:
        salts = salts[:SALT] + ERASED + salts[2 * SALT :]
    return salts


def pack(of: Commitments) -> bytes:
    """Put the commitments in one (96 bytes), as an entry of which parts were erased keeps them."""
    return b"".join(part or NONE for part in of)


def header(public: bytes, of: Commitments) -> bytes:
    """The entry's header: what is hashed, what a bundle carries, what an auditor reads."""
    actor, target, private = of
    who = b"" if actor is None else b'"actor":"%b",' % hexlify(actor)
    whom = b"" if target is None else b',"target":"%b"' % hexlify(target)
    return b'{"commitments":{%b"private":"%b"%b},"event":%b,"version":1}' % (who, hexlify(private), whom, public)


def leaf(statement: Statement, salts: bytes, kept: bytes | None = None) -> bytes:
    """The entry's leaf hash (32 bytes)."""
    return merkle.leaf_hash(header(statement.public, commitments(statement, salts, kept)))

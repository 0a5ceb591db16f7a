"""Rows as they are stored, from PostgreSQL or from Parquet, in one form; and what each of them commits to.

The form is values in the order of `FIELDS`: numbers and bytes are what they are, a time is in the form of the log, roles
and JSON are JSON texts. From there to the leaf it is a third of the way that goes through an `Event`, and must come to the
same: a test compares the two.
"""

from __future__ import annotations

import hashlib
import json
import re
from binascii import hexlify
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
from psycopg import sql

from prooftrail import strict_json
from prooftrail.errors import PermanentError, ProoftrailError
from prooftrail.event import canonical_time
from prooftrail.ledger import canonical, entry
from prooftrail.ledger.entry import PRIVATE, PUBLIC, Statement

if TYPE_CHECKING:
    from arro3.core import RecordBatch

Row: TypeAlias = tuple[Any, ...]

FIELDS = ("batch_id", "position", "salt", "commitments", "actor_id", "target_id", *PUBLIC, *PRIVATE)
# What PostgreSQL knows of the row's key besides: its digest (None where something was erased), and its time where that is
# another.
KEY_FIELDS = ("key", "key_time")
NO_KEY = b""  # stands for the digest where there is no key
AT = {name: position for position, name in enumerate((*FIELDS, *KEY_FIELDS))}

BATCH, POSITION, SALT, COMMITMENTS, ACTOR, TARGET = range(6)
KEY, KEY_TIME = AT["key"], AT["key_time"]
_ROLES, _DURATION = AT["actor_roles"], AT["duration_ms"]
_JSON = tuple(AT[name] for name in ("after", "before", "metadata"))
_PUBLIC = slice(AT[PUBLIC[0]], AT[PUBLIC[-1]] + 1)
_PRIVATE = slice(AT[PRIVATE[0]], AT[PRIVATE[-1]] + 1)

# The two parts as objects whose members are in canonical order, so that encoding them as they stand is canonical.
_Public = msgspec.defstruct("_Public", [(name, Any, None) for name in PUBLIC], omit_defaults=True, gc=False)
_Private = msgspec.defstruct("_Private", [(name, Any, None) for name in PRIVATE], omit_defaults=True, gc=False)
_encode = msgspec.json.Encoder().encode
_sha256 = hashlib.sha256
# What decoding and encoding raise of what no event can hold.
_NO_VALUE = (msgspec.MsgspecError, ProoftrailError, ValueError, RecursionError, OverflowError)


class Unreadable(PermanentError):
    """A column holds what no event can have held; the message says which and what."""


def query(
    month: date, condition: sql.Composable, key_times: tuple[str, str] | None = None, limit: int | None = None
) -> sql.Composed:
    """The rows of a month, with what is known of their keys; `event` is the partition's name in the condition.

    Of a row whose key is of another month, or not in the span of `key_times`, it is not known that there is one: then it
    seems to have none.
    """
    within_span = sql.SQL("true") if key_times is None else _between(sql.SQL("key.time"), *key_times)
    return sql.SQL(
        """
        SELECT {columns},
               CASE WHEN key.id IS NULL THEN '' ELSE key.digest END,
               {key_time}
        FROM {partition} AS event
        LEFT JOIN prooftrail.event_key AS key
            ON key.tenant = event.tenant AND key.id = event.id AND key.source = event.source
            AND {key_month} AND {within_span}
        WHERE {condition} LIMIT {limit}
        """
    ).format(
        columns=sql.SQL(", ").join(map(_column, FIELDS)),
        key_time=time_of(sql.SQL("nullif(key.time, event.time)")),
        partition=sql.Identifier("prooftrail", partition(month)),
        key_month=within(sql.SQL("key.time"), month),
        within_span=within_span,
        condition=condition,
        limit=sql.Literal(limit),
    )


def partition(month: date) -> str:
    """The name of a month's partition."""
    return f"event_{month:%Y_%m}"


def within(time: sql.Composable, month: date) -> sql.Composed:
    """That a time is in a month, in UTC."""
    following = (month + timedelta(days=31)).replace(day=1)
    begin, end = (sql.Literal(f"{day:%Y-%m-%d} 00:00:00+00") for day in (month, following))
    return sql.SQL("{0} >= timestamptz {1} AND {0} < timestamptz {2}").format(time, begin, end)


def _between(time: sql.Composable, least: str, greatest: str) -> sql.Composed:
    # In subqueries, which hide the values from the planner: of the newest its statistics say that there are next to none.
    return sql.SQL("{} BETWEEN (SELECT timestamptz {}) AND (SELECT timestamptz {})").format(
        time, sql.Literal(least), sql.Literal(greatest)
    )


def time_of(column: sql.Composable) -> sql.Composed:
    """A column's time in the form of the log (see `event.canonical_time`)."""
    return sql.SQL("""to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""").format(column)


def _column(name: str) -> sql.Composed:
    column = sql.Identifier("event", name)
    if name == "time":
        return time_of(column)
    if name == "actor_roles":
        return sql.SQL("array_to_json({})::text").format(column)  # which PostgreSQL writes as RFC 8785 does
    return sql.SQL("{}::text" if AT[name] in _JSON else "{}").format(column)


def from_parquet(batch: RecordBatch, tenant: str) -> Iterator[Row]:
    """The rows of a batch of a segment's object, in the form of `FIELDS`; `tenant` is the one that its path names."""
    columns = [
        [tenant] * batch.num_rows if name == "tenant" else _formed(name, batch.column(name).to_pylist()) for name in FIELDS
    ]
    return zip(*columns, strict=True)


def _formed(name: str, values: list[Any]) -> list[Any]:
    form = _FORMS.get(name)
    return values if form is None else [None if value is None else form(value) for value in values]


def _of_one_meaning(text: str) -> str:
    """JSON in an object is text: with two values under one key it would show one and pass for another; "" never passes."""
    try:
        strict_json.decode(text.encode())
    except ProoftrailError:
        return ""
    return text


_FORMS: dict[str, Callable[[Any], str]] = {
    "time": canonical_time,
    "actor_roles": lambda value: _encode(value).decode(),
    **dict.fromkeys(("after", "before", "metadata"), _of_one_meaning),
}


def quick(row: Row) -> tuple[bytes, bytes] | None:
    """The leaf and the digest of most rows. What they fit is right; what they do not, or None, is for `derive` to see.

    All in one, because millions of rows pass here: `derive` says in order what is done.
    """
    _, _, salts, kept, actor, target = row[: TARGET + 1]
    if kept is not None or salts is None:
        return None
    try:
        private_part = _quick_private(row)
    except _NO_VALUE:
        return None
    public_part = _encode(_Public(*row[_PUBLIC]))
    said_actor = who = said_target = whom = b""
    if actor is not None:
        said_actor = _encode(actor)
        who = b'"actor":"%b",' % hexlify(_sha256(b"\x02" + salts[:16] + said_actor).digest())
    elif salts[:16] != entry.ERASED:
        return None
    if target is not None:
        said_target = _encode(target)
        whom = b',"target":"%b"' % hexlify(_sha256(b"\x02" + salts[16:32] + said_target).digest())
    elif salts[16:32] != entry.ERASED:
        return None
    hidden = hexlify(_sha256(b"\x02" + salts[32:] + private_part).digest())
    header = (
        b'\x00{"commitments":{', who, b'"private":"', hidden, b'"', whom, b'},"event":', public_part, b',"version":1}',
    )  # fmt: skip
    digest = _sha256(b"\n".join((public_part, said_actor, said_target, private_part)))
    return _sha256(b"".join(header)).digest(), digest.digest()


def _quick_private(row: Row) -> bytes:
    """The private part of most rows, decoded and encoded in one go."""
    part: Any = _Private(*row[_PRIVATE])
    if part.after is not None:
        part.after = _decode(part.after)
    if part.before is not None:
        part.before = _decode(part.before)
    if part.metadata is not None:
        part.metadata = _decode(part.metadata)
    if part.actor_roles is not None:
        part.actor_roles = msgspec.Raw(part.actor_roles)
    duration = part.duration_ms
    if duration is not None and duration.is_integer():
        part.duration_ms = int(duration)  # the encoder writes other doubles like ECMAScript, but for those with an exponent
    return _encode_sorted(part)


class Derived(NamedTuple):
    """What a row gives: its leaf, its digest (None where a part was erased), and which parts were erased.

    `fault` is what the leaf does not depend on and must not be as it is all the same, beginning with the column.
    """

    leaf: bytes
    digest: bytes | None
    erased: tuple[str, ...] = ()
    fault: str = ""


PARTS = ("actor", "target", "private")
_COLUMNS_OF = {"actor": "actor_id", "target": "target_id", "private": "private columns"}


def derive(row: Row) -> Derived:
    """Derive the leaf from the columns. Raises `Unreadable` where they cannot be those of any entry."""
    said = statement(row)
    salts = _bytes(row, SALT, entry.SALTS)
    if row[COMMITMENTS] is not None:
        return _derive_erased(said, salts, _bytes(row, COMMITMENTS, 3 * entry.HASH))
    fault = "" if entry.used(salts, said) == salts else "salt: expected zeros for a part that the event does not have"
    return Derived(entry.leaf(said, salts), said.digest(), fault=fault)


def _derive_erased(said: Statement, salts: bytes, kept: bytes) -> Derived:
    """Of a row whose `commitments` say that parts were erased: those must be gone, and the others what was committed to."""
    values = (said.actor, said.target, None if said.private == b"{}" else said.private)
    erased = tuple(
        name
        for part, name in enumerate(PARTS)
        if _of(salts, part, entry.SALT) == entry.ERASED and _of(kept, part, entry.HASH) != entry.NONE
    )
    left = [name for name, value in zip(PARTS, values, strict=True) if name in erased and value is not None]
    if left:
        fault = f"{_COLUMNS_OF[left[0]]}: expected nothing, for it was erased"
    elif not erased:
        fault = "commitments: expected NULL, for nothing was erased"
    elif entry.pack(entry.commitments(said, salts, kept)) != kept:
        fault = "commitments: expected those of the parts that are still there"
    else:
        fault = ""
    return Derived(entry.leaf(said, salts, kept), None, erased, fault)


def _of(data: bytes, part: int, size: int) -> bytes:
    return data[part * size : (part + 1) * size]


def _bytes(row: Row, at: int, size: int) -> bytes:
    value: bytes | None = row[at]
    if value is None or len(value) != size:
        raise Unreadable(f"{FIELDS[at]}: expected {size} bytes, found {'NULL' if value is None else len(value)}")
    return value


def statement(row: Row) -> Statement:
    """What the row says, in canonical JSON. Raises `Unreadable`."""
    return Statement(public(row), text(row[ACTOR]), text(row[TARGET]), private(row))


def text(value: str | None) -> bytes | None:
    """An actor's or target's id in canonical JSON."""
    return None if value is None else _encode(value)


def public(row: Row) -> bytes:
    """The public part of what the row says."""
    return _encode(_Public(*row[_PUBLIC]))


def private(row: Row) -> bytes:
    """The private part of what the row says. Raises `Unreadable` where JSON or a number is none that an event can hold."""
    values = list(row[_PRIVATE])
    for at in _JSON:
        text = row[at]
        if text is not None:
            try:
                values[at - _PRIVATE.start] = msgspec.Raw(_canonical_json(text))
            except _NO_VALUE as error:
                raise Unreadable(f"{FIELDS[at]}: expected JSON that an event can hold: {error}") from None
    roles, duration = row[_ROLES], row[_DURATION]
    if roles is not None:
        values[_ROLES - _PRIVATE.start] = msgspec.Raw(roles)
    if duration is not None:
        values[_DURATION - _PRIVATE.start] = _canonical_number(duration)
    return _encode(_Private(*values))


def _canonical_number(value: float) -> msgspec.Raw:
    try:
        return msgspec.Raw(canonical.number(value))
    except ProoftrailError as error:
        raise Unreadable(f"duration_ms: {error}") from None


def _canonical_json(text: str) -> bytes:
    if _needs_the_exact_way(text):
        return canonical.encode(json.loads(text, parse_float=_number, parse_int=_number))
    return _quick_json(text)


_needs_the_exact_way = re.compile("[\U00010000-\U0010ffff]|[0-9]{19}").search


def _number(text: str) -> float:
    """A number as the log knows it. Raises `ValueError` where no event can have held it: then it was changed."""
    value, number = Decimal(text), float(text)
    if value == value.to_integral_value() and strict_json.INT64_MIN <= value <= strict_json.UINT64_MAX:
        return int(value)  # 7.0 is 7, however large
    if value != Decimal(repr(number)):
        raise ValueError(f"{text[:40]} is neither a 64-bit integer nor exactly a double")
    return number


def _quick_json(text: str) -> bytes:
    """Canonical but where keys are beyond the Basic Multilingual Plane or integers beyond 64 bits.

    There it is another spelling of the same value; so it is never taken for the canonical form of another value.
    """
    return _encode_sorted(_decode(text))


def _quick_float(text: str) -> msgspec.Raw:
    if repr(float(text)) == text and not text.endswith(".0"):
        return msgspec.Raw(text)
    return msgspec.Raw(canonical.encode(_number(text)))


_decode = msgspec.json.Decoder(float_hook=_quick_float).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode

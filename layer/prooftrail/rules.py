"""Rules: what the events of an action must look like, as JSON Schemas that operators set (see `catalogue`).

A rule is of one tenant, category and action. It sees the event as native JSON, whatever format it came in. An event that
breaks it is quarantined, or stored as it is and flagged by one of our own events, as the rule says.
"""

from __future__ import annotations

import functools
import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import msgspec

from prooftrail import strict_json
from prooftrail.database import Connection
from prooftrail.errors import InvalidRecord, PermanentError
from prooftrail.event import Event, Target, own_event
from prooftrail.formats import Accepted, Rejected

if TYPE_CHECKING:  # loaded where a tenant has a rule
    from jsonschema_rs import Draft202012Validator, ValidationError

BELIEVED = 60.0  # seconds: what is changed is obeyed by every ingest function after that
DIALECT = "https://json-schema.org/draft/2020-12/schema"
LONGEST_SCHEMA = 64 * 1024  # bytes
MOST_FAULTS = 5  # that are told of one event
FLAGS = 100  # events that one of our own events flags

OnViolation: TypeAlias = Literal["quarantine", "flag"]
_Key: TypeAlias = tuple[str, str | None, str]  # tenant, category, action


class InvalidSchema(PermanentError):
    """It is no JSON Schema that could be applied to events; the message says where and why."""


class Rule(NamedTuple):
    """A schema, ready to be asked, and what becomes of events that it does not let through."""

    on_violation: OnViolation
    validator: Draft202012Validator


class Rules:
    """All tenants' rules, as one connection's ingest knows them; those that changed are known within `BELIEVED` seconds."""

    def __init__(self) -> None:
        self._rules: dict[_Key, Rule] = {}
        self._read_at = -math.inf

    def renew(self, connection: Connection) -> None:
        """Read the rules again if it is time to. Raises `psycopg.Error` as any query does."""
        if time.monotonic() - self._read_at < BELIEVED:
            return
        rows = connection.execute(
            "SELECT tenant, nullif(category, ''), action, on_violation, schema::text FROM prooftrail.action_schema"
        ).fetchall()
        self._rules = dict(_usable(rows))
        self._read_at = time.monotonic()

    def refusals(self, accepted: Sequence[Accepted]) -> dict[int, Rejected]:
        """Those that must go to quarantine, by their numbers in the sequence."""
        broken = self._broken("quarantine", (item.event for item in accepted))
        return {number: _refusal(accepted[number], faults) for number, faults in broken.items()}

    def flags(self, events: Sequence[Event]) -> list[Event]:
        """Our own events that flag those that are stored although they break a rule, each up to `FLAGS` of an action."""
        by_action: dict[_Key, list[dict[str, Any]]] = defaultdict(list)
        for number, faults in self._broken("flag", events).items():
            event = events[number]
            said = {
                "id": event.id,
                "source": event.source,
                "schema_paths": [_pointer(fault.schema_path) for fault in faults],
            }
            by_action[_key(event)].append(said)
        return [
            _flag(key, said[start : start + FLAGS])
            for key, said in by_action.items()
            for start in range(0, len(said), FLAGS)
        ]

    def _broken(self, mode: OnViolation, events: Iterable[Event]) -> dict[int, list[ValidationError]]:
        if not self._rules:
            return {}
        judged = ((number, event, self._rules.get(_key(event))) for number, event in enumerate(events))
        found = ((number, _faults(rule, event)) for number, event, rule in judged if rule and rule.on_violation == mode)
        return {number: faults for number, faults in found if faults}


@functools.lru_cache(maxsize=1000)
def compiled(schema: str) -> Draft202012Validator:
    """Make a JSON Schema (draft 2020-12) ready to be asked. Raises `InvalidSchema`.

    It may refer to nothing outside of itself, and its patterns are matched in linear time (so they have no look-around and
    no back references), because what is matched comes from anybody. `format` is checked.
    """
    import jsonschema_rs

    if len(schema.encode()) > LONGEST_SCHEMA:
        raise InvalidSchema(f"expected a schema of at most {LONGEST_SCHEMA} bytes")
    document = _document(schema)
    try:
        # Messages must not quote values, which may be about persons.
        return jsonschema_rs.Draft202012Validator(
            document, validate_formats=True, mask="the value", offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise InvalidSchema(
            f"at {_pointer(getattr(error, 'instance_path', []))}: {getattr(error, 'message', error)}"
        ) from None


def _document(schema: str) -> dict[str, Any]:
    try:
        document = strict_json.decode(schema.encode())
    except InvalidRecord as error:
        raise InvalidSchema(f"expected a JSON Schema: {error.detail}") from None
    if not isinstance(document, dict):
        raise InvalidSchema("expected a JSON Schema that is an object")
    if document.get("$schema", DIALECT) != DIALECT:
        raise InvalidSchema(f"expected $schema to be {DIALECT}, or left out")
    return document


def _usable(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[_Key, Rule]]:
    """The rules that can be asked; one that cannot was not set by `catalogue`, and must not stop everything else."""
    for tenant, category, action, on_violation, schema in rows:
        try:
            yield (tenant, category, action), Rule(on_violation, compiled(schema))
        except InvalidSchema as error:
            from prooftrail.telemetry import logger  # not before: it belongs to functions, and this to commands too

            logger.error("a rule cannot be used", extra={"tenant": tenant, "action": action, "cause": str(error)})


def _key(event: Event) -> _Key:
    return event.tenant, event.category, event.action


def _faults(rule: Rule, event: Event) -> list[ValidationError]:
    document = msgspec.to_builtins(event)
    if rule.validator.is_valid(document):
        return []
    return list(itertools.islice(rule.validator.iter_errors(document), MOST_FAULTS))


def _refusal(item: Accepted, faults: Sequence[ValidationError]) -> Rejected:
    detail = "; ".join(f"at {_pointer(fault.instance_path)}: {fault.message}" for fault in faults)
    fields = {".".join(map(str, fault.instance_path)) or "event": fault.message for fault in faults}
    return Rejected(item.record, "schema-violation", detail, fields)


def _pointer(path: Iterable[str | int]) -> str:
    """A JSON Pointer (RFC 6901), which begins with a slash even where it is the whole."""
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in path)


def _flag(key: _Key, events: list[dict[str, Any]]) -> Event:
    """Says which events, and which parts of the schema they break, but nothing of what is in them."""
    tenant, category, action = key
    said = {"category": category, "action": action, "count": len(events), "events": events}
    return own_event(
        "catalogue.violation", tenant=tenant, level="warning", target=Target(type="action", id=action), metadata=said
    )

"""A bundle's summary.html: for a reader, on screen and on paper; what it says is not evidence, the other files are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import msgspec

from prooftrail.bundle.question import Parts, Question
from prooftrail.event import canonical_time
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import COSIGNATURE, VerifierKey

LISTED = 1000  # events in the table; a longer one nobody reads
_TEMPLATE = Path(__file__).with_name("summary.html")
_WORDS = {
    "actor": "Who did it",
    "action": "What was done",
    "category": "Category",
    "level": "Level",
    "outcome": "How it ended",
    "site": "Where",
    "source": "Reported by",
    "target_id": "To whom or what",
    "target_type": "To what kind",
}


class Listed(NamedTuple):
    """An event as the table has it: its place in the log, the public part of its header, and the values of its parts."""

    place: int
    public: dict[str, Any]
    parts: dict[str, Any]


class Result(NamedTuple):
    """What a bundle came to; `unknown` entries were erased, so that nobody knows whether they match."""

    entries: int
    events: int
    unknown: int
    listed: Sequence[Listed]


def render(
    question: Question, result: Result, checkpoint: Checkpoint, keys: Sequence[VerifierKey], verifier: bytes
) -> bytes:
    """Fill the page in; `verifier` is the content of verify.py."""
    witnesses = [key.name for key in keys if key.kind == COSIGNATURE]
    count = f"{result.events:,}" if result.events else "None"
    page = {
        "title": _text(checkpoint.origin),
        "headline": f"{count} of {result.entries:,} entries {'match' if result.events > 1 else 'matches'}",
        "lead": f"From the log {_text(checkpoint.origin)}, as it was with {checkpoint.size:,} entries.",
        "erased": _erased(result.unknown),
        "question": _definitions(_asked(question)),
        "events": _table(result),
        "keys": _text("\n".join(map(str, keys))),
        "verifier": hashlib.sha256(verifier).hexdigest(),
        "signed": _signed(witnesses),
        "unseen": _unseen(witnesses),
        "log": _definitions(
            [("Name", checkpoint.origin), ("Entries", f"{checkpoint.size:,}"), ("Root", checkpoint.root.hex())]
        ),
    }
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(page).encode()


def _asked(question: Question) -> list[tuple[str, str]]:
    asked = [("Tenant", question.tenant)]
    asked += [(_WORDS[name], value) for name, value in sorted(question.equal.items())]
    asked += [("From", _time(canonical_time(question.since)))] if question.since else []
    asked += [("Before", _time(canonical_time(question.until)))] if question.until else []
    asked += [
        ("Left out", f"what Prooftrail itself recorded ({name} {value})") for name, value in question.unequal().items()
    ]
    return [*asked, ("Among", f"the entries {question.first:,} to {question.end - 1:,} of the log, counted from 0")]


def _signed(witnesses: list[str]) -> str:
    if not witnesses:
        return "The log's key has signed this state of the log."
    return f"The log's key has signed this state of the log, and {_text(' and '.join(witnesses))} saw it and signed too."


def _unseen(witnesses: list[str]) -> str:
    if not witnesses:
        return "That everybody was shown this same log: no witness has signed. Compare it with a checkpoint you kept."
    return "That anybody but those who signed was shown this same log."


def _erased(unknown: int) -> str:
    if not unknown:
        return ""
    entries = "1 entry was" if unknown == 1 else f"{unknown:,} entries were"
    return f'<p class="note">{entries} erased, on record in the log: whether they matched can no longer be known.</p>'


def _table(result: Result) -> str:
    if not result.events:
        return "<p>Nothing. The bundle proves that there is no such event in the range.</p>"
    heads = "".join(f"<th>{name}</th>" for name in ("Time", "Who", "Did what", "To whom or what", "Outcome", "Reported by"))
    rows = "\n".join(map(_row, result.listed))
    more = result.events - len(result.listed)
    rest = f"<p class='soft'>And {more:,} more: events.jsonl has them all.</p>" if more else ""
    return (
        f'<table>\n<thead><tr><th class="number">Entry</th>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>{rest}'
    )


def _row(event: Listed) -> str:
    private = event.parts.get("private") or {}
    cells = [
        f'<td class="number">{event.place:,}</td>',
        f'<td class="time">{_text(_time(event.public["time"]))}</td>',
        _cell(event.parts, "actor", private.get("actor_name"), event.public.get("actor_type")),
        f"<td>{_text(event.public['action'])}{_small(private.get('message'))}</td>",
        _cell(event.parts, "target", private.get("target_name"), event.public.get("target_type")),
        f"<td>{_text(event.public['outcome'])}</td>",
        f"<td>{_text(event.public['source'])}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _cell(parts: dict[str, Any], name: str, *further: str | None) -> str:
    """Somebody or something by id, with what else is known below it."""
    if name not in parts:
        return f"<td>{_small(', '.join(filter(None, further)))}</td>"
    value = '<span class="soft">erased</span>' if parts[name] is None else _text(parts[name])
    return f"<td>{value}{_small(', '.join(filter(None, further)))}</td>"


def _small(text: str | None) -> str:
    return f"<small>{_text(text)}</small>" if text else ""


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  <dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in pairs)


def _time(canonical: str) -> str:
    """RFC 3339 as people read it, to the second where there is nothing below it."""
    day, _, clock = canonical.rstrip("Z").partition("T")
    return f"{day} {clock.removesuffix('.000000')} UTC"


def _text(value: str) -> str:
    """Text that says what it says and does nothing else: escaped, and kept from turning the direction of what follows."""
    return f"<bdi>{escape(value)}</bdi>" if not value.isascii() else escape(value)


def listed(index: int, header: bytes, parts: Parts) -> Listed:
    """An event for the table, from its header and its parts."""
    values = {name: None if "erased" in part else msgspec.json.decode(part["value"]) for name, part in parts.items()}
    return Listed(index, msgspec.json.decode(header)["event"], values)

"""Findings: what is not as it must be, named as exactly as can be known."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal[
    "changed",  # the columns of an entry are not what its log committed to
    "missing",  # an entry of the log is in neither tier
    "inserted",  # a row is no entry of any log
    "doubled",  # an entry is there more than once
    "moved",  # an entry is in the place of another
    "key",  # the key of an event is not the event's, or has none
    "erased",  # values are gone, and no erasure in the log explains it
    "batch",  # a batch is not what its log says it is
    "log",  # a log's head is not where its batches lead
    "checkpoint",  # a log is not what was signed
    "segment",  # an archived object is not what the manifest says
    "quarantine",  # a quarantined record is not what the log says was quarantined
]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is not as it must be.

    `where` is a table or an archived object. `column` is the changed one where it could be found out, else `columns` are
    those that may be. `index` is the entry's in its log. `expected` and `found` are values as text.
    """

    kind: Kind
    tenant: str
    where: str
    index: int | None = None
    batch: int | None = None
    position: int | None = None
    source: str | None = None
    id: str | None = None
    column: str | None = None
    columns: tuple[str, ...] = ()
    expected: str | None = None
    found: str | None = None
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self._what()}, in {self.where}: {self._how()}"

    def _what(self) -> str:
        parts = [f"log {self.tenant}"] if self.tenant else []
        if self.index is not None:
            parts.append(f"entry {self.index}")
        if self.id is not None:
            parts.append(f"event {self.id!a} of {self.source!a}")
        if self.batch is not None:
            parts.append(f"batch {self.batch}" + ("" if self.position is None else f" position {self.position}"))
        return ", ".join(parts) or "all logs"

    def _how(self) -> str:
        parts = [self.detail] if self.detail else []
        if self.expected is not None or self.found is not None:
            name = f"{self.column}: " if self.column else ""
            parts.insert(0, f"{name}expected {_shown(self.expected)}, found {_shown(self.found)}")
        elif self.column:
            parts = [f"{self.column}: {self.detail or 'it was changed'}"]
        if self.columns:
            parts.append(f"one of {', '.join(self.columns)}")
        return "; ".join(parts)

    def without_values(self) -> Finding:
        """The finding without what events hold, which may be about persons: for logs and tables that many read."""
        return msgspec.structs.replace(self, expected=None, found=None) if self.kind in _QUOTING else self


_QUOTING = {"changed", "moved", "inserted", "doubled", "key"}
_LONGEST = 200  # characters of a value that is shown


def _shown(value: str | None) -> str:
    if value is None:
        return "NULL"
    return f"{value!a}" if len(value) <= _LONGEST else f"{value[:_LONGEST]!a} and {len(value) - _LONGEST} characters more"

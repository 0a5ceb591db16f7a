"""The file that `source .local/stack.env` reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from local.store import write_private


def write(file: Path, values: Mapping[str, str]) -> None:
    """Write the values so that any POSIX shell takes them as they are."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    write_private(file, "\n".join(lines) + "\n")


def read(file: Path) -> dict[str, str]:
    """Return what `write` wrote; nothing when there is no file."""
    if not file.exists():
        return {}
    words = shlex.split(file.read_text(encoding="utf-8"))
    return dict(word.split("=", 1) for word in words if word != "export")

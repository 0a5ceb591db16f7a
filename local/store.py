"""What a stack remembers between runs: ports, passwords, keys. One private JSON file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from local.errors import StackError


class Store:
    """A small dictionary on disk."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values = _read(file)

    def get(self, name: str) -> Any:
        """Return a value, or None."""
        return self._values.get(name)

    def set(self, name: str, value: Any) -> None:
        """Remember a value; the file is replaced in one step, so a crash leaves the old or the new one."""
        self._values[name] = value
        write_private(self._file, json.dumps(self._values, indent=1))


def write_private(file: Path, text: str) -> None:
    """Replace a file that only its owner may read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as output:
        output.write(text)
    draft.replace(file)


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise StackError(f"{file} is not valid JSON; restore it, or delete the whole directory to start afresh.") from None

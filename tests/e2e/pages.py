"""Pages of the documentation, followed to the letter: their files are written, their commands run, their answers read."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.e2e.conftest import System

_BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


class Page:
    """What a page has its reader do."""

    def __init__(self, path: Path) -> None:
        blocks = list(_BLOCK.finditer(path.read_text()))
        self._files = {block["file"]: block["text"] for block in blocks if block["file"]}
        self._script = "set -euo pipefail\n" + "\n".join(block["text"] for block in blocks if block["language"] == "sh")
        # The answers that it shows.
        self.shown = [json.loads(block["text"]) for block in blocks if block["language"] == "json" and not block["file"]]

    def follow(self, system: System, directory: Path) -> list[Any]:
        """Write its files into the directory and run its commands there; the JSON texts that they printed."""
        for name, text in self._files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(text)
        done = subprocess.run(
            ["bash", "-c", self._script],
            cwd=directory,
            env=os.environ | system.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return list(_answers(done.stdout))


def _answers(output: str) -> Iterator[Any]:
    """The JSON texts that commands printed one after the other, in one line or several."""
    while start := output.find("{") + 1:
        answer, end = json.JSONDecoder().raw_decode(output, start - 1)
        yield answer
        output = output[end:]

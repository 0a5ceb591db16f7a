"""The pages for producers, followed to the letter: their files are written, their commands run, their answers come."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PROJECT
from tests.e2e.conftest import System

PAGES = sorted((PROJECT / "docs" / "producers").glob("*.md"))
BLOCK = re.compile(r"^```(?P<language>\w+)(?: (?P<file>\S+))?\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
NEEDS = {"spring-boot": ("mvn", "java"), "go": ("go",)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_whoever_follows_the_page_gets_the_answer_that_it_shows(system: System, page: Path, tmp_path: Path) -> None:
    absent = [program for program in NEEDS.get(page.stem, ()) if shutil.which(program) is None]
    if absent:
        pytest.skip(f"docs/producers/{page.name} was not followed: there is no {' and no '.join(absent)} here")
    if "RABBITMQ_URL" in page.read_text() and not system.environment.get("RABBITMQ_URL"):
        pytest.skip(f"docs/producers/{page.name} was not followed: there is no RabbitMQ; install rabbitmq-server")
    blocks = list(BLOCK.finditer(page.read_text()))
    for block in blocks:
        if block["file"]:
            file = tmp_path / block["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block["text"])
    for name in (".venv", "client"):
        (tmp_path / name).symlink_to(PROJECT / name)
    script = "set -euo pipefail\n" + "\n".join(block["text"] for block in blocks if block["language"] == "sh")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=os.environ | system.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (shown,) = [json.loads(block["text"]) for block in blocks if block["language"] == "json" and not block["file"]]
    assert list(answers(done.stdout))[-1] == shown


def answers(output: str) -> Iterator[Any]:
    """The JSON texts that commands printed one after the other, in one line or several."""
    while start := output.find("{") + 1:
        answer, end = json.JSONDecoder().raw_decode(output, start - 1)
        yield answer
        output = output[end:]

"""The pages for producers: whoever follows one gets the answer that it shows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.e2e.conftest import System
from tests.e2e.pages import Page

PAGES = sorted((PROJECT / "docs" / "producers").glob("*.md"))
NEEDS = {"spring-boot": ("mvn", "java"), "go": ("go",)}
# What Maven and Go say where their packages cannot be had.
UNREACHED = re.compile(r"Could not transfer artifact|^go: \S+: Get \"https://", re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_whoever_follows_the_page_gets_the_answer_that_it_shows(system: System, path: Path, tmp_path: Path) -> None:
    absent = [program for program in NEEDS.get(path.stem, ()) if shutil.which(program) is None]
    if absent:
        pytest.skip(f"docs/producers/{path.name} was not followed: there is no {' and no '.join(absent)} here")
    if "RABBITMQ_URL" in path.read_text() and not system.environment.get("RABBITMQ_URL"):
        pytest.skip(f"docs/producers/{path.name} was not followed: there is no RabbitMQ; install rabbitmq-server")
    for name in (".venv", "client"):
        (tmp_path / name).symlink_to(PROJECT / name)
    page = Page(path)
    (shown,) = page.shown
    try:
        answers = page.follow(system, tmp_path)
    except AssertionError as error:
        if path.stem in NEEDS and UNREACHED.search(str(error)):
            pytest.skip(f"docs/producers/{path.name} was not followed: its packages cannot be reached from here")
        raise
    assert answers[-1] == shown

"""The README's commands, typed as a new user would, in a fresh copy of the checkout with an empty home directory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT

BLOCK = re.compile(r"^```sh(?P<note>[^\n]*)\n(?P<commands>.*?)^```$", re.DOTALL | re.MULTILINE)
README = (PROJECT / "README.md").read_text()
# `make test` runs this very test; that it is the command that CI runs is checked below. What needs Docker is noted so at
# its block and run by tests/e2e/test_sam_local_invoke.py.
BLOCKS = [match["commands"] for match in BLOCK.finditer(README) if not match["note"].strip()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What git would hand to a new user, uncommitted changes included."""
    copy = tmp_path_factory.mktemp("new-user") / "prooftrail"
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listing.stdout.decode().split("\0")):
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, copy / name)
    yield copy
    subprocess.run(["make", "down"], cwd=copy, env=_environment(copy), check=False)
    shutil.rmtree(copy)


def test_every_command_works_in_the_order_in_which_it_stands(checkout: Path) -> None:
    script = "set -euo pipefail\n" + "\n".join(block for block in BLOCKS if block != "make test\n")
    done = subprocess.run(
        ["bash", "-c", script], cwd=checkout, env=_environment(checkout), capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for shown in (
        "The account",
        "✓ stored = hot + archived",
        '"id":"first-1"',
        '"next":null',
        "acme's auditor",
        '"batchItemFailures": []',
        "and as the checkpoints say",
        "the whole log is computed anew",
        "PROVED",
        "No other entry is.",
    ):
        assert shown in done.stdout, shown
    assert not (checkout / ".local" / "stack.pid").exists()


def test_the_transcript_is_of_the_demo_as_it_is(checkout: Path) -> None:
    """Each line of the transcript that says what is checked stands in the demo's source."""
    source = (checkout / "local" / "demo.py").read_text()
    claims = re.findall(r"^  ✓ (.*)$", README, re.MULTILINE)
    assert len(claims) == 6
    assert [claim for claim in claims if claim not in source] == []


def test_the_test_command_is_the_one_that_ci_runs() -> None:
    assert "make test\n" in BLOCKS
    assert re.search(r"^make test$", (PROJECT / ".ci" / "run").read_text(), re.MULTILINE)


def test_every_file_that_the_readme_names_is_there() -> None:
    named = re.findall(r"\]\(([^)#:]+)\)", README)
    assert named
    assert [name for name in named if not (PROJECT / name).exists()] == []


def _environment(checkout: Path) -> dict[str, str]:
    """A new user's: an empty home, none of our variables; the package caches are kept, for they change no outcome."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "SSL_CERT_FILE"}}
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_INDEX", "HTTP", "http"))}
    home = checkout.parent / "home"
    home.mkdir(exist_ok=True)
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    return kept | {"HOME": str(home), "UV_CACHE_DIR": cache}

"""The verifier in Go, built once; where that cannot be, its tests say why they did not run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.trees import Signer

SOURCE = Path(__file__).parent / "verifier"
TIME_TO_FETCH = 300  # seconds

# Reads a log's directory, signed by a log and any witnesses; returns what was checked. Raises `Refused`.
Verifier: TypeAlias = Callable[..., str]


class Refused(Exception):
    """The other implementation does not accept what it was given."""


@pytest.fixture(scope="session")
def verify(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not on the PATH: our logs were not shown to an implementation that is not ours")
    # Apart from the build, whose failures are ours.
    fetched = subprocess.run([go, "mod", "download"], cwd=SOURCE, capture_output=True, text=True, timeout=TIME_TO_FETCH)
    if fetched.returncode:
        pytest.skip(f"Go's modules could not be fetched: {fetched.stderr.strip()[-300:]}")
    program = tmp_path_factory.mktemp("verifier") / "verifier"
    subprocess.run([go, "build", "-buildvcs=false", "-o", program, "."], cwd=SOURCE, check=True)

    def run(directory: Path, log: Signer, *witnesses: Signer) -> str:
        command = [str(program), str(directory), log.key.name, str(log.key), *(str(witness.key) for witness in witnesses)]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            assert answer.stderr.startswith("refused: "), answer.stderr
            raise Refused(answer.stderr)
        return answer.stdout

    return run

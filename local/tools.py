"""Programs that the stack needs but this environment must not contain: LocalStack, SAM, the Lambda runtime."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from local.errors import StackError
from local.layout import CHECKOUT, Layout, runtime_name

MAVEN_SECONDS = 240


def emulator(layout: Layout) -> Path:
    """Install LocalStack with our plugins, if it is not; return its Python."""
    project, home = layout.checkout / "local" / "emulator", layout.tools / "emulator"

    def install() -> None:
        options = ["--frozen", "--no-dev", "--python", str(interpreter())]
        _uv("sync", *options, project=project, environment={"UV_PROJECT_ENVIRONMENT": str(home)})

    _once(home, [project / "uv.lock", project / "pyproject.toml"], install)
    return home / "bin" / "python"


def sam(layout: Layout) -> Path:
    """Install the SAM CLI, if it is not; return the command."""
    return _group(layout, "sam") / "bin" / "sam"


def runtime(layout: Layout) -> Path:
    """Install what Lambda's own image brings (AWS's runtime client and boto3), if it is not; return the directory."""
    home = _group(layout, "runtime")
    return home / "lib" / runtime_name() / "site-packages"


def maven_jars(layout: Layout, name: str, pom: Path) -> Path:
    """Fetch the jars that a POM names, with all that they need, if they are not there; return the directory."""
    home = layout.tools / name

    def install() -> None:
        shutil.rmtree(home / "jars", ignore_errors=True)
        _maven(pom, home / "jars")

    _once(home, [pom], install)
    return home / "jars"


def interpreter() -> Path:
    """Return the machine's own Python, whose virtual environment's packages functions must not see."""
    base = Path(sys._base_executable)  # type: ignore[attr-defined]  # noqa: SLF001 - there is no other name for it
    if not base.exists():
        raise StackError(f"The interpreter {base} is gone; make the environment again with `uv sync`.")
    return base


def path_with_interpreter(layout: Layout) -> str:
    """Return a PATH on which `sam build` finds uv and the Runtime's interpreter, by its versioned name and with pip.

    None of them is certain on a fresh machine: Debian's Python comes without pip.
    """
    home = layout.tools / "builder"

    def install() -> None:
        _uv("venv", "--seed", "--clear", "--python", str(interpreter()), str(home), project=layout.checkout)

    _once(home, [], install)
    return os.pathsep.join([str(home / "bin"), str(Path(_find_uv()).parent), os.environ.get("PATH", os.defpath)])


def _group(layout: Layout, group: str) -> Path:
    home = layout.tools / group

    def install() -> None:
        options = ["--frozen", "--no-default-groups", "--only-group", group, "--python", str(interpreter())]
        _uv("sync", *options, project=layout.checkout, environment={"UV_PROJECT_ENVIRONMENT": str(home)})

    _once(home, [layout.checkout / "uv.lock"], install)
    return home


def _maven(pom: Path, jars: Path) -> None:
    if not shutil.which("mvn"):
        raise StackError("there is no Maven")
    goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
    command = ["mvn", "--batch-mode", "--quiet", "--file", str(pom), goal, f"-DoutputDirectory={jars}"]
    try:
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=MAVEN_SECONDS)
    except subprocess.TimeoutExpired:
        raise StackError(f"Maven fetched nothing within {MAVEN_SECONDS} s") from None
    if result.returncode != 0:
        reason = next((line for line in result.stdout.splitlines() if line.startswith("[ERROR]")), "it said nothing")
        raise StackError(f"Maven failed: {reason.removeprefix('[ERROR] ')[:300]}")


def _once(home: Path, inputs: list[Path], install: Callable[[], None]) -> None:
    stamp = home / ".installed"
    wanted = hashlib.sha256(b"".join([str(interpreter()).encode(), *(file.read_bytes() for file in inputs)])).hexdigest()
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        # Stacks that start at the same time share the tools.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            install()
            stamp.write_text(wanted)


def _uv(*arguments: str, project: Path, environment: Mapping[str, str] | None = None) -> None:
    command = [_find_uv(), *arguments, "--project", str(project)]
    inherited = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    result = subprocess.run(command, check=False, env={**inherited, **(environment or {})}, capture_output=True, text=True)
    if result.returncode != 0:
        raise StackError(f"`{' '.join(command)}` failed: {result.stderr.strip()[-800:]}")


def _find_uv() -> str:
    # The second is where `make` puts one if the machine has none.
    found = shutil.which("uv") or shutil.which("uv", path=CHECKOUT / ".local" / "uv" / "bin")
    if not found:
        raise StackError(
            "`uv` is not on the PATH; run `make up`, which brings its own, or install it from https://docs.astral.sh/uv/."
        )
    return found

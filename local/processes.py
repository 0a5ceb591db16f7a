"""Processes of a stack: each carries the stack's mark in its command line, so none is lost and none mistaken.

The process table is the only record. A file with a pid goes stale and may name a stranger; a mark cannot.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

# Python complains about a process that it forgets while it runs; ours are meant to.
_children: list[subprocess.Popen[bytes]] = []


def mark(state: Path) -> list[str]:
    """Return interpreter options that Python ignores and that say whose process it is."""
    return ["-X", f"prooftrail={state}"]


def marked(state: Path, module: str | None = None) -> list[psutil.Process]:
    """Return the stack's Python processes, or those that run a module."""
    wanted = {mark(state)[1], *([module] if module else [])}
    return [process for process in psutil.process_iter() if wanted <= set(_command(process))]


def with_descendants(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes and all that they started."""
    found: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found += [process, *process.children(recursive=True)]
    return found


def spawn(command: list[str], environment: Mapping[str, str], log: Path, directory: Path) -> None:
    """Start a server that outlives us and writes to a log of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        _children.append(
            subprocess.Popen(
                command,
                env=dict(environment),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )


def stop(processes: Iterable[psutil.Process], patience: float) -> None:
    """Ask the processes to end, and kill what still runs when patience is over."""
    alive = list(processes)
    _each(alive, lambda process: process.terminate())
    _, alive = psutil.wait_procs(alive, timeout=patience)
    _each(alive, lambda process: process.kill())
    psutil.wait_procs(alive, timeout=5)
    # psutil has waited for our own children among them, which their Popen does not know before it is asked.
    _children[:] = [child for child in _children if child.poll() is None]


def _each(processes: list[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            action(process)


def _command(process: psutil.Process) -> list[str]:
    try:
        # A zombie has no command line any more, and nothing is left to stop.
        return list(process.cmdline())
    except psutil.Error:
        return []

"""Processes are known by their mark alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local import processes

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(flush=True); {SLEEP}"


@pytest.fixture
def marked(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Collects processes and sees to their end."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def run(state: Path, code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, *processes.mark(state), "-c", code], stdout=subprocess.PIPE)


def test_only_processes_of_the_same_state_directory_are_found(
    tmp_path: Path, marked: list[subprocess.Popen[bytes]]
) -> None:
    marked += [run(tmp_path / "a", SLEEP), run(tmp_path / "ab", SLEEP)]
    assert [process.pid for process in processes.marked(tmp_path / "a")] == [marked[0].pid]
    assert processes.marked(tmp_path / "a", "another.module") == []


def test_a_process_that_refuses_to_end_is_killed(tmp_path: Path, marked: list[subprocess.Popen[bytes]]) -> None:
    marked.append(run(tmp_path, STUBBORN))
    assert marked[0].stdout is not None
    marked[0].stdout.readline()
    processes.stop(processes.marked(tmp_path), patience=0.2)
    assert processes.marked(tmp_path) == []


def test_descendants_are_found(tmp_path: Path, marked: list[subprocess.Popen[bytes]]) -> None:
    marked.append(run(tmp_path, PARENT))
    assert marked[0].stdout is not None
    marked[0].stdout.readline()
    family = processes.with_descendants(processes.marked(tmp_path))
    assert len(family) == 2
    processes.stop(family, patience=2)
    assert not any(psutil.pid_exists(process.pid) and process.status() != "zombie" for process in family)

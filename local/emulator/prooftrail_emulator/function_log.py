"""The platform's lines in a function's log, and the log as a file."""

from __future__ import annotations

import math
import time
from pathlib import Path
from threading import Lock

_lock = Lock()


def frame(request_id: str, output: str, *, seconds: float, memory_mb: int, init_seconds: float | None, remark: str) -> str:
    """Return an invocation's log as CloudWatch shows it: START, the function's output, END, REPORT."""
    lines = [f"START RequestId: {request_id} Version: $LATEST", output.rstrip("\n"), remark]
    lines += [f"END RequestId: {request_id}", _report(request_id, seconds, memory_mb, init_seconds)]
    return "\n".join(line for line in lines if line) + "\n"


def append(directory: Path, function: str, text: str) -> None:
    """Add to the function's log file; environments of one function share it."""
    directory.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with _lock, (directory / f"{function}.log").open("a", encoding="utf-8") as file:
        file.writelines(f"{stamp} {line}\n" for line in text.splitlines())


def _report(request_id: str, seconds: float, memory_mb: int, init_seconds: float | None) -> str:
    milliseconds = seconds * 1000
    report = (
        f"REPORT RequestId: {request_id}\tDuration: {milliseconds:.2f} ms\tBilled Duration: {math.ceil(milliseconds)} ms"
    )
    report += f"\tMemory Size: {memory_mb} MB"
    return report if init_seconds is None else f"{report}\tInit Duration: {init_seconds * 1000:.2f} ms"

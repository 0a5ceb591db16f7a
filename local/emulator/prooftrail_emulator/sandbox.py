"""One process that runs a function: from its cold start until it ends, fails, is killed or runs out of time."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from prooftrail_emulator.runtime_api import Invocation, Outcome, RuntimeApi

# AWS allows 10 s; a laptop that starts many functions at once may need longer.
INIT_SECONDS = 60.0
# What replaces the compiled part of the runtime client where there is none.
PURE = Path(__file__).parent / "pure"


@dataclass(frozen=True)
class Program:
    """What to run: an interpreter, the function's directories in Lambda's order, its handler and environment."""

    python: Path
    task: Path
    layers: tuple[Path, ...]
    runtime: Path
    handler: str
    environment: dict[str, str]
    # Appears in the command line, so that whoever cleans up after a crash finds the process.
    mark: str = "none"

    def command(self) -> list[str]:
        """Start AWS's runtime client, without the machine's site-packages (-S, -s)."""
        return [str(self.python), "-S", "-s", "-X", f"prooftrail={self.mark}", "-m", "awslambdaric", self.handler]

    def variables(self, api_address: str, scratch: Path) -> dict[str, str]:
        """Return the process's whole environment: nothing of ours leaks into it."""
        layers = self.layers[::-1]  # in /opt a later layer overwrites an earlier one
        python_directories = [self.task, *_python_directories(layers, self.python), self.runtime, PURE]
        return {
            "PATH": _join([*(layer / "bin" for layer in layers), "/usr/local/bin", "/usr/bin", "/bin"]),
            "LD_LIBRARY_PATH": _join([*(layer / "lib" for layer in layers), self.task, self.task / "lib"]),
            "LANG": "C.UTF-8",
            "TZ": ":UTC",
            "TMPDIR": str(scratch),
            **self.environment,
            "PYTHONPATH": _join(python_directories),
            "LAMBDA_TASK_ROOT": str(self.task),
            "LAMBDA_RUNTIME_DIR": str(self.runtime),
            "AWS_LAMBDA_RUNTIME_API": api_address,
        }


@dataclass(frozen=True)
class Result:
    """The answer to one invocation; after `ended` the process is gone."""

    payload: bytes
    is_error: bool
    ended: bool = False
    # What the platform adds to the log, such as the line about a timeout.
    remark: str = ""


class Sandbox:
    """Starts the process at once; `invoke` waits for its initialisation when needed."""

    def __init__(self, program: Program) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="prooftrail-function-", ignore_cleanup_errors=True)
        self._api = RuntimeApi()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._read = 0
        self._started = time.monotonic()
        self.init_seconds: float | None = None
        self._process = self._start(program)
        Thread(target=self._watch, name="sandbox-watch", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def died_idle(self) -> bool:
        """Whether the process ended after its initialisation, while nobody waited for an answer."""
        return self.init_seconds is not None and self._process.poll() is not None

    def initialise(self) -> Result | None:
        """Wait until the function is loaded; return the error if it cannot be."""
        try:
            outcome = self._api.outcomes.get(timeout=INIT_SECONDS)
        except queue.Empty:
            self._kill()
            return _timed_out("INIT", INIT_SECONDS)
        self.init_seconds = time.monotonic() - self._started
        if outcome.kind == "ready":
            return None
        if outcome.kind == "init_error":
            self._process.wait(5)
            return Result(outcome.payload, is_error=True, ended=True)
        return self._exited("INIT")

    def invoke(self, invocation: Invocation) -> Result:
        """Hand over one event and wait for the answer, at most the function's timeout."""
        self._api.events.put(invocation)
        try:
            outcome = self._api.outcomes.get(timeout=invocation.timeout_seconds)
        except queue.Empty:
            self._kill()
            return _timed_out(invocation.id, invocation.timeout_seconds)
        if outcome.kind == "exit":
            return self._exited(invocation.id)
        return Result(outcome.payload, is_error=outcome.kind != "response")

    def output(self) -> str:
        """Return what the process wrote since the last call."""
        if self._output.closed:  # stopped from outside in the middle of an invocation
            return ""
        # The process writes to the file itself, so everything it wrote before its answer is there.
        size = os.fstat(self._output.fileno()).st_size
        data = os.pread(self._output.fileno(), size - self._read, self._read)
        self._read += len(data)
        return data.decode("utf-8", "replace")

    def close(self) -> None:
        """End the process and everything it started."""
        self._kill()
        self._api.close()
        self._output.close()
        self._scratch.cleanup()

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            program.command(),
            cwd=program.task,
            env=program.variables(self._api.address, Path(self._scratch.name)),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _watch(self) -> None:
        self._process.wait()
        self._api.outcomes.put(Outcome("exit"))

    def _kill(self) -> None:
        # The group, because a function may have children; it exists as long as any of them lives.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _exited(self, request_id: str) -> Result:
        code = self._process.wait()
        reason = f"signal: {_signal_name(-code)}" if code < 0 else f"exit status {code}"
        message = f"RequestId: {request_id} Error: Runtime exited with error: {reason}"
        return _failure("Runtime.ExitError", message, f"{message}\nRuntime.ExitError")


def _timed_out(request_id: str, seconds: float) -> Result:
    what = f"Task timed out after {seconds:.2f} seconds"
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return _failure("Sandbox.Timedout", f"RequestId: {request_id} Error: {what}", f"{now} {request_id} {what}")


def _failure(kind: str, message: str, remark: str) -> Result:
    payload = json.dumps({"errorType": kind, "errorMessage": message}).encode()
    return Result(payload, is_error=True, ended=True, remark=remark)


def _signal_name(number: int) -> str:
    # As Go's os.ProcessState says it, which is what AWS shows.
    return {9: "killed", 11: "segmentation fault", 6: "aborted", 15: "terminated"}.get(number, str(number))


def _python_directories(layers: tuple[Path, ...], python: Path) -> list[Path]:
    versioned = [layer / "python" / "lib" / python.name / "site-packages" for layer in layers]
    return [*versioned, *(layer / "python" for layer in layers)]


def _join(directories: Sequence[Path | str]) -> str:
    return os.pathsep.join(str(directory) for directory in directories)

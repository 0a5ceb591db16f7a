"""Killing: a process of its own for each thing to do, which SIGKILL ends before one of its steps."""

from __future__ import annotations

import subprocess
import sys

# Reads what to do and before which step to be killed, a line each; says how each process ended. A script that begins with
# this says what a step is by `counted`, and what is to be done by a function for `forever`.
PRELUDE = """
import os, signal, sys, traceback

steps = last = 0

def counted(call):
    def step(*arguments, **options):
        global steps
        steps += 1
        if steps == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return step

def forever(do):
    global last
    for line in sys.stdin:
        *arguments, last = line.split()
        last = int(last)
        child = os.fork()
        if not child:
            try:
                do(*arguments)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runner:
    """Runs a script that goes on from `PRELUDE`; the environment says where the servers are."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, *arguments: object, last_step: int) -> bool:
        """Do it, killed before that step (0: never); whether it came to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*arguments, last_step, file=self._process.stdin)
        code = int(self._process.stdout.readline())
        assert code in {0, -9}
        return code == 0

    def close(self) -> None:
        self._process.communicate()

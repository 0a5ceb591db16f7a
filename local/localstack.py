"""LocalStack as a process of this machine."""

from __future__ import annotations

import json
import os
import shutil
import time
from http.client import HTTPException
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from local import processes, tools
from local.errors import StackError
from local.layout import Layout, runtime_name

MODULE = "prooftrail_emulator"
READY_SECONDS = 90
STOP_SECONDS = 40


class LocalStack:
    """Starts, watches and stops one LocalStack; its state lives below the state directory."""

    def __init__(self, layout: Layout, port: int, bridge: str | None = None) -> None:
        self._layout = layout
        self._addresses = ["127.0.0.1", bridge] if bridge else ["127.0.0.1"]
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = layout.logs / "localstack.log"

    def is_running(self) -> bool:
        """Say whether our LocalStack answers on its port."""
        return is_alive(self._layout) and self._answers()

    def start(self) -> None:
        """Start without waiting."""
        home = self._layout.state / "localstack"
        # Unpacked code of the last run; functions get theirs anew.
        shutil.rmtree(home / "tmp", ignore_errors=True)
        (home / "tmp").mkdir(parents=True)
        command = [str(tools.emulator(self._layout)), *processes.mark(self._layout.state), "-m", MODULE]
        processes.spawn(command, self._environment(home), self.log, home)

    def wait_until_ready(self) -> None:
        """Wait until it answers, or say why it does not."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if not is_alive(self._layout):
                raise StackError(f"LocalStack ended while it started; the end of {self.log} says why.")
            if time.monotonic() > deadline:
                raise StackError(f"LocalStack did not answer within {READY_SECONDS} s; see {self.log}.")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            # Never through a proxy: the address is our own.
            with build_opener(ProxyHandler({})).open(f"{self.url}/_localstack/health", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, HTTPException):
            return False

    def _environment(self, home: Path) -> dict[str, str]:
        python = {"python": str(tools.interpreter()), "runtime": str(tools.runtime(self._layout))}
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(home / "tmp"),
            # plux remembers entry points here; in the user's own cache a new plugin would go unseen.
            "XDG_CACHE_HOME": str(home / "cache"),
            "GATEWAY_LISTEN": ",".join(f"{address}:{self.port}" for address in self._addresses),
            # Answers name this address instead of a DNS name that only the internet resolves.
            "LOCALSTACK_HOST": f"127.0.0.1:{self.port}",
            "SQS_ENDPOINT_STRATEGY": "path",
            # Below one directory everything that else would lie in /var/lib, even in a container.
            "OVERRIDE_IN_DOCKER": "0",
            "FILESYSTEM_ROOT": str(home / "filesystem"),
            "LOCALSTACK_VOLUME_DIR": str(home / "volume"),
            "DNS_ADDRESS": "0",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DISABLE_EVENTS": "1",
            "LAMBDA_RUNTIME_EXECUTOR": "process",
            "LAMBDA_RUNTIME_ENVIRONMENT_TIMEOUT": "90",
            "LAMBDA_IGNORE_ARCHITECTURE": "1",
            # Look at quiet queues every second, and at failing ones soon again.
            "LAMBDA_EVENT_SOURCE_MAPPING_MAX_BACKOFF_ON_EMPTY_POLL_SEC": "1",
            "LAMBDA_EVENT_SOURCE_MAPPING_MAX_BACKOFF_ON_ERROR_SEC": "5",
            # A function is ready when CloudFormation has made it, which otherwise looks only once a second.
            "LAMBDA_SYNCHRONOUS_CREATE": "1",
            # A type that LocalStack lacks must fail the deployment, not pretend to be there.
            "CFN_IGNORE_UNSUPPORTED_RESOURCE_TYPES": "0",
            "PROOFTRAIL_STATE_DIR": str(self._layout.state),
            "PROOFTRAIL_INTERPRETERS": json.dumps({runtime_name(): python}),
        }


def is_alive(layout: Layout) -> bool:
    """Say whether the process is there, whether or not it answers."""
    return bool(processes.marked(layout.state, MODULE))


def stop(layout: Layout) -> bool:
    """Stop LocalStack, then its functions and whatever they started; say whether anything ran."""
    everything = processes.with_descendants(processes.marked(layout.state))
    processes.stop(processes.marked(layout.state, MODULE), STOP_SECONDS)
    processes.stop(everything, 0)
    return bool(everything)

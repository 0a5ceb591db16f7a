"""LocalStack's execution environment as a process instead of a container."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from threading import Lock
from typing import Any

from localstack import config
from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult
from localstack.services.lambda_.invocation.runtime_executor import LambdaRuntimeException, RuntimeExecutor

from prooftrail_emulator import function_log
from prooftrail_emulator.runtime_api import Invocation
from prooftrail_emulator.sandbox import Program, Sandbox


class ProcessRuntimeExecutor(RuntimeExecutor):
    """Keeps one process warm between invocations and replaces it after a crash or a timeout."""

    def __init__(self, id: str, function_version: FunctionVersion) -> None:
        super().__init__(id, function_version)
        self._variables: dict[str, str] = {}
        self._sandbox: Sandbox | None = None
        self._stopped = False
        self._lock = Lock()
        self._log = ""

    def start(self, env_vars: dict[str, Any]) -> None:
        """Start the process; its first invocation waits for it and reports a function that cannot be loaded."""
        self._variables = {name: str(value) for name, value in env_vars.items()}
        self._current_sandbox()

    def stop(self) -> None:
        """End the process."""
        with self._lock:
            self._stopped = True
        self._discard_sandbox()

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        """Run one event; a process that ended before is replaced first."""
        invocation = self._invocation(payload)
        sandbox = self._current_sandbox()
        cold = sandbox.init_seconds is None
        failure = sandbox.initialise() if cold else None
        started = time.monotonic()
        result = failure or sandbox.invoke(invocation)
        self._log = function_log.frame(
            invocation.id,
            sandbox.output(),
            seconds=time.monotonic() - started,
            memory_mb=self.function_version.config.memory_size,
            init_seconds=sandbox.init_seconds if cold else None,
            remark=result.remark,
        )
        if result.ended:
            self._discard_sandbox()
        function_log.append(_log_directory(), self.function_version.id.function_name, self._log)
        return InvocationResult(invocation.id, result.payload, is_error=result.is_error, logs=self._log)

    def get_logs(self) -> str:
        """Return the log of the last invocation."""
        return self._log

    def get_address(self) -> str:
        """Return where the process runs: here."""
        return "127.0.0.1"

    def get_endpoint_from_executor(self) -> str:
        """Return where the process finds LocalStack."""
        return "127.0.0.1"

    def get_runtime_endpoint(self) -> str:
        """Return LocalStack's callback URL, for which a process has no use."""
        return f"http://127.0.0.1:{config.GATEWAY_LISTEN[0].port}/_localstack_lambda/{self.id}"

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        """Find the interpreter and unpack code and layers, so that a deployment fails early and clearly."""
        _interpreter(function_version.config.runtime)
        for code in (function_version.config.code, *_layer_codes(function_version)):
            code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        """Leave the unpacked code to LocalStack, which removes it itself."""

    def _current_sandbox(self) -> Sandbox:
        with self._lock:
            if self._stopped:
                raise LambdaRuntimeException(f"execution environment {self.id} is stopped")
            if self._sandbox and self._sandbox.died_idle:
                self._sandbox.close()
                self._sandbox = None
            if self._sandbox is None:
                self._sandbox = Sandbox(self._program())
            return self._sandbox

    def _discard_sandbox(self) -> None:
        with self._lock:
            sandbox, self._sandbox = self._sandbox, None
        if sandbox:
            sandbox.close()

    def _program(self) -> Program:
        settings = self.function_version.config
        interpreter = _interpreter(settings.runtime)
        layers = [code.get_unzipped_code_location() for code in _layer_codes(self.function_version)]
        return Program(
            python=Path(interpreter["python"]),
            task=settings.code.get_unzipped_code_location(),
            layers=tuple(layers),
            runtime=Path(interpreter["runtime"]),
            handler=settings.handler,
            environment={**self._variables, "AWS_EXECUTION_ENV": f"AWS_Lambda_{settings.runtime}"},
            mark=os.environ.get("PROOFTRAIL_STATE_DIR", "none"),
        )

    def _invocation(self, payload: dict[str, str]) -> Invocation:
        return Invocation(
            id=payload["invoke-id"],
            function_arn=payload["invoked-function-arn"],
            trace=payload["trace-id"],
            payload=payload["payload"].encode(),
            timeout_seconds=self.function_version.config.timeout,
        )


def _interpreter(runtime: str) -> dict[str, str]:
    known: dict[str, dict[str, str]] = json.loads(os.environ.get("PROOFTRAIL_INTERPRETERS", "{}"))
    if runtime not in known:
        raise LambdaRuntimeException(f"no interpreter for {runtime} here, only for {', '.join(known) or 'none'}")
    return known[runtime]


def _layer_codes(function_version: FunctionVersion) -> list[Any]:
    return [layer.code for layer in function_version.config.layers]


def _log_directory() -> Path:
    return Path(os.environ.get("PROOFTRAIL_STATE_DIR", ".")) / "logs" / "functions"

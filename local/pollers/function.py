"""The deployed ingest function, as the pollers call it: synchronously, with one batch at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.aws import Clients

OUTPUT = "IngestFunctionName"
MOST_BYTES = 6 * 1024 * 1024  # of one synchronous invocation
_ENVELOPE_BYTES = 1024


class Failed(Exception):
    """The function did not take the batch; it must come again."""


class Function:
    """Calls the function that the stack names in its outputs."""

    def __init__(self, endpoint: str) -> None:
        self._clients = Clients(endpoint)
        self._name: str | None = None

    def __call__(self, event: Mapping[str, Any]) -> Any:
        """Invoke, and return the answer. Raises `Failed` where there is none, whatever the cause."""
        try:
            self._name = self._name or self._find()
            answer = self._clients.functions().invoke(FunctionName=self._name, Payload=json.dumps(event).encode())
            said = json.loads(answer["Payload"].read())
        except (BotoCoreError, ClientError) as error:
            self._name = None  # a stack that was made anew may have given it another one
            raise Failed(str(error)) from None
        if "FunctionError" in answer:
            raise Failed(f"{said.get('errorType')}: {said.get('errorMessage')}" if isinstance(said, dict) else str(said))
        return said

    def _find(self) -> str:
        stacks = self._clients.cloudformation().describe_stacks()["Stacks"]
        outputs = (output for stack in stacks for output in stack.get("Outputs", []))
        name = next((output["OutputValue"] for output in outputs if output["OutputKey"] == OUTPUT), None)
        if name is None:
            raise Failed(f"no stack has the output {OUTPUT} yet")
        return name


def within_payload(records: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Divide records, in their order, so that no part is larger than an invocation may be; one alone may be anything."""
    part: list[dict[str, Any]] = []
    size = _ENVELOPE_BYTES
    for record in records:
        own = len(json.dumps(record)) + 1
        if part and size + own > MOST_BYTES:
            yield part
            part, size = [], _ENVELOPE_BYTES
        part.append(record)
        size += own
    if part:
        yield part

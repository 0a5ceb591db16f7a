"""Verification in the deployed system: by the function, with its role and rights, and told by GET /health."""

from __future__ import annotations

import json

from tests.e2e.conftest import System
from tests.factories import native


def test_the_function_verifies_what_was_ingested_and_health_says_so(system: System) -> None:
    system.send([json.dumps(native(tenant="verified")) for _ in range(50)])
    system.wait_until_drained()
    system.client("lambda").invoke(FunctionName=system.output("CheckpointFunctionName"), Payload=b"{}")
    answer = system.client("lambda").invoke(FunctionName=system.output("VerifyFunctionName"), Payload=b"{}")
    summary = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, summary
    assert (summary["findings"], summary["unchecked"]) == (0, []), summary
    assert summary["entries"] >= 50
    verdict = system.get("/health")["verification"]
    assert (verdict["status"], verdict["findings"]) == ("ok", 0)
    assert "history_verified_until" in verdict

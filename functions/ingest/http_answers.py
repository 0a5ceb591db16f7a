"""HTTP answers as API Gateway wants them of a function (Lambda proxy integration)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from prooftrail.problem import MEDIA_TYPE, Problem


def answer(status: HTTPStatus, document: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """An answer of JSON."""
    return {
        "statusCode": int(status),
        "headers": {"Content-Type": "application/json"} | (headers or {}),
        "body": msgspec.json.encode(document).decode(),
        "isBase64Encoded": False,
    }


def problem_answer(problem: Problem) -> dict[str, Any]:
    """The answer that a problem is."""
    return answer(problem.status, problem.document(), {"Content-Type": MEDIA_TYPE} | problem.headers)

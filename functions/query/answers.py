"""What the API answers, as Powertools wants it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import Response


def answer(document: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response[str]:
    """An answer of JSON."""
    return Response(status, "application/json", msgspec.json.encode(document).decode(), headers)

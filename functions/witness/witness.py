"""The witness function: requests of logs in, cosignatures out (C2SP tlog-witness). It stands alone and has no database.

POST /add-checkpoint                       a log shows a checkpoint
GET  /<SHA-256 of its origin>/checkpoint   the last one that was cosigned, for whoever watches the log
"""

from __future__ import annotations

import base64
import functools
import re
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from prooftrail import settings, signing
from prooftrail.errors import ConfigurationError, RetryableError
from prooftrail.telemetry import MetricUnit, logger, metrics
from prooftrail.witness import Bucket, Refusal, Witness, read_logs

TEXT = "text/plain; charset=utf-8"
_LATEST = re.compile(r".*/([0-9a-f]{64})/checkpoint")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Answer one request, whether API Gateway brings it (REST API) or the function's own URL."""
    http = event.get("requestContext", {}).get("http", {})
    method, path = event.get("httpMethod") or http.get("method"), event.get("path") or event.get("rawPath", "")
    latest = _LATEST.fullmatch(path)
    try:
        if method == "POST" and path.endswith("/add-checkpoint"):
            return _add_checkpoint(event)
        if method == "GET" and latest:
            return _latest(latest[1])
    except RetryableError as error:
        logger.error("no answer for now", extra={"cause": str(error)})
        return _answer(HTTPStatus.SERVICE_UNAVAILABLE, "try again\n")
    return _answer(HTTPStatus.NOT_FOUND, "expected POST /add-checkpoint or GET /<SHA-256 of an origin>/checkpoint\n")


def _add_checkpoint(event: dict[str, Any]) -> dict[str, Any]:
    text = event.get("body") or ""
    body = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode("utf-8", "surrogatepass")
    try:
        line = _witness().add_checkpoint(body)
    except Refusal as refusal:
        _tell(refusal, body)
        return _answer(refusal.status, refusal.body, refusal.content_type)
    metrics.add_metric("Cosigned", MetricUnit.Count, 1)
    return _answer(HTTPStatus.OK, line.decode())


def _tell(refusal: Refusal, body: bytes) -> None:
    """A log that signed what does not continue its history has shown its guilt: the request is the evidence, so keep it."""
    forked = refusal.status == HTTPStatus.UNPROCESSABLE_ENTITY
    metrics.add_metric("Inconsistent", MetricUnit.Count, int(forked))
    evidence = {"request": body.decode("utf-8", "replace")} if forked else {}
    logger.warning("refused", extra={"status": int(refusal.status), "cause": str(refusal).strip(), **evidence})


def _latest(log: str) -> dict[str, Any]:
    note = _witness().latest(log)
    if note is None:
        return _answer(HTTPStatus.NOT_FOUND, "this witness has cosigned no checkpoint of that log\n")
    return _answer(HTTPStatus.OK, note.decode())


def _answer(status: HTTPStatus, body: str, content_type: str = TEXT) -> dict[str, Any]:
    return {
        "statusCode": int(status),
        "headers": {"Content-Type": content_type, "Cache-Control": "no-store"},
        "body": body,
        "isBase64Encoded": False,
    }


@functools.cache
def _witness() -> Witness:
    read = settings.read(settings.WitnessSettings)
    keys = signing.keys(read.signing_keys)
    if len(keys) != 1:
        raise ConfigurationError(f"SIGNING_KEYS: expected one key for a witness, got {len(keys)}")
    return Witness(read.witness_name, keys[0], read_logs(read.logs), Bucket(read.prooftrail_witness_bucket))

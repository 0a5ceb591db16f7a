"""The migrate function: a CloudFormation custom resource that brings the database's schema up to date at each deploy.

Source: AWS CloudFormation User Guide, "Custom resource request objects" and "response objects".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.typing import LambdaContext

from prooftrail import database, migrations, settings
from prooftrail.telemetry import logger

PATIENCE = 60.0  # seconds to wait for a database that is only just being started


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Apply what is pending on Create and Update; Delete leaves the database alone: an audit trail outlives its stack."""
    try:
        if event["RequestType"] != "Delete":
            _migrate()
        _answer(event, context, "SUCCESS", "")
    except Exception as error:  # noqa: BLE001  # CloudFormation waits an hour for an answer, so it gets one whatever happens
        logger.exception("migration failed")
        _answer(event, context, "FAILED", str(error))


def _migrate() -> None:
    with database.connect(settings.read(settings.DatabaseSettings), PATIENCE) as connection:
        applied = migrations.apply(connection, Path(__file__).parent)
        if os.environ.get("ROLES_AUTH") == "iam":
            migrations.allow_iam_login(connection)
        elif os.environ.get("ROLES_AUTH") == "secret":
            migrations.set_passwords(connection, json.loads(parameters.get_secret(os.environ["ROLES_SECRET_ARN"])))
    logger.info("schema is up to date", extra={"applied": applied})


def _answer(event: dict[str, Any], context: LambdaContext, status: str, reason: str) -> None:
    answer = {
        "Status": status,
        "Reason": f"{reason[:500]} (log stream {context.log_stream_name})",
        "PhysicalResourceId": "prooftrail-schema",
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    # CloudFormation's own URL, presigned without a content type.
    request = Request(event["ResponseURL"], json.dumps(answer).encode(), {"Content-Type": ""}, method="PUT")  # noqa: S310
    with urlopen(request, timeout=30):  # noqa: S310
        pass

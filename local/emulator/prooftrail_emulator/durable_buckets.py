"""S3 objects on disk as soon as they are acknowledged, and back when their bucket is made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from localstack import config
from localstack.aws.connect import connect_to
from localstack.constants import DEFAULT_AWS_ACCOUNT_ID

HOME = Path(config.VOLUME_DIR) / "durable" / "buckets"
STORING = {"PutObject", "CompleteMultipartUpload", "CopyObject"}
# What an object has besides its bytes and must have again.
PROPERTIES = (
    "ContentType",
    "ContentEncoding",
    "Metadata",
    "ObjectLockMode",
    "ObjectLockRetainUntilDate",
    "ObjectLockLegalHoldStatus",
)


def keep(_chain: Any, context: Any, response: Any) -> None:
    """Save an object before the client hears that it is stored: a response handler."""
    operation = context.service_operation
    if operation is None or operation.service != "s3" or response.status_code >= 300:
        return
    request: dict[str, Any] = context.service_request
    if operation.operation == "CreateBucket":
        _restore(context, request["Bucket"])
    # Calls from inside are LocalStack's own affairs and our restoring.
    elif context.is_internal_call or context.account_id != DEFAULT_AWS_ACCOUNT_ID:
        return
    elif operation.operation in STORING:
        _save(context, request["Bucket"], request["Key"])
    elif operation.operation == "DeleteObject" and not request.get("VersionId"):
        _forget(request["Bucket"], request["Key"])


def _save(context: Any, bucket: str, key: str) -> None:
    found = _s3(context).get_object(Bucket=bucket, Key=key)
    body, description = _files(bucket, key)
    body.parent.mkdir(parents=True, exist_ok=True)
    draft = body.with_suffix(".new")
    with draft.open("wb") as file:
        shutil.copyfileobj(found["Body"], file)
    properties = {"Key": key, **{name: found[name] for name in PROPERTIES if name in found}}
    description.write_text(json.dumps(properties, default=datetime.isoformat))
    draft.replace(body)


def _forget(bucket: str, key: str) -> None:
    for file in _files(bucket, key):
        file.unlink(missing_ok=True)


def _restore(context: Any, bucket: str) -> None:
    for body in (HOME / bucket).glob("*.body"):
        properties = json.loads(body.with_suffix(".json").read_text())
        with body.open("rb") as file:
            _s3(context).put_object(Bucket=bucket, Body=file, **properties)


def _files(bucket: str, key: str) -> tuple[Path, Path]:
    # A key may be longer than a file's name.
    name = hashlib.sha256(key.encode()).hexdigest()
    return HOME / bucket / f"{name}.body", HOME / bucket / f"{name}.json"


def _s3(context: Any) -> Any:
    return connect_to(region_name=context.region, aws_access_key_id=context.account_id).s3

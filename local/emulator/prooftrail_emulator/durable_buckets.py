"""S3 objects on disk as soon as they are acknowledged, and back when their bucket is made again, version by version."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import threading
import time
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

VERSION = "prooftrail-version"  # metadata of an object that is restored: the version it must have again

_restoring = threading.local()


def install() -> None:
    """Let an object that is restored have the version that it had: manifests name objects by it."""
    from localstack.services.s3 import provider

    put_object, generate_version_id = provider.S3Provider.put_object, provider.generate_version_id

    @functools.wraps(put_object)
    def put_restored(self: Any, context: Any, request: dict[str, Any]) -> Any:
        _restoring.version = (request.get("Metadata") or {}).pop(VERSION, None)
        try:
            return put_object(self, context, request)
        finally:
            _restoring.version = None

    provider.S3Provider.put_object = put_restored
    provider.generate_version_id = lambda status: getattr(_restoring, "version", None) or generate_version_id(status)


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
    elif operation.operation == "DeleteObject":
        _forget(request["Bucket"], request["Key"], request.get("VersionId"))


def _save(context: Any, bucket: str, key: str) -> None:
    found = _s3(context).get_object(Bucket=bucket, Key=key)
    body = _home(bucket, key) / f"{found.get('VersionId', 'null')}.body"
    body.parent.mkdir(parents=True, exist_ok=True)
    draft = body.with_suffix(".new")
    with draft.open("wb") as file:
        shutil.copyfileobj(found["Body"], file)
    properties = {"Key": key, **{name: found[name] for name in PROPERTIES if name in found}}
    saved = {"saved_at": time.time_ns(), "version": found.get("VersionId"), "properties": properties}
    body.with_suffix(".json").write_text(json.dumps(saved, default=datetime.isoformat))
    draft.replace(body)


def _forget(bucket: str, key: str, version: str | None) -> None:
    """Forget one version, or the object whole: what was deleted does not come back."""
    for file in _home(bucket, key).glob(f"{version or '*'}.*"):
        file.unlink()


def _restore(context: Any, bucket: str) -> None:
    kept = [(json.loads(body.with_suffix(".json").read_text()), body) for body in (HOME / bucket).glob("*/*.body")]
    for saved, body in sorted(kept, key=lambda item: int(item[0]["saved_at"])):
        properties = saved["properties"]
        if saved["version"]:
            properties["Metadata"] = {**properties.get("Metadata", {}), VERSION: saved["version"]}
        with body.open("rb") as file:
            _s3(context).put_object(Bucket=bucket, Body=file, **properties)


def _home(bucket: str, key: str) -> Path:
    """The directory of an object's versions; a key may be longer than a file's name."""
    return HOME / bucket / hashlib.sha256(key.encode()).hexdigest()


def _s3(context: Any) -> Any:
    return connect_to(region_name=context.region, aws_access_key_id=context.account_id).s3

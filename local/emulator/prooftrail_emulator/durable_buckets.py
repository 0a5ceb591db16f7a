"""S3 objects on disk as soon as they are acknowledged, and back when their bucket is made again."""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

from localstack.aws.connect import connect_to

STORED = {"PutObject", "CompleteMultipartUpload", "CopyObject"}
# What an object has besides its bytes and must have again.
PROPERTIES = ("ContentType", "ContentEncoding", "Metadata", "ObjectLockMode", "ObjectLockRetainUntilDate", "ObjectLockLegalHoldStatus")


class Keeper:
    """A response handler: it has saved an object before the client hears that it is stored."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __call__(self, _chain: Any, context: Any, response: Any) -> None:
        """Look at each successful S3 call."""
        operation = context.service_operation
        if operation is None or operation.service != "s3" or response.status_code >= 300:
            return
        request: dict[str, Any] = context.service_request
        if operation.operation == "CreateBucket":
            self._restore(context, request["Bucket"])
        # Calls from inside are LocalStack's own affairs and our restoring.
        elif context.is_internal_call or context.account_id != "000000000000":
            return
        elif operation.operation in STORED:
            self._save(context, request["Bucket"], request["Key"])
        elif operation.operation == "DeleteObject" and "VersionId" not in request:
            self._forget(request["Bucket"], request["Key"])

    def _save(self, context: Any, bucket: str, key: str) -> None:
        found = _s3(context).get_object(Bucket=bucket, Key=key)
        body, description = self._files(bucket, key)
        body.parent.mkdir(parents=True, exist_ok=True)
        draft = body.with_suffix(".new")
        with draft.open("wb") as file:
            shutil.copyfileobj(found["Body"], file)
        properties = {"Key": key, **{name: found[name] for name in PROPERTIES if name in found}}
        description.write_text(json.dumps(properties, default=datetime.isoformat))
        draft.replace(body)

    def _forget(self, bucket: str, key: str) -> None:
        for file in self._files(bucket, key):
            file.unlink(missing_ok=True)

    def _restore(self, context: Any, bucket: str) -> None:
        for body in (self._home / bucket).glob("*.body"):
            properties = json.loads(body.with_suffix(".json").read_text())
            with body.open("rb") as file:
                _s3(context).put_object(Bucket=bucket, Body=file, **properties)

    def _files(self, bucket: str, key: str) -> tuple[Path, Path]:
        # A key may be longer than a file's name.
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._home / bucket / f"{name}.body", self._home / bucket / f"{name}.json"


def _s3(context: Any) -> Any:
    return connect_to(region_name=context.region, aws_access_key_id=context.account_id).s3

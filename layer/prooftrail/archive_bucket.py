"""The archive's bucket: objects that are written once and locked, read back by version, and removed by erasure alone."""

from __future__ import annotations

import functools
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_LOST_A_RACE = ("PreconditionFailed", "ConditionalRequestConflict")
_GONE = ("404", "NoSuchKey", "NoSuchVersion", "NotFound")


class Version(msgspec.Struct, frozen=True):
    """One version of an object: its id (None in a bucket without versions) and what locks it, as S3 says it."""

    id: str | None
    size: int
    lock_mode: str | None = None
    locked_until: datetime | None = None
    legal_hold: bool = False

    def removable(self) -> bool:
        """Whether somebody with the right to bypass GOVERNANCE may delete it (nobody may lift COMPLIANCE)."""
        return not self.legal_hold and not (self.lock_mode == "COMPLIANCE" and self.is_locked())

    def is_locked(self) -> bool:
        """Whether its retention is still running."""
        return self.locked_until is not None and self.locked_until > datetime.now(UTC)


class ArchiveBucket:
    """The bucket of that name; S3's faults come as boto3 raises them."""

    def __init__(self, name: str) -> None:
        self._name = name

    @functools.cached_property
    def _s3(self) -> S3Client:
        import boto3  # costs a cold start more than all the rest

        return boto3.client("s3")

    def put(self, key: str, file: Path) -> None:
        """Write an object whole or not at all, never over another one: a run that was killed may have written it."""
        from botocore.exceptions import ClientError

        try:
            self._put(key, file, {"IfNoneMatch": "*"})
        except ClientError as error:
            if error.response["Error"]["Code"] not in _LOST_A_RACE:
                raise

    def replace(self, key: str, file: Path, former: Version) -> str | None:
        """Write a new version that is locked as long as the former one; returns its id."""
        retention: dict[str, Any] = {}
        if former.is_locked():
            retention = {"ObjectLockMode": former.lock_mode, "ObjectLockRetainUntilDate": former.locked_until}
        return self._put(key, file, retention)

    def _put(self, key: str, file: Path, further: dict[str, Any]) -> str | None:
        with file.open("rb") as body:
            answer = self._s3.put_object(
                Bucket=self._name,
                Key=key,
                Body=body,
                ContentType="application/vnd.apache.parquet",
                ChecksumAlgorithm="SHA256",
                **further,
            )
        return answer.get("VersionId")

    def find(self, key: str, version: str | None = None) -> Version | None:
        """The version of that id, or the latest one; None where there is none."""
        from botocore.exceptions import ClientError

        try:
            head = self._s3.head_object(Bucket=self._name, Key=key, **_of(version))
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise
        return Version(
            head.get("VersionId"),
            head["ContentLength"],
            head.get("ObjectLockMode"),
            head.get("ObjectLockRetainUntilDate"),
            head.get("ObjectLockLegalHoldStatus") == "ON",
        )

    def versions(self, key: str) -> list[Version]:
        """All versions of an object, the latest first."""
        found = []
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self._name, Prefix=key)
        for page in pages:
            found += [item["VersionId"] for item in page.get("Versions", []) if item["Key"] == key]
        return [version for id in found if (version := self.find(key, None if id == "null" else id)) is not None]

    def fetch(self, key: str, version: Version, file: Path) -> bytes | None:
        """Download one version; returns its SHA-256, None where it has gone since it was found."""
        from botocore.exceptions import ClientError

        try:
            self._s3.download_file(self._name, key, str(file), ExtraArgs=_of(version.id))
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                return None
            raise
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").digest()

    def read(self, key: str, version: Version, begin: int, end: int) -> bytes:
        """The bytes of one version from `begin` to before `end`."""
        answer = self._s3.get_object(Bucket=self._name, Key=key, Range=f"bytes={begin}-{end - 1}", **_of(version.id))
        return answer["Body"].read()

    def remove(self, key: str, version: Version) -> None:
        """Delete one version for good; under GOVERNANCE that needs the right s3:BypassGovernanceRetention."""
        bypass: dict[str, Any] = {"BypassGovernanceRetention": True} if version.lock_mode else {}
        self._s3.delete_object(Bucket=self._name, Key=key, **_of(version.id), **bypass)


def _of(version: str | None) -> dict[str, Any]:
    return {"VersionId": version} if version else {}

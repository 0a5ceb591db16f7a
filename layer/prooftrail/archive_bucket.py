"""The archive's bucket: objects that are written once and locked, read back by version, and removed by erasure alone."""

from __future__ import annotations

import functools
import hashlib
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from prooftrail import aws
from prooftrail.errors import PermanentError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_LOST_A_RACE = ("PreconditionFailed", "ConditionalRequestConflict")
_GONE = ("404", "NoSuchKey", "NoSuchVersion", "NotFound")


class _Taken(PermanentError):
    """There is an object under the key."""


class _Gone(PermanentError):
    """There is no such object, or no such version of it."""


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
    """The bucket of that name; every call raises `AwsUnavailable` where S3 does not answer, or refuses."""

    def __init__(self, name: str) -> None:
        self._name = name

    @functools.cached_property
    def _s3(self) -> S3Client:
        client: S3Client = aws.client("s3")
        return client

    def put(self, key: str, file: Path) -> None:
        """Write an object whole or not at all, never over another one: a run that was killed may have written it."""
        with suppress(_Taken):
            self._put(key, file, {"IfNoneMatch": "*"})

    def replace(self, key: str, file: Path, former: Version) -> str | None:
        """Write a new version that is locked as long as the former one; returns its id."""
        retention: dict[str, Any] = {}
        if former.is_locked():
            retention = {"ObjectLockMode": former.lock_mode, "ObjectLockRetainUntilDate": former.locked_until}
        return self._put(key, file, retention)

    def _put(self, key: str, file: Path, further: dict[str, Any]) -> str | None:
        known = dict.fromkeys(_LOST_A_RACE, _Taken())
        with file.open("rb") as body, aws.faults(f"writing {key} to the archive bucket", known):
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
        try:
            with aws.faults(f"looking for {key} in the archive bucket", dict.fromkeys(_GONE, _Gone())):
                head = self._s3.head_object(Bucket=self._name, Key=key, **_of(version))
        except _Gone:
            return None
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
        with aws.faults(f"listing the versions of {key} in the archive bucket"):
            for page in self._s3.get_paginator("list_object_versions").paginate(Bucket=self._name, Prefix=key):
                found += [item["VersionId"] for item in page.get("Versions", []) if item["Key"] == key]
        return [version for id in found if (version := self.find(key, None if id == "null" else id)) is not None]

    def fetch(self, key: str, version: Version, file: Path) -> bytes | None:
        """Download one version; returns its SHA-256, None where it has gone since it was found."""
        try:
            with aws.faults(f"reading {key} from the archive bucket", dict.fromkeys(_GONE, _Gone())):
                self._s3.download_file(self._name, key, str(file), ExtraArgs=_of(version.id))
        except _Gone:
            return None
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").digest()

    def read(self, key: str, version: Version, begin: int, end: int) -> bytes:
        """The bytes of one version from `begin` to before `end`."""
        part = f"bytes={begin}-{end - 1}"
        with aws.faults(f"reading {key} from the archive bucket"):
            return self._s3.get_object(Bucket=self._name, Key=key, Range=part, **_of(version.id))["Body"].read()

    def remove(self, key: str, version: Version) -> None:
        """Delete one version for good; under GOVERNANCE that needs the right s3:BypassGovernanceRetention."""
        bypass: dict[str, Any] = {"BypassGovernanceRetention": True} if version.lock_mode else {}
        with aws.faults(f"deleting a version of {key} from the archive bucket"):
            self._s3.delete_object(Bucket=self._name, Key=key, **_of(version.id), **bypass)


def _of(version: str | None) -> dict[str, Any]:
    return {"VersionId": version} if version else {}

"""Integration: the handlers in this process, on a real database, with moto's S3 and SQS where they speak to AWS."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import boto3
import moto
import pytest

import archive
import ingest
import query
from prooftrail import api_keys
from prooftrail.invocation import Context
from tests.conftest import LogDatabase

BUCKET = "prooftrail-archive"


@contextmanager
def fresh(module: ModuleType) -> Iterator[None]:
    """A cold start before and after: what a function keeps while it is warm belongs to one test."""
    caches = [value for value in vars(module).values() if hasattr(value, "cache_clear")]
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.fixture
def ingesting(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[str]]]:
    """Ingest SQS batches through the handler; returns the message ids that must come again."""

    def call(event: dict[str, Any], seconds: float = 60, url: str | None = None) -> list[str]:
        monkeypatch.setenv("DATABASE_URL", url or database.url_of("ingest"))
        answer = ingest.handler(event, Context("ingest", seconds))
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    with fresh(ingest):
        yield call
        ingest._writer()._database.discard()


@pytest.fixture
def asking(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Ask the API through the handler, as an operator unless told otherwise; returns status and document."""
    operator = api_keys.create(database.admin, None)

    def call(
        path: str,
        key: str | None = operator,
        headers: dict[str, str] | None = None,
        url: str | None = None,
        **parameters: Any,
    ) -> tuple[int, Any]:
        monkeypatch.setenv("DATABASE_URL", url or database.url_of("query"))
        given = {name.rstrip("_"): value for name, value in parameters.items()}
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        answer = query.handler(_request(path, sent | (headers or {}), given), Context("query"))
        return answer["statusCode"], json.loads(answer["body"])

    with fresh(query):
        yield call
        query.database().discard()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An archive bucket with Object Lock."""
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        monkeypatch.setenv("PROOFTRAIL_ARCHIVE_BUCKET", BUCKET)
        yield BUCKET


@pytest.fixture
def archiving(
    database: LogDatabase, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the archive function through its handler; returns its summary."""

    def call(seconds: float = 300) -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", database.url_of("archive"))
        answer: dict[str, Any] = archive.handler({"source": "aws.events"}, Context("archive", seconds))
        return answer

    with fresh(archive):
        yield call
        archive._database().discard()


def _request(path: str, headers: dict[str, str], parameters: dict[str, Any]) -> dict[str, Any]:
    many = {name: value if isinstance(value, list) else [str(value)] for name, value in parameters.items()}
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": "GET",
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in many.items()} or None,
        "multiValueQueryStringParameters": many or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "requestContext": {
            "httpMethod": "GET",
            "path": path,
            "stage": "v1",
            "identity": {"sourceIp": "192.0.2.7", "userAgent": "auditor/1.0"},
        },
        "body": None,
        "isBase64Encoded": False,
    }

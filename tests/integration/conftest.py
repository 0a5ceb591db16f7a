"""Integration: the handlers in this process, on a real database, with moto's S3 and SQS where they speak to AWS."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import boto3
import moto
import pytest

import archive
import checkpoint
import http_ingest
import ingest
import log
import prooftrail.database
import query
import reader
import verify
import writer
from prooftrail import api_keys, signing
from prooftrail.evidence import Evidence
from prooftrail.invocation import Context
from prooftrail.ledger.note import VerifierKey
from prooftrail.signing import SecretKey
from tests.conftest import LogDatabase
from tests.publishing import Publishing

BUCKET = "prooftrail-archive"
ORIGIN = "log.example"
EVIDENCE_BUCKET = "prooftrail-evidence"


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

    with fresh(writer):
        yield call
        writer.writer().discard()


@pytest.fixture
def posting(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[int, Any]]]:
    """POST to the HTTP side of ingest, as an operator's writer unless told otherwise; returns status and document.

    A body that is neither bytes nor text is sent as JSON. With ``answer=True`` the answer is returned as Lambda gives it.
    """
    operator = api_keys.create(database.admin, None, role="writer")

    def call(
        path: str,
        body: Any,
        content_type: str | None = "application/json",
        *,
        key: str | None = operator,
        headers: dict[str, str] | None = None,
        url: str | None = None,
        seconds: float = 29,
        answer: bool = False,
    ) -> Any:
        monkeypatch.setenv("DATABASE_URL", url or database.url_of("ingest"))
        sent = {"Content-Type": content_type, "Authorization": key and f"Bearer {key}"} | (headers or {})
        content = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        request = _request(path, {name: value for name, value in sent.items() if value}, {}, "")
        request |= {"body": base64.b64encode(content).decode(), "isBase64Encoded": True}
        given = http_ingest.handler(request, Context("http", seconds))
        return given if answer else (given["statusCode"], json.loads(given["body"]))

    with fresh(writer):
        yield call
        writer.writer().discard()


@pytest.fixture
def requesting(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """Ask the API through the handler, as an operator unless told otherwise; returns the answer as Lambda gives it.

    What is `posted`, text or JSON, makes it a POST.
    """
    operator = api_keys.create(database.admin, None)

    def call(
        path: str,
        key: str | None = operator,
        headers: dict[str, str] | None = None,
        url: str | None = None,
        posted: Any = None,
        **parameters: Any,
    ) -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", url or database.url_of("query"))
        given = {name.rstrip("_"): value for name, value in parameters.items()}
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        answer: dict[str, Any] = query.handler(_request(path, sent | (headers or {}), given, posted), Context("query"))
        return answer

    with fresh(reader), fresh(log):
        yield call
        reader.database().discard()


@pytest.fixture
def asking(requesting: Callable[..., dict[str, Any]]) -> Callable[..., tuple[int, Any]]:
    """Ask the API for JSON; returns status and document."""

    def call(*arguments: Any, **parameters: Any) -> tuple[int, Any]:
        answer = requesting(*arguments, **parameters)
        return answer["statusCode"], json.loads(answer["body"])

    return call


@pytest.fixture
def secrets_manager_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Functions log in with a secret, and nobody gives it to them."""
    monkeypatch.setenv("DATABASE_AUTH", "secret")
    monkeypatch.setenv("DATABASE_SECRET_ARN", "arn:aws:secretsmanager:us-east-1:000000000000:secret:database")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with fresh(prooftrail.database):
        yield


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An archive bucket with Object Lock."""
    with moto.mock_aws():
        boto3.client("s3").create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        monkeypatch.setenv("PROOFTRAIL_ARCHIVE_BUCKET", BUCKET)
        yield BUCKET


@contextmanager
def denied(bucket: str, *keys: str, actions: tuple[str, ...] = ("s3:GetObject", "s3:GetObjectVersion")) -> Iterator[None]:
    """Meanwhile nobody may do that with these objects; where none is named, with any."""
    resources = [f"arn:aws:s3:::{bucket}/{key}" for key in keys or ("*",)]
    statement = {"Effect": "Deny", "Principal": "*", "Action": list(actions), "Resource": resources}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    boto3.client("s3").put_bucket_policy(Bucket=bucket, Policy=policy)
    yield
    boto3.client("s3").delete_bucket_policy(Bucket=bucket)


@pytest.fixture
def publishing(database: LogDatabase, evidence: Evidence) -> Publishing:
    """Publish checkpoints into the evidence bucket."""
    return Publishing(database.admin, evidence)


@pytest.fixture
def archiving(
    database: LogDatabase, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the archive function through its handler; returns its summary."""

    def call(seconds: float = 300) -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", database.url_of("archive"))
        monkeypatch.setenv("RETENTION_MONTHS", "60")  # 2020 is old, and 2026 is not for some years
        answer: dict[str, Any] = archive.handler({"source": "aws.events"}, Context("archive", seconds))
        return answer

    with fresh(archive):
        yield call
        archive._database().discard()


def signing_secret(number: int) -> str:
    """Put a signing key into Secrets Manager; returns its ARN."""
    text = json.dumps({"seed": base64.b64encode(seed(number)).decode()})
    return str(boto3.client("secretsmanager").create_secret(Name=f"signing-{number}", SecretString=text)["ARN"])


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


def verifier_key(tenant: str, number: int = 1) -> VerifierKey:
    """What a reader knows of the key that signs a tenant's log."""
    return VerifierKey(f"{ORIGIN}/{tenant}", 1, SecretKey(seed(number)).public_key)


@pytest.fixture
def evidence(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    """An evidence bucket with Object Lock, and a key to sign with."""
    boto3.client("s3").create_bucket(Bucket=EVIDENCE_BUCKET, ObjectLockEnabledForBucket=True)
    monkeypatch.setenv("PROOFTRAIL_EVIDENCE_BUCKET", EVIDENCE_BUCKET)
    monkeypatch.setenv("LOG_ORIGIN", ORIGIN)
    monkeypatch.setenv("SIGNING_KEYS", signing_secret(1))
    return Evidence(EVIDENCE_BUCKET)


@pytest.fixture
def checkpointing(
    database: LogDatabase, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Sign what there is to sign through the checkpoint function's handler; returns its summary."""

    def call(event: dict[str, Any] | None = None) -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", database.url_of("checkpoint"))
        answer: dict[str, Any] = checkpoint.handler(event or {}, Context("checkpoint"))
        return answer

    signing.keys.cache_clear()
    with fresh(checkpoint):
        yield call
        checkpoint._database().discard()
    signing.keys.cache_clear()


@pytest.fixture
def verifying(
    database: LogDatabase, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the verify function through its handler; returns its summary."""

    def call(seconds: float = 600) -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", database.url_of("verify"))
        answer: dict[str, Any] = verify.handler({"source": "aws.events"}, Context("verify", seconds))
        return answer

    signing.keys.cache_clear()
    with fresh(verify):
        yield call
        verify._database().discard()
    signing.keys.cache_clear()


def _request(path: str, headers: dict[str, str], parameters: dict[str, Any], posted: Any) -> dict[str, Any]:
    method = "GET" if posted is None else "POST"
    many = {name: value if isinstance(value, list) else [str(value)] for name, value in parameters.items()}
    return {
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in many.items()} or None,
        "multiValueQueryStringParameters": many or None,
        "pathParameters": {"proxy": path.lstrip("/")},
        "requestContext": {
            "httpMethod": method,
            "path": path,
            "stage": "v1",
            "identity": {"sourceIp": "192.0.2.7", "userAgent": "auditor/1.0"},
        },
        "body": posted if posted is None or isinstance(posted, str) else json.dumps(posted),
        "isBase64Encoded": False,
    }

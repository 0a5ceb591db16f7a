"""Clients of LocalStack, whatever the shell's AWS variables and profiles say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient

REGION = "us-east-1"
LONGEST_INVOCATION = 900  # seconds
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def environment(url: str) -> dict[str, str]:
    """Return the variables with which any AWS program talks to LocalStack."""
    return {"AWS_ENDPOINT_URL": url, **CREDENTIALS, "AWS_DEFAULT_REGION": REGION, "AWS_REGION": REGION}


class Clients:
    """The clients that the stack itself needs."""

    def __init__(self, url: str) -> None:
        self._session = boto3.Session("test", "test", region_name=REGION)
        self._options: dict[str, Any] = {
            "endpoint_url": url,
            "config": Config(retries={"total_max_attempts": 3}, proxies={}),
        }

    def cloudformation(self) -> CloudFormationClient:
        """CloudFormation."""
        return self._session.client("cloudformation", **self._options)

    def functions(self) -> LambdaClient:
        """Lambda, asked once, and waited for as long as a function may run."""
        patience = Config(retries={"total_max_attempts": 1}, read_timeout=LONGEST_INVOCATION, proxies={})
        return self._session.client("lambda", **{**self._options, "config": patience})

    def s3(self) -> S3Client:
        """S3."""
        return self._session.client("s3", **self._options)

    def secrets(self) -> SecretsManagerClient:
        """Secrets Manager."""
        return self._session.client("secretsmanager", **self._options)


def publish_secret(clients: Clients, name: str, value: dict[str, str]) -> str:
    """Make a secret, or give it another value; returns its ARN."""
    secrets, text = clients.secrets(), json.dumps(value)
    try:
        return secrets.create_secret(Name=name, SecretString=text)["ARN"]
    except secrets.exceptions.ResourceExistsException:
        return secrets.put_secret_value(SecretId=name, SecretString=text)["ARN"]

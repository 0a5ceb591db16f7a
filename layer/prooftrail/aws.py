"""How functions reach AWS: clients that give up soon, loaded when first needed, and their faults as errors of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prooftrail.errors import ProoftrailError, RetryableError

# Seconds for one try, and how many tries; whoever asks is waiting too.
CONNECT_TIMEOUT, READ_TIMEOUT, TRIES = 2, 5, 3
CONNECTIONS = 32  # as many at once as a function's threads may want


class AwsUnavailable(RetryableError):
    """A service of AWS could not be reached, or refused."""


def client(service: str, region: str | None = None) -> Any:
    """Make a client; it may be used by many threads."""
    import boto3  # costs a cold start more than all the rest
    from botocore.config import Config

    patience = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
    )
    return boto3.client(service, region_name=region, config=patience)  # type: ignore[call-overload]  # one for each service


@contextmanager
def faults(what: str, known: Mapping[str, ProoftrailError] | None = None) -> Iterator[None]:
    """Turn a fault of AWS, while doing `what`, into the error that its code is `known` to mean, else `AwsUnavailable`."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise (known or {}).get(error.response["Error"]["Code"], AwsUnavailable(f"{what}: {error}")) from error
    except (BotoCoreError, Boto3Error) as error:  # the latter of downloads in parts, which boto3 itself tries again
        raise AwsUnavailable(f"{what}: {error}") from error

"""What happens when LocalStack starts and stops: names are stable, queues and buckets outlive it, mappings are exact."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localstack.runtime import hooks


@hooks.on_infra_start()  # type: ignore[untyped-decorator]
def remember() -> None:
    """Switch on everything that lets a second start find the data of the first."""
    from localstack.aws.handlers import run_custom_response_handlers
    from localstack.services.cloudformation import provider_utils
    from localstack.services.s3 import provider as s3_provider
    from moto.apigateway.utils import ApigwRestApiIdentifier

    from prooftrail_emulator import durable_buckets, durable_queues, sqs_mapping

    # By default every LocalStack of the machine keeps its objects in one directory below /tmp.
    s3_provider.DEFAULT_S3_TMP_DIR = str(Path(tempfile.gettempdir()) / "s3")
    durable_buckets.install()
    sqs_mapping.install()
    provider_utils.generate_default_name = stable_name
    ApigwRestApiIdentifier.generate = _StableApiIds(ApigwRestApiIdentifier.generate)
    run_custom_response_handlers.append(durable_buckets.keep)
    run_custom_response_handlers.append(durable_queues.restore_new_queue)
    durable_queues.start()


@hooks.on_infra_shutdown(priority=10)  # type: ignore[untyped-decorator]
def end() -> None:
    """Save the queues a last time and end at once: all that LocalStack would tidy up for seconds ends with it."""
    from prooftrail_emulator import durable_queues

    durable_queues.save()
    os._exit(0)


def stable_name(stack_name: str, logical_resource_id: str, *_: Any) -> str:
    """Return a generated name that is the same after a restart, as it is in AWS, where stacks are not made anew."""
    suffix = hashlib.sha256(f"{stack_name}/{logical_resource_id}".encode()).hexdigest()[:8]
    logical = logical_resource_id[:24]
    return f"{stack_name[: 61 - len(suffix) - len(logical)]}-{logical}-{suffix}"


class _StableApiIds:
    """Gives the first API of a name an id that is made from the name, so that its URL stays the same."""

    def __init__(self, otherwise: Callable[..., str]) -> None:
        self._otherwise = otherwise
        self._given: set[str] = set()

    def __get__(self, identifier: Any, _owner: type[Any]) -> Callable[..., str]:
        def generate(*arguments: Any, **options: Any) -> str:
            stable = hashlib.sha256(identifier.name.encode()).hexdigest()[:10]
            if stable in self._given:
                return self._otherwise(identifier, *arguments, **options)
            self._given.add(stable)
            return stable

        return generate

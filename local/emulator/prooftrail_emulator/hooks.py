"""What happens when LocalStack starts and stops: names become stable, queues and buckets outlive the process."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from localstack import config
from localstack.runtime import hooks


@hooks.on_infra_start()  # type: ignore[untyped-decorator]
def remember() -> None:
    """Switch on everything that lets a second start find the data of the first."""
    from localstack.aws.handlers import run_custom_response_handlers
    from localstack.services.cloudformation import provider_utils

    from prooftrail_emulator import durable_buckets, durable_queues

    provider_utils.generate_default_name = stable_name
    home = Path(config.VOLUME_DIR) / "durable"
    run_custom_response_handlers.append(durable_buckets.Keeper(home / "buckets"))
    run_custom_response_handlers.append(durable_queues.start(home / "queues"))


@hooks.on_infra_shutdown(priority=10)  # type: ignore[untyped-decorator]
def save() -> None:
    """Save the queues a last time, while their service still runs."""
    from prooftrail_emulator import durable_queues

    durable_queues.save()


def stable_name(stack_name: str, logical_resource_id: str, *_: Any) -> str:
    """Return a generated name that is the same after a restart, as it is in AWS, where stacks are not made anew."""
    suffix = hashlib.sha256(f"{stack_name}/{logical_resource_id}".encode()).hexdigest()[:8]
    logical = logical_resource_id[:24]
    return f"{stack_name[: 61 - len(suffix) - len(logical)]}-{logical}-{suffix}"

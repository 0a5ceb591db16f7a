"""Call a function in this process, as Lambda would: its folder on the path, its role in the database, a context."""

from __future__ import annotations

import importlib
import sys
import time
import uuid
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from prooftrail.errors import ConfigurationError


class Context(LambdaContext):
    """What a handler may ask of Lambda's context object, with `seconds` to run."""

    def __init__(self, name: str, seconds: float = 300.0) -> None:
        self._function_name = name
        self._function_version = "$LATEST"
        self._invoked_function_arn = f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
        self._memory_limit_in_mb = 512
        self._aws_request_id = str(uuid.uuid4())
        self._log_group_name = f"/aws/lambda/{name}"
        self._log_stream_name = "local"
        self._deadline = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:  # type: ignore[override]  # theirs is static, which Lambda's is not
        """Milliseconds until Lambda would kill the function."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))


def invoke(folder: Path, event: dict[str, Any], environment: MutableMapping[str, str]) -> Any:
    """Import the function of `folder` (its module has the folder's name) and call its handler with `event`.

    Raises `ConfigurationError` where there is no such function or no DATABASE_URL; else what the handler raises.
    """
    if not (folder / f"{folder.name}.py").is_file():
        raise ConfigurationError(f"expected a function in {folder}: run this from a checkout of the project")
    environment["DATABASE_URL"] = as_role(environment, f"prooftrail_{folder.name}")
    environment.setdefault("POWERTOOLS_SERVICE_NAME", folder.name)
    environment.setdefault("POWERTOOLS_METRICS_NAMESPACE", "Prooftrail")
    sys.path.insert(0, str(folder))
    return importlib.import_module(folder.name).handler(event, Context(folder.name))


def as_role(environment: Mapping[str, str], role: str) -> str:
    """The admin's DATABASE_URL, but acting as one of the functions' roles, with its rights and no more."""
    if "DATABASE_URL" not in environment:
        raise ConfigurationError("DATABASE_URL is not set: run `make up` and `source .local/stack.env`")
    parameters = conninfo_to_dict(environment["DATABASE_URL"])
    if parameters.get("user") == role:
        return environment["DATABASE_URL"]
    return make_conninfo(environment["DATABASE_URL"], options=f"-c role={role}")

"""The template, built and deployed with the SAM CLI as anybody would deploy it to AWS."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local import tools
from local.aws import CREDENTIALS, REGION, Clients, environment
from local.errors import StackError
from local.layout import Layout, architecture, runtime_name

NAME = "prooftrail"
ARTIFACTS = "prooftrail-artifacts"
SOURCES = ("template.yaml", "samconfig.toml", "layer", "functions", "migrations")


class Build:
    """What `sam build` makes; built beside other work, and only when the sources changed."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.directory = layout.state / "build"
        self.fingerprint = _fingerprint(layout)
        self._stamp = self.directory / ".fingerprint"
        self._log = layout.logs / "sam-build.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin, unless what is there is what would be made."""
        if self._stamp.exists() and self._stamp.read_text() == self.fingerprint:
            return
        directories = ["--build-dir", str(self.directory), "--cache-dir", str(self._layout.tools / "build-cache")]
        source = ["--template-file", str(self._layout.checkout / "template.yaml")]
        source += ["--config-file", str(self._layout.checkout / "samconfig.toml"), "--config-env", "local"]
        overrides = ["--parameter-overrides", *_assignments(_machine())]
        self._process = _sam(self._layout, self._log, ["build", *source, *directories, *overrides], {})

    def finish(self) -> None:
        """Wait until it is done."""
        if self._process is None:
            return
        if self._process.wait() != 0:
            raise StackError(f"`sam build` failed: {_complaint(self._log)}")
        self._stamp.write_text(self.fingerprint)


class Deployment:
    """The stack in LocalStack's CloudFormation."""

    def __init__(self, layout: Layout, url: str) -> None:
        self._layout = layout
        self._url = url
        self._clients = Clients(url)
        self._log = layout.logs / "sam-deploy.log"

    def is_current(self, fingerprint: str) -> bool:
        """Say whether the deployed stack is the one of these sources."""
        found = self._describe()
        tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}
        return _is_complete(found) and tags.get("sources") == fingerprint

    def has_failed(self) -> bool:
        """Say whether the stack is in a state from which no deployment leads out, in AWS as here."""
        found = self._describe()
        return bool(found) and not _is_complete(found)

    def deploy(self, build: Build, parameters: Mapping[str, str]) -> None:
        """Create or update the stack."""
        self._clients.s3().create_bucket(Bucket=ARTIFACTS)
        configuration = self._layout.state / "samconfig.yaml"
        settings = _settings(self._layout, {**_machine(), **parameters}, build)
        configuration.write_text(json.dumps({"version": 0.1, "local": {"deploy": {"parameters": settings}}}))
        arguments = ["--config-file", str(configuration), "--config-env", "local", "--no-progressbar"]
        template = ["--template-file", str(build.directory / "template.yaml")]
        process = _sam(self._layout, self._log, ["deploy", *arguments, *template], environment(self._url))
        if process.wait() != 0:
            raise StackError(f"`sam deploy` failed: {self._reason() or _complaint(self._log)}")

    def outputs(self) -> dict[str, str]:
        """Return the stack's outputs."""
        return {output["OutputKey"]: output["OutputValue"] for output in self._describe().get("Outputs", [])}

    def _describe(self) -> dict[str, Any]:
        try:
            return dict(self._clients.cloudformation().describe_stacks(StackName=NAME)["Stacks"][0])
        except ClientError:
            return {}

    def _reason(self) -> str:
        try:
            events = self._clients.cloudformation().describe_stack_events(StackName=NAME)["StackEvents"]
        except ClientError:
            return ""
        reasons = [
            f"{event['LogicalResourceId']}: {event['ResourceStatusReason']} (log: {self._log})"
            for event in events
            if event["ResourceStatus"].endswith("_FAILED") and event.get("ResourceStatusReason")
        ]
        # Newest first; the oldest failure is the cause, the rest its consequences.
        return reasons[-1] if reasons else ""


def _is_complete(stack: Mapping[str, Any]) -> bool:
    return stack.get("StackStatus") in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}


def _machine() -> dict[str, str]:
    return {"Runtime": runtime_name(), "Architecture": architecture()}


def _settings(layout: Layout, parameters: Mapping[str, str], build: Build) -> dict[str, Any]:
    """Return what samconfig.toml says for `local`, with what only this machine knows."""
    configuration = tomllib.loads((layout.checkout / "samconfig.toml").read_text(encoding="utf-8"))["local"]
    settings = {**configuration["global"]["parameters"], **configuration["deploy"]["parameters"]}
    given = dict(assignment.split("=", 1) for assignment in settings["parameter_overrides"])
    # A bucket of our own: for SAM's managed one, SAM waits 15 s.
    del settings["resolve_s3"]
    return {
        **settings,
        "s3_bucket": ARTIFACTS,
        "parameter_overrides": _assignments({**given, **parameters}),
        "tags": [f"sources={build.fingerprint}"],
    }


def _assignments(parameters: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in parameters.items()]


def _sam(layout: Layout, log: Path, arguments: list[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAM_CLI_"))}
    quiet = {"SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.3", "PATH": tools.path_with_interpreter(layout)}
    everything = {**inherited, **CREDENTIALS, "AWS_DEFAULT_REGION": REGION, **quiet, **variables}
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(tools.sam(layout)), *arguments],
            cwd=layout.checkout,
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _complaint(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error")]
    return f"{(errors or lines or ['it said nothing'])[-1]} (log: {log})"


def _fingerprint(layout: Layout) -> str:
    digest = hashlib.sha256(json.dumps(_machine()).encode())
    for file in _source_files(layout.checkout):
        digest.update(str(file.relative_to(layout.checkout)).encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _source_files(checkout: Path) -> Iterator[Path]:
    for source in SOURCES:
        path = checkout / source
        found = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)

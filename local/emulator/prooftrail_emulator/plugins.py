"""The entry points that LocalStack loads; each imports its implementation only when it is used."""

from typing import Any

from localstack.services.cloudformation.resource_provider import CloudFormationResourceProviderPlugin
from localstack.services.lambda_.invocation.plugins import RuntimeExecutorPlugin


class ProcessExecutorPlugin(RuntimeExecutorPlugin):
    """Runs functions as processes (LAMBDA_RUNTIME_EXECUTOR=process)."""

    name = "process"

    def load(self, *args: Any, **kwargs: Any) -> type[Any]:
        """Return the executor class."""
        from prooftrail_emulator.executor import ProcessRuntimeExecutor

        return ProcessRuntimeExecutor


class CustomResourcePlugin(CloudFormationResourceProviderPlugin):
    """Makes custom resources real: their function is called, as CloudFormation does."""

    name = "AWS::CloudFormation::CustomResource"

    def __init__(self) -> None:
        self.factory: type[Any] | None = None

    def load(self, *args: Any, **kwargs: Any) -> None:
        """Set the provider class."""
        from prooftrail_emulator.custom_resource import CustomResourceProvider

        self.factory = CustomResourceProvider

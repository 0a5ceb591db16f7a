"""What this LocalStack really has, so that a deployment cannot rest on a type that is only pretended.

LocalStack would ask its maker's server for such a list, and go on without one when it cannot.
"""

from __future__ import annotations

from typing import Any

from localstack.utils.catalog.catalog import CatalogPlugin
from localstack.utils.catalog.common import (
    CloudFormationResourcesSupportAtRuntime,
    CloudFormationResourcesSupportInLatest,
)


class InstalledTypes(CatalogPlugin):  # type: ignore[misc]
    """Knows the resource types of the installed plugins and nothing else."""

    # The name for which LocalStack looks first.
    name = "aws-catalog-remote-state-with-license"

    def get_aws_service_status(self, service_name: str, operation_name: str | None = None) -> None:
        """Leave calls of services alone: a missing one fails by itself."""

    def get_cloudformation_resource_status(
        self, resource_name: str, service_name: str, is_pro_resource: bool = False
    ) -> Any:
        """Say whether a plugin makes resources of the type."""
        if resource_name.startswith("Custom::") or resource_name in self._get_cfn_resources_available_at_runtime():
            return CloudFormationResourcesSupportAtRuntime.AVAILABLE
        return CloudFormationResourcesSupportInLatest.NOT_SUPPORTED

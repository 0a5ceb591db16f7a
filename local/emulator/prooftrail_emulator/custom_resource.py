"""Custom resources as CloudFormation runs them: a function gets a request and puts its answer at a URL.

https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requesttypes.html
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any, ClassVar

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from localstack import config
from localstack.services.cloudformation.resource_provider import (
    OperationStatus,
    ProgressEvent,
    ResourceProvider,
    ResourceRequest,
)

BUCKET = "cloudformation-custom-resource-responses"
# Under which the provider remembers what the template said: the next update and the deletion tell the function.
REQUESTED = "__requested__"
DEFAULT_SERVICE_TIMEOUT_SECONDS = 3600


class CustomResourceFailure(Exception):
    """The function said FAILED, or did not answer."""


@dataclass(frozen=True)
class Answer:
    """What the function put at the response URL."""

    physical_id: str
    data: dict[str, Any]


class CustomResourceProvider(ResourceProvider):  # type: ignore[type-arg]
    """Creates, updates and deletes by asking the function that ServiceToken names."""

    TYPE = "AWS::CloudFormation::CustomResource"
    SCHEMA: ClassVar = {"typeName": TYPE, "primaryIdentifier": ["/properties/PhysicalResourceId"]}

    def create(self, request: ResourceRequest) -> ProgressEvent:  # type: ignore[type-arg]
        """Ask for the resource."""
        return _report(lambda: _model(_ask(request, "Create", request.desired_state), request.desired_state))

    def update(self, request: ResourceRequest) -> ProgressEvent:  # type: ignore[type-arg]
        """Ask for the change; a new physical id means a replacement, so the old one is deleted."""
        old = request.previous_state or {}

        def change() -> dict[str, Any]:
            extra = {"PhysicalResourceId": old["PhysicalResourceId"], "OldResourceProperties": _texts(old[REQUESTED])}
            answer = _ask(request, "Update", request.desired_state, extra)
            if answer.physical_id != old["PhysicalResourceId"]:
                _delete(request, old)
            return _model(answer, request.desired_state)

        return _report(change)

    def delete(self, request: ResourceRequest) -> ProgressEvent:  # type: ignore[type-arg]
        """Ask for the deletion; a resource whose creation failed has no id and is not there."""
        old = request.previous_state or {}

        def remove() -> dict[str, Any]:
            if "PhysicalResourceId" in old:
                _delete(request, old)
            return {}

        return _report(remove)


def _report(action: Any) -> ProgressEvent:  # type: ignore[type-arg]
    try:
        return ProgressEvent(OperationStatus.SUCCESS, resource_model=action())
    except CustomResourceFailure as failure:
        return ProgressEvent(OperationStatus.FAILED, resource_model={}, message=str(failure))


def _model(answer: Answer, requested: dict[str, Any]) -> dict[str, Any]:
    return {**requested, **answer.data, "PhysicalResourceId": answer.physical_id, REQUESTED: requested}


def _delete(request: ResourceRequest, old: dict[str, Any]) -> None:  # type: ignore[type-arg]
    _ask(request, "Delete", old[REQUESTED], {"PhysicalResourceId": old["PhysicalResourceId"]})


def _ask(
    request: ResourceRequest,  # type: ignore[type-arg]
    request_type: str,
    properties: dict[str, Any],
    extra: dict[str, Any] | None = None,
) -> Answer:
    s3, key = _s3(), str(uuid.uuid4())
    s3.create_bucket(Bucket=BUCKET)
    document = {
        "RequestType": request_type,
        "ServiceToken": properties["ServiceToken"],
        "ResponseURL": s3.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": key}, ExpiresIn=7200),
        "StackId": request.stack_id,
        "RequestId": str(uuid.uuid4()),
        "LogicalResourceId": request.logical_resource_id,
        "ResourceType": request.resource_type,
        "ResourceProperties": _texts(properties),
        **(extra or {}),
    }
    fault = _call(request, properties, document)
    return _answer(s3, key, document, fault)


def _call(request: ResourceRequest, properties: dict[str, Any], document: dict[str, Any]) -> str:  # type: ignore[type-arg]
    """Run the function to its end and return its error, if any: nobody has to wait an hour for a dead function."""
    timeout = int(properties.get("ServiceTimeout") or DEFAULT_SERVICE_TIMEOUT_SECONDS)
    lambda_client = boto3.client(
        "lambda",
        region_name=request.region_name,
        endpoint_url=_endpoint(),
        aws_access_key_id=request.account_id,
        aws_secret_access_key="test",  # noqa: S106
        config=Config(read_timeout=timeout, retries={"total_max_attempts": 1}),
    )
    response = lambda_client.invoke(FunctionName=properties["ServiceToken"], Payload=json.dumps(document).encode())
    if "FunctionError" not in response:
        return ""
    return str(json.loads(response["Payload"].read()).get("errorMessage"))


def _answer(s3: Any, key: str, document: dict[str, Any], fault: str) -> Answer:
    try:
        answer = json.loads(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    except ClientError:
        raise CustomResourceFailure(
            f"the function of {document['LogicalResourceId']} ended without an answer: {fault or 'see its log'}"
        ) from None
    s3.delete_object(Bucket=BUCKET, Key=key)
    if answer["Status"] != "SUCCESS":
        reason = answer.get("Reason")
        raise CustomResourceFailure(f"Received response status [FAILED] from custom resource. Reason: {reason}")
    return Answer(answer["PhysicalResourceId"], answer.get("Data") or {})


def _s3() -> Any:
    # LocalStack's own account, so that nobody sees the bucket among theirs.
    return boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=_endpoint(),
        aws_access_key_id=config.INTERNAL_RESOURCE_ACCOUNT,
        # The secret with which LocalStack checks presigned URLs.
        aws_secret_access_key="test",  # noqa: S106
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def _endpoint() -> str:
    return f"http://127.0.0.1:{config.GATEWAY_LISTEN[0].port}"


def _texts(value: Any) -> Any:
    """Return the value as CloudFormation sends it: every number and boolean a string."""
    if isinstance(value, dict):
        return {name: _texts(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_texts(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else str(value)

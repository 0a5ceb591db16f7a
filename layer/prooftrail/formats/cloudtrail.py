"""AWS CloudTrail records, as a log file's ``Records`` or EventBridge's ``detail`` carry them.

Source: AWS CloudTrail User Guide, "CloudTrail record contents". What the table does not move stays in ``metadata`` under
its own name, so the whole record can be had back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prooftrail.errors import InvalidRecord
from prooftrail.event import Event
from prooftrail.formats.fields import convert, is_identifier, move, present
from prooftrail.formats.records import Given

# Theirs -> ours, where one value becomes one field as it is.
_FIELDS = {
    "eventID": "id",
    "eventTime": "time",
    "eventSource": "source",
    "eventName": "action",
    "eventCategory": "category",
    "awsRegion": "site",
    "requestID": "request_id",
    "recipientAccountId": "tenant",
}
_ACTOR = {"sourceIPAddress": "ip", "userAgent": "user_agent"}
_ERROR = {"errorCode": "code", "errorMessage": "message"}

# A record without ``resources`` often names its target in the request. The first of these that is text is it.
_TARGETS = {
    "bucketName": "AWS::S3::Bucket",
    "bucket": "AWS::S3::Bucket",
    "secretId": "AWS::SecretsManager::Secret",
    "functionName": "AWS::Lambda::Function",
    "policyArn": "AWS::IAM::ManagedPolicy",
    "roleName": "AWS::IAM::Role",
    "userName": "AWS::IAM::User",
    "groupName": "AWS::IAM::Group",
    "instanceProfileName": "AWS::IAM::InstanceProfile",
    "dBSnapshotIdentifier": "AWS::RDS::DBSnapshot",
    "dBInstanceIdentifier": "AWS::RDS::DBInstance",
    "instanceId": "AWS::EC2::Instance",
    "routeTableId": "AWS::EC2::RouteTable",
    "subnetId": "AWS::EC2::Subnet",
    "internetGatewayId": "AWS::EC2::InternetGateway",
    "vpcId": "AWS::EC2::VPC",
    "keyId": "AWS::KMS::Key",
    "tableName": "AWS::DynamoDB::Table",
    "queueUrl": "AWS::SQS::Queue",
    "topicArn": "AWS::SNS::Topic",
    "roleArn": "AWS::IAM::Role",
}


def recognises(document: dict[str, Any], _headers: Mapping[str, str]) -> bool:
    """Tell whether the document is a CloudTrail record."""
    return "eventVersion" in document and "eventName" in document and "eventID" in document


def to_event(record: dict[str, Any], _given: Given) -> Event:
    """Map one CloudTrail record; the tenant is the account that received it.

    Raises `InvalidRecord` or `msgspec.ValidationError` where a field is missing or of the wrong type.
    """
    rest = present(record)
    identity = rest.get("userIdentity", {})
    if not isinstance(identity, dict):
        raise InvalidRecord("invalid-field", "expected `object` - at `$.userIdentity`")
    fields = move(rest, _FIELDS)
    fields.setdefault("tenant", identity.get("accountId"))
    failed = "errorCode" in rest or "errorMessage" in rest or _sign_in_failed(rest)
    fields["outcome"] = "failure" if failed else "success"
    fields["error"] = move(rest, _ERROR) or None
    fields["actor"] = move(rest, _ACTOR) | _actor(identity) or None
    fields["target"] = _target(rest, fields.get("source"))
    fields["metadata"] = rest
    return convert(present(fields))


def _actor(identity: dict[str, Any]) -> dict[str, Any]:
    session = identity.get("sessionContext")
    issuer = session.get("sessionIssuer") if isinstance(session, dict) else None
    role = issuer.get("arn") if isinstance(issuer, dict) else None
    actor = {
        "type": identity.get("type"),
        "id": _first(identity, "arn", "principalId", "invokedBy", "accountId", "userName"),
        "name": _first(identity, "userName", "invokedBy"),
        "session_id": identity.get("accessKeyId"),
        "roles": [role] if isinstance(role, str) else None,
    }
    return present(actor)


def _first(identity: dict[str, Any], *names: str) -> str | None:
    return next((identity[name] for name in names if is_identifier(identity.get(name))), None)


def _sign_in_failed(record: dict[str, Any]) -> bool:
    answer = record.get("responseElements")
    return isinstance(answer, dict) and answer.get("ConsoleLogin") == "Failure"


def _target(record: dict[str, Any], source: Any) -> dict[str, Any] | None:
    """The first resource, else what the request names, else the service that was called."""
    resources = record.get("resources")
    if isinstance(resources, list) and resources and isinstance(resources[0], dict):
        arn = resources[0].get("ARN") or resources[0].get("ARNPrefix")
        if is_identifier(arn):
            return {"id": arn, "type": resources[0].get("type") or None}
    request = record.get("requestParameters")
    if isinstance(request, dict):
        for name, kind in _TARGETS.items():
            if is_identifier(request.get(name)):
                return {"id": request[name], "type": kind}
    return {"id": source, "type": "AWS::Service"} if source else None

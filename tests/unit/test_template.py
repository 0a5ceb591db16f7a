"""The SAM template against what depends on it: settings, migrations, LocalStack, samconfig.toml, the database template."""

from __future__ import annotations

import re
import ssl
import time
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]

from prooftrail import settings

PROJECT = Path(__file__).parents[2]
FUNCTIONS = {
    "IngestFunction": settings.IngestSettings,
    "QueryFunction": settings.QuerySettings,
    "ArchiveFunction": settings.ArchiveSettings,
    "CheckpointFunction": settings.CheckpointSettings,
    "MigrateFunction": settings.DatabaseSettings,
}

# What SAM makes of its own types, with the events that this template gives them.
SAM_MAKES = {
    "AWS::Serverless::Function": {"AWS::Lambda::Function"},
    "AWS::Serverless::LayerVersion": {"AWS::Lambda::LayerVersion"},
    "AWS::Serverless::Api": {"AWS::ApiGateway::RestApi", "AWS::ApiGateway::Deployment", "AWS::ApiGateway::Stage"},
    "SQS": {"AWS::Lambda::EventSourceMapping"},
    "Schedule": {"AWS::Events::Rule", "AWS::Lambda::Permission"},
}
# LocalStack reports CREATE_COMPLETE for any type at all. These have a provider in localstack-core 2026.3.0 (its
# `resource_providers` folders), and each was seen to exist after a deployment; Custom:: comes with the local stack.
LOCALSTACK_MAKES = {
    "AWS::ApiGateway::ApiKey",
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::ApiGateway::UsagePlan",
    "AWS::ApiGateway::UsagePlanKey",
    "AWS::CloudWatch::Alarm",
    "AWS::Events::Rule",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::KMS::Key",  # but not of the kind that signs: the local stack names a secret instead, and none is made
    "AWS::Lambda::EventSourceMapping",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "Custom::DatabaseMigration",
}


class Loader(yaml.SafeLoader):  # type: ignore[misc]  # it ships no types
    """Reads CloudFormation's short forms: `!Ref x` as {"Ref": x}, `!Sub x` as {"Fn::Sub": x}."""


def intrinsic(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    """The long form of one short form."""
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in {"Ref", "Condition"} else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", intrinsic)


def load(name: str) -> dict[str, Any]:
    """Read a template."""
    document: dict[str, Any] = yaml.load((PROJECT / name).read_text(encoding="utf-8"), Loader)
    return document


TEMPLATE = load("template.yaml")
DATABASE = load("infrastructure/database.yaml")
WITNESS = load("infrastructure/witness.yaml")
RESOURCES: dict[str, dict[str, Any]] = TEMPLATE["Resources"]
CONFIGURATION = tomllib.loads((PROJECT / "samconfig.toml").read_text(encoding="utf-8"))


def overrides(environment: str) -> dict[str, str]:
    """The parameters that samconfig.toml sets for an environment."""
    words = CONFIGURATION[environment]["deploy"]["parameters"].get("parameter_overrides", [])
    return dict(word.split("=", 1) for word in words)


def statements(resources: dict[str, dict[str, Any]] = RESOURCES) -> list[tuple[str, dict[str, Any]]]:
    """Every statement of every role and managed policy, those under a condition too."""
    found = []
    for name, resource in resources.items():
        properties = resource.get("Properties", {})
        documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            documents.append(properties["PolicyDocument"])
        for document in documents:
            for statement in document["Statement"]:
                branches = statement["Fn::If"][1:] if "Fn::If" in statement else [statement]
                found += [(name, branch) for branch in branches if "Effect" in branch]
    return found


@pytest.mark.parametrize("template", [TEMPLATE, DATABASE, WITNESS], ids=["template", "database", "witness"])
def test_a_parameter_says_what_it_is_and_is_in_a_group(template: dict[str, Any]) -> None:
    parameters = template["Parameters"]
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(parameters)
    for name, parameter in parameters.items():
        assert parameter.get("Description"), name
        assert "AllowedPattern" not in parameter or "ConstraintDescription" in parameter, name


def test_the_databases_outputs_are_parameters() -> None:
    assert DATABASE["Outputs"].keys() <= TEMPLATE["Parameters"].keys()


@pytest.mark.parametrize("environment", ["local", "prod"])
def test_samconfig_sets_parameters_that_exist_to_values_they_allow(environment: str) -> None:
    for name, value in overrides(environment).items():
        allowed = TEMPLATE["Parameters"][name].get("AllowedValues", [value])
        assert value in map(str, allowed), name


@pytest.mark.parametrize("environment", ["default", "local", "prod"])
def test_a_message_stays_hidden_while_it_is_ingested(environment: str) -> None:
    defaults = {name: parameter.get("Default") for name, parameter in TEMPLATE["Parameters"].items()}
    value = defaults | overrides(environment)
    assert int(value["VisibilityTimeoutSeconds"]) >= int(value["IngestTimeoutSeconds"])


@pytest.mark.parametrize(("function", "kind"), FUNCTIONS.items())
def test_a_function_is_told_what_its_settings_need(function: str, kind: type[settings.DatabaseSettings]) -> None:
    shared = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    told = shared | RESOURCES[function]["Properties"]["Environment"]["Variables"]
    known = {field.encode_name for field in msgspec.structs.fields(kind)}
    # A number with a default in the code may stay unsaid; who, where and which may not.
    assert {name for name in known if name.startswith(("DATABASE_", "PROOFTRAIL_"))} <= told.keys()
    assert told["POWERTOOLS_SERVICE_NAME"] == function.removesuffix("Function").lower()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_functions_handler_exists_and_its_log_is_kept_for_a_while(function: str) -> None:
    properties = RESOURCES[function]["Properties"]
    module, handler = properties["Handler"].split(".")
    assert f"\ndef {handler}(" in (PROJECT / properties["CodeUri"] / f"{module}.py").read_text(encoding="utf-8")
    group = RESOURCES[properties["LoggingConfig"]["LogGroup"]["Ref"]]
    assert group["Type"] == "AWS::Logs::LogGroup"
    assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


def test_new_code_waits_for_the_newest_schema() -> None:
    newest = max(file.name[:4] for file in (PROJECT / "migrations").glob("[0-9]*.sql"))
    assert RESOURCES["DatabaseMigration"]["Properties"]["SchemaVersion"] == newest
    for function in FUNCTIONS.keys() - {"MigrateFunction"}:
        assert RESOURCES[function]["DependsOn"] == "DatabaseMigration"


def test_localstack_makes_every_resource_and_does_not_just_say_so() -> None:
    for name, resource in RESOURCES.items():
        events = [event["Type"] for event in resource.get("Properties", {}).get("Events", {}).values()]
        types = {made for kind in [resource["Type"], *events] for made in SAM_MAKES.get(kind, {kind})}
        assert types <= LOCALSTACK_MAKES, name


def test_the_gateways_key_is_asked_for_everywhere_but_health_and_only_when_required() -> None:
    paths = RESOURCES["Api"]["Properties"]["DefinitionBody"]["paths"]
    asked = {path: method.get("security") for path, methods in paths.items() for method in methods.values()}
    assert {str(method.get("security")) for method in paths["/{proxy+}"].values()} == {str(asked["/{proxy+}"])}
    assert asked == {"/health": None, "/{proxy+}": {"Fn::If": ["GatewayKeyRequired", [{"gateway_key": []}], []]}}
    assert paths["/{proxy+}"].keys() == {"get", "post"}
    for name in ("ApiKey", "UsagePlan", "UsagePlanKey"):
        assert RESOURCES[name]["Condition"] == "GatewayKeyRequired"


def test_the_gateway_refuses_with_problems() -> None:
    responses = RESOURCES["Api"]["Properties"]["DefinitionBody"]["x-amazon-apigateway-gateway-responses"]
    for name, response in responses.items():
        # As the gateway fills it in: a JSON string, quotes included, and a plain id.
        template = response["responseTemplates"]["application/json"]
        body = template.replace("$context.error.messageString", '"a"').replace("$context.requestId", "b")
        assert msgspec.json.decode(body).keys() >= {"type", "title", "detail"}, name
        assert response["responseParameters"]["gatewayresponse.header.Content-Type"] == "'application/problem+json'", name


def test_a_function_may_do_nothing_to_everything() -> None:
    for role, statement in statements():
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions), role
        assert statement["Resource"] != "*" or role == "FunctionPolicy", role
        erases = role == "ArchiveRole" and statement["Resource"] == {"Fn::Sub": "${ArchiveBucket.Arn}/*"}
        assert erases or not any(re.match("s3:(Delete|Bypass)", action) for action in actions), role


def test_the_gateway_may_call_the_function_by_every_method_that_it_has() -> None:
    paths = RESOURCES["Api"]["Properties"]["DefinitionBody"]["paths"]
    permissions = [
        resource["Properties"]["SourceArn"]["Fn::Sub"]
        for resource in RESOURCES.values()
        if resource["Type"] == "AWS::Lambda::Permission" and "SourceArn" in resource["Properties"]
    ]
    for method in {method.upper() for methods in paths.values() for method in methods}:
        assert any(arn.endswith(f"${{Api}}/*/{method}/*") for arn in permissions), method


@pytest.mark.parametrize("function", ["ingest", "query", "archive", "checkpoint"])
def test_a_function_logs_in_as_itself_only(function: str) -> None:
    role = f"prooftrail_{function}"
    url = RESOURCES[f"{function.capitalize()}Function"]["Properties"]["Environment"]["Variables"]["DATABASE_URL"]
    assert url["Fn::Sub"][0].startswith(f"postgresql://{role}@")
    connects = [
        statement["Resource"]["Fn::Sub"]
        for name, statement in statements()
        if name == f"{function.capitalize()}Role" and statement["Action"] == "rds-db:connect"
    ]
    assert [arn.rpartition("/")[2] for arn in connects] == [role]


@pytest.mark.parametrize("name", ["Archive", "Evidence"])
def test_archived_objects_and_evidence_are_locked_encrypted_and_private(name: str) -> None:
    bucket = RESOURCES[f"{name}Bucket"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert bucket["Properties"]["ObjectLockEnabled"] is True
    retention = bucket["Properties"]["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert retention == {"Mode": {"Ref": f"{name}LockMode"}, "Days": {"Ref": f"{name}LockDays"}}
    assert bucket["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    assert "BucketEncryption" in bucket["Properties"]
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    sids = {statement["Sid"] for statement in RESOURCES[f"{name}BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]}
    assert "TlsOnly" in sids


def test_evidence_is_written_once_by_one_function_that_may_not_delete_it() -> None:
    policy = RESOURCES["EvidenceBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    (once,) = [statement for statement in policy if statement["Sid"] == "WriteOnce"]
    assert (once["Effect"], once["Principal"], once["Action"]) == ("Deny", "*", "s3:PutObject")
    assert once["Condition"]["Null"] == {"s3:if-none-match": "true"}
    may = {action for role, found in statements() if role == "CheckpointRole" for action in listed(found["Action"])}
    assert {action for action in may if action.startswith(("s3:", "kms:"))} == {
        "s3:PutObject", "s3:GetObject", "s3:ListBucket", "kms:Sign", "kms:GetPublicKey",
    }  # fmt: skip


def listed(actions: str | list[str]) -> list[str]:
    return actions if isinstance(actions, list) else [actions]


@pytest.mark.parametrize("template", [TEMPLATE, WITNESS], ids=["template", "witness"])
def test_a_key_that_signs_signs_as_notes_want_it_and_outlives_the_stack(template: dict[str, Any]) -> None:
    key = template["Resources"]["SigningKey"]
    assert (key["Properties"]["KeySpec"], key["Properties"]["KeyUsage"]) == ("ECC_NIST_EDWARDS25519", "SIGN_VERIFY")
    assert key["DeletionPolicy"] == key["UpdateReplacePolicy"] == "Retain"
    assert (key["Condition"], template["Conditions"]["MakesSigningKey"]) == (
        "MakesSigningKey",
        {"Fn::Equals": [{"Ref": "SigningKeys"}, ""]},
    )


def test_checkpoints_raise_an_alarm_when_they_are_late_when_they_are_refused_and_when_nobody_makes_them() -> None:
    def alarm(name: str) -> dict[str, Any]:
        properties: dict[str, Any] = RESOURCES[f"{name}Alarm"]["Properties"]
        assert properties["Namespace"] == "Prooftrail"
        assert properties["Dimensions"] == [{"Name": "service", "Value": "checkpoint"}]  # as Powertools names it
        return properties

    late, missing, refused = alarm("CheckpointLag"), alarm("CheckpointMissing"), alarm("CheckpointRefused")
    assert (late["MetricName"], late["Statistic"], late["Threshold"]) == ("CheckpointLagSeconds", "Maximum", 60)
    assert (missing["Statistic"], missing["Threshold"]) == ("SampleCount", 1)
    assert (missing["ComparisonOperator"], missing["TreatMissingData"]) == ("LessThanThreshold", "breaching")
    assert (refused["MetricName"], refused["Threshold"]) == ("CheckpointRefused", 0)
    source = (PROJECT / "functions/checkpoint/checkpoint.py").read_text(encoding="utf-8")
    for name in ("CheckpointLag", "CheckpointMissing", "CheckpointRefused", "Witness"):
        assert f'"{alarm(name)["MetricName"]}"' in source


def test_the_witness_stands_alone_with_the_same_layer() -> None:
    function = WITNESS["Resources"]["WitnessFunction"]["Properties"]
    told = function["Environment"]["Variables"]
    known = {field.encode_name for field in msgspec.structs.fields(settings.WitnessSettings)}
    assert known <= told.keys()
    assert (PROJECT / "infrastructure" / function["CodeUri"] / "witness.py").is_file()
    layer = WITNESS["Resources"]["ProoftrailLayer"]["Properties"]
    assert (PROJECT / "infrastructure" / layer["ContentUri"] / "prooftrail").is_dir()
    for role, statement in statements(WITNESS["Resources"]):
        assert not any("*" in action or "Delete" in action for action in listed(statement["Action"])), role


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        ("LogOrigin", ["audit.example.com", "example.com/audit", "x"], ["", "a b", "a+b", "a,b", "a/", "/a", "https://a"]),
        (
            "SigningKeys",
            ["", "arn:aws:kms:eu-central-1:111122223333:key/1,arn:aws:secretsmanager:x:1:secret:a"],
            ["key", "a,"],
        ),
        ("Witnesses", ["", "w.example+0a+b64= https://w.example/v1,w2+0a+b http://w2"], ["w.example", "w https://a,"]),
    ],
)
def test_a_parameter_of_several_words_takes_what_the_code_takes(parameter: str, good: list[str], bad: list[str]) -> None:
    pattern = TEMPLATE["Parameters"][parameter]["AllowedPattern"]
    assert all(re.fullmatch(pattern, value) for value in good)
    assert not any(re.fullmatch(pattern, value) for value in bad)


def test_certificates_are_authorities_that_signed_themselves_and_have_not_expired() -> None:
    file = PROJECT / "layer/prooftrail/certificates/rds-global-bundle.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    authorities = context.get_ca_certs()
    # OpenSSL lists authorities only: one that is none would be missing.
    assert len(authorities) == file.read_text(encoding="utf-8").count("BEGIN CERTIFICATE")
    for authority in authorities:
        assert authority["subject"] == authority["issuer"]
        assert ssl.cert_time_to_seconds(str(authority["notAfter"])) > time.time()
    query = TEMPLATE["Mappings"]["Tls"]["verify-full"]["Query"]
    assert query == f"sslmode=verify-full&sslrootcert=/opt/python/{file.relative_to(PROJECT / 'layer')}"

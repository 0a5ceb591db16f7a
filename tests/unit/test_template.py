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
    "HttpFunction": settings.IngestSettings,
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
    for_administrators = {"AdminHostId", "ClusterEndpoint"}
    assert DATABASE["Outputs"].keys() - TEMPLATE["Parameters"].keys() == for_administrators


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


def test_ingest_is_told_all_that_it_may_be_told() -> None:
    told = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    told = told | RESOURCES["IngestFunction"]["Properties"]["Environment"]["Variables"]
    for kind in (settings.IngestSettings, settings.SchemaRegistrySettings):
        assert {field.encode_name for field in msgspec.structs.fields(kind)} <= told.keys()


def holds(condition: Any, values: dict[str, str]) -> bool:
    """Evaluate a condition for values of the parameters, the defaults where none is given."""
    ((function, given),) = condition.items()
    if function == "Condition":
        return holds(TEMPLATE["Conditions"][given], values)
    if function == "Fn::Equals":
        defaults = {name: str(parameter.get("Default")) for name, parameter in TEMPLATE["Parameters"].items()}
        left, right = ((defaults | values)[side["Ref"]] if isinstance(side, dict) else side for side in given)
        return bool(left == right)
    found = [holds(one, values) for one in given]
    return {"Fn::Not": not found[0], "Fn::Or": any(found), "Fn::And": all(found)}[function]


def broken_rules(rule: str, values: dict[str, str]) -> list[str]:
    """What a rule says to values of the parameters."""
    assertions = TEMPLATE["Rules"][rule]["Assertions"]
    return [one["AssertDescription"] for one in assertions if not holds(one["Assert"], values)]


@pytest.mark.parametrize(
    ("parameter", "value", "made"),
    [
        ("MskClusterArn", "arn", {"MskMapping", "BrokerPolicy"}),
        ("KafkaBootstrapServers", "a:1", {"KafkaMapping", "BrokerPolicy"}),
        ("RabbitMqBrokerArn", "arn", {"RabbitMqMapping", "BrokerPolicy"}),
        ("EventPattern", "{}", {"EventBusRule"}),
    ],
)
def test_a_broker_is_read_only_where_it_is_named(parameter: str, value: str, made: set[str]) -> None:
    names = ["MskMapping", "KafkaMapping", "RabbitMqMapping", "EventBusRule", "BrokerPolicy"]
    conditions = {name: {"Condition": RESOURCES[name]["Condition"]} for name in names}
    assert not any(holds(condition, {}) for condition in conditions.values())
    assert {name for name, condition in conditions.items() if holds(condition, {parameter: value})} == made


@pytest.mark.parametrize("name", ["MskMapping", "KafkaMapping"])
def test_kafkas_mapping_reports_failures_where_it_has_pollers_and_never_gives_up_by_itself(name: str) -> None:
    mapping = RESOURCES[name]["Properties"]
    absent = {"Ref": "AWS::NoValue"}
    assert mapping["FunctionResponseTypes"] == {"Fn::If": ["HasKafkaPollers", ["ReportBatchItemFailures"], absent]}
    assert mapping["ProvisionedPollerConfig"]["Fn::If"][0] == "HasKafkaPollers"
    assert mapping["MaximumRetryAttempts"] == {"Fn::If": ["HasKafkaFailureDestination", 10000, absent]}
    assert mapping["DestinationConfig"]["Fn::If"][0] == "HasKafkaFailureDestination"


def test_the_function_answers_in_part_only_where_the_mapping_may_understand_it() -> None:
    told = RESOURCES["IngestFunction"]["Properties"]["Environment"]["Variables"]["KAFKA_PARTIAL_FAILURES"]
    assert told == {"Fn::If": ["AnswersInPart", "true", "false"]}
    assert not holds({"Condition": "AnswersInPart"}, {})
    assert holds({"Condition": "AnswersInPart"}, {"KafkaPartialFailures": "enabled"})
    assert broken_rules("KafkaIsComplete", {"KafkaPartialFailures": "enabled"})
    assert not broken_rules("KafkaIsComplete", {"KafkaPartialFailures": "enabled", "KafkaPollers": "2"})


@pytest.mark.parametrize(
    ("rule", "values", "missing"),
    [
        ("KafkaIsComplete", {}, None),
        ("KafkaIsComplete", {"MskClusterArn": "arn"}, "KafkaTopic"),
        ("KafkaIsComplete", {"KafkaBootstrapServers": "a:1"}, "KafkaTopic"),
        ("KafkaIsComplete", {"KafkaAuth": "BASIC_AUTH"}, "KafkaSecretArn"),
        ("KafkaIsComplete", {"KafkaSecretArn": "arn"}, "KafkaAuth"),
        ("KafkaIsComplete", {"KafkaFailureDestinationArn": "arn"}, "KafkaPollers"),
        ("KafkaIsComplete", {"SchemaRegistryReader": "mapping", "SchemaRegistry": "x"}, "KafkaPollers"),
        ("KafkaIsComplete", {"SchemaRegistryReader": "mapping", "KafkaPollers": "1"}, "SchemaRegistry"),
        ("KafkaIsComplete", {"MskClusterArn": "arn", "KafkaTopic": "t"}, None),
        ("RabbitMqIsComplete", {}, None),
        ("RabbitMqIsComplete", {"RabbitMqBrokerArn": "arn", "RabbitMqSecretArn": "arn"}, "RabbitMqQueue"),
        ("RabbitMqIsComplete", {"RabbitMqBrokerArn": "arn", "RabbitMqQueue": "q"}, "RabbitMqSecretArn"),
    ],
)
def test_half_of_what_a_broker_needs_is_refused_before_anything_is_made(
    rule: str, values: dict[str, str], missing: str | None
) -> None:
    said = [re.sub(r".* needs? ", "", words) for words in broken_rules(rule, values)]
    assert said == ([missing] if missing else [])


def test_what_the_documentation_of_brokers_names_is_there() -> None:
    named = re.findall("`([A-Z][a-z]+[A-Z][A-Za-z]+)[`=]", (PROJECT / "docs" / "brokers.md").read_text(encoding="utf-8"))
    assert set(named) <= TEMPLATE["Parameters"].keys() | RESOURCES.keys()
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    brokers = [group["Parameters"] for group in groups if group["Label"]["default"] in {"Kafka", "RabbitMQ", "EventBridge"}]
    assert {name for names in brokers for name in names} <= set(named)


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
    for path, methods in paths.items():
        assert {str(method.get("security")) for method in methods.values()} == {str(asked[path])}
    when_required = {"Fn::If": ["GatewayKeyRequired", [{"gateway_key": []}], []]}
    assert asked.pop("/health") is None
    assert asked == dict.fromkeys(["/events", "/events/batch", "/{proxy+}"], when_required)
    assert all(paths[path].keys() == {"get", "post"} for path in asked)
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
        assert statement["Resource"] != "*" or role in {"FunctionPolicy", "BrokerPolicy"}, role
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


def test_events_over_http_are_taken_by_ingest_s_code_in_a_function_of_its_own() -> None:
    http, ingest = (RESOURCES[name]["Properties"] for name in ("HttpFunction", "IngestFunction"))
    assert (http["CodeUri"], http["Handler"]) == (ingest["CodeUri"], "http_ingest.handler")
    assert http["Timeout"] <= 29  # after that API Gateway has given up
    of_ingest = ingest["Environment"]["Variables"]
    for name, value in http["Environment"]["Variables"].items():
        assert value == of_ingest[name] or name == "POWERTOOLS_SERVICE_NAME", name
    assert of_ingest.keys() - http["Environment"]["Variables"].keys() <= {"KAFKA_PARTIAL_FAILURES"}
    actions = {action for role, found in statements() if role == "HttpRole" for action in listed(found["Action"])}
    assert actions == {
        "logs:CreateLogStream", "logs:PutLogEvents", "rds-db:connect", "secretsmanager:GetSecretValue",
    }  # fmt: skip
    paths = RESOURCES["Api"]["Properties"]["DefinitionBody"]["paths"]
    uris = {
        path: methods["post"]["x-amazon-apigateway-integration"]["uri"]
        for path, methods in paths.items()
        if "post" in methods
    }
    taken = {path for path, uri in uris.items() if "${HttpFunction.Arn}" in uri["Fn::Sub"]}
    assert taken == {"/events", "/events/batch"}


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
    for name in ("CheckpointLag", "CheckpointMissing", "CheckpointRefused", "Witness", "Fold"):
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
        ("DefaultFormats", ["", "clinic=debezium", "a=b, c=d"], ["clinic", "a=", "a=b,"]),
        ("DefaultTimezone", ["", "UTC", "America/Chicago", "Etc/GMT+6", "-06:00"], ["/", "America/", "06:00", "a b"]),
        ("KafkaBootstrapServers", ["", "b-1.x.example:9092,b-2:9092"], ["b-1", "b:1,", "b:1, c:2"]),
        (
            "KafkaFailureDestinationArn",
            ["", "arn:aws:s3:::a", "arn:aws:sqs:eu-central-1:111122223333:q"],
            ["arn:aws:s3:::a/b"],
        ),
        ("SchemaRegistry", ["", "https://r.example/x", "arn:aws:glue:x:111122223333:registry/r"], ["r.example", "ftp://r"]),
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

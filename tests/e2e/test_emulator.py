"""LocalStack with our plugins: functions as processes, real custom resources, and data that outlives a crash."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.config import Config

from local import localstack, ports, processes, tools
from local.layout import CHECKOUT, Layout, runtime_name
from local.localstack import LocalStack
from tests.e2e.conftest import eventually

ROLE = "arn:aws:iam::000000000000:role/any"
FUNCTION = """
import json, os, subprocess, sys, time
import words
print("loaded")

def handler(event, context):
    print("got", event)
    if "sleep" in event:
        time.sleep(event["sleep"])
    if "child" in event:
        return subprocess.Popen(["sleep", "1000"]).pid
    if "die" in event:
        os.kill(os.getpid(), event["die"])
    if "exit" in event:
        os._exit(event["exit"])
    if "raise" in event:
        raise ValueError(event["raise"])
    if "large" in event:
        return "x" * event["large"]
    return {"pid": os.getpid(), "word": words.WORD, "path": sys.path, "cwd": os.getcwd(),
            "prefixed": [name for name in os.environ if name.startswith("PROOFTRAIL_")], "size": len(json.dumps(event))}
"""
CUSTOM = """
import json, urllib.request

def handler(event, context):
    print(json.dumps(event))
    wanted = event["ResourceProperties"]
    if wanted.get("Silent"):
        return
    failed = event["RequestType"] in wanted.get("Fail", [])
    answer = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    answer |= {"Status": "FAILED" if failed else "SUCCESS", "Reason": "the reason", "PhysicalResourceId": wanted["Id"]}
    answer["Data"] = {"Text": "made " + wanted["Id"], "Request": json.dumps(event)}
    request = urllib.request.Request(event["ResponseURL"], json.dumps(answer).encode(), method="PUT")
    urllib.request.urlopen(request).close()
"""


@dataclass
class Emulator:
    """A LocalStack of this module's own."""

    layout: Layout
    server: LocalStack

    def client(self, service: str) -> Any:
        options = Config(read_timeout=60, retries={"total_max_attempts": 1}, max_pool_connections=20)
        session: Any = boto3.Session()
        return session.client(service, endpoint_url=self.server.url, config=options)

    def make(self, name: str, code: str, *, timeout: int = 10, layers: list[str] | None = None) -> None:
        self.client("lambda").create_function(
            FunctionName=name,
            Runtime=runtime_name(),
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": zipped({"app.py": code})},
            Timeout=timeout,
            Layers=layers or [],
        )

    def invoke(self, name: str, event: Any) -> tuple[Any, str | None, str]:
        """Return the answer, the kind of error and the tail of the log."""
        answer = self.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail")
        with answer["Payload"] as body:
            payload = json.loads(body.read() or b"null")
        return payload, answer.get("FunctionError"), base64.b64decode(answer.get("LogResult", "")).decode()

    def deploy(self, name: str, properties: dict[str, Any], *, change: bool = False) -> str:
        """Deploy a stack with one custom resource; return its final state, or the reason of its failure."""
        cloudformation = self.client("cloudformation")
        action = cloudformation.update_stack if change else cloudformation.create_stack
        action(StackName=name, TemplateBody=json.dumps(template(properties)))
        return str(eventually(lambda: self.stack(name)["StackStatus"], lambda state: not state.endswith("_PROGRESS"), 30))

    def stack(self, name: str) -> dict[str, Any]:
        return dict(self.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0])

    def outputs(self, name: str) -> dict[str, str]:
        return {output["OutputKey"]: output["OutputValue"] for output in self.stack(name)["Outputs"]}

    def reasons(self, name: str) -> str:
        events = self.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
        return "\n".join(event.get("ResourceStatusReason", "") for event in events)

    def requests(self) -> list[dict[str, Any]]:
        """What the custom resource's function was asked, from its log."""
        lines = (self.layout.logs / "functions" / "custom.log").read_text().splitlines()
        texts = [line.partition(" ")[2] for line in lines]
        return [json.loads(text) for text in texts if text.startswith('{"RequestType"')]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    layout = Layout.of(tmp_path_factory.mktemp("emulator"))
    server = LocalStack(layout, ports.choose("localstack", layout.state, None))
    server.start()
    try:
        server.wait_until_ready()
        emulator = Emulator(layout, server)
        layer = emulator.client("lambda").publish_layer_version(
            LayerName="words", Content={"ZipFile": zipped({"python/words.py": "WORD = 'first'"})}
        )
        later = emulator.client("lambda").publish_layer_version(
            LayerName="later", Content={"ZipFile": zipped({"python/words.py": "WORD = 'later'"})}
        )
        layers = [layer["LayerVersionArn"], later["LayerVersionArn"]]
        emulator.make("function", FUNCTION, timeout=3, layers=layers)
        emulator.make("custom", CUSTOM)
        yield emulator
    finally:
        localstack.stop(layout)
    assert processes.marked(layout.state) == []


def test_a_function_sees_its_code_its_layers_and_the_runtime_and_nothing_else(emulator: Emulator) -> None:
    answer, error, _ = emulator.invoke("function", {})
    assert error is None
    assert answer["word"] == "later"  # the last layer wins, as in /opt
    assert answer["prefixed"] == []
    task, layers, runtime = answer["path"][0], answer["path"][2:6], answer["path"][6]
    assert answer["cwd"] == task
    assert all("/python" in path and "later" in path for path in (layers[0], layers[2]))
    assert runtime.endswith(f"runtime/lib/{runtime_name()}/site-packages")
    assert [path for path in answer["path"] if "site-packages" in path and path != runtime and path not in layers] == []


def test_an_environment_stays_warm(emulator: Emulator) -> None:
    first, second = (emulator.invoke("function", {})[0]["pid"] for _ in range(2))
    assert first == second


def test_the_log_is_returned_kept_in_cloudwatch_and_in_a_file(emulator: Emulator) -> None:
    emulator.make("logs", "def handler(event, context):\n  print('hello', event['n'])\n")
    _, _, tail = emulator.invoke("logs", {"n": 1})
    start, output, end, report = tail.splitlines()
    assert (start[:16], output, end[:14], report[:17]) == (
        "START RequestId:",
        "hello 1",
        "END RequestId:",
        "REPORT RequestId:",
    )
    assert "Init Duration" in report
    assert "hello 1" in (emulator.layout.logs / "functions" / "logs.log").read_text()

    def in_cloudwatch() -> str:
        groups = emulator.client("logs").describe_log_groups(logGroupNamePrefix="/aws/lambda/logs")["logGroups"]
        found = emulator.client("logs").filter_log_events(logGroupName="/aws/lambda/logs")["events"] if groups else []
        return "".join(event["message"] for event in found)

    eventually(in_cloudwatch, lambda text: "hello 1" in text, 10)


def test_a_timeout_ends_the_process_and_the_next_event_gets_a_new_one(emulator: Emulator) -> None:
    before = emulator.invoke("function", {})[0]["pid"]
    started = time.monotonic()
    answer, error, log = emulator.invoke("function", {"sleep": 60})
    assert error == "Unhandled"
    assert answer["errorMessage"].endswith("Task timed out after 3.00 seconds")
    assert "Task timed out after 3.00 seconds" in log
    assert time.monotonic() - started < 10
    assert not psutil.pid_exists(before)
    assert emulator.invoke("function", {})[0]["pid"] != before


@pytest.mark.parametrize(("event", "reason"), [({"die": signal.SIGKILL}, "signal: killed"), ({"exit": 7}, "exit status 7")])
def test_a_crash_is_reported_and_the_process_replaced(emulator: Emulator, event: dict[str, int], reason: str) -> None:
    answer, error, log = emulator.invoke("function", event)
    assert (error, answer["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert answer["errorMessage"].endswith(f"Runtime exited with error: {reason}")
    assert "Runtime.ExitError" in log
    assert emulator.invoke("function", {})[1] is None


def test_a_process_that_died_while_idle_is_replaced_unnoticed(emulator: Emulator) -> None:
    before = emulator.invoke("function", {})[0]["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: psutil.pid_exists(before), lambda alive: not alive, 5)
    answer, error, _ = emulator.invoke("function", {})
    assert (error, answer["pid"] == before) == (None, False)


def test_an_exception_keeps_the_process(emulator: Emulator) -> None:
    before = emulator.invoke("function", {})[0]["pid"]
    answer, error, log = emulator.invoke("function", {"raise": "oh"})
    assert (error, answer["errorType"], answer["errorMessage"]) == ("Unhandled", "ValueError", "oh")
    assert "oh" in log
    assert emulator.invoke("function", {})[0]["pid"] == before


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("import no_such_thing", "Runtime.ImportModuleError"),
        ("1 / 0", "ZeroDivisionError"),
        ("def other(): pass", "Runtime.HandlerNotFound"),
        ("import os; os._exit(3)", "Runtime.ExitError"),
    ],
)
def test_a_function_that_cannot_be_loaded_says_so(emulator: Emulator, code: str, kind: str) -> None:
    name = f"broken-{kind.replace('.', '-')}"
    emulator.make(name, code)
    for _ in range(2):  # every time, not only the first
        answer, error, _ = emulator.invoke(name, {})
        assert (error, answer["errorType"]) == ("Unhandled", kind)


def test_many_environments_run_at_once(emulator: Emulator) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: emulator.invoke("function", {"sleep": 1.5}), range(4)))
    assert len({answer["pid"] for answer, _, _ in answers}) == 4


def test_payloads_may_be_as_large_as_in_aws(emulator: Emulator) -> None:
    assert emulator.invoke("function", {"filler": "x" * 6_000_000})[0]["size"] > 6_000_000
    assert len(emulator.invoke("function", {"large": 6_000_000})[0]) == 6_000_000
    answer, error, _ = emulator.invoke("function", {"large": 6_400_000})
    assert (error, answer["errorType"]) == ("Unhandled", "Function.ResponseSizeTooLarge")
    assert emulator.invoke("function", {})[1] is None


def test_a_runtime_without_interpreter_is_refused_in_one_sentence(emulator: Emulator) -> None:
    client = emulator.client("lambda")
    code = {"ZipFile": zipped({"app.py": ""})}
    with suppress(client.exceptions.ClientError):  # it may also be accepted and become unusable a moment later
        client.create_function(FunctionName="other", Runtime="python3.9", Role=ROLE, Handler="app.handler", Code=code)

    def state() -> dict[str, str]:
        return dict(client.get_function_configuration(FunctionName="other"))

    reason = eventually(state, lambda found: found["State"] == "Failed", 10)["StateReason"]
    assert f"no interpreter for python3.9 here, only for {runtime_name()}" in reason


def test_a_custom_resource_is_created_changed_replaced_and_deleted(emulator: Emulator) -> None:
    assert emulator.deploy("custom", {"Id": "one", "Number": 3, "Flag": True}) == "CREATE_COMPLETE"
    assert emulator.outputs("custom")["Text"] == "made one"
    assert emulator.outputs("custom")["Id"] == "one"
    request = json.loads(emulator.outputs("custom")["Request"])
    assert request["ResourceProperties"] == {**request["ResourceProperties"], "Id": "one", "Number": "3", "Flag": "true"}
    assert request["StackId"] == emulator.stack("custom")["StackId"]
    assert request["ResourceType"] == "Custom::Thing"

    assert emulator.deploy("custom", {"Id": "one", "Number": 4}, change=True) == "UPDATE_COMPLETE"
    assert emulator.deploy("custom", {"Id": "two", "Number": 4}, change=True) == "UPDATE_COMPLETE"
    assert emulator.outputs("custom")["Text"] == "made two"
    emulator.client("cloudformation").delete_stack(StackName="custom")

    def history() -> list[tuple[str, str | None, str | None]]:
        return [
            (
                request["RequestType"],
                request.get("PhysicalResourceId"),
                request.get("OldResourceProperties", {}).get("Number"),
            )
            for request in emulator.requests()
        ]

    expected = [
        ("Create", None, None),
        ("Update", "one", "3"),
        ("Update", "one", "4"),
        ("Delete", "one", None),
        ("Delete", "two", None),
    ]
    eventually(history, lambda asked: asked[:5] == expected, 10)


def test_a_custom_resource_that_fails_fails_the_deployment(emulator: Emulator) -> None:
    assert emulator.deploy("refused", {"Id": "x", "Fail": ["Create"]}) != "CREATE_COMPLETE"
    assert "Reason: the reason" in emulator.reasons("refused")
    assert emulator.deploy("silent", {"Id": "x", "Silent": "yes"}) != "CREATE_COMPLETE"
    assert "ended without an answer" in emulator.reasons("silent")


def test_a_type_that_localstack_lacks_is_refused(emulator: Emulator) -> None:
    cloudformation = emulator.client("cloudformation")
    body = json.dumps({"Resources": {"Database": {"Type": "AWS::RDS::DBInstance", "Properties": {}}}})
    cloudformation.create_change_set(StackName="lacking", ChangeSetName="c", ChangeSetType="CREATE", TemplateBody=body)
    change_set = cloudformation.describe_change_set(StackName="lacking", ChangeSetName="c")
    assert change_set["Status"] == "FAILED"
    assert "AWS::RDS::DBInstance" in change_set["StatusReason"]


@pytest.mark.parametrize("crash", [False, True])
def test_objects_and_messages_outlive_a_restart(emulator: Emulator, crash: bool) -> None:
    name = f"durable-{crash}".lower()
    s3, sqs = emulator.client("s3"), emulator.client("sqs")
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    versions = [
        s3.put_object(Bucket=name, Key="a=ü/b", Body=body, Metadata={"k": "v"})["VersionId"]
        for body in (b"first", b"removed", b"bytes")
    ]
    s3.delete_object(Bucket=name, Key="a=ü/b", VersionId=versions.pop(1))
    s3.put_object(Bucket=name, Key="gone", Body=b"")
    s3.delete_object(Bucket=name, Key="gone")
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    sent = {sqs.send_message(QueueUrl=queue, MessageBody=str(n))["MessageId"] for n in range(3)}
    received = sqs.receive_message(QueueUrl=queue, VisibilityTimeout=600)["Messages"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=received[0]["ReceiptHandle"])

    if crash:
        time.sleep(2.5)  # messages are saved every two seconds
        (server,) = processes.marked(emulator.layout.state, localstack.MODULE)
        server.kill()
        server.wait(10)
    else:
        localstack.stop(emulator.layout)
    emulator.server.start()
    emulator.server.wait_until_ready()

    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=name)["Contents"]] == ["a=ü/b"]
    found = s3.get_object(Bucket=name, Key="a=ü/b")
    with found["Body"] as body:
        assert (body.read(), found["Metadata"]) == (b"bytes", {"k": "v"})
    listed = s3.list_object_versions(Bucket=name, Prefix="a=")["Versions"]
    assert [version["VersionId"] for version in listed] == versions[::-1]
    with s3.get_object(Bucket=name, Key="a=ü/b", VersionId=versions[0])["Body"] as body:
        assert body.read() == b"first"
    assert sqs.create_queue(QueueName=name)["QueueUrl"] == queue
    again = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    assert {message["MessageId"] for message in again} == sent - {received[0]["MessageId"]}


def test_stopping_leaves_no_process_not_even_a_function_s_child(tmp_path: Path) -> None:
    layout = Layout.of(tmp_path)
    server = LocalStack(layout, ports.choose("localstack", layout.state, None))
    server.start()
    try:
        server.wait_until_ready()
        emulator = Emulator(layout, server)
        emulator.make("function", FUNCTION.replace("import words", ""))
        child, _, _ = emulator.invoke("function", {"child": True})
        assert psutil.pid_exists(child)
        assert len(processes.marked(layout.state)) == 2
    finally:
        assert localstack.stop(layout)
    assert processes.marked(layout.state) == []
    eventually(lambda: psutil.pid_exists(child), lambda alive: not alive, 5)


def test_a_function_runs_without_the_compiled_runtime_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, for which AWS makes none."""
    monkeypatch.syspath_prepend(CHECKOUT / "local" / "emulator")
    from prooftrail_emulator.runtime_api import Invocation
    from prooftrail_emulator.sandbox import Program, Sandbox

    runtime, task = tmp_path / "runtime", tmp_path / "task"
    for directory in (runtime, task):
        directory.mkdir()
    for name in ("awslambdaric", "simplejson", "snapshot_restore_py"):
        (runtime / name).symlink_to(tools.runtime(Layout.of()) / name)
    (task / "app.py").write_text(FUNCTION.replace("import words", "").replace("words.WORD", "'none'"))
    region = {"AWS_REGION": "us-east-1"}
    sandbox = Sandbox(Program(tools.interpreter(), task, (), runtime, "app.handler", region))
    try:
        assert sandbox.initialise() is None
        result = sandbox.invoke(Invocation("1", "arn", "trace", b'{"filler": "x"}', 10))
        assert (result.is_error, json.loads(result.payload)["word"]) == (False, "none")
        result = sandbox.invoke(Invocation("2", "arn", "trace", b'{"raise": "oh"}', 10))
        assert (result.is_error, json.loads(result.payload)["errorMessage"]) == (True, "oh")
    finally:
        sandbox.close()


def template(properties: dict[str, Any]) -> dict[str, Any]:
    arn = "arn:aws:lambda:us-east-1:000000000000:function:custom"
    thing = {"Type": "Custom::Thing", "Properties": {"ServiceToken": arn, **properties}}
    values = {
        "Id": {"Ref": "Thing"},
        "Text": {"Fn::GetAtt": ["Thing", "Text"]},
        "Request": {"Fn::GetAtt": ["Thing", "Request"]},
    }
    return {"Resources": {"Thing": thing}, "Outputs": {name: {"Value": value} for name, value in values.items()}}


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()

"""End to end: one stack for all of these tests, deployed by `sam` into LocalStack, with a database of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import psycopg
import pytest
from localstack_client.session import Session

from local import containers
from local.stack import Stack
from prooftrail import invocation
from prooftrail.database import Connection
from tests.conftest import PROJECT
from tests.oracle import check_log

Answer = TypeVar("Answer")


def eventually(ask: Callable[[], Answer], good: Callable[[Answer], Any], seconds: float = 60) -> Answer:
    """Ask until the answer is good; fail with the last one when the time is up."""
    deadline = time.monotonic() + seconds
    while not good(answer := ask()):
        assert time.monotonic() < deadline, f"still not so after {seconds:.0f} s: {answer!r}"
        time.sleep(0.5)
    return answer


def docker_answers() -> bool:
    return shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


class System:
    """The deployed system, as its users see it, and its database."""

    def __init__(self, stack: Stack, environment: dict[str, str]) -> None:
        self.stack = stack
        self.environment = environment
        self.queue, self.dead_letters = environment["PROOFTRAIL_QUEUE_URL"], environment["PROOFTRAIL_DLQ_URL"]
        self.bucket = environment["PROOFTRAIL_ARCHIVE_BUCKET"]
        self.api = httpx.Client(base_url=environment["PROOFTRAIL_API_URL"], timeout=30)
        self.operator = {"Authorization": f"Bearer {environment['PROOFTRAIL_API_KEY']}"}

    def client(self, service: str) -> Any:
        # Not left in the environment: tests of other kinds share this process, and their AWS is another one.
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ENDPOINT_URL", self.environment["AWS_ENDPOINT_URL"])
            return Session().client(service, region_name="us-east-1")

    def database(self, role: str | None = None) -> Connection:
        """Connect as the admin, or acting as one of the functions' roles."""
        url = invocation.as_role(self.environment, f"prooftrail_{role}") if role else self.environment["DATABASE_URL"]
        return psycopg.connect(url, autocommit=True)

    def send(self, bodies: list[str]) -> None:
        sqs = self.client("sqs")
        for start in range(0, len(bodies), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])]
            assert "Failed" not in sqs.send_message_batch(QueueUrl=self.queue, Entries=entries)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.api.get(path, params=parameters, headers=self.operator)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def all_events(self, **parameters: Any) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while True:
            page = self.get("/events", limit=1000, **parameters)
            events += page["events"]
            if page["next"] is None:
                return events
            parameters["cursor"] = page["next"]

    def messages_left(self) -> int:
        """Messages in the queue and in the dead-letter queue, waiting or in flight."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        sqs = self.client("sqs")
        attributes = [
            sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            for url in (self.queue, self.dead_letters)
        ]
        return sum(int(value) for answer in attributes for value in answer.values())

    def wait_until_drained(self, seconds: float = 120) -> None:
        eventually(self.messages_left, lambda left: left == 0, seconds)

    def output(self, name: str) -> str:
        stacks = self.client("cloudformation").describe_stacks()["Stacks"]
        (value,) = [o["OutputValue"] for stack in stacks for o in stack.get("Outputs", []) if o["OutputKey"] == name]
        return str(value)


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """A stack made from nothing; afterwards the log in it must be sound, and no process may be left."""
    state = PROJECT / ".local" / "tests"
    if docker_answers():
        os.environ[containers.VARIABLE] = "1"  # `sam local invoke` is tested with this stack too
    stack = Stack(state)
    stack.down()  # what a killed test run left
    shutil.rmtree(state, ignore_errors=True)
    try:
        system = System(stack, stack.up())
        yield system
        system.api.close()
        with system.database() as admin:
            check_log(admin)
    finally:
        stack.down()

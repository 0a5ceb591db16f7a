"""One local stack, from nothing to running and back."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

from local import aws, containers, environment_file, localstack, ports, roles, signing
from local.aws import Clients
from local.deploy import Build, Deployment
from local.errors import StackError
from local.layout import Layout
from local.localstack import LocalStack
from local.messaging import Messaging
from local.postgres import Database, Server, new_password
from local.store import Store


class Stack:
    """PostgreSQL, LocalStack and the deployed template, with all their state in one directory.

    `state_dir` defaults to PROOFTRAIL_STATE_DIR, then to `.local` of the checkout. `say` hears each step.
    """

    def __init__(self, state_dir: Path | str | None = None, say: Callable[[str], None] = lambda _: None) -> None:
        self.layout = Layout.of(state_dir)
        self._say = say
        self._bridge = containers.bridge()
        self._server = Server(self.layout.state / "postgres", self.layout.logs / "postgres.log")

    def up(self) -> dict[str, str]:
        """Start what does not run, deploy what changed, and return the values of stack.env."""
        self.layout.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if url := self._external():
            Database(url).check()
        with self._lock():
            store, build = Store(self.layout.state / "store.json"), Build(self.layout)
            local_stack = LocalStack(self.layout, self._localstack_port(store), self._bridge)
            messaging = Messaging(self.layout, store, self._say)
            messaging.start()
            if self._is_up(local_stack, build):
                self._say("already up")
            else:
                self._start(store, build, local_stack)
            self._connect(messaging)
            if containers.wanted():
                self._let_containers_in(store, local_stack)
            return self.values()

    def down(self) -> bool:
        """Stop everything; what was stored stays. Say whether anything ran."""
        if not self.layout.state.exists():
            return False
        with self._lock():
            stopped = Messaging(self.layout, Store(self.layout.state / "store.json")).stop()
            stopped = localstack.stop(self.layout) or stopped
            return self._server.stop() or stopped

    def values(self) -> dict[str, str]:
        """Return the values of stack.env, without looking whether anything runs."""
        return environment_file.read(self.layout.environment_file)

    def brokers(self) -> dict[str, str]:
        """Return what Kafka and RabbitMQ are; `none` where there is none."""
        return dict(Store(self.layout.state / "store.json").get("brokers"))

    def status(self) -> dict[str, str]:
        """Return what runs, by name."""
        store = Store(self.layout.state / "store.json")
        port = store.get("localstack_port")
        local_stack = LocalStack(self.layout, port) if port else None
        postgres = self._server.running_port()
        return {
            "LocalStack": f"running at {local_stack.url}" if local_stack and local_stack.is_running() else "stopped",
            "PostgreSQL": f"running on port {postgres}" if postgres else "elsewhere" if self._external() else "stopped",
            **Messaging(self.layout, store).status(),
        }

    def _start(self, store: Store, build: Build, local_stack: LocalStack) -> None:
        postgres_port = self._postgres_port(store)  # may refuse, and should before anything runs
        build.start()
        if not local_stack.is_running() or Deployment(self.layout, local_stack.url).has_failed():
            # Also after a failed deployment: what is stored comes back, the failed stack does not.
            self._say("starting LocalStack")
            localstack.stop(self.layout)
            local_stack.start()
        database = self._database(store, postgres_port)
        role_passwords = roles.passwords(database, store, own_server=not self._external())
        self._say(f"PostgreSQL: {roles.migrate(self.layout, database, role_passwords)}")
        local_stack.wait_until_ready()
        clients = Clients(local_stack.url)
        parameters = roles.publish(clients, database, role_passwords) | signing.publish(clients, store)
        self._say("building")
        build.finish()
        self._say("deploying")
        deployment = Deployment(self.layout, local_stack.url)
        deployment.deploy(build, parameters)
        self._write_environment(store, local_stack, database, deployment.outputs())

    def _connect(self, messaging: Messaging) -> None:
        """Wait for the brokers, tell where they are, and let the pollers read them."""
        before = self.values()
        after = {**before, **messaging.finish()}
        environment_file.write(self.layout.environment_file, after)
        messaging.poll(after, anew=before != after)

    def _is_up(self, local_stack: LocalStack, build: Build) -> bool:
        values = self.values()
        if not values or not local_stack.is_running() or not (self._external() or self._server.running_port()):
            return False
        same_database = not self._external() or values["DATABASE_URL"] == self._external()
        return same_database and Deployment(self.layout, local_stack.url).is_current(build.fingerprint)

    def _database(self, store: Store, port: int) -> Database:
        if url := self._external():
            return Database(url)
        self._say("starting PostgreSQL")
        if not store.get("admin_password"):
            store.set("admin_password", new_password())
        return self._server.start(port, store.get("admin_password"), self._bridge)

    def _localstack_port(self, store: Store) -> int:
        running = localstack.is_alive(self.layout)
        return self._port("localstack", store, store.get("localstack_port") if running else None)

    def _postgres_port(self, store: Store) -> int:
        return 0 if self._external() else self._port("postgres", store, self._server.running_port())

    def _port(self, service: str, store: Store, running: int | None) -> int:
        asked = os.environ.get(f"PROOFTRAIL_{service.upper()}_PORT")
        if running and asked in (None, "", str(running)):
            return running
        if running:
            raise StackError(f"{service} runs on port {running} already; run `make down` before moving it to {asked}.")
        return ports.remember(service, self.layout.state, store)

    def _write_environment(
        self, store: Store, local_stack: LocalStack, database: Database, outputs: dict[str, str]
    ) -> None:
        api = _local_api_url(local_stack.url, outputs["ApiUrl"])
        values = {
            **aws.environment(local_stack.url),
            "DATABASE_URL": database.url,
            "PROOFTRAIL_API_URL": api,
            "PROOFTRAIL_API_KEY": self._operator_key(store, database, api),
            "PROOFTRAIL_QUEUE_URL": outputs["QueueUrl"],
            "PROOFTRAIL_DLQ_URL": outputs["DeadLetterQueueUrl"],
            "PROOFTRAIL_ARCHIVE_BUCKET": outputs["ArchiveBucketName"],
            "PROOFTRAIL_EVIDENCE_BUCKET": outputs["EvidenceBucketName"],
            "LOG_ORIGIN": outputs["LogOrigin"],
            "SIGNING_KEYS": outputs["SigningKeys"],
        }
        environment_file.write(self.layout.environment_file, values)

    def _operator_key(self, store: Store, database: Database, api: str) -> str:
        known: str | None = store.get("operator_key")
        if known and _key_opens(api, known):
            return known
        made = roles.command(self.layout, database, "key", "create", "--operator", "--label", "local stack")
        store.set("operator_key", made)
        return made

    def _let_containers_in(self, store: Store, local_stack: LocalStack) -> None:
        if self._bridge and not ports.answers(self._bridge, local_stack.port):
            raise StackError("The stack runs, but not for containers; run `make down`, then `make up CONTAINERS=1`.")
        passwords = roles.passwords(Database(self.values()["DATABASE_URL"]), store, own_server=not self._external())
        containers.write_env_file(self.layout, self._bridge, self.values(), passwords)

    def _external(self) -> str:
        """The server that the user names; a shell that has read our own stack.env names ours, which is none."""
        named = os.environ.get("DATABASE_URL", "")
        own_password: str | None = Store(self.layout.state / "store.json").get("admin_password")
        return "" if own_password and own_password in named else named

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.layout.state / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"Another `up` or `down` of {self.layout.state} is running; wait for its end.") from None
            yield


def _local_api_url(localstack_url: str, aws_url: str) -> str:
    """Return where LocalStack serves what AWS would serve under a host name of its own."""
    address = urlsplit(aws_url)
    return f"{localstack_url}/_aws/execute-api/{(address.hostname or '').partition('.')[0]}{address.path}"


def _key_opens(api: str, key: str) -> bool:
    request = Request(f"{api}/events?limit=1", headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - our own address
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=30):
            return True
    except HTTPError as error:
        return error.code not in {401, 403}

"""RabbitMQ: the server that RABBITMQ_URL names, else a `rabbitmq-server` that is installed on this machine, else none.

Our own is a node of its own name, with its data below the state directory, at ports of the loopback; the service that the
package brings is neither used nor touched. Settings: RabbitMQ documentation, "Configuration" and "Networking".
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker

from local import ports, processes
from local.brokers.broker import Broker
from local.errors import StackError
from local.layout import Layout
from local.postgres import new_password
from local.store import Store

VARIABLE = "RABBITMQ_URL"
USER = "prooftrail"
PORTS = ("rabbitmq", "rabbitmq_distribution", "rabbitmq_epmd")
READY_SECONDS = 90
# The package's wrapper on the PATH lets nobody but root and its own user start a server, and changes to that user.
PROGRAMS = "/usr/lib/rabbitmq/bin"
_NOT_FOUND = 404


class RabbitMQ:
    """Starts, watches and stops the RabbitMQ of one stack; `say` hears it when there is none."""

    def __init__(self, layout: Layout, store: Store, say: Callable[[str], None]) -> None:
        self._layout, self._store, self._say = layout, store, say
        self._home, self._log = layout.state / "rabbitmq", layout.logs / "rabbitmq.log"
        named, password = os.environ.get(VARIABLE, ""), store.get("rabbitmq_password")
        # A shell that has read stack.env names our own server, which is none that was given.
        self.given = "" if password and password in named else named

    def prepare(self) -> None:
        """Choose ports and a password, unless they are chosen."""
        if not self._store.get("rabbitmq_password"):
            self._store.set("rabbitmq_password", new_password())
        if not self.is_running():
            self.forget_names()  # of a node that was killed
            for service in PORTS:
                ports.remember(service, self._layout.state, self._store)

    def start(self) -> Broker | None:
        """Start, if it does not run, and wait until it answers. Raises `StackError` with what is wrong."""
        if self.given:
            return self._ready("given RabbitMQ", self.given, lambda: True)
        if not self.is_running():
            program = shutil.which("rabbitmq-server", path=PROGRAMS) or shutil.which("rabbitmq-server")
            if not program:
                self._say("RabbitMQ: THERE IS NONE; install the package rabbitmq-server, or set RABBITMQ_URL to a server")
                return None
            self._launch(program)
        url = f"amqp://{USER}:{self._store.get('rabbitmq_password')}@127.0.0.1:{self._store.get('rabbitmq_port')}/%2F"
        return self._ready("RabbitMQ", url, self.is_running)

    def is_running(self) -> bool:
        """Say whether our own runs, or one was given."""
        return bool(self.given or self.processes())

    def processes(self) -> list[Any]:
        """Return our own processes."""
        return processes.marked(self._home)

    def forget_names(self) -> None:
        """Stop Erlang's name server, which outlives the node that started it."""
        port = self._store.get("rabbitmq_epmd_port")
        if port and not self.given and shutil.which("epmd"):
            subprocess.run(["epmd", "-port", str(port), "-kill"], capture_output=True, check=False)

    def _launch(self, program: str) -> None:
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._home / "rabbitmq.conf").write_text(self._configuration())
        # Erlang takes what it does not know for arguments of its program's.
        command = [program, "-noinput", processes.mark(self._home)[1]]
        processes.spawn(command, self._environment(), self._log, self._home)

    def _configuration(self) -> str:
        values = {
            "listeners.tcp.local": f"127.0.0.1:{self._store.get('rabbitmq_port')}",
            "default_user": USER,
            "default_pass": self._store.get("rabbitmq_password"),
            "disk_free_limit.absolute": "50MB",
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "warning",
        }
        return "".join(f"{name} = {value}\n" for name, value in values.items())

    def _environment(self) -> dict[str, str]:
        node = f"prooftrail-{hashlib.sha256(str(self._home).encode()).hexdigest()[:12]}@localhost"
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            # Erlang's cookie lies here.
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_CONFIG_FILE": str(self._home / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self._home / "data"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(self._home / "feature_flags"),
            "RABBITMQ_LOG_BASE": str(self._log.parent),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self._home / "pid"),
            # Erlang itself instead of a shell that waits for it.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_DIST_PORT": str(self._store.get("rabbitmq_distribution_port")),
            "ERL_EPMD_PORT": str(self._store.get("rabbitmq_epmd_port")),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP": os.devnull,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _ready(self, what: str, url: str, is_alive: Callable[[], bool]) -> Broker:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                return Broker(f"{what} {_version(url)}", url)
            except (AMQPError, OSError) as error:
                if not is_alive():
                    raise StackError(f"RabbitMQ ended while it started; {self._log} says why.") from None
                if self.given or time.monotonic() > deadline:
                    raise StackError(f"RabbitMQ does not answer: {error!r}") from None
            time.sleep(0.2)


def declare_queue(broker: Broker, queue: str) -> None:
    """Make the queue if there is none; one that is there may be of any kind."""
    with pika.BlockingConnection(pika.URLParameters(broker.address)) as connection:
        try:
            connection.channel().queue_declare(queue, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code != _NOT_FOUND:
                raise StackError(f"RabbitMQ refuses the queue {queue}: {error.reply_text}") from None
            connection.channel().queue_declare(queue, durable=True)


def _version(url: str) -> str:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = 5
    with pika.BlockingConnection(parameters) as connection:
        said: dict[str, Any] = connection._impl.server_properties  # noqa: SLF001 - pika shows it nowhere else
    version = said.get("version", b"")
    return version.decode() if isinstance(version, bytes) else str(version)

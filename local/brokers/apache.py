"""Apache Kafka as one process of this machine: broker and controller in one (KRaft), from its jars in Maven Central.

Settings: Kafka documentation, "Broker Configs" and "KRaft".
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from local import processes, tools
from local.errors import StackError
from local.layout import CHECKOUT, Layout

POM = CHECKOUT / "local" / "brokers" / "pom.xml"
MAIN = "kafka.Kafka"
OLDEST_JAVA = 17
# Small, and quick to start: it serves one developer.
JAVA = ["java", "-Xms64m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]
LOGGING = """
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1}: %m%n
"""


@dataclass(frozen=True)
class ApacheKafka:
    """One server with its data in `home`, at two ports of the loopback."""

    home: Path
    log: Path
    port: int
    controller_port: int

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"

    def start(self, jars: Path) -> None:
        """Start without waiting; the first time, its storage is formatted."""
        self.home.mkdir(parents=True, exist_ok=True)
        properties = self.home / "server.properties"
        properties.write_text(self._properties())
        (self.home / "log4j2.properties").write_text(LOGGING)
        if not (self.home / "data" / "meta.properties").exists():
            self._format(jars, properties)
        mark = ["--override", processes.mark(self.home)[1]]
        processes.spawn([*self._java(jars), MAIN, str(properties), *mark], os.environ, self.log, self.home)

    def _java(self, jars: Path) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.home / 'log4j2.properties'}"
        return [*JAVA, logging, "-cp", str(jars / "*")]

    def _format(self, jars: Path, properties: Path) -> None:
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        # What a killed run of this command left is no storage.
        shutil.rmtree(self.home / "data", ignore_errors=True)
        command = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(properties)]
        result = subprocess.run([*self._java(jars), *command], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise StackError(f"Apache Kafka could not format its storage: {(result.stdout + result.stderr).strip()[-500:]}")

    def _properties(self) -> str:
        controller = f"127.0.0.1:{self.controller_port}"
        values = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            # Java's escapes in such a file are JSON's.
            "log.dirs": json.dumps(str(self.home / "data"))[1:-1],
            # A misspelt topic is an error, as it is in production.
            "auto.create.topics.enable": "false",
            # There is one server only, and one group.
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # The controller's sign of life, written and synced each time.
            "metadata.max.idle.interval.ms": 10_000,
        }
        return "".join(f"{name}={value}\n" for name, value in values.items())


def is_alive(home: Path) -> bool:
    """Say whether the process is there, whether or not it answers."""
    return bool(processes.marked(home, MAIN))


def version() -> str:
    """Return the version that the POM pins."""
    pinned = ET.parse(POM).find(".//{*}dependency[{*}artifactId='kafka_2.13']/{*}version")  # noqa: S314 - ours
    return str(pinned.text) if pinned is not None else ""


def jars(layout: Layout) -> Path:
    """Fetch the jars, if they are not there; return their directory. Raises `StackError`, saying what is missing."""
    _require_java()
    return tools.maven_jars(layout, "kafka", POM)


def _require_java() -> None:
    if not shutil.which("java"):
        raise StackError("there is no Java")
    said = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if not found or int(found[1]) < OLDEST_JAVA:
        raise StackError(f"Kafka needs Java {OLDEST_JAVA}, and this is {said.splitlines()[0] if said else 'no Java'}")

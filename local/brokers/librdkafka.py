"""The broker inside librdkafka, in a process of its own: Kafka's real protocol where there is no Java.

It keeps its records in memory. `python -m local.brokers.librdkafka FILE` serves until it is told to stop, and says in the
file where. Source: librdkafka, CONFIGURATION.md, `test.mock.num.brokers`.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from local import processes
from local.layout import CHECKOUT
from local.store import write_private

MODULE = "local.brokers.librdkafka"


@dataclass(frozen=True)
class Librdkafka:
    """One broker, at a port that the system chooses at each start."""

    home: Path
    log: Path

    @property
    def address(self) -> str:
        """Where clients find it; empty as long as it has not said so."""
        return self._file.read_text() if self._file.exists() else ""

    def start(self) -> None:
        """Start without waiting."""
        self._file.unlink(missing_ok=True)
        command = [sys.executable, *processes.mark(self.home), "-m", MODULE, str(self._file)]
        processes.spawn(command, os.environ, self.log, CHECKOUT)

    def is_alive(self) -> bool:
        """Say whether the process is there."""
        return bool(processes.marked(self.home, MODULE))

    @property
    def _file(self) -> Path:
        return self.home / "librdkafka.address"


def version() -> str:
    """Return the version of the library."""
    import confluent_kafka

    return str(confluent_kafka.libversion()[0])


def serve(file: Path) -> None:
    """Serve until a signal comes."""
    from confluent_kafka import Producer

    # The broker lives as long as the client that brought it; its name for the client itself is never used.
    owner = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 3})
    (broker,) = owner.list_topics(timeout=30).brokers.values()
    write_private(file, f"{broker.host}:{broker.port}")
    signal.pause()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))

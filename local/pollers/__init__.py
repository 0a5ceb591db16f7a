"""What Lambda's event source mappings do for Kafka and RabbitMQ, which LocalStack does not have: one process for each."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from local import processes
from local.layout import CHECKOUT, Layout

# Each needs its variable of stack.env.
SOURCES = {"kafka": "KAFKA_BOOTSTRAP_SERVERS", "rabbitmq": "RABBITMQ_URL"}
STOP_SECONDS = 10


def start(layout: Layout, names: Iterable[str]) -> None:
    """Start those that do not run."""
    alive = running(layout)
    for name in names:
        if name not in alive:
            mark = processes.mark(layout.state / "pollers")
            command = [sys.executable, *mark, "-m", _module(name), str(layout.environment_file)]
            processes.spawn(command, os.environ, layout.logs / f"{name}-poller.log", CHECKOUT)


def stop(layout: Layout) -> bool:
    """Stop all; say whether any ran."""
    alive = processes.marked(layout.state / "pollers")
    processes.stop(alive, STOP_SECONDS)
    return bool(alive)


def running(layout: Layout) -> list[str]:
    """Return the names of those that run."""
    return [name for name in SOURCES if processes.marked(layout.state / "pollers", _module(name))]


def _module(name: str) -> str:
    return f"local.pollers.{name}"

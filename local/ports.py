"""Ports that differ between checkouts, stay the same between runs, and give way when they are taken."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from local.errors import StackError
from local.store import Store

# Below the ranges from which Linux and macOS take ports for outgoing connections.
FIRST, LAST = 20_000, 29_999
SERVICES = (
    "localstack",
    "postgres",
    "kafka",
    "kafka_controller",
    "rabbitmq",
    "rabbitmq_distribution",
    "rabbitmq_epmd",
)


def choose(service: str, state: Path, remembered: int | None, environment: Mapping[str, str] = os.environ) -> int:
    """Return the port that was asked for, the one of last time, or the next free one after the path's own."""
    variable = f"PROOFTRAIL_{service.upper()}_PORT"
    if asked := environment.get(variable):
        return _asked(service, variable, asked)
    if remembered and is_free(remembered):
        return remembered
    return _next_free(own_port(service, state))


def remember(service: str, state: Path, store: Store) -> int:
    """Choose a port, the one of last time if it is free, and remember it."""
    port = choose(service, state, store.get(f"{service}_port"))
    store.set(f"{service}_port", port)
    return port


def own_port(service: str, state: Path) -> int:
    """Return the port that the path stands for; services of one stack are neighbours."""
    digest = int.from_bytes(hashlib.sha256(str(state).encode()).digest()[:4])
    slots = (LAST - FIRST + 1) // len(SERVICES)
    return FIRST + digest % slots * len(SERVICES) + SERVICES.index(service)


def answers(address: str, port: int) -> bool:
    """Say whether somebody listens there."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex((address, port)) == 0


def is_free(port: int) -> bool:
    """Say whether nobody listens on the loopback port."""
    if answers("127.0.0.1", port):
        return False
    with socket.socket() as server:
        # Connections that linger after a stop do not occupy the port.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _asked(service: str, variable: str, asked: str) -> int:
    if not asked.isdecimal() or not 1 <= int(asked) <= 65_535:
        raise StackError(f"{variable} must be a port between 1 and 65535, not {asked!r}.")
    if not is_free(int(asked)):
        raise StackError(
            f"Port {asked} for {service} ({variable}) is in use; free it, choose another, or unset {variable}."
        )
    return int(asked)


def _next_free(first: int) -> int:
    step = len(SERVICES)
    candidates: list[int] = [*range(first, LAST + 1, step), *range(FIRST + (first - FIRST) % step, first, step)]
    for candidate in candidates:
        if is_free(candidate):
            return candidate
    raise StackError(f"No port between {FIRST} and {LAST} is free.")

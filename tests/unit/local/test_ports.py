"""Ports: apart for each checkout, the same each time, never somebody else's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import ports
from local.errors import StackError

HOME = Path("/home/somebody/checkout/.local")


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_path_has_ports_of_its_own() -> None:
    mine = [ports.own_port(service, HOME) for service in ports.SERVICES]
    assert mine == [ports.own_port(service, HOME) for service in ports.SERVICES]
    assert mine[1] == mine[0] + 1
    others = {ports.own_port("localstack", HOME / str(n)) for n in range(100)}
    assert len(others) > 90
    assert all(ports.FIRST <= port <= ports.LAST for port in others)


def test_a_busy_port_is_not_free(busy_port: int) -> None:
    assert not ports.is_free(busy_port)


def test_the_next_free_port_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ports.own_port("postgres", HOME)
    monkeypatch.setattr(ports, "is_free", lambda port: port > own + len(ports.SERVICES))
    assert ports.choose("postgres", HOME, None, {}) == own + 2 * len(ports.SERVICES)


def test_the_search_goes_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port == ports.FIRST + 1)
    assert ports.choose("postgres", HOME, None, {}) == ports.FIRST + 1


def test_without_any_free_port_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: False)
    with pytest.raises(StackError, match="No port between"):
        ports.choose("postgres", HOME, None, {})


def test_the_port_of_last_time_is_kept_unless_it_is_taken(busy_port: int) -> None:
    free = ports.choose("localstack", HOME / "other", None, {})
    assert ports.choose("localstack", HOME, free, {}) == free
    assert ports.choose("localstack", HOME, busy_port, {}) != busy_port


def test_a_port_that_was_asked_for_is_taken_or_refused(busy_port: int) -> None:
    free = ports.choose("localstack", HOME, None, {})
    assert ports.choose("localstack", HOME, None, {"PROOFTRAIL_LOCALSTACK_PORT": str(free)}) == free
    with pytest.raises(StackError, match=f"Port {busy_port} for localstack .* is in use"):
        ports.choose("localstack", HOME, None, {"PROOFTRAIL_LOCALSTACK_PORT": str(busy_port)})


@pytest.mark.parametrize("asked", ["x", "0", "65536", "-1", "1.5", "²"])
def test_a_port_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(StackError, match="between 1 and 65535"):
        ports.choose("postgres", HOME, None, {"PROOFTRAIL_POSTGRES_PORT": asked})

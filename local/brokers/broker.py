"""What a stack knows about a broker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broker:
    """A broker that answers: what it is (``Apache Kafka 4.1.0``), and the address by which clients reach it."""

    what: str
    address: str

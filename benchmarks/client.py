"""What a producer pays for auditing: the time of `AuditClient.log` on the caller's thread, in microseconds.

    python -m benchmarks.client [--events N] [--directory D]

Prints the median and the 99th percentile for each kind of queue, while the service cannot be reached and while it can,
besides the least that anybody could do: `json.dumps` and `write` of the same event. Wanted is a median below 20 with a
spool that survives the process's end (durability "process"). An event has an actor, a target, a state before and after, and
about 420 bytes. Making it is measured apart, because the caller may make it as cheaply or dearly as they like. What waits
for the disk (durability "disk") is as quick as the disk's fsync, which threads share: it is measured with one thread and
with eight.

A caller who logs nothing but events, tens of thousands in a second, to a service that answers at once, keeps the client's
own thread busy, and the two hand the interpreter to each other at each system call. That is a row of its own
("flat out"), and it costs twice as much as the same call does while the client's thread rests.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prooftrail_client import AuditClient, AuditEvent, AuditTransportError, Result
from prooftrail_client.spool import Durability
from prooftrail_client.transports import DELIVERED

WANTED = 20.0  # microseconds
THREADS = 8


class Service:
    """A transport that takes everything at once, or nothing."""

    largest_event = 1_000_000

    def __init__(self, reachable: bool) -> None:
        self._reachable = reachable

    def send(self, events: Sequence[bytes]) -> Sequence[Result]:
        """Answer without sending."""
        if not self._reachable:
            raise AuditTransportError("nobody answers")
        return [DELIVERED] * len(events)

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--events", type=int, default=20_000)
    arguments.add_argument("--directory", help="where the spool is to lie; a temporary directory by default")
    asked = arguments.parse_args()
    count = asked.events
    logging.disable()  # the client tells of every outage
    report("making the event", measure(lambda _event: made(0), count))
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        report("json.dumps and write", measure(least(Path(directory)), count))
    for reachable in (False, True):
        state = "flat out" if reachable else "unreachable"
        with client(None, "process", reachable, count, None) as one:
            report(f"log, memory, {state}", measure(one.log, count))
        with client(asked.directory, "process", reachable, count, "spool") as one:
            report(f"log, spool (process), {state}", measure(one.log, count), None if reachable else WANTED)
    with client(asked.directory, "disk", False, count, "spool") as one:
        report("log, spool (disk), 1 thread", measure(one.log, count // 40))
        report(f"log, spool (disk), {THREADS} threads", together(one.log, count // 40))


def report(name: str, nanoseconds: list[int], wanted: float | None = None) -> None:
    median = statistics.median(nanoseconds) / 1000
    slowest = statistics.quantiles(nanoseconds, n=100)[98] / 1000
    note = "" if wanted is None else f"  (wanted < {wanted:.0f})"
    print(f"{name:34} median {median:8.1f} us, 99 % below {slowest:8.1f} us{note}", flush=True)


def made(number: int) -> AuditEvent:
    before = {"name": "Ada", "address": {"city": "Bern", "zip": "3000"}, "allergies": ["nuts"]}
    return (
        AuditEvent.of("patient.update")
        .by("dr-lee", name="Dr. Lee", ip="10.0.0.1")
        .on("Patient", f"p-{number}")
        .changed(before, before | {"name": "Ada L."})
        .succeeded()
    )


def measure(call: Callable[[AuditEvent], object], count: int) -> list[int]:
    """How long each of so many calls takes, in nanoseconds; the first hundred are not counted."""
    times: list[int] = []
    for number in range(count + 100):
        event = made(number)
        begin = time.perf_counter_ns()
        call(event)
        times.append(time.perf_counter_ns() - begin)
    return times[100:]


def together(call: Callable[[AuditEvent], object], count: int) -> list[int]:
    times: list[int] = []
    threads = [threading.Thread(target=lambda: times.extend(measure(call, count))) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def least(directory: Path) -> Callable[[AuditEvent], object]:
    file = os.open(directory / "least", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return lambda event: os.write(file, json.dumps(event.document()).encode())


@contextmanager
def client(
    directory: str | None, durability: Durability, reachable: bool, count: int, spool: str | None
) -> Iterator[AuditClient]:
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        one = AuditClient(
            Service(reachable),
            tenant="acme",
            source="benchmark",
            spool=spool and Path(temporary, spool),
            durability=durability,
            memory_events=count + 100,
        )
        yield one
        one.close(0 if not reachable else 60)


if __name__ == "__main__":
    main()

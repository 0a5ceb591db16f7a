"""PostgreSQL goes away under load: nothing is lost, nothing doubles, and the queue drains by itself when it is back."""

from __future__ import annotations

import json
import time
from threading import Event, Thread

from psycopg.conninfo import conninfo_to_dict

from local import containers
from local.postgres import Server
from tests.e2e.conftest import System
from tests.factories import native

OUTAGE = 20  # seconds


def test_postgresql_stopped_for_twenty_seconds_under_load(system: System) -> None:
    server = Server(system.stack.layout.state / "postgres", system.stack.layout.logs / "postgres.log")
    login = conninfo_to_dict(system.environment["DATABASE_URL"])
    sent: list[str] = []
    enough = Event()

    def produce() -> None:
        while not enough.is_set():
            events = [native(tenant="outage") for _ in range(50)]
            system.send([json.dumps(event) for event in events])
            sent.extend(event["id"] for event in events)

    producer = Thread(target=produce)
    producer.start()
    try:
        time.sleep(3)
        server.stop()
        time.sleep(OUTAGE)
        server.start(int(str(login["port"])), str(login["password"]), containers.bridge())
        time.sleep(3)
    finally:
        enough.set()
        producer.join()
    system.wait_until_drained(seconds=180)
    stored = [event["id"] for event in system.all_events(tenant="outage")]
    assert len(sent) > 1000
    assert sorted(stored) == sorted(sent)
    assert system.get("/health")["queue"]["dead_letters"] == 0

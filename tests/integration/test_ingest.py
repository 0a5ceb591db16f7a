"""An SQS batch in; every record stored, known or quarantined; the failures out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
import pytest

import writer
from prooftrail import store
from tests.conftest import LogDatabase
from tests.factories import accepted, native, sqs, sqs_record

Ingesting = Callable[..., list[str]]


def quarantined(database: LogDatabase) -> list[tuple[str, bytes]]:
    return database.admin.execute("SELECT reason, raw FROM prooftrail.quarantine ORDER BY origin").fetchall()


def test_stores_every_event_of_a_batch_in_one_transaction_and_asks_for_none_again(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    assert ingesting(sqs(*(native() for _ in range(10)))) == []
    assert database.count("event") == 10
    assert database.admin.execute("SELECT tenant, event_count FROM prooftrail.batch").fetchall() == [("acme", 10)]


def test_a_redelivered_batch_changes_nothing(database: LogDatabase, ingesting: Ingesting) -> None:
    batch = sqs(*(native() for _ in range(10)), "not json")
    assert ingesting(batch) == []
    assert ingesting(batch) == []
    assert (database.count("event"), database.count("quarantine")) == (10, 1)


def test_twins_in_one_batch_are_stored_once(database: LogDatabase, ingesting: Ingesting) -> None:
    twin = native(id="twin")
    assert ingesting(sqs(twin, native(), twin)) == []
    assert (database.count("event"), database.count("quarantine")) == (2, 0)


@pytest.mark.parametrize("change", [{"message": "other"}, {"time": "2026-09-01T00:00:00Z"}])
@pytest.mark.parametrize("together", [True, False])
def test_an_id_used_for_other_content_is_a_conflict_and_never_silent(
    database: LogDatabase, ingesting: Ingesting, change: dict[str, Any], *, together: bool
) -> None:
    first, second = native(id="one"), native(id="one") | change
    for batch in [sqs(first, second)] if together else [sqs(first), sqs(second)]:
        assert ingesting(batch) == []
    assert database.count("event") == 1
    assert quarantined(database) == [("conflict", json.dumps(second).encode())]


def test_twins_of_other_content_than_what_is_stored_are_conflicts_all_of_them(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    stored, other = native(id="one"), native(id="one", message="other")
    ingesting(sqs(stored))
    assert ingesting(sqs(other, stored, other)) == []
    assert database.count("event") == 1
    assert quarantined(database) == [("conflict", json.dumps(other).encode())] * 2


def test_events_that_are_equal_but_written_otherwise_are_duplicates(database: LogDatabase, ingesting: Ingesting) -> None:
    event = native(id="one", metadata={"a": 1, "b": 1.5}, time="2026-10-01T12:00:00Z")
    reordered = native(id="one", metadata={"b": 1.50, "a": 1}, time="2026-10-01T14:00:00.000+02:00")
    assert ingesting(sqs(event, json.dumps(dict(reversed(reordered.items())), indent=3))) == []
    assert (database.count("event"), database.count("quarantine")) == (1, 0)


def test_healthy_events_are_stored_beside_poison_and_the_queue_is_empty(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    poison = [
        "{broken",
        "",
        "[]",
        "[1, 2]",
        '"text"',
        json.dumps(native(action=5)),
        json.dumps(native(tenant="no spaces")),
        json.dumps(native(time="2026-10-01T12:00:00")),
        json.dumps(native(time="0001-01-01T00:00:00Z")),
        json.dumps(native(time="9999-01-01T00:00:00Z")),
        json.dumps(native(outcome="maybe")),
        json.dumps(native(id="x" * 257)),
        json.dumps(native(message="a\0b")),
        json.dumps(native(message="\ud800")),
        json.dumps(native(metadata={"a\0": 1})),
        json.dumps(native(metadata={"n": 10**30 + 1})),
        '{"a": 1, "a": 2}',
        json.dumps(native())[:-1] + ', "metadata": {"big": 1e400}}',
        json.dumps(native())[:-1] + ', "duration_ms": 1.000000000000000005}',
        json.dumps(native())[:-1] + ', "before": ' + "[" * 10_000 + "]" * 10_000 + "}",
        "\x7f" * 1_000_000,
        json.dumps(native(action=None, message="x" * 1_000_000)),
    ]
    healthy = [native() for _ in range(20)]
    mixed = [body for pair in zip(healthy, poison, strict=False) for body in pair] + poison[20:]
    assert ingesting(sqs(*mixed)) == []
    assert database.count("event") == 20
    assert sorted(raw for _, raw in quarantined(database)) == sorted(body.encode() for body in poison)


def test_a_record_that_names_no_id_gets_one_that_its_redelivery_gets_again(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    batch = sqs(native(id=None))
    ingesting(batch)
    ingesting(batch)
    (stored,) = database.admin.execute("SELECT id FROM prooftrail.event").fetchall()
    assert stored == (f"sqs:events:{batch['Records'][0]['messageId']}",)


def test_a_list_of_events_in_one_message_is_judged_one_by_one(database: LogDatabase, ingesting: Ingesting) -> None:
    good, bad, nul = native(id=None), native(action=None), native(message="a\0b")
    assert ingesting(sqs([good, bad, nul, native()])) == []
    assert database.count("event") == 2
    assert [(reason, json.loads(raw)) for reason, raw in quarantined(database)] == [
        ("invalid-field", bad),
        ("nul-character", nul),
    ]


def test_late_and_future_months_get_their_partition_on_demand(database: LogDatabase, ingesting: Ingesting) -> None:
    times = ["1999-12-31T23:59:59.999999Z", "2000-01-01T00:00:00Z", "2024-02-29T12:00:00+14:00", "2026-11-21T00:00:00Z"]
    assert ingesting(sqs(*(native(time=time) for time in times))) == []
    partitions = database.admin.execute("SELECT month::text FROM prooftrail.partition_months()").fetchall()
    assert {"1999-12-01", "2000-01-01", "2024-02-01", "2026-11-01"} <= {month for (month,) in partitions}


def test_a_month_that_was_dropped_since_the_last_batch_is_made_again(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native(id="one")))
    ingesting(sqs(native(id="one", time="2020-01-01T00:00:00Z")))  # a conflict: its month is made, and stays empty
    database.admin.execute("DROP TABLE prooftrail.event_2020_01")
    assert ingesting(sqs(native(time="2020-01-02T00:00:00Z"))) == []
    assert database.count("event") == 2


def test_what_the_database_alone_refuses_is_quarantined_with_its_words(database: LogDatabase, ingesting: Ingesting) -> None:
    database.admin.execute("SELECT prooftrail.create_partition('2026-10-01')")
    database.admin.execute("ALTER TABLE prooftrail.event_2026_10 ADD CONSTRAINT no_ghosts CHECK (action <> 'ghost')")
    batch = sqs(*(native(action="ghost" if number in {3, 7} else "seen") for number in range(10)))
    assert ingesting(batch) == []
    assert database.count("event") == 8
    assert [reason for reason, _ in quarantined(database)] == ["refused-by-database"] * 2


def test_a_thousand_records_take_a_handful_of_statements_and_one_transaction(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    ingesting(sqs(native()))  # warm: connected, the month is there
    connection = writer.writer().connection(0)
    with tempfile.TemporaryFile() as trace:
        connection.pgconn.trace(trace.fileno())
        connection.pgconn.set_trace_flags(psycopg.pq.Trace.SUPPRESS_TIMESTAMPS)
        assert ingesting(sqs(*(native() for _ in range(990)), *("poison" for _ in range(10)))) == []
        connection.pgconn.untrace()
        trace.seek(0)
        sent = [line.split(b"\t")[2:] for line in trace.read().splitlines() if line.startswith(b"F\t")]
    statements = [line for line in sent if line[0] in {b"Query", b"Parse"}]
    assert len(statements) <= 12, statements  # two of them for the quarantine, and only where something goes there
    assert sum(b"BEGIN" in line[-1] for line in statements) == 1
    assert sum(b"COMMIT" in line[-1] for line in statements) == 1
    assert database.count("event") == 991


def test_many_handlers_at_once_store_each_event_once_and_never_deadlock(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    ingesting(sqs())
    batches = [[native(id=f"e{number}") for number in range(start, start + 60)] for start in range(0, 400, 20)]

    def append(events: list[dict[str, Any]]) -> None:
        with database.connect("ingest") as connection:
            store.Store(connection).append([accepted(event) for event in events], [])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(append, [batch[:: 1 if number % 2 else -1] for number, batch in enumerate(batches * 2)]))
    assert database.count("event") == 440


def test_while_the_database_is_away_the_whole_batch_is_asked_for_again(ingesting: Ingesting) -> None:
    batch = {"Records": [sqs_record(native()), sqs_record("poison")]}
    assert ingesting(batch, seconds=5.5, url="postgresql://nobody@127.0.0.1:1/none") == [
        record["messageId"] for record in batch["Records"]
    ]


def test_a_connection_that_breaks_is_replaced_within_the_invocation(database: LogDatabase, ingesting: Ingesting) -> None:
    ingesting(sqs(native()))
    database.admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert ingesting(sqs(native())) == []
    assert database.count("event") == 2


def test_stored_values_are_what_was_sent(database: LogDatabase, ingesting: Ingesting) -> None:
    event = native(
        time="2026-10-01T12:00:00.123456Z",
        sequence=2**63 - 1,
        category="clinical",
        level="notice",
        actor={
            "type": "user",
            "id": "u",
            "name": "Ü ☃ 𝄞",
            "ip": "10.0.0.1",
            "user_agent": "x",
            "session_id": "s",
            "roles": ["a", 'b"'],
        },
        target={"type": "t", "id": "i", "name": "n"},
        site="ward 3",
        message="tab\t newline\n backslash\\ quote' \\N",
        before={"a": [1, None, True, {"b": "c"}], "big": 2**63},
        after=[1.5, "x"],
        error={"code": "E1", "message": "m", "stack_trace": "at line\n\tat line"},
        duration_ms=12.75,
        request_id="r",
        trace_id="t",
        metadata={"k": "v", "empty": {}, "none": None},
    )
    assert ingesting(sqs(event)) == []
    row = database.admin.execute(f"SELECT {', '.join(_select())} FROM prooftrail.event").fetchone()
    assert row is not None
    assert json.loads(msgspec.json.encode(store.from_row(row))) == event


def _select() -> list[str]:
    return [f"{name}::text" if name in {"before", "after", "metadata"} else name for name in store.COLUMNS]

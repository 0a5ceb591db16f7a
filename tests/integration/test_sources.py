"""Sources: what the log says of who sends, whatever order it came in, whoever folds it, and wherever that was stopped."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from prooftrail import api_keys, sources
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.cli import app
from prooftrail.database import Connection
from prooftrail.sources import Source
from prooftrail.store import Store
from tests.conftest import LogDatabase
from tests.factories import accepted, native, sqs

Ingesting = Callable[..., list[str]]
Asking = Callable[..., tuple[int, Any]]
Archiving = Callable[..., dict[str, Any]]
Checkpointing = Callable[..., dict[str, Any]]

HIGHEST = 2**63 - 1


def send(database: LogDatabase, *batches: Sequence[int | None], tenant: str = "acme", **fields: Any) -> None:
    """Store batches of events that carry these numbers."""
    with database.connect("ingest") as connection:
        store = Store(connection)
        for batch in batches:
            store.append([accepted(native(tenant=tenant, sequence=number, **fields)) for number in batch], [])


def fold(database: LogDatabase, tenant: str = "acme") -> None:
    with database.connect("checkpoint") as connection:
        assert sources.fold(connection, tenant, time.monotonic() + 60)


def told(database: LogDatabase, tenant: str = "acme") -> Source:
    """The tenant's one source."""
    (source,) = sources.listing(database.admin, tenant, ranges=sources.MOST_RANGES)
    return source


class Numbering(NamedTuple):
    """What must be told of a source's numbers."""

    lowest: int
    contiguous: int
    highest: int
    missing: list[tuple[int, int]]
    late: list[tuple[int, int]]
    repeated: list[tuple[int, int]]
    repetitions: int


def numbering(source: Source) -> Numbering:
    found = source.sequence
    assert found is not None
    assert (found.tracked_from, found.untracked) == (0, 0)
    for numbers in (found.missing, found.late, found.repeated):
        assert numbers.count == sum(last - first + 1 for first, last in numbers.ranges)
    assert found.late_count == found.late.count
    return Numbering(
        found.lowest or 0,
        found.contiguous or 0,
        found.highest,
        found.missing.ranges,
        found.late.ranges,
        found.repeated.ranges,
        found.repetitions,
    )


def expected(batches: Sequence[Sequence[int | None]]) -> Numbering:
    """The same, number by number."""
    seen: list[int] = []
    late: set[int] = set()
    for batch in batches:
        numbers = [number for number in batch if number is not None]
        late |= {number for number in numbers if seen and number < max(seen) and number not in seen}
        seen += numbers
    missing = set(range(min(seen), max(seen) + 1)) - set(seen)
    return Numbering(
        min(seen),
        min(missing, default=max(seen) + 1) - 1,
        max(seen),
        ranges(missing),
        ranges(late),
        ranges({number for number in seen if seen.count(number) > 1}),
        len(seen) - len(set(seen)),
    )


def ranges(numbers: set[int]) -> list[tuple[int, int]]:
    ordered = sorted(numbers)
    starts = [number for number in ordered if number - 1 not in numbers]
    ends = [number for number in ordered if number + 1 not in numbers]
    return list(zip(starts, ends, strict=True))


def test_gaps_late_and_repeated_numbers_are_told(database: LogDatabase) -> None:
    send(database, [1, 2, 3], [7, 9], [5], [9, 9, None])
    fold(database)
    assert numbering(told(database)) == Numbering(1, 3, 9, [(4, 4), (6, 6), (8, 8)], [(5, 5)], [(9, 9)], 2)
    send(database, [4, 6], [8], [10])
    fold(database)
    assert numbering(told(database)) == Numbering(1, 10, 10, [], [(4, 6), (8, 8)], [(9, 9)], 2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(
        st.lists(st.none() | st.integers(0, 40), min_size=1, max_size=8),
        min_size=1,
        max_size=6,
    ).filter(lambda batches: any(number is not None for batch in batches for number in batch)),
    step=st.integers(1, 12),
)
def test_any_order_folded_in_any_steps_gives_what_counting_number_by_number_gives(
    database: LogDatabase, batches: list[list[int | None]], step: int
) -> None:
    tenant = f"t{database.count('tenant')}"
    send(database, *batches, tenant=tenant)
    while database.admin.execute("SELECT prooftrail.fold_log(%s, %s)", [tenant, step]).fetchone() != (0,):
        pass
    assert numbering(told(database, tenant)) == expected(batches)
    assert told(database, tenant).events == sum(map(len, batches))


def test_the_highest_numbers_there_are_do_not_stop_the_fold(database: LogDatabase) -> None:
    send(database, [HIGHEST - 1, HIGHEST], [HIGHEST], [0, 1])
    fold(database)
    found = told(database).sequence
    assert found is not None
    assert (found.lowest, found.contiguous, found.highest, found.untracked) == (0, 1, HIGHEST, 2)
    assert found.missing == sources.Numbers(HIGHEST - 3, [(2, HIGHEST - 2)])


def test_a_source_without_numbers_has_none_told(database: LogDatabase) -> None:
    send(database, [None, None])
    fold(database)
    assert told(database).sequence is None


def test_each_source_and_tenant_is_counted_by_itself(database: LogDatabase) -> None:
    send(database, [1, 2], source="a")
    send(database, [2, 3], source="b")
    send(database, [5], tenant="globex", source="a")
    fold(database)
    fold(database, "globex")
    found = sources.listing(database.admin, ALL_TENANTS)
    assert [(item.tenant, item.source, item.events) for item in found] == [
        ("acme", "a", 2),
        ("acme", "b", 2),
        ("globex", "a", 1),
    ]
    assert [item.sequence and item.sequence.lowest for item in found] == [1, 2, 5]


def test_our_own_events_are_no_source_and_fold_away(database: LogDatabase, asking: Asking) -> None:
    send(database, [1])
    asking("/events", tenant="acme")
    fold(database)
    assert [item.source for item in sources.listing(database.admin, "acme")] == ["clinic/records"]
    (log,) = sources.folded(database.admin, ["acme"])
    assert (log.entries, log.folded) == (2, 2)


def test_first_last_and_newest_are_told_and_how_long_it_was_silent(database: LogDatabase) -> None:
    began = datetime.now(UTC)
    send(database, [1], time="2026-10-03T00:00:00Z")
    send(database, [2], time="2026-08-01T00:00:00Z")
    fold(database)
    found = told(database)
    assert began <= found.first_seen < found.last_seen <= datetime.now(UTC)
    assert found.newest == datetime(2026, 10, 3, tzinfo=UTC)
    assert found.longest_silence_seconds == (found.last_seen - found.first_seen).total_seconds()
    assert found.silence_seconds > 0


def test_silence_is_longer_than_ever_only_where_it_is(database: LogDatabase) -> None:
    send(database, [1])
    fold(database)
    assert told(database).longest_silence_seconds is None
    assert not told(database).longer_than_ever
    send(database, [2])
    fold(database)
    for longest, longer in (("1 hour", False), ("0", True)):
        database.admin.execute("UPDATE prooftrail.source SET longest_silence = %s", [longest])
        assert told(database).longer_than_ever is longer


def test_what_is_not_folded_yet_is_not_taken_for_silence(database: LogDatabase) -> None:
    send(database, [1])
    fold(database)
    send(database, [2])
    (stored_at,) = one(database.admin, "SELECT max(received_at) FROM prooftrail.batch")
    assert told(database).silence_seconds == (stored_at - told(database).last_seen).total_seconds()
    (log,) = sources.folded(database.admin, ["acme"])
    assert (log.entries, log.folded, log.as_of) == (2, 1, stored_at)


def test_numbers_at_random_fill_no_more_than_their_room(database: LogDatabase) -> None:
    for start in range(0, 2 * 12_000, 2 * 4_000):
        send(database, range(start, start + 2 * 4_000, 2))
    fold(database)
    send(database, [1], [23_999])
    fold(database)
    found = told(database).sequence
    assert found is not None
    assert (found.tracked_from, found.lowest, found.untracked) == (4_000, 4_000, 1)
    assert found.missing.count == 9_999
    (size,) = one(database.admin, "SELECT max(pg_column_size(numbers)) FROM prooftrail.source")
    assert size < 300_000


def test_names_at_random_fill_no_more_than_their_room(database: LogDatabase) -> None:
    with database.connect("ingest") as connection:
        events = [accepted(native(source=f"s{number}", action=f"a{number}", category="c")) for number in range(10_002)]
        Store(connection).append(events, [])
        Store(connection).append([accepted(native(source="s0", action="a0", category="c"))], [])
    fold(database)
    (log,) = sources.folded(database.admin, ["acme"])
    assert (log.unlisted_sources, log.unlisted_actions) == (2, 2)
    assert (database.count("action"), len(sources.listing(database.admin, "acme"))) == (10_000, 10_000)
    (first,) = sources.listing(database.admin, "acme", limit=1)
    assert (first.source, first.events) == ("s0", 2)


def test_what_left_postgresql_before_it_was_folded_is_said_to_be_unknown(
    database: LogDatabase, ingesting: Ingesting, archiving: Archiving
) -> None:
    ingesting(sqs(native(sequence=1, time="2020-01-01T00:00:00Z"), native(sequence=2)))
    assert archiving()["archived"] == ["2020-01"]
    fold(database)
    (log,) = sources.folded(database.admin, ["acme"])
    assert (log.folded, log.gone) == (log.entries, 1)
    assert told(database).events == 1


def test_killed_at_any_moment_a_fold_counts_nothing_twice_and_leaves_nothing_out(database: LogDatabase) -> None:
    batches = [[number, number + 1] for number in range(0, 200, 2)]
    send(database, *batches)
    for _ in range(30):
        with database.connect("checkpoint") as connection:
            pid = connection.info.backend_pid
            folding = threading.Thread(target=fold_slowly, args=(connection,))
            folding.start()
            database.admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            folding.join()
    fold(database)
    assert numbering(told(database)) == expected(batches)
    assert told(database).events == 200


def fold_slowly(connection: Connection) -> None:
    """Fold a few entries at a time, until there are no more or the connection is gone."""
    try:
        while connection.execute("SELECT prooftrail.fold_log('acme', 7)").fetchone() != (0,):
            pass
    except psycopg.OperationalError:
        pass


def test_eight_writers_and_two_folders_at_once_lose_and_double_nothing(database: LogDatabase) -> None:
    done = threading.Event()

    def write(number: int) -> None:
        send(database, *([n] for n in range(number, 400, 8)), source=f"s{number % 2}")

    def keep_folding() -> None:
        with database.connect("checkpoint") as connection:
            while not done.is_set():
                for tenant in sources.due(connection):
                    sources.fold(connection, tenant, time.monotonic() + 60)

    with ThreadPoolExecutor(10) as pool:
        folders = [pool.submit(keep_folding) for _ in range(2)]
        list(pool.map(write, range(8)))
        done.set()
        for folder in folders:
            folder.result()
    fold(database)
    for source in sources.listing(database.admin, "acme", ranges=sources.MOST_RANGES):
        assert source.events == 200
        order = in_log_order(database, source.source)
        numbers = numbering(source)
        want = expected(order)
        assert numbers == want
        assert numbers.missing == [(n, n) for n in range(numbers.lowest + 1, numbers.highest, 2)]


def in_log_order(database: LogDatabase, source: str) -> list[list[int | None]]:
    rows = database.admin.execute(
        "SELECT array_agg(sequence) FROM prooftrail.event JOIN prooftrail.batch ON batch_id = batch.id "
        "WHERE source = %s GROUP BY first_index ORDER BY first_index",
        [source],
    )
    return [numbers for (numbers,) in rows]


def test_the_checkpoint_function_folds_what_it_signs(database: LogDatabase, checkpointing: Checkpointing) -> None:
    send(database, [1, 2])
    assert checkpointing()["entries"] == 2
    assert told(database).events == 2


def test_a_fold_that_fails_stops_no_signing_and_no_other_fold(database: LogDatabase, checkpointing: Checkpointing) -> None:
    send(database, [1])
    send(database, [1], tenant="globex")
    database.admin.execute("ALTER TABLE prooftrail.source ADD CONSTRAINT broken CHECK (tenant <> 'acme')")
    answer = checkpointing()
    assert (answer["entries"], answer["failed"]) == (2, [])
    assert [item.tenant for item in sources.listing(database.admin, ALL_TENANTS)] == ["globex"]
    database.admin.execute("ALTER TABLE prooftrail.source DROP CONSTRAINT broken")
    checkpointing()
    assert told(database).events == 1


def test_a_connection_that_breaks_while_folding_is_replaced_by_the_next_look(
    database: LogDatabase, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(database, [1])

    def breaking(connection: Connection) -> list[str]:
        database.admin.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
        return ["acme", "globex"]

    with monkeypatch.context() as broken:
        broken.setattr(sources, "due", breaking)
        assert checkpointing()["entries"] == 1
    send(database, [2])
    assert checkpointing()["entries"] == 1
    assert told(database).events == 2


def test_a_fold_waits_for_no_one_for_long(database: LogDatabase, checkpointing: Checkpointing) -> None:
    send(database, [1])
    with psycopg.connect(database.url) as other:
        other.execute("LOCK TABLE prooftrail.event_2026_10 IN ACCESS EXCLUSIVE MODE")
        assert checkpointing()["entries"] == 1
        assert sources.listing(database.admin, "acme") == []
    checkpointing()
    assert told(database).events == 1


def one(connection: Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row


def test_the_api_tells_of_sources_page_by_page(database: LogDatabase, asking: Asking) -> None:
    for name in ("a", "b", "c"):
        send(database, [1, 3], source=name)
    fold(database)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        status, answer = asking("/sources", tenant="acme", limit=2, **cursor)
        assert status == 200
        seen += [item["source"] for item in answer["sources"]]
        if answer["next"] is None:
            break
        cursor = {"cursor": answer["next"]}
    assert seen == ["a", "b", "c"]
    status, answer = asking("/sources", tenant="acme", source="b")
    (item,) = answer["sources"]
    assert item["sequence"] == {
        "lowest": 1,
        "contiguous": 1,
        "highest": 3,
        "missing": {"count": 1, "ranges": [[2, 2]]},
        "late": {"count": 0, "ranges": []},
        "late_count": 0,
        "repeated": {"count": 0, "ranges": []},
        "repetitions": 0,
        "tracked_from": 0,
        "untracked": 0,
    }
    assert item["silence_seconds"] > 0
    (log,) = answer["logs"]
    assert (log["tenant"], log["entries"], log["folded"], log["gone"]) == ("acme", 6, 6, 0)


def test_a_reader_is_told_of_its_own_tenant_only(database: LogDatabase, asking: Asking) -> None:
    send(database, [1])
    send(database, [1], tenant="globex")
    fold(database)
    fold(database, "globex")
    key = api_keys.create(database.admin, "globex")
    status, answer = asking("/sources", key)
    assert (status, [item["tenant"] for item in answer["sources"]]) == (200, ["globex"])
    assert [log["tenant"] for log in answer["logs"]] == ["globex"]
    assert asking("/sources", key, tenant="acme")[0] == 403
    assert asking("/sources", None)[0] == 401
    assert [item["tenant"] for item in asking("/sources")[1]["sources"]] == ["acme", "globex"]
    cursor = asking("/sources", limit=1)[1]["next"]
    assert asking("/sources", key, cursor=cursor)[1]["sources"] == answer["sources"]


def test_asking_for_sources_is_no_entry(database: LogDatabase, asking: Asking) -> None:
    send(database, [1])
    asking("/sources", tenant="acme")
    assert one(database.admin, "SELECT size FROM prooftrail.log WHERE tenant = 'acme'") == (1,)


@pytest.mark.parametrize(
    "wrong", [{"cursor": "x"}, {"cursor": "kQE"}, {"cursor": "kqEAoWE"}, {"limit": "0"}, {"colour": "red"}]
)
def test_what_cannot_be_asked_is_named(asking: Asking, wrong: dict[str, str]) -> None:
    status, problem = asking("/sources", **wrong)
    assert (status, [error["field"] for error in problem["errors"]]) == (400, list(wrong))


def test_the_command_tells_of_sources(database: LogDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url)
    send(database, [1, 2], [9, 5], [5, 3])
    send(database, [None], source="plain", tenant="globex")
    fold(database)
    fold(database, "globex")
    lines = [line.split("\t") for line in run("sources").splitlines()]
    assert [line[:3] for line in lines] == [["acme", "clinic/records", "6 events"], ["globex", "plain", "1 events"]]
    assert lines[0][5:] == ["1 to 3 of 9", "missing 4 (4, 6-8)", "late 1 (3)", "repeated 1 (5)"]
    assert lines[1][5:] == ["not numbered"]
    (line,) = run("sources", "--tenant", "acme", "--json").splitlines()
    assert json.loads(line)["sequence"]["missing"] == {"count": 4, "ranges": [[4, 4], [6, 8]]}


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout

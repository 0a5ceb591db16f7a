"""The quarantine: what waits there is read again after a fix, under its own identity, or discarded; each step is logged."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from prooftrail import catalogue, erasure, formats, holds, quarantine, search, verification
from prooftrail.api_keys import ALL_TENANTS
from prooftrail.catalogue import Seed
from prooftrail.errors import RetryableError
from prooftrail.formats import Accepted, Defaults, RawRecord, Rejected
from prooftrail.quarantine import Attempt, Filter, Held, Identity, NotWaiting, Read, Stored, UnknownRecord
from prooftrail.settings import IngestSettings
from prooftrail.store import Store
from tests.conftest import LogDatabase
from tests.factories import accepted, native

FUTURE = datetime(2200, 1, 1, tzinfo=UTC)


def reading(latest: datetime = FUTURE, tenant: str | None = None) -> Read:
    """How ingest reads records once its settings are these."""
    return functools.partial(formats.read, latest=latest, defaults=Defaults(tenant))


def take_in(database: LogDatabase, *records: RawRecord) -> None:
    """Ingest records, by a clock that is right and without a default tenant."""
    outcomes = [outcome for record in records for outcome in formats.read(record, datetime.now(UTC))]
    with database.connect("ingest") as connection:
        Store(connection).append(
            [outcome for outcome in outcomes if isinstance(outcome, Accepted)],
            [outcome for outcome in outcomes if isinstance(outcome, Rejected)],
        )


def record(body: Any, number: int = 0, **headers: str) -> RawRecord:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RawRecord(f"sqs:events:{number}", raw, named)


def findings(database: LogDatabase) -> list[str]:
    report = verification.verify(database.admin)
    assert report.unchecked == []
    return [str(finding) for finding in report.findings]


def own_events(database: LogDatabase) -> list[tuple[str, str, str, Any]]:
    """Action, outcome, target and metadata of what was done with the quarantine since a record came."""
    return database.admin.execute(
        "SELECT action, outcome, target_id, metadata FROM prooftrail.event "
        "WHERE category = 'quarantine' AND action <> 'quarantine.put' ORDER BY batch_id, position"
    ).fetchall()


def keys(database: LogDatabase) -> list[tuple[str, str, str]]:
    return database.admin.execute(
        "SELECT tenant, source, id FROM prooftrail.event WHERE source <> 'prooftrail' ORDER BY batch_id, position"
    ).fetchall()


LATER = (datetime.now(UTC) + timedelta(days=400)).isoformat()
AHEAD = native(id=None, time=LATER)


def test_a_replay_stores_what_was_refused_under_the_identity_that_it_would_have_had(database: LogDatabase) -> None:
    take_in(database, record(AHEAD))
    (waiting,) = quarantine.listing(database.admin, Filter(), None, 10)
    assert (waiting.state, waiting.reason, waiting.attempts) == ("waiting", "time-out-of-range", 0)
    attempt = quarantine.replay(database.admin, waiting.id, reading())
    identity = Identity("acme", "clinic/records", "sqs:events:0")
    assert attempt == Attempt(waiting.id, "sqs:events:0", [Stored(identity, "stored", 0)])
    assert keys(database) == [("acme", "clinic/records", "sqs:events:0")]
    settled = quarantine.get(database.admin, waiting.id)
    assert (settled.state, settled.attempts, settled.became, settled.settled_by) == ("replayed", 1, [identity], "postgres")
    assert settled.settled_at is not None
    assert own_events(database) == [
        (
            "quarantine.replay",
            "success",
            "sqs:events:0",
            {
                "events": 1,
                "became": [{"tenant": "acme", "source": "clinic/records", "id": "sqs:events:0"}],
                "quarantined": 0,
            },
        )
    ]
    assert findings(database) == []


def test_what_names_no_tenant_is_of_the_default_one_by_the_time_there_is_one(database: LogDatabase) -> None:
    take_in(
        database, record(native(tenant=None, id="a")), record(native(tenant=None, id="b"), 1, prooftrail_tenant="globex")
    )
    assert keys(database) == [("globex", "clinic/records", "b")]
    (id,) = quarantine.waiting(database.admin, Filter())
    quarantine.replay(database.admin, id, reading(tenant="acme"))
    assert keys(database)[1:] == [("acme", "clinic/records", "a")]
    assert findings(database) == []


def test_headers_are_read_again_too(database: LogDatabase) -> None:
    take_in(database, record(native(tenant=None, id=None, time=LATER), 7, prooftrail_tenant="globex"))
    (id,) = quarantine.waiting(database.admin, Filter())
    quarantine.replay(database.admin, id, reading())
    assert keys(database) == [("globex", "clinic/records", "sqs:events:7")]


def test_what_is_still_no_event_waits_with_the_new_reason_and_the_attempt_is_logged(database: LogDatabase) -> None:
    take_in(database, record(native(tenant=None, time=LATER)))
    (id,) = quarantine.waiting(database.admin, Filter())
    assert quarantine.get(database.admin, id).reason == "invalid-field"
    attempt = quarantine.replay(database.admin, id, reading(datetime.now(UTC), "acme"))
    assert (attempt.reason, attempt.stored) == ("time-out-of-range", [])
    still = quarantine.get(database.admin, id)
    assert (still.state, still.reason, still.detail, still.attempts) == ("waiting", attempt.reason, attempt.detail, 1)
    assert own_events(database) == [("quarantine.replay", "failure", "sqs:events:0", {"reason": "time-out-of-range"})]
    assert findings(database) == []
    quarantine.replay(database.admin, id, reading(tenant="acme"))
    assert [event[1] for event in own_events(database)] == ["failure", "success"]
    assert findings(database) == []


def test_what_a_redelivery_has_stored_meanwhile_is_a_duplicate_and_the_record_is_replayed(database: LogDatabase) -> None:
    event = native(id="e", time=LATER)
    take_in(database, record(event))
    with database.connect("ingest") as connection:
        outcomes = [item for item in reading()(record(event)) if isinstance(item, Accepted)]
        Store(connection).append(outcomes, [])
    (id,) = quarantine.waiting(database.admin, Filter())
    attempt = quarantine.replay(database.admin, id, reading())
    assert [stored.status for stored in attempt.stored] == ["duplicate"]
    assert quarantine.get(database.admin, id).state == "replayed"
    assert len(keys(database)) == 1
    assert findings(database) == []


def test_a_second_replay_changes_nothing(database: LogDatabase) -> None:
    take_in(database, record(AHEAD))
    (id,) = quarantine.waiting(database.admin, Filter())
    quarantine.replay(database.admin, id, reading())
    with pytest.raises(NotWaiting, match=f"record {id} does not wait"):
        quarantine.replay(database.admin, id, reading())
    assert len(keys(database)) == len(own_events(database)) == 1


def test_a_conflict_stays_one_and_can_only_be_discarded(database: LogDatabase) -> None:
    with database.connect("ingest") as connection:
        Store(connection).append([accepted(native(id="e")), accepted(native(id="e", message="another"))], [])
    (waiting,) = quarantine.listing(database.admin, Filter(), None, 10)
    attempt = quarantine.replay(database.admin, waiting.id, reading())
    assert (waiting.reason, attempt.reason) == ("conflict", "conflict")
    assert attempt.detail == waiting.detail
    assert len(keys(database)) == 1
    assert findings(database) == []
    quarantine.discard(database.admin, waiting.id, "ids of the old system were not unique")
    assert findings(database) == []


def test_of_a_list_each_part_has_its_own_end(database: LogDatabase) -> None:
    """A list that could not be read at all, and can be by now: one event is new, one known, one no event, one taken."""
    parts = [native(id="new"), native(id="known"), {"no": "event"}, native(id="taken")]
    with database.connect("ingest") as connection:
        store = Store(connection)
        store.append([accepted(native(id="known")), accepted(native(id="taken", message="first"))], [])
        store.append([], [Rejected(record(parts, 5), "unknown-shape", "no list was expected")])
    (id,) = quarantine.waiting(database.admin, Filter())
    attempt = quarantine.replay(database.admin, id, reading())
    assert [(stored.event.id, stored.status) for stored in attempt.stored] == [("new", "stored"), ("known", "duplicate")]
    assert attempt.parts == 2
    assert quarantine.get(database.admin, id).state == "replayed"
    left = quarantine.listing(database.admin, Filter(), None, 10)
    assert sorted((item.origin, item.reason) for item in left) == [
        ("sqs:events:5:2", "invalid-field"),
        ("sqs:events:5:3", "conflict"),
    ]
    assert findings(database) == []


def test_what_only_the_database_refuses_waits_with_its_words(database: LogDatabase) -> None:
    take_in(database, record(AHEAD))
    (id,) = quarantine.waiting(database.admin, Filter())
    database.admin.execute("ALTER TABLE prooftrail.event_key ADD CONSTRAINT no_acme CHECK (tenant <> 'acme')")
    attempt = quarantine.replay(database.admin, id, reading())
    assert attempt.reason == "refused-by-database"
    assert attempt.detail is not None
    assert "no_acme" in attempt.detail
    database.admin.execute("ALTER TABLE prooftrail.event_key DROP CONSTRAINT no_acme")
    assert findings(database) == []
    assert quarantine.replay(database.admin, id, reading()).reason is None
    assert findings(database) == []


def test_a_time_that_has_no_month_is_refused_by_the_database_alone(database: LogDatabase) -> None:
    take_in(database, record(native(time="2190-01-01T00:00:00Z")))
    (id,) = quarantine.waiting(database.admin, Filter())
    assert quarantine.replay(database.admin, id, reading()).reason == "refused-by-database"
    assert keys(database) == []
    assert findings(database) == []


def test_what_cannot_be_read_at_the_moment_is_left_as_it_was(database: LogDatabase) -> None:
    take_in(database, record(AHEAD))
    (id,) = quarantine.waiting(database.admin, Filter())

    def away(_record: RawRecord) -> Any:
        raise RetryableError("the registry does not answer")

    with pytest.raises(RetryableError):
        quarantine.replay(database.admin, id, away)
    assert quarantine.get(database.admin, id).attempts == 0
    assert own_events(database) == []


def test_what_broke_a_rule_is_stored_when_the_rule_allows_it(database: LogDatabase) -> None:
    rule = {"required": ["site"]}
    catalogue.seed(database.admin, [Seed(tenant="acme", action="patient.read", schema=rule, on_violation="quarantine")])
    take_in(database, record(native(id="e")))
    (waiting,) = quarantine.listing(database.admin, Filter(), None, 10)
    assert waiting.reason == "schema-violation"
    attempt = quarantine.replay(database.admin, waiting.id, reading())
    assert (attempt.reason, attempt.detail) == (waiting.reason, waiting.detail)
    assert findings(database) == []
    catalogue.remove_schema(database.admin, "acme", None, "patient.read")
    assert quarantine.replay(database.admin, waiting.id, reading()).reason is None
    assert keys(database) == [("acme", "clinic/records", "e")]
    assert findings(database) == []


def test_what_makes_reading_fail_for_a_fault_of_ours_waits_on(
    database: LogDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_in(database, record(AHEAD))
    (id,) = quarantine.waiting(database.admin, Filter())
    read = quarantine.reading(IngestSettings(database_url="", max_future_hours=500 * 24))
    with monkeypatch.context() as patch:
        patch.setattr(formats, "read", lambda *_: 1 / 0)
        attempt = quarantine.replay(database.admin, id, read)
    assert (attempt.reason, attempt.detail) == (
        "reader-failed",
        "reading it failed, replay it after an update: ZeroDivisionError('division by zero')",
    )
    assert findings(database) == []
    assert quarantine.replay(database.admin, id, read).reason is None


def test_discarding_is_logged_with_its_reason_and_keeps_the_bytes(database: LogDatabase) -> None:
    take_in(database, record(b"{broken", 3, content_type="text/plain"))
    (id,) = quarantine.waiting(database.admin, Filter())
    quarantine.discard(database.admin, id, "a test of theirs")
    item = quarantine.get(database.admin, id)
    assert (item.state, item.discard_reason, item.cleared_at) == ("discarded", "a test of theirs", None)
    assert quarantine.content(database.admin, id) == record(b"{broken", 3, content_type="text/plain")
    said = {"reason": "a test of theirs", "cleared": False}
    assert own_events(database) == [("quarantine.discard", "success", "sqs:events:3", said)]
    with pytest.raises(NotWaiting):
        quarantine.discard(database.admin, id, "again")
    with pytest.raises(NotWaiting):
        quarantine.replay(database.admin, id, reading())
    assert findings(database) == []


@pytest.mark.parametrize("later", [False, True])
def test_discarding_can_clear_bytes_headers_and_detail_at_once_or_later(database: LogDatabase, *, later: bool) -> None:
    take_in(database, record(b'{"patient": "Ann"', 3, key="Ann"))
    (id,) = quarantine.waiting(database.admin, Filter())
    if later:
        quarantine.discard(database.admin, id, "no audit event")
    quarantine.discard(database.admin, id, "holds a name", clear=True)
    item = quarantine.get(database.admin, id)
    assert quarantine.content(database.admin, id) == record(b"", 3)
    assert (item.detail, item.discard_reason) == ("cleared when it was discarded", "holds a name")
    assert item.cleared_at is not None
    assert findings(database) == []
    with pytest.raises(NotWaiting):
        quarantine.discard(database.admin, id, "again", clear=True)


@pytest.mark.parametrize(
    ("hold", "holds_it"),
    [
        ({}, True),
        ({"actor_id": "dr-lee"}, True),
        ({"target_id": "é"}, True),
        ({"actor_id": "dr-lee", "target_id": "é", "keep_months": 1}, True),
        ({"actor_id": "dr-wu"}, False),
        ({"tenant": "globex"}, False),
    ],
)
def test_what_a_hold_is_on_may_be_discarded_but_not_cleared(
    database: LogDatabase, hold: dict[str, Any], *, holds_it: bool
) -> None:
    take_in(database, record(b'{"actor": "dr-lee", "target": "\\u00e9"', 1, prooftrail_tenant="acme"))
    placed = holds.place(database.admin, hold.pop("tenant", "acme"), "a lawsuit", **hold)
    (id,) = quarantine.waiting(database.admin, Filter())
    quarantine.discard(database.admin, id, "no JSON")
    if holds_it:
        with pytest.raises(Held, match=f"hold {placed.id} forbids to clear record {id}"):
            quarantine.discard(database.admin, id, "no JSON", clear=True)
        assert quarantine.get(database.admin, id).bytes > 0
        holds.release(database.admin, placed.id)
    quarantine.discard(database.admin, id, "no JSON", clear=True)
    assert quarantine.get(database.admin, id).bytes == 0
    assert findings(database) == []


def test_what_is_redelivered_after_its_end_does_not_begin_anew(database: LogDatabase) -> None:
    take_in(database, record(AHEAD), record(b"{broken", 1))
    first, second = quarantine.waiting(database.admin, Filter())
    quarantine.replay(database.admin, first, reading())
    quarantine.discard(database.admin, second, "nobody needs it")
    take_in(database, record(AHEAD), record(b"{broken", 1))
    assert quarantine.waiting(database.admin, Filter()) == []
    assert len(quarantine.listing(database.admin, Filter(state=None), None, 10)) == 2
    assert findings(database) == []


def test_replays_at_once_and_a_redelivery_meanwhile_store_each_event_once(database: LogDatabase) -> None:
    """Of several logs, and beside transactions that put others into quarantine: nobody waits in a circle."""
    names = ["Acme", "acme", "zeta"]  # before and after our own log, in any order of text
    records = [record(native(id=None, tenant=names[n % 3], time=LATER), n) for n in range(30)]
    take_in(database, *records)
    ids = quarantine.waiting(database.admin, Filter())

    def replay_all(_worker: int) -> int:
        done = 0
        with psycopg.connect(database.url, autocommit=True) as connection:
            for id in ids:
                with suppress(NotWaiting):
                    quarantine.replay(connection, id, reading())
                    done += 1
        return done

    def redeliver(worker: int) -> int:
        with database.connect("ingest") as connection:
            for start in range(0, 30, 3):
                events = [
                    item for raw in records[start : start + 3] for item in reading()(raw) if isinstance(item, Accepted)
                ]
                broken = Rejected(record(b"{broken", 100 * worker + start), "invalid-json", "no JSON")
                Store(connection).append(events, [broken])
        return 0

    with ThreadPoolExecutor(6) as pool:
        replays = [pool.submit(replay_all, worker) for worker in range(4)]
        others = [pool.submit(redeliver, worker) for worker in (1, 2)]
        assert sum(work.result() for work in replays) == len(ids)
        assert [work.result() for work in others] == [0, 0]
    assert sorted(id for _, _, id in keys(database)) == sorted(raw.origin for raw in records)
    assert len(own_events(database)) == len(ids)
    assert findings(database) == []


@pytest.mark.parametrize("call", [quarantine.get, quarantine.content])
def test_a_number_that_no_record_has_is_said(database: LogDatabase, call: Callable[..., Any]) -> None:
    with pytest.raises(UnknownRecord, match="got 77"):
        call(database.admin, 77)
    with pytest.raises(UnknownRecord):
        quarantine.replay(database.admin, 77, reading())
    with pytest.raises(UnknownRecord):
        quarantine.discard(database.admin, 77, "why")


def test_records_are_listed_newest_first_page_by_page_and_by_every_filter(database: LogDatabase) -> None:
    take_in(database, *(record(b"{broken", number) for number in range(5)), record(AHEAD, 50))
    other = RawRecord("kafka:audit:0:1", b"{broken")
    take_in(database, other)
    everything = quarantine.listing(database.admin, Filter(), None, 100)
    ids = [item.id for item in everything]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 7
    pages = [quarantine.listing(database.admin, Filter(), before, 3) for before in (None, ids[2], ids[5])]
    assert [item for page in pages for item in page] == everything

    def origins(**wanted: Any) -> list[str]:
        return [item.origin for item in quarantine.listing(database.admin, Filter(**wanted), None, 100)]

    assert origins(reason="time-out-of-range") == ["sqs:events:50"]
    assert origins(origin="kafka:") == ["kafka:audit:0:1"]
    assert origins(origin="sqs:events:5") == ["sqs:events:50"]
    assert origins(origin="%") == []
    assert origins(since=everything[0].received_at) == ["kafka:audit:0:1"]
    assert origins(state="replayed") == []
    assert len(origins(state=None)) == 7


@contextmanager
def superuser(database: LogDatabase) -> Iterator[None]:
    """A hand that no trigger stops; afterwards the quarantine is as it was, for the log is checked at the end."""
    database.admin.execute("CREATE TABLE public.pristine AS TABLE prooftrail.quarantine")
    database.admin.execute("SET session_replication_role = replica")
    yield
    database.admin.execute("DELETE FROM prooftrail.quarantine")
    database.admin.execute("INSERT INTO prooftrail.quarantine OVERRIDING SYSTEM VALUE TABLE public.pristine")


DISCARDED = "state = 'discarded', discard_reason = 'x', settled_at = now(), settled_by = 'x'"
WAITING = "state = 'waiting', became = NULL, discard_reason = NULL, settled_at = NULL, settled_by = NULL"
TAMPERING = {
    "it is discarded": (f"UPDATE prooftrail.quarantine SET {DISCARDED}", "state: expected 'waiting', found 'discarded'"),
    "the headers": (
        """UPDATE prooftrail.quarantine SET headers = '{"prooftrail-tenant": "globex"}'""",
        "sha256 of headers: expected",
    ),
    "the bytes": ("UPDATE prooftrail.quarantine SET raw = 'x'", "sha256 of raw: expected"),
    "the bytes are cleared": (
        "UPDATE prooftrail.quarantine SET raw = '', headers = '{}', cleared_at = now()",
        "sha256 of raw: expected",
    ),
    "the reason": (
        "UPDATE prooftrail.quarantine SET reason = 'conflict'",
        "reason: expected 'invalid-json', found 'conflict'",
    ),
    "the attempts": ("UPDATE prooftrail.quarantine SET attempts = 3", "attempts: expected '0', found '3'"),
    "it is gone": ("DELETE FROM prooftrail.quarantine", "it is gone from the quarantine"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_what_is_done_past_the_program_is_found(database: LogDatabase, what: str) -> None:
    statement, finding = TAMPERING[what]
    take_in(database, record(b"{broken"))
    with superuser(database):
        database.admin.execute(statement.encode())
        assert finding in "\n".join(findings(database))


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (f"SET {WAITING} WHERE state = 'replayed'", "state: expected 'replayed', found 'waiting'"),
        (f"SET {WAITING} WHERE state = 'discarded'", "state: expected 'discarded', found 'waiting'"),
        ("SET became = '[]' WHERE state = 'replayed'", "became: expected"),
        (
            "SET discard_reason = 'because' WHERE state = 'discarded'",
            "discard_reason: expected 'why', found 'because'",
        ),
    ],
)
def test_an_end_that_is_taken_back_or_changed_is_found(database: LogDatabase, statement: str, expected: str) -> None:
    take_in(database, record(AHEAD), record(b"{broken", 1))
    replayed, discarded = quarantine.waiting(database.admin, Filter())
    quarantine.replay(database.admin, replayed, reading())
    quarantine.discard(database.admin, discarded, "why")
    assert findings(database) == []
    with superuser(database):
        database.admin.execute(f"UPDATE prooftrail.quarantine {statement}".encode())
        assert expected in "\n".join(findings(database))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE prooftrail.quarantine SET raw = 'x'",
        "UPDATE prooftrail.quarantine SET headers = '{}'",
        "UPDATE prooftrail.quarantine SET state = 'waiting' WHERE state <> 'waiting'",
        "UPDATE prooftrail.quarantine SET origin = 'x'",
        "DELETE FROM prooftrail.quarantine",
        "TRUNCATE prooftrail.quarantine",
    ],
)
def test_the_owners_own_hand_is_stopped(database: LogDatabase, statement: str) -> None:
    take_in(database, record(b"{broken", content_type="text/plain"), record(b"{broken", 1))
    quarantine.discard(database.admin, quarantine.waiting(database.admin, Filter())[1], "why")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        database.admin.execute(statement.encode())
    assert findings(database) == []


@pytest.mark.parametrize("role", ["ingest", "query", "archive", "verify", "checkpoint"])
def test_no_function_may_settle_a_record(database: LogDatabase, role: str) -> None:
    take_in(database, record(b"{broken"))
    with database.connect(role) as connection:
        for call in ("settle_replayed(1, '[]')", "keep_waiting(1, 'a', 'b')", "discard_quarantined(1, 'why', true)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT prooftrail.{call}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE prooftrail.quarantine SET reason = 'x'")


def test_only_a_reader_of_all_tenants_sees_records(database: LogDatabase) -> None:
    take_in(database, record(b"{broken"))
    with database.connect("query") as connection:
        assert quarantine.listing(connection, Filter(), None, 10) == []
        with search.reading_as(connection, "acme"):
            assert quarantine.listing(connection, Filter(), None, 10) == []
        with search.reading_as(connection, ALL_TENANTS):
            assert len(quarantine.listing(connection, Filter(), None, 10)) == 1


def test_the_bytes_of_a_replayed_record_go_with_its_event_when_a_person_is_erased(database: LogDatabase) -> None:
    """However they spell the person: here the name of the tenant is in the headers, and the id is no JSON string."""
    take_in(
        database,
        record(b"\x00\x01dr-lee\x02", 1, prooftrail_tenant="acme"),
        record(b"\x00\x01dr-lee\x02", 2, prooftrail_tenant="globex"),
        record(b"\x00\x01dr-lee\x02", 3, prooftrail_tenant="acme"),
    )
    first, second, third = quarantine.waiting(database.admin, Filter())

    def as_avro(raw: RawRecord) -> Iterator[Accepted | Rejected]:
        for item in formats.read(record(native(id=raw.origin, tenant=raw.headers["prooftrail-tenant"])), FUTURE):
            assert isinstance(item, Accepted)
            yield Accepted(raw, item.event)

    for id in (first, second):
        quarantine.replay(database.admin, id, as_avro)
    done = erasure.execute(database.admin, None, erasure.order(database.admin, "acme", "actor", "dr-lee", "asked for"))
    assert (done.state, done.quarantined) == ("done", 1)
    cleared = quarantine.get(database.admin, first)
    assert (cleared.state, cleared.bytes, cleared.detail) == ("replayed", 0, "cleared by erasure 1")
    assert quarantine.content(database.admin, first).headers == {}
    assert quarantine.content(database.admin, second).body != b""
    assert quarantine.get(database.admin, third).cleared_at is None  # nobody knows what these bytes say
    assert findings(database) == []


def test_headers_that_name_tenant_and_person_are_erased_and_a_record_without_bytes_can_only_be_discarded(
    database: LogDatabase,
) -> None:
    take_in(database, record(b"{broken", 1, prooftrail_tenant="acme", key="dr-lee"))
    erasure.execute(database.admin, None, erasure.order(database.admin, "acme", "actor", "dr-lee", "asked for"))
    (item,) = quarantine.listing(database.admin, Filter(), None, 10)
    assert item.cleared_at is not None
    assert quarantine.content(database.admin, item.id).headers == {}
    assert quarantine.waiting(database.admin, Filter()) == []
    with pytest.raises(NotWaiting):
        quarantine.replay(database.admin, item.id, reading())
    assert findings(database) == []
    quarantine.discard(database.admin, item.id, "nothing is left of it")
    assert findings(database) == []

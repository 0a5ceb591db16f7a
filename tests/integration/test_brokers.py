"""Batches of every broker through the real handler: nothing lost or doubled, nothing in the way of what comes behind."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import envelopes
import ingest
from prooftrail import formats
from prooftrail.errors import DatabaseUnavailable, RetryableError
from tests.conftest import LogDatabase
from tests.factories import eventbridge, kafka, kafka_record, native, rabbitmq, rabbitmq_message, sqs
from tests.integration.test_hostile_input import NAUGHTY, NEEDS_NAUGHTY, NEEDS_SUITE, SUITE

Ingesting = Callable[..., list[Any]]
Carrying = Callable[[Sequence[Any]], dict[str, Any]]

AWAY = "postgresql://nobody@127.0.0.1:1/none"


def text_of(body: Any) -> str:
    if isinstance(body, bytes):
        return body.decode("utf-8", "surrogateescape")
    return body if isinstance(body, str) else json.dumps(body)


def by_sqs(bodies: Sequence[Any]) -> dict[str, Any]:
    return sqs(*map(text_of, bodies))


def by_eventbridge(bodies: Sequence[Any]) -> dict[str, Any]:
    """Bodies as the details of envelopes; they are spliced in as text, because not all of them are JSON."""
    return sqs(*(json.dumps(eventbridge("HERE")).replace('"HERE"', text_of(body)) for body in bodies))


def by_kafka(bodies: Sequence[Any]) -> dict[str, Any]:
    places = [(number, number % 3) for number in range(len(bodies))]
    return kafka(*(kafka_record(body, *place) for body, place in zip(bodies, places, strict=True)))


def by_rabbitmq(bodies: Sequence[Any]) -> dict[str, Any]:
    return rabbitmq(*(rabbitmq_message(body, messageId=f"m-{number}") for number, body in enumerate(bodies)))


CARRIERS = [by_sqs, by_eventbridge, by_kafka, by_rabbitmq]
EVERY_SOURCE = pytest.mark.parametrize("carried", CARRIERS)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A service without which records that hold the word ``encoded`` cannot be read; set ``away`` to take it away."""
    state, read = {"away": False}, formats.read

    def reading(record: formats.RawRecord, *given: Any) -> Iterator[Any]:
        if state["away"] and b"encoded" in record.body:
            raise RetryableError("the schema registry does not answer")
        return read(record, *given)

    monkeypatch.setattr(formats, "read", reading)
    return state


def stored(database: LogDatabase) -> list[str]:
    """The ids of all producers' events, in the order of their places in their logs."""
    rows = database.admin.execute(
        """
        SELECT e.id FROM prooftrail.event e JOIN prooftrail.batch b ON b.id = e.batch_id
        WHERE e.source <> 'prooftrail' ORDER BY e.tenant, b.first_index + e.position
        """
    )
    return [id for (id,) in rows]


def quarantined(database: LogDatabase) -> list[tuple[str, bytes]]:
    rows = database.admin.execute("SELECT reason, raw FROM prooftrail.quarantine ORDER BY origin").fetchall()
    return [(reason, bytes(raw)) for reason, raw in rows]


def untraced(database: LogDatabase, batch: dict[str, Any]) -> int:
    """How many records of a batch are neither in quarantine, whole or in part, nor an event that is called like them."""
    rows = database.admin.execute("SELECT origin FROM prooftrail.quarantine UNION SELECT id FROM prooftrail.event")
    kept = {name for (origin,) in rows for name in (origin, origin.rpartition(":")[0])}
    return sum(kept.isdisjoint(names(each.record)) for each in envelopes.of(batch).deliveries)


def names(record: formats.RawRecord) -> list[str]:
    """What an event of the record may be called; in EventBridge's envelope the id comes before the detail."""
    envelope = re.search(rb'"id": "([0-9a-f-]{36})"', record.body)
    return [record.origin, *([f"eventbridge:{envelope[1].decode()}"] if envelope else [])]


# ------------------------------------------------------------------------------------------------ what every source does
@EVERY_SOURCE
def test_healthy_events_are_stored_beside_poison_and_a_redelivery_changes_nothing(
    database: LogDatabase, ingesting: Ingesting, carried: Carrying
) -> None:
    poison = ["{broken", "null", "17", '"text"', json.dumps(native(action=5)), json.dumps(native(message="\ud800"))]
    healthy = [native(id=f"e-{number}") for number in range(12)]
    batch = carried([body for pair in zip(healthy, poison * 2, strict=True) for body in pair])
    for _ in range(2):
        assert ingesting(batch) == []
        assert sorted(stored(database)) == sorted(event["id"] for event in healthy)
        assert database.count("quarantine") == len(poison) * 2


@EVERY_SOURCE
def test_a_record_without_an_id_gets_one_that_its_redelivery_gets_again(
    database: LogDatabase, ingesting: Ingesting, carried: Carrying
) -> None:
    batch = carried([native(id=None), native(id=None)])
    for _ in range(3):
        assert ingesting(batch) == []
    assert len(set(stored(database))) == database.count("event") == 2
    assert {id.partition(":")[0] for id in stored(database)} <= {"sqs", "eventbridge", "kafka", "rabbitmq"}


def test_the_same_events_by_every_source_are_stored_once(database: LogDatabase, ingesting: Ingesting) -> None:
    events = [native(id=f"e-{number}", message="Ü") for number in range(20)]
    for carried in CARRIERS:
        assert ingesting(carried(events)) == []
    assert (sorted(stored(database)), database.count("quarantine")) == (sorted(event["id"] for event in events), 0)


@EVERY_SOURCE
def test_a_fault_of_ours_puts_that_record_away_and_its_neighbours_are_stored(
    database: LogDatabase, ingesting: Ingesting, carried: Carrying, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = formats.read

    def faulty(record: formats.RawRecord, *given: Any) -> Iterator[Any]:
        for outcome in read(record, *given):
            yield outcome
            if b"unforeseen" in record.body:
                raise KeyError("unforeseen")

    monkeypatch.setattr(formats, "read", faulty)
    odd = native(message="unforeseen")
    assert ingesting(carried([native(id="a"), odd, native(id="b")])) == []
    assert sorted(stored(database)) == ["a", "b"]
    ((reason, raw),) = quarantined(database)
    assert (reason, json.dumps(odd).encode() in raw) == ("reader-failed", True)


# ------------------------------------------------------------------------------------------------- what has to come again
def test_kafka_without_its_database_comes_again_whole(database: LogDatabase, ingesting: Ingesting) -> None:
    with pytest.raises(DatabaseUnavailable):
        ingesting(by_kafka([native(), "poison"]), seconds=5.5, url=AWAY)
    assert database.count("event") == 0


def test_kafka_without_its_database_names_every_record_where_that_is_understood(
    ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PARTIAL_FAILURES", "true")
    assert ingesting(by_kafka([native(), "poison"]), seconds=5.5, url=AWAY) == [
        {"partition": "events-0", "offset": 0},
        {"partition": "events-1", "offset": 1},
    ]


def test_rabbitmq_without_its_database_comes_again_whole(ingesting: Ingesting) -> None:
    with pytest.raises(DatabaseUnavailable):
        ingesting(by_rabbitmq([native(), "poison"]), seconds=5.5, url=AWAY)


def test_of_sqs_only_the_message_that_cannot_be_read_now_comes_again(
    database: LogDatabase, ingesting: Ingesting, registry: dict[str, bool]
) -> None:
    batch = sqs(native(id="a"), native(id="b", message="encoded"), "poison", native(id="c"))
    registry["away"] = True
    again = ingesting(batch)
    assert again == [batch["Records"][1]["messageId"]]
    assert (sorted(stored(database)), database.count("quarantine")) == (["a", "c"], 1)
    registry["away"] = False
    assert ingesting({"Records": [record for record in batch["Records"] if record["messageId"] in again]}) == []
    assert sorted(stored(database)) == ["a", "b", "c"]


def test_rabbitmq_comes_again_whole_and_what_was_stored_of_it_is_known(
    database: LogDatabase, ingesting: Ingesting, registry: dict[str, bool]
) -> None:
    batch = by_rabbitmq([native(id="a"), native(id="b", message="encoded"), "poison", native(id="c")])
    registry["away"] = True
    for _ in range(2):
        with pytest.raises(RetryableError, match="registry"):
            ingesting(batch)
        assert (sorted(stored(database)), database.count("quarantine")) == (["a", "c"], 1)
    registry["away"] = False
    assert ingesting(batch) == []
    assert (sorted(stored(database)), database.count("quarantine")) == (["a", "b", "c"], 1)


def test_when_half_the_time_is_gone_nothing_more_is_asked_of_what_does_not_answer(
    database: LogDatabase, ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def silent(record: formats.RawRecord, *_: Any) -> Iterator[Any]:
        asked.append(record.origin)
        raise RetryableError("the schema registry does not answer")

    monkeypatch.setattr(formats, "read", silent)
    batch = sqs(*(native() for _ in range(5)))
    names = [record["messageId"] for record in batch["Records"]]
    assert ingesting(batch, seconds=ingest.RESERVE) == names
    assert len(asked) == 1
    assert ingesting(batch) == names
    assert len(asked) == 6


def outage() -> dict[str, Any]:
    """Three partitions; in the first, the second of four cannot be read while the registry is away."""
    return kafka(
        kafka_record(native(id="a10"), 10),
        kafka_record(native(id="a11", message="encoded"), 11),
        kafka_record(native(id="a12"), 12),
        kafka_record("poison", 13),
        kafka_record(native(id="b20"), 20, partition=1),
        kafka_record(None, 21, partition=1),
        kafka_record(native(id="c10"), 10, topic="logins"),
    )


def test_behind_a_record_that_cannot_be_read_now_nothing_of_its_partition_is_stored(
    database: LogDatabase, ingesting: Ingesting, registry: dict[str, bool]
) -> None:
    registry["away"] = True
    for _ in range(2):
        with pytest.raises(RetryableError, match="registry"):
            ingesting(outage())
        assert (sorted(stored(database)), database.count("quarantine")) == (["a10", "b20", "c10"], 0)
    registry["away"] = False
    assert ingesting(outage()) == []
    assert [id for id in stored(database) if id.startswith("a")] == ["a10", "a11", "a12"]
    assert database.count("quarantine") == 1


def test_a_partial_answer_names_all_that_was_not_stored_as_the_mapping_wants_it(
    database: LogDatabase, ingesting: Ingesting, registry: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_PARTIAL_FAILURES", "true")
    registry["away"] = True
    assert ingesting(outage()) == [{"partition": "events-0", "offset": offset} for offset in (11, 12, 13)]
    assert (sorted(stored(database)), database.count("quarantine")) == (["a10", "b20", "c10"], 0)


class Consumer:
    """A mapping of Kafka: takes records behind the committed offsets, and commits what the answer lets it commit.

    One that is not `partial` takes any answer for success, as Lambda's does.
    """

    def __init__(self, ingesting: Ingesting, partitions: dict[str, list[dict[str, Any]]], *, partial: bool) -> None:
        self.ingesting, self.partitions, self.partial = ingesting, partitions, partial
        self.committed = dict.fromkeys(partitions, 0)

    @property
    def done(self) -> bool:
        return all(self.committed[name] == len(records) for name, records in self.partitions.items())

    def poll(self, most: int) -> None:
        taken = {name: records[self.committed[name] :][:most] for name, records in self.partitions.items()}
        try:
            failed = self.ingesting(kafka(*(record for records in taken.values() for record in records)))
        except RetryableError:
            return
        first = {name: self.committed[name] + len(records) for name, records in taken.items()}
        for failure in failed if self.partial else []:
            first[failure["partition"]] = min(first[failure["partition"]], failure["offset"])
        self.committed = first


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_order_is_kept_and_no_offset_passes_an_unstored_record(
    database: LogDatabase,
    ingesting: Ingesting,
    registry: dict[str, bool],
    monkeypatch: pytest.MonkeyPatch,
    *,
    partial: bool,
    seed: int,
) -> None:
    monkeypatch.setenv("KAFKA_PARTIAL_FAILURES", str(partial).lower())
    chance = random.Random(seed)
    bodies = {name: _bodies(chance, name) for name in ("events-0", "events-1", "events-2")}
    records = {
        name: [kafka_record(body, offset, int(name[-1])) for offset, body in enumerate(of)] for name, of in bodies.items()
    }
    consumer = Consumer(ingesting, records, partial=partial)
    for number in range(200):
        registry["away"] = number < 100 and chance.random() < 0.6
        consumer.poll(chance.randint(1, 12))
        kept = set(stored(database)) | {raw.decode() for _, raw in quarantined(database)}
        for name, committed in consumer.committed.items():
            expected = {
                body if isinstance(body, str) else body["id"] for body in bodies[name][:committed] if body is not None
            }
            assert expected <= kept
        if consumer.done:
            break
    assert consumer.done
    order = defaultdict(list)
    for id in stored(database):
        order[id.partition("/")[0]].append(id)
    assert order == {name: [body["id"] for body in of if isinstance(body, dict)] for name, of in bodies.items()}


def _bodies(chance: random.Random, name: str) -> list[Any]:
    """Forty records: events, those that need the registry, tombstones, poison."""
    return [
        chance.choice(
            [native(id=f"{name}/{number:02}")] * 3
            + [native(id=f"{name}/{number:02}", message="encoded"), None, f"poison {name} {number}"]
        )
        for number in range(40)
    ]


def test_poison_in_rabbitmq_is_delivered_at_most_three_times_then_rests_in_quarantine(
    database: LogDatabase, ingesting: Ingesting, registry: dict[str, bool]
) -> None:
    queue = [rabbitmq_message(body, messageId=str(n)) for n, body in enumerate(["poison", native(message="encoded")])]
    deliveries = 0
    for away in (True, True, False):
        registry["away"] = away
        deliveries += 1
        try:
            assert ingesting(rabbitmq(*queue)) == []
            queue.clear()
        except RetryableError:
            assert away
        assert [raw for _, raw in quarantined(database)] == [b"poison"]
    assert (deliveries, queue, database.count("event")) == (3, [], 1)


# ------------------------------------------------------------------------------------------------------------- what differs
def test_eventbridge_delivers_one_envelope_as_two_messages_and_one_event_is_stored(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    envelope = eventbridge(native(id=None))
    assert ingesting(sqs(envelope, envelope)) == []
    assert stored(database) == [f"eventbridge:{envelope['id']}"]


def test_of_rabbitmqs_equal_messages_without_an_id_one_is_kept_and_unequal_ones_all(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    same, stamped = (
        rabbitmq_message(native(id=None)),
        rabbitmq_message(native(id=None), timestamp="Oct 1, 2026, 12:00:00 PM"),
    )
    assert ingesting(rabbitmq(same, same, stamped)) == []
    assert database.count("event") == 2


def test_tombstones_alone_are_a_batch_that_is_done(database: LogDatabase, ingesting: Ingesting) -> None:
    assert ingesting(kafka(kafka_record(None, 1, key="k"))) == []
    assert (database.count("event"), database.count("quarantine")) == (0, 0)


def test_a_record_of_another_tenant_says_so_in_a_header(database: LogDatabase, ingesting: Ingesting) -> None:
    body, header = native(tenant=None), {"Prooftrail-Tenant": b"beta"}
    attributes = {"messageAttributes": {"Prooftrail-Tenant": {"dataType": "String", "stringValue": "beta"}}}
    message = rabbitmq_message(body, headers={"Prooftrail-Tenant": {"bytes": list(b"beta")}})
    ingesting(kafka(kafka_record(body, 1, headers=header)))
    ingesting(rabbitmq(message))
    ingesting({"Records": [sqs(body)["Records"][0] | attributes]})
    tenants = database.admin.execute("SELECT tenant FROM prooftrail.event WHERE source <> 'prooftrail'").fetchall()
    assert tenants == [("beta",)]  # three ways, one event


# ----------------------------------------------------------------------------------------------------------- hostile bodies
@NEEDS_SUITE
@EVERY_SOURCE
def test_every_file_of_the_suite_leaves_a_trace_and_its_neighbours_are_stored(
    database: LogDatabase, ingesting: Ingesting, carried: Carrying
) -> None:
    neighbours = [native(id=f"n-{number:03}") for number in range(len(SUITE))]
    hostile = [file.read_bytes() for file in SUITE]
    batch = carried([body for pair in zip(hostile, neighbours, strict=True) for body in pair])
    assert ingesting(batch) == []
    assert {event["id"] for event in neighbours} <= set(stored(database))
    assert untraced(database, batch) == len(neighbours)  # which are stored under ids of their own


@NEEDS_NAUGHTY
@EVERY_SOURCE
def test_every_naughty_string_is_put_away_as_a_body_and_comes_back_true_inside_an_event(
    database: LogDatabase, ingesting: Ingesting, carried: Carrying
) -> None:
    strings = json.loads(NAUGHTY.read_bytes())
    events = [native(id=f"n-{number:03}", message=text, metadata={"text": text}) for number, text in enumerate(strings)]
    batch = carried([body for pair in zip(strings, events, strict=True) for body in pair])
    assert ingesting(batch) == []
    rows = database.admin.execute(
        "SELECT id, message, metadata ->> 'text' FROM prooftrail.event WHERE source <> 'prooftrail' ORDER BY id"
    ).fetchall()
    assert rows == [(event["id"], text, text) for event, text in zip(events, strings, strict=True)]
    assert untraced(database, batch) == len(events)


def test_messages_of_one_message_id_are_all_kept_and_a_redelivery_of_them_changes_nothing(
    database: LogDatabase, ingesting: Ingesting
) -> None:
    event = native(id=None)
    bodies = [event, *(f"{{broken {number}" for number in range(3)), event | {"site": "a"}, event | {"site": "b"}]
    batches = [rabbitmq(rabbitmq_message(body, messageId="m-1")) for body in bodies]
    batches.append(rabbitmq(*(rabbitmq_message(body, messageId="m-1") for body in bodies)))
    for batch in batches * 2:
        ingesting(batch)
    assert stored(database) == ["rabbitmq:/:events:m-1"]
    assert sorted(body for _, body in quarantined(database)) == sorted(text_of(body).encode() for body in bodies[1:])


def test_an_envelope_with_an_endless_id_is_kept_and_holds_up_nobody(database: LogDatabase, ingesting: Ingesting) -> None:
    bundle = {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "AuditEvent"}}] * 2}
    id = "".join(random.Random(1).choices("0123456789abcdef", k=20_000))  # compressed, too, it fits into no index
    assert ingesting(sqs(native(id="e-1"), eventbridge(bundle, id=id)), seconds=7) == []
    assert (stored(database), database.count("quarantine")) == (["e-1"], 2)

"""The drill: whatever is done to a copy of a log is found out, and the log itself is left alone."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from prooftrail import drill, verification
from prooftrail.verification import Authority, LogKeys, Question
from tests.conftest import PROJECT, LogDatabase
from tests.factories import native, sqs
from tests.publishing import ORIGIN, Publishing

Ingesting = Callable[..., list[str]]


@pytest.mark.xdist_group("drill")  # one after the other: what a drill leaves on the server is counted
@pytest.mark.parametrize("batches", [1, 4])
def test_each_of_twelve_ways_to_tamper_is_found_out_and_the_copy_as_it_is_is_not(
    database: LogDatabase, server_url: str, ingesting: Ingesting, publishing: Publishing, batches: int
) -> None:
    for number in range(batches):
        ingesting(sqs(*(native(tenant="acme", metadata={"batch": number}) for _ in range(5))))
        publishing("acme")
    ingesting(sqs(native(tenant="other")))
    ingesting(sqs(*(native(tenant="acme") for _ in range(60))))  # not signed for yet: nobody could tell
    (key,) = [key for key in publishing.keys("acme") if key.name == f"{ORIGIN}/acme"]
    authority = Authority(publishing.evidence, LogKeys(ORIGIN, (key.public_key,)))

    def verify(url: str) -> list[str]:
        with psycopg.connect(url, autocommit=True) as connection:
            report = verification.verify(connection, Question(tenant="acme"), authority=authority)
            return list(map(str, report.findings))

    exercises = list(drill.run(database.admin, server_url, "acme", PROJECT / "migrations", verify))
    left = database.admin.execute("SELECT count(*) FROM pg_database WHERE datname LIKE 'prooftrail_drill_%'").fetchone()
    assert exercises[0] == ("nothing", [])
    assert [exercise.what for exercise in exercises[1:]] == list(drill.TAMPERS)
    assert [exercise.what for exercise in exercises[1:] if not exercise.findings] == []
    assert left == (0,)
    assert verify(database.url) == []


def test_a_log_without_a_checkpoint_cannot_be_drilled(database: LogDatabase, server_url: str, ingesting: Ingesting) -> None:
    ingesting(sqs(native(), native()))
    with pytest.raises(drill.NothingToDrill, match="acme"):
        list(drill.run(database.admin, server_url, "acme", PROJECT / "migrations", lambda _: []))

"""The checkpoint function: on a schedule, signs every log that grew, and says how long the oldest unsigned batch waited.

EventBridge calls once a minute at most, and no batch should wait so long; so a scheduled run looks several times. A log
that cannot be signed stops no other one: one that fails for now is tried again at the next look, one that is refused needs
a person, because what PostgreSQL holds is not what was signed.

What is left of the time until the next look goes to folding what the logs say of their sources (see `sources`). That may
fail, and signing goes on.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

import psycopg
from aws_lambda_powertools.utilities.typing import LambdaContext

from prooftrail import checkpoints, settings, signing, sources, witness_client
from prooftrail.checkpoints import Due, Published, Publisher
from prooftrail.database import Connection, Database
from prooftrail.errors import PermanentError
from prooftrail.evidence import Evidence
from prooftrail.telemetry import MetricUnit, logger, metrics

PATIENCE = 20.0  # seconds to wait for the database to wake up
RUN = 50.0  # seconds after which a run begins nothing new: the next one is called after 60
LEAST_FOLD = 1.0  # seconds for folding where signing has taken all there were
LOGS_AT_ONCE = 8  # each waits for S3, KMS and witnesses most of the time


class Outcome(NamedTuple):
    """How one log fared: what state it is in, for how many entries it was signed, how many seconds its oldest batch waited.

    `waiting` had no time left and `failed` no luck: both come again; `refused` does not heal by itself.
    """

    tenant: str
    state: Literal["signed", "waiting", "failed", "refused"]
    entries: int
    lag: float
    witnesses_failed: int


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], _context: LambdaContext) -> dict[str, Any]:
    """Sign what there is to sign, several times where the schedule calls, once for anybody else; says how it ended."""
    began = time.monotonic()
    entries, looks = 0, 0
    while True:
        outcomes = look(deadline=began + RUN)
        _report(outcomes)
        entries += sum(outcome.entries for outcome in outcomes)
        looks += 1
        next_look = began + looks * _settings().checkpoint_seconds
        fold(deadline=max(min(next_look, began + RUN), time.monotonic() + LEAST_FOLD))
        if event.get("source") != "aws.events" or next_look >= began + RUN:
            left = {state: _tenants(outcomes, state) for state in ("waiting", "failed", "refused")}
            return {"entries": entries, **left}
        time.sleep(max(0.0, next_look - time.monotonic()))


def look(deadline: float) -> list[Outcome]:
    """Sign every log that grew, the one that has waited longest first, as far as time (`time.monotonic`) allows."""
    publisher = _publisher()
    connection = _database().connection(PATIENCE)
    began = time.monotonic()
    publish = functools.partial(_publish, publisher, connection, began, deadline)
    with ThreadPoolExecutor(LOGS_AT_ONCE, "logs") as pool:
        outcomes = list(pool.map(publish, checkpoints.due(connection)))
    if _tenants(outcomes, "failed"):
        _database().discard()  # it may be what failed
    return outcomes


def fold(deadline: float) -> None:
    """Fold every log that grew, as far as time (`time.monotonic`) allows; no failure of it is the affair of signing."""
    failed = 0
    try:
        connection = _database().connection(PATIENCE)
        for tenant in sources.due(connection):
            failed += not _folded(connection, tenant, deadline)
    except Exception:  # noqa: BLE001  # the next look must sign whatever this is
        failed += 1
        logger.exception("logs could not be folded, and are tried again")
        _database().discard()
    metrics.add_metric("FoldFailed", MetricUnit.Count, failed)


def _folded(connection: Connection, tenant: str, deadline: float) -> bool:
    """Fold one log; says false where PostgreSQL refuses, which is the affair of this log alone."""
    try:
        sources.fold(connection, tenant, deadline)
    except psycopg.Error as error:
        if connection.closed:
            raise
        logger.warning("log not folded, and tried again", extra={"tenant": tenant, "cause": error.diag.message_primary})
        return False
    return True


def _publish(publisher: Publisher, connection: Connection, began: float, deadline: float, due: Due) -> Outcome:
    """Take one log as far as there is time, step by step; whatever happens is the affair of this log alone."""
    size, failures = due.signed_size, 0

    def outcome(state: Literal["signed", "waiting", "failed", "refused"]) -> Outcome:
        return Outcome(due.tenant, state, size - due.signed_size, due.age + time.monotonic() - began, failures)

    try:
        while time.monotonic() < deadline:
            published = publisher.step(connection, due.tenant, size)
            size, failures = published.checkpoint.size, failures + _told(published)
            if not published.behind:
                return outcome("signed")
        return outcome("waiting")
    except PermanentError as error:
        logger.error("checkpoint refused", extra={"tenant": due.tenant, "cause": str(error)})
        return outcome("refused")
    except Exception:  # noqa: BLE001  # a fault of S3, KMS or PostgreSQL, or of ours: the other logs go on
        logger.exception("checkpoint failed, and is tried again", extra={"tenant": due.tenant})
        return outcome("failed")


def _told(published: Published) -> int:
    """Say which witnesses failed; returns how many."""
    for failure in published.failed:
        logger.warning("no cosignature", extra={"log": published.checkpoint.origin, "cause": str(failure)})
    return len(published.failed)


def _report(outcomes: list[Outcome]) -> None:
    # A refused log waits for ever; it has a metric and an alarm of its own.
    lag = max((outcome.lag for outcome in outcomes if outcome.state != "refused"), default=0.0)
    metrics.add_metric("CheckpointLagSeconds", MetricUnit.Seconds, lag)
    metrics.add_metric("CheckpointRefused", MetricUnit.Count, len(_tenants(outcomes, "refused")))
    metrics.add_metric("WitnessFailed", MetricUnit.Count, sum(outcome.witnesses_failed for outcome in outcomes))
    if outcomes:
        counts = {state: len(_tenants(outcomes, state)) for state in ("signed", "waiting", "failed", "refused")}
        entries = sum(outcome.entries for outcome in outcomes)
        logger.info("looked for unsigned batches", extra={**counts, "entries": entries, "lag_seconds": round(lag, 1)})


def _tenants(outcomes: Iterable[Outcome], state: str) -> list[str]:
    return [outcome.tenant for outcome in outcomes if outcome.state == state]


@functools.cache
def _settings() -> settings.CheckpointSettings:
    return settings.read(settings.CheckpointSettings)


@functools.cache
def _database() -> Database:
    return Database(_settings())


@functools.cache
def _publisher() -> Publisher:
    read = _settings()
    keys = signing.keys(read.signing_keys)
    evidence = Evidence(read.prooftrail_evidence_bucket)
    return Publisher(evidence, keys, read.log_origin, witness_client.read(read.witnesses))

"""The verify function: on a schedule, derives anew what came since the last run and a part of all that is older.

What it finds is logged without the values that events hold, counted in a metric, recorded for GET /health, and stays a
finding until a later round has gone through everything without it. What it could not look at is told in the same ways. A
run that ends in an error tells what it found until then: nobody shall hide a finding by making another thing fail.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from prooftrail import settings, signing
from prooftrail.archive_bucket import ArchiveBucket
from prooftrail.database import Database
from prooftrail.evidence import Evidence
from prooftrail.telemetry import MetricUnit, logger, metrics
from prooftrail.verification import Authority, LogKeys, Report, continuous

PATIENCE = 60.0  # seconds to wait for the database to wake up
RESERVE = 0.5  # of the time given is kept back, for the job that runs when it is up and for looking into findings
MOST_LOGGED = 20  # findings, and things not looked at, a line each


@logger.inject_lambda_context
@metrics.log_metrics
def handler(_event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Run once; says how many entries were derived anew, how much was found and what could not be looked at."""
    began = time.monotonic()
    connection = _database().connection(PATIENCE)
    deadline = began + context.get_remaining_time_in_millis() / 1000 * (1 - RESERVE)
    report, days = Report(), _settings().verify_every_days
    try:
        continuous.run(connection, _authority(), _archive(), report, deadline=deadline, days=days)
    finally:
        summary = _tell(report)
    metrics.add_metric("VerificationRuns", MetricUnit.Count, 1)
    return summary


def _tell(report: Report) -> dict[str, Any]:
    found = len(report.findings) + report.more
    for finding in report.findings[:MOST_LOGGED]:
        logger.error("finding", extra={"finding": str(finding.without_values())})
    for reason in report.unchecked[:MOST_LOGGED]:
        logger.error("not looked at", extra={"unchecked": reason})
    metrics.add_metric("VerifiedEntries", MetricUnit.Count, report.entries)
    metrics.add_metric("VerificationFindings", MetricUnit.Count, found)
    metrics.add_metric("VerificationUnchecked", MetricUnit.Count, len(report.unchecked))
    summary = {"entries": report.entries, "findings": found, "unchecked": report.unchecked[:MOST_LOGGED]}
    logger.info("verification run ended", extra=summary)
    return summary


@functools.cache
def _settings() -> settings.VerifySettings:
    return settings.read(settings.VerifySettings)


@functools.cache
def _database() -> Database:
    return Database(_settings())


@functools.cache
def _authority() -> Authority:
    keys = tuple(key.public_key for key in signing.keys(_settings().signing_keys))
    return Authority(Evidence(_settings().prooftrail_evidence_bucket), LogKeys(_settings().log_origin, keys))


@functools.cache
def _archive() -> ArchiveBucket:
    return ArchiveBucket(_settings().prooftrail_archive_bucket)

"""Settings: what the environment says, or which variable is wrong."""

from __future__ import annotations

import pytest

from prooftrail import settings
from prooftrail.errors import ConfigurationError

REQUIRED = (
    "DATABASE_URL", "PROOFTRAIL_ARCHIVE_BUCKET", "PROOFTRAIL_EVIDENCE_BUCKET", "PROOFTRAIL_WITNESS_BUCKET", "LOG_ORIGIN",
    "SIGNING_KEYS", "WITNESS_NAME", "LOGS",
)  # fmt: skip


def test_what_is_not_set_has_its_documented_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@h/d")
    monkeypatch.setenv("PROOFTRAIL_ARCHIVE_BUCKET", "b")
    ingest, query = settings.read(settings.IngestSettings), settings.read(settings.QuerySettings)
    archive = settings.read(settings.ArchiveSettings)
    assert (ingest.database_auth, ingest.database_secret_arn, ingest.max_future_hours) == ("url", "", 24)
    assert (query.prooftrail_queue_url, query.prooftrail_dlq_url) == ("", "")
    assert (archive.retention_months, archive.prooftrail_archive_bucket) == (12, "b")


def test_numbers_come_as_text_and_the_rest_of_the_environment_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u@h/d")
    monkeypatch.setenv("MAX_FUTURE_HOURS", "48")
    monkeypatch.setenv("RETENTION_MONTHS", "not mine")
    assert settings.read(settings.IngestSettings).max_future_hours == 48


@pytest.mark.parametrize(
    ("kind", "variable", "value"),
    [
        (settings.DatabaseSettings, "DATABASE_URL", None),
        (settings.DatabaseSettings, "DATABASE_AUTH", "password"),
        (settings.IngestSettings, "MAX_FUTURE_HOURS", "a day"),
        (settings.IngestSettings, "MAX_FUTURE_HOURS", ""),
        (settings.ArchiveSettings, "PROOFTRAIL_ARCHIVE_BUCKET", None),
        (settings.ArchiveSettings, "RETENTION_MONTHS", "1.5"),
        (settings.CheckpointSettings, "LOG_ORIGIN", None),
        (settings.CheckpointSettings, "CHECKPOINT_SECONDS", "often"),
        (settings.WitnessSettings, "LOGS", None),
    ],
)
def test_a_variable_that_is_missing_or_malformed_is_named(
    monkeypatch: pytest.MonkeyPatch, kind: type[settings.DatabaseSettings], variable: str, value: str | None
) -> None:
    for name in REQUIRED:
        monkeypatch.setenv(name, "x")
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        settings.read(kind)

"""What each function is told by its environment, read once, on first use.

A missing or malformed variable raises `ConfigurationError` that names it. Units stand beside the numbers.
"""

from __future__ import annotations

import os
from typing import Literal, TypeVar

import msgspec

from prooftrail.errors import ConfigurationError


class DatabaseSettings(msgspec.Struct, frozen=True, rename="upper", kw_only=True):
    """Where PostgreSQL is and how the function proves who it is.

    ``database_auth``: ``url`` (the URL is complete), ``secret`` (password from Secrets Manager), ``iam`` (RDS token).
    """

    database_url: str
    database_auth: Literal["url", "secret", "iam"] = "url"
    database_secret_arn: str = ""


class IngestSettings(DatabaseSettings, frozen=True, rename="upper", kw_only=True):
    """For the ingest function."""

    max_future_hours: int = 24  # an event further ahead than this is quarantined
    default_tenant: str = ""  # of events that name none; without it they are quarantined
    default_formats: str = ""  # <tenant>=<format>, comma-separated: of documents that no format recognises
    default_timezone: str = ""  # of times that name none, as a name or an offset; without it they are in UTC
    kafka_partial_failures: bool = False  # whether Kafka's mappings have ReportBatchItemFailures


class SchemaRegistrySettings(msgspec.Struct, frozen=True, rename="upper", kw_only=True):
    """For the ingest function, read when the first record in Avro comes."""

    schema_registry_url: str = ""  # without it such records are quarantined
    schema_registry_secret_arn: str = ""  # {"username": …, "password": …}, where the registry asks who is asking


class QuerySettings(DatabaseSettings, frozen=True, rename="upper", kw_only=True):
    """For the query function; the queues are for its health check."""

    prooftrail_queue_url: str = ""
    prooftrail_dlq_url: str = ""
    prooftrail_evidence_bucket: str = ""
    prooftrail_archive_bucket: str = ""


class ArchiveSettings(DatabaseSettings, frozen=True, rename="upper", kw_only=True):
    """For the archive function."""

    prooftrail_archive_bucket: str
    retention_months: int = 12  # whole months that stay in PostgreSQL before the running one
    segment_rows: int = 500_000  # the most events of one Parquet object
    segment_bytes: int = 128_000_000  # and the most that they take up in PostgreSQL, compressed as it stores them


class CheckpointSettings(DatabaseSettings, frozen=True, rename="upper", kw_only=True):
    """For the checkpoint function."""

    prooftrail_evidence_bucket: str
    log_origin: str  # the log of a tenant is named <log_origin>/<tenant>
    signing_keys: str  # ARNs of KMS keys or of secrets, comma-separated; all of them sign
    witnesses: str = ""  # <verifier key> <URL>, comma-separated
    checkpoint_seconds: int = 20  # from one look for unsigned batches to the next


class VerifySettings(DatabaseSettings, frozen=True, rename="upper", kw_only=True):
    """For the verify function."""

    prooftrail_evidence_bucket: str
    prooftrail_archive_bucket: str
    log_origin: str
    signing_keys: str  # ARNs, whose public keys checkpoints are verified with
    verify_every_days: float = 7  # in which all of history is derived anew


class WitnessSettings(msgspec.Struct, frozen=True, rename="upper", kw_only=True):
    """For the witness function."""

    prooftrail_witness_bucket: str
    witness_name: str  # under which it cosigns
    signing_keys: str  # one ARN, of a KMS key or of a secret
    logs: str  # whose checkpoints it cosigns, see `witness.read_logs`


SettingsType = TypeVar("SettingsType", bound=msgspec.Struct)


def read(kind: type[SettingsType]) -> SettingsType:
    """Read settings of one kind from the environment.

    Raises `ConfigurationError` where a variable is missing or cannot be what its type asks for.
    """
    try:
        return msgspec.convert(dict(os.environ), kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"environment: {error}; see the function's Environment in template.yaml") from error

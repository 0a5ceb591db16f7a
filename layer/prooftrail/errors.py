"""Everything that can go wrong, in two families: what a retry may mend and what it never will."""

from __future__ import annotations

from collections.abc import Mapping


class ProoftrailError(Exception):
    """The root of all errors that Prooftrail raises on purpose."""


class RetryableError(ProoftrailError):
    """The same call may succeed later: the broker should redeliver, the caller should come again."""


class PermanentError(ProoftrailError):
    """The same call will never succeed: somebody must change something first."""


class DatabaseUnavailable(RetryableError):
    """PostgreSQL could not be reached or went away, and the time to wait for it ran out."""


class SchemaRegistryUnavailable(RetryableError):
    """The schema registry did not answer, or not as one; the record that needs it must come again."""


class ConfigurationError(PermanentError):
    """A setting is missing or of the wrong form; the message names it."""


class UnknownEnvelope(PermanentError):
    """A function was invoked with an event of a source that it does not know."""


class ArchiveMismatch(PermanentError):
    """An archived object does not hold what PostgreSQL holds; nothing was dropped."""


class ArchiveFailed(RetryableError):
    """Something in a run of the archive failed, and the message names it; the rest of the run was done."""


class InvalidRecord(PermanentError):
    """A record can never become an event: ``reason`` is a fixed word for machines, the message is for people.

    ``fields`` says by the path of each field (``actor.id``) what is wrong with it, where it is known.
    """

    def __init__(self, reason: str, detail: str, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.fields = fields or {}

"""A schema registry's client: schemas by their ids, by Confluent's REST interface, which others have too.

Source: Confluent Schema Registry API Reference. What an id stands for never changes, so what was learnt is kept as long as
the process runs. That an id is unknown is remembered for moments only, and so is that the registry does not answer: a
batch of thousands of records must not wait for it a thousand times.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote
from urllib.request import Request

import msgspec

from prooftrail import aws, http_client
from prooftrail.errors import ConfigurationError, InvalidRecord, SchemaRegistryUnavailable
from prooftrail.http_client import NoAnswer
from prooftrail.settings import SchemaRegistrySettings

PATIENCE = 3.0  # seconds for the registry to answer a question
UNKNOWN_SECONDS = 30.0  # for which an id that is unknown is not asked for again
PAUSE_SECONDS = 1.0  # for which a registry that failed is not asked again
LONGEST_ANSWER = 10_000_000  # bytes
MOST_UNKNOWN = 10_000  # ids remembered, which anybody may make up
LARGEST_ID = 2**31 - 1  # a registry answers to more as to a URL that it does not have, and for good
MOST_REFERENCES = 100  # schemas that one may be made of

_NOT_FOUND = (40401, 40402, 40403)  # the registry's own codes: no such subject, version, schema
_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"


class Schema(NamedTuple):
    """A schema's text and type, and the texts of those that it refers to, in the order in which they can be read."""

    kind: str
    text: str
    references: tuple[str, ...] = ()


class _Reference(msgspec.Struct):
    subject: str
    version: int


class _Answer(msgspec.Struct, rename="camel"):
    schema: str
    schema_type: str = "AVRO"
    references: list[_Reference] = []


class _Problem(msgspec.Struct):
    error_code: int = 0


class SchemaRegistry:
    """The registry at a URL; `credentials` gives user and password for basic authentication, where it asks for them."""

    def __init__(
        self, url: str, credentials: Callable[[], tuple[str, str] | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url.rstrip("/")
        self._credentials = credentials
        self._clock = clock
        self._known: dict[int, Schema] = {}
        self._unknown: dict[int, float] = {}  # until when
        self._failed: tuple[float, str] = (0.0, "")  # until when, and how

    def schema(self, id: int) -> Schema:
        """Get the schema of an id.

        Raises `InvalidRecord` (``unknown-schema``) where the registry knows none, `SchemaRegistryUnavailable` where it
        does not say.
        """
        if id > LARGEST_ID:
            raise _unknown(id)
        if id not in self._known:
            if self._clock() < self._unknown.get(id, 0.0):
                raise _unknown(id)
            self._known[id] = self._learn(id)
        return self._known[id]

    def _learn(self, id: int) -> Schema:
        try:
            answer = self._get(f"/schemas/ids/{id}")
            return Schema(answer.schema_type, answer.schema, tuple(self._referred(answer, {}).values()))
        except _NotFound:
            if len(self._unknown) >= MOST_UNKNOWN:
                self._unknown.clear()
            self._unknown[id] = self._clock() + UNKNOWN_SECONDS
            raise _unknown(id) from None

    def _referred(self, answer: _Answer, known: dict[tuple[str, int], str]) -> dict[tuple[str, int], str]:
        """The schemas that one refers to and those that they refer to, each behind what it needs."""
        for reference in answer.references:
            place = (reference.subject, reference.version)
            if place not in known and len(known) < MOST_REFERENCES:
                known[place] = ""  # so that a circle ends
                referred = self._get(f"/subjects/{quote(reference.subject, safe='')}/versions/{reference.version}")
                self._referred(referred, known)
                del known[place]
                known[place] = referred.schema
        return known

    def _get(self, path: str) -> _Answer:
        until, cause = self._failed
        if self._clock() < until:
            raise SchemaRegistryUnavailable(cause)
        try:
            return self._ask(path)
        except (NoAnswer, msgspec.MsgspecError, UnicodeDecodeError) as error:
            cause = f"the schema registry at {self._url} gave no answer to {path}: {error}"
            self._failed = (self._clock() + PAUSE_SECONDS, cause)
            raise SchemaRegistryUnavailable(cause) from error

    def _ask(self, path: str) -> _Answer:
        request = Request(f"{self._url}{path}", headers={"Accept": _ACCEPT})  # noqa: S310 - `configured` lets http(s) pass
        if credentials := self._credentials():
            # Not for whom the registry may send us on to.
            request.add_unredirected_header("Authorization", _basic(*credentials))
        status, body = http_client.ask(request, seconds=PATIENCE, longest=LONGEST_ANSWER, redirects=True)
        if status == HTTPStatus.NOT_FOUND and _problem(body) in _NOT_FOUND:
            raise _NotFound
        if status != HTTPStatus.OK:
            raise NoAnswer(f"expected a schema, got status {status}")
        return msgspec.json.decode(body, type=_Answer)


class _NotFound(Exception):
    """The registry says that it has no such thing; another 404 is of a wrong URL."""


def _problem(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Problem).error_code
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 0


def _unknown(id: int) -> InvalidRecord:
    return InvalidRecord("unknown-schema", f"the schema registry knows no schema {id}: register it there, then replay this")


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class _Credentials(msgspec.Struct):
    username: str
    password: str


def configured(settings: SchemaRegistrySettings) -> SchemaRegistry | None:
    """The registry that the settings name, None where they name none. Raises `ConfigurationError` for what is no URL."""
    url, arn = settings.schema_registry_url, settings.schema_registry_secret_arn
    if not url:
        return None
    if not url.startswith(("https://", "http://")):
        raise ConfigurationError(f"SCHEMA_REGISTRY_URL: expected a URL of http or https, got {url!a}")
    kept: list[tuple[str, str]] = []

    def credentials() -> tuple[str, str] | None:
        if arn and not kept:
            kept.append(_secret(arn))
        return kept[0] if kept else None

    return SchemaRegistry(url, credentials)


def _secret(arn: str) -> tuple[str, str]:
    with aws.faults(f"reading the schema registry's secret {arn}"):
        text = aws.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]
    try:
        secret = msgspec.json.decode(text, type=_Credentials)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"secret {arn}: expected a JSON object of username and password: {error}") from None
    return secret.username, secret.password

"""A request as API Gateway hands it over (Lambda proxy integration, REST API): headers, bytes, key, content type."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Self

import msgspec

from prooftrail.formats import TENANT_HEADER
from prooftrail.problem import Problem, errors

# Lambda takes 6 MB with everything, and bodies come to it in Base64; its own answer to more would say nothing of use.
MOST_BYTES = 4_000_000

_SENT_ON = re.compile(r"content-type|ce-.+|__\w+__|prooftrail-.+")  # never Authorization, Cookie and their like
_JSON = re.compile(r"application/(json|[\w.!#$&^-]+\+json)")
_NDJSON = re.compile(r"application/(x-ndjson|jsonl)")
_AVRO = re.compile(r"application/(avro|vnd\.apache\.avro(\+binary)?|vnd\.confluent\.avro)|avro/binary")
_IDEMPOTENCY_KEY = re.compile(r'"([\x20\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


class Request(msgspec.Struct, frozen=True):
    """What was asked: header names are in lower case, the body is the client's bytes."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, event: Mapping[str, Any]) -> Self:
        """Take a request out of its envelope; a header that came twice has its values joined (RFC 9110 5.3)."""
        single = {name: [value] for name, value in (event.get("headers") or {}).items()}
        several = event.get("multiValueHeaders") or single
        headers = {name.lower(): ", ".join(map(str, values)) for name, values in several.items()}
        body = event.get("body") or ""
        binary = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode("utf-8", "surrogatepass")
        return cls(event.get("httpMethod", ""), event.get("path", ""), headers, binary)

    @property
    def media_type(self) -> str:
        """The content type without its parameters; JSON where the client names none."""
        return self.headers.get("content-type", "application/json").partition(";")[0].strip().lower()

    @property
    def is_lines(self) -> bool:
        """Whether the body is one JSON text a line."""
        return _NDJSON.fullmatch(self.media_type) is not None

    @property
    def is_json(self) -> bool:
        """Whether the body is one JSON text."""
        return _JSON.fullmatch(self.media_type) is not None

    @property
    def is_binary_cloudevent(self) -> bool:
        """Whether the headers are the event and the body is its data (CloudEvents HTTP binding 3.1)."""
        return "ce-specversion" in self.headers

    def idempotency_key(self) -> str | None:
        """The value of `Idempotency-Key`, as a string of RFC 8941 or bare. Raises a `Problem` where it is neither."""
        given = self.headers.get("idempotency-key")
        if given is None:
            return None
        found = _IDEMPOTENCY_KEY.fullmatch(given.strip())
        if found is None:
            message = "expected 1 to 255 printable ASCII characters, such as a UUID in double quotes"
            raise Problem(HTTPStatus.BAD_REQUEST, message, errors=errors({"Idempotency-Key": message}))
        return found[1] or found[2]

    def headers_of_records(self, tenant: str | None) -> dict[str, str]:
        """The headers that say how the body is to be read; `tenant` stands in where they name none.

        They are kept if a record goes into quarantine, so what proves who the client is must not be among them.
        """
        sent_on = {name: value for name, value in self.headers.items() if _SENT_ON.fullmatch(name)}
        return sent_on if tenant is None else {TENANT_HEADER: tenant} | sent_on

    def check_one(self) -> None:
        """Raises a `Problem` where the body is too large, or of a type that cannot be one event."""
        self._check_size()
        if not (self.is_binary_cloudevent or self.is_json or _AVRO.fullmatch(self.media_type)):
            self._refuse_type("application/json, application/cloudevents+json, application/avro")

    def check_batch(self) -> None:
        """Raises a `Problem` where the body is too large, or of a type that cannot be several events."""
        self._check_size()
        if self.is_binary_cloudevent or not (self.is_json or self.is_lines):
            self._refuse_type("application/json, application/x-ndjson, application/cloudevents-batch+json")

    def _check_size(self) -> None:
        if len(self.body) > MOST_BYTES:
            message = f"expected at most {MOST_BYTES} bytes, got {len(self.body)}: send fewer events in a request"
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        if self.headers.get("content-encoding", "identity").lower() != "identity":
            message = f"expected a body that is not encoded, got {self.headers['content-encoding']!a}"
            raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, {"Accept-Encoding": "identity"})

    def _refuse_type(self, expected: str) -> None:
        message = f"expected {expected} or another +json, got {self.media_type!a}"
        if self.is_binary_cloudevent:
            message = f"expected {expected}, got a CloudEvent in binary mode, which is one event: POST it to /events"
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message, {"Accept-Post": expected})

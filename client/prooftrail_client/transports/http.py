"""HTTP: ``POST /events/batch`` with a line per event, answered once the service has them."""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from prooftrail_client.errors import AuditTransportError
from prooftrail_client.transports import DELIVERED, Result

LONGEST_ANSWER = 16 * 1024 * 1024  # bytes
# Of a batch as a whole: some event of it is unacceptable. All else that is no success may pass, or is a setting to be
# mended.
_UNACCEPTABLE = frozenset({400, 413, 414, 415, 422, 431})
_TAKEN = frozenset({"stored", "duplicate"})
_REFUSED = frozenset({"rejected", "conflict", "quarantined"})


class HttpTransport:
    """Sends to the service's API at `url`, below which ``/events/batch`` lies, as the owner of an API key.

    `key` may be a function that is called for each request, for keys that are renewed. `headers` go along with each, such
    as the ``x-api-key`` of a gateway that asks for one. `timeout` is in seconds.
    """

    largest_event = 1_000_000

    def __init__(
        self,
        url: str,
        key: str | Callable[[], str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url: expected http(s)://host[:port][/path], got {url!a}")
        self._path = parts.path.rstrip("/") + "/events/batch"
        self._key = key if callable(key) else lambda: key
        self._headers = dict(headers or {})
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def send(self, events: Sequence[bytes]) -> Sequence[Result]:
        """See `Transport`. A batch that is refused as a whole is halved until the event to blame stands alone."""
        status, answer = self._post(b"\n".join(events))
        if status in (HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.MULTI_STATUS):
            return _results(answer, len(events))
        if status not in _UNACCEPTABLE:
            raise AuditTransportError(f"{self._path}: expected 200 or 207, got {status}: {answer[:200]!a}")
        if len(events) == 1:
            return [Result("rejected", f"{status}: {answer[:2000].decode(errors='replace')}")]
        middle = len(events) // 2
        return [*self.send(events[:middle]), *self.send(events[middle:])]

    def close(self) -> None:
        """See `Transport`."""
        self._connection.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        own = {"Authorization": f"Bearer {self._key()}", "Content-Type": "application/x-ndjson"}
        try:
            response, answer = self._exchange(body, self._headers | own)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request opens another
            raise AuditTransportError(f"{self._path}: {type(error).__name__}: {error}") from error
        status = response.status
        if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            wait = _seconds(response.getheader("Retry-After"))
            raise AuditTransportError(f"{self._path}: {status}: {answer[:200]!a}", retry_after=wait)
        return status, answer

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
        reused = self._connection.sock is not None
        try:
            self._connection.request("POST", self._path, body, headers)
            response = self._connection.getresponse()
            return response, response.read(LONGEST_ANSWER)
        except (ConnectionError, http.client.BadStatusLine):
            if not reused:
                raise
            self._connection.close()  # the other side was tired of waiting for us, which is no failure
            return self._exchange(body, headers)


def _results(answer: bytes, count: int) -> list[Result]:
    try:
        items = json.loads(answer)["results"]
    except (ValueError, KeyError, TypeError):
        items = None
    if not isinstance(items, list) or len(items) != count:
        raise AuditTransportError(f"expected results for {count} events, got {answer[:200]!a}: is this the service?")
    return [_result(item) for item in items]


def _result(item: Any) -> Result:
    status = item.get("status") if isinstance(item, dict) else None
    if status in _TAKEN:
        return DELIVERED
    if status in _REFUSED:
        return Result("rejected", json.dumps(item))
    return Result("retry", f"expected stored, duplicate, conflict or rejected, got {item!a}")


def _seconds(text: str | None) -> float | None:
    """What ``Retry-After`` says (RFC 9110 10.2.3): seconds, or a date."""
    if text is None:
        return None
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None

"""Asking others over HTTP: what they do can cost so many seconds and bytes, and not more.

`urlopen` waits so long for each part of an answer, and one that comes byte by byte holds it for ever. Here connecting, TLS,
headers and body have one deadline together. (Names are looked up by the system, which gives up by itself.)
"""

from __future__ import annotations

import functools
import io
import socket
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import HTTPHandler, HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from prooftrail.errors import RetryableError


class NoAnswer(RetryableError):
    """Whoever was asked did not answer in time, at too great a length, or not in HTTP."""


class Answer(NamedTuple):
    """The status and the body of an answer, whichever they are."""

    status: int
    body: bytes


def ask(request: Request, *, seconds: float, longest: int, redirects: bool = False) -> Answer:
    """Ask and get the answer, after so many seconds at most, of so many bytes at most; raises `NoAnswer`.

    Where `redirects` are not followed, one is an answer like others.
    """
    refuse = [] if redirects else [_NoRedirect()]
    deadline = time.monotonic() + seconds
    try:
        with _open(build_opener(_Plain(deadline), _Tls(deadline), *refuse), request) as answer:
            found = Answer(answer.status, answer.read(longest + 1))
    except (OSError, HTTPException, ValueError) as error:  # the latter of addresses that are none
        raise NoAnswer(f"{request.full_url}: expected an answer within {seconds:g} seconds, got {error!r}") from error
    if len(found.body) > longest:
        raise NoAnswer(f"{request.full_url}: expected an answer of up to {longest} bytes, got a longer one")
    return found


def _open(opener: OpenerDirector, request: Request) -> Any:
    try:
        return opener.open(request)
    except HTTPError as error:
        return error


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Leave it to whoever asks."""


class _Plain(HTTPHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__()
        self._connection = functools.partial(_Connection, deadline)

    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(self._connection, request)


class _Tls(HTTPSHandler):
    def __init__(self, deadline: float) -> None:
        super().__init__(context=_trusted())
        self._connection = functools.partial(_TlsConnection, deadline, context=_trusted())

    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(self._connection, request)


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The authorities that the system trusts; reading them takes long."""
    return ssl.create_default_context()


class _Connection(HTTPConnection):
    """A connection that waits for nothing beyond its deadline."""

    def __init__(self, deadline: float, host: str, **parameters: Any) -> None:
        super().__init__(host, **parameters)
        self._deadline = deadline
        self._create_connection = functools.partial(_connected, deadline)
        self.response_class = functools.partial(_Response, deadline)  # type: ignore[assignment]  # called, and no more

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_left(self._deadline))
        super().send(data)


class _TlsConnection(_Connection, HTTPSConnection):
    """The same; TLS is agreed upon within the time that `_connected` leaves it."""


def _connected(deadline: float, address: tuple[str, int], *_: Any) -> socket.socket:
    """A connection to one of the addresses that a name has, which are tried one after the other."""
    failure = OSError(f"{address[0]} has no address")
    for family, kind, protocol, _name, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(_left(deadline))
            connection.connect(place)
            connection.settimeout(_left(deadline))
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


class _Response(HTTPResponse):
    """An answer each part of which is waited for until the deadline, and not for a time of its own."""

    def __init__(self, deadline: float, connection: socket.socket, *arguments: Any, **parameters: Any) -> None:
        super().__init__(connection, *arguments, **parameters)
        self.fp = io.BufferedReader(_Stream(deadline, connection, self.fp.detach()))


class _Stream(io.RawIOBase):
    def __init__(self, deadline: float, connection: socket.socket, stream: io.RawIOBase) -> None:
        self._deadline = deadline
        self._connection = connection
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(_left(self._deadline))
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("time is up")
    return left

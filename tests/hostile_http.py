"""Servers that answer HTTP as badly as one can, on real sockets."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

PACE = 0.02  # seconds from one part of what is dripped to the next, much less than anybody's patience

OK = b"HTTP/1.1 200 OK\r\n"


def _dripping(data: bytes) -> Iterator[bytes]:
    for byte in data:
        time.sleep(PACE)
        yield bytes([byte])


def _silence() -> Iterator[bytes]:
    time.sleep(1)
    yield b""


ANSWERS: dict[str, Callable[[], Iterable[bytes]]] = {
    "a garbage status line": lambda: [b"\x00\xff\x16\x03 what?\r\n\r\n"],
    "a garbage status": lambda: [b"HTTP/1.1 9999999 OK\r\n\r\n"],
    "an endless status line": lambda: itertools.repeat(b"HTTP/1.1 200 " + b"K" * 10_000),
    "an endless header": lambda: itertools.chain([OK, b"X: "], itertools.repeat(b"x" * 10_000)),
    "endless headers": lambda: itertools.chain([OK], itertools.repeat(b"X: x\r\n")),
    "endless promises": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a bad chunk": lambda: [OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\nnone\r\n"],
    "a chunk cut short": lambda: [OK, b"Transfer-Encoding: chunked\r\n\r\nff\r\nnone"],
    "an endless body": lambda: itertools.chain([OK, b"\r\n"], itertools.repeat(b"x" * 10_000)),
    "a dripping status line": lambda: _dripping(b"HTTP/1.1 200 " + b"K" * 60_000),
    "dripping headers": lambda: itertools.chain([OK], _dripping(b"X-Header: x\r\n" * 90)),
    "a dripping body": lambda: itertools.chain([OK, b"Content-Length: 9000\r\n\r\n"], _dripping(b"x" * 9_000)),
    "dripping chunks": lambda: itertools.chain(
        [OK, b"Transfer-Encoding: chunked\r\n\r\n"], _dripping(b"1\r\nx\r\n" * 9_000)
    ),
    "a dripping refusal": lambda: itertools.chain([b"HTTP/1.1 500 No\r\n\r\n"], _dripping(b"x" * 9_000)),
    "nothing": list,
    "silence": _silence,
}


def redirect(url: str) -> Callable[[], Iterable[bytes]]:
    """An answer that sends whoever asks on to another place, with what they asked."""
    return lambda: [b"HTTP/1.1 307 Over there\r\nContent-Length: 0\r\nLocation: " + url.encode() + b"\r\n\r\n"]


@contextmanager
def serving(
    answer: Callable[[], Iterable[bytes]], tls: ssl.SSLContext | None = None, *, reads: bool = True
) -> Iterator[str]:
    """Give each connection that answer, once its request has begun if it `reads`; yields the address, host and port."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(plain: socket.socket) -> None:
        with plain, suppress(OSError), tls.wrap_socket(plain, server_side=True) if tls else plain as connection:
            if reads:
                connection.recv(65_536)
            for part in answer():
                if over.is_set():
                    return
                connection.sendall(part)

    def accept() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=[listener.accept()[0]])
                threads.append(thread)
                thread.start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    over.set()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in [accepting, *threads]:
        thread.join()

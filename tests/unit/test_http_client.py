"""Asking others over HTTP: whatever they do, it ends in time, and as an answer or as an error of ours."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from prooftrail import http_client
from prooftrail.http_client import Answer, NoAnswer
from tests.hostile_http import ANSWERS, OK, redirect, serving

PATIENCE = 0.4


def ask(url: str, data: bytes | None = None, **parameters: Any) -> Answer:
    began = time.monotonic()
    try:
        return http_client.ask(Request(url, data), seconds=PATIENCE, longest=1000, **parameters)
    finally:
        assert time.monotonic() - began < PATIENCE + 0.5


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_whatever_is_answered_it_ends_in_time_and_as_no_answer(answer: Callable[[], Iterable[bytes]]) -> None:
    with serving(answer) as place, pytest.raises(NoAnswer, match=place):
        ask(f"http://{place}/path")


def test_status_and_body_are_what_was_answered() -> None:
    for head, body in (("200 OK", b"yes"), ("404 Not Found", b"no"), ("500 Oh", b""), ("204 Nothing", b"")):
        with serving(lambda head=head, body=body: [f"HTTP/1.1 {head}\r\n\r\n".encode(), body]) as place:  # type: ignore[misc]
            assert ask(f"http://{place}/") == (int(head[:3]), body)


def test_an_answer_as_long_as_it_may_be_is_whole_and_a_longer_one_is_none() -> None:
    with serving(lambda: [OK, b"\r\n", b"x" * 1000]) as place:
        assert len(ask(f"http://{place}/").body) == 1000
    with serving(lambda: [OK, b"\r\n", b"x" * 1001]) as place, pytest.raises(NoAnswer, match="1000 bytes"):
        ask(f"http://{place}/")


def test_a_redirect_is_followed_only_where_that_is_wished_and_within_the_same_time() -> None:
    with serving(lambda: [OK, b"\r\nthere"]) as there, serving(redirect(f"http://{there}/")) as here:
        assert ask(f"http://{here}/").status == 307
        assert ask(f"http://{here}/", redirects=True) == (200, b"there")
    with serving(ANSWERS["a dripping body"]) as there, serving(redirect(f"http://{there}/")) as here:
        assert ask(f"http://{here}/").status == 307
        with pytest.raises(NoAnswer):
            ask(f"http://{here}/", redirects=True)


def test_who_does_not_take_the_question_is_waited_for_no_longer() -> None:
    with serving(ANSWERS["silence"], reads=False) as place, pytest.raises(NoAnswer):
        ask(f"http://{place}/", b"x" * 50_000_000)


def test_tls_that_is_agreed_upon_byte_by_byte_is_waited_for_no_longer() -> None:
    hello = b"\x16\x03\x03\x40\x00\x02" + bytes(16_000)

    def dripping() -> Iterable[bytes]:
        for byte in hello:
            time.sleep(0.02)
            yield bytes([byte])

    with serving(dripping) as place, pytest.raises(NoAnswer):
        ask(f"https://{place}/")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key, and a certificate for it that names localhost and that it signed itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    file = tmp_path / "certificate.pem"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(form[0]) + key.private_bytes(*form))
    return file


def test_over_tls_only_whom_a_trusted_certificate_names_is_asked(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(lambda: [OK, b"\r\nyes"], tls) as place:
        port = place.partition(":")[2]
        with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
            ask(f"https://localhost:{port}/")
        trusting = ssl.create_default_context(cafile=str(certificate))
        monkeypatch.setattr(http_client, "_trusted", lambda: trusting)
        assert ask(f"https://localhost:{port}/") == (200, b"yes")
        with pytest.raises(NoAnswer, match="IP address mismatch"):
            ask(f"https://127.0.0.1:{port}/")
    with serving(ANSWERS["dripping headers"], tls) as place, pytest.raises(NoAnswer, match="time"):
        ask(f"https://localhost:{place.partition(':')[2]}/")


def test_a_name_with_very_many_addresses_where_nobody_is_costs_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        for _ in range(8):  # so that whoever connects next hears nothing
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses * 100)
        with pytest.raises(NoAnswer, match="time"):
            ask("http://witness.example/")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "https://127.0.0.1:1/", "http:///", "http://no name/", "http://[::1]:x/"]
)
def test_where_nobody_can_be_asked_there_is_no_answer(url: str) -> None:
    with pytest.raises(NoAnswer):
        ask(url)

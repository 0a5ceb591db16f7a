"""Signing: who puts a log's name under a note. A key is in AWS KMS, which never shows it, or a seed in Secrets Manager.

SIGNING_KEYS names the keys by their ARNs, comma-separated, and all of them sign, in that order. So a key is changed without
a gap: name the new one beside the old one, publish its verifier key, and name it alone once everybody has that.
"""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from prooftrail import aws
from prooftrail.errors import ConfigurationError
from prooftrail.ledger import checkpoint
from prooftrail.ledger.note import COSIGNATURE, ED25519, Note, SignatureLine, VerifierKey

if TYPE_CHECKING:
    from mypy_boto3_kms import KMSClient

# An Ed25519 public key as KMS hands it out: SubjectPublicKeyInfo in DER, of which all but the key is fixed (RFC 8410 4).
_SPKI = bytes.fromhex("302a300506032b6570032100")


class SigningKey(Protocol):
    """An Ed25519 key (RFC 8032): `public_key` has 32 bytes, a signature 64. Raises `AwsUnavailable`."""

    @property
    def public_key(self) -> bytes: ...  # noqa: D102

    def sign(self, message: bytes) -> bytes: ...  # noqa: D102


class KmsKey:
    """A key of AWS KMS, of the spec ECC_NIST_EDWARDS25519."""

    def __init__(self, arn: str, client: KMSClient | None = None) -> None:
        self._arn = arn
        self._given = client

    @functools.cached_property
    def public_key(self) -> bytes:
        """The public key, asked for once. Raises `ConfigurationError` where the key is of another kind."""
        with aws.faults(f"asking for the public key of {self._arn}"):
            der = self._kms.get_public_key(KeyId=self._arn)["PublicKey"]
        if len(der) != len(_SPKI) + 32 or not der.startswith(_SPKI):
            raise ConfigurationError(f"key {self._arn}: expected one of the spec ECC_NIST_EDWARDS25519, got {der.hex()}")
        return der[len(_SPKI) :]

    def sign(self, message: bytes) -> bytes:
        """Sign up to 4,096 bytes as they are (pure Ed25519, as signed notes want it)."""
        with aws.faults(f"signing with {self._arn}"):
            answer = self._kms.sign(KeyId=self._arn, Message=message, MessageType="RAW", SigningAlgorithm="ED25519_SHA_512")
        return answer["Signature"]

    @functools.cached_property
    def _kms(self) -> KMSClient:
        client: KMSClient = self._given or aws.client("kms", _region(self._arn))
        return client


class SecretKey:
    """A key whose seed (32 bytes, RFC 8032 5.1.5) this process knows."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # not where KMS signs

        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Sign bytes as they are."""
        return self._key.sign(message)


class Seed(msgspec.Struct, frozen=True):
    """What a secret holds: ``{"seed": "<32 bytes in base64>"}``."""

    seed: str


@functools.cache
def keys(arns: str) -> tuple[SigningKey, ...]:
    """The keys that a setting names, comma-separated; read once for an execution environment.

    Raises `ConfigurationError` where one is neither a key of KMS nor a secret with a seed, or where none is named.
    """
    named = [arn.strip() for arn in arns.split(",") if arn.strip()]
    if not named:
        raise ConfigurationError("expected ARNs of KMS keys or of secrets, comma-separated, got none")
    return tuple(map(_key, named))


def _key(arn: str) -> SigningKey:
    service = arn.split(":")[2] if arn.count(":") >= 5 else ""
    if service == "kms":
        return KmsKey(arn)
    if service == "secretsmanager":
        return _from_secret(arn)
    raise ConfigurationError(f"expected the ARN of a KMS key or of a secret, got {arn!a}")


def _from_secret(arn: str) -> SecretKey:
    with aws.faults(f"reading the secret {arn}"):
        text = aws.client("secretsmanager", _region(arn)).get_secret_value(SecretId=arn)["SecretString"]
    try:
        return SecretKey(base64.b64decode(msgspec.json.decode(text, type=Seed).seed, validate=True))
    except (msgspec.MsgspecError, ValueError):  # whatever it holds, it is not for a log to read
        raise ConfigurationError(f'secret {arn}: expected {{"seed": "<32 bytes in base64>"}}') from None


def _region(arn: str) -> str:
    return arn.split(":")[3]


def verifier_keys(name: str, by: Sequence[SigningKey]) -> list[VerifierKey]:
    """What a verifier of notes must know to accept the keys' signatures under `name`."""
    return [VerifierKey(name, ED25519, key.public_key) for key in by]


def sign(text: str, name: str, by: Sequence[SigningKey]) -> Note:
    """Sign a note's text with all the keys, in their order (C2SP signed-note)."""
    lines = [
        SignatureLine(name, verifier.key_id, key.sign(text.encode()))
        for key, verifier in zip(by, verifier_keys(name, by), strict=True)
    ]
    return Note(text, lines)


def cosign(text: str, name: str, key: SigningKey) -> SignatureLine:
    """Say that a checkpoint is the largest consistent one seen by now (C2SP tlog-cosignature, cosignature/v1)."""
    moment = int(time.time())
    signature = key.sign(checkpoint.cosignature_message(moment, text))
    return SignatureLine(name, VerifierKey(name, COSIGNATURE, key.public_key).key_id, moment.to_bytes(8) + signature)

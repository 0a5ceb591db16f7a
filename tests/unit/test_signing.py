"""Signing: what AWS is asked for and what becomes of its answers; the keys of AWS KMS are stood in for by a key of ours."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import boto3
import botocore.session
import moto
import pytest
from botocore.stub import Stubber

from prooftrail import signing
from prooftrail.aws import AwsUnavailable
from prooftrail.errors import ConfigurationError
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.note import COSIGNATURE, Note, VerifierKey, open_note
from prooftrail.signing import KmsKey, SecretKey, SigningKey

NAME = "log.example/acme"
TEXT = Checkpoint(NAME, 3, bytes(32)).encode()
KMS_ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
SEED = bytes(range(32))
SPKI = bytes.fromhex("302a300506032b6570032100")


@pytest.fixture(autouse=True)
def cold_start() -> Iterator[None]:
    signing.keys.cache_clear()
    yield
    signing.keys.cache_clear()


@pytest.fixture
def kms() -> Iterator[tuple[KmsKey, Stubber]]:
    """A key of KMS, and what KMS is to say; the stub checks requests and answers against AWS's own description."""
    client = boto3.client("kms", region_name="eu-central-1")
    with Stubber(client) as stub:
        yield KmsKey(KMS_ARN, client), stub


def public_key(stub: Stubber, der: bytes) -> None:
    stub.add_response("get_public_key", {"PublicKey": der}, {"KeyId": KMS_ARN})


def test_kms_signs_the_text_itself_and_is_asked_for_its_public_key_once(kms: tuple[KmsKey, Stubber]) -> None:
    key, stub = kms
    ours = SecretKey(SEED)
    public_key(stub, SPKI + ours.public_key)
    for _ in range(2):
        stub.add_response(
            "sign",
            {"Signature": ours.sign(TEXT.encode())},
            {
                "KeyId": KMS_ARN,
                "Message": TEXT.encode(),
                "MessageType": "RAW",
                "SigningAlgorithm": "ED25519_SHA_512",
            },
        )
        note = signing.sign(TEXT, NAME, [key])
        assert open_note(note.encode(), [VerifierKey(NAME, 1, ours.public_key)]).text == TEXT
    stub.assert_no_pending_responses()


def test_aws_knows_the_words_that_we_use() -> None:
    shapes = botocore.session.get_session().get_service_model("kms")
    assert "ED25519_SHA_512" in shapes.shape_for("SigningAlgorithmSpec").enum  # type: ignore[attr-defined]
    assert "ECC_NIST_EDWARDS25519" in shapes.shape_for("KeySpec").enum  # type: ignore[attr-defined]
    assert "RAW" in shapes.shape_for("MessageType").enum  # type: ignore[attr-defined]


@pytest.mark.parametrize("der", [b"", SPKI, SPKI + bytes(33), bytes(44), bytes(91)])
def test_a_key_of_another_kind_is_refused(kms: tuple[KmsKey, Stubber], der: bytes) -> None:
    key, stub = kms
    public_key(stub, der)
    with pytest.raises(ConfigurationError, match="ECC_NIST_EDWARDS25519"):
        _ = key.public_key


def test_what_kms_refuses_may_pass(kms: tuple[KmsKey, Stubber]) -> None:
    key, stub = kms
    stub.add_client_error("sign", "ThrottlingException")
    with pytest.raises(AwsUnavailable, match="ThrottlingException"):
        key.sign(b"")


def test_a_key_is_asked_where_it_lives() -> None:
    assert KmsKey(KMS_ARN)._kms.meta.region_name == "eu-central-1"


def secret(value: Any, name: str = "signing") -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return str(boto3.client("secretsmanager").create_secret(Name=name, SecretString=text)["ARN"])


def test_all_keys_that_are_named_sign_in_their_order() -> None:
    with moto.mock_aws():
        seeds = [bytes([n]) * 32 for n in range(3)]
        arns = [secret({"seed": base64.b64encode(seed).decode()}, f"key-{n}") for n, seed in enumerate(seeds)]
        keys = signing.keys(" , ".join(arns) + ",")
    assert [key.public_key for key in keys] == [SecretKey(seed).public_key for seed in seeds]
    note = signing.sign(TEXT, NAME, keys)
    opened = open_note(note.encode(), signing.verifier_keys(NAME, keys))
    assert [key for key, _ in opened.verified] == signing.verifier_keys(NAME, keys)
    assert signing.keys(KMS_ARN)[0].__class__ is KmsKey


@pytest.mark.parametrize(
    "value", ["", "hello", [], {}, {"seed": 5}, {"seed": "!"}, {"seed": base64.b64encode(bytes(31)).decode()}]
)
def test_a_secret_without_a_seed_is_refused_and_not_quoted(value: Any) -> None:
    with moto.mock_aws():
        arn = secret(value or "{}")
        with pytest.raises(ConfigurationError, match="32 bytes in base64") as refused:
            signing.keys(arn)
    assert "!" not in str(refused.value)


@pytest.mark.parametrize("arns", ["", " , ", "hello", "arn:aws:s3:::bucket", "arn:aws:sqs:us-east-1:0:q"])
def test_a_setting_that_names_no_key_is_refused(arns: str) -> None:
    with pytest.raises(ConfigurationError, match="ARN"):
        signing.keys(arns)


def test_a_secret_that_cannot_be_read_for_now_is_read_again() -> None:
    with moto.mock_aws():
        arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:later"
        with pytest.raises(AwsUnavailable, match="later"):
            signing.keys(arn)
        boto3.client("secretsmanager").create_secret(Name="later", SecretString=json.dumps({"seed": "AA" * 21 + "A="}))
        assert signing.keys("arn:aws:secretsmanager:us-east-1:123456789012:secret:later")


def test_a_cosignature_names_its_moment_and_is_no_log_s_signature() -> None:
    key: SigningKey = SecretKey(SEED)
    line = signing.cosign(TEXT, "witness.example", key)
    note = Note(TEXT, [line]).encode()
    ((verified, moment),) = open_note(note, [VerifierKey("witness.example", COSIGNATURE, key.public_key)]).verified
    assert verified.kind == COSIGNATURE
    assert moment is not None
    assert moment > 1_700_000_000

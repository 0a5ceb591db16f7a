"""What the deployed functions publish, bucket and API, read by implementations that are not ours."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.conftest import LogDatabase
from tests.factories import native, sqs
from tests.integration.conftest import EVIDENCE_BUCKET, ORIGIN
from tests.interop.conftest import Refused, Verifier, verify  # noqa: F401  # a fixture
from tests.trees import Signer


def test_bucket_and_proofs_of_a_log_are_accepted_and_not_once_tampered_with(
    *,
    ingesting: Callable[..., list[str]],
    checkpointing: Callable[..., dict[str, Any]],
    requesting: Callable[..., dict[str, Any]],
    database: LogDatabase,
    tmp_path: Path,
    verify: Verifier,  # noqa: F811
) -> None:
    ids = [f"event-{number}" for number in range(600)]
    for first in range(0, 600, 150):
        ingesting(sqs(*(native(id=id) for id in ids[first : first + 150])))
        checkpointing()
    download(tmp_path)
    for number in (0, 149, 255, 256, 599):
        save_proof(requesting(f"/events/{ids[number]}/proof", tenant="acme")["body"], tmp_path)
    log = Signer(f"{ORIGIN}/acme")
    assert verify(tmp_path, log).splitlines() == [
        "4 checkpoints, 600 leaves",
        "3 times grown",
        "0 consistency proofs",
        "5 inclusion proofs",
    ]
    tile = tmp_path / "tile" / "0" / "001"
    content = bytearray(tile.read_bytes())
    content[40] ^= 1
    tile.write_bytes(content)
    with pytest.raises(Refused):
        verify(tmp_path, log)


def download(to: Path) -> None:
    """The log of acme, as it lies in the evidence bucket."""
    s3 = boto3.client("s3")
    for item in s3.list_objects_v2(Bucket=EVIDENCE_BUCKET, Prefix="acme/")["Contents"]:
        file = to / item["Key"].removeprefix("acme/")
        file.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(EVIDENCE_BUCKET, item["Key"], str(file))


def save_proof(proof: str, to: Path) -> None:
    """A proof beside the entry's header, which the API gives as its `extra` line."""
    lines = dict(line.split(" ", 1) for line in proof.splitlines()[1:3])
    for folder, name, content in (
        ("proof", f"{lines['index']}.tlog-proof", proof.encode()),
        ("entry", lines["index"], base64.b64decode(lines["extra"])),
    ):
        (to / folder).mkdir(exist_ok=True)
        (to / folder / name).write_bytes(content)

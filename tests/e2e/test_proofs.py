"""Proofs from the deployed system: of hot and archived events, through the API, and a bundle by the command."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import quote

import httpx

from prooftrail import proofs
from prooftrail.ledger.checkpoint import Checkpoint
from prooftrail.ledger.merkle import root_of
from prooftrail.ledger.note import VerifierKey, open_note
from prooftrail.ledger.tiles import Tile
from tests.bundles import run_verifier
from tests.conftest import PROJECT
from tests.e2e.conftest import System
from tests.factories import native

TENANT = "proved"
IDS = ["plain", "with/slash", "ü ☃%2F?"]


def prooftrail(system: System, *arguments: str) -> str:
    command = [str(PROJECT / ".venv/bin/prooftrail"), *arguments]
    return subprocess.run(command, env=os.environ | system.environment, capture_output=True, text=True, check=True).stdout


def call(system: System, function: str) -> None:
    answer = system.client("lambda").invoke(FunctionName=system.output(f"{function}FunctionName"), Payload=b"{}")
    assert "FunctionError" not in answer, answer["Payload"].read()


def get(system: System, path: str, accept: str = "*/*", **parameters: str) -> httpx.Response:
    headers = system.operator | {"Accept": accept}
    return system.api.get(path, params={"tenant": TENANT, **parameters}, headers=headers)


def test_events_hot_and_archived_are_proved_through_the_api_and_in_a_bundle(system: System, tmp_path: Path) -> None:
    events = [
        native(tenant=TENANT, id=f"{id} {year}", time=f"{year}-01-05T00:00:00Z") for id in IDS for year in (2020, 2026)
    ]
    system.send([json.dumps(event) for event in events])
    system.wait_until_drained()
    call(system, "Archive")
    call(system, "Checkpoint")
    (key,) = map(VerifierKey.parse, prooftrail(system, "log", "keys", "--tenant", TENANT).splitlines())
    for event in events:
        answer = get(system, f"/events/{quote(event['id'], safe='')}/proof")
        assert answer.status_code == 200, answer.text
        assert json.loads(proofs.check(answer.content, [key]).entry.header)["event"]["id"] == event["id"]

    checkpoint = Checkpoint.parse(open_note(get(system, "/log/checkpoint").content, [key]).text)
    tile = get(system, f"/log/{Tile(0, 0, checkpoint.size).path}", "application/octet-stream")
    assert tile.headers["Content-Type"] == "application/octet-stream"
    assert root_of(tile.content[start : start + 32] for start in range(0, len(tile.content), 32)) == checkpoint.root
    assert (
        get(system, "/log/consistency", **{"from": str(checkpoint.size), "to": str(checkpoint.size)}).json()["hashes"] == []
    )

    file = tmp_path / "evidence.zip"
    prooftrail(system, "bundle", "--tenant", TENANT, "--filter", "actor=dr-lee", "-o", str(file))
    verified = run_verifier(file, "--key", str(key))
    assert (verified.returncode, verified.stderr) == (0, ""), verified.stdout
    # The schedule may have signed for the proofs just read meanwhile, which are events too.
    assert re.search(rf"\b{len(events)} of \d+ entries are such events", verified.stdout)

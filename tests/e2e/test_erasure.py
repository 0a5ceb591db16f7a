"""Erasure in the deployed system: asked for and approved over the API, done by the archive function, under Object Lock."""

from __future__ import annotations

import json
from typing import Any

from prooftrail import api_keys
from tests.e2e.conftest import System
from tests.factories import native

PERSON = "u-e2e-erased"


def run_archive(system: System) -> dict[str, Any]:
    answer = system.client("lambda").invoke(FunctionName=system.output("ArchiveFunctionName"), Payload=b"{}")
    document: dict[str, Any] = json.loads(answer["Payload"].read())
    assert "FunctionError" not in answer, document
    return document


def test_two_keys_and_a_run_of_the_archive_leave_nothing_of_a_person(system: System) -> None:
    tenant = "erased-e2e"
    with system.database() as admin:
        first, second = ({"Authorization": f"Bearer {api_keys.create(admin, tenant, role='privacy')}"} for _ in range(2))
    who = {"id": PERSON, "name": "Erasmus Gone"}
    events = [native(tenant=tenant, time=f"{time}T12:00:00Z", actor=who) for time in ("2020-01-01", "2026-10-01")]
    system.send([json.dumps(event) for event in [*events, native(tenant=tenant, time="2020-01-02T12:00:00Z")]])
    system.wait_until_drained()
    run_archive(system)
    s3 = system.client("s3")
    (former,) = s3.list_object_versions(Bucket=system.bucket, Prefix=f"tenant={tenant}/")["Versions"]
    locked = s3.head_object(Bucket=system.bucket, Key=former["Key"])
    assert locked["ObjectLockMode"] == "GOVERNANCE"

    asked = system.api.post("/erasures", json={"actor": PERSON, "reason": "asked for"}, headers=first)
    assert (asked.status_code, asked.json()["state"]) == (201, "requested")
    path = f"/erasures/{asked.json()['id']}"
    assert system.api.post(f"{path}/approval", headers=first).status_code == 403
    assert system.api.post(f"{path}/approval", headers=second).status_code == 202
    assert asked.json()["id"] in run_archive(system)["erased"]

    done = system.api.get(path, headers=first).json()
    assert (done["state"], done["entries"], done["actor"]) == ("done", 2, None)
    (version,) = s3.list_object_versions(Bucket=system.bucket, Prefix=f"tenant={tenant}/")["Versions"]
    assert version["VersionId"] != former["VersionId"]
    kept = s3.head_object(Bucket=system.bucket, Key=former["Key"])
    assert kept["ObjectLockRetainUntilDate"] == locked["ObjectLockRetainUntilDate"]
    with system.database() as admin:
        rows = admin.execute("SELECT event::text FROM prooftrail.event WHERE tenant = %s", [tenant]).fetchall()
    assert not [row for (row,) in rows if PERSON in row or "Erasmus" in row]

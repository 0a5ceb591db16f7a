"""For `sam local invoke`: how Lambda's container reaches this machine, and the env file that tells it.

Asked for with PROOFTRAIL_CONTAINERS=1, because it lets every container of this machine reach the stack.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Mapping

from local.errors import StackError
from local.layout import Layout
from local.store import write_private

VARIABLE = "PROOFTRAIL_CONTAINERS"
FUNCTIONS = {
    "IngestFunction": "prooftrail_ingest",
    "HttpFunction": "prooftrail_ingest",
    "QueryFunction": "prooftrail_query",
    "ArchiveFunction": "prooftrail_archive",
    "CheckpointFunction": "prooftrail_checkpoint",
    "VerifyFunction": "prooftrail_verify",
}
DESKTOP = "host.docker.internal"  # by which Docker Desktop's containers reach even the loopback


def wanted() -> bool:
    """Say whether containers shall reach the stack."""
    return bool(os.environ.get(VARIABLE))


def bridge() -> str | None:
    """Return the address of Docker's bridge, at which servers must listen too, if that is asked for and needed."""
    if not wanted():
        return None
    question = ["docker", "network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]
    try:
        subnet = subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise StackError(f"{VARIABLE} is set, but no Docker engine answers; start it, or unset {VARIABLE}.") from None
    address = str(ipaddress.ip_network(subnet)[1])  # Docker takes the first address of the subnet for the host
    with socket.socket() as server:
        try:
            server.bind((address, 0))
        except OSError:
            return None  # Docker Desktop: the bridge is inside its virtual machine
    return address


def write_env_file(layout: Layout, address: str | None, values: Mapping[str, str], passwords: Mapping[str, str]) -> None:
    """Write the committed env.json with this stack's addresses and passwords in it to the state directory."""
    host = address or DESKTOP
    environment = json.loads((layout.checkout / "env.json").read_bytes())
    database = values["DATABASE_URL"].rpartition("@")[2].replace("127.0.0.1", host)
    aws = {name: value.replace("127.0.0.1", host) for name, value in values.items() if name.startswith("AWS_")}
    known = {name: value.replace("127.0.0.1", host) for name, value in values.items() if name != "DATABASE_URL"}
    for function, role in FUNCTIONS.items():
        own = environment[function]
        own["DATABASE_URL"] = f"postgresql://{role}:{passwords[role]}@{database}"
        environment[function] = own | {name: known[name] for name in own.keys() & known.keys()} | aws
    write_private(layout.state / "env.json", json.dumps(environment, indent=2))

"""Cold starts: what a function must not load before it is needed, seen in a fresh interpreter."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prooftrail

PROJECT = Path(__file__).parents[2]
PROGRAM = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); __import__(sys.argv[2]); print(json.dumps(sorted(sys.modules)))"
)
HEAVY = {
    "boto3",
    "botocore",
    "pyarrow",
    "arro3",
    "duckdb",
    "adbc_driver_manager",
    "adbc_driver_postgresql",
    "typer",
    "rich",
    "jsonschema_rs",
}


@pytest.mark.parametrize(
    ("function", "forbidden"),
    [
        ("ingest", HEAVY | {"pydantic", "fastavro", "jsonschema_rs", "urllib.request"}),
        ("query", HEAVY),
        ("archive", {"boto3", "botocore", "pydantic", "pyarrow", "duckdb"}),
        ("checkpoint", HEAVY | {"pydantic", "cryptography"}),
        ("witness", HEAVY | {"pydantic", "cryptography", "psycopg"}),
    ],
)
def test_a_function_loads_only_what_it_needs_to_start(function: str, forbidden: set[str]) -> None:
    command = [sys.executable, "-c", PROGRAM, str(PROJECT / "functions" / function), function]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    loaded = set(json.loads(answer.stdout))
    assert {"prooftrail", function} <= loaded
    # Powertools looks whether there is a botocore, and its bare package costs a millisecond; what is in it costs hundreds.
    assert {module for module in loaded - {"botocore"} if {module, module.partition(".")[0]} & forbidden} == set()


def test_the_map_names_every_module_once() -> None:
    named = re.findall("``([a-z_]+)``", prooftrail.__doc__ or "")
    assert sorted(named) == sorted(module.name for module in pkgutil.iter_modules(prooftrail.__path__))

"""The ledger stands alone: an auditor needs Python and these files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LAYER = Path(__file__).parents[3] / "layer"
MODULES = sorted(
    f"prooftrail.ledger.{file.stem}" for file in LAYER.glob("prooftrail/ledger/*.py") if file.stem != "__init__"
)
# -S: no site-packages, so that whatever is not of the standard library could not even be found.
PROGRAM = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
for module in sys.argv[2:]:
    importlib.import_module(module)
print(json.dumps(sorted(sys.modules)))
"""


def test_it_loads_nothing_but_the_standard_library_and_the_errors() -> None:
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(LAYER), *MODULES]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    loaded = set(json.loads(answer.stdout))
    foreign = {module for module in loaded if module.partition(".")[0] not in sys.stdlib_module_names}
    assert {module for module in foreign if not module.startswith("__")} == {
        "prooftrail",
        "prooftrail.errors",
        "prooftrail.ledger",
        *MODULES,
    }

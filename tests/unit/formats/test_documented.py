"""docs/formats.md has every name of every table, so that it cannot fall behind them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from prooftrail.formats import cloudevents, go, java, services
from tests.conftest import PROJECT

TABLES = {
    "Java": java.TABLE,
    "Go": {theirs: ours for theirs, ours in go.TABLE.items() if theirs[0].isupper()},
    "Go, with tags": {theirs: ours for theirs, ours in go.TABLE.items() if theirs[0].islower()},
    "The services": services.TABLE,
    "CloudEvents": cloudevents.TABLE,
}


def rows(table: Mapping[str, str]) -> list[str]:
    """The lines of the documented table: our fields in the order of theirs, each with the names that it may come under."""
    names: dict[str, list[str]] = {}
    for theirs, ours in table.items():
        names.setdefault(ours.partition(":")[0], []).append(f"`{theirs}`")
    return [f"| `{ours}` | {', '.join(theirs)} |" for ours, theirs in names.items()]


@pytest.mark.parametrize("name", TABLES)
def test_the_table_is_documented_line_by_line(name: str) -> None:
    documented = (PROJECT / "docs" / "formats.md").read_text().splitlines()
    assert [row for row in rows(TABLES[name]) if row not in documented] == []

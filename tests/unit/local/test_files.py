"""What a stack leaves on disk: readable by any shell, private, whole after a crash."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from local import environment_file
from local.errors import StackError
from local.layout import CHECKOUT, Layout
from local.store import Store

ODD = {"PLAIN": "http://127.0.0.1:1/x", "QUOTES": "a'b\"c$d`e\\f", "EMPTY": "", "LINES": "a\nb", "EQUALS": "a=b=c"}


def test_the_environment_file_comes_back_as_written(tmp_path: Path) -> None:
    environment_file.write(tmp_path / "stack.env", ODD)
    assert environment_file.read(tmp_path / "stack.env") == ODD
    assert environment_file.read(tmp_path / "absent") == {}


def test_a_shell_reads_the_environment_file(tmp_path: Path) -> None:
    environment_file.write(tmp_path / "stack.env", ODD)
    script = f'. {tmp_path}/stack.env; printf "%s|" "$PLAIN" "$QUOTES" "$EMPTY" "$LINES" "$EQUALS"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout.split("|")[:-1] == list(ODD.values())


def test_secrets_are_for_their_owner_only(tmp_path: Path) -> None:
    environment_file.write(tmp_path / "stack.env", {})
    Store(tmp_path / "store.json").set("password", "x")
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("stack.env", "store.json")] == [0o600, 0o600]


def test_the_store_remembers(tmp_path: Path) -> None:
    Store(tmp_path / "store.json").set("port", 1)
    assert (Store(tmp_path / "store.json").get("port"), Store(tmp_path / "store.json").get("other")) == (1, None)


def test_a_broken_store_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"port": ')
    with pytest.raises(StackError, match=r"store\.json is not valid JSON"):
        Store(tmp_path / "store.json")


def test_the_state_directory_is_chosen_by_argument_then_variable_then_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROOFTRAIL_STATE_DIR", raising=False)
    assert Layout.of().state == CHECKOUT / ".local"
    monkeypatch.setenv("PROOFTRAIL_STATE_DIR", str(tmp_path))
    assert Layout.of().state == tmp_path
    assert Layout.of(tmp_path / "other").state == tmp_path / "other"

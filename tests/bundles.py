"""Bundles to be read, checked and tampered with, as whoever gets one might."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from prooftrail.bundle import verify

VERIFIER = Path(verify.__file__)


class Unpacked:
    """The files of a bundle, to be changed; `seal` does what a forger would: make the manifest fit."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    @classmethod
    def of(cls, file: Path) -> Unpacked:
        with zipfile.ZipFile(file) as container:
            return cls({name: container.read(name) for name in container.namelist()})

    def copy(self) -> Unpacked:
        return Unpacked(dict(self.files))

    def lines(self, name: str) -> list[bytes]:
        return self.files[name].splitlines(keepends=True)

    def records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines(name)]

    def write(self, name: str, *records: dict[str, Any]) -> None:
        self.files[name] = b"".join(canonical(record) + b"\n" for record in records)

    def seal(self) -> Unpacked:
        named = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
            for name, content in self.files.items()
            if name != "manifest.json"
        }
        self.files["manifest.json"] = canonical({"files": named, "format": verify.FORMAT})
        return self

    def save(self, folder: Path) -> Path:
        for name, content in self.files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return folder

    def zipped(self, file: Path) -> Path:
        with zipfile.ZipFile(file, "w") as container:
            for name, content in self.files.items():
                container.writestr(name, content)
        return file

    def reason(self, *keys: str) -> str:
        """Why the verifier, in this process, does not believe it; empty where it does."""
        with tempfile.TemporaryDirectory() as folder:
            file = self.zipped(Path(folder, "bundle.zip"))
            try:
                verify.check(str(file), list(keys))
            except verify.NotProved as error:
                return str(error)
        return ""


def canonical(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def run_verifier(
    bundle: Path, *options: str, program: Path = VERIFIER, python: str = sys.executable
) -> subprocess.CompletedProcess[str]:
    """As an auditor runs it: bare, from elsewhere, and with nothing in the environment."""
    command = [python, "-I", "-S", str(program), str(bundle), *options]
    return subprocess.run(command, capture_output=True, text=True, env={}, cwd="/", timeout=120)

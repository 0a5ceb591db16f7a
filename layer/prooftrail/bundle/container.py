"""The zip of a bundle: files in the order in which they are added, and last a manifest of them all."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from prooftrail import canonical

FORMAT = "prooftrail-evidence-bundle/1"
_DATE = (1980, 1, 1, 0, 0, 0)  # the same bundle, the same bytes
_CHUNK = 1 << 16  # bytes


class Container:
    """A zip being written; it has its manifest, and is whole, when the `with` ends without an error."""

    def __init__(self, file: Path) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)
        self._files: dict[str, dict[str, str | int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            self._write("manifest.json", [canonical.encode({"files": self._files, "format": FORMAT})])
        self._zip.close()

    def add(self, name: str, content: bytes) -> None:
        """Add a file."""
        self._files[name] = self._write(name, [content])

    def add_file(self, name: str, file: Path) -> None:
        """Add a file that lies on disk, a piece at a time."""
        with file.open("rb") as content:
            self._files[name] = self._write(name, iter(lambda: content.read(_CHUNK), b""))

    def _write(self, name: str, pieces: Iterable[bytes]) -> dict[str, str | int]:
        info = zipfile.ZipInfo(name, _DATE)
        info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
        hashed, size = hashlib.sha256(), 0
        with self._zip.open(info, "w", force_zip64=True) as file:
            for piece in pieces:
                file.write(piece)
                hashed.update(piece)
                size += len(piece)
        return {"sha256": hashed.hexdigest(), "size": size}

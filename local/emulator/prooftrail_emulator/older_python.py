"""Lets LocalStack 2026.3, which is written for Python 3.13, run on 3.11 and 3.12.

Its metadata allows them, but a few modules use the type parameter syntax of 3.12, and two what `warnings` and
`threading` have since 3.13. Loading a module here rewrites `class Box[T](Base):` to `class Box(Base, Generic[T]):`, and
likewise functions and aliases.
"""

from __future__ import annotations

import re
import sys
import warnings
import zlib
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path
from typing import Any

CLASS = re.compile(r"^(class \w+)\[([^\]]+)\](?:\((.*)\))?:$", re.MULTILINE)
FUNCTION = re.compile(r"^(\s*def \w+)\[([^\]]+)\]\(", re.MULTILINE)
ALIAS = re.compile(r"^type (\w+ = )", re.MULTILINE)
# threading.Lock is a class, which can be combined with None, only since 3.13.
LOCK = re.compile(r"\bLock \| None\b")
RULES = zlib.crc32(Path(__file__).read_bytes())
FIRST_IMPORT = re.compile(r"^(?:import|from (?!__future__))", re.MULTILINE)


def support() -> None:
    """Make LocalStack importable by this Python."""
    if sys.version_info >= (3, 13):
        return
    from typing_extensions import deprecated

    warnings.deprecated = deprecated  # type: ignore[attr-defined]
    details: list[Any] = [(ExtensionFileLoader, EXTENSION_SUFFIXES), (_Translator, SOURCE_SUFFIXES)]
    sys.path_hooks.insert(0, FileFinder.path_hook(*details))
    sys.path_importer_cache.clear()


def translate(source: str) -> str:
    """Return the source in the syntax of Python 3.11."""
    variables: set[str] = set()

    def names(parameters: str) -> str:
        found = [parameter.partition(":")[0].strip() for parameter in parameters.split(",")]
        variables.update(found)
        return ", ".join(found)

    def as_class(match: re.Match[str]) -> str:
        bases = f"{match[3]}, " if match[3] else ""
        return f"{match[1]}({bases}_Generic[{names(match[2])}]):"

    def as_function(match: re.Match[str]) -> str:
        names(match[2])
        return f"{match[1]}("

    source = LOCK.sub('"Lock | None"', source)
    source = ALIAS.sub(r"\1", FUNCTION.sub(as_function, CLASS.sub(as_class, source)))
    declarations = "; ".join(f"{name} = _TypeVar({name!r})" for name in sorted(variables))
    header = f"from typing import Generic as _Generic, TypeVar as _TypeVar; {declarations}\n"
    return FIRST_IMPORT.sub(lambda first: header + first[0], source, count=1) if variables else source


class _Translator(SourceFileLoader):
    def path_stats(self, path: Any) -> Any:
        # Compiled files are kept for a time stamp: another version of our rules must not find those of this one.
        stats = super().path_stats(path)
        return {**stats, "mtime": stats["mtime"] + RULES}

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        if "localstack" in Path(path).parts:
            data = translate(bytes(data).decode()).encode()
        return super().source_to_code(data, path, _optimize=_optimize)  # type: ignore[call-arg]

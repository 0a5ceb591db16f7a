"""Where everything lives: the checkout, the state of one stack, and tools that all stacks of the checkout share."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
STATE_VARIABLE = "PROOFTRAIL_STATE_DIR"


@dataclass(frozen=True)
class Layout:
    """Paths of one stack."""

    state: Path
    checkout: Path = CHECKOUT

    @classmethod
    def of(cls, state: Path | str | None = None) -> Layout:
        """Return the paths for a state directory; without one, for the environment's or the checkout's own."""
        chosen = state or os.environ.get(STATE_VARIABLE) or CHECKOUT / ".local"
        return cls(Path(chosen).expanduser().resolve())

    @property
    def environment_file(self) -> Path:
        """What `make up` tells the shell."""
        return self.state / "stack.env"

    @property
    def logs(self) -> Path:
        """Logs of the servers and, in `functions/`, of the functions."""
        return self.state / "logs"

    @property
    def tools(self) -> Path:
        """Environments that are the same for every stack, one set per Python."""
        return self.checkout / ".local" / "tools" / runtime_name()

    @property
    def scripts(self) -> Path:
        """Where this environment keeps its commands, `prooftrail` among them."""
        return Path(sys.prefix) / "bin"


def runtime_name() -> str:
    """Return Lambda's name for the Python that runs us."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def architecture() -> str:
    """Return Lambda's name for this machine's processor."""
    return "arm64" if platform.machine().lower() in {"arm64", "aarch64"} else "x86_64"

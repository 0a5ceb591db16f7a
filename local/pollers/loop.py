"""How a poller runs: until a signal ends it, and again from the start when a broker goes away."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from local import environment_file

LONGEST_PAUSE = 5.0  # seconds


def for_ever(poll: Callable[[dict[str, str]], None], *passing: type[Exception]) -> None:
    """Poll with the values of stack.env, the file that the command line names, until SIGTERM.

    After an error of the `passing` kinds, it is read again: a broker may have come back at another address.
    """
    file = Path(sys.argv[1])
    # As an exception, so that a consumer leaves its group and a connection is closed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for pause in pauses():
        try:
            poll(environment_file.read(file))
        except passing as error:
            say(f"connecting again: {error!r}")
        time.sleep(pause)


def pauses() -> Iterator[float]:
    """Yield how many seconds to wait after the first failure, after the second, and so on."""
    pause = 0.5
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE)


def say(text: str) -> None:
    """Write a line to the poller's log."""
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}", flush=True)

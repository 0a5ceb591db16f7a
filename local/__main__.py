"""`python -m local up|down|status|demo`."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial

from local.errors import StackError
from local.stack import Stack

SHOWN = {
    "API": "PROOFTRAIL_API_URL",
    "Queue": "PROOFTRAIL_QUEUE_URL",
    "Dead letters": "PROOFTRAIL_DLQ_URL",
    "Archive bucket": "PROOFTRAIL_ARCHIVE_BUCKET",
    "Evidence bucket": "PROOFTRAIL_EVIDENCE_BUCKET",
    "Kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "RabbitMQ": "RABBITMQ_URL",
    "AWS endpoint": "AWS_ENDPOINT_URL",
    "PostgreSQL": "DATABASE_URL",
}


def main() -> int:
    """Run one command; faults that can be expected end it with one sentence."""
    parser = argparse.ArgumentParser(prog="python -m local", description="The whole system on this machine.")
    commands: dict[str, Callable[[], None]] = {
        "up": up,
        "down": down,
        "status": status,
        "demo": demo,
        "demo-keep": partial(demo, keep=True),
    }
    parser.add_argument("command", choices=commands)
    try:
        commands[parser.parse_args().command]()
    except (StackError, OSError) as error:
        print(f"prooftrail: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prooftrail: interrupted; `make up` goes on from here, `make down` stops what runs.", file=sys.stderr)
        return 130
    return 0


def up() -> None:
    """Start, and show where everything is."""
    started = time.monotonic()
    stack = Stack(say=lambda text: print(f"  {time.monotonic() - started:5.1f} s  {text}", flush=True))
    values = stack.up()
    _table({name: values[variable] or "none" for name, variable in SHOWN.items()})
    print(f"\nFor your shell:  source {shlex.quote(str(stack.layout.environment_file))}")


def demo(*, keep: bool = False) -> None:
    """Show the whole system at work; a stack that was started for it is stopped again, unless it is to be kept."""
    from local import demo as story

    stack = Stack()
    ran_before = bool(stack.values()) and "stopped" not in stack.status().values()
    try:
        up()
        story.run(stack.values(), stack.brokers())
    finally:
        if not keep and not ran_before:
            down()


def down() -> None:
    """Stop."""
    print("stopped; `make up` finds the data again" if Stack().down() else "nothing was running")


def status() -> None:
    """Say what runs."""
    _table(Stack().status())


def _table(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))


if __name__ == "__main__":
    sys.exit(main())

"""`prooftrail redrive`: dead letters go back to their queue."""

from __future__ import annotations

from typing import Annotated

import typer

from prooftrail import redrive as dead_letters
from prooftrail.cli.common import fail
from prooftrail.errors import ProoftrailError

LEFT = 2  # exit code


def redrive(
    dead_letter_queue: Annotated[str, typer.Option(envvar="PROOFTRAIL_DLQ_URL", help="URL of the dead-letter queue.")],
    queue: Annotated[str, typer.Option(envvar="PROOFTRAIL_QUEUE_URL", help="URL of the queue that they came from.")],
) -> None:
    """Send dead letters back to their queue under their former names, so that each event keeps its identity.

    Exit code 2: some stay, because SQS does not take them back; each one is named. May be stopped, and repeated.
    """
    sent = left = 0
    try:
        for stays in dead_letters.redrive(dead_letter_queue, queue):
            if stays is None:
                sent += 1
            else:
                left += 1
                typer.echo(f"{stays.id} stays: {stays.cause}", err=True)
    except ProoftrailError as error:
        fail(f"{sent} dead letters were sent back, then: {error}")
    typer.echo(f"{sent} dead letters were sent back, {left} stay")
    raise typer.Exit(LEFT if left else 0)

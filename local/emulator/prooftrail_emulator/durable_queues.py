"""SQS messages on disk, with their ids, and back when their queue is made again.

A message that is being processed while LocalStack stops comes back too: SQS delivers at least once.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from localstack import config

HOME = Path(config.VOLUME_DIR) / "durable" / "queues"
INTERVAL_SECONDS = 2.0

_lock = Lock()
_saved: dict[Path, frozenset[str]] = {}


def start() -> None:
    """Save queues from now on, every moment that they changed."""
    HOME.mkdir(parents=True, exist_ok=True)
    Thread(target=_save_for_ever, name="durable-queues", daemon=True).start()


def save() -> None:
    """Write every queue whose messages are not those that were written last."""
    with _lock:
        for queue in _queues():
            file, messages = _file(queue), _messages(queue)
            ids = frozenset(message.message_id for message in messages)
            if _saved.get(file) != ids:
                draft = file.with_suffix(".new")
                draft.write_bytes(pickle.dumps([(message.message, message.created) for message in messages]))
                draft.replace(file)
                _saved[file] = ids


def restore_new_queue(_chain: Any, context: Any, response: Any) -> None:
    """Fill a queue that was just made: a response handler."""
    operation = context.service_operation
    if (
        operation is None
        or (operation.service, operation.operation) != ("sqs", "CreateQueue")
        or response.status_code >= 300
    ):
        return
    with _lock:
        for queue in _queues():
            if queue.name == context.service_request["QueueName"] and _file(queue) not in _saved:
                _restore(queue)


def _save_for_ever() -> None:
    while True:
        time.sleep(INTERVAL_SECONDS)
        save()


def _restore(queue: Any) -> None:
    file = _file(queue)
    # Our own file in the user's own directory.
    known = pickle.loads(file.read_bytes()) if file.exists() else []  # noqa: S301
    for message, created in known:
        queue.put(message).created = created
    _saved[file] = frozenset(message["MessageId"] for message, _ in known)


def _queues() -> Iterator[Any]:
    from localstack.services.sqs.models import StandardQueue, sqs_stores

    for _, _, store in sqs_stores.iter_stores():
        # FIFO queues have an order and groups that this simple list would lose; the system has none.
        yield from [queue for queue in list(store.queues.values()) if isinstance(queue, StandardQueue)]


def _messages(queue: Any) -> list[Any]:
    with queue.mutex:
        every = [*queue.visible.queue, *queue.inflight, *queue.delayed]
    return [message for message in every if not message.deleted]


def _file(queue: Any) -> Path:
    return HOME / f"{queue.account_id}-{queue.region}-{queue.name}.pickle"

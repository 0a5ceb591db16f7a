"""SQS messages on disk, with their ids, and back when their queue is made again.

A message that is being processed while LocalStack stops comes back too: SQS delivers at least once.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

INTERVAL_SECONDS = 2.0

_lock = Lock()
_saved: dict[Path, frozenset[str]] = {}
_home: Path | None = None


def start(home: Path) -> Callable[[Any, Any, Any], None]:
    """Save queues from now on, every moment that they changed; return the handler that restores them."""
    global _home
    _home = home
    home.mkdir(parents=True, exist_ok=True)
    Thread(target=_save_for_ever, name="durable-queues", daemon=True).start()
    return _restore_new_queue


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


def _save_for_ever() -> None:
    pause = Event()
    while not pause.wait(INTERVAL_SECONDS):
        save()


def _restore_new_queue(_chain: Any, context: Any, response: Any) -> None:
    operation = context.service_operation
    if operation is None or operation.service != "sqs" or operation.operation != "CreateQueue" or response.status_code >= 300:
        return
    with _lock:
        for queue in _queues():
            if queue.name == context.service_request["QueueName"] and _file(queue) not in _saved:
                _restore(queue)


def _restore(queue: Any) -> None:
    file = _file(queue)
    known = pickle.loads(file.read_bytes()) if file.exists() else []
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
    assert _home is not None, "start() comes first"
    return _home / f"{queue.account_id}-{queue.region}-{queue.name}.pickle"

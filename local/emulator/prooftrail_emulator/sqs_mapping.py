"""The SQS event source mapping as AWS has it: message bodies untouched, and no more than 6 MB in one invocation.

LocalStack parses each body as JSON and writes it again, for the sake of filters, which drops doubled keys, respells
numbers, and fails for a whole batch where one body is nested too deep; and it divides batches by number only.
Source: AWS Lambda Developer Guide, "How Lambda processes records from stream and queue-based event sources".
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

MOST_BYTES = 6 * 1024 * 1024
_ENVELOPE_BYTES = 1024  # of a message's attributes in the event

LOG = logging.getLogger(__name__)


def install() -> None:
    """Make every SQS poller without a filter work this way; one with a filter stays as it is."""
    from localstack.services.lambda_.event_source_mapping.pollers.sqs_poller import SqsPoller

    filtered = SqsPoller.handle_messages

    def handle_messages(poller: Any, messages: list[dict[str, Any]]) -> None:
        if poller.filter_patterns:
            filtered(poller, messages)
            return
        for part in within_payload(messages):
            try:
                _handle(poller, part)
            except Exception as error:  # noqa: BLE001  # the messages stay, and become visible again
                LOG.warning("the function failed for %d messages: %s", len(part), error)

    SqsPoller.handle_messages = handle_messages


def within_payload(messages: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Divide a batch so that no part is larger than an invocation may be."""
    part: list[dict[str, Any]] = []
    size = 0
    for message in messages:
        own = len(json.dumps(message["Body"], ensure_ascii=False).encode("utf-8", "surrogatepass")) + _ENVELOPE_BYTES
        if part and size + own > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(message)
        size += own
    if part:
        yield part


def _handle(poller: Any, messages: list[dict[str, Any]]) -> None:
    """Invoke the function with these messages and delete those that it does not ask for again."""
    from localstack.services.lambda_.event_source_mapping.event_processor import PartialBatchFailureError
    from localstack.services.lambda_.event_source_mapping.pollers.sqs_poller import (
        parse_batch_item_failures,
        transform_into_events,
    )

    done = {message["MessageId"] for message in messages}
    try:
        poller.processor.process_events_batch(poller.add_source_metadata(transform_into_events(messages)))
    except PartialBatchFailureError as error:
        done.difference_update(parse_batch_item_failures(error.partial_failure_payload, done))
    poller.delete_messages(messages, done)

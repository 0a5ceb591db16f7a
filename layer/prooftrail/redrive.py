"""Redrive: dead letters go back to their queue under the name that they had, so that their events keep their identity.

SQS moves a message to the dead-letter queue with its id, but StartMessageMoveTask gives it another one on its way back
(Amazon SQS Developer Guide, "Configuring a dead-letter queue redrive"). An event without an id of its own is called like
its message, so it would come back as another event; one without a time has that of its message, and would contradict
itself. This way a message attribute carries both along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from prooftrail import aws
from prooftrail.errors import PermanentError

ORIGIN = "prooftrail-origin"  # the attribute, which ingest takes for the message's name if it is of the same queue
AT_ONCE = 10  # messages that SQS hands over at most
VISIBILITY_SECONDS = 120  # for which nobody else gets those that are being sent back
_OF_MESSAGE = ("InvalidParameterValue", "InvalidAttributeValue", "InvalidMessageContents")  # what is wrong with it alone


class NotTaken(PermanentError):
    """SQS does not take a message back: with one attribute more it is too large, or has more than ten."""


class Left(msgspec.Struct, frozen=True):
    """A message that SQS did not take back, and why: it stays where it was."""

    id: str
    cause: str


def redrive(dead_letters: str, queue: str) -> Iterator[Left | None]:
    """Send every dead letter (of queues named by URL) back, and delete it after that; yields for each what stays.

    A crash in between leaves a message in both queues, which ingest finds to be one event. Raises `AwsUnavailable`.
    """
    sqs = aws.client("sqs")
    seen: set[str] = set()
    while messages := [message for message in _received(sqs, dead_letters) if message["MessageId"] not in seen]:
        for message in messages:
            seen.add(message["MessageId"])
            yield _send_back(sqs, dead_letters, queue, message)


def _received(sqs: Any, dead_letters: str) -> list[dict[str, Any]]:
    with aws.faults(f"{dead_letters}: receive messages"):
        answer = sqs.receive_message(
            QueueUrl=dead_letters,
            MaxNumberOfMessages=AT_ONCE,
            VisibilityTimeout=VISIBILITY_SECONDS,
            AttributeNames=["SentTimestamp"],
            WaitTimeSeconds=1,  # asks all servers of SQS, so that none is overlooked
            MessageAttributeNames=["All"],
        )
    found: list[dict[str, Any]] = answer.get("Messages", [])
    return found


def _send_back(sqs: Any, dead_letters: str, queue: str, message: dict[str, Any]) -> Left | None:
    queue_name = queue.rpartition("/")[2]
    known = {code: NotTaken("SQS refused it") for code in _OF_MESSAGE}
    name = {
        "DataType": "String",
        "StringValue": f"sqs:{queue_name}:{message['MessageId']}:{message['Attributes']['SentTimestamp']}",
    }
    attributes = {ORIGIN: name} | message.get("MessageAttributes", {})  # of one that was redriven before, the first name
    try:
        with aws.faults(f"{queue}: send a message", known):
            sqs.send_message(QueueUrl=queue, MessageBody=message["Body"], MessageAttributes=attributes)
    except NotTaken as error:
        return Left(message["MessageId"], str(error.__cause__))
    # It is in both queues until the next line; after it in the source alone.
    with aws.faults(f"{dead_letters}: delete a message"):
        sqs.delete_message(QueueUrl=dead_letters, ReceiptHandle=message["ReceiptHandle"])
    return None

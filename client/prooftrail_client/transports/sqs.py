"""SQS: a message per event, ten in a request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prooftrail_client.errors import AuditTransportError
from prooftrail_client.transports import DELIVERED, Result

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

MOST_ENTRIES = 10  # of one request
_POISON = frozenset({"InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong"})
LARGEST = 1_048_576  # bytes of a request, and of a message


class SqsTransport:
    """Sends to the queue at `queue_url`; needs ``prooftrail[sqs]``.

    `client` is a boto3 client for SQS, by default one that boto3 makes of its own settings. `largest` is what the queue
    takes in bytes (MaximumMessageSize), for older queues have less than AWS allows now. Not for FIFO queues.
    """

    def __init__(self, queue_url: str, *, client: SQSClient | None = None, largest: int = LARGEST) -> None:
        self._queue_url = queue_url
        self._client = client or _default_client(queue_url)
        self._largest = self.largest_event = largest

    def send(self, events: Sequence[bytes]) -> Sequence[Result]:
        """See `Transport`. What AWS fails of a request is to be sent again, unless the fault is the sender's."""
        results: list[Result] = []
        try:
            for chunk in self._chunks(events):
                results += self._send_or_halve(chunk)
        except Exception as error:
            if not results:
                raise AuditTransportError(f"{self._queue_url}: {type(error).__name__}: {error}") from error
            results += [Result("retry", str(error))] * (len(events) - len(results))
        return results

    def close(self) -> None:
        """See `Transport`."""
        self._client.close()

    def _chunks(self, events: Sequence[bytes]) -> Iterator[list[bytes]]:
        chunk: list[bytes] = []
        size = 0
        for event in events:
            if chunk and (len(chunk) == MOST_ENTRIES or size + len(event) > self._largest):
                yield chunk
                chunk, size = [], 0
            chunk.append(event)
            size += len(event)
        yield chunk

    def _send_or_halve(self, chunk: list[bytes]) -> list[Result]:
        """Send a request; one that SQS refuses for a message in it is halved until that message stands alone."""
        try:
            return self._send(chunk)
        except Exception as error:
            if getattr(error, "response", {}).get("Error", {}).get("Code", "").rpartition(".")[2] not in _POISON:
                raise
            if len(chunk) == 1:
                return [Result("rejected", str(error))]
        middle = len(chunk) // 2
        return self._send_or_halve(chunk[:middle]) + self._send_or_halve(chunk[middle:])

    def _send(self, chunk: list[bytes]) -> list[Result]:
        if len(chunk[0]) > self._largest:  # alone in its chunk; spooled for a transport that takes more
            return [Result("rejected", f"{len(chunk[0])} bytes, and the queue takes {self._largest}")]
        answer = self._client.send_message_batch(
            QueueUrl=self._queue_url,
            Entries=[{"Id": str(number), "MessageBody": _body(event)} for number, event in enumerate(chunk)],
        )
        results = dict.fromkeys(range(len(chunk)), Result("retry", "AWS did not say what became of it"))
        results |= {int(sent["Id"]): DELIVERED for sent in answer.get("Successful", [])}
        results |= {int(failed["Id"]): _failed(failed) for failed in answer.get("Failed", [])}
        return list(results.values())


def _body(event: bytes) -> str:
    """The event as text; two characters that SQS does not take are written as JSON's escapes, which say the same."""
    return event.decode().replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _failed(failed: Any) -> Result:
    reason = f"{failed['Code']}: {failed.get('Message', '')}"
    # Of the sender's faults only those that lie in the message will never pass; denied access is mended elsewhere.
    poison = failed["SenderFault"] and failed["Code"].rpartition(".")[2] in _POISON
    return Result("rejected" if poison else "retry", reason)


def _default_client(queue_url: str) -> SQSClient:
    import boto3
    from botocore.config import Config

    # The client has its own patience; botocore's retries would only make each attempt longer.
    config = Config(connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1})
    parts = queue_url.split("/")[2].split(".")
    region = parts[1] if parts[0] == "sqs" and len(parts) > 3 else None
    return boto3.client("sqs", region_name=region, config=config)

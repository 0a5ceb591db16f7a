"""Asking a witness for its cosignature: the log's side of C2SP tlog-witness."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple
from urllib.request import Request

from prooftrail import http_client
from prooftrail.errors import ConfigurationError, RetryableError
from prooftrail.http_client import Answer, NoAnswer
from prooftrail.ledger import lines
from prooftrail.ledger.checkpoint import AddCheckpoint, Checkpoint
from prooftrail.ledger.lines import InvalidNote
from prooftrail.ledger.note import COSIGNATURE, Note, SignatureLine, VerifierKey, open_note

PATIENCE = 5.0  # seconds for a witness to cosign, asked twice if need be: a log that waits is not signed
LONGEST_ANSWER = 64 * 1024  # bytes

Prove = Callable[[int], list[bytes]]  # makes the consistency proof from a size to that of the checkpoint


class WitnessFailed(RetryableError):
    """A witness gave no cosignature; the checkpoint is published without it, and the next one asks again."""


class WitnessAbsent(WitnessFailed):
    """A witness did not answer at all."""


class Witness(NamedTuple):
    """A witness as a log knows it: its key, and the URL below which it takes checkpoints."""

    key: VerifierKey
    url: str

    def cosign(self, signed: Note, old_size: int, prove: Prove) -> SignatureLine:
        """Get the cosignature of a log's signed checkpoint, verified.

        `old_size` is what the witness has probably seen last; one that has seen another size says so and is asked again.
        Raises `WitnessFailed`.
        """
        deadline = time.monotonic() + PATIENCE
        try:
            status, answer = self._ask(signed, old_size, prove, deadline)
            if status == HTTPStatus.CONFLICT:
                status, answer = self._ask(signed, self._seen(signed, answer), prove, deadline)
            if status != HTTPStatus.OK:
                raise WitnessFailed(f"witness {self.key.name}: expected a cosignature, got {status}: {answer[:200]!a}")
            return self._verified(signed, answer)
        except InvalidNote as error:
            raise WitnessFailed(f"witness {self.key.name}: expected a cosignature, got something else: {error}") from error
        except NoAnswer as error:
            raise WitnessAbsent(f"witness {self.key.name} does not answer: {error}") from error

    def _ask(self, signed: Note, old_size: int, prove: Prove, deadline: float) -> Answer:
        body = AddCheckpoint(old_size, prove(old_size), signed.encode()).encode()
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        request = Request(f"{self.url}/add-checkpoint", body, headers)  # noqa: S310 - `read` lets only http and https pass
        return http_client.ask(request, seconds=deadline - time.monotonic(), longest=LONGEST_ANSWER)

    def _seen(self, signed: Note, answer: bytes) -> int:
        """The size of the last checkpoint that the witness has seen."""
        seen = lines.decode_number(lines.decode_text(answer).removesuffix("\n"))
        size = Checkpoint.parse(signed.text).size
        if seen > size:
            raise WitnessFailed(
                f"witness {self.key.name} has seen this log at size {seen}, and now it has {size}: entries were lost, "
                "unless another run of ours was quicker"
            )
        return seen

    def _verified(self, signed: Note, answer: bytes) -> SignatureLine:
        """The line of the witness's own key; one of a key that nobody here knows is worth nothing."""
        cosigned = f"{signed.text}\n".encode() + answer
        open_note(cosigned, [self.key])
        place = (self.key.name, self.key.key_id)
        return next(line for line in Note.parse(cosigned).signatures if (line.name, line.key_id) == place)


def read(setting: str) -> list[Witness]:
    """Read the setting WITNESSES: pairs of a verifier key and a URL, with a space between, and commas between pairs.

    Raises `ConfigurationError` for what is not that.
    """
    return [_witness(pair) for pair in setting.split(",") if pair.strip()]


def _witness(pair: str) -> Witness:
    vkey, _, url = pair.strip().partition(" ")
    try:
        key = VerifierKey.parse(vkey)
    except InvalidNote as error:
        raise ConfigurationError(f"WITNESSES: expected <verifier key> <URL>, got {pair.strip()!a}: {error}") from error
    if key.kind != COSIGNATURE or not url.startswith(("https://", "http://")):
        raise ConfigurationError(f"WITNESSES: expected a key of kind 0x04 and a URL of http or https, got {pair.strip()!a}")
    return Witness(key, url.rstrip("/"))

"""A witness: cosigns a checkpoint that continues the one seen before, so that nobody can be shown another history.

It keeps one note for each log, the last one that it cosigned (C2SP tlog-witness), and belongs into hands that are not the
log's. What it says about a log that it does not know, or that forked, is in `Refusal`.
"""

from __future__ import annotations

import base64
import hashlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prooftrail import aws, signing
from prooftrail.errors import ConfigurationError, PermanentError, RetryableError
from prooftrail.ledger import merkle
from prooftrail.ledger.checkpoint import AddCheckpoint, Checkpoint
from prooftrail.ledger.lines import InvalidNote
from prooftrail.ledger.merkle import InvalidProof
from prooftrail.ledger.note import ED25519, Note, SignatureLine, UntrustedNote, VerifierKey, open_note
from prooftrail.signing import SigningKey

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TRIES = 5  # at a log that others bring forward at the same moment
SIZE = "text/x.tlog.size"


class Refusal(PermanentError):
    """The request does not get a cosignature, for the reason that its HTTP status stands for (C2SP tlog-witness)."""

    def __init__(self, status: HTTPStatus, body: str, content_type: str = "text/plain; charset=utf-8") -> None:
        super().__init__(body)
        self.status = status
        self.body = body
        self.content_type = content_type


class TooBusy(RetryableError):
    """Others were quicker at every try."""


class Stored(NamedTuple):
    """A note, and by what its storage tells it from a later one."""

    note: bytes
    version: str


class Storage(Protocol):
    """Where the notes are, by log; what `replace` has said to be stored is durable."""

    def read(self, log: str) -> Stored | None:
        """The note of a log, None where there never was one."""

    def replace(self, log: str, known: Stored | None, note: bytes) -> bool:
        """Put a note in the place of the one that is `known`; false, and nothing happened, where another one is there."""


class KnownLog(NamedTuple):
    """A key that a log may sign with; with `/*` at the end of its name, that of all logs whose names begin so."""

    name: str
    public_key: bytes

    def key_for(self, origin: str) -> VerifierKey | None:
        """The key by which checkpoints of `origin` are known, None where this is not about them."""
        fits = origin.startswith(self.name[:-1]) if self.name.endswith("/*") else origin == self.name
        return VerifierKey(origin, ED25519, self.public_key) if fits else None


def read_logs(setting: str) -> list[KnownLog]:
    """Read the setting LOGS, comma-separated: verifier keys of logs, or ``<beginning>/*+<last part of a verifier key>``.

    The second form is for the logs of all tenants, which have one key. Raises `ConfigurationError` for what is neither.
    """
    return [_known_log(item.strip()) for item in setting.split(",") if item.strip()]


def _known_log(text: str) -> KnownLog:
    name, _, rest = text.partition("+")
    try:
        if not name.endswith("/*"):
            key = VerifierKey.parse(text)
            if key.kind == ED25519:
                return KnownLog(name, key.public_key)
        elif (data := base64.b64decode(rest, validate=True)) and data[0] == ED25519:
            return KnownLog(name, VerifierKey(name, ED25519, data[1:]).public_key)
    except (InvalidNote, ValueError) as error:
        raise ConfigurationError(f"LOGS: expected keys of logs, got {text!a}: {error}") from error
    raise ConfigurationError(f"LOGS: expected Ed25519 keys of logs (kind 0x01), got {text!a}")


class Witness:
    """Cosigns under `name` the checkpoints of the logs that it knows."""

    def __init__(self, name: str, key: SigningKey, logs: list[KnownLog], storage: Storage) -> None:
        self._name = name
        self._key = key
        self._logs = logs
        self._storage = storage

    def latest(self, log: str) -> bytes | None:
        """The last note that was cosigned for a log, which is named by the SHA-256 of its origin, in hex."""
        found = self._storage.read(log)
        return None if found is None else found.note

    def add_checkpoint(self, body: bytes) -> bytes:
        """Answer a request with the line of the cosignature; what it stands for is durable by then.

        Raises `Refusal`, and `TooBusy` or what else is wrong with the storage or the key for now.
        """
        request, checkpoint, note = self._authenticated(body)
        log = hashlib.sha256(checkpoint.origin.encode()).hexdigest()
        for _ in range(TRIES):
            known = self._storage.read(log)
            _check_consistency(request, checkpoint, known)
            line = signing.cosign(note.text, self._name, self._key)
            if self._storage.replace(log, known, Note(note.text, [*note.signatures, line]).encode()):
                # Durable. A crash here, and the log asks again for the size that is now the old one: it is cosigned anew.
                return f"{line.encode()}\n".encode()
        raise TooBusy(f"log {checkpoint.origin}: others were quicker {TRIES} times: try again")

    def _authenticated(self, body: bytes) -> tuple[AddCheckpoint, Checkpoint, Note]:
        """The request, its checkpoint, and the note with those signatures only that are the log's."""
        try:
            request = AddCheckpoint.parse(body)
            note = Note.parse(request.checkpoint_note)
            checkpoint = Checkpoint.parse(note.text)
        except InvalidNote as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"{error}\n") from error
        keys = [key for log in self._logs if (key := log.key_for(checkpoint.origin))]
        if not keys:
            raise Refusal(HTTPStatus.NOT_FOUND, "this witness does not know the log\n")
        try:
            verified = {(key.name, key.key_id) for key, _ in open_note(request.checkpoint_note, keys).verified}
        except UntrustedNote as error:
            raise Refusal(HTTPStatus.FORBIDDEN, f"{error}\n") from error
        if request.old_size > checkpoint.size:
            raise Refusal(HTTPStatus.BAD_REQUEST, f"expected an old size of up to {checkpoint.size}\n")
        return request, checkpoint, Note(note.text, _of(note.signatures, verified))


def _of(signatures: list[SignatureLine], signers: set[tuple[str, bytes]]) -> list[SignatureLine]:
    """The first line of each signer."""
    first = {(line.name, line.key_id): line for line in reversed(signatures)}
    return [line for place, line in reversed(first.items()) if place in signers]


def _check_consistency(request: AddCheckpoint, checkpoint: Checkpoint, known: Stored | None) -> None:
    """The checkpoint must continue the one that was seen last."""
    seen_size, seen_root = 0, merkle.EMPTY_ROOT
    if known is not None:
        seen = Checkpoint.parse(Note.parse(known.note).text)
        seen_size, seen_root = seen.size, seen.root
    if request.old_size != seen_size:
        raise Refusal(HTTPStatus.CONFLICT, f"{seen_size}\n", SIZE)
    try:
        merkle.verify_consistency(seen_size, seen_root, checkpoint.size, checkpoint.root, request.proof)
    except InvalidProof as error:
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{error}\n") from error


class Bucket:
    """Storage in S3: an object for each log, replaced only where it is still the one that was read (conditional writes)."""

    def __init__(self, bucket: str, client: S3Client | None = None) -> None:
        self._bucket = bucket
        self._s3: S3Client = client or aws.client("s3")

    def read(self, log: str) -> Stored | None:
        """The note of a log, None where there never was one."""
        try:
            with aws.faults(f"reading what was seen of log {log}", {"NoSuchKey": _Missing()}):
                found = self._s3.get_object(Bucket=self._bucket, Key=f"{log}/checkpoint")
                return Stored(found["Body"].read(), found["ETag"])
        except _Missing:
            return None

    def replace(self, log: str, known: Stored | None, note: bytes) -> bool:
        """Put a note in the place of the one that is `known`; false, and nothing happened, where another one is there."""
        condition: Any = {"IfNoneMatch": "*"} if known is None else {"IfMatch": known.version}
        codes = dict.fromkeys(("PreconditionFailed", "ConditionalRequestConflict"), _Other())
        try:
            with aws.faults(f"storing what was seen of log {log}", codes):
                self._s3.put_object(
                    Bucket=self._bucket,
                    Key=f"{log}/checkpoint",
                    Body=note,
                    ContentType="text/plain; charset=utf-8",
                    ChecksumAlgorithm="SHA256",
                    **condition,
                )
        except _Other:
            return False
        return True


class _Missing(PermanentError):
    """There is no object under the key."""


class _Other(PermanentError):
    """The object under the key is another one."""

"""Checkpoints: what a log signs, what a witness cosigns, and how it is asked to.

C2SP tlog-checkpoint, tlog-cosignature, tlog-witness.
"""

from __future__ import annotations

from dataclasses import dataclass

from prooftrail.ledger import lines
from prooftrail.ledger.lines import InvalidNote

MOST_HASHES = 63  # of a consistency proof in a request to a witness


@dataclass(frozen=True)
class Checkpoint:
    """How large a log is, and its root (32 bytes): the text that is signed.

    `origin` names the log; extension lines are opaque, and we write none. Raises `InvalidNote` for what no text can hold.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines.check_line(self.origin, "the origin")
        lines.check_number(self.size, "the size")
        lines.check_hashes([self.root], 1)
        for extension in self.extensions:
            lines.check_line(extension, "an extension line")

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a note's text, line by line. Raises `InvalidNote` for all but what `encode` writes."""
        if not text.endswith("\n") or text.count("\n") < 3:
            raise InvalidNote(f"expected a checkpoint of three lines or more, got {text[:80]!a}")
        origin, size, root, *extensions = text.removesuffix("\n").split("\n")
        return cls(origin, lines.decode_number(size), lines.decode_hash(root), tuple(extensions))

    def encode(self) -> str:
        """Write the note's text."""
        return "".join(f"{line}\n" for line in (self.origin, self.size, lines.encode_base64(self.root), *self.extensions))


def cosignature_message(time: int, text: str) -> bytes:
    """What a witness signs: at that time (seconds since 1970), this was the largest checkpoint that it had seen.

    The first line keeps a cosignature from passing for a log's own signature (C2SP tlog-cosignature).
    """
    return f"cosignature/v1\ntime {time}\n{text}".encode()


@dataclass(frozen=True)
class AddCheckpoint:
    """A log's request to a witness: cosign `checkpoint_note`, which `proof` shows to continue the tree of `old_size`.

    The body of ``POST <prefix>/add-checkpoint`` (C2SP tlog-witness). Raises `InvalidNote` for what no body can hold;
    whether the note and the proof are good is for the witness to see.
    """

    old_size: int
    proof: list[bytes]
    checkpoint_note: bytes

    def __post_init__(self) -> None:
        lines.check_number(self.old_size, "the old size")
        lines.check_hashes(self.proof, MOST_HASHES)

    @classmethod
    def parse(cls, body: bytes) -> AddCheckpoint:
        """Read a request's body. Raises `InvalidNote` for all but what `encode` writes."""
        head, blank, note = body.partition(b"\n\n")
        if not blank:
            raise InvalidNote("expected an empty line before the checkpoint, got none")
        old, *hashes = lines.decode_text(head).split("\n")
        return cls(lines.decode_named_number(old, "old"), [lines.decode_hash(line) for line in hashes], note)

    def encode(self) -> bytes:
        """Write the request's body."""
        head = [f"old {self.old_size}\n", *(f"{lines.encode_base64(item)}\n" for item in self.proof), "\n"]
        return "".join(head).encode() + self.checkpoint_note

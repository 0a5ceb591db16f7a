"""The proof in one file that an entry is in a log, to be verified offline (C2SP tlog-proof, ``.tlog-proof``)."""

from __future__ import annotations

from dataclasses import dataclass

from prooftrail.ledger import lines
from prooftrail.ledger.lines import InvalidNote

_FIRST_LINE = "c2sp.org/tlog-proof@v1"
MOST_HASHES = 63  # of an inclusion proof: so high is the tree over 2**63 leaves


@dataclass(frozen=True)
class TlogProof:
    """An entry's index, its inclusion proof from the leaf upwards, and the signed checkpoint to which that leads.

    To believe it, open the note, derive the leaf from the entry, and check the proof against the checkpoint's root. `extra`
    is whatever else is needed to derive the leaf; nobody has signed it. Raises `InvalidNote` for what no file can hold.
    """

    index: int
    hashes: list[bytes]
    checkpoint_note: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        lines.check_number(self.index, "the index")
        lines.check_hashes(self.hashes, MOST_HASHES)
        if self.extra == b"":
            raise InvalidNote("expected extra data or none, got empty data")

    @classmethod
    def parse(cls, data: bytes) -> TlogProof:
        """Read a file. Raises `InvalidNote` for all but what `encode` writes; the note is not opened."""
        head, blank, note = data.partition(b"\n\n")
        first, *rest = lines.decode_text(head).split("\n")
        if first != _FIRST_LINE or not rest or not blank:
            raise InvalidNote(
                f"expected `{_FIRST_LINE}`, further lines, an empty line and a checkpoint, got {first[:80]!a}"
            )
        extra = None
        if rest[0].startswith("extra ") and len(rest) > 1:
            extra = lines.decode_base64(rest.pop(0).removeprefix("extra "))
        index, *hashes = rest
        return cls(lines.decode_named_number(index, "index"), [lines.decode_hash(line) for line in hashes], note, extra)

    def encode(self) -> bytes:
        """Write the file."""
        head = [_FIRST_LINE]
        if self.extra is not None:
            head.append(f"extra {lines.encode_base64(self.extra)}")
        head += [f"index {self.index}", *map(lines.encode_base64, self.hashes)]
        return "\n".join(head).encode() + b"\n\n" + self.checkpoint_note

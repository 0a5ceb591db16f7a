#!/usr/bin/env python3
"""Check a Prooftrail evidence bundle: offline, on any machine, with Python 3.8 or later and nothing else.

    python3 verify.py [BUNDLE.zip, or the folder that it was unpacked into] [--key KEY]...

Believe no program that comes with the evidence it checks: read this one, it was written to be read, or take it from where
you trust it. It shares no code with Prooftrail. What it does, in the order of the code below:

1. Files. manifest.json names every file, with its size and SHA-256.
2. Signatures. `checkpoint` says: this log had so many entries, and this one hash, the root, stands for all of them. The log
   has signed it; witnesses may have. (Ed25519, RFC 8032; C2SP signed-note, tlog-checkpoint and tlog-cosignature)
3. The log. entries.jsonl holds what is public of every entry. Hashed in their order they must give the signed root: so none
   was changed, left out, put in or moved. (RFC 6962 2.1. Of what lies outside the range asked for, `outside` has hashes.)
4. The events. What is not public of an entry is there as hashes of its parts `actor`, `target` and `private` (the rest):
   SHA-256(0x02, 16 random bytes called salt, the value). Who has salt and value can check them; events.jsonl has them.
5. Completeness. Every other entry is shown not to match the filter: by what is public, or because openings.jsonl opens the
   one part that differs. What was erased can no longer be opened; erasures.jsonl shows that the log has a record of it.
6. Proofs. proofs/ has each event's proof alone, for other tools. (C2SP tlog-proof; RFC 9162 2.1.3.2)

Ends with 0 where all of that holds; else with 1 and the reason.
"""

from __future__ import annotations

import argparse
import base64
import bisect
import hashlib
import json
import os
import sys
import time
import zipfile
from typing import Any, Dict, Iterable, Iterator, NamedTuple, NoReturn, Tuple

FORMAT = "prooftrail-evidence-bundle/1"
FILES = {"README.txt", "checkpoint", "entries.jsonl", "events.jsonl", "filter.json", "keys.txt", "manifest.json"}
FILES |= {"openings.jsonl", "summary.html", "verify.py"}  # those that every bundle has
PUBLIC = {"action", "category", "level", "outcome", "site", "source", "target_type"}  # filters that compare what is public
COMMITTED = {"actor": "actor", "target_id": "target"}  # filters that compare a part which must be opened
LARGEST = 64 << 20  # bytes of a file that is read as a whole
Json = Dict[str, Any]


class NotProved(Exception):
    """The bundle does not prove what it claims to; the message says where, and why."""


def fail(reason: str) -> NoReturn:
    raise NotProved(reason)


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def read_json(text: bytes, where: str) -> Json:
    """Read an object in the one form that we write: sorted, no spaces, UTF-8; so it cannot be read in two ways."""
    try:
        value = json.loads(text)
        exact = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        fail(f"{where}: expected JSON, got {text[:60]!r}")
    if not isinstance(value, dict) or exact != text:
        fail(f"{where}: expected a JSON object, sorted and without spaces")
    return value


def read_text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except ValueError:
        fail(f"{where}: expected UTF-8, got {data[:60]!r}")


def read_base64(text: str, where: str, length: int | None = None) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        fail(f"{where}: expected base64, got {text[:60]!r}")
    exact = base64.b64encode(data).decode() == text and length in (None, len(data))
    return data if exact else fail(f"{where}: expected {length or 'some'} bytes in base64, got {text[:60]!r}")


# ------------------------------------------------------------------------------------------------- 1. files


class Bundle:
    """The files of a bundle, in a zip or in a folder."""

    def __init__(self, path: str) -> None:
        self.path, self.zip = path, None if os.path.isdir(path) else zipfile.ZipFile(path)
        listed = [item.filename for item in self.zip.infolist()] if self.zip else list(self.walk())
        self.names = set(listed)
        if len(listed) > len(self.names):
            fail(f"{path}: it has several files of one name")

    def walk(self) -> Iterator[str]:
        for folder, _, files in os.walk(self.path):
            for file in files:
                yield os.path.relpath(os.path.join(folder, file), self.path).replace(os.sep, "/")

    def open(self, name: str) -> Any:
        if name not in self.names:
            fail(f"{name}: this file is missing")
        return self.zip.open(name) if self.zip else open(os.path.join(self.path, name), "rb")

    def read(self, name: str) -> bytes:
        with self.open(name) as file:
            data: bytes = file.read(LARGEST + 1)
        return data if len(data) <= LARGEST else fail(f"{name}: expected at most {LARGEST} bytes")

    def lines(self, name: str) -> Iterator[bytes]:
        with self.open(name) as file:
            for line in file:
                yield line[:-1] if line.endswith(b"\n") else fail(f"{name}: its last line is cut off")


def check_files(bundle: Bundle) -> None:
    """Every file is the one that the manifest names, and there is no other."""
    manifest = read_json(bundle.read("manifest.json"), "manifest.json")
    files = manifest.get("files")
    if manifest.keys() != {"files", "format"} or manifest["format"] != FORMAT or not isinstance(files, dict):
        fail(f"manifest.json: expected the files of a {FORMAT}")
    for name in bundle.names:
        if name not in files and name != "manifest.json":
            fail(f"{name}: this file does not belong here")
    for name, expected in files.items():
        hashed, size = hashlib.sha256(), 0
        with bundle.open(name) as file:
            for chunk in iter(lambda: file.read(1 << 16), b""):
                hashed.update(chunk)
                size += len(chunk)
        if expected != {"sha256": hashed.hexdigest(), "size": size}:
            fail(f"{name}: this file was changed: manifest.json has another size or SHA-256")


# -------------------------------------------------------------------------------------------- 2. signatures

# Ed25519 (RFC 8032 5.1): the points of -x^2 + y^2 = 1 + D x^2 y^2 modulo P; L is the order of the base point. A point is
# kept as (X, Y, Z, T) with x = X/Z, y = Y/Z and x*y = T/Z, so that adding needs no division.
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = Tuple[int, int, int, int]


def add(a: Point, b: Point) -> Point:
    s, t = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    u, v = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = t - s, v - u, v + u, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(scalar: int, point: Point) -> Point:
    result = (0, 1, 1, 0)
    while scalar:
        result = add(result, point) if scalar & 1 else result
        point, scalar = add(point, point), scalar >> 1
    return result


def encode_point(point: Point) -> bytes:
    x, y = (coordinate * pow(point[2], P - 2, P) % P for coordinate in point[:2])
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode_point(data: bytes) -> Point:
    """RFC 8032 5.1.3; raises ValueError where the 32 bytes are no point."""
    y, sign = int.from_bytes(data, "little") & (1 << 255) - 1, data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square or (x == 0 and sign):
        raise ValueError("no point of Ed25519")
    x = x if x & 1 == sign else P - x
    return x, y, 1, x * y % P


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(key: bytes, message: bytes, signature: bytes) -> bool:
    """RFC 8032 5.1.7: with S below L, S*B must be R + k*A."""
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(r + key + message).digest(), "little") % L
    try:
        expected = add(decode_point(r), multiply(k, decode_point(key)))
    except (ValueError, IndexError):
        return False
    return len(signature) == 64 and s < L and encode_point(multiply(s, BASE)) == encode_point(expected)


class Key(NamedTuple):
    """Who may sign: of kind 1 are logs, of kind 4 witnesses."""

    text: str
    name: str
    id: bytes
    kind: int
    public: bytes


def read_key(text: str, where: str) -> Key:
    """``NAME+ID+BASE64(kind, public key)``; the id is made of the rest."""
    name, id, data = [*text.split("+", 2), "", ""][:3]
    blob = read_base64(data, f"{where}: the end of a key", 33)
    if not name or id != sha256(name.encode(), b"\n", blob)[:4].hex() or blob[0] not in (1, 4):
        fail(f"{where}: expected NAME+ID+BASE64, a key of Ed25519, got {text[:80]!r}")
    return Key(text, name, bytes.fromhex(id), blob[0], blob[1:])


class Checkpoint(NamedTuple):
    note: bytes
    origin: str
    size: int
    root: bytes
    signers: list[str]  # sentences
    vouched: bool  # whether the log's key was given from outside of the bundle
    witnessed: bool


def check_checkpoint(bundle: Bundle, given: list[str]) -> Checkpoint:
    """The checkpoint is signed with every key that was given, with every key in keys.txt, and one of them is the log's."""
    note = bundle.read("checkpoint")
    text, _, below = note.partition(b"\n\n")
    origin, size, root = [*read_text(text, "checkpoint").split("\n"), "", "", ""][:3]
    if not (size.isascii() and size.isdigit() and size == str(int(size))) or not below.endswith(b"\n"):
        fail("checkpoint: expected the log's name, its size, its root, an empty line and signatures")
    signatures = dict(read_signature(line) for line in read_text(below, "checkpoint").split("\n")[:-1])
    trusted = [read_key(key, "--key") for key in given]
    enclosed = [read_key(read_text(line, "keys.txt"), "keys.txt") for line in bundle.lines("keys.txt")]
    keys = list(dict.fromkeys(trusted + enclosed))
    logs = [key for key in keys if key.kind == 1 and key.name == origin]
    if not logs:
        fail(f"keys.txt: no key is that of the log {origin}")
    signers = []
    for key in keys:
        when = check_signature(key, text + b"\n", signatures)
        vouched = "you gave this key" if key in trusted else "the key came with the bundle"
        signers.append(f"{key.text}{when} ({vouched})")
    known, witnessed = any(key in trusted for key in logs), any(key.kind == 4 for key in trusted)
    return Checkpoint(note, origin, int(size), read_base64(root, "checkpoint: root", 32), signers, known, witnessed)


def read_signature(line: str) -> tuple[tuple[str, bytes], bytes]:
    """``— NAME BASE64(id of the key, signature)``."""
    dash, name, data = [*line.split(" "), "", ""][:3]
    blob = read_base64(data, "checkpoint: signature")
    if dash != "\u2014" or line != f"{dash} {name} {data}":
        fail(f"checkpoint: expected a signature, got {line[:60]!r}")
    return (name, blob[:4]), blob[4:]


def check_signature(key: Key, text: bytes, signatures: dict[tuple[str, bytes], bytes]) -> str:
    """Of a log over the text; of a witness over its time and the text."""
    blob = signatures.get((key.name, key.id)) or fail(f"checkpoint: it is not signed with the key {key.text}")
    seconds = int.from_bytes(blob[:8], "big")
    message, signature = (text, blob) if key.kind == 1 else (b"cosignature/v1\ntime %d\n%b" % (seconds, text), blob[8:])
    if not is_signed(key.public, message, signature):
        fail(f"checkpoint: the signature with the key {key.text} is wrong")
    return "" if key.kind == 1 else time.strftime(", %Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


# ----------------------------------------------------------------------------------------------- 3. the log


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01", left, right)


class Tree:
    """The Merkle tree over the whole log, from its leaves inside the range and from hashes of branches outside it."""

    def __init__(self, first: int, end: int, leaves: Iterable[bytes], outside: Iterable[bytes]) -> None:
        self.first, self.end, self.leaves, self.outside = first, end, iter(leaves), iter(outside)

    def hash(self, low: int, high: int) -> bytes:
        """The hash over the entries from low to before high (RFC 6962 2.1); asks for its parts from left to right."""
        if high <= self.first or self.end <= low:
            return next(self.outside, b"") or fail("outside: it has too few hashes")
        if high - low == 1:
            return next(self.leaves, b"") or fail(f"entries.jsonl: entry {low} is missing")
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        return node(self.hash(low, middle), self.hash(middle, high))


def check_log(bundle: Bundle, asked: Json, checkpoint: Checkpoint, found: Found) -> None:
    """The entries, in their order, give the root that was signed."""
    first, end, size = asked["range"]["first"], asked["range"]["end"], checkpoint.size
    if not 0 <= first < end <= size:
        fail(f"filter.json: expected a range of the log's {size} entries, got {first} to {end}")
    lines = bundle.lines("outside") if end - first < size else iter(())
    outside = (read_base64(read_text(line, "outside"), "outside", 32) for line in lines)
    tree = Tree(first, end, leaves(bundle, asked, checkpoint, found), outside)
    root = tree.hash(0, size)
    if next(tree.leaves, b"") or next(tree.outside, b""):
        fail(f"entries.jsonl: expected {end - first} entries, and `outside` without superfluous hashes")
    if root != checkpoint.root:
        fail(
            "entries.jsonl: these entries do not give the root that was signed: one was changed, left out, put in or moved "
            f"(signed is {checkpoint.root.hex()}, they give {root.hex()})"
        )


# ------------------------------------------------------------------------ 4. and 5. the events, and no others


class Found(NamedTuple):
    """What comes to light on the way through the entries, by index."""

    events: list[int]
    unknown: list[int]  # erased, so that nobody can tell any more whether they match
    gone: list[int]  # events of which something was erased
    seen: set[int]  # records of erasures that are in the range
    erasures: dict[int, Erasure]  # all records of erasures that are needed


class Erasure(NamedTuple):
    """What a record of an erasure says: which parts of which entries (first to last) were erased."""

    commitment: str
    parts: list[str]
    entries: list[list[int]]

    def names(self, index: int, part: str) -> bool:
        at = bisect.bisect_right(self.entries, [index, 2**64]) - 1
        return part in self.parts and at >= 0 and index <= self.entries[at][1]


def read_erasures(bundle: Bundle) -> dict[int, Erasure]:
    """The records of erasures, by index; that the log has them is checked where their entries are."""
    records = {}
    for line in bundle.lines("erasures.jsonl") if "erasures.jsonl" in bundle.names else []:
        record = read_json(line, "erasures.jsonl")
        try:
            opening = record["private"]
            said = json.loads(opening["value"])["metadata"]
            commitment = committed(opening["salt"], opening["value"])
            records[int(record["index"])] = Erasure(commitment, list(said["parts"]), sorted(map(list, said["entries"])))
        except (KeyError, TypeError, ValueError, RecursionError):
            fail(f"erasures.jsonl: expected records of erasures with salt and value, got {line[:60]!r}")
    return records


def committed(salt: str, value: str) -> str:
    """The commitment to a value, in hex. Raises ValueError where the salt is none."""
    if len(salt) != 32 or salt != bytes.fromhex(salt).hex():
        raise ValueError("expected 16 bytes in hex")
    return sha256(b"\x02", bytes.fromhex(salt), value.encode()).hex()


class Records:
    """Lines about single entries, in the order of the entries: ``{"index":17,...}``."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.name = name
        self.records = (read_json(line, f"{name}: line {n}") for n, line in enumerate(bundle.lines(name), 1))
        self.next = next(self.records, {})

    def about(self, index: int) -> Json:
        """What there is about an entry; empty where there is nothing."""
        if self.next.get("index") != index:
            return {}
        found, self.next = self.next, next(self.records, {})
        return found

    def check_end(self) -> None:
        if self.next:
            fail(f"{self.name}: entry {self.next.get('index')!r} is out of order, there twice, or outside the range")


def read_filter(bundle: Bundle) -> Json:
    """What was asked: columns that must equal or must not, a time (from <= time < to), a range of the log."""
    defaults = {"equal": {}, "from": "", "not": {}, "range": {}, "tenant": "", "to": "~"}  # after "~" comes no time
    given = read_json(bundle.read("filter.json"), "filter.json")
    asked = {**defaults, **given}
    shapes = all(type(asked[name]) is type(value) for name, value in defaults.items())
    if not shapes or asked.keys() != defaults.keys() or asked["range"].keys() != {"first", "end"}:
        fail("filter.json: expected tenant, range, from, to, equal and not")
    columns = [*asked["equal"].items(), *asked["not"].items()]
    known = asked["equal"].keys() <= PUBLIC | COMMITTED.keys() and asked["not"].keys() <= PUBLIC
    typed = {type(value) for _, value in columns} <= {str} and {type(at) for at in asked["range"].values()} == {int}
    if not known or not typed:
        fail("filter.json: it asks for something that this program does not know")
    return asked


def leaves(bundle: Bundle, asked: Json, checkpoint: Checkpoint, found: Found) -> Iterator[bytes]:
    """Judge the entries one by one, and yield their hashes."""
    events, openings = Records(bundle, "events.jsonl"), Records(bundle, "openings.jsonl")
    for index, line in enumerate(bundle.lines("entries.jsonl"), asked["range"]["first"]):
        entry = Entry(index, read_json(line, f"entries.jsonl: entry {index}"))
        event, opening = events.about(index), openings.about(index)
        judge(entry, asked, event, opening, found)
        if event:
            check_proof(bundle, checkpoint, index, line)
        yield sha256(b"\x00", line)
    events.check_end()
    openings.check_end()


class Entry:
    """What is public of an event, and the commitments to its other parts."""

    def __init__(self, index: int, header: Json) -> None:
        self.index: int = index
        self.public: Json = header.get("event", {})
        self.parts: Json = header.get("commitments", {})
        if header.get("version") != 1 or type(self.public) is not dict or type(self.parts) is not dict:
            fail(f"entries.jsonl: entry {index} is of a form that this program does not know")

    def differs(self, asked: Json) -> str:
        """How its public part differs from what was asked; empty where it does not."""
        if self.public.get("tenant") != asked["tenant"]:
            fail(f"entries.jsonl: entry {self.index} is of another tenant, {self.public.get('tenant')!r}")
        if not asked["from"] <= str(self.public.get("time")) < asked["to"]:  # times have one form, which sorts as text
            return f"its time is {self.public.get('time')}"
        wrong = [name for name, value in asked["equal"].items() if name in PUBLIC and self.public.get(name) != value]
        wrong += [name for name, value in asked["not"].items() if self.public.get(name) == value]
        return f"its {wrong[0]} is {self.public.get(wrong[0])!r}" if wrong else ""

    def opened(self, part: str, given: Any, where: str, found: Found) -> str | None:
        """The value of a part, as JSON, checked against the commitment; None where it was erased on record."""
        where = f"{where}: entry {self.index}: its {part}"
        try:
            if given.keys() == {"erased"}:
                explained = found.erasures[given["erased"]].names(self.index, part)
                return None if explained else fail(f"{where} was not erased by the entry that is named")
            if given.keys() != {"salt", "value"} or committed(given["salt"], given["value"]) != self.parts[part]:
                fail(f"{where} is not what the log committed to")
            if part != "private" and given["value"] != as_json(json.loads(given["value"])):
                fail(f"{where} is not in canonical form, so it could be read in two ways")
            return str(given["value"])
        except (AttributeError, KeyError, TypeError, ValueError):
            fail(f"{where} is neither opened, with salt and value, nor erased on record")

    def check_record(self, erasure: Erasure) -> None:
        """Check that it is the log's own record of that erasure."""
        own = self.public.get("source") == "prooftrail" and self.public.get("action") == "privacy.erase"
        if not own or self.parts.get("private") != erasure.commitment:
            fail(f"erasures.jsonl: entry {self.index} does not record that erasure")


def as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def judge(entry: Entry, asked: Json, event: Json, opening: Json, found: Found) -> None:
    """An entry is an event that was asked for, or is shown not to be."""
    index, difference = entry.index, entry.differs(asked)
    needed = {COMMITTED[name]: as_json(value) for name, value in asked["equal"].items() if name in COMMITTED}
    if index in found.erasures:
        entry.check_record(found.erasures[index])
        found.seen.add(index)
    if event and (difference or opening):
        fail(f"events.jsonl: entry {index} was not asked for: {difference or 'openings.jsonl has it too'}")
    if opening and (difference or not needed):
        fail(f"openings.jsonl: entry {index} is opened without need: {difference or 'the filter asks for no such part'}")
    if event:
        check_event(entry, needed, event, found)
    elif opening:
        check_opening(entry, needed, opening, found)
    elif not difference and needed.keys() <= entry.parts.keys():  # who has no actor was not the actor asked for
        fail(f"events.jsonl: entry {index} is left out: nothing shows that it does not match the filter")


def check_event(entry: Entry, needed: dict[str, str], event: Json, found: Found) -> None:
    """All that the event says is there, is what the log committed to, and is what was asked for."""
    if event.keys() - {"index"} != entry.parts.keys():
        fail(f"events.jsonl: entry {entry.index}: expected its parts {', '.join(sorted(entry.parts))} and no other")
    values = {part: entry.opened(part, event[part], "events.jsonl", found) for part in entry.parts}
    for part, value in needed.items():
        if values.get(part) != value:
            fail(f"events.jsonl: entry {entry.index} was not asked for: its {part} is {values.get(part) or 'absent'}")
    found.events.append(entry.index)
    if None in values.values():
        found.gone.append(entry.index)


def check_opening(entry: Entry, needed: dict[str, str], opening: Json, found: Found) -> None:
    """One part that the filter asks for is opened and differs, or it was erased."""
    part, *others = sorted(opening.keys() - {"index"}) or [""]
    if others or part not in needed:
        fail(f"openings.jsonl: entry {entry.index}: expected one part that the filter asks for")
    value = entry.opened(part, opening[part], "openings.jsonl", found)
    if value is None:
        found.unknown.append(entry.index)
    elif value == needed[part]:
        fail(f"events.jsonl: entry {entry.index} is left out: its {part} is {value}, as was asked")


def check_erasures(bundle: Bundle, checkpoint: Checkpoint, found: Found) -> list[int]:
    """Those records of erasures that are outside of the range have a proof each."""
    elsewhere = sorted(found.erasures.keys() - found.seen)
    for index in elsewhere:
        header = read_json(check_proof(bundle, checkpoint, index), f"proofs/{index}.tlog-proof: extra")
        Entry(index, header).check_record(found.erasures[index])
    return elsewhere


# ------------------------------------------------------------------------------------------------ 6. proofs


def check_proof(bundle: Bundle, checkpoint: Checkpoint, index: int, entry: bytes | None = None) -> bytes:
    """The file proves that the entry stands at this index of the log; returns the entry."""
    name = f"proofs/{index}.tlog-proof"
    head, _, note = bundle.read(name).partition(b"\n\n")
    version, extra, place, *hashes = [*read_text(head, name).split("\n"), "", ""]
    if version != "c2sp.org/tlog-proof@v1" or not extra.startswith("extra ") or place != f"index {index}":
        fail(f"{name}: expected a proof of entry {index}")
    proved = read_base64(extra[6:], f"{name}: extra")
    if note != checkpoint.note or entry not in (None, proved):
        fail(f"{name}: it is a proof of another {'log' if note != checkpoint.note else 'entry'}")
    path = [read_base64(line, f"{name}: hash", 32) for line in hashes[:-2]]
    if follow(sha256(b"\x00", proved), index, checkpoint.size, path) != checkpoint.root:
        fail(f"{name}: it does not lead to the root that was signed")
    return proved


def follow(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Go from a leaf up to the root (RFC 9162 2.1.3.2); empty where the path is too long or too short."""
    place, last, hashed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return b""
        if place & 1 or place == last:
            hashed = node(sibling, hashed)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            hashed = node(hashed, sibling)
        place, last = place >> 1, last >> 1
    return hashed if last == 0 else b""


# ------------------------------------------------------------------------------------------------- verdict


def check(path: str, keys: list[str]) -> tuple[Checkpoint, Json, Found]:
    """Check everything; returns what the log is, what was asked, and what was found. Raises NotProved."""
    bundle = Bundle(path)
    check_files(bundle)
    checkpoint = check_checkpoint(bundle, keys)
    asked = read_filter(bundle)
    if not checkpoint.origin.endswith("/" + asked["tenant"]):
        fail(f"checkpoint: the log {checkpoint.origin} is not one of the tenant {asked['tenant']}")
    found = Found([], [], [], set(), read_erasures(bundle))
    check_log(bundle, asked, checkpoint, found)
    expected = FILES | {f"proofs/{index}.tlog-proof" for index in found.events + check_erasures(bundle, checkpoint, found)}
    expected |= {"erasures.jsonl"} if found.erasures else set()
    expected |= {"outside"} if asked["range"] != {"first": 0, "end": checkpoint.size} else set()
    for name in sorted(bundle.names ^ expected):
        fail(f"{name}: this file {'does not belong here' if name in bundle.names else 'is missing'}")
    return checkpoint, asked, found


def report(checkpoint: Checkpoint, asked: Json, found: Found) -> str:
    """What was proved and what was not."""
    first, last = asked["range"]["first"], asked["range"]["end"] - 1
    question = [f"{name} = {value!r}" for name, value in sorted(asked["equal"].items())]
    question += [f"{name} is not {value!r}" for name, value in sorted(asked["not"].items())]
    question += [f"time from {asked['from']}"] if asked["from"] else []
    question += [f"time before {asked['to']}"] if asked["to"] != "~" else []
    lines = [
        "PROVED",
        f"  log       {checkpoint.origin}, {checkpoint.size} entries, root {checkpoint.root.hex()}",
        *(f"  signed    {signer}" for signer in checkpoint.signers),
        f"  question  {', '.join(question) or 'every event'}; among the entries {first} to {last}",
        f"  answer    {len(found.events)} of {last - first + 1} entries are such events, each as the log received it.",
        f"            No other entry is{', but for what was erased' if found.unknown else ''}.",
    ]
    if found.gone:
        lines.append(f"  erased    {len(found.gone)} of these events have lost parts to an erasure, which is on record.")
    if found.unknown:
        some = ", ".join(map(str, found.unknown[:20])) + (", ..." if len(found.unknown) > 20 else "")
        lines.append(
            f"  erased    {len(found.unknown)} entries, on record: whether they matched can no longer be known ({some})."
        )
    lines.append("NOT PROVED, because no log can: that what was sent to it is true, or that everything was sent.")
    if not checkpoint.witnessed:
        lines.append("NOT PROVED: that others were shown this same log. No witness signed whose key you gave.")
    if not checkpoint.vouched:
        lines.append(
            "WARNING: the log's key came with the bundle, and a forger would have put in their own. Get it from the log's"
        )
        lines.append("  operator by another way, and run this again with --key KEY.")
    return "\n".join(map(printable, lines))


def printable(text: str) -> str:
    """A line that is one line, and does nothing to a terminal."""
    encoding = sys.stdout.encoding or "ascii"
    return "".join(c if c.isprintable() else "?" for c in text).encode(encoding, "backslashreplace").decode(encoding)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a Prooftrail evidence bundle, offline.")
    here = os.path.dirname(os.path.abspath(__file__))
    parser.add_argument("bundle", nargs="?", default=here, help="the zip, or the folder that it was unpacked into")
    parser.add_argument("--key", action="append", default=[], help="a key of the log or of a witness, known from elsewhere")
    arguments = parser.parse_args()
    try:
        said, code = report(*check(arguments.bundle, arguments.key)), 0
    except NotProved as reason:
        said, code = printable(f"NOT PROVED: {reason}"), 1
    except Exception as error:  # whatever a forged bundle provokes, it is no proof
        said, code = printable(f"NOT PROVED: the bundle cannot be read: {type(error).__name__}: {error}"), 1
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())

"""The witness: C2SP tlog-witness to the letter by its handler on moto's S3, and over HTTP with our log as its client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import boto3
import pytest

import checkpoint as checkpoint_function
import witness as function
from prooftrail import http_client, signing, witness_client
from prooftrail import witness as module
from prooftrail.aws import AwsUnavailable
from prooftrail.errors import ConfigurationError
from prooftrail.evidence import Evidence
from prooftrail.http_client import NoAnswer
from prooftrail.invocation import Context
from prooftrail.ledger import merkle
from prooftrail.ledger.checkpoint import AddCheckpoint, Checkpoint
from prooftrail.ledger.note import COSIGNATURE, Note, SignatureLine, VerifierKey, open_note
from prooftrail.signing import SecretKey
from prooftrail.witness import Bucket, Refusal, Stored, TooBusy, Witness, read_logs
from tests.conftest import LogDatabase
from tests.hostile_http import ANSWERS, redirect, serving
from tests.integration.conftest import ORIGIN, fresh, seed, signing_secret, verifier_key
from tests.integration.test_checkpoints import SIGNED, Checkpointing, append, latest, leaves
from tests.trees import Signer, Tree, numbered_leaves, signed_checkpoint, signed_note

BUCKET = "witness"
NAME = "witness.example/w1"
LOG = "example.com/log"
TREE = Tree(numbered_leaves(600))
LOG_KEY, NEXT_KEY = Signer(LOG, seed=7), Signer(LOG, seed=8)
TENANTS_KEY = base64.b64encode(b"\1" + SecretKey(seed(1)).public_key).decode()
WITNESS_KEY = VerifierKey(NAME, COSIGNATURE, SecretKey(seed(100)).public_key)


class Answer(NamedTuple):
    status: int
    kind: str
    body: str


Asking = Callable[..., Answer]


@pytest.fixture
def asking(evidence: Evidence, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asking]:
    """Ask the witness through its handler, as API Gateway would."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    monkeypatch.setenv("PROOFTRAIL_WITNESS_BUCKET", BUCKET)
    monkeypatch.setenv("WITNESS_NAME", NAME)
    monkeypatch.setenv("LOGS", f"{LOG_KEY.key}, {NEXT_KEY.key},{ORIGIN}/*+{TENANTS_KEY}")
    key = signing_secret(100)

    def call(method: str, path: str, body: bytes = b"", event: dict[str, Any] | None = None) -> Answer:
        request = event or {"httpMethod": method, "path": path, "body": body.decode("utf-8", "surrogateescape")}
        with pytest.MonkeyPatch.context() as patch:  # the log in the same process signs with another key
            patch.setenv("SIGNING_KEYS", key)
            answer = function.handler(request, Context("witness"))
        return Answer(answer["statusCode"], answer["headers"]["Content-Type"], answer["body"])

    signing.keys.cache_clear()
    with fresh(function):
        yield call
    signing.keys.cache_clear()


def request(old: int, new: int, proof: list[bytes] | None = None, note: bytes | None = None) -> bytes:
    """What an honest log sends, but for what is given."""
    honest = merkle.consistency_proof(old, new, TREE.node) if proof is None else proof
    return AddCheckpoint(old, honest, note or signed_checkpoint(LOG, TREE.leaves[:new], LOG_KEY)).encode()


def add(asking: Asking, *arguments: Any, **parameters: Any) -> Answer:
    return asking("POST", "/add-checkpoint", request(*arguments, **parameters))


def cosigned(answer: Answer, size: int) -> int | None:
    """When the witness says to have seen the checkpoint, verified as the log does it."""
    assert (answer.status, answer.body[0], answer.body[-1]) == (200, "\N{EM DASH}", "\n"), answer
    text = Checkpoint(LOG, size, merkle.root_of(TREE.leaves[:size])).encode()
    ((key, moment),) = open_note(f"{text}\n{answer.body}".encode(), [WITNESS_KEY]).verified
    assert key == WITNESS_KEY
    return moment


def test_a_log_that_only_grows_is_cosigned_at_every_size(asking: Asking) -> None:
    old = 0
    for new in (1, 2, 3, 255, 256, 257, 257, 600):
        assert cosigned(add(asking, old, new), new)
        old = new


def test_what_was_cosigned_is_shown_to_whoever_watches_the_log(asking: Asking) -> None:
    path = f"/{hashlib.sha256(LOG.encode()).hexdigest()}/checkpoint"
    assert asking("GET", path).status == 404
    stranger = Signer("stranger.example", seed=9)
    add(asking, 0, 5, note=signed_checkpoint(LOG, TREE.leaves[:5], stranger, LOG_KEY, LOG_KEY))
    status, kind, body = asking("GET", path)
    assert (status, kind) == (200, "text/plain; charset=utf-8")
    opened = open_note(body.encode(), [LOG_KEY.key, WITNESS_KEY, stranger.key])
    assert Checkpoint.parse(opened.text).size == 5
    # The log's signature and the witness's, and nobody else's.
    assert [line.name for line in Note.parse(body.encode()).signatures] == [LOG, NAME]
    add(asking, 5, 6)
    assert Checkpoint.parse(Note.parse(asking("GET", path).body.encode()).text).size == 6


def forged(size: int) -> bytes:
    """The log's name and key id over a signature that is not its key's."""
    text = Checkpoint(LOG, size, merkle.root_of(TREE.leaves[:size])).encode()
    return Note(text, [SignatureLine(LOG, LOG_KEY.key.key_id, bytes(64))]).encode()


def fork(size: int) -> bytes:
    return signed_note(Checkpoint(LOG, size, bytes(32)).encode(), LOG_KEY)


HASH = bytes(32)
REFUSED = {
    "an unknown log": (404, request(5, 9, note=signed_checkpoint("example.com/other", TREE.leaves[:9], LOG_KEY))),
    "nobody's signature": (403, request(5, 9, note=signed_checkpoint(LOG, TREE.leaves[:9], Signer(LOG, seed=9)))),
    "a false signature": (403, request(5, 9, note=forged(9))),
    "a false signature beside a good one": (
        403,
        request(
            5, 9, note=Note.parse(forged(9)).encode() + NEXT_KEY.sign(Note.parse(forged(9)).text).encode().encode() + b"\n"
        ),
    ),
    "an old size beyond the new one": (400, request(9, 8, proof=[])),
    "another old size": (409, request(4, 9)),
    "no old size": (409, request(0, 9)),
    "no proof": (422, request(5, 9, proof=[])),
    "a proof of something else": (422, request(5, 9, proof=[HASH] * 4)),
    "a proof too long": (422, request(5, 9, proof=[*merkle.consistency_proof(5, 9, TREE.node), HASH])),
    "another root": (422, request(5, 9, note=fork(9))),
    "another root at the same size": (422, request(5, 5, note=fork(5))),
    "a proof for the same size": (422, request(5, 5, proof=[HASH])),
    "no request": (400, b""),
    "no empty line": (400, b"old 5\nexample.com/log\n9\n"),
    "no checkpoint": (400, b"old 5\n\nhello\n"),
    "no old line": (400, request(5, 9).removeprefix(b"old 5\n")),
    "a leading zero": (400, request(5, 9).replace(b"old 5", b"old 05")),
    "a negative old size": (400, request(5, 9).replace(b"old 5", b"old -5")),
    "a proof that is not base64": (400, request(5, 9).replace(b"old 5\n", b"old 5\n!\n")),
    "64 hashes": (400, request(5, 9).replace(b"old 5\n", b"old 5\n" + (base64.b64encode(HASH) + b"\n") * 64)),
    "a hash of 31 bytes": (400, request(5, 9).replace(b"old 5\n", b"old 5\n" + base64.b64encode(HASH[1:]) + b"\n")),
    "a byte that is no UTF-8": (400, request(5, 9).replace(b"example", b"ex\xffmple")),
}


@pytest.mark.parametrize(("status", "body"), REFUSED.values(), ids=REFUSED.keys())
def test_everything_else_is_refused_as_the_protocol_says_and_changes_nothing(
    asking: Asking, status: int, body: bytes
) -> None:
    add(asking, 0, 5)
    encoded = {"httpMethod": "POST", "path": "/add-checkpoint", "body": base64.b64encode(body).decode()}
    answer = asking("POST", "", event=encoded | {"isBase64Encoded": True})
    assert answer.status == status, answer
    assert (answer.kind == "text/x.tlog.size") == (status == 409)
    if status == 409:
        assert answer.body == "5\n"
    assert cosigned(add(asking, 5, 9), 9)


def test_the_empty_log_has_the_empty_root(asking: Asking) -> None:
    assert add(asking, 0, 0, note=fork(0)).status == 422
    assert cosigned(add(asking, 0, 0), 0)
    assert cosigned(add(asking, 0, 3), 3)


def test_a_first_checkpoint_needs_no_proof_and_must_have_none(asking: Asking) -> None:
    assert add(asking, 0, 9, proof=[HASH]).status == 422
    assert cosigned(add(asking, 0, 9), 9)


def test_a_log_may_change_its_key(asking: Asking) -> None:
    for old, new, signers in ((0, 3, [LOG_KEY]), (3, 4, [LOG_KEY, NEXT_KEY]), (4, 5, [NEXT_KEY])):
        assert cosigned(add(asking, old, new, note=signed_checkpoint(LOG, TREE.leaves[:new], *signers)), new)


def test_a_rule_for_the_logs_of_all_tenants_holds_for_names_below_it_only(asking: Asking) -> None:
    def named(origin: str) -> Answer:
        return add(asking, 0, 2, note=signed_checkpoint(origin, TREE.leaves[:2], Signer(origin, seed=1)))

    assert named(f"{ORIGIN}/acme").status == named(f"{ORIGIN}/hooli").status == 200
    assert named(ORIGIN).status == named(f"{ORIGIN}x/acme").status == named(f"evil.{ORIGIN}/acme").status == 404
    assert add(asking, 0, 2, note=signed_checkpoint(f"{ORIGIN}/other", TREE.leaves[:2], LOG_KEY)).status == 403


def test_it_forgets_nothing_when_it_starts_anew(asking: Asking) -> None:
    add(asking, 0, 5)
    function._witness.cache_clear()
    assert add(asking, 0, 5).body == "5\n"
    assert cosigned(add(asking, 5, 9), 9)


def test_the_function_s_own_url_and_a_stage_in_the_path_are_understood(asking: Asking) -> None:
    event = {
        "version": "2.0", "rawPath": "/add-checkpoint", "requestContext": {"http": {"method": "POST"}},
        "body": base64.b64encode(request(0, 3)).decode(), "isBase64Encoded": True,
    }  # fmt: skip
    assert asking("", "", event=event).status == 200
    assert asking("POST", "/witness/add-checkpoint", request(3, 4)).status == 200
    log = hashlib.sha256(LOG.encode()).hexdigest()
    watch = {"version": "2.0", "rawPath": f"/{log}/checkpoint", "requestContext": {"http": {"method": "GET"}}}
    assert asking("", "", event=watch).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/add-checkpoint"), ("POST", "/"), ("GET", f"/{'0' * 63}/checkpoint"), ("PUT", f"/{'0' * 64}/checkpoint")],
)
def test_other_routes_do_not_exist(asking: Asking, method: str, path: str) -> None:
    assert asking(method, path).status == 404


def test_while_its_storage_is_away_it_promises_nothing(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> bool:
        raise AwsUnavailable("storing: slow down")

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "replace", away)
        assert add(asking, 0, 5).status == 503
    assert cosigned(add(asking, 0, 7), 7)


def test_a_fork_is_kept_as_evidence_in_the_log_of_the_function(
    asking: Asking, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    add(asking, 0, 5)
    add(asking, 5, 9, note=fork(9))
    (refused,) = [record for record in caplog.records if record.message == "refused"]
    assert vars(refused)["request"].encode() == request(5, 9, note=fork(9))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["Inconsistent"] == [1.0]


# ------------------------------------------------------------------------------------------------ at once


class Memory:
    """A storage that replaces atomically, as S3 does; moto looks first and writes then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._notes: dict[str, Stored] = {}

    def read(self, log: str) -> Stored | None:
        return self._notes.get(log)

    def replace(self, log: str, known: Stored | None, note: bytes) -> bool:
        with self._lock:
            if self._notes.get(log) != known:
                return False
            self._notes[log] = Stored(note, str(hash(note)))
            return True


def make(storage: module.Storage) -> Witness:
    return Witness(NAME, SecretKey(seed(100)), read_logs(str(LOG_KEY.key)), storage)


def judged(witness: Witness, body: bytes) -> str:
    """The status of the answer, with the size where another one was expected."""
    try:
        witness.add_checkpoint(body)
    except Refusal as refusal:
        return f"{refusal.status} {refusal.body}"
    return "200"


def test_of_requests_at_once_with_the_same_old_size_one_wins_and_the_others_are_told_its_size() -> None:
    witness = make(Memory())
    old = 0
    for first_new in (10, 100, 500):
        news = range(first_new, first_new + 8)
        together = threading.Barrier(8)

        def ask(new: int, old: int = old, together: threading.Barrier = together) -> str:
            together.wait()
            return judged(witness, request(old, new))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, news))
        old = news[answers.index("200")]
        assert sorted(answers) == ["200", *[f"409 {old}\n"] * 7]


@pytest.mark.parametrize("old", [0, 5])
@pytest.mark.parametrize("theirs", [7, 9, 12])
def test_a_request_that_is_overtaken_between_reading_and_writing_is_judged_anew(
    evidence: Evidence, monkeypatch: pytest.MonkeyPatch, old: int, theirs: int
) -> None:
    """On moto's S3, whose If-Match and If-None-Match hold where requests come one after the other."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    bucket = Bucket(BUCKET)
    quicker, overtaken = make(Bucket(BUCKET)), make(bucket)
    if old:
        quicker.add_checkpoint(request(0, old))
    replace = bucket.replace

    def overtake(log: str, known: Stored | None, note: bytes) -> bool:
        judged(quicker, request(old, theirs))
        return replace(log, known, note)

    monkeypatch.setattr(bucket, "replace", overtake)
    assert judged(overtaken, request(old, 9)) == f"409 {theirs}\n"


def test_a_storage_in_which_others_are_always_quicker_is_given_up() -> None:
    class Busy(Memory):
        def replace(self, log: str, known: Stored | None, note: bytes) -> bool:
            return False

    with pytest.raises(TooBusy):
        make(Busy()).add_checkpoint(request(0, 5))


@pytest.mark.parametrize(
    "logs",
    [
        "example.com/log",
        "example.com/log+00000000+" + TENANTS_KEY,
        "example.com/*+AAAA",
        "example.com/*+!",
        str(WITNESS_KEY),
    ],
)
def test_a_setting_that_names_no_log_is_refused(logs: str) -> None:
    with pytest.raises(ConfigurationError, match="LOGS"):
        read_logs(logs)


# ---------------------------------------------------------------------------------- our log and a witness, over HTTP


class Server:
    """The witness behind a real HTTP server; `up` says whether it answers, `asked` how often it was."""

    def __init__(self, asking: Asking) -> None:
        server = self
        self.asked, self.answer = 0, asking

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, kind, text = server.answer("POST", self.path, body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server(asking: Asking) -> Iterator[Server]:
    server = Server(asking)
    yield server
    server.stop()


@pytest.fixture
def witnessed(server: Server, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch) -> Checkpointing:
    monkeypatch.setenv("WITNESSES", f"{WITNESS_KEY} {server.url}/")
    return checkpointing


def witnesses_of(evidence: Evidence, tenant: str) -> list[str]:
    """The names under the last checkpoint, all signatures verified."""
    signed = evidence.latest(tenant)
    assert signed is not None
    return [key.name for key, _ in open_note(signed, [verifier_key(tenant), WITNESS_KEY]).verified]


def test_our_checkpoints_carry_the_witness_s_cosignature(
    database: LogDatabase, evidence: Evidence, witnessed: Checkpointing, server: Server
) -> None:
    for count in (1, 255, 300, 1):
        append(database, "acme", count)
        append(database, "hooli", count)
        assert witnessed() == {"entries": 2 * count, **SIGNED}
        for tenant in ("acme", "hooli"):
            assert witnesses_of(evidence, tenant) == [f"{ORIGIN}/{tenant}", NAME]
    assert latest(evidence, "acme").root == merkle.root_of(leaves(database, "acme"))
    assert server.asked == 8


def test_a_witness_that_was_away_is_missing_and_then_caught_up_with(
    database: LogDatabase,
    evidence: Evidence,
    witnessed: Checkpointing,
    server: Server,
    capsys: pytest.CaptureFixture[str],
) -> None:
    append(database, "acme", 5)
    witnessed()
    answer, server.answer = server.answer, lambda *_: Answer(503, "text/plain", "try again\n")
    append(database, "acme", 5)
    assert witnessed() == {"entries": 5, **SIGNED}
    assert witnesses_of(evidence, "acme") == [f"{ORIGIN}/acme"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["WitnessFailed"] == [1.0]
    server.answer = answer
    append(database, "acme", 5)
    assert witnessed() == {"entries": 5, **SIGNED}
    assert witnesses_of(evidence, "acme") == [f"{ORIGIN}/acme", NAME]


def test_a_witness_that_does_not_answer_costs_one_wait_and_not_one_for_each_log(
    database: LogDatabase, evidence: Evidence, checkpointing: Checkpointing, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def nobody(request: Any, **_: Any) -> None:
        asked.append(request.full_url)
        raise NoAnswer("timed out")

    monkeypatch.setattr(http_client, "ask", nobody)
    monkeypatch.setattr(checkpoint_function, "LOGS_AT_ONCE", 1)
    monkeypatch.setenv("WITNESSES", f"{WITNESS_KEY} https://witness.example/api")
    for tenant in ("acme", "hooli", "initech"):
        append(database, tenant, 1)
    assert checkpointing() == {"entries": 3, **SIGNED}
    assert asked == ["https://witness.example/api/add-checkpoint"]
    assert witnesses_of(evidence, "initech") == [f"{ORIGIN}/initech"]


def unwitnessed(evidence: Evidence, checkpointing: Checkpointing, capsys: pytest.CaptureFixture[str]) -> None:
    """A log is signed in time though no witness cosigned, which is counted."""
    capsys.readouterr()
    began = time.monotonic()
    assert checkpointing() == {"entries": 5, **SIGNED}
    assert time.monotonic() - began < witness_client.PATIENCE + 2
    assert witnesses_of(evidence, "acme") == [f"{ORIGIN}/acme"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["WitnessFailed"] == [1.0]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_whatever_a_witness_answers_and_however_slowly_the_checkpoint_is_published_without_it(
    *,
    database: LogDatabase,
    evidence: Evidence,
    checkpointing: Checkpointing,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: Callable[[], Iterable[bytes]],
) -> None:
    monkeypatch.setattr(witness_client, "PATIENCE", 0.5)
    append(database, "acme", 5)
    with serving(answer) as place:
        monkeypatch.setenv("WITNESSES", f"{WITNESS_KEY} http://{place}")
        unwitnessed(evidence, checkpointing, capsys)


def test_a_witness_that_sends_us_to_another_place_is_not_followed(
    *,
    database: LogDatabase,
    evidence: Evidence,
    witnessed: Checkpointing,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    append(database, "acme", 5)
    with serving(redirect(f"{server.url}/add-checkpoint")) as place:
        monkeypatch.setenv("WITNESSES", f"{WITNESS_KEY} http://{place}")
        unwitnessed(evidence, witnessed, capsys)
    assert server.asked == 0


def test_what_nobody_thought_of_in_one_witness_s_answer_takes_no_other_one_s_line_away(
    database: LogDatabase,
    evidence: Evidence,
    witnessed: Checkpointing,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cosign = witness_client.Witness.cosign

    def cosign_or_fail(witness: witness_client.Witness, *arguments: Any) -> SignatureLine:
        if witness.key.name == "other.example":
            raise RuntimeError("a fault of ours")
        return cosign(witness, *arguments)

    monkeypatch.setattr(witness_client.Witness, "cosign", cosign_or_fail)
    other = Signer("other.example", COSIGNATURE, seed=5).key
    monkeypatch.setenv("WITNESSES", f"{other} http://127.0.0.1:1,{os.environ['WITNESSES']}")
    append(database, "acme", 5)
    assert witnessed() == {"entries": 5, **SIGNED}
    assert witnesses_of(evidence, "acme") == [f"{ORIGIN}/acme", NAME]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["WitnessFailed"] == [1.0]


FALSE_ANSWERS = {
    "another witness's line": lambda: Signer("other.example", COSIGNATURE, seed=5).sign("x\n").encode() + "\n",
    "a false line": lambda: SignatureLine(NAME, WITNESS_KEY.key_id, bytes(72)).encode() + "\n",
    "no line": lambda: "hello\n",
    "nothing": lambda: "",
}


@pytest.mark.parametrize("text", FALSE_ANSWERS.values(), ids=FALSE_ANSWERS.keys())
def test_what_is_not_the_witness_s_cosignature_does_not_get_into_a_checkpoint(
    database: LogDatabase, evidence: Evidence, witnessed: Checkpointing, server: Server, text: Callable[[], str]
) -> None:
    server.answer = lambda *_: Answer(200, "text/plain", text())
    append(database, "acme", 5)
    assert witnessed() == {"entries": 5, **SIGNED}
    assert server.asked == 1
    assert witnesses_of(evidence, "acme") == [f"{ORIGIN}/acme"]


@pytest.mark.parametrize("seen", ["7\n", "0\n", "99999999999999999999\n", "x", ""])
def test_a_witness_that_has_seen_another_size_is_asked_once_more_and_no_more(
    database: LogDatabase, evidence: Evidence, witnessed: Checkpointing, server: Server, seen: str
) -> None:
    """Above the log's own size it says that entries were lost, or lies: that is told, and blocks nothing."""
    server.answer = lambda *_: Answer(409, "text/x.tlog.size", seen)
    append(database, "acme", 5)
    assert witnessed() == {"entries": 5, **SIGNED}
    assert server.asked == (2 if seen == "0\n" else 1)
    assert witnesses_of(evidence, "acme") == [f"{ORIGIN}/acme"]

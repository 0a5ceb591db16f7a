"""AuditClient: nobody who logs waits or fails because the service cannot be reached; everything arrives in the end."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from prooftrail_client import (
    AuditClient,
    AuditError,
    AuditStorageError,
    AuditTransportError,
    AuditValidationError,
    Redaction,
    Result,
)
from tests.client.conftest import Recorder, event
from tests.conftest import PROJECT


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prooftrail_client.client.FIRST_PAUSE", 0.01)
    monkeypatch.setattr("prooftrail_client.client.LONGEST_PAUSE", 0.02)


@pytest.fixture(params=["spool", "memory"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "spool" if request.param == "spool" else None


@pytest.fixture
def client(recorder: Recorder, spool: Path | None) -> Iterator[AuditClient]:
    with AuditClient(recorder, spool=spool, interval=60, batch_events=10) as client:
        yield client


def test_a_batch_is_sent_when_it_is_full_and_the_rest_when_somebody_asks(recorder: Recorder, client: AuditClient) -> None:
    events = [event() for _ in range(25)]
    for each in events:
        client.log(each)
    assert client.flush(30)
    assert recorder.ids == [each.id for each in events]
    assert all(len(batch) <= 10 for batch in recorder.batches)
    assert (client.stats.delivered, client.stats.waiting) == (25, 0)


def test_an_event_alone_is_sent_after_the_interval(recorder: Recorder, spool: Path | None) -> None:
    with AuditClient(recorder, spool=spool, interval=0.01) as client:
        client.log(event())
        assert recorder.attempted.wait(30)


def test_a_batch_has_only_so_many_bytes(recorder: Recorder, spool: Path | None) -> None:
    with AuditClient(recorder, spool=spool, interval=60, batch_bytes=1000) as client:
        for text in ("x" * 2000, "y" * 400, "z" * 400):
            client.log(event(message=text))
        client.flush(30)
    assert [len(batch) for batch in recorder.batches] == [1, 1, 1]


def test_while_nobody_answers_logging_goes_on_and_all_arrives_afterwards(recorder: Recorder, client: AuditClient) -> None:
    recorder.down = True
    events = [event() for _ in range(100)]
    for each in events:
        client.log(each)
    assert recorder.attempted.wait(30)
    assert not client.flush(0.05)
    recorder.down = False
    assert client.flush(30)
    assert recorder.ids == [each.id for each in events]
    assert client.stats.retries >= 1


def test_in_an_outage_what_is_logged_meanwhile_is_on_the_disk_by_the_next_attempt(
    recorder: Recorder, tmp_path: Path
) -> None:
    recorder.down = True
    with AuditClient(recorder, spool=tmp_path, interval=0) as client:
        client.log(event())
        assert recorder.attempted.wait(30)
        synced = threading.Event()
        with mock.patch("prooftrail_client.spool._datasync", side_effect=lambda _file: synced.set()):
            client.log(event())
            assert synced.wait(30)
        recorder.down = False


def test_only_those_events_of_a_batch_are_sent_again_that_failed(recorder: Recorder, client: AuditClient) -> None:
    failing = {"b", "d"}

    def answer(given: dict[str, Any]) -> Result:
        if given["message"] in failing:
            failing.discard(given["message"])
            return Result("retry", "throttled")
        return Result("delivered")

    recorder.answer = answer
    for text in "abcde":
        client.log(event(message=text))
    assert client.flush(30)
    assert [[json.loads(each)["message"] for each in batch] for batch in recorder.batches] == [list("abcde"), ["b", "d"]]
    assert client.stats.delivered == 5


def test_an_event_that_is_never_taken_is_put_aside_and_the_others_pass(recorder: Recorder, spool: Path | None) -> None:
    told: list[tuple[bytes, str]] = []
    recorder.answer = lambda given: Result("rejected", "no") if given["message"] == "bad" else Result("delivered")
    with AuditClient(recorder, spool=spool, on_rejected=lambda given, why: told.append((given, why))) as client:
        for text in ("good", "bad", "good"):
            client.log(event(message=text))
        assert client.flush(30)
        assert (client.stats.delivered, client.stats.rejected, client.stats.waiting) == (2, 1, 0)
    assert [(json.loads(given)["message"], why) for given, why in told] == [("bad", "no")]
    if spool:
        (line,) = (spool / "rejected.jsonl").read_text().splitlines()
        assert json.loads(line)["event"]["message"] == "bad"
        assert json.loads(line)["reason"] == "no"


def test_a_fault_of_a_transport_or_a_callback_does_not_stop_the_sending(recorder: Recorder) -> None:
    errors: list[AuditError] = []

    def tell(error: AuditError) -> None:
        errors.append(error)
        raise RuntimeError("a callback's own")

    sending = mock.patch.object(recorder, "send", side_effect=[ZeroDivisionError("oops"), [Result("delivered")]])
    with sending, AuditClient(recorder, on_error=tell) as client:
        client.log(event())
        assert client.flush(30)
    assert [type(error) for error in errors] == [AuditTransportError]
    assert "ZeroDivisionError: oops" in str(errors[0])


def test_a_transport_that_does_not_account_for_each_event_has_settled_none(recorder: Recorder) -> None:
    sending = mock.patch.object(recorder, "send", side_effect=[[], [Result("delivered")]])
    with sending as send, AuditClient(recorder) as client:
        client.log(event())
        assert client.flush(30)
    assert send.call_count == 2


def test_a_disk_that_fails_where_rejected_events_go_stops_nothing(recorder: Recorder, tmp_path: Path) -> None:
    recorder.answer = lambda _event: Result("rejected", "no")
    (tmp_path / "rejected.jsonl").mkdir()  # so that it cannot be written
    failed = threading.Event()
    with AuditClient(recorder, spool=tmp_path, on_error=lambda _error: failed.set()) as client:
        client.log(event())
        assert not client.flush(0.1)
        assert failed.wait(30)
        (tmp_path / "rejected.jsonl").rmdir()
        assert client.flush(30)
    assert (tmp_path / "rejected.jsonl").read_text().count("\n") == 1


def test_an_event_that_is_queued_but_not_surely_on_the_disk_is_not_counted_as_dropped(
    recorder: Recorder, tmp_path: Path
) -> None:
    with AuditClient(recorder, spool=tmp_path, durability="disk", when_full="drop") as client:
        failing = mock.patch("prooftrail_client.spool._datasync", side_effect=OSError(5, "Input/output error"))
        with failing, pytest.raises(AuditStorageError, match="not known to be on the disk"):
            client.log(event())
        client.log(event())
        assert client.flush(30)
        assert client.stats.dropped == 0
    assert [each["sequence"] for each in recorder.events] == [1, 2]


def test_the_transport_says_how_long_to_wait(recorder: Recorder) -> None:
    failure = AuditTransportError("slow down", retry_after=0.5)
    sending = mock.patch.object(recorder, "send", side_effect=[failure, [Result("delivered")]])
    with sending, AuditClient(recorder) as client, mock.patch.object(client, "_pause", return_value=True) as pause:
        client.log(event())
        assert client.flush(30)
    assert pause.call_args_list == [mock.call(0.5)]


def test_events_get_the_clients_tenant_and_source_and_their_numbers(recorder: Recorder, tmp_path: Path) -> None:
    for _ in range(2):
        with AuditClient(recorder, tenant="acme", source="a", spool=tmp_path) as client:
            client.log(event(tenant=None, source=None))
            client.log(event(tenant="other"))
            client.log(event(tenant=None, source=None))
    assert [(each["tenant"], each["source"], each["sequence"]) for each in recorder.events] == [
        ("acme", "a", 1),
        ("other", "clinic/records", 1),
        ("acme", "a", 2),
        ("acme", "a", 3),
        ("other", "clinic/records", 2),
        ("acme", "a", 4),
    ]


def test_an_event_that_is_numbered_already_is_refused_unless_the_client_does_not_number(
    recorder: Recorder, tmp_path: Path
) -> None:
    with AuditClient(recorder, spool=tmp_path) as client, pytest.raises(AuditValidationError, match="sequence"):
        client.log(event(sequence=5))
    with AuditClient(recorder, spool=tmp_path, numbered=False) as client:
        client.log(event(sequence=5))
        client.log(event())
    assert [each.get("sequence") for each in recorder.events] == [5, None]


def test_what_is_invalid_raises_at_once_and_uses_up_no_number(recorder: Recorder, tmp_path: Path) -> None:
    with pytest.raises(AuditValidationError, match="tenant"):
        AuditClient(recorder, tenant="no spaces")
    with AuditClient(recorder, spool=tmp_path) as client:
        for wrong in (event(source=None), event(after=object()), event(message="x" * 1_000_000)):
            with pytest.raises(AuditValidationError):
                client.log(wrong)
        client.log(event())
    assert [each["sequence"] for each in recorder.events] == [1]


def test_secrets_reach_neither_the_disk_nor_the_transport(recorder: Recorder, tmp_path: Path) -> None:
    recorder.down = True
    client = AuditClient(recorder, spool=tmp_path, redaction=Redaction(patterns=["hunter\\d"]))
    client.log(event(after={"password": "hidden"}, message="it is hunter2"))
    client.close(timeout=0)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"patient.read" in on_disk
    assert b"hidden" not in on_disk
    assert b"hunter2" not in on_disk


def full_client(recorder: Recorder, spool: Path | None, when_full: Any) -> AuditClient:
    """One whose queue is full, its transport being down."""
    recorder.down = True
    client = AuditClient(recorder, spool=spool, spool_bytes=2000, memory_events=5, when_full=when_full)
    filled = threading.Thread(target=_fill, args=(client,))
    filled.start()
    filled.join(5 if when_full != "block" else 0.5)
    return client


def _fill(client: AuditClient) -> None:
    try:
        for _ in range(20):
            client.log(event())
    except AuditStorageError:
        pass


def test_a_full_queue_raises_and_has_room_again_once_events_are_sent(recorder: Recorder, spool: Path | None) -> None:
    client = full_client(recorder, spool, "raise")
    with pytest.raises(AuditStorageError, match="the transport fails, or is too slow"):
        client.log(event())
    recorder.down = False
    assert client.flush(30)
    client.log(event())
    client.close()
    assert client.stats.dropped == 0


def test_a_full_queue_drops_counts_and_leaves_a_gap_in_the_numbers(recorder: Recorder, tmp_path: Path) -> None:
    client = full_client(recorder, tmp_path, "drop")
    kept = client.stats.waiting
    assert client.stats.dropped == 20 - kept > 0
    recorder.down = False
    client.flush(30)
    client.log(event())
    client.close()
    assert [each["sequence"] for each in recorder.events] == [*range(1, kept + 1), 21]


def test_a_full_queue_blocks_until_there_is_room(recorder: Recorder, spool: Path | None) -> None:
    client = full_client(recorder, spool, "block")
    assert 0 < client.stats.waiting < 20
    recorder.down = False
    while client.stats.delivered < 20:
        client.flush(30)
    client.close()
    assert len(set(recorder.ids)) == 20


def test_closing_ends_the_waiting_of_those_who_are_blocked(recorder: Recorder) -> None:
    recorder.down = True
    client = AuditClient(recorder, memory_events=1, when_full="block")
    client.log(event())
    failures: list[Exception] = []

    def blocked() -> None:
        try:
            client.log(event())
        except AuditStorageError as error:
            failures.append(error)

    thread = threading.Thread(target=blocked)
    thread.start()
    client.close(timeout=0)
    thread.join(30)
    assert len(failures) == 1


def test_what_is_left_when_a_client_is_closed_waits_for_the_next_one(
    recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.down = True
    client = AuditClient(recorder, spool=tmp_path)
    client.log(event(message="left"))
    client.close(timeout=0.05)
    client.close()
    assert "1 events wait in" in caplog.text
    assert recorder.closed
    with pytest.raises(AuditStorageError, match="closed"):
        client.log(event())
    recorder.down = False
    with AuditClient(recorder, spool=tmp_path) as client:
        assert client.flush(30)
    assert [each["message"] for each in recorder.events] == ["left"]


def test_without_a_spool_what_is_left_is_lost_and_that_is_said(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.down = True
    client = AuditClient(recorder)
    client.log(event())
    client.close(timeout=0)
    assert "1 events were not delivered, and are lost" in caplog.text


def test_an_outage_is_told_of_once_and_its_end_too(
    recorder: Recorder, client: AuditClient, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.down = True
    client.log(event())
    while client.stats.retries < 5:
        client.flush(0.02)
    recorder.down = False
    client.flush(30)
    client.close()  # so that what it tells is told
    with caplog.at_level(logging.WARNING):
        told = [record.getMessage() for record in caplog.records if record.name == "prooftrail_client"]
    assert told == ["events cannot be sent and wait: nobody answers", "events are sent again"]


RUN = """
import os, sys
from pathlib import Path
from prooftrail_client import *
client = AuditClient(JsonlTransport(sys.argv[1] + "/out.jsonl"), tenant="acme", source="s", spool=sys.argv[1] + "/spool")
"""


def run(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "client")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN + code, str(directory)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_program_that_forgets_to_close_delivers_at_its_end(tmp_path: Path) -> None:
    done = run("[client.log(AuditEvent.of('a')) for _ in range(3)]", tmp_path)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 3


def test_a_forked_process_is_told_to_make_its_own_client_and_does_the_parents_no_harm(tmp_path: Path) -> None:
    code = """
child = os.fork()
if not child:
    try:
        client.log(AuditEvent.of("child"))
    except AuditStorageError as error:
        os.write(1, str(error).encode())
    client.close()
    assert not client.flush(0)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
client.log(AuditEvent.of("parent"))
client.close()
AuditClient(JsonlTransport(sys.argv[1] + "/other"), spool=sys.argv[1] + "/spool").close()
"""
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "make one after the fork" in done.stdout
    assert [json.loads(line)["action"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == ["parent"]


UV = shutil.which("uv") or str(PROJECT / ".local" / "uv" / "bin" / "uv")


@pytest.mark.skipif(not Path(UV).exists(), reason="uv is not there: `make environment` brings it")
def test_it_installs_by_itself_and_needs_nothing_but_python(tmp_path: Path) -> None:
    install = [
        UV,
        "pip",
        "install",
        "--quiet",
        "--python",
        sys.executable,
        "--target",
        str(tmp_path),
        str(PROJECT / "client"),
    ]
    subprocess.run(install, check=True)
    code = f"""
import sys; sys.path.insert(0, {str(tmp_path)!r})
import prooftrail_client
from importlib.metadata import distribution
assert prooftrail_client.__file__.startswith({str(tmp_path)!r})
assert all("extra ==" in each for each in distribution("prooftrail").requires)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "prooftrail_client" / "py.typed").exists()

"""The spool: what was appended comes back, whatever happens to the end of its files."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prooftrail_client import AuditStorageError
from prooftrail_client.queues import QueueFull, Record
from prooftrail_client.spool import Spool, SpoolLocked

KEY = ("acme", "clinic/records")


def head(text: str) -> bytes:
    return json.dumps({"tenant": KEY[0], "source": KEY[1], "message": text}).encode()[:-1]


def append(spool: Spool, *texts: str) -> None:
    for text in texts:
        spool.append(KEY, head(text), True)


def read(spool: Spool) -> list[tuple[str, int]]:
    return contents(spool.read(10_000, 2**30))


def contents(records: list[Record]) -> list[tuple[str, int]]:
    return [(event["message"], event["sequence"]) for event in (json.loads(record.payload) for record in records)]


def read_all(spool: Spool) -> list[tuple[str, int]]:
    """Read and acknowledge until nothing is left."""
    found: list[tuple[str, int]] = []
    while records := spool.read(3, 2**30):
        found += contents(records)  # not read again: more may stand there by now
        spool.acknowledge(records[-1])
    return found


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.segment"))


def test_another_process_reads_what_was_not_acknowledged_and_goes_on_counting(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    append(spool, "a", "b", "c")
    spool.acknowledge(spool.read(1, 2**30)[0])
    spool.close()

    spool = Spool(tmp_path)
    append(spool, "d")

    assert read(spool) == [("b", 2), ("c", 3), ("d", 4)]
    spool.close()


def test_acknowledged_segments_are_removed_and_numbers_survive_them(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=300)
    append(spool, *map(str, range(20)))
    assert len(segments(tmp_path)) > 3
    assert read_all(spool) == [(str(number), number + 1) for number in range(20)]
    assert len(segments(tmp_path)) == 1
    spool.close()

    spool = Spool(tmp_path)
    assert read(spool) == []
    append(spool, "next")
    assert read(spool) == [("next", 21)]
    spool.close()


def test_each_tenant_and_source_has_numbers_of_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for key in (KEY, ("acme", "other"), KEY):
        spool.append(key, json.dumps({"tenant": key[0], "source": key[1], "message": ""}).encode()[:-1], True)
    assert [number for _, number in read(spool)] == [1, 1, 2]
    spool.close()


def test_a_number_that_is_skipped_is_missing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    append(spool, "a")
    spool.skip_number(KEY)
    append(spool, "c")
    assert read(spool) == [("a", 1), ("c", 3)]
    spool.close()


def test_one_process_has_a_spool_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    with pytest.raises(SpoolLocked, match="a directory of its own"):
        Spool(tmp_path)
    spool.close()
    Spool(tmp_path).close()


@given(texts=st.lists(st.text(alphabet="ab\n\x00é", max_size=40), max_size=12), data=st.data())
def test_whatever_happens_to_the_tail_no_earlier_event_is_lost_and_none_is_invented(
    texts: list[str], data: st.DataObject
) -> None:
    with TemporaryDirectory() as name:
        spool = Spool(Path(name))
        begin = segments(Path(name))[0].stat().st_size
        ends = [begin]
        for text in texts:
            append(spool, text)
            ends.append(segments(Path(name))[0].stat().st_size)
        spool.close()
        content = segments(Path(name))[0].read_bytes()
        cut = data.draw(st.integers(begin, len(content)), "everything is as it was up to here")
        rest = data.draw(
            st.one_of(
                st.binary(max_size=80),  # another end, an empty one among them
                st.integers(0, 200).map(bytes),  # pages that were allocated and not written
                st.just(content[begin:]),  # frames of another place
                st.integers(1, 255).map(
                    lambda flip: bytes(byte ^ flip for byte in content[cut : cut + 1]) + content[cut + 1 :]
                ),
            ),
            "what follows",
        )
        segments(Path(name))[0].write_bytes(content[:cut] + rest)
        whole = sum(end <= cut for end in ends[1:])

        spool = Spool(Path(name))
        append(spool, "appended afterwards")
        found = read(spool)
        spool.close()

        assert found[:whole] == [(text, number) for number, text in enumerate(texts[:whole], 1)]
        assert [number for _, number in found] == list(range(1, len(found) + 1))
        assert found[-1][0] == "appended afterwards"
        # Where the rest happens to be as it was, later events are there too; but only events that once were.
        assert [text for text, _ in found[:-1]] == texts[: len(found) - 1]


def test_a_torn_tail_is_cut_off_kept_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path)
    append(spool, "a", "b")
    spool.close()
    (segment,) = segments(tmp_path)
    content = segment.read_bytes()
    segment.write_bytes(content[:-3])

    spool = Spool(tmp_path)

    assert read(spool) == [("a", 1)]
    assert segment.with_suffix(".torn").read_bytes() == content[-len(segment.with_suffix(".torn").read_bytes()) - 3 : -3]
    assert "no whole event" in caplog.text
    spool.close()


def test_damage_before_the_last_segment_is_counted_kept_and_passed(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=300)
    append(spool, *map(str, range(12)))
    spool.close()
    first, second = segments(tmp_path)[:2]
    lost = int(second.stem) - 1  # all but the first event of the first segment
    content = bytearray(first.read_bytes())
    content[content.index(b'"message": "1"')] ^= 1
    first.write_bytes(content)

    spool = Spool(tmp_path)

    assert [text for text, _ in read_all(spool)] == ["0", *map(str, range(1 + lost, 12))]
    assert spool.damaged == lost > 0
    assert first.with_suffix(".damaged").exists()
    spool.close()


def test_a_damaged_head_is_refused_since_numbers_would_come_twice(tmp_path: Path) -> None:
    Spool(tmp_path).close()
    segments(tmp_path)[0].write_bytes(b"\0" * 100)
    with pytest.raises(AuditStorageError, match="sound head"):
        Spool(tmp_path)


def test_what_could_not_be_opened_can_be_once_it_is_mended(tmp_path: Path) -> None:
    Spool(tmp_path).close()
    (segment,) = segments(tmp_path)
    sound = segment.read_bytes()
    segment.write_bytes(bytes(100))
    with pytest.raises(AuditStorageError, match="sound head"):
        Spool(tmp_path)
    segment.write_bytes(sound)
    (tmp_path / "acknowledged").unlink()
    (tmp_path / "acknowledged").mkdir()
    with pytest.raises(AuditStorageError, match="acknowledged"):
        Spool(tmp_path)
    (tmp_path / "acknowledged").rmdir()
    Spool(tmp_path).close()


def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.close()
    spool.close()


def test_a_position_that_an_older_version_wrote_is_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    append(spool, "a", "b")
    spool.close()
    (tmp_path / "acknowledged").write_bytes(b"1 %08x" % crc32(b"1"))

    spool = Spool(tmp_path)
    assert read(spool) == [("b", 2)]
    spool.acknowledge(spool.read(1, 2**30)[0])
    spool.close()
    spool = Spool(tmp_path)
    assert read(spool) == []
    spool.close()


def test_an_unreadable_position_sends_again_rather_than_not_at_all(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    append(spool, "a", "b")
    spool.acknowledge(spool.read(1, 2**30)[0])
    spool.close()
    (tmp_path / "acknowledged").write_bytes(b"2 00000000")

    spool = Spool(tmp_path)
    assert read(spool) == [("a", 1), ("b", 2)]
    spool.close()


def test_events_in_the_places_of_lost_ones_are_not_taken_for_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    append(spool, "a", "b", "c")
    read_all(spool)
    spool.close()
    (segment,) = segments(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-150])
    spool = Spool(tmp_path)
    append(spool, "new")
    spool.abandon()  # as a crash would

    spool = Spool(tmp_path)
    assert [text for text, _ in read(spool)] == ["new"]
    spool.close()


@pytest.mark.parametrize("written", [0, 5])
def test_a_full_disk_raises_leaves_no_half_event_and_uses_up_no_number(tmp_path: Path, written: int) -> None:
    spool = Spool(tmp_path)
    append(spool, "a")
    write = os.write

    def full(file: int, data: bytes) -> int:
        if not written:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[:written])

    with mock.patch("os.write", full), pytest.raises(AuditStorageError, match="not logged"):
        append(spool, "lost")
    append(spool, "b")
    assert read(spool) == [("a", 1), ("b", 2)]
    spool.close()


def test_what_may_wait_is_bounded_and_there_is_room_again_after_acknowledging(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=1000, segment_bytes=300)
    with pytest.raises(QueueFull, match="1000 bytes are allowed"):
        append(spool, *map(str, range(100)))
    assert sum(path.stat().st_size for path in segments(tmp_path)) < 1000 + 300 + 100
    count = len(read_all(spool))
    append(spool, "again")
    assert read(spool) == [("again", count + 1)]
    spool.close()


def test_a_new_segment_that_cannot_be_made_lets_the_old_one_go_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=300)
    append(spool, *"abc")
    broken = mock.patch("prooftrail_client.spool._sync_directory", side_effect=OSError(errno.EIO, "Input/output error"))
    with broken, pytest.raises(AuditStorageError, match="Input/output"):
        append(spool, *"xyz")
    count = spool.span()[1]
    append(spool, "d")
    spool.abandon()  # as a crash would

    spool = Spool(tmp_path)
    assert spool.span() == (0, count + 1)
    assert read_all(spool)[-1] == ("d", count + 1)
    spool.close()


def test_a_head_that_is_longer_than_a_segment_begins_no_segment_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=100)
    for number in range(20):
        key = ("acme", f"source {number}")
        spool.append(key, json.dumps({"tenant": key[0], "source": key[1], "message": ""}).encode()[:-1], True)
    assert len(read_all(spool)) == 20
    spool.close()
    Spool(tmp_path).close()


def test_an_event_larger_than_the_spool_is_no_matter_of_waiting(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most_bytes=100)
    with pytest.raises(AuditStorageError, match="at most 100 bytes") as caught:
        append(spool, "x" * 200)
    assert not isinstance(caught.value, QueueFull)
    spool.close()


def test_what_is_read_is_on_the_disk_before(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    append(spool, "a", "b")
    broken = mock.patch("prooftrail_client.spool._datasync", side_effect=OSError(errno.EIO, "Input/output error"))
    with broken, pytest.raises(AuditStorageError, match="not known to be on the disk"):
        spool.read(10, 1000)
    spool.close()


def test_with_disk_durability_threads_share_an_fsync(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "disk")
    first_begins, go_on = threading.Event(), threading.Event()
    syncs: list[int] = []

    def slow(file: int) -> None:
        syncs.append(file)
        first_begins.set()
        assert go_on.wait(30)

    with mock.patch("prooftrail_client.spool._datasync", slow):
        threads = [threading.Thread(target=append, args=(spool, str(number))) for number in range(8)]
        threads[0].start()
        assert first_begins.wait(30)
        for thread in threads[1:]:
            thread.start()
        while spool.span()[1] < 8:  # all are appended while the disk is busy with the first
            threading.Event().wait(0.001)
        go_on.set()
        for thread in threads:
            thread.join()
    assert len(syncs) == 2
    spool.close()


def test_many_threads_append_and_every_number_comes_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=2000)

    def work(name: str) -> None:
        append(spool, *(f"{name}{number}" for number in range(100)))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    found: list[Any] = []
    while len(found) < 400:
        found += read_all(spool)
    for thread in threads:
        thread.join()
    assert [number for _, number in found] == list(range(1, 401))
    assert len({text for text, _ in found}) == 400
    spool.close()

"""Row groups: whatever time is asked for, all rows of that time are read, and hardly any others."""

from __future__ import annotations

import contextlib
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from arro3.io import read_parquet, write_parquet
from hypothesis import given, settings
from hypothesis import strategies as st

from prooftrail import row_groups
from prooftrail.row_groups import NoParquet

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Object:
    """A Parquet object, and how much of it was fetched."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.fetched = 0

    def fetch(self, begin: int, end: int) -> bytes:
        self.fetched += end - begin
        return self.content[begin:end]

    def ids_at(self, time: datetime) -> list[int]:
        """The ids of the rows that are read for a time."""
        file = row_groups.at(self.fetch, len(self.content), time)
        return [] if file is None else [id for batch in read_parquet(file) for id in batch.column("id").to_pylist()]


def parquet(seconds: list[int], row_group: int, path: Path, padding: int = 0) -> Object:
    """As the archive writes it, with columns of several kinds."""
    times = [EPOCH + timedelta(seconds=second) for second in sorted(seconds)]
    table = pa.table(
        {
            "id": pa.array(range(len(times)), pa.int64()),
            "time": pa.array(times, pa.timestamp("us", tz="UTC")),
            "text": [
                None if number % 3 else f"{number}{padding and random.Random(number).randbytes(padding).hex()}"
                for number in range(len(times))
            ],
            "roles": pa.array([["a", "b"] if number % 2 else None for number in range(len(times))], pa.list_(pa.string())),
            "none": pa.array([None] * len(times), pa.string()),
        }
    )
    write_parquet(table, path, max_row_group_size=row_group, compression="zstd(3)", key_value_metadata={"a": "b"})
    return Object(path.read_bytes())


@settings(deadline=None)
@given(st.lists(st.integers(-100, 100), min_size=1, max_size=60), st.integers(1, 20), st.integers(-110, 110))
def test_every_row_of_a_time_is_read(
    tmp_path_factory: pytest.TempPathFactory, seconds: list[int], row_group: int, asked: int
) -> None:
    file = parquet(seconds, row_group, tmp_path_factory.mktemp("rows") / "x.parquet")
    found = file.ids_at(EPOCH + timedelta(seconds=asked))
    wanted = [id for id, second in enumerate(sorted(seconds)) if second == asked]
    assert set(wanted) <= set(found)
    groups = [sorted(seconds)[start : start + row_group] for start in range(0, len(seconds), row_group)]
    assert len(found) == sum(len(group) for group in groups if group[0] <= asked <= group[-1])


def test_of_many_row_groups_one_is_fetched(tmp_path: Path) -> None:
    file = parquet(list(range(3000)), 100, tmp_path / "x.parquet", padding=500)
    for asked in (0, 99, 100, 1550, 2999):
        file.fetched = 0
        assert asked in file.ids_at(EPOCH + timedelta(seconds=asked))
        assert file.fetched < len(file.content) / 3
    assert file.ids_at(EPOCH - timedelta(days=1)) == []


def test_a_footer_that_is_larger_than_what_is_fetched_first_is_fetched_whole(tmp_path: Path) -> None:
    file = parquet(list(range(4000)), 10, tmp_path / "x.parquet")
    assert int.from_bytes(file.content[-8:-4], "little") > 64 * 1024
    assert 2222 in file.ids_at(EPOCH + timedelta(seconds=2222))


@pytest.mark.parametrize(
    "content",
    [b"PAR1PAR1", b"x" * 100, b"PAR1" + b"\xff\xff\xff\x00PAR1", b"PAR1" + b"\x15" * 20 + b"\x14\x00\x00\x00PAR1"],
)
def test_what_is_no_parquet_is_refused(content: bytes) -> None:
    with pytest.raises(NoParquet):
        Object(content).ids_at(EPOCH)


def test_a_file_whose_column_has_no_statistics_is_refused(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        pa.table({"time": pa.array([EPOCH], pa.timestamp("us", tz="UTC"))}), tmp_path / "x", write_statistics=False
    )
    with pytest.raises(NoParquet, match="statistics"):
        Object((tmp_path / "x").read_bytes()).ids_at(EPOCH)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_footer_is_refused_or_read_as_what_it_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """It never loops, and never raises anything but an error of ours or of the library's."""
    file = parquet(list(range(30)), 10, tmp_path_factory.mktemp("rows") / "x.parquet")
    length = int.from_bytes(file.content[-8:-4], "little")
    place = data.draw(st.integers(len(file.content) - 8 - length, len(file.content) - 9))
    changed = bytes([file.content[place] ^ data.draw(st.integers(1, 255))])
    file.content = file.content[:place] + changed + file.content[place + 1 :]
    with contextlib.suppress(NoParquet):
        row_groups.at(file.fetch, len(file.content), EPOCH + timedelta(seconds=15))

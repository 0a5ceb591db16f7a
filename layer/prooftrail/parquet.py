"""A segment as a Parquet object: written from PostgreSQL, and read back beside PostgreSQL to see that they are the same.

Arrow all the way, bounded in bytes at every place: PostgreSQL's COPY -> ADBC -> Arrow -> zstd Parquet. The only module that
knows these libraries. Times are UTC, JSON is text, and there is no tenant column: Hive's layout carries it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql
from arro3.core import Array, DataType, RecordBatch, RecordBatchReader
from arro3.io import read_parquet, write_parquet
from psycopg.conninfo import make_conninfo

from prooftrail.errors import ArchiveMismatch

ROW_GROUP = 50_000  # rows at most; what a reader skips or loads as one
ROW_GROUP_BYTES = 32_000_000  # as PostgreSQL stores them: the writer holds a row group, compressed, until it is full
COPY_BYTES = 4_000_000  # in one batch that comes from PostgreSQL
READ_ROWS = 128  # in one batch that is read from a file; an event is a megabyte at most


@contextmanager
def rows_of(login: dict[str, Any], query: str) -> Iterator[RecordBatchReader]:
    """Stream the rows of a query as Arrow record batches."""
    database = adbc_driver_manager.AdbcDatabase(
        # The low-level way, as adbc_driver_postgresql.connect does it itself: its dbapi costs 340 ms of imports.
        driver=adbc_driver_postgresql._driver_path(),  # noqa: SLF001
        uri=make_conninfo(**login),
    )
    with (
        database,
        adbc_driver_manager.AdbcConnection(database) as connection,
        adbc_driver_manager.AdbcStatement(connection) as statement,
    ):
        statement.set_options(**{adbc_driver_postgresql.StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(COPY_BYTES)})
        statement.set_sql_query(query)
        stream, _ = statement.execute_query()
        yield RecordBatchReader.from_arrow(stream)


def write(rows: RecordBatchReader, file: Path, metadata: dict[str, str], row_group: int = ROW_GROUP) -> None:
    """Write all rows to a Parquet file; `metadata` goes into its footer, so that the file explains itself."""
    write_parquet(
        rows,
        file,
        compression="zstd(3)",
        max_row_group_size=row_group,
        key_value_metadata=metadata,
        created_by="prooftrail",
    )


def rows_in_a_group(events: int, stored_bytes: int) -> int:
    """How many rows make a row group, where so many events take up so many bytes."""
    return max(1, min(ROW_GROUP, events * ROW_GROUP_BYTES // max(1, stored_bytes)))


def count_equal_rows(stored: Iterable[RecordBatch], written: Path) -> int | None:
    """Compare every value of every row, in order; return how many rows both sides have, or None where they differ."""
    rows = 0
    for ours, theirs in _in_step(_filled(stored), batches(written)):
        if ours is None or theirs is None or ours.columns != theirs.columns:
            return None
        rows += ours.num_rows
    return rows


def rewrite(source: Path, changed: Iterable[RecordBatch], file: Path, metadata: dict[str, str], row_group: int) -> None:
    """Write a file of the same columns as `source`, with the rows of `changed`."""
    write(RecordBatchReader.from_batches(read_parquet(source).schema, iter(changed)), file, metadata, row_group)


def changed(batch: RecordBatch, nulls: Mapping[str, set[int]], values: Mapping[str, Mapping[int, bytes]]) -> RecordBatch:
    """A batch in which columns are null, or other bytes, in the rows of those numbers."""
    for name, rows in nulls.items():
        kept = Array([None if row in rows else row for row in range(batch.num_rows)], DataType.uint64())
        batch = _with(batch, name, batch.column(name).take(kept))
    for name, of_row in values.items():
        column = [of_row.get(row, value) for row, value in enumerate(batch.column(name).to_pylist())]
        batch = _with(batch, name, Array(column, DataType.binary()))
    return batch


def rows(
    batch: RecordBatch, numbers: Sequence[int], columns: Sequence[str], fixed: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Some rows of a batch as plain values; of columns that it does not have, all have the `fixed` value."""
    chosen = batch.take(Array(numbers, DataType.uint64()))
    return list(
        zip(
            *([fixed[name]] * len(numbers) if name in fixed else chosen.column(name).to_pylist() for name in columns),
            strict=True,
        )
    )


def _with(batch: RecordBatch, name: str, column: Array) -> RecordBatch:
    return batch.set_column(batch.column_names.index(name), batch.schema.field(name), column)


def batches(file: Path) -> Iterator[RecordBatch]:
    """Read a file in small batches. Raises `ArchiveMismatch` where it is not Parquet."""
    try:
        yield from _filled(read_parquet(file, batch_size=READ_ROWS))
    except BaseException as error:
        # The library's own: a bare Exception, and one that no `except Exception` would see.
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise ArchiveMismatch(f"expected Parquet, got what cannot be read: {error}") from error


def _filled(reader: Iterable[RecordBatch]) -> Iterator[RecordBatch]:
    return (batch for batch in reader if batch.num_rows)


def _in_step(
    left: Iterator[RecordBatch], right: Iterator[RecordBatch]
) -> Iterator[tuple[RecordBatch | None, RecordBatch | None]]:
    """Pair up two streams of batches in slices of equal length; None stands where one side has ended early."""
    a, b = next(left, None), next(right, None)
    while a is not None or b is not None:
        if a is None or b is None:
            yield a, b
            return
        length = min(a.num_rows, b.num_rows)
        yield a.slice(0, length), b.slice(0, length)
        a = a.slice(length) if length < a.num_rows else next(left, None)
        b = b.slice(length) if length < b.num_rows else next(right, None)

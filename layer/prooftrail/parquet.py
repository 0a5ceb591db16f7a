"""A segment as a Parquet object: written from PostgreSQL, and read back beside PostgreSQL to see that they are the same.

Arrow all the way, a row group (bounded in rows, not yet in bytes) at a time:
PostgreSQL's COPY -> ADBC -> Arrow -> zstd Parquet. The only module that knows these
libraries. Times are UTC, JSON is text, and there is no tenant column: Hive's layout carries it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adbc_driver_manager
import adbc_driver_postgresql
from arro3.core import RecordBatch, RecordBatchReader
from arro3.io import read_parquet, write_parquet
from psycopg.conninfo import make_conninfo

ROW_GROUP = 50_000  # rows; what a reader skips or loads as one


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
        statement.set_sql_query(query)
        stream, _ = statement.execute_query()
        yield RecordBatchReader.from_arrow(stream)


def write(rows: RecordBatchReader, file: Path, metadata: dict[str, str]) -> None:
    """Write all rows to a Parquet file; `metadata` goes into its footer, so that the file explains itself."""
    write_parquet(
        rows,
        file,
        compression="zstd(3)",
        max_row_group_size=ROW_GROUP,
        key_value_metadata=metadata,
        created_by="prooftrail",
    )


def count_equal_rows(stored: RecordBatchReader, written: Path) -> int | None:
    """Compare every value of every row, in order; return how many rows both sides have, or None where they differ."""
    rows = 0
    for ours, theirs in _in_step(_batches(stored), _batches(read_parquet(written, batch_size=ROW_GROUP))):
        if ours is None or theirs is None or ours.columns != theirs.columns:
            return None
        rows += ours.num_rows
    return rows


def _batches(reader: RecordBatchReader) -> Iterator[RecordBatch]:
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

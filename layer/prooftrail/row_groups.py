"""Row groups: read of a Parquet object only those that may hold a time, and so a few megabytes instead of all.

Segments are sorted by time, and a Parquet file's footer says the least and the greatest time of each row group. Libraries
small enough for a function cannot skip row groups; so this makes the footer of a file that has only those wanted, and lets
the library read that: their bytes are where they were. (Apache Parquet's parquet.thrift; Thrift's compact protocol)
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, TypeAlias, cast

from prooftrail.errors import PermanentError

Fetch: TypeAlias = Callable[[int, int], bytes]  # the bytes of an object from one offset to before another

_TAIL = 64 * 1024  # bytes fetched at first, in the hope that the footer is among them
_END = 8  # bytes: the footer's length, and the magic
_MAGIC = b"PAR1"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Fields of parquet.thrift's structures.
_NUM_ROWS, _ROW_GROUPS = 3, 4  # FileMetaData
_COLUMNS, _ROWS = 1, 3  # RowGroup
_META_DATA = 3  # ColumnChunk
_PATH, _COMPRESSED, _DATA_PAGE, _DICTIONARY_PAGE, _STATISTICS = 3, 7, 9, 11, 12  # ColumnMetaData
_MAX_VALUE, _MIN_VALUE = 5, 6  # Statistics


class NoParquet(PermanentError):
    """An object is no Parquet file, or one without what a segment's file has."""


class _RowGroup(NamedTuple):
    """A row group as its footer describes it: where that description lies, and where the rows."""

    description: bytes
    rows: int
    begin: int
    end: int
    least: datetime
    greatest: datetime


def at(fetch: Fetch, size: int, time: datetime, column: str = "time") -> BinaryIO | None:
    """A Parquet file with only the row groups of an object of `size` bytes that may hold `time`; None where none may.

    Fetches the footer, and those row groups in one go. Raises `NoParquet`.
    """
    tail = fetch(max(0, size - _TAIL), size)
    length = int.from_bytes(tail[-_END:-4], "little")
    if not tail.endswith(_MAGIC) or length + _END > size:
        raise NoParquet(f"expected a Parquet file of {size} bytes, got one that ends with {tail[-_END:]!r}")
    begin = size - _END - length
    footer = tail[-length - _END : -_END] if length + _END <= len(tail) else fetch(begin, begin + length)
    try:
        reader = _Footer(footer)
        wanted = [group for group in reader.row_groups(column) if group.least <= time <= group.greatest]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise NoParquet(
            f"expected a Parquet footer, got one in which something is not what it must be: {error!a}"
        ) from error
    if not wanted:
        return None
    first, last = min(group.begin for group in wanted), max(group.end for group in wanted)
    return cast(BinaryIO, _View(first, fetch(first, last), begin, reader.with_only(wanted)))


class _View(io.BufferedIOBase):
    """A file of which a part is there: the bytes from `first` on, and a footer at `footer_at`; between them zeros."""

    def __init__(self, first: int, content: bytes, footer_at: int, footer: bytes) -> None:
        end = footer + len(footer).to_bytes(4, "little") + _MAGIC
        self._parts = [(first, content), (footer_at, end)]
        self._size = footer_at + len(end)
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """What is there from the position on, up to `size` bytes: readers that read ahead get less."""
        end = self._size if size is None or size < 0 else self._position + size
        for begin, content in self._parts:
            if begin <= self._position < begin + len(content):
                found = content[self._position - begin : end - begin]
                self._position += len(found)
                return found
        if self._position < self._size:
            raise NoParquet(f"expected to read wanted row groups only, was asked for what is at {self._position}")
        return b""


class _Footer:
    """A footer (`FileMetaData`), in so far as row groups can be left out of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        thrift, self._spans = _Thrift(data), {}
        for field, kind in thrift.fields():
            begin = thrift.position
            thrift.value(kind)
            self._spans[field] = begin, thrift.position

    def row_groups(self, column: str) -> Iterator[_RowGroup]:
        """All row groups, with the least and the greatest value of a column of times."""
        thrift = _Thrift(self._data, self._spans[_ROW_GROUPS][0])
        count, kind = thrift.list_header()
        for _ in range(count):
            begin = thrift.position
            group = thrift.value(kind)
            chunks = [chunk[_META_DATA] for chunk in group[_COLUMNS]]
            starts = [chunk.get(_DICTIONARY_PAGE, chunk[_DATA_PAGE]) for chunk in chunks]
            ends = [start + chunk[_COMPRESSED] for start, chunk in zip(starts, chunks, strict=True)]
            least, greatest = _bounds(chunks, column)
            yield _RowGroup(self._data[begin : thrift.position], group[_ROWS], min(starts), max(ends), least, greatest)

    def with_only(self, groups: list[_RowGroup]) -> bytes:
        """The footer of a file that has these row groups only."""
        (rows_begin, rows_end), (begin, end) = self._spans[_NUM_ROWS], self._spans[_ROW_GROUPS]
        parts = [self._data[:rows_begin], _varint(2 * sum(group.rows for group in groups)), self._data[rows_end:begin]]
        parts += [_list_header(len(groups)), *(group.description for group in groups), self._data[end:]]
        return b"".join(parts)


def _bounds(chunks: list[dict[int, Any]], column: str) -> tuple[datetime, datetime]:
    (statistics,) = [chunk.get(_STATISTICS, {}) for chunk in chunks if chunk[_PATH] == [column.encode()]]
    if not {_MIN_VALUE, _MAX_VALUE} <= statistics.keys():
        raise NoParquet(f"expected statistics of the column {column} in each row group, found one without")
    return _time(statistics[_MIN_VALUE]), _time(statistics[_MAX_VALUE])


def _time(value: bytes) -> datetime:
    """A plain-encoded time: microseconds since 1970 in 64 bits."""
    return _EPOCH + timedelta(microseconds=int.from_bytes(value, "little", signed=True))


class _Thrift:
    """Reads Thrift's compact protocol: structures become dicts from the number of a field to its value."""

    _STOP, _TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 6, 7, 8, 10, 11, 12

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data, self.position = data, position

    def fields(self) -> Iterator[tuple[int, int]]:
        """The numbers and kinds of a structure's fields; the caller reads each value before the next field."""
        field = 0
        while (head := self._byte()) != self._STOP:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            yield field, head & 15

    def value(self, kind: int) -> Any:
        if kind == self._STRUCT:
            return {field: self.value(of) for field, of in self.fields()}
        if kind in {self._TRUE, self._FALSE}:
            return kind == self._TRUE
        if kind == self._BINARY:
            return self._take(self._varint())
        if kind <= self._I64:
            return self._byte() if kind == self._BYTE else self._zigzag()
        if kind <= self._SET and kind != self._DOUBLE:
            return self._items()
        raise NoParquet(f"expected no value of kind {kind} in a Parquet footer")

    def _items(self) -> list[Any]:
        count, kind = self.list_header()
        return [self.value(self._BYTE if kind <= self._FALSE else kind) for _ in range(count)]

    def list_header(self) -> tuple[int, int]:
        """How many items a list has, and their kind."""
        head = self._byte()
        return (self._varint() if head >> 4 == 15 else head >> 4), head & 15

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        begin, self.position = self.position, self.position + size
        if self.position > len(self._data):
            raise NoParquet(f"expected a Parquet footer, got {len(self._data)} bytes that break off in the middle")
        return self._data[begin : self.position]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def _varint(value: int) -> bytes:
    low = b""
    while value > 127:
        low, value = low + bytes([value & 127 | 128]), value >> 7
    return low + bytes([value])


def _list_header(count: int) -> bytes:
    """Of a list of structures."""
    return bytes([count << 4 | 12]) if count < 15 else b"\xfc" + _varint(count)

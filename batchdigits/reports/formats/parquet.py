"""Write the Parquet report: typed columns, compressed by zstd, in constant memory; and read its answers back.

The bytes depend on the rows and on `About` alone: neither on the clock nor on how the rows came in chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.records import DIGITS, Status
from batchdigits.reports.schema import COLUMNS, About, Column, Kind, Rows
from batchdigits.settings import ReportSettings

if TYPE_CHECKING:
    import pyarrow as pa

_ROW_GROUP = 65_536  # rows; some 20 MB in memory

_STATUSES = [status.value for status in Status]


class ParquetReport:
    """A Parquet report being written."""

    def __init__(self, handle: BinaryIO, about: About, settings: ReportSettings) -> None:
        """Prepare to write.

        Args:
            handle: Where the bytes go: readable and seekable too, to check them in the end; stays open.
            about: Becomes the file's key-value metadata.
            settings: Nothing here depends on it: Parquet always has the probabilities.
        """
        self._handle = handle
        self._schema = _schema(about)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._rows = 0

    def __enter__(self) -> Self:
        """Begin the file."""
        from pyarrow import parquet

        self._writer = parquet.ParquetWriter(self._handle, self._schema, compression="zstd")
        return self

    def write(self, rows: Rows) -> None:
        """Append a chunk of rows; they reach the file when a row group is full."""
        import pyarrow as pa

        arrays = [_array(column, getattr(rows, column.name)) for column in COLUMNS]
        self._pending.append(pa.record_batch(arrays, schema=self._schema))
        self._pending_rows += len(rows)
        self._rows += len(rows)
        if self._pending_rows >= _ROW_GROUP:
            self._write_groups(self._pending_rows // _ROW_GROUP * _ROW_GROUP)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and check it; after an exception, only let go of it.

        Raises:
            StorageError: The file cannot be read back, or has another number of rows than were written.
        """
        try:
            if error is None:
                if self._pending_rows:
                    self._write_groups(self._pending_rows)
                self._writer.close()
                self._check()
        finally:
            self._writer.is_open = False  # else pyarrow closes it when it is collected, after the handle is gone

    def _write_groups(self, rows: int) -> None:
        """Write the first `rows` pending rows as row groups, and keep the others."""
        import pyarrow as pa

        # One array a column, whatever the chunks were: the encoder's pages follow the arrays' borders.
        table = pa.Table.from_batches(self._pending, schema=self._schema).combine_chunks()
        self._writer.write_table(table.slice(0, rows), row_group_size=_ROW_GROUP)
        self._pending = table.slice(rows).to_batches()
        self._pending_rows -= rows

    def _check(self) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._handle.flush()
        try:
            found = parquet.read_metadata(self._handle).num_rows
        except pa.ArrowInvalid as error:
            message = f"{escaped(self._handle.name)} cannot be read back after writing ({error}); check the disk."
            raise StorageError(message) from error
        if found != self._rows:
            message = f"{escaped(self._handle.name)} holds {found} rows of {self._rows} after writing; check the disk."
            raise StorageError(message)


def text_columns(path: Path, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Read some columns of a Parquet file as text, row by row; a null is empty, and a whole number has no point.

    Raises:
        UsageError: It is no Parquet file, or lacks a column.
        OSError: It cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            if wrong := [name for name in names if file.schema_arrow.names.count(name) != 1]:
                message = (
                    f"{escaped(str(path))} does not have one column {wrong[0]}; expected {', '.join(names)}, once each."
                )
                raise UsageError(message)
            for batch in file.iter_batches(columns=list(names)):
                for row in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    yield tuple(map(_text, row))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
        message = f"{escaped(str(path))} is no Parquet file ({error}); save it anew."
        raise UsageError(message) from error


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():  # as tools spell integers of which some are null
        cell = int(cell)
    return "" if cell is None or cell != cell else str(cell)


def _schema(about: About) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(column.name, _type(column.kind)) for column in COLUMNS], metadata=about.metadata())


def _type(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    match kind:
        case Kind.TEXT:
            return pa.string()
        case Kind.STATUS:
            return pa.dictionary(pa.int8(), pa.string())
        case Kind.COUNT:
            return pa.int32()
        case Kind.DIGIT:
            return pa.int8()
        case Kind.FRACTION:
            return pa.float64()  # so that 0.9731 reads back as 0.9731
        case Kind.PROBABILITIES:
            return pa.list_(pa.float32(), DIGITS)


def _array(column: Column, values: Any) -> pa.Array:
    """Turn one column of `Rows` into an Arrow array, empty cells as nulls.

    It is made of buffers, for `pyarrow.array` would import pandas, which takes longer than most reports.
    """
    import pyarrow as pa

    kind = _type(column.kind)
    match column.kind:
        case Kind.TEXT:
            return _texts(values)
        case Kind.STATUS:
            # Always all the words, in their order: every chunk has the same dictionary.
            indices = np.array([_STATUSES.index(status) for status in values], np.int8)
            return pa.DictionaryArray.from_arrays(_numbers(pa.int8(), indices), _texts(_STATUSES))
        case Kind.COUNT:
            counts = np.asarray(values, dtype=np.int32)
            return _numbers(kind, counts, counts == 0)
        case Kind.DIGIT:
            return _numbers(kind, np.asarray(values, np.int8), values < 0)
        case Kind.FRACTION:
            return _numbers(kind, np.asarray(values, np.float64), np.isnan(values))
        case Kind.PROBABILITIES:
            cells = _numbers(kind.value_type, np.asarray(values, np.float32).ravel())
            validity = _validity(np.isnan(values).any(axis=1))
            return pa.Array.from_buffers(kind, len(values), [validity], children=[cells])


def _numbers(kind: pa.DataType, values: NDArray[Any], empty: NDArray[np.bool_] | None = None) -> pa.Array:
    """Make an array of numbers that lie in memory as Arrow has them."""
    import pyarrow as pa

    return pa.Array.from_buffers(kind, len(values), [_validity(empty), pa.py_buffer(np.ascontiguousarray(values))])


def _texts(values: Sequence[str]) -> pa.Array:
    """Make an array of texts, empty ones as nulls."""
    import pyarrow as pa

    cells = [text.encode() for text in values]
    lengths = np.fromiter(map(len, cells), np.int32, len(cells))
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    buffers = [_validity(lengths == 0), pa.py_buffer(offsets), pa.py_buffer(b"".join(cells))]
    return pa.Array.from_buffers(pa.string(), len(cells), buffers)


def _validity(empty: NDArray[np.bool_] | None) -> pa.Buffer | None:
    """Make the bitmap that marks nulls; None where there are none."""
    import pyarrow as pa

    if empty is None or not empty.any():
        return None
    return pa.py_buffer(np.packbits(~empty, bitorder="little"))

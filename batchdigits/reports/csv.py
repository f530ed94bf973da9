"""The CSV report: chunks of rows in, RFC 4180 text in UTF-8 out, in constant memory.

Numbers are spelled the same in every locale. Text that a spreadsheet would take for a formula gets a leading `'`.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from batchdigits.reports.schema import COLUMNS, About, Column, Kind, Rows
from batchdigits.settings import CsvDialect, ReportSettings

if TYPE_CHECKING:
    import pandas as pd

_LINE_END = "\r\n"
_FORMULA_STARTS = ("=", "+", "-", "@", "'", "\t", "\r")


@dataclass(frozen=True, slots=True)
class _Spelling:
    """How a dialect differs from RFC 4180."""

    mark: bytes
    """What the file begins with."""
    separator: str
    """What stands between cells."""
    decimal: str
    """The decimal mark of numbers."""


_SPELLINGS = {
    CsvDialect.RFC4180: _Spelling(mark=b"", separator=",", decimal="."),
    CsvDialect.EXCEL: _Spelling(mark=codecs.BOM_UTF8, separator=",", decimal="."),
    CsvDialect.EXCEL_EU: _Spelling(mark=codecs.BOM_UTF8, separator=";", decimal=","),
}


class Sink(Protocol):
    """Whatever takes bytes."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


class CsvReport:
    """A CSV report being written."""

    def __init__(self, handle: Sink, about: About, settings: ReportSettings) -> None:
        """Prepare to write.

        Args:
            handle: Where the bytes go; stays open.
            about: Not written: CSV has no place for it.
            settings: The dialect, and whether p0 … p9 are written.
        """
        self._handle = handle
        self._spelling = _SPELLINGS[settings.csv_dialect]
        self._columns = [c for c in COLUMNS if c.kind is not Kind.PROBABILITIES or settings.probabilities]

    def __enter__(self) -> Self:
        """Write the header, so that a report without rows has one too."""
        header = self._spelling.separator.join(name for column in self._columns for name in _headers(column))
        self._handle.write(self._spelling.mark + (header + _LINE_END).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the handle to its owner."""

    def write(self, rows: Rows) -> None:
        """Append a chunk of rows.

        Args:
            rows: Any number of rows; a path or detail with a lone surrogate is a bug of the caller.
        """
        import pandas as pd

        cells = {
            name: series
            for column in self._columns
            for name, series in _cells(column, getattr(rows, column.name)).items()
        }
        text = pd.DataFrame(cells).to_csv(
            header=False,
            index=False,
            sep=self._spelling.separator,
            decimal=self._spelling.decimal,
            float_format="%.4f",
            lineterminator=_LINE_END,
        )
        self._handle.write(text.encode())


def guard(text: str) -> str:
    """Put one `'` before a text that a spreadsheet would take for a formula, or that begins with `'` itself."""
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def unguard(cell: str) -> str:
    """Take exactly one leading `'` away: `unguard(guard(text)) == text` for every text."""
    return cell.removeprefix("'")


def _headers(column: Column) -> list[str]:
    return [f"p{digit}" for digit in range(10)] if column.kind is Kind.PROBABILITIES else [column.name]


def _cells(column: Column, values: Any) -> dict[str, pd.Series[Any]]:
    """Turn one column of `Rows` into the pandas columns that CSV has for it, empty cells as missing values."""
    import pandas as pd

    match column.kind:
        case Kind.TEXT | Kind.STATUS:
            return {column.name: pd.Series([guard(text) for text in values], dtype=object)}
        case Kind.COUNT:
            counts = np.asarray(values, dtype=np.int32)
            return {column.name: pd.Series(pd.arrays.IntegerArray(counts, counts == 0))}
        case Kind.DIGIT:
            return {column.name: pd.Series(pd.arrays.IntegerArray(values, values < 0))}
        case Kind.FRACTION:
            return {column.name: pd.Series(values)}
        case Kind.PROBABILITIES:
            return {name: pd.Series(values[:, digit]) for digit, name in enumerate(_headers(column))}

"""Write the CSV report: RFC 4180 text in UTF-8, in constant memory.

Numbers are spelled the same in every locale. Text that a spreadsheet would take for a formula gets a leading `'`.
"""

import codecs
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from batchdigits.reports.schema import COLUMNS, About, Column, Kind, Rows
from batchdigits.settings import CsvDialect, ReportSettings

T = TypeVar("T")

_LINE_END = "\r\n"
_FIRST = COLUMNS[0].name
_FORMULA_WITHIN = re.compile(r"""([,;\t\r\n])(?=['"]*[=+@-])""")
_BREAKING = '",;\t\r\n'
_BREAKS = re.compile(f"[{_BREAKING}]").search
_DIGITS = (*"0123456789", "")  # -1 is the last
_FORMULA_STARTS = frozenset("=+-@'\t\r")


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

    def __exit__(self, *_: object) -> None:
        """Leave the handle to its owner."""

    def write(self, rows: Rows) -> None:
        """Append a chunk of rows.

        Args:
            rows: Any number of rows; a path or detail with a lone surrogate is a bug of the caller.
        """
        cells = [cells for column in self._columns for cells in self._cells(column, getattr(rows, column.name))]
        lines = [self._spelling.separator.join(row) + _LINE_END for row in zip(*cells, strict=True)]
        self._handle.write("".join(lines).encode())

    def _cells(self, column: Column, values: Any) -> list[list[str]]:
        """Spell one column of `Rows` as the columns that CSV has for it."""
        match column.kind:
            case Kind.TEXT | Kind.STATUS:
                return [_texts(values, is_first=column.name == _FIRST)]
            case Kind.COUNT:
                return [_looked_up(np.asarray(values).tolist(), lambda count: str(count or ""))]
            case Kind.DIGIT:
                return [[_DIGITS[digit] for digit in values.tolist()]]
            case Kind.FRACTION:
                return [self._fractions(values)]
            case Kind.PROBABILITIES:
                return [self._fractions(of_digit) for of_digit in values.T]

    def _fractions(self, values: NDArray[np.floating]) -> list[str]:
        decimal = self._spelling.decimal
        return _looked_up(
            values.tolist(), lambda value: "" if math.isnan(value) else f"{value:.4f}".replace(".", decimal)
        )


def _looked_up(values: list[T], spell: Callable[[T], str]) -> list[str]:
    """Spell values, few of which differ, each once."""
    table = {value: spell(value) for value in set(values)}
    return [table[value] for value in values]


def _texts(texts: list[str], *, is_first: bool) -> list[str]:
    """Spell a column of texts, most of which are as they are."""
    together = "".join(texts)
    if not any(map(together.__contains__, _BREAKING)) and _FORMULA_STARTS.isdisjoint({text[:1] for text in texts}):
        return texts
    return _looked_up(texts, lambda text: _spelled(text, is_first=is_first))


def guard(text: str) -> str:
    """Put one `'` before a text that a spreadsheet would take for a formula, or that begins with `'` itself."""
    return f"'{text}" if text[:1] in _FORMULA_STARTS else text


def tame(text: str) -> str:
    """Put a `'` behind whatever may separate cells or lines within a text, where a formula would begin."""
    return _FORMULA_WITHIN.sub(r"\1'", text)


def _spelled(text: str, *, is_first: bool = False) -> str:
    """Guard a text, and put it in quotation marks where any program that reads CSV would break it.

    What stands behind a separator that is not ours would be a cell of its own there, and may be a formula.

    Args:
        text: Of a cell.
        is_first: The first cell of a line is whole in its marks, whatever separates the others.
    """
    if not _BREAKS(text):
        return guard(text)
    return '"' + guard(text if is_first else tame(text)).replace('"', '""') + '"'


def unguard(cell: str) -> str:
    """Take exactly one leading `'` away: `unguard(guard(text)) == text` for every text."""
    return cell.removeprefix("'")


def _headers(column: Column) -> list[str]:
    return [f"p{digit}" for digit in range(10)] if column.kind is Kind.PROBABILITIES else [column.name]

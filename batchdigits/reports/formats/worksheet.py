"""Fill the sheets of a workbook with rows, pictures and notes, in constant memory.

No text becomes a formula, a link or a number, whatever it holds.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchdigits.records import DIGITS, Status

if TYPE_CHECKING:
    from xlsxwriter import Workbook
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

PICTURE = "picture"
"""The name of a column that has pictures instead of values."""

_MOST_ROWS = 1_048_575  # of a sheet, below its header
_MOST_TEXT = 32_767  # UTF-16 units that a cell holds
_MOST_PICTURES = 5_000  # they wait in memory, up to 3 kB each
_PICTURE_SIDE = 64  # pixels
_ROW_HEIGHT, _PICTURE_WIDTH = 72, 82  # pixels of the cell around it
_HEADER_HEIGHT, _LINE = 24, 15  # points
_FILLED = 0.9  # share of a cell's width that text has before it breaks, at words
_A4 = 9
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")

_WIDTHS = {
    **{PICTURE: 12, "path": 44, "page": 9, "status": 15, "digit": 10, "confidence": 15, "runner_up": 14},
    **{"runner_up_confidence": 25, "corrected": 14, "final": 10, "detail": 90, "width": 10, "height": 11},
    **{"sha256": 14, "model": 15, "known": 10},
}  # characters; of a header at least its name and the button of its filter
_TALL_WIDTH = 48  # characters; of a column whose rows have several lines
_TEXTS = {"path", "status", "detail", "sha256", "model", "known"}
_UNPRINTED = {"width", "height", "sha256", "model", "known"}  # at the right end of their sheets

_ANSWER = {
    "validate": "list",
    "source": [*map(str, range(DIGITS)), "x", "c", "withdraw"],
    "error_title": "This is no answer",
    "error_message": "Expected a digit from 0 to 9, x for «not a digit», c for «cannot tell», or withdraw to take an "
    "answer back.",
}
_HOW_TO_ANSWER = (
    "Type the digit that you see, x for «not a digit», or c for «cannot tell»; an answer that is there is taken "
    "back by emptying its cell. Then save this workbook and run: batchdigits correct REPORT WORKBOOK"
)
_COLOURS = {
    "type": "3_color_scale",
    **{"min_type": "num", "mid_type": "num", "max_type": "num"},
    **{"min_value": 0.5, "mid_value": 0.9, "max_value": 1.0},
    **{"min_color": "#F4B183", "mid_color": "#FFE699", "max_color": "#C6E0B4"},
}


def formats(book: Workbook) -> dict[str, Format]:
    """Make what cells look like, by the name of their column, or by what they are for."""
    top, middle = {"valign": "top"}, {"valign": "vcenter"}
    centred = {"align": "center", **middle}
    text = {"num_format": "@", **middle}  # so that what is typed over a path stays text, too
    share = {"num_format": "0.00%", **centred}
    head = {"bold": True, "font_color": "#FFFFFF", "bg_color": "#1F4E78", **middle}
    looks: dict[str, dict[str, Any]] = {
        "head": head,
        "centred head": {**head, "align": "center"},
        "text": text,
        "tall text": {**text, "text_wrap": True},
        **dict.fromkeys(("page", "digit", "runner_up", "width", "height"), centred),
        **dict.fromkeys(("confidence", "runner_up_confidence"), share),
        "corrected": {**text, "align": "center", "bg_color": "#FFF9DB", "border": 1, "border_color": "#BFBFBF"},
        "final": {**centred, "bold": True},
        "note": {"text_wrap": True, **top},
        "note count": {"num_format": "#,##0", **top, "align": "center"},
        "note share": {**share, **top},
    }
    return {name: book.add_format(look) for name, look in looks.items()}


class Table:
    """A table of one row a page, on as many sheets as it needs."""

    def __init__(self, book: Workbook, formats: Mapping[str, Format], title: str, columns: Sequence[str]) -> None:
        """Begin the first sheet.

        Args:
            book: Gets the sheets.
            formats: What `formats` made for it.
            title: Of the first sheet; the second gets a 2 after it.
            columns: Names of the columns of a report, or `PICTURE`.
        """
        self._book, self._formats, self._title = book, formats, title
        self._places = {name: place for place, name in enumerate(columns)}
        self._parts = self._pictures = 0
        self._begin()
        self._first = self._sheet

    def append(self, cells: Mapping[str, Any], picture: bytes = b"") -> None:
        """Append a row.

        Args:
            cells: Text, numbers, or None or `""` for an empty cell, by the name of the column. `final` becomes a
                formula, and `corrected` a cell to type in where there is a `sha256` to answer to.
            picture: A PNG; the first few thousand are shown, and instead of others a word that there are no more.
        """
        if self._row == _MOST_ROWS:
            self.finish()
            self._begin()
        self._row += 1
        for name, place in self._places.items():
            value = cells.get(name)
            if name == "final":
                self._sheet.write_formula(self._row, place, self._final(), None, "" if value is None else value)
            elif isinstance(value, str) and value:
                look = self._formats["corrected"] if name == "corrected" else None
                self._sheet.write_string(self._row, place, safe(value), look)
            elif name == "corrected" and cells["sha256"]:
                self._sheet.write_blank(self._row, place, None, self._formats[name])
            elif isinstance(value, int | float):
                self._sheet.write_number(self._row, place, value)
        if picture and self._pictures < _MOST_PICTURES:
            self._pictures += 1
            self._sheet.insert_image(self._row, self._places[PICTURE], "picture.png", _placed(picture))
        elif picture:
            told = f"after {_MOST_PICTURES:,} pictures, no more"
            self._sheet.write_string(self._row, self._places[PICTURE], told, self._formats["tall text"])

    def finish(self) -> None:
        """Give the current sheet what covers all its rows."""
        last, right = max(self._row, 1), len(self._places) - 1
        self._sheet.autofilter(0, 0, last, right)
        self._sheet.print_area(0, 0, last, max(p for name, p in self._places.items() if name not in _UNPRINTED))
        for name, cover in (("confidence", self._colour), ("corrected", self._offer)):
            if name in self._places:
                cover(self._places[name], last)

    def _begin(self) -> None:
        self._parts += 1
        self._sheet = _sheet(self._book, self._title if self._parts == 1 else f"{self._title} {self._parts}")
        self._sheet.freeze_panes(1, self._places["corrected"] + 1 if PICTURE in self._places else 1)
        self._sheet.repeat_rows(0)
        is_tall = PICTURE in self._places
        if is_tall:
            self._sheet.set_default_row(_ROW_HEIGHT * 3 / 4)
        self._sheet.set_row(0, _HEADER_HEIGHT)
        text = self._formats["tall text" if is_tall else "text"]
        for name, place in self._places.items():
            look = text if name in {*_TEXTS, "corrected"} else self._formats.get(name)  # no input below the last row
            hidden = {"hidden": True} if name == "known" else {}
            self._sheet.set_column(place, place, min(_WIDTHS[name], _TALL_WIDTH if is_tall else 255), look, hidden)
            self._sheet.write_string(0, place, name, self._formats["head" if name in _TEXTS else "centred head"])
        if "corrected" in self._places:
            size = {"x_scale": 2.5, "y_scale": 1.2}
            self._sheet.write_comment(0, self._places["corrected"], _HOW_TO_ANSWER, {"author": "batchdigits", **size})
        self._row = 0

    def open_first(self) -> None:
        """Let the workbook open on the table's first sheet."""
        self._first.activate()

    def _colour(self, place: int, last: int) -> None:
        self._sheet.conditional_format(1, place, last, place, _COLOURS)

    def _offer(self, place: int, last: int) -> None:
        self._sheet.data_validation(1, place, last, place, _ANSWER)

    def _final(self) -> str:
        """Make the formula for the current row: an answer may have become a number when it was typed."""
        from xlsxwriter.utility import xl_rowcol_to_cell

        answer, status, digit = (
            xl_rowcol_to_cell(self._row, self._places[name]) for name in ("corrected", "status", "digit")
        )
        typed = f"TRIM({answer})"  # CODE tells a digit of its own from what only counts as one: 12, 1e3, -3
        is_digit = f"AND(LEN({typed})=1,CODE({typed})>47,CODE({typed})<58)"
        return f'IF({typed}="",IF({status}="{Status.OK}",{digit},""),IF({is_digit},VALUE({typed}),""))'


class Notes:
    """A sheet of lines to read."""

    def __init__(self, book: Workbook, formats: Mapping[str, Format], title: str, widths: Sequence[int]) -> None:
        """Begin the sheet, its columns as wide as `widths` says, in characters."""
        self._formats = formats
        self._sheet = _sheet(book, title)
        self._widths = widths
        self._sheet.fit_to_pages(1, 1)
        for place, width in enumerate(widths):
            self._sheet.set_column(place, place, width)
        self._row = 0

    def head(self, *cells: str) -> None:
        """Append a headline, after an empty line unless it is the first."""
        self._row += self._row > 0
        for place in range(len(self._widths)):
            look = self._formats["centred head" if place else "head"]
            self._sheet.write_string(self._row, place, "".join(cells[place : place + 1]), look)
        self._row += 1

    def line(self, note: str, *values: str | int | float | None) -> None:
        """Append a note and what belongs to it: text, a count, a share, or None for an empty cell."""
        texts = zip((note, *values), self._widths, strict=False)
        lines = max(_lines(text, width) for text, width in texts if isinstance(text, str))
        self._sheet.set_row(self._row, lines * _LINE)
        self._sheet.write_string(self._row, 0, safe(note), self._formats["note"])
        for place, value in enumerate(values, 1):
            if isinstance(value, str):
                self._sheet.write_string(self._row, place, safe(value), self._formats["note"])
            elif value is not None:
                look = "note count" if isinstance(value, int) else "note share"
                self._sheet.write_number(self._row, place, value, self._formats[look])
        self._row += 1

    def text(self, text: str) -> None:
        """Append a sentence or two over the whole width, in cells that get no height by themselves."""
        self._sheet.set_row(self._row, _lines(text, sum(self._widths)) * _LINE)
        self._sheet.merge_range(self._row, 0, self._row, len(self._widths) - 1, "", self._formats["note"])
        self._sheet.write_string(self._row, 0, safe(text), self._formats["note"])
        self._row += 1


def _lines(text: str, width: int) -> int:
    """Count the lines that a text takes in a cell of a width in characters."""
    return max(math.ceil(len(text) / (_FILLED * width)), 1)


def safe(text: str) -> str:
    r"""Spell a text so that a workbook can hold it and gives it back: what XML forbids becomes `_xHHHH_`.

    A text that looks like such an escape itself is escaped, too. What is longer than a cell is cut, and ends in an
    ellipsis.
    """
    if len(text) > _MOST_TEXT // 2 and len(units := text.encode("utf-16-le")) // 2 > _MOST_TEXT:
        text = units[: 2 * (_MOST_TEXT - 1)].decode("utf-16-le", "ignore") + "…"
    return _UNSAFE.sub(lambda found: f"_x{ord(found[0]):04X}_", text)


def _sheet(book: Workbook, title: str) -> Worksheet:
    sheet = book.add_worksheet(title)
    # Of two escapes that share an underscore XlsxWriter's own misses the second: `safe` has done it.
    sheet._escape_control_characters = _unchanged
    # It takes any text from <r> to </r> for markup.
    sheet._xml_rich_inline_string = lambda text, attributes: sheet._xml_inline_string(text, False, attributes)
    # It searches each formula for a hundred functions that are not in ours, in a quarter of the time for a row.
    sheet._prepare_formula = _unchanged
    sheet.set_landscape()
    sheet.set_paper(_A4)
    sheet.set_margins(left=0.4, right=0.4, top=0.5, bottom=0.6)
    sheet.fit_to_pages(1, 0)
    sheet.set_footer("&L&A&R&P / &N")
    return sheet


def _unchanged(text: str) -> str:
    return text


def _placed(picture: bytes) -> dict[str, Any]:
    """Say how a picture stands in the middle of its cell, its longer side as long as that of all others."""
    width, height = struct.unpack(">II", picture[16:24])  # of the header that every PNG begins with
    scale = _PICTURE_SIDE / max(width, height)
    return {
        "image_data": io.BytesIO(picture),
        **{"x_scale": scale, "x_offset": (_PICTURE_WIDTH - width * scale) / 2},
        **{"y_scale": scale, "y_offset": (_ROW_HEIGHT - height * scale) / 2},
        **{"object_position": 1, "decorative": True},  # it moves with its cell where people sort, and hides with it
    }

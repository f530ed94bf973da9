"""Read people's answers from an edited table into the ledger: all of them, or none and every wrong line named."""

import csv
import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path

from batchdigits.errors import StorageError, UsageError, escape_name, escaped
from batchdigits.ledger import answers
from batchdigits.ledger.answers import Key, KnownFile
from batchdigits.ledger.database import Database
from batchdigits.ledger.location import held, ledger_of
from batchdigits.records import Status
from batchdigits.reports.formats.csv import unguard
from batchdigits.reports.formats.parquet import text_columns
from batchdigits.reports.formats.xlsx import text_rows
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.guards import opened
from batchdigits.storage.local import opened_text, storage_errors
from batchdigits.storage.urls import refuse

log = logging.getLogger(__name__)

_COLUMNS = ("path", "page", "sha256", "corrected")
_NEEDED = ("path", "corrected")  # of a CSV; the path leads to the others
WITHDRAW = "withdraw"
"""What people write in the place of an answer, to take back the one that is known."""
_ANSWERS = frozenset("0123456789xc") | {WITHDRAW}
_WHOLE = re.compile(r"\A([0-9]+)[.,]0+\Z")
_EMPTY = hashlib.sha256(b"").hexdigest()
_MISPLACED = f"final is «{{}}», and corrected is empty; write answers into corrected, where {WITHDRAW} takes one back"
_MOST_PROBLEMS = 20  # lines that a message names
_MOST_HEADER = 65536  # characters; a longer first line is no header of ours
_MOST_SHOWN = 200  # characters of a cell in a message
_MOST_DIGITS = 9  # of a page's number


@dataclass(frozen=True, slots=True)
class _Cells:
    """What a line says, as it stands there."""

    sheet: str
    """Of a workbook, the sheet that the line is on; else empty."""
    line: int
    """From 1; of Parquet, the row."""
    path: str
    page: str
    sha256: str
    corrected: str
    is_typed: bool = True
    """Whether a person typed the answer there, as far as the table tells; else it was known when the table was made."""

    @property
    def where(self) -> str:
        """Name the line."""
        return f"line {self.line}" + (f" of {_brief(self.sheet)}" if self.sheet else "")


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a line cannot be taken in."""

    place: tuple[str, int]
    """The sheet, if there are any, and the line: what problems are ordered by."""
    what: str
    """What was found, and what was expected."""


def correct(report: TargetFile, corrections: Path, *, ledger: Path | None, time: datetime) -> str:
    """Take people's answers into the ledger of a report: all that a file holds, or none.

    Args:
        report: Any of a run; it leads to the ledger.
        corrections: A table with the columns path, page, sha256 and corrected, such as an edited copy of a report; its
            ending is one of `ENDINGS`. A CSV may lack page and sha256 where the path alone tells the page.
        ledger: Where it is; None is in the report's folder.
        time: What the answers are dated with.

    Returns:
        What was done, in one line; the reports are not made anew.

    Raises:
        UsageError: The file holds no such table, or a line cannot be taken in; all of them are named.
        StorageError: The file cannot be read; the ledger does not exist, is damaged, or cannot be written.
        Locked: A run holds the ledger.
    """
    refuse(corrections, "The table with the answers")
    if ledger:
        refuse(ledger, "The ledger")
    lines = ENDINGS.get(corrections.suffix.lower())
    if not lines:
        known = ", ".join(ENDINGS)
        message = (
            f"The ending of the corrections {escaped(str(corrections))} is unknown; save the table as one of {known}, "
            "and give that."
        )
        raise UsageError(message)
    place = ledger or ledger_of(report)
    with storage_errors(place, verb="read"):
        if not place.exists():
            message = (
                f"The ledger {escaped(str(place))} does not exist, so nothing is known of the report "
                f"{escaped(str(report))}; make the report with predict first, or name its ledger with --ledger."
            )
            raise StorageError(message)
    with storage_errors(corrections, verb="read"):
        opened(corrections).close()  # a pipe would be waited for
    table = [line for line in lines(corrections) if isinstance(line, _Problem) or line.corrected.strip()]
    with held(place, wait_seconds=0), Database(place) as database:
        answers.check(database)
        given, problems = _read(_located(table, database))
        for key in answers.unknown(database, given.keys()):
            what = "the ledger does not know these bytes; remove the line, or answer the file as it is now"
            problems.append(_problem(given[key], what))
        if problems:
            raise UsageError(_told(corrections, problems))
        found = {key: _answer(cells) for key, cells in given.items()}
        replaced = answers.replaced(database, found)
        for key in [key for key in replaced if not given[key].is_typed]:  # the ledger has a newer one
            del given[key], found[key], replaced[key]
        for key, before in list(replaced.items())[:_MOST_PROBLEMS]:
            becomes = "is withdrawn" if found[key] == WITHDRAW else f"becomes {found[key]}"
            log.warning("%s: the answer %s %s.", _where(given[key]), before, becomes)
        withdrawn = answers.withdraw(database, [key for key, answer in found.items() if answer == WITHDRAW])
        found = {key: answer for key, answer in found.items() if answer != WITHDRAW}
        source, timestamp = escape_name(str(corrections)), time.isoformat(timespec="seconds")
        new, changed = answers.store_answers(database, found, time=timestamp, source=source)
    count = f"{len(found):,} answer{'' if len(found) == 1 else 's'}"
    less = f", {withdrawn:,} withdrawn" if withdrawn else ""
    return f"{count} taken into {escaped(str(place))} ({new:,} new, {changed:,} changed{less})"


def _located(table: list[_Cells | _Problem], database: Database) -> Iterator[_Cells | _Problem]:
    """Find by their path what lines without a sha256 are about."""
    names = {_name(cells) for cells in table if isinstance(cells, _Cells) and _needs_place(cells)}
    known = answers.files_named(database, names) if names else {}
    for cells in table:
        if isinstance(cells, _Cells) and _needs_place(cells):
            yield _placed(cells, known.get(_name(cells), []))
        else:
            yield cells


def _needs_place(cells: _Cells) -> bool:
    return not cells.sha256


def _name(cells: _Cells) -> str:
    return cells.path.strip().removeprefix("./")


def _placed(cells: _Cells, files: list[KnownFile]) -> _Cells | _Problem:
    """Complete a line by the files that its path fits."""
    if not files:
        what = "the ledger knows no file of this path; write the path as the report has it, or add the column sha256"
        return _problem(cells, what)
    if len({file.sha256 for file in files}) > 1:
        several = " or ".join(escaped(file.path).replace("\\\\", "\\") for file in files[:2])
        return _problem(cells, f"the path may mean {several}; write more of its folders")
    if not cells.page and files[0].pages > 1:
        return _problem(cells, f"the file has {files[0].pages} pages; add the column page")
    return replace(cells, sha256=files[0].sha256, page=cells.page or "1")


def _read(lines: Iterable[_Cells | _Problem]) -> tuple[dict[Key, _Cells], list[_Problem]]:
    """Sort a table's answers by the page that they are about, and find what is wrong with others."""
    given: dict[Key, _Cells] = {}
    problems = []
    for cells in lines:
        if isinstance(cells, _Problem):
            problems.append(cells)
        elif what := _wrong(cells):
            problems.append(_problem(cells, what))
        else:
            key = (cells.sha256, int(_whole(cells.page)))
            first = given.setdefault(key, cells)
            if cells.is_typed > first.is_typed:
                given[key] = cells
            elif cells.is_typed == first.is_typed and _answer(first) != _answer(cells):
                what = f"the answer {_answer(cells)} is another than {_answer(first)} in {first.where}"
                problems.append(_problem(cells, f"{what}, and both are about the same bytes"))
    return given, problems


def _csv_lines(corrections: Path) -> Iterator[_Cells | _Problem]:
    """Give what the lines of a CSV say, whichever separator its header shows; Excel's «Unicode Text» has tabs.

    Bytes that are not UTF-8, as some spreadsheets write them, can only stand in columns that do not matter.
    """
    with (
        _table_errors(corrections),
        opened_text(corrections, errors="surrogateescape") as file,
    ):
        first = file.readline(_MOST_HEADER)
        headers = {separator: next(csv.reader([first], delimiter=separator), []) for separator in ",;\t"}
        separators = [separator for separator, names in headers.items() if _is_header(names)]
        if not separators:
            message = (
                f"The first line of the corrections {escaped(str(corrections))} does not name each of the columns "
                f"{' and '.join(_NEEDED)} once, and page and sha256 at most once, "
                f"separated by , or ; or tabs — it begins with «{_brief(first)}»."
            )
            raise UsageError(message)
        header = headers[separators[0]]
        places = [header.index(column) if column in header else -1 for column in _COLUMNS]
        # Strict, since a quotation mark that is never closed would hide all that follows.
        reader = csv.reader(chain([first], file), delimiter=separators[0], strict=True)
        next(reader)
        for row in reader:
            if len(row) > len(header):
                what = f"line {reader.line_num} has {len(row)} cells, but the first line {len(header)}"
                yield _Problem(("", reader.line_num), what)
                continue
            row += [""] * (len(header) - len(row))  # spreadsheets leave out empty cells at the end
            path, page, sha256, corrected = ("" if place < 0 else row[place] for place in places)
            cells = _Cells("", reader.line_num, unguard(path), page, sha256, corrected)
            final = _misplaced(dict(zip(header, row, strict=True)))
            yield _problem(cells, _MISPLACED.format(_brief(final))) if final else cells


def _misplaced(row: dict[str, str]) -> str:
    """Give what somebody wrote into `final` in the place of `corrected`; empty where nobody did."""
    status, digit, final = (_whole(row.get(column, "").strip()) for column in ("status", "digit", "final"))
    is_ours = not status or row["corrected"].strip() or final == (digit if status == Status.OK else "")
    return "" if is_ours else final


def _is_header(names: list[str]) -> bool:
    """Tell whether a first line names the columns that are needed, and none of ours twice."""
    return all(names.count(column) == 1 or (column not in names and column not in _NEEDED) for column in _COLUMNS)


def _parquet_rows(corrections: Path) -> Iterator[_Cells]:
    """Give what the rows of a Parquet file say."""
    with storage_errors(corrections, verb="read"):
        for row, (path, page, sha256, corrected) in enumerate(text_columns(corrections, _COLUMNS), 1):
            yield _Cells("", row, path, page, sha256, corrected)


def _xlsx_rows(corrections: Path) -> Iterator[_Cells]:
    """Give what the rows of a workbook say, sheet by sheet."""
    with storage_errors(corrections, verb="read"):
        for sheet, line, (path, page, sha256, corrected), known in text_rows(corrections, _COLUMNS):
            is_typed = corrected.strip().lower() != known
            answer = WITHDRAW if known and not corrected.strip() else corrected  # somebody emptied the cell
            yield _Cells(sheet, line, path, page, sha256, answer, is_typed)


ENDINGS: dict[str, Callable[[Path], Iterator[_Cells | _Problem]]] = {
    ".csv": _csv_lines,
    ".parquet": _parquet_rows,
    ".xlsx": _xlsx_rows,
}
"""How tables are read, by the ending of their name in lower case."""


@contextmanager
def _table_errors(corrections: Path) -> Iterator[None]:
    """Name the file in what reading it raises."""
    with storage_errors(corrections, verb="read"):
        try:
            yield
        except (csv.Error, UnicodeError) as error:
            message = (
                f"The corrections {escaped(str(corrections))} are no CSV: {error}; save them anew. None was taken in."
            )
            raise UsageError(message) from error


def _answer(cells: _Cells) -> str:
    return _whole(cells.corrected.strip().lower())


def _whole(cell: str) -> str:
    """Spell a whole number as whole: pandas writes 5.0 where a column has empty cells."""
    return _WHOLE.sub(r"\1", cell)


def _wrong(cells: _Cells) -> str:
    """Say what is wrong with an answer by itself; empty where nothing is."""
    if _answer(cells) not in _ANSWERS:
        return (
            f"«{_brief(cells.corrected)}» is no answer; expected a digit from 0 to 9, x for no digit, c where nobody "
            f"can tell, or {WITHDRAW}"
        )
    page = _whole(cells.page)
    if not (page.isascii() and page.isdecimal() and len(page) <= _MOST_DIGITS):
        return f"«{_brief(cells.page)}» is no page; expected a number from 1"
    if cells.sha256 == _EMPTY:
        return "the file is empty, and so are others: nobody can say what should stand in it"
    if not cells.sha256:
        return "without a sha256 nobody knows what it is about: a file that could not be read cannot be answered"
    return ""


def _problem(cells: _Cells, what: str) -> _Problem:
    return _Problem((cells.sheet, cells.line), f"{_where(cells)}: {what}")


def _where(cells: _Cells) -> str:
    page = f", page {_brief(cells.page)}" if cells.page else ""
    return f"{cells.where}, {_path(cells.path)}{page}"


def _path(cell: str) -> str:
    """Make a path safe for a terminal, as reports spell it: with its backslashes as they are."""
    return _brief(cell).replace("\\\\", "\\")


def _brief(cell: str) -> str:
    """Make the beginning of a cell safe for a terminal."""
    return escaped(cell[:_MOST_SHOWN]) + ("…" if len(cell) > _MOST_SHOWN else "")


def _told(corrections: Path, problems: list[_Problem]) -> str:
    """Name the lines that are wrong, as many as a person reads."""
    ordered = sorted(problems, key=lambda problem: problem.place)
    lines = [problem.what for problem in ordered[:_MOST_PROBLEMS]]
    if more := len(ordered) - len(lines):
        lines.append(f"and {more} more")
    head = f"The corrections {escaped(str(corrections))} cannot be taken in, and none of them was; correct these lines:"
    return "\n  ".join([head, *lines])

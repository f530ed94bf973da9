"""Write the workbook for people, with pictures and formulas; and read their answers back.

An answer is typed into the column `corrected` of Review or of Results. Review lists only rows that have no answer yet,
so that what stands in its cells was typed there; an answer that is known stands on Results, and is changed there. What
was known is kept in a hidden column, so that what people typed is told from it: neither an older answer nor that of a
copy of the image contradicts it. `final` follows
the `corrected` of its own row: no formula looks at another row or sheet, so that sorting and filtering break none.

The bytes depend on the rows and on `About` alone: neither on the clock nor on how the rows came in chunks.
"""

import tempfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from xml.etree.ElementTree import ParseError
from xml.parsers import expat

import numpy as np

from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.inference.audit import Audit
from batchdigits.inference.decisions import MAY_BE_NO_DIGIT
from batchdigits.records import DIGITS, Status
from batchdigits.reports.formats.about import described
from batchdigits.reports.formats.worksheet import PICTURE, Notes, Table, formats
from batchdigits.reports.schema import COLUMNS, About, Column, Kind, Rows
from batchdigits.settings import ReportSettings
from batchdigits.storage.guards import opened
from batchdigits.storage.local import storage_errors
from batchdigits.storage.scratch import scratch_folder

_CREATED = datetime(2000, 1, 1)
_COLUMNS = tuple(column for column in COLUMNS if column.kind is not Kind.PROBABILITIES)
_REVIEW = (
    *(PICTURE, "corrected", "digit", "confidence", "runner_up", "path", "page", "status", "detail", "final"),
    "sha256",
)
_RESULTS, _TO_ANSWER = "Results", "Review"  # titles of the sheets that people answer on
_MOST_TITLES = 20  # rows in which the names of the columns are looked for
_MOST_ROWS = 1_048_576  # of a sheet, in any spreadsheet program
_MOST_REASON = 200  # characters of what a library says
_NO_WORKBOOK = (zipfile.BadZipFile, zlib.error, ParseError, EOFError, RuntimeError)  # the last where it is encrypted
_KNOWN = "known"  # what stood in `corrected` when the workbook was made
_ERRORS = ("path", "page", "status", "detail")
_TO_REVIEW = frozenset({Status.REVIEW, Status.NOT_A_DIGIT, Status.BLANK})
_PARTS = (Status.REVIEW, Status.NOT_A_DIGIT, Status.BLANK, Status.OK)  # the last are those of the audit sample
_FAULTS = frozenset({Status.UNREADABLE, Status.TOO_LARGE, Status.UNSUPPORTED})


class XlsxReport:
    """A workbook being written."""

    def __init__(self, handle: BinaryIO, about: About, settings: ReportSettings) -> None:
        """Prepare to write.

        Args:
            handle: Where the bytes go: readable and seekable too, to check them in the end; stays open.
            about: Fills the sheet About, and tells Summary the threshold.
            settings: Nothing here depends on it: probabilities are for machines.
        """
        self._handle = handle
        self._about = about
        self._counts = _Counts()
        self._scratch = ExitStack()
        self._to_answer: list[tuple[dict[str, Any], bytes]] = []

    def __enter__(self) -> Self:
        """Begin the sheets."""
        import xlsxwriter

        with self._drafting():
            folder = self._scratch.enter_context(scratch_folder())
            options = {
                **{"constant_memory": True, "tmpdir": str(folder)},
                **{"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False},
            }
            self._sink = _Sink(self._handle)
            self._book = xlsxwriter.Workbook(self._sink, options)
            self._book.use_zip64()
            self._book.set_properties({"title": "Handwritten digits", "created": _CREATED})
            looks = formats(self._book)
            self._results = Table(self._book, looks, _RESULTS, [*(column.name for column in _COLUMNS), _KNOWN])
            self._review = Table(self._book, looks, _TO_ANSWER, _REVIEW)
            self._review.open_first()
            self._summary = Notes(self._book, looks, "Summary", widths=(58, 14, 14))
            self._errors = Table(self._book, looks, "Errors", _ERRORS)
            self._notes = Notes(self._book, looks, "About", widths=(84, 76))
        return self

    def write(self, rows: Rows) -> None:
        """Append a chunk of rows."""
        names = [column.name for column in _COLUMNS]
        columns = [_values(column, getattr(rows, column.name)) for column in _COLUMNS]
        with self._drafting():
            for values, verdict, thumbnail, audit in zip(
                zip(*columns, strict=True), rows.verdict, rows.thumbnail, rows.audit.tolist(), strict=True
            ):
                cells = dict(zip(names, values, strict=True))
                self._counts.add(cells, verdict=verdict, audit=audit)
                self._results.append({**cells, _KNOWN: cells["corrected"]})
                if (audit or cells["status"] in _TO_REVIEW) and not cells["corrected"]:
                    self._to_answer.append((cells, thumbnail))
                elif cells["status"] in _FAULTS:
                    self._errors.append(cells)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the file and check it; after an exception, only let go of it.

        Raises:
            StorageError: The file cannot be written, or cannot be read back.
        """
        try:
            if error is None:
                with self._drafting():
                    self._finish()
                self._check()
        finally:
            self._sink.handle = _Nowhere()
            for sheet in self._book.worksheets():
                with suppress(OSError):  # what is still in its buffer is not wanted
                    sheet.row_data_fh.close()
            self._scratch.close()

    def _finish(self) -> None:
        from xlsxwriter.exceptions import FileCreateError

        for cells, thumbnail in sorted(self._to_answer, key=_as_on_the_page):
            self._review.append(cells, thumbnail)
        for table in (self._results, self._review, self._errors):
            table.finish()
        _summarise(self._summary, self._counts, self._about)
        self._notes.head("How this report was made")
        for meaning, value in described(self._about):
            self._notes.line(meaning, value)
        try:
            self._book.close()
        except FileCreateError as error:
            [reason] = error.args  # an OSError
            raise reason from None

    def _check(self) -> None:
        self._handle.flush()
        try:
            with zipfile.ZipFile(self._handle) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            damaged = str(error)
        if damaged:
            message = f"{escaped(self._handle.name)} cannot be read back after writing ({damaged}); check the disk."
            raise StorageError(message)

    @contextmanager
    def _drafting(self) -> Iterator[None]:
        """Name the folder of the temporary files in what they raise; the handle's errors name the report."""
        try:
            yield
        except OSError as error:
            with storage_errors(f"The draft of {self._handle.name} in {tempfile.gettempdir()} (set by TMPDIR)"):
                raise error from None


def _as_on_the_page(row: tuple[dict[str, Any], bytes]) -> tuple[object, ...]:
    """Tell the place of a row on Review, as `html` does."""
    cells, _ = row
    digit = -1 if cells["digit"] is None else cells["digit"]
    is_digit = MAY_BE_NO_DIGIT not in cells["detail"]
    return _PARTS.index(cells["status"]), digit, is_digit, cells["confidence"] or 0.0, cells["path"], cells["page"]


class _Sink:
    """A file that can be exchanged: a zip archive that was given up still writes its end when it is collected."""

    def __init__(self, handle: "BinaryIO | _Nowhere") -> None:
        self.handle = handle

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)


class _Nowhere:
    """What takes the end of such an archive: no file, which may be collected, and so closed, before the archive is."""

    def __init__(self) -> None:
        self._place = 0

    def seek(self, place: int) -> int:
        """Go to a place."""
        self._place = place
        return place

    def tell(self) -> int:
        """Tell the place."""
        return self._place

    def write(self, data: bytes) -> int:
        """Go on by so much."""
        self._place += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing."""


class _Counts:
    """What Summary tells of the rows that have passed."""

    def __init__(self) -> None:
        self.status: Counter[str] = Counter()
        self.verdict: Counter[str] = Counter()
        self.digit: Counter[int | None] = Counter()
        self.final: Counter[int | None] = Counter()
        self.audit = Audit()

    def add(self, cells: dict[str, Any], *, verdict: str, audit: bool) -> None:
        """Count a row."""
        self.status[cells["status"]] += 1
        self.verdict[verdict] += 1
        self.digit[cells["digit"]] += 1
        self.final[cells["final"]] += 1
        if audit:
            self.audit.add(cells["sha256"], cells["page"], cells["digit"], cells["corrected"])


def _summarise(notes: Notes, counts: _Counts, about: About) -> None:
    rows = counts.status.total()
    notes.head("Rows by status", "rows", "share")
    for status in Status:
        notes.line(status, counts.status[status], _share(counts.status[status], rows))
    notes.line("all", rows)

    notes.head("Digits", "read", "final")
    for digit in range(DIGITS):
        notes.line(str(digit), counts.digit[digit], counts.final[digit])

    read = counts.verdict[Status.OK] + counts.verdict[Status.REVIEW]
    notes.head("What to expect", "", "share")
    notes.line("For review, of all digits that were read", None, _share(counts.verdict[Status.REVIEW], read))
    notes.text(f"A digit is ok from a confidence of {about.threshold:.2%} on.")
    notes.text(f"Trust: {about.trust}.")

    notes.head("The sample of ok rows that people should check", "rows", "share")
    audit = counts.audit
    notes.line("In the sample", audit.sample, _share(audit.sample, counts.verdict[Status.OK]))
    notes.line("Of these, answered", audit.answered, _share(audit.answered, audit.sample))
    notes.line("Of these, wrong", audit.wrong, _share(audit.wrong, audit.answered))

    notes.head("How to answer")
    notes.text(
        "Review shows what people should look at and have not answered yet; rows there that are ok, at its end, belong "
        "to the sample. Type the digit, x for «not a digit», or c for «cannot tell», into the column corrected."
    )
    notes.text(
        "Any other row is answered on Results, in the same column; answers that are known are changed or emptied there."
    )
    notes.text(
        "Then save this workbook and run: batchdigits correct REPORT WORKBOOK. That makes all reports of the run anew, "
        "with the answers in them; this sheet does not change before."
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _values(column: Column, values: Any) -> list[Any]:
    """Turn one column of `Rows` into cells: an empty number becomes None."""
    match column.kind:
        case Kind.COUNT:
            return [count or None for count in np.asarray(values).tolist()]
        case Kind.DIGIT:
            return [None if digit < 0 else digit for digit in values.tolist()]
        case Kind.FRACTION:
            return [None if value != value else value for value in values.tolist()]
        case _:
            return list(values)


def text_rows(path: Path, names: Sequence[str]) -> Iterator[tuple[str, int, tuple[str, ...], str]]:
    """Read some columns of a workbook as text, from every sheet with a row that names them, above it only titles.

    Yields:
        The sheet's title, the row's number from 1, its cells (a whole number has no point), and what stood in
        `corrected` when the workbook was made, where that was anything.

    Raises:
        UsageError: It is no workbook, no sheet has the columns, or one that should have them does not.
        OSError: It cannot be read.
    """
    import openpyxl

    found = False
    try:
        with warnings.catch_warnings(), opened(path) as file:
            _refuse_entities(file)
            warnings.simplefilter("ignore")  # about what openpyxl does not keep, and nobody here saves
            book = openpyxl.load_workbook(file, read_only=True, data_only=True, keep_links=False)
            for sheet in book.worksheets:
                sheet.reset_dimensions()  # some tools write wrong ones
                rows = zip(range(1, _MOST_ROWS + 2), sheet.iter_rows(values_only=True), strict=False)
                first = list(islice(rows, _MOST_TITLES))
                at = next((at for at, (_, row) in enumerate(first) if all(row.count(name) == 1 for name in names)), -1)
                if at < 0 and _should_hold_answers(sheet.title, first):
                    message = (
                        f"The sheet {escaped(sheet.title)} of {escaped(str(path))} has no row that names each of "
                        f"{', '.join(names)} once, so that nobody knows what is answered there; name its columns again."
                    )
                    raise UsageError(message)
                if at < 0:
                    continue
                found = True
                header = first[at][1]
                places = [header.index(name) for name in names]
                for number, row in chain(first[at + 1 :], rows):
                    if number > _MOST_ROWS:
                        message = f"its sheet {escaped(sheet.title)} counts to more rows than a sheet has"
                        raise ValueError(message)
                    cells = (*row, *[None] * (len(header) - len(row)))
                    known = _text(cells[header.index(_KNOWN)]) if _KNOWN in header else ""
                    yield sheet.title, number, tuple(_text(cells[place]) for place in places), known
    except (*_NO_WORKBOOK, OSError, LookupError, ValueError, TypeError) as error:
        if isinstance(error, OSError) and error.errno:  # without a number it is openpyxl's own
            raise
        reason = escaped(str(error)[:_MOST_REASON])
        message = f"{escaped(str(path))} is no workbook that can be read ({reason}); save it anew as .xlsx."
        raise UsageError(message) from error
    if not found:
        message = f"{escaped(str(path))} has no sheet with a row that names each of {', '.join(names)} once."
        raise UsageError(message)


def _refuse_entities(file: BinaryIO) -> None:
    """Refuse a workbook of which a part declares entities: a few lines of them expand to more than any memory holds.

    Raises:
        ValueError: One does.
    """

    def refuse(*_: object) -> None:
        message = "it declares entities, as no spreadsheet does"
        raise ValueError(message)

    def begun(*_: object) -> None:
        raise _BegunError

    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            parser = expat.ParserCreate()
            parser.StartDoctypeDeclHandler, parser.StartElementHandler = refuse, begun
            with suppress(_BegunError, expat.ExpatError), archive.open(member) as part:  # pictures are none
                parser.ParseFile(part)


class _BegunError(Exception):
    """The first element has begun, behind which nothing is declared any more."""


def _should_hold_answers(title: str, rows: Sequence[tuple[int, tuple[object, ...]]]) -> bool:
    """Tell whether a sheet is one of those that people answer on, by its title or a column's; an empty one is not."""
    cells = [cell for _, row in rows for cell in row if cell is not None]
    return bool(cells) and (title.startswith((_RESULTS, _TO_ANSWER)) or "corrected" in cells)


def _text(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell)

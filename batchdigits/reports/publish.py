"""Reports: decided rows in, files of every format out, whole and together.

`ENDINGS` is the list of formats: to add one, write a module with a class like `CsvReport` and enter it there.
"""

import io
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from batchdigits.errors import StorageError, UsageError, shown
from batchdigits.reports.formats.csv import CsvReport
from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.formats.parquet import ParquetReport
from batchdigits.reports.formats.xlsx import XlsxReport
from batchdigits.reports.schema import About, Rows
from batchdigits.settings import ReportSettings
from batchdigits.storage.atomic import atomic_write_all, storage_errors
from batchdigits.storage.remote import Place, RemoteFile, absolute, check, is_url, place

__all__ = ["ENDINGS", "STDOUT", "About", "Pipe", "Rows", "check_outputs", "publish"]


class Report(Protocol):
    """A report being written: a context manager with one verb."""

    def __enter__(self) -> Self:
        """Begin the report."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the report, or give it up after an exception."""

    def write(self, rows: Rows) -> None:
        """Append a chunk of rows."""


ENDINGS: dict[str, Callable[[BinaryIO, About, ReportSettings], Report]] = {
    ".csv": CsvReport,
    ".parquet": ParquetReport,
    ".xlsx": XlsxReport,
    ".html": HtmlReport,
}
"""The formats by the ending of a report's name, in lower case."""

PICTURED = frozenset({".xlsx", ".html"})
"""The formats that show thumbnails."""

STDOUT = "-"
"""The output that is CSV to standard output."""


def check_outputs(outputs: Sequence[str]) -> None:
    """Check that reports can be written, before any work is done.

    Args:
        outputs: Names of report files, or URLs, their endings in any case; `-` is CSV to standard output.

    Raises:
        UsageError: An ending is unknown, a report is given twice, or something that is not a file has its name; a URL
            is not spelled as it has to be, or what it needs is not installed.
        StorageError: A report's folder does not exist or cannot be written.
    """
    check(*outputs)
    seen = set()
    for output in outputs:
        if output != STDOUT:
            with storage_errors(output):
                _check_name(output)
        target = output if output == STDOUT else absolute(output) if is_url(output) else os.path.realpath(output)
        if target in seen:
            message = f"The report {shown(output)} is given twice; give each report once."
            raise UsageError(message)
        seen.add(target)
    for output in outputs:
        if output != STDOUT:
            with storage_errors(output):
                _check_folder(output)


def publish(
    chunks: Iterable[Rows],
    outputs: Sequence[str],
    *,
    about: About,
    settings: ReportSettings,
    stdout: BinaryIO,
    before: Callable[[Path, Place], bool] | None = None,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Write the rows into all reports at once, going through them a single time.

    Every file is complete, checked and on the disk before the first takes its name: after a failure all old reports
    stand as they were. Standard output cannot wait: it gets each chunk when it comes. If its reader leaves early, as
    `head` does, that is no failure: the files are written all the same.

    Args:
        chunks: The rows in the order of the report, in chunks of any size; may be empty.
        outputs: What `check_outputs` has passed.
        about: What the report was made by and under.
        settings: How rows are written.
        stdout: Where the output `-` goes; its bytes are flushed, and it stays open.
        before: Called before a file takes its name, as by `files.atomic_write_all`.
        together: What the files take their names in, as there.

    Raises:
        StorageError: A report could not be written.
    """
    places = [place(output) for output in outputs if output != STDOUT]
    with atomic_write_all(places, before=before, together=together) as handles, ExitStack() as reports:
        writers = [
            reports.enter_context(ENDINGS[report.suffix.lower()](handle, about, settings))
            for report, handle in zip(places, handles, strict=True)
        ]
        pipe = Pipe(stdout)
        if STDOUT in outputs:
            writers.append(reports.enter_context(CsvReport(pipe, about, settings)))
        for rows in chunks:
            for writer in writers:
                writer.write(rows)
            if pipe.abandoned and not places:
                break  # nobody is left to write for


class Pipe:
    """Standard output as a report: taken up to the moment that its reader leaves."""

    def __init__(self, stdout: BinaryIO) -> None:
        """Take a stream that stays open."""
        self.abandoned = False
        self._stdout = stdout

    def write(self, data: bytes) -> int:
        """Pass the bytes on at once; after the reader has left, drop them."""
        if not self.abandoned:
            try:
                with storage_errors("Standard output"):
                    self._stdout.write(data)
                    self._stdout.flush()
            except StorageError as error:
                self._abandon()
                if not isinstance(error.__cause__, BrokenPipeError):
                    raise
        return len(data)

    def _abandon(self) -> None:
        """Send what is still in the buffer nowhere, or Python fails on it once more when it exits.

        Source: https://docs.python.org/3/library/signal.html#note-on-sigpipe
        """
        self.abandoned = True
        with suppress(io.UnsupportedOperation):  # no file behind it, as in a test
            nowhere = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(nowhere, self._stdout.fileno())
            finally:
                os.close(nowhere)


def _check_name(output: str) -> None:
    path = place(output)
    if isinstance(path, Path) and path.exists() and not path.is_file():
        message = f"The report {shown(output)} is a folder or a special file; give the name of a file in a folder."
        raise UsageError(message)
    if path.suffix.lower() not in ENDINGS:
        known = ", ".join(ENDINGS)
        message = f"The ending of the report {shown(output)} is unknown; use one of {known}, or - for CSV to stdout."
        raise UsageError(message)


def _check_folder(output: str) -> None:
    report = place(output)
    if isinstance(report, RemoteFile):
        report.check()
        return
    folder = Path(os.path.realpath(output)).parent
    if not folder.is_dir():
        message = f"The folder of the report {shown(output)} does not exist; create {shown(str(folder))} first."
        raise StorageError(message)
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"There is no permission to write into {shown(str(folder))}; change it, or choose another folder."
        raise StorageError(message)

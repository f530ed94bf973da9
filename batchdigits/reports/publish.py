"""Write rows into reports of every format, whole and all together.

`ENDINGS` is the list of formats: to add one, write a module with a class like `CsvReport` and enter it there.
"""

import io
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import PurePath
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.reports.formats.csv import CsvReport
from batchdigits.reports.formats.html import HtmlReport
from batchdigits.reports.formats.parquet import ParquetReport
from batchdigits.reports.formats.xlsx import XlsxReport
from batchdigits.reports.schema import About, Rows
from batchdigits.settings import STDOUT, ReportSettings
from batchdigits.storage.atomic import Keeper, TargetFile, atomic_write_all
from batchdigits.storage.local import storage_errors
from batchdigits.storage.remote import target_file
from batchdigits.storage.urls import check

log = logging.getLogger(__name__)


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

_TWICE = "The report {} is given twice; give each report once."


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where the reports of a run go."""

    files: list[TargetFile]
    """Those that are files, in the order in which they were named."""
    to_stdout: bool
    """Whether standard output gets one, too, as CSV."""

    @property
    def show_pictures(self) -> bool:
        """Whether a report shows pages."""
        return any(_ending(file) in PICTURED for file in self.files)


def parse_outputs(outputs: Sequence[str]) -> Outputs:
    """Tell what a user means by the names of reports.

    Args:
        outputs: Names of report files, or URLs; `-` is CSV to standard output.

    Raises:
        UsageError: A URL is not spelled as it has to be, or `-` is given twice.
    """
    check(*outputs)
    if outputs.count(STDOUT) > 1:
        raise UsageError(_TWICE.format(STDOUT))
    return Outputs([target_file(output) for output in outputs if output != STDOUT], STDOUT in outputs)


def check_outputs(outputs: Outputs) -> None:
    """Check that reports can be written, before any work is done.

    Args:
        outputs: The reports; endings in any case.

    Raises:
        UsageError: An ending is unknown, a report is given twice, or something that is not a file has its name; or
            what its URL needs is not installed.
        StorageError: A report's folder does not exist or cannot be written.
    """
    seen = set()
    for file in outputs.files:
        with storage_errors(file):
            _check_name(file)
        if file.target in seen:
            raise UsageError(_TWICE.format(escaped(str(file))))
        seen.add(file.target)
    for file in outputs.files:
        with storage_errors(file):
            file.check("the report ")


def without_folders(outputs: Outputs) -> list[TargetFile]:
    """Give the reports whose folder is missing on this machine."""
    folders = [(file, file.target.folder) for file in outputs.files]  # where a link leads
    return [file for file, folder in folders if folder and not folder.is_dir()]


def make_folders(files: Iterable[TargetFile]) -> None:
    """Make the folders of reports that are missing.

    Raises:
        StorageError: One cannot be made.
    """
    for file in files:
        folder = file.target.folder
        if folder and not folder.is_dir():  # for another report, it may just have been made
            with storage_errors(file):
                folder.mkdir(parents=True)
            log.info("Made the folder %s.", escaped(str(folder)))


def publish(
    chunks: Iterable[Rows],
    outputs: Outputs,
    *,
    about: About,
    settings: ReportSettings,
    stdout: BinaryIO,
    keeper: Keeper | None = None,
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
        keeper: Looks at each file that is replaced, as in `atomic.atomic_write_all`.
        together: What the files take their names in, as there.

    Raises:
        StorageError: A report could not be written.
    """
    with (
        atomic_write_all(outputs.files, keeper=keeper, together=together) as handles,
        ExitStack() as reports,
    ):
        writers = [
            reports.enter_context(ENDINGS[_ending(report)](handle, about, settings))
            for report, handle in zip(outputs.files, handles, strict=True)
        ]
        pipe = Pipe(stdout)
        if outputs.to_stdout:
            writers.append(reports.enter_context(CsvReport(pipe, about, settings)))
        for rows in chunks:
            for writer in writers:
                writer.write(rows)
            if pipe.abandoned and not outputs.files:
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


def _ending(file: TargetFile) -> str:
    return PurePath(file.name).suffix.lower()


def _check_name(file: TargetFile) -> None:
    name = escaped(str(file))
    if file.is_special():
        message = f"The report {name} is a folder or a special file; give the name of a file in a folder."
        raise UsageError(message)
    if _ending(file) not in ENDINGS:
        known = ", ".join(ENDINGS)
        message = f"The ending of the report {name} is unknown; use one of {known}, or - for CSV to stdout."
        raise UsageError(message)

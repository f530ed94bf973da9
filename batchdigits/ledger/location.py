"""Where a ledger is, which one a report belongs to, and its lock: one run at a time.

The lock is an flock on a hidden file beside the ledger, which stays there. It holds who has the lock, for the message.
The system takes it away when the process ends, however it does.
"""

import datetime
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from batchdigits.errors import Locked, StorageError, UsageError, shown
from batchdigits.ledger.database import glimpse
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.local import LocalFile, fitting, storage_errors

_ENDINGS = ("", ".ledger", ".db", ".sqlite", ".sqlite3")  # that people give ledgers, in lower case
_PUBLISHED = "SELECT path, sha256 FROM reports"
_ITS_NAME = 2  # how sure a ledger is that is called after the report, among the numbers of `_likeness`


@contextmanager
def held(ledger: Path, *, wait_seconds: float) -> Iterator[None]:
    """Hold the lock of a ledger.

    Args:
        ledger: Its file, which need not exist.
        wait_seconds: How long to wait for another run to let go of it.

    Raises:
        Locked: Another run still holds it.
        StorageError: The lock's file cannot be written.
    """
    path = _lock_of(ledger)
    lock = FileLock(path)
    with storage_errors(path):
        path.open("ab").close()  # else the lock would make a folder that is missing
        try:
            lock.acquire(timeout=wait_seconds, poll_interval=0.2)
        except Timeout:
            message = (
                f"Another run holds the ledger {shown(str(ledger))}{_holder(path)}; try again when it has ended, or "
                "let predict wait with --wait."
            )
            raise Locked(message) from None
    try:
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with storage_errors(path):
            path.write_text(f"pid {os.getpid()} on {socket.gethostname()} since {started}\n")
        yield
    finally:
        lock.release()


@contextmanager
def copied(ledger: Path) -> Iterator[Path]:
    """Copy a ledger, as it is between two runs, into a folder that goes; give the copy's path.

    Not even opening it for reading would leave it alone: SQLite mends what a killed run left.

    Raises:
        Locked: A run holds it.
        StorageError: It cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="batchdigits-") as folder:
        copy = Path(folder, "ledger")
        with _undisturbed(ledger), storage_errors(ledger, verb="read"):
            for suffix in ("", "-journal"):
                if (original := Path(f"{os.path.realpath(ledger)}{suffix}")).exists():
                    shutil.copyfile(original, f"{copy}{suffix}")
        yield copy


@contextmanager
def _undisturbed(ledger: Path) -> Iterator[None]:
    """Keep other runs away without writing anything, as for a look at a ledger that may not exist.

    Raises:
        Locked: A run holds the ledger.
        StorageError: The lock's file cannot be read.
    """
    path = _lock_of(ledger)
    with ExitStack() as stack:
        with storage_errors(path, verb="read"), suppress(FileNotFoundError):  # nobody ever held it
            file = stack.enter_context(path.open("rb"))
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                message = (
                    f"Another run holds the ledger {shown(str(ledger))}{_holder(path)}; try again when it has ended."
                )
                raise Locked(message) from None
        yield


def _lock_of(ledger: Path) -> Path:
    real = Path(os.path.realpath(ledger))  # a link to it has the same lock
    return real.with_name(fitting(f".{real.name}", ".lock"))


def _holder(path: Path) -> str:
    """Say who holds the lock, where that can be read."""
    with suppress(OSError, UnicodeDecodeError):
        if text := path.read_text().strip():
            return f": {shown(text)}"
    return ""


def beside(report: TargetFile) -> Path:
    """Name the ledger that a report has where nobody names another.

    SQLite needs a disk: that of a report behind a URL is on this machine, among the user's own files.
    """
    return report.here.with_name(fitting(report.here.name, ".ledger"))


def ledger_path(reports: Sequence[TargetFile], *, named: Path | None, no_ledger: bool) -> Path | None:
    """Say where the ledger is; None where nothing is kept, as for standard output alone.

    Args:
        reports: Those of the run that are files.
        named: The ledger that the user names.
        no_ledger: Nothing is to be kept.

    Raises:
        UsageError: A report has its name; or reports, in another order than before, would begin a new one.
    """
    if named and LocalFile(named).target in [report.target for report in reports]:
        message = f"The ledger {shown(str(named))} is also a report; give one of them another name."
        raise UsageError(message)
    if no_ledger or named:
        return named
    places = [beside(report) for report in reports]
    known = next((place for place in places if place.exists()), None)
    if known and known != places[0]:
        message = (
            f"The ledger of these reports is {shown(str(known))}; name the report that it is called after first, or "
            "name a ledger with --ledger."
        )
        raise UsageError(message)
    return places[0] if places else None


def ledger_of(report: TargetFile) -> Path:
    """Find the ledger of a report: of those in its folder, the one that knows most of it, and of such the newest.

    Each of a run's reports leads to the run's ledger, not only the first.

    Returns:
        The ledger; where none knows the report, the one that would be called after it.
    """
    target = report.target
    sha256 = ""
    with suppress(StorageError):
        sha256 = "" if target.is_remote else target.sha256()  # a URL tells enough
    own = beside(report)
    best, found = (0, 0), own
    for ledger, mtime_ns in _ledgers_in([own.parent, beside(target).parent]):
        sure = max(
            (_likeness(path, published, target, sha256) for path, published in glimpse(ledger, _PUBLISHED)), default=0
        )
        rank = (max(sure, _ITS_NAME if ledger == own else 0), mtime_ns)
        if rank[0] and rank > best:
            best, found = rank, ledger
    return found


def _likeness(path: bytes, published: str, target: TargetFile, sha256: str) -> int:
    """Tell how sure it is that a ledger published a report, which may be edited, or in a folder that was moved."""
    is_there = path == bytes(target)
    is_called_so = path.rpartition(b"/")[2] == os.fsencode(target.name)
    if published == sha256:
        return 5 if is_there else 4 if is_called_so else 0
    return 3 if is_there else 1 if is_called_so else 0


def _ledgers_in(folders: list[Path]) -> Iterator[tuple[Path, int]]:
    """Give what may be a ledger, and the time of its last change."""
    for folder in folders:
        with suppress(OSError):
            for file in sorted(folder.iterdir()):
                if file.suffix.lower() in _ENDINGS and file.is_file():
                    yield file, file.stat().st_mtime_ns

"""Say where a ledger is and which one a report belongs to, and lock it, so that one run at a time uses it.

The lock is an flock on a hidden file beside the ledger, which stays there. It holds who has the lock, for the message.
The system takes it away when the process ends, however it does.
"""

import datetime
import fcntl
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from batchdigits.errors import Locked, StorageError, UsageError, escaped
from batchdigits.ledger.database import glimpse
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.guards import PRIVATE, locked, opened
from batchdigits.storage.local import LocalFile, fitting, storage_errors
from batchdigits.storage.scratch import scratch_folder

_HOLDER = re.compile(r"pid (?P<pid>[0-9]{1,19}) on (?P<host>\S+) since \S+")
_MOST_TEXT = 1000  # bytes of a lock that are read
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
    place = checked(ledger)
    path = _lock_of(place)
    with ExitStack() as stack:
        with storage_errors(path):
            try:
                lock = stack.enter_context(locked(path, wait_seconds=wait_seconds, mode=_mode(place)))
            except BlockingIOError:
                message = (
                    f"Another run holds the ledger {escaped(str(ledger))}{_holder(path)}; try again when it has ended, "
                    "or let predict wait with --wait."
                )
                raise Locked(message) from None
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            _write(lock, f"pid {os.getpid()} on {socket.gethostname()} since {started}\n")
        try:
            yield
        finally:
            with suppress(OSError):  # a full disk
                _write(lock, "")


def checked(ledger: Path) -> Path:
    """Refuse what SQLite would wait for or be led astray by, and say where a ledger is.

    Returns:
        Its absolute path, without links; nothing need be there.

    Raises:
        StorageError: Something that is no file has its name, or that of a file which SQLite keeps beside it; a link is
            somebody else's; or a journal is, which would change the ledger.
    """
    place = LocalFile(ledger).target.path
    owners = {0, os.geteuid()}
    for suffix in ("", "-journal", "-wal", "-shm"):
        file = Path(f"{place}{suffix}")
        with storage_errors(file, verb="read"), suppress(FileNotFoundError, NotADirectoryError):
            status = file.lstat()
            owners |= set() if suffix else {status.st_uid}
            if not stat.S_ISREG(status.st_mode):
                message = f"{escaped(str(file))} is no file, as a ledger needs; remove it, or name another ledger."
                raise StorageError(message)
            if status.st_uid not in owners:
                message = (
                    f"{escaped(str(file))} is a file of another user (uid {status.st_uid}), who may want it to change "
                    "the ledger; remove it, or choose another folder."
                )
                raise StorageError(message)
    return place


def _mode(ledger: Path) -> int:
    """Say who may hold the lock: who may write the ledger, and nobody who only reads it."""
    with suppress(OSError):
        if ledger.stat().st_mode & stat.S_IWGRP:
            return PRIVATE | stat.S_IRGRP | stat.S_IWGRP
    return PRIVATE


def _write(lock: int, text: str) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, text.encode(), 0)


@contextmanager
def copied(ledger: Path) -> Iterator[Path]:
    """Copy a ledger, as it is between two runs, into a folder that goes; give the copy's path.

    Not even opening it for reading would leave it alone: SQLite mends what a killed run left.

    Raises:
        Locked: A run holds it.
        StorageError: It cannot be read.
    """
    with ExitStack() as stack:
        with storage_errors("A temporary folder"):
            copy = stack.enter_context(scratch_folder()) / "ledger"
        with _undisturbed(ledger), storage_errors(ledger, verb="read"):
            for suffix in ("", "-journal"):
                if (original := Path(f"{checked(ledger)}{suffix}")).exists():
                    shutil.copyfile(original, f"{copy}{suffix}")
        yield copy


@contextmanager
def _undisturbed(ledger: Path) -> Iterator[None]:
    """Keep other runs away without writing anything, as for a look at a ledger that may not exist.

    Raises:
        Locked: A run holds the ledger.
        StorageError: The lock's file cannot be read.
    """
    path = _lock_of(checked(ledger))
    with ExitStack() as stack:
        with storage_errors(path, verb="read"), suppress(FileNotFoundError):  # nobody ever held it
            file = stack.enter_context(opened(path, follow=False))
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                message = (
                    f"Another run holds the ledger {escaped(str(ledger))}{_holder(path)}; try again when it has ended."
                )
                raise Locked(message) from None
        yield


def _lock_of(ledger: Path) -> Path:
    """Name the lock of a ledger, whose own name is no link, so that a link to it has the same lock."""
    return ledger.with_name(fitting(f".{ledger.name}", ".lock"))


def _holder(path: Path) -> str:
    """Say who holds the lock, where that can be read, and is no process of this machine that is gone."""
    with suppress(OSError, UnicodeDecodeError):
        with opened(path, follow=False) as file:
            text = file.read(_MOST_TEXT).decode().strip()
        told = _HOLDER.fullmatch(text)
        if told and not (told["host"] == socket.gethostname() and _is_gone(int(told["pid"]))):
            return f": {escaped(text)}"
    return ""


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:  # another user's
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return False


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
        UsageError: A report has its name; or reports, in another order than before or without the first of them,
            would begin a new one, which knows no answers.
    """
    if named and LocalFile(named).target in [report.target for report in reports]:
        message = f"The ledger {escaped(str(named))} is also a report; give one of them another name."
        raise UsageError(message)
    if no_ledger or named:
        return named
    places = [beside(report) for report in reports]
    known = next((place for place in places if place.exists()), None) or _of_a_run_before(reports)
    if known and known != places[0]:
        message = (
            f"The ledger of these reports is {escaped(str(known))}; name the report that it is called after first, or "
            "name a ledger with --ledger."
        )
        raise UsageError(message)
    return places[0] if places else None


def _of_a_run_before(reports: Sequence[TargetFile]) -> Path | None:
    """Find the ledger of a run that published one of these reports, and that is called after another of its own.

    One that somebody renamed is none: so a damaged ledger is moved away.
    """
    for report in reports:
        if not report.target.is_remote and report.exists():
            ledger, sure = _likeliest(report)
            if sure > _ITS_NAME and ledger.name in _names_after_reports(ledger):
                return ledger
    return None


def _names_after_reports(ledger: Path) -> set[str]:
    """Give the names that a ledger has beside each of the reports that it published."""
    paths = [path for path, _ in glimpse(ledger, _PUBLISHED) if isinstance(path, bytes)]
    return {fitting(os.fsdecode(path.rpartition(b"/")[2]), ".ledger") for path in paths}


def ledger_of(report: TargetFile) -> Path:
    """Find the ledger of a report: of those in its folder, the one that knows most of it, and of such the newest.

    Each of a run's reports leads to the run's ledger, not only the first.

    Returns:
        The ledger; where none knows the report, the one that would be called after it.
    """
    return _likeliest(report)[0]


def _likeliest(report: TargetFile) -> tuple[Path, int]:
    """Find the ledger of a report, and tell how sure that is; 0 where none knows it."""
    target = report.target
    sha256 = ""
    with suppress(StorageError):
        sha256 = "" if target.is_remote else target.sha256()  # a URL tells enough
    own = beside(report)
    best, found = (0, 0), own
    for ledger, mtime_ns in _ledgers_in([own.parent, beside(target).parent]):
        sure = max(
            (
                _likeness(path, published, target, sha256)
                for path, published in glimpse(ledger, _PUBLISHED)
                if isinstance(path, bytes)
            ),
            default=0,
        )
        rank = (max(sure, _ITS_NAME if ledger == own else 0), mtime_ns)
        if rank[0] and rank > best:
            best, found = rank, ledger
    return found, best[0]


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

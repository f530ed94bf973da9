"""A report in; the ledger of the run that made it out: each of a run's reports leads there, not only the first."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from batchdigits.database import beside, glimpse
from batchdigits.errors import StorageError
from batchdigits.files import standing_sha256
from batchdigits.remote import Place

_ENDINGS = ("", ".ledger", ".db", ".sqlite", ".sqlite3")  # that people give ledgers, in lower case
_PUBLISHED = "SELECT path, sha256 FROM reports"
_ITS_NAME = 2  # how sure a ledger is that is called after the report, among the numbers of `_likeness`


def ledger_of(report: Place) -> Path:
    """Find the ledger of a report: of those in its folder, the one that knows most of it, and of such the newest.

    Returns:
        The ledger; where none knows the report, the one that would be called after it.
    """
    target = Path(os.path.realpath(report)) if isinstance(report, Path) else report
    sha256 = ""
    with suppress(StorageError):
        sha256 = standing_sha256(target) if isinstance(target, Path) else ""  # a URL tells enough
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


def _likeness(path: bytes, published: str, target: Place, sha256: str) -> int:
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

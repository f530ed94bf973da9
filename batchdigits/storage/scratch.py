"""Give places for what is not to last: folders, of which those that killed runs left go, and nameless files.

Whoever uses a folder holds an flock on it, which the system takes away when the process ends, however it does.
"""

import fcntl
import heapq
import os
import pickle
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import Generic, TypeVar

from batchdigits.storage.local import storage_errors

T = TypeVar("T")

_PREFIX = "batchdigits-scratch-"
_MEMORY_BYTES = 2 * 2**20  # that a spool takes before it lies on the disk
_SORTED_AT_A_TIME = 16_384  # records
_SHORT = "/tmp"  # noqa: S108  (the folders in it have random names, and only we enter them)
_MOST_CHARACTERS = 4096
_TRIES = 10  # another run may take a folder for one that was left, in the moment before it is locked


@contextmanager
def scratch_folder(*, most_characters: int = _MOST_CHARACTERS) -> Iterator[Path]:
    """Give a new folder, among the system's temporary files, that nobody else reads; it goes on leaving.

    Args:
        most_characters: Of its path; where that of the system's temporary files is too long, it lies in `/tmp`.

    Raises:
        OSError: None can be made.
    """
    is_short = len(tempfile.gettempdir()) + len(f"/{_PREFIX}12345678") <= most_characters
    for _ in range(_TRIES):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=None if is_short else _SHORT))
        if (lock := _locked(folder)) is not None:
            break
    else:
        message = f"the folders made in {tempfile.gettempdir()} do not stay"
        raise OSError(message)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def tidy_up() -> None:
    """Remove the folders of this user that nobody uses any more; trouble with that is none."""
    for folder in {tempfile.gettempdir(), _SHORT}:
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(_PREFIX) and (lock := _locked(Path(entry.path))) is not None:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(lock)


def _locked(folder: Path) -> int | None:
    """Lock a folder of this user; None where somebody uses it, or it is gone."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(lock)
        if status.st_uid == os.geteuid() and os.path.samestat(status, folder.lstat()):
            return lock
    os.close(lock)
    return None


class Spool(Generic[T]):
    """Blocks of records that were made here; many of them lie in a file without a name, which nothing outlives."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115  (it goes with this object)
        weakref.finalize(self, self._file.close)
        self._ends = [0]

    def __len__(self) -> int:
        """Count the blocks."""
        return len(self._ends) - 1

    def add(self, block: list[T]) -> None:
        """Put a block at the end.

        Raises:
            StorageError: The disk is full.
        """
        with storage_errors(_named()):
            self._file.seek(self._ends[-1])
            self._file.write(pickle.dumps(block, pickle.HIGHEST_PROTOCOL))
            self._ends.append(self._file.tell())

    def __getitem__(self, at: int) -> list[T]:
        """Give a block by its place."""
        with storage_errors(_named(), verb="read"):
            self._file.seek(self._ends[at])
            block: list[T] = pickle.loads(self._file.read(self._ends[at + 1] - self._ends[at]))  # noqa: S301
        return block

    def __iter__(self) -> Iterator[T]:
        """Give the records in their order; others may be added and read meanwhile."""
        return chain.from_iterable(self[at] for at in range(len(self)))


def _named() -> str:
    return f"A temporary file in {tempfile.gettempdir()} (TMPDIR says where they lie)"


def in_order(records: Iterable[T], key: Callable[[T], object]) -> Iterator[T]:
    """Sort records, all of which are taken before the first is given, without holding them all; equal ones stay apart.

    Args:
        records: As many as there are.
        key: What they are sorted by.
    """
    records = iter(records)
    first = sorted(islice(records, _SORTED_AT_A_TIME), key=key)  # type: ignore[arg-type]
    if len(first) < _SORTED_AT_A_TIME:
        return iter(first)
    runs = [_spooled(first)]
    while run := sorted(islice(records, _SORTED_AT_A_TIME), key=key):  # type: ignore[arg-type]
        runs.append(_spooled(run))
    return heapq.merge(*runs, key=key)  # type: ignore[arg-type]


def _spooled(records: list[T], block: int = 256) -> Spool[T]:
    spool: Spool[T] = Spool()
    for at in range(0, len(records), block):
        spool.add(records[at : at + block])
    return spool

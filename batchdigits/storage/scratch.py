"""Give folders for what is not to last, and remove those that killed runs left.

Whoever uses one holds an flock on it, which the system takes away when the process ends, however it does.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "batchdigits-scratch-"
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

"""Open and replace files in folders that others may write: follow no planted link, and wait for no pipe.

A name that somebody else made leads nowhere: a symbolic link counts where it is root's or this user's own. What is
expected to be a file is one, or is refused at once.
"""

import ctypes
import errno
import fcntl
import io
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from batchdigits.errors import StorageError, escaped

PRIVATE = 0o600
"""The mode of what nobody but its owner needs to open."""

_MOST_LINKS = 40  # that follow one another; more are a circle, as for Linux
_POLL_SECONDS = 0.2
_PATH_BYTES = 4096  # that Linux takes at once
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_ENTRY = _FILE | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_AT_FDCWD, _RENAME_NOREPLACE, _RENAME_EXCHANGE = -100, 1, 2


def resolved(path: Path) -> Path:
    """Say where a file's name leads: links are followed as far as they may be trusted.

    Args:
        path: Of a file that need not exist.

    Returns:
        An absolute path without links.

    Raises:
        StorageError: A link is somebody else's, leads to nothing, or in a circle.
        OSError: It cannot be asked.
    """
    here = _place(path)
    for _ in range(_MOST_LINKS):
        try:
            status = here.lstat()
        except (FileNotFoundError, NotADirectoryError):
            if here == _place(path):
                return here
            message = (
                f"{escaped(str(path))} is a symbolic link to {escaped(str(here))}, which does not exist, and nothing "
                "is made through a link; name that file itself, or remove the link."
            )
            raise StorageError(message) from None
        if not stat.S_ISLNK(status.st_mode):
            return here
        if status.st_uid not in (0, os.geteuid()):
            message = (
                f"{escaped(str(here))} is a symbolic link of another user (uid {status.st_uid}), who may want it to "
                "lead you elsewhere; remove it, or choose another folder."
            )
            raise StorageError(message)
        here = _place(here.parent / here.readlink())
    message = f"{escaped(str(path))} is a symbolic link that leads in a circle; remove it, or name another file."
    raise StorageError(message)


def _place(path: Path) -> Path:
    """Make a path absolute, without links but for its last part."""
    if path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent), path.name)


def opened(path: Path, *, follow: bool = True) -> io.BufferedReader:
    """Open a file for reading.

    Args:
        path: Its name.
        follow: Take the file that a symbolic link leads to.

    Raises:
        OSError: It is none, which is not waited for, or cannot be opened.
    """
    descriptor = os.open(path, _FILE | (0 if follow else os.O_NOFOLLOW))
    try:
        refuse_special(descriptor)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def opened_folder(path: str, top: str) -> int:
    """Open a folder that lies below another one; of its path, the other's alone may lead over links.

    Args:
        path: Absolute, and begins with `top`.
        top: Absolute, with a slash at its end.

    Returns:
        Its descriptor, for `dir_fd` or `os.scandir`.

    Raises:
        OSError: It is not there any more, or too deep; NotADirectoryError where a link took the place of a folder.
    """
    if len(os.fsencode(path)) >= _PATH_BYTES:  # whoever makes folders without an end would keep us for ever
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    folder = os.open(top, _FOLDER)
    for name in path[len(top) :].split("/"):
        if name:
            try:
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            finally:
                os.close(folder)
            folder = below
    return folder


class Sources:
    """Opens files of some sources, and nothing that lies outside, whatever takes a name's place: a context manager.

    The folder of the last file stays open for the next one: those of a folder mostly come together.
    """

    def __init__(self, named: Iterable[str]) -> None:
        """Take absolute paths that a user named, of folders and files; what these lead to counts, links or not."""
        self._named = frozenset(named)
        self._tops = sorted((f"{path.rstrip('/')}/" for path in self._named), key=len, reverse=True)
        self._folder: str | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Nothing is open yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the folder that is still open."""
        if self._folder is not None:
            os.close(self._descriptor)
            self._folder = None

    def open(self, path: str) -> int:
        """Open a file for reading; what is no file is not waited for.

        Args:
            path: Absolute.

        Raises:
            OSError: It cannot be opened; or a link to what lies outside, or in place of a folder, took its place.
        """
        if path in self._named:
            return os.open(path, _FILE)
        folder, _, name = path.rpartition("/")
        try:
            if folder == self._folder:
                return os.open(name, _ENTRY, dir_fd=self._descriptor)
            if top := next((top for top in self._tops if path.startswith(top)), ""):
                return self._open(folder, name, top)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return self._open_link(path)
        return os.open(path, _FILE)

    def _open_link(self, path: str) -> int:
        """Open what a link leads to, where that lies in a source."""
        real = os.path.realpath(path)
        folder, _, name = real.rpartition("/")
        for top in self._tops:
            if real.startswith(real_top := f"{os.path.realpath(top).rstrip('/')}/"):
                return self._open(folder, name, real_top)
        if not os.path.exists(real):  # noqa: PTH110
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise OSError(errno.EXDEV, "it is a symbolic link that leads out of the source now")

    def _open(self, folder: str, name: str, top: str) -> int:
        if folder != self._folder:
            self.__exit__()
            try:
                self._descriptor = opened_folder(folder, top)
            except NotADirectoryError as error:
                message = "a folder of its path was replaced after it was found"
                raise OSError(errno.ENOTDIR, message) from error
            self._folder = folder
        return os.open(name, _ENTRY, dir_fd=self._descriptor)


def refuse_special(descriptor: int) -> None:
    """Refuse what is open and no file.

    Raises:
        OSError: It is a pipe, a device or a socket; or a folder.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.ENODEV, "it is a pipe, a device or a socket")


@contextmanager
def locked(path: Path, *, wait_seconds: float, mode: int = PRIVATE) -> Iterator[int]:
    """Hold an flock on a file that is made where it is missing, and stays there.

    Args:
        path: Its name; no link has it.
        wait_seconds: How long to wait for whoever holds it.
        mode: Its permissions: who may open it may hold it, too.

    Yields:
        Its descriptor, to read and write.

    Raises:
        BlockingIOError: Somebody still holds it.
        OSError: It cannot be opened, or is no file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    try:
        refuse_special(descriptor)
        status = os.fstat(descriptor)
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) != mode:  # an older version's, or the umask
            with suppress(OSError):  # a file system without permissions
                os.fchmod(descriptor, mode)
        _lock(descriptor, until=time.monotonic() + wait_seconds)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, until: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left = until - time.monotonic()
            if left <= 0:
                raise
            time.sleep(min(left, _POLL_SECONDS))


def put_in_place(draft: Path, path: Path) -> Path | None:
    """Give a finished file its name, so that nothing that has it until that moment is lost.

    Where the file system can, the two exchange their names; else what stands there goes, whatever it became just now.

    Args:
        draft: The file, in the same folder.
        path: Its name, which another file may have.

    Returns:
        Where the other file is now; None where there was none, or it is gone.
    """
    for _ in range(_MOST_LINKS):  # others may make and remove that name meanwhile
        is_there = os.path.lexists(path)
        if is_there and (path.is_symlink() or not path.is_file()):
            break  # what is no file is nobody's work
        number = _rename(draft, path, _RENAME_EXCHANGE if is_there else _RENAME_NOREPLACE)
        if number == 0:
            return draft if is_there else None
        if number not in (errno.ENOENT, errno.EEXIST) or not draft.exists():
            break
    draft.replace(path)
    return None


def _rename(old: Path, new: Path, flags: int) -> int:
    """Call `renameat2`, where there is one; give the number of its error, 0 for none."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # of Linux
    if renameat2 is None:
        return errno.ENOSYS
    done = renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags)
    return ctypes.get_errno() if done else 0

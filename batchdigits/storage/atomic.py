"""Writing files so that each appears whole or not at all: bytes in, a file under its final name out.

A file is written under a temporary name in its own folder, brought to the disk, and only then renamed over the old
one. Several files that belong together are all complete before the first of them is renamed. A file behind a URL is
written here, and sent when it is complete.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from batchdigits.errors import StorageError, shown
from batchdigits.storage.remote import Place, RemoteFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_FULL = "the disk is full or a size limit is reached; free some space or choose another folder"
_FORBIDDEN = "there is no permission to; change the permissions of the file and its folder, or choose another folder"
_MISSING = "it or its folder does not exist; create the folder first, or correct the name"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "its disk is mounted read-only; choose another folder",
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _MISSING,
    errno.EISDIR: "it is a folder; give the name of a file",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}
_NAME_BYTES = 247  # of the 255 that Linux allows; SQLite puts `-journal` behind the name of a ledger
_NO_FOLDER_SYNC = frozenset({errno.EACCES, errno.EINVAL, errno.ENOTSUP})


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Write one file so that it appears whole or not at all.

    The new file gets the permissions that the umask says. Where `path` is a symbolic link, the file that it points
    to is replaced, and the link stays. On any exception the old file is left as it was.

    Args:
        path: The file to create or replace.

    Yields:
        An open binary file, readable too, whose `name` is `path`.

    Raises:
        StorageError: The file could not be written.
    """
    with atomic_write_all([path]) as [handle]:
        yield handle


@contextmanager
def atomic_write_all(
    paths: Sequence[Place],
    *,
    before: Callable[[Path, Place], bool] | None = None,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[list[BinaryIO]]:
    """Write several files that belong together, each as `atomic_write` does.

    An old file with the same bytes stays as it is.

    All are complete and on the disk before the first is renamed: trouble with writing any of them leaves every old
    file. The renames themselves follow one another; no file system renames several files as one. Those behind URLs are
    sent before any is renamed here, for sending is what may fail.

    Args:
        paths: The files to create or replace, each once.
        before: Called for each file when all are complete and it does not have its name yet, with the complete file
            and with the one that it replaces, links resolved; tells whether their bytes differ.
        together: What the files take their names in, such as one that lets signals wait.

    Yields:
        An open binary file for each of `paths`, in their order. Its errors name the file that it will become.

    Raises:
        StorageError: One of the files could not be written.
    """
    with ExitStack() as drafts:
        files = [drafts.enter_context(_draft(path)) for path in paths]
        yield [handle for handle, _, _ in files]
        for path, (handle, _, _) in zip(paths, files, strict=True):
            with storage_errors(path):
                handle.flush()
                os.fsync(handle.fileno())
                handle.close()
        with together():
            farthest_first = sorted(zip(paths, files, strict=True), key=lambda pair: isinstance(pair[0], Path))
            for path, (_, temporary, target) in farthest_first:
                with storage_errors(path):
                    if not (before(temporary, target) if before else _differ(temporary, target)):
                        continue
                    if isinstance(target, RemoteFile):
                        target.put(temporary)
                    else:
                        temporary.replace(target)
            for folder in sorted({target.parent for _, _, target in files if isinstance(target, Path)}):
                with storage_errors(folder):
                    _sync_folder(folder)


@contextmanager
def storage_errors(name: Place | str, *, verb: str = "written") -> Iterator[None]:
    """Turn an `OSError` of the body into a `StorageError` that names the thing, the reason and the remedy.

    Args:
        name: The file, as the user knows it.
        verb: What could not be done to it: `written` or `read`.

    Raises:
        StorageError: The body raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        reason = (
            _REASONS.get(error.errno or 0) or f"{error.strerror or error}; check the disk, or choose another folder"
        )
        message = f"{shown(str(name))} cannot be {verb}: {reason}."
        raise StorageError(message) from error


def fitting(beginning: str, ending: str) -> str:
    """Join the name of a file that stands beside another one, and cut it where it would be too long.

    What is cut is told apart by a sum of all of `beginning`.
    """
    whole = os.fsencode(beginning)
    room = _NAME_BYTES - len(os.fsencode(ending))
    if len(whole) > room:
        mark = f"~{hashlib.sha256(whole).hexdigest()[:8]}"
        beginning = whole[: room - len(mark)].decode(errors="ignore") + mark
    return beginning + ending


def standing_sha256(place: Place) -> str:
    """Compute the SHA-256 of what stands at a place; empty where nothing does.

    Raises:
        StorageError: It cannot be read.
    """
    if isinstance(place, RemoteFile):
        return place.sha256()
    return file_sha256(place) if place.exists() else ""


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits, in constant memory.

    Raises:
        StorageError: The file cannot be read.
    """
    with storage_errors(path, verb="read"), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class _Draft(io.FileIO):
    """A new file under a temporary name, whose `name` and errors are those of the file it will become."""

    def __init__(self, temporary: Path, path: Place) -> None:
        with storage_errors(path):
            super().__init__(os.fspath(temporary), "x+")
        self.name = str(path)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(self.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells others that somebody is at work on it

    def write(self, data: ReadableBuffer, /) -> int:
        with storage_errors(self.name):
            return super().write(data)


@contextmanager
def _draft(path: Place) -> Iterator[tuple[BinaryIO, Path, Place]]:
    """Open a temporary file beside `path`, or here for a URL; on leaving, remove it unless it has been renamed.

    Beside a path its name is the same every time, so that what a killed run left is found and removed.

    Yields:
        The open file, its temporary name, and the name that it is to replace.
    """
    with ExitStack() as stack:
        target: Place
        if isinstance(path, RemoteFile):
            target = path
            with storage_errors(path):
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="batchdigits-"))
            temporary = Path(folder, "report")
        else:
            target = Path(os.path.realpath(path))
            temporary = _temporary(target)
        handle = io.BufferedRandom(_Draft(temporary, path))
        try:
            yield cast("BinaryIO", handle), temporary, target
        finally:
            with suppress(OSError, StorageError):  # after a failure only: the bytes still in the buffer are not wanted
                handle.close()
            with suppress(OSError):  # missing after the rename; else nothing better can be done about it
                temporary.unlink()


def _temporary(target: Path) -> Path:
    """Name a draft beside the file that it will become."""
    mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    temporary = target.with_name(f".batchdigits-{mark}.tmp")
    return temporary if _is_free(temporary) else target.with_name(f".batchdigits-{secrets.token_hex(4)}.tmp")


def _is_free(temporary: Path) -> bool:
    """Tell whether a draft's name is free; a draft that nobody is at work on any more goes."""
    with suppress(OSError), temporary.open("rb") as left:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(left.fileno()), temporary.stat()):
            temporary.unlink()
    return not os.path.lexists(temporary)


def _differ(draft: Path, target: Place) -> bool:
    """Tell whether two files have other bytes; a file that is not there has none."""
    if isinstance(target, RemoteFile):
        return file_sha256(draft) != target.sha256()
    try:
        return not filecmp.cmp(draft, target, shallow=False)
    except FileNotFoundError:
        return True


def _sync_folder(folder: Path) -> None:
    """Bring a folder's renames to the disk, where its file system has a way to."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Network file systems refuse it, and so does a folder that may be written but not listed. The file is whole.
        if error.errno not in _NO_FOLDER_SYNC:
            raise

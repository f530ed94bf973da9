"""Reach files on this machine: what their errors say, their checksums, names that fit, and reports as `LocalFile`.

`LocalFile` has the methods of `remote.RemoteFile`, so that what writes or replaces a report need not tell them apart.
"""

import codecs
import errno
import fcntl
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from batchdigits.errors import StorageError, escaped
from batchdigits.storage.guards import opened, put_in_place, resolved

_FULL = "the disk is full or a size limit is reached; free some space or choose another folder"
_FORBIDDEN = "there is no permission to; change the permissions of the file and its folder, or choose another folder"
_MISSING = "it or its folder does not exist; check the spelling, or make the folder first"
_NO_FILE = "it is a pipe, a device or a socket; give the name of a file"
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "its disk is mounted read-only; choose another folder",
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: "a part of its path is no folder; check the spelling, or choose another one",
    errno.EEXIST: "a file of this name is in its place; choose another folder",
    errno.EISDIR: "it is a folder; give the name of a file",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.ENODEV: _NO_FILE,
    errno.ENXIO: _NO_FILE,
    errno.ELOOP: "it is a symbolic link, which may lead anywhere; remove it, or choose another folder",
}
_NAME_BYTES = 247  # of the 255 that Linux allows; SQLite puts `-journal` behind the name of a ledger
_NO_FOLDER_SYNC = frozenset({errno.EACCES, errno.EINVAL, errno.ENOTSUP})


@contextmanager
def storage_errors(name: object, *, verb: str = "written") -> Iterator[None]:
    """Turn an `OSError` of the body into a `StorageError` that names the thing, the reason and the remedy.

    Args:
        name: The file, as the user knows it: what `str` gives.
        verb: What could not be done to it: `written` or `read`.

    Raises:
        StorageError: The body raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        message = f"{escaped(str(name))} cannot be {verb}: {reason_of(error)}."
        raise StorageError(message) from error


def reason_of(error: OSError) -> str:
    """Say what is wrong with a file, and the remedy."""
    return _REASONS.get(error.errno or 0) or f"{error.strerror or error}; check the disk, or choose another folder"


def fitting(beginning: str, ending: str) -> str:
    """Join the name of a file that stands beside another one, and cut it where it would be too long.

    What is cut is told apart by a checksum of all of `beginning`.
    """
    whole = os.fsencode(beginning)
    room = _NAME_BYTES - len(os.fsencode(ending))
    if len(whole) > room:
        mark = f"~{hashlib.sha256(whole).hexdigest()[:8]}"
        beginning = whole[: room - len(mark)].decode(errors="ignore") + mark
    return beginning + ending


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file's bytes, as 64 lower-case hexadecimal digits, in constant memory.

    Raises:
        StorageError: The file cannot be read.
    """
    with storage_errors(path, verb="read"), opened(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def opened_text(path: Path, *, errors: str = "strict") -> io.TextIOWrapper:
    """Open a text that an editor or a spreadsheet saved, in the encoding of its byte-order mark; line ends stay.

    Raises:
        OSError: It cannot be opened, or is no file.
    """
    file = opened(path)
    encoding = "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    file.seek(0)
    return io.TextIOWrapper(file, encoding, errors, newline="")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of this machine that is to be written, or stands there: an `atomic.TargetFile`."""

    path: Path
    """As the user spells it."""

    is_remote = False
    """It is on this machine."""

    def __str__(self) -> str:
        """Give the path as the user spells it."""
        return str(self.path)

    def __bytes__(self) -> bytes:
        """Give the path as a ledger has it."""
        return bytes(self.path)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.name

    @property
    def absolute(self) -> str:
        """Its absolute path, links as they are."""
        return os.path.abspath(self.path)  # noqa: PTH100  (Path.absolute keeps `..`)

    @property
    def target(self) -> "LocalFile":
        """The file that its name leads to: what is replaced, so that a symbolic link stays.

        Raises:
            StorageError: A link is somebody else's, or leads to nothing.
        """
        path = self.path if self.path.is_absolute() else Path.cwd() / self.path
        with storage_errors(self):
            return LocalFile(resolved(path))

    @property
    def here(self) -> Path:
        """The path beside which what belongs to it lies."""
        return self.path

    @property
    def folder(self) -> Path:
        """The folder whose entries change when it is replaced."""
        return self.path.parent

    def is_special(self) -> bool:
        """Tell whether something that is no file has its name."""
        return self.path.exists() and not self.path.is_file()

    def check(self, what: str = "") -> None:
        """Find trouble with writing it before there is something to write.

        Args:
            what: What it is to be, for messages, with a space behind: `the report `.

        Raises:
            StorageError: Its folder does not exist, or cannot be written.
        """
        name, folder = f"{what}{escaped(str(self))}", self.target.folder
        if not folder.is_dir():
            message = f"The folder of {name} does not exist; create {escaped(str(folder))} first."
            raise StorageError(message)
        if not os.access(folder, os.W_OK | os.X_OK):
            message = (
                f"There is no permission to write into {escaped(str(folder))}, where {name} is to stand; change it, or "
                "choose another folder."
            )
            raise StorageError(message)

    def exists(self) -> bool:
        """Tell whether something stands there."""
        return self.path.exists()

    def sha256(self) -> str:
        """Compute the SHA-256 of what stands there; empty where nothing does."""
        return file_sha256(self.path) if self.path.exists() else ""

    def differs_from(self, draft: Path) -> bool:
        """Tell whether it has other bytes than a file; one that is not there has none."""
        return not self.path.is_file() or file_sha256(draft) != self.sha256()

    def pass_on_mode(self, descriptor: int) -> None:
        """Give an open file, which is to replace it, its permissions and, where that is allowed, its owner."""
        with suppress(OSError):  # there is none, or its file system has no permissions
            status = self.path.stat()
            for owner in (status.st_uid, -1):
                with suppress(OSError):  # only root gives files away; to a group, its members do
                    os.fchown(descriptor, owner, status.st_gid)
                    break
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o777)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give the path of a new file beside it; on leaving, remove that unless it has been renamed.

        Its name is the same every time, so that what a killed run left is found and removed.
        """
        temporary = _temporary(self.path)
        try:
            yield temporary
        finally:
            with suppress(OSError):  # missing after the rename; else nothing better can be done about it
                temporary.unlink()

    def replace_with(self, draft: Path) -> Path | None:
        """Replace it by a finished file: whole, or not at all.

        Returns:
            Where the file is that stood there, until `draft` goes; None where there was none, or it is gone.
        """
        return put_in_place(draft, self.path)

    def back_up(self, name: str, *, lies: Path | None = None) -> "LocalFile":
        """Give what stands there a second name beside it, so that it keeps the first until the new one comes.

        Args:
            name: That name.
            lies: Where it is, if it was replaced already.
        """
        old, kept = lies or self.path, self.path.with_name(name)
        with storage_errors(kept):
            if os.path.lexists(kept) and not _has_bytes_of(kept, old):  # somebody else's, who may know what it would be
                kept = kept.with_name(fitting(kept.stem, f"-{secrets.token_hex(4)}{kept.suffix}"))
            try:
                kept.hardlink_to(old)
            except FileExistsError:
                pass  # the same bytes were kept before
            except OSError:  # a file system without links
                old.rename(kept)
        return LocalFile(kept)


def _temporary(target: Path) -> Path:
    """Name a draft beside the file that it will become."""
    mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    temporary = target.with_name(f".batchdigits-{mark}.tmp")
    return temporary if _is_free(temporary) else target.with_name(f".batchdigits-{secrets.token_hex(4)}.tmp")


def _is_free(temporary: Path) -> bool:
    """Tell whether a draft's name is free; a draft that nobody is at work on any more goes."""
    with suppress(OSError), opened(temporary, follow=False) as left:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(left.fileno()), temporary.stat()):
            temporary.unlink()
    return not os.path.lexists(temporary)


def _has_bytes_of(kept: Path, old: Path) -> bool:
    """Tell whether a name leads to a file with the bytes of another, and is no link."""
    with suppress(StorageError):
        return not kept.is_symlink() and file_sha256(kept) == file_sha256(old)
    return False


def sync_folder(folder: Path) -> None:
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

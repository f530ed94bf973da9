"""Write files so that each appears whole or not at all.

A file is written under a temporary name in its own folder, brought to the disk, and only then renamed over the old
one. Several files that belong together are all complete before the first of them is renamed. A file behind a URL is
written here, and sent when it is complete.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self, cast

from batchdigits.errors import StorageError
from batchdigits.storage.guards import PRIVATE
from batchdigits.storage.local import LocalFile, storage_errors, sync_folder

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class TargetFile(Protocol):
    """A file that is to be written, on this machine or behind a URL; `str` gives its name as the user knows it.

    What asks the disk or a server raises a `StorageError` where that cannot be done.
    """

    @property
    def name(self) -> str:
        """The last part of its path."""

    @property
    def absolute(self) -> str:
        """Its absolute path, or its normalised URL."""

    @property
    def target(self) -> Self:
        """What is replaced: the file that a symbolic link leads to."""

    @property
    def here(self) -> Path:
        """A path on this machine, beside which what belongs to it lies."""

    @property
    def folder(self) -> Path | None:
        """The folder of this machine whose entries change when it is replaced; None behind a URL."""

    @property
    def is_remote(self) -> bool:
        """Whether it is behind a URL."""

    def __bytes__(self) -> bytes:
        """Give its path or URL, as a ledger has it."""

    def __hash__(self) -> int:
        """Hash what it is equal by."""

    def is_special(self) -> bool:
        """Tell whether something that is no file has its name."""

    def check(self, what: str = "") -> None:
        """Find trouble with writing it before there is something to write."""

    def exists(self) -> bool:
        """Tell whether something stands there."""

    def sha256(self) -> str:
        """Compute the SHA-256 of what stands there; empty where nothing does."""

    def differs_from(self, draft: Path) -> bool:
        """Tell whether it has other bytes than a file; one that is not there has none."""

    def pass_on_mode(self, descriptor: int) -> None:
        """Give an open file, which is to replace it, its permissions and, where that is allowed, its owner."""

    def draft(self) -> AbstractContextManager[Path]:
        """Give the path of a new file to write first, which goes on leaving."""

    def replace_with(self, draft: Path) -> Path | None:
        """Replace it by a finished file: whole, or not at all; tell where the old one lies now, if it does anywhere."""

    def back_up(self, name: str, *, lies: Path | None = None) -> Self:
        """Give what stands there, or lies elsewhere since it was replaced, a second name beside it."""


class Keeper(Protocol):
    """What looks at files as they are replaced."""

    def before(self, draft: Path, target: TargetFile, /) -> bool:
        """Look at a file when all are complete and none has its name yet.

        Args:
            draft: The complete file.
            target: The one that it replaces, links resolved.

        Returns:
            Whether their bytes differ.
        """

    def after(self, old: Path, target: TargetFile, /) -> None:
        """Look at what stood there until a file took its name, which goes; not where nobody can tell any more."""


@contextmanager
def atomic_write(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Write one file so that it appears whole or not at all.

    Where `path` is a symbolic link, the file that it points to is replaced, and the link stays. On any exception the
    old file is left as it was.

    Args:
        path: The file to create or replace.
        mode: The permissions of the new file, of which the umask takes some away.

    Yields:
        An open binary file, readable too, whose `name` is `path`.

    Raises:
        StorageError: The file could not be written.
    """
    with atomic_write_all([LocalFile(path)], mode=mode) as [handle]:
        yield handle


@contextmanager
def atomic_write_all(
    files: Sequence[TargetFile],
    *,
    mode: int = 0o666,
    keeper: Keeper | None = None,
    together: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Iterator[list[BinaryIO]]:
    """Write several files that belong together, each as `atomic_write` does.

    An old file with the same bytes stays as it is.

    All are complete and on the disk before the first is renamed: trouble with writing any of them leaves every old
    file. The renames themselves follow one another; no file system renames several files as one. Those behind URLs are
    sent before any is renamed here, for sending is what may fail.

    Args:
        files: The files to create or replace, each once.
        mode: As for `atomic_write`; a file that replaces one has its permissions and, where allowed, its owner.
        keeper: Looks at each file that is replaced.
        together: What the files take their names in, such as one that lets signals wait.

    Yields:
        An open binary file for each of `files`, in their order. Its errors name the file that it will become.

    Raises:
        StorageError: One of the files could not be written.
    """
    with ExitStack() as stack:
        drafts = [stack.enter_context(_draft(file, mode)) for file in files]
        yield [handle for handle, _, _ in drafts]
        for file, (handle, _, target) in zip(files, drafts, strict=True):
            with storage_errors(file):
                handle.flush()
                target.pass_on_mode(handle.fileno())
                os.fsync(handle.fileno())
                handle.close()
        with together():
            for file, (_, draft, target) in sorted(
                zip(files, drafts, strict=True), key=lambda pair: not pair[0].is_remote
            ):
                with storage_errors(file):
                    differs = keeper.before(draft, target) if keeper else target.differs_from(draft)
                    old = target.replace_with(draft) if differs else None
                    if old and keeper:
                        keeper.after(old, target)
            for folder in sorted({target.folder for _, _, target in drafts if target.folder}):
                with storage_errors(folder):
                    sync_folder(folder)


class _Draft(io.FileIO):
    """A new file under a temporary name, whose `name` and errors are those of the file it will become."""

    def __init__(self, temporary: Path, file: TargetFile, mode: int) -> None:
        with storage_errors(file):
            super().__init__(os.fspath(temporary), "x+", opener=lambda name, flags: os.open(name, flags, mode))
        self.name = str(file)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(self.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)  # tells others that somebody is at work on it

    def write(self, data: ReadableBuffer, /) -> int:
        with storage_errors(self.name):
            return super().write(data)


@contextmanager
def _draft(file: TargetFile, mode: int) -> Iterator[tuple[BinaryIO, Path, TargetFile]]:
    """Open a temporary file; on leaving, close it.

    Yields:
        The open file, its temporary name, and the file that it is to replace.

    Raises:
        StorageError: Something that is no file has its name.
    """
    target = file.target
    if not target.is_remote and target.is_special():
        number = errno.EISDIR if target.here.is_dir() else errno.ENODEV
        with storage_errors(file):
            raise OSError(number, os.strerror(number))
    if not target.is_remote and target.exists():
        mode = PRIVATE  # until it has the other's
    with target.draft() as temporary:
        handle = io.BufferedRandom(_Draft(temporary, file, mode))
        try:
            yield cast("BinaryIO", handle), temporary, target
        finally:
            with suppress(OSError, StorageError):  # after a failure only: the bytes still in the buffer are not wanted
                handle.close()

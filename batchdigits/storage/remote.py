"""Reach files behind URLs (`s3://`, `sftp://`, `zip://`): list them, and replace one whole.

The only room that imports fsspec and what stands behind it, and only where a URL was named.
"""

import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.backends.base import Enters, Entry, Store
from batchdigits.storage.backends.registry import store
from batchdigits.storage.local import LocalFile, file_sha256, storage_errors
from batchdigits.storage.retries import Missing
from batchdigits.storage.scratch import scratch_folder
from batchdigits.storage.urls import ZIP, Parts, absolute, is_remote, is_url, parts


def listed(url: str, enters: Enters) -> Iterator[Entry]:
    """List the files behind a normalised URL, as they come; none is read.

    Args:
        url: Of a folder, or of a file by itself.
        enters: Tells which folders are entered.

    Raises:
        UsageError: The extra is not installed.
        StorageError: Nothing is there, or it cannot be listed.
    """
    here = parts(url)
    return store(here).listed(here, enters)


def remote_version(url: str) -> tuple[int, int] | None:
    """Give the size of a file behind a normalised URL, and its version, as `listed` does; None where it is gone.

    Raises:
        StorageError: That cannot be found out.
    """
    try:
        alone = next(listed(url, lambda _: False), None)
    except Missing:
        return None
    return (alone.size_bytes, alone.version) if alone and not alone.rest else None


def remote_sources_exist(urls: Iterable[str]) -> bool:
    """Tell whether normalised URLs of sources still lead somewhere.

    Raises:
        StorageError: That cannot be found out.
    """
    return all(store(here).stands(here) for here in map(_holding, urls))


def _holding(url: str) -> Parts:
    """Give what has to be there: of what is in a remote archive, the archive."""
    here = parts(url)
    return parts(here.archive) if here.scheme == ZIP and is_remote(here.archive) else here


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A report behind a URL: an `atomic.TargetFile`."""

    url: str
    """Normalised."""

    is_remote = True
    """It is behind a URL."""
    folder = None
    """Its storage needs nothing more when it is replaced."""

    def __str__(self) -> str:
        """Give the URL."""
        return self.url

    def __bytes__(self) -> bytes:
        """Give the URL, as a ledger has it."""
        return self.url.encode(errors="surrogateescape")

    @property
    def _reached(self) -> tuple[Store, Parts]:
        """What reaches it, and its place there."""
        here = parts(self.url)
        return store(here), here

    @property
    def name(self) -> str:
        """The last part of its path."""
        return posixpath.basename(parts(self.url).path)

    @property
    def absolute(self) -> str:
        """The URL."""
        return self.url

    @property
    def target(self) -> "RemoteFile":
        """Itself: it is no link."""
        return self

    def with_name(self, name: str) -> "RemoteFile":
        """Name a file beside it."""
        here = parts(self.url)
        return RemoteFile(here._replace(path=posixpath.join(posixpath.dirname(here.path), name)).url)

    @property
    def here(self) -> Path:
        """A path on this machine, the user's own, for what belongs to it.

        Source: https://specifications.freedesktop.org/basedir-spec/latest/, `XDG_STATE_HOME`.
        """
        state = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
        return state / "batchdigits" / f"{self.name}-{hashlib.sha256(bytes(self)).hexdigest()[:8]}"

    def is_special(self) -> bool:
        """Tell nothing: what stands behind a URL is a file."""
        return False

    def check(self, what: str = "") -> None:  # noqa: ARG002  (its messages name the URL)
        """Find trouble with writing it before there is something to write.

        Raises:
            UsageError: It cannot be written there at all, or the extra is not installed.
            StorageError: Its bucket, folder or archive is not there, or cannot be reached.
        """
        storage, here = self._reached
        storage.check_folder(here)

    def exists(self) -> bool:
        """Tell whether something stands there."""
        storage, here = self._reached
        return storage.size(here) is not None

    def sha256(self) -> str:
        """Compute the SHA-256 of what stands there; empty where nothing does."""
        storage, here = self._reached
        try:
            return storage.sha256(here)
        except Missing:
            return ""

    def differs_from(self, draft: Path) -> bool:
        """Tell whether it has other bytes than a file; one that is not there has none."""
        return file_sha256(draft) != self.sha256()

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Give the path of a new file on this machine, to be sent when it is complete; it goes on leaving."""
        with ExitStack() as stack:
            with storage_errors(self):
                folder = stack.enter_context(scratch_folder())
            yield folder / "report"

    def pass_on_mode(self, descriptor: int) -> None:
        """Do nothing: its storage says who may read it, and a local archive keeps its own mode."""

    def replace_with(self, draft: Path) -> None:
        """Replace it by a finished file: whole, or not at all."""
        storage, here = self._reached
        storage.put(here, draft)

    def back_up(self, name: str, *, lies: Path | None = None) -> "RemoteFile":  # noqa: ARG002  (it never lies here)
        """Give what stands there a second name beside it."""
        other = self.with_name(name)
        storage, here = self._reached
        storage.copy(parts(other.url), here)
        return other


def target_file(name: str) -> TargetFile:
    """Say where a file is to be written that the user calls so.

    Raises:
        UsageError: It is a URL that is not spelled as it has to be.
    """
    return RemoteFile(absolute(name)) if is_url(name) else LocalFile(Path(name))

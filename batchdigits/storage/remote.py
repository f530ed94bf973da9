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

from batchdigits.errors import UsageError, escaped
from batchdigits.storage import retries
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.backends.base import Enters, Entry
from batchdigits.storage.backends.registry import RemoteReader, store
from batchdigits.storage.backends.zip_archives import Archives
from batchdigits.storage.local import LocalFile, file_sha256, storage_errors
from batchdigits.storage.scratch import scratch_folder
from batchdigits.storage.urls import ZIP, Parts, absolute, is_remote, is_url, parts


def _opened(member: Parts) -> str | RemoteReader:
    """Give the path of a member's archive, or open it where that is remote."""
    return RemoteReader(parts(member.archive)) if is_remote(member.archive) else member.archive


archives = Archives(_opened)
os.register_at_fork(after_in_child=archives.forget)


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
    return archives.listed(here, enters) if here.scheme == ZIP else store(here).listed(here, enters)


def remote_version(url: str) -> tuple[int, int] | None:
    """Give the size of a file behind a normalised URL, and its version, as `listed` does; None where it is gone.

    Raises:
        StorageError: That cannot be found out.
    """
    try:
        alone = next(listed(url, lambda _: False), None)
    except retries.Missing:
        return None
    return (alone.size_bytes, alone.version) if alone and not alone.rest else None


def remote_sources_exist(urls: Iterable[str]) -> bool:
    """Tell whether normalised URLs of sources still lead somewhere.

    Raises:
        StorageError: That cannot be found out.
    """
    return all(_stands(parts(url)) for url in urls)


def _stands(here: Parts) -> bool:
    if here.scheme != ZIP:
        return retries.run(lambda: store(here).stands(here), here.url, "listed")
    return _stands(parts(here.archive)) if is_remote(here.archive) else os.path.exists(here.archive)  # noqa: PTH110


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
        here = parts(self.url)
        if here.scheme != ZIP:
            storage = store(here)
            retries.run(lambda: storage.check_folder(here), self.url, "written")
        elif is_remote(here.archive):
            message = (
                f"The report {escaped(self.url)} would stand in an archive that is not on this machine, which cannot "
                "be replaced whole; name an archive here, or a report beside it."
            )
            raise UsageError(message)
        else:
            archives.check_folder(here)

    def exists(self) -> bool:
        """Tell whether something stands there.

        Raises:
            StorageError: That cannot be found out.
        """
        here = parts(self.url)
        if here.scheme == ZIP:
            return archives.size(here) is not None
        storage = store(here)
        return retries.run(lambda: storage.size(here), self.url, "read") is not None

    def sha256(self) -> str:
        """Compute the SHA-256 of what stands there; empty where nothing does.

        Raises:
            StorageError: It cannot be read.
        """
        here = parts(self.url)
        if here.scheme == ZIP:
            return "" if archives.size(here) is None else archives.sha256(here)
        storage = store(here)
        try:
            return retries.run(lambda: storage.sha256(here), self.url, "read")
        except retries.Missing:
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
        """Replace it by a finished file: whole, or not at all.

        Raises:
            StorageError: That failed, and what stood there still does.
        """
        here = parts(self.url)
        if here.scheme == ZIP:
            archives.put(draft, here)
        else:
            storage = store(here)
            retries.run(lambda: storage.put(draft, here), self.url, "written")

    def back_up(self, name: str, *, lies: Path | None = None) -> "RemoteFile":  # noqa: ARG002  (it never lies here)
        """Give what stands there a second name beside it.

        Raises:
            StorageError: That failed.
        """
        other = self.with_name(name)
        here, there = parts(self.url), parts(other.url)
        if here.scheme == ZIP:
            archives.copy(here, there)
        else:
            storage = store(here)
            retries.run(lambda: storage.copy(here, there), other.url, "written")
        return other


def target_file(name: str) -> TargetFile:
    """Say where a file is to be written that the user calls so.

    Raises:
        UsageError: It is a URL that is not spelled as it has to be.
    """
    return RemoteFile(absolute(name)) if is_url(name) else LocalFile(Path(name))

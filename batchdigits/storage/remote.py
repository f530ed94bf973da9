"""Files behind URLs (`s3://`, `sftp://`, `zip://`): listings, bytes and whole uploads out.

The only room that imports fsspec and what stands behind it, and only where a URL was named.
"""

import hashlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batchdigits.errors import Fault, FaultKind, StorageError, UsageError, shown
from batchdigits.storage import retries as patience
from batchdigits.storage.backends.base import Enters, Entry, Store
from batchdigits.storage.backends.registry import Far, store
from batchdigits.storage.backends.s3 import AT_A_TIME
from batchdigits.storage.backends.zip_archives import Archives
from batchdigits.storage.urls import ZIP, Parts, absolute, check, is_far, is_url, parts, refuse, refuse_secrets, span

__all__ = [
    "Enters",
    "Entry",
    "Place",
    "RemoteFile",
    "absolute",
    "check",
    "fetched",
    "found_again",
    "is_far",
    "is_url",
    "listed",
    "parts",
    "place",
    "refuse",
    "refuse_secrets",
    "span",
    "stand",
]


def _opened(member: Parts) -> str | Far:
    """Give the path of a member's archive, or open it where it is far."""
    return Far(parts(member.archive)) if is_far(member.archive) else member.archive


_archives = Archives(_opened)


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
    return _archives.listed(here, enters) if here.scheme == ZIP else store(here).listed(here, enters)


def found_again(url: str) -> tuple[int, int] | None:
    """Give the size of a file behind a normalised URL, and its version, as `listed` does; None where it is gone.

    Raises:
        StorageError: That cannot be found out.
    """
    try:
        alone = next(listed(url, lambda _: False), None)
    except patience.Missing:
        return None
    return (alone.size_bytes, alone.version) if alone and not alone.rest else None


def stand(sources: Sequence[str]) -> bool:
    """Tell whether those sources that are URLs are still there.

    Raises:
        StorageError: That cannot be found out.
    """
    return all(_stands(parts(absolute(source))) for source in sources if is_url(source))


def _stands(here: Parts) -> bool:
    if here.scheme != ZIP:
        return patience.done(lambda: store(here).stands(here), here.url, "listed")
    return _stands(parts(here.archive)) if is_far(here.archive) else os.path.exists(here.archive)  # noqa: PTH110


def fetched(files: Sequence[tuple[str, int]], most_bytes: int) -> dict[str, bytes | Fault]:
    """Read files behind URLs, many at a time; the members of an archive in its own order.

    Args:
        files: The normalised URL of each, and its size when it was found.
        most_bytes: A larger one is a fault, and is not read.

    Returns:
        By the URL, the bytes, or why they cannot be read.

    Raises:
        StorageError: A server cannot be reached any more, however often that was tried.
    """
    too_large = Fault(FaultKind.TOO_LARGE, f"the file is larger than the limit of {most_bytes:,} bytes")
    found: dict[str, bytes | Fault | None] = {url: None for url, size_bytes in files if size_bytes > most_bytes}
    wanted = [parts(url) for url, _ in files if url not in found]
    found |= _archives.get([here for here in wanted if here.scheme == ZIP], most_bytes)
    if others := [here for here in wanted if here.scheme != ZIP]:
        found |= patience.run(_gathered([(store(here), here) for here in others], most_bytes))
    return {url: too_large if data is None else data for url, data in found.items()}


async def _gathered(places: list[tuple[Store, Parts]], most_bytes: int) -> dict[str, bytes | Fault | None]:
    """Read files of servers, many at a time; where one cannot be reached, nothing goes on."""
    import asyncio

    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(storage: Store, here: Parts) -> bytes | Fault | None:
        async with gate:
            try:
                return await patience.patiently(lambda: storage.get(here, most_bytes))
            except StorageError:
                raise
            except Exception as error:
                if fault := patience.fault(error):
                    refused.extend([error] if patience.is_refused(error) else [])
                    return fault
                if not patience.is_known(error):
                    raise
                raise patience.told(error, here.url, "read") from error

    refused: list[Exception] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {here.url: group.create_task(one(storage, here)) for storage, here in places}
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if len(refused) == len(places) > 1:  # then it is not about these objects, but about the credentials
        raise patience.told(refused[0], places[0][1].url, "read")
    return {url: task.result() for url, task in tasks.items()}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A report behind a URL, with as much of a `Path` as a report needs."""

    url: str
    """Normalised."""

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
    def stem(self) -> str:
        """Its name without the ending."""
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        """The ending of its name, with the dot."""
        return posixpath.splitext(self.name)[1]

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

    def check(self) -> None:
        """Find trouble with writing it before there is something to write.

        Raises:
            UsageError: It cannot be written there at all, or the extra is not installed.
            StorageError: Its bucket, folder or archive is not there, or cannot be reached.
        """
        here = parts(self.url)
        if here.scheme != ZIP:
            storage = store(here)
            patience.done(lambda: storage.check_folder(here), self.url, "written")
        elif is_far(here.archive):
            message = (
                f"The report {shown(self.url)} would stand in an archive that is not on this machine, which cannot be "
                "replaced whole; name an archive here, or a report beside it."
            )
            raise UsageError(message)
        else:
            _archives.check_folder(here)

    def exists(self) -> bool:
        """Tell whether something stands there.

        Raises:
            StorageError: That cannot be found out.
        """
        here = parts(self.url)
        if here.scheme == ZIP:
            return _archives.size(here) is not None
        storage = store(here)
        return patience.done(lambda: storage.size(here), self.url, "read") is not None

    def sha256(self) -> str:
        """Compute the SHA-256 of what stands there; empty where nothing does.

        Raises:
            StorageError: It cannot be read.
        """
        here = parts(self.url)
        if here.scheme == ZIP:
            return "" if _archives.size(here) is None else _archives.sha256(here)
        storage = store(here)
        try:
            return patience.done(lambda: storage.sha256(here), self.url, "read")
        except patience.Missing:
            return ""

    def put(self, draft: Path) -> None:
        """Replace it by a finished file: whole, or not at all.

        Raises:
            StorageError: That failed, and what stood there still does.
        """
        here = parts(self.url)
        if here.scheme == ZIP:
            _archives.put(draft, here)
        else:
            storage = store(here)
            patience.done(lambda: storage.put(draft, here), self.url, "written")

    def copied(self, name: str) -> "RemoteFile":
        """Give what stands there a second name beside it.

        Raises:
            StorageError: That failed.
        """
        other = self.with_name(name)
        here, there = parts(self.url), parts(other.url)
        if here.scheme == ZIP:
            _archives.copy(here, there)
        else:
            storage = store(here)
            patience.done(lambda: storage.copy(here, there), other.url, "written")
        return other


Place = Path | RemoteFile
"""Where a report stands."""


def place(name: str) -> Place:
    """Say where a report stands that is called so.

    Raises:
        UsageError: It is a URL that is not spelled as it has to be.
    """
    return RemoteFile(absolute(name)) if is_url(name) else Path(name)

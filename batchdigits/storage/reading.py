"""Read whole files, on this machine and behind URLs; what is wrong with one of them is its fault, and ends nothing."""

import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from batchdigits.errors import Fault, FaultKind, StorageError, escaped
from batchdigits.storage import retries
from batchdigits.storage.backends.base import Server
from batchdigits.storage.backends.registry import archives, server
from batchdigits.storage.backends.s3 import AT_A_TIME
from batchdigits.storage.guards import Sources
from batchdigits.storage.urls import ZIP, Parts, is_remote, parts

_FOLD = 2**64  # to so many bits, with a sign, a ledger folds numbers
_ANYWHERE = Sources(())

Found = tuple[str, int, int, int, int]
"""The absolute path or normalised URL of a file, and its size when it was found; its inode then, when that was last
changed, and when its bytes were, both in nanoseconds since 1970. The last three are as a ledger has them; where the
inode is 0, another file may have its place."""


def read_all(
    files: Sequence[Found], most_bytes: int, sources: Collection[str] = (), changed: set[str] | None = None
) -> Iterator[bytes | Fault]:
    """Read whole files one after the other; those behind URLs all at once, before the first.

    Args:
        files: What is known of each.
        most_bytes: A larger one is a fault, and is not read.
        sources: Absolute paths under which files were found: what lies elsewhere is not read in the place of one.
        changed: Gets the paths of those whose size or time of last change is another, right after they were read.

    Raises:
        StorageError: What a URL names cannot be reached any more.
    """
    remote = [file[:2] for file in files if is_remote(file[0])]
    found = read_remote(remote, most_bytes) if remote else {}
    with Sources(sources) as places:
        for path, size_bytes, inode, ctime_ns, mtime_ns in files:
            if path in found:
                yield found[path]
            else:
                yield read_local(
                    path, size_bytes, most_bytes, inode, ctime_ns, mtime_ns, sources=places, changed=changed
                )


def read_local(
    path: str,
    size_bytes: int,
    most_bytes: int,
    inode: int = 0,
    ctime_ns: int = 0,
    mtime_ns: int = 0,
    *,
    sources: Sources = _ANYWHERE,
    changed: set[str] | None = None,
) -> bytes | Fault:
    """Read a whole file; it never blocks, whatever took the file's place since it was found.

    Another file has another inode and another time of that: a share, or a USB stick, may number the same one anew, and
    a second name for it changes the time.

    Args:
        path: Absolute path, as `os.fsdecode` gives it.
        size_bytes: Size of the file when it was found.
        most_bytes: A larger one is a fault, and is not read.
        inode: As `Found` has it.
        ctime_ns: As `Found` has it.
        mtime_ns: As `Found` has it.
        sources: Where it was found; by default, anywhere.
        changed: As `read_all` has it.

    Returns:
        The bytes; or a fault: too large, or why it cannot be read.
    """
    if size_bytes > most_bytes:
        return too_large(most_bytes)
    try:
        descriptor = sources.open(path)
    except OSError as error:
        return Fault(FaultKind.UNREADABLE, f"cannot be opened: {_reason(path, error)}")
    try:
        data = os.pread(descriptor, size_bytes + 1, 0)  # which takes nothing out of a pipe
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return Fault(FaultKind.UNREADABLE, "cannot be read: it is no longer a regular file")
        if inode != status.st_ino and inode and _is_other(status, inode, ctime_ns):
            detail = "cannot be read: another file took its place after it was found; the next run reads that"
            return Fault(FaultKind.UNREADABLE, detail)
        while len(data) != status.st_size:  # it grew or shrank, or its file system hands it out in parts
            more = os.pread(descriptor, 2**20, len(data))
            status = os.fstat(descriptor)
            if not more:
                break
            data += more
            if len(data) > most_bytes:
                break
        if changed is not None and (status.st_size != size_bytes or (status.st_mtime_ns - mtime_ns) % _FOLD):
            changed.add(path)
    except OSError as error:
        return Fault(FaultKind.UNREADABLE, f"cannot be read: {_reason(path, error)}")
    finally:
        os.close(descriptor)
    return too_large(most_bytes) if len(data) > most_bytes else data


def _is_other(status: os.stat_result, inode: int, ctime_ns: int) -> bool:
    """Tell whether an open file is another one than `Found` says."""
    return bool((status.st_ino - inode) % _FOLD and (status.st_ctime_ns - ctime_ns) % _FOLD)


def read_named(name: str, most_bytes: int) -> bytes | Fault:
    """Read a whole file that a user names, as `read_local` does.

    Raises:
        StorageError: There is none.
    """
    try:
        size_bytes = Path(name).stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        message = f"The image {escaped(name)} cannot be found: {reason}; check its spelling."
        raise StorageError(message) from error
    return read_local(name, size_bytes, most_bytes)


def too_large(most_bytes: int) -> Fault:
    """Say that a file is larger than the limit."""
    return Fault(FaultKind.TOO_LARGE, f"the file is larger than the limit of {most_bytes:,} bytes")


def _reason(path: str, error: OSError) -> str:
    if error.errno == errno.ENOENT and Path(path).is_symlink():
        return "it is a symbolic link to a file that does not exist"
    if error.errno == errno.ENOENT:
        return "it was deleted or renamed after it was found"
    if error.errno in (errno.ESPIPE, errno.EISDIR):
        return "it is no longer a regular file"
    return (error.strerror or "unknown error").lower()


def read_remote(files: Sequence[tuple[str, int]], most_bytes: int) -> dict[str, bytes | Fault]:
    """Read files behind URLs, many at a time; the members of an archive in its own order.

    Args:
        files: The normalised URL of each, and its size when it was found.
        most_bytes: A larger one is a fault, and is not read.

    Returns:
        By the URL, the bytes, or why they cannot be read.

    Raises:
        StorageError: A server cannot be reached any more, however often that was tried.
    """
    found: dict[str, bytes | Fault | None] = {url: None for url, size_bytes in files if size_bytes > most_bytes}
    wanted = [parts(url) for url, _ in files if url not in found]
    found |= archives.get([here for here in wanted if here.scheme == ZIP], most_bytes)
    if others := [here for here in wanted if here.scheme != ZIP]:
        found |= retries.in_event_loop(_gathered([(server(here), here) for here in others], most_bytes))
    return {url: too_large(most_bytes) if data is None else data for url, data in found.items()}


async def _gathered(places: list[tuple[Server, Parts]], most_bytes: int) -> dict[str, bytes | Fault | None]:
    """Read files of servers, many at a time; where one cannot be reached, nothing goes on."""
    import asyncio

    gate = asyncio.Semaphore(AT_A_TIME)

    async def one(storage: Server, here: Parts) -> bytes | Fault | None:
        async with gate:
            try:
                return await retries.with_retries(lambda: storage.get(here, most_bytes))
            except StorageError:
                raise
            except Exception as error:
                if fault := retries.fault(error):
                    refused.extend([error] if retries.is_refused(error) else [])
                    return fault
                if not retries.is_known(error):
                    raise
                raise retries.storage_error(error, here.url, "read") from error

    refused: list[Exception] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {here.url: group.create_task(one(storage, here)) for storage, here in places}
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if len(refused) == len(places) > 1:  # then it is not about these objects, but about the credentials
        raise retries.storage_error(refused[0], places[0][1].url, "read")
    return {url: task.result() for url, task in tasks.items()}

"""Reach SFTP servers: list folders, read files, and upload them whole."""

import posixpath
import secrets
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.storage.backends.base import Enters, Entry, sha256_of
from batchdigits.storage.retries import Missing, in_event_loop, is_transient, retried, run
from batchdigits.storage.urls import Parts, server

if TYPE_CHECKING:
    import asyncio

_SECONDS = 5  # to connect, to log in, and between two questions whether the server is still there
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_NAMES_AT_A_TIME = 1000  # of a folder
_NS = 1_000_000_000  # in a second


class Sftp:
    """A server, its key checked, and the user's own keys shown to it."""

    def __init__(self, head: str) -> None:
        """Reach nothing yet.

        Args:
            head: Of the server's URLs.

        Raises:
            ImportError: The extra is not installed.
        """
        import sshfs

        self._open = sshfs.SSHFileSystem
        self._head = head
        self._server = server(head)
        self._files: Any = None
        self._opening: asyncio.Future[Any] | None = None

    def listed(self, place: Parts, enters: Enters) -> Iterator[Entry]:
        """List a folder, one of its folders at a time, and of that some names at a time.

        Raises:
            StorageError: It does not exist, or cannot be listed.
            UsageError: It is neither a folder nor a file.
        """
        status = run(lambda: self._status(place), place.url, "listed")
        if stat.S_ISREG(status.permissions):
            yield _entry("", status)
            return
        if not stat.S_ISDIR(status.permissions):
            message = f"The source {escaped(place.url)} is a pipe, socket or device; name a file or a folder."
            raise UsageError(message)
        ahead = [""]
        while ahead:
            folder = ahead.pop()
            here = place._replace(path=f"{place.path}/{folder}".strip("/"))
            for children in self._children(here):
                links = [name for name, status in children if stat.S_ISLNK(status.permissions)]
                found = dict(zip(links, self._links(here, place, [f"{folder}{name}" for name in links]), strict=True))
                for name, status in children:
                    rest = f"{folder}{name}"
                    if name in found:
                        yield found[name]
                    elif not stat.S_ISDIR(status.permissions):
                        yield _entry(rest, status)
                    elif enters(rest):
                        ahead.append(f"{rest}/")

    def _children(self, folder: Parts) -> Iterator[list[tuple[str, Any]]]:
        """Give what a folder holds, by name and status; after a break it is read anew, and what was given left out."""
        given: set[str] = set()
        scan = self._scan(folder)

        async def more() -> list[tuple[str, Any]]:
            nonlocal scan
            found: list[tuple[str, Any]] = []
            try:
                async for name, status in scan:
                    if name not in given:
                        found.append((name, status))
                    if len(found) == _NAMES_AT_A_TIME:
                        break
            except Exception:
                scan = self._scan(folder)
                raise
            return found

        try:
            while found := run(more, folder.url, "listed"):
                given.update(name for name, _ in found)
                yield found
        finally:
            in_event_loop(_closed(scan))

    async def _scan(self, folder: Parts) -> AsyncGenerator[tuple[str, Any], None]:
        async with self._channel() as channel, aclosing(channel.scandir(_path(folder))) as children:
            async for child in children:
                if child.filename not in (".", ".."):
                    yield child.filename, child.attrs

    def _links(self, folder: Parts, place: Parts, rests: list[str]) -> list[Entry]:
        """Judge symbolic links in a folder below the place that is listed."""
        return run(lambda: self._judged(place, rests), folder.url, "listed") if rests else []

    async def _judged(self, place: Parts, rests: list[str]) -> list[Entry]:
        import asyncio

        async with self._channel() as channel:
            top = await channel.realpath(_path(place))
            return await asyncio.gather(*(self._link(channel, place, top, rest) for rest in rests))

    async def _link(self, channel: Any, place: Parts, top: str, rest: str) -> Entry:
        """Judge a symbolic link as `discovery` does: it may lead to a file below the folder that is listed."""
        path = posixpath.join(_path(place), rest)
        try:
            status = await channel.stat(path)
            leads_to = await channel.realpath(path)
        except Exception as error:  # noqa: BLE001  (asyncssh is imported when it is needed)
            if is_transient(error):
                raise
            return Entry(rest, 0, 0)  # gets a row, which will say why it cannot be read
        if stat.S_ISDIR(status.permissions):
            return _entry(rest, status, "symbolic link to a folder")
        is_inside = leads_to.startswith(top.rstrip("/") + "/")
        return _entry(rest, status, "" if is_inside else "symbolic link out of the source")

    async def get(self, place: Parts, most_bytes: int) -> bytes | None:
        """Try once to read a file; None where it is larger than that."""
        async with self._channel() as channel, channel.open(_path(place), "rb") as file:
            size_bytes = (await file.stat()).size
            return None if size_bytes > most_bytes else bytes(await file.read(size_bytes))

    @retried("read")
    async def part(self, place: Parts, start: int, stop: int) -> bytes:
        """Read some of a file."""
        async with self._channel() as channel, channel.open(_path(place), "rb") as file:
            return bytes(await file.read(stop - start, start))

    @retried("read")
    async def size(self, place: Parts) -> int | None:
        """Give the size of a file; None where there is none."""
        async with self._channel() as channel:
            if not await channel.exists(_path(place)):
                return None
            return int((await channel.stat(_path(place))).size)

    @retried("listed")
    async def stands(self, place: Parts) -> bool:
        """Tell whether a file or folder is there."""
        async with self._channel() as channel:
            return bool(await channel.exists(_path(place)))

    @retried("read")
    async def sha256(self, place: Parts) -> str:
        """Compute the SHA-256 of a file in constant memory."""
        async with self._channel() as channel, channel.open(_path(place), "rb") as file:
            return await sha256_of(file)

    @retried("written")
    async def put(self, place: Parts, draft: Path) -> None:
        """Send a finished file, which takes its name when all of it has come."""
        async with self._replacing(place) as (channel, temporary):
            await channel.put(str(draft), temporary)

    @retried("written")
    async def copy(self, place: Parts, old: Parts) -> None:
        """Give a file's bytes a second name too; not every server has links."""
        async with self._channel() as channel:
            if await channel.exists(_path(place)):  # the same bytes, which were kept before
                return
        async with self._replacing(place) as (channel, temporary):
            await channel.copy(_path(old), temporary, follow_symlinks=True)

    @asynccontextmanager
    async def _replacing(self, place: Parts) -> AsyncIterator[tuple[Any, str]]:
        """Give a channel and another name beside a file, whose file takes its place in the end."""
        temporary = posixpath.join(posixpath.dirname(_path(place)), f".batchdigits-{secrets.token_hex(4)}.tmp")
        try:
            async with self._channel() as channel:
                yield channel, temporary
                await channel.posix_rename(temporary, _path(place))
        except Exception:
            with suppress(Exception):  # nothing better can be done about it
                async with self._channel() as channel:
                    await channel.remove(temporary)
            raise

    @retried("written")
    async def check_folder(self, place: Parts) -> None:
        """Find trouble with a report before there is one to write.

        Raises:
            UsageError: It is a folder.
            StorageError: Its folder does not exist.
        """
        folder = place._replace(path=posixpath.dirname(place.path))
        async with self._channel() as channel:
            if await channel.isdir(_path(place)):
                message = f"The report {escaped(place.url)} is a folder; give the name of a file in a folder."
                raise UsageError(message)
            if await channel.isdir(_path(folder)):
                return
        message = f"The folder of the report {escaped(place.url)} does not exist; create {escaped(folder.url)} first."
        raise Missing(message)

    async def _status(self, place: Parts) -> Any:
        async with self._channel() as channel:
            return await channel.stat(_path(place))

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Any]:
        """Give a channel of a connection that is up; one that breaks is not used again."""
        files = self._files or await self._connected()
        try:
            async with files._pool.get() as channel:
                yield channel
        except Exception as error:
            if is_transient(error) and self._files is files:
                self._files = None
            raise

    async def _connected(self) -> Any:
        """Connect, all who ask meanwhile by the same attempt."""
        import asyncio

        if self._opening is None:
            self._opening = asyncio.ensure_future(asyncio.to_thread(self._connect))
        opening = self._opening
        try:
            self._files = await asyncio.shield(opening)
        finally:
            if opening.done() and self._opening is opening:
                self._opening = None
        return self._files

    def _connect(self) -> Any:
        """Connect, where the server's key is known.

        Raises:
            ConnectionError: The server cannot be reached, for whatever reason the system gives.
            StorageError: It can, and is of no use.
        """
        user, host, port = self._server
        given: dict[str, Any] = {"username": user, "port": port}
        known = [str(path) for path in (Path(name).expanduser() for name in _KNOWN_HOSTS) if path.is_file()]
        try:
            return self._open(
                host=host,
                known_hosts=known or b"",  # sshfs alone would trust any key
                connect_timeout=_SECONDS,
                login_timeout=_SECONDS,
                keepalive_interval=_SECONDS,
                skip_instance_cache=True,
                sftp_client_kwargs={"path_errors": "surrogateescape"},
                **{name: value for name, value in given.items() if value is not None},
            )
        except ValueError as error:
            message = (
                f"{escaped(self._head)} cannot be used: it offers no SFTP, or a line of ~/.ssh/known_hosts cannot be "
                "read; check both."
            )
            raise StorageError(message) from error
        except OSError as error:
            raise ConnectionError from error


async def _closed(scan: AsyncGenerator[Any, None]) -> None:
    with suppress(Exception):  # of a connection that is lost
        await scan.aclose()


def _path(place: Parts) -> str:
    return f"/{place.path}"


def _entry(rest: str, status: Any, skipped: str = "") -> Entry:
    why = "" if stat.S_ISREG(status.permissions) else "not a regular file"
    return Entry(rest, status.size, status.mtime * _NS + (status.mtime_ns or 0), skipped or why)

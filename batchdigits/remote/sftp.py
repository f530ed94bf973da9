"""Paths on an SFTP server in; listings, bytes, and whole uploads out. Each coroutine is one attempt."""

import hashlib
import posixpath
import secrets
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchdigits.errors import StorageError, UsageError, shown
from batchdigits.remote.entries import Enters, Entry
from batchdigits.remote.patience import Missing, done, is_transient
from batchdigits.remote.urls import Parts, server

if TYPE_CHECKING:
    import asyncio

_SECONDS = 5  # to connect, to log in, and between two questions whether the server is still there
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_BLOCK_BYTES = 2**20
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
        """List a folder, one of its folders at a time.

        Raises:
            StorageError: It does not exist, or cannot be listed.
            UsageError: It is neither a folder nor a file.
        """
        status = done(lambda: self._status(place), place.url, "listed")
        if stat.S_ISREG(status.permissions):
            yield _entry("", status)
            return
        if not stat.S_ISDIR(status.permissions):
            message = f"The source {shown(place.url)} is a pipe, socket or device; name a file or a folder."
            raise UsageError(message)
        ahead = [""]
        while ahead:
            folder = ahead.pop()
            here = place._replace(path=f"{place.path}/{folder}".strip("/"))
            for name, status in done(lambda: self._children(here), here.url, "listed"):  # noqa: B023  (called at once)
                rest = f"{folder}{name}"
                if stat.S_ISLNK(status.permissions):
                    yield done(lambda: self._link(place, rest), place.inside(rest), "listed")  # noqa: B023
                elif not stat.S_ISDIR(status.permissions):
                    yield _entry(rest, status)
                elif enters(rest):
                    ahead.append(f"{rest}/")

    async def _children(self, place: Parts) -> list[tuple[str, Any]]:
        async with self._channel() as channel:
            found = await channel.readdir(_path(place))
        return [(child.filename, child.attrs) for child in found if child.filename not in (".", "..")]

    async def _link(self, place: Parts, rest: str) -> Entry:
        """Judge a symbolic link as `images` does: it may lead to a file below the folder that is listed."""
        path = posixpath.join(_path(place), rest)
        async with self._channel() as channel:
            try:
                status = await channel.stat(path)
            except Exception as error:  # noqa: BLE001  (asyncssh is imported when it is needed)
                if is_transient(error):
                    raise
                return Entry(rest, 0, 0)  # gets a row, which will say why it cannot be read
            if stat.S_ISDIR(status.permissions):
                return _entry(rest, status, "symbolic link to a folder")
            top = await channel.realpath(_path(place))
            is_inside = (await channel.realpath(path)).startswith(top.rstrip("/") + "/")
        return _entry(rest, status, "" if is_inside else "symbolic link out of the source")

    async def get(self, place: Parts, most_bytes: int) -> bytes | None:
        """Read a file; None where it is larger than that."""
        async with self._channel() as channel, channel.open(_path(place), "rb") as file:
            size_bytes = (await file.stat()).size
            return None if size_bytes > most_bytes else bytes(await file.read(size_bytes))

    async def part(self, place: Parts, start: int, stop: int) -> bytes:
        """Read some of a file."""
        async with self._channel() as channel, channel.open(_path(place), "rb") as file:
            return bytes(await file.read(stop - start, start))

    async def size(self, place: Parts) -> int | None:
        """Give the size of a file; None where there is none."""
        async with self._channel() as channel:
            if not await channel.exists(_path(place)):
                return None
            return int((await channel.stat(_path(place))).size)

    async def stands(self, place: Parts) -> bool:
        """Tell whether a file or folder is there."""
        async with self._channel() as channel:
            return bool(await channel.exists(_path(place)))

    async def sha256(self, place: Parts) -> str:
        """Compute the SHA-256 of a file in constant memory."""
        sum_ = hashlib.sha256()
        async with self._channel() as channel, channel.open(_path(place), "rb") as file:
            while block := await file.read(_BLOCK_BYTES):
                sum_.update(block)
        return sum_.hexdigest()

    async def put(self, draft: Path, place: Parts) -> None:
        """Send a finished file under another name, and give it its own when all of it has come."""
        temporary = posixpath.join(posixpath.dirname(_path(place)), f".batchdigits-{secrets.token_hex(4)}.tmp")
        try:
            async with self._channel() as channel:
                await channel.put(str(draft), temporary)
                await channel.posix_rename(temporary, _path(place))
        except Exception:
            with suppress(Exception):  # nothing better can be done about it
                async with self._channel() as channel:
                    await channel.remove(temporary)
            raise

    async def copy(self, old: Parts, new: Parts) -> None:
        """Give a file a second name: a link, so that it stands under the first until another does."""
        async with self._channel() as channel:
            if not await channel.exists(_path(new)):  # else the same bytes were kept before
                await channel.link(_path(old), _path(new))

    async def check_folder(self, place: Parts) -> None:
        """Find trouble with a report before there is one to write.

        Raises:
            StorageError: Its folder does not exist.
        """
        folder = place._replace(path=posixpath.dirname(place.path))
        async with self._channel() as channel:
            if await channel.isdir(_path(folder)):
                return
        message = f"The folder of the report {shown(place.url)} does not exist; create {shown(folder.url)} first."
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
                f"{shown(self._head)} cannot be used: it offers no SFTP, or a line of ~/.ssh/known_hosts cannot be "
                "read; check both."
            )
            raise StorageError(message) from error
        except OSError as error:
            raise ConnectionError from error


def _path(place: Parts) -> str:
    return f"/{place.path}"


def _entry(rest: str, status: Any, passed_over: str = "") -> Entry:
    why = "" if stat.S_ISREG(status.permissions) else "not a regular file"
    return Entry(rest, status.size, status.mtime * _NS + (status.mtime_ns or 0), passed_over or why)

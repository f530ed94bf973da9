"""Give the store that reaches a URL: one for each server and process."""

import io
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from batchdigits.errors import UsageError
from batchdigits.storage.backends.base import Store
from batchdigits.storage.backends.s3 import S3
from batchdigits.storage.backends.sftp import Sftp
from batchdigits.storage.retries import run
from batchdigits.storage.urls import Parts

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_NOISY = ("asyncio", "asyncssh", "asyncssh.sftp", "aiobotocore", "aiohttp", "botocore", "fsspec", "s3fs", "sshfs")


_KINDS: dict[str, Callable[[str], Store]] = {"s3": S3, "sftp": Sftp}
_made: dict[str, Store] = {}
_lock = threading.Lock()


def store(place: Parts) -> Store:
    """Give what reaches a place; it is made once a process, and never travels to another.

    Raises:
        UsageError: The extra is not installed.
    """
    name = place.scheme if place.scheme == "s3" else place.head
    with _lock:
        if name not in _made:
            for logger in _NOISY:  # what they say of errors is said by ours, and once
                logging.getLogger(logger).setLevel(logging.CRITICAL + 1)
            try:
                import tenacity  # noqa: F401

                _made[name] = _KINDS[place.scheme](place.head)
            except ImportError as error:
                message = f"{place.scheme}:// needs the extra: pip install 'batchdigits[remote]'."
                raise UsageError(message) from error
        return _made[name]


class RemoteReader(io.RawIOBase):
    """A file of a storage, read a part at a time."""

    def __init__(self, place: Parts) -> None:
        """Look how large it is.

        Raises:
            FileNotFoundError: It does not exist.
        """
        self._store, self._place, self._at = store(place), place, 0
        size = run(lambda: self._store.size(place), place.url, "read")
        if size is None:
            raise FileNotFoundError(place.url)
        self._size = size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read on."""
        view = memoryview(buffer)
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        data = run(lambda: self._store.part(self._place, self._at, stop), self._place.url, "read")
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

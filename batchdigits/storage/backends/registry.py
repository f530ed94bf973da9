"""Give the store that reaches a URL: one for each server and process, and one for all archives."""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial

from batchdigits.errors import UsageError
from batchdigits.storage.backends.base import Server, Store
from batchdigits.storage.backends.s3 import S3
from batchdigits.storage.backends.sftp import Sftp
from batchdigits.storage.backends.zip_archives import Archives, RemoteArchive
from batchdigits.storage.urls import ZIP, Parts, is_remote, parts

_NOISY = ("asyncio", "asyncssh", "asyncssh.sftp", "aiobotocore", "aiohttp", "botocore", "fsspec", "s3fs", "sshfs")
_KINDS: dict[str, Callable[[str], Server]] = {"s3": S3, "sftp": Sftp}
_made: dict[str, Server] = {}
_lock = threading.Lock()


def store(place: Parts) -> Store:
    """Give what reaches a place.

    Raises:
        UsageError: The extra is not installed.
    """
    return archives if place.scheme == ZIP else server(place)


def server(place: Parts) -> Server:
    """Give what reaches a place on a network; it is made once a process, and never travels to another.

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


def _archive_of(member: Parts) -> str | RemoteArchive:
    """Give the path of a member's archive, or what reads it where that is remote.

    Raises:
        FileNotFoundError: It is remote, and does not exist.
    """
    if not is_remote(member.archive):
        return member.archive
    place = parts(member.archive)
    reached = server(place)
    size_bytes = reached.size(place)
    if size_bytes is None:
        raise FileNotFoundError(place.url)
    return RemoteArchive(size_bytes, partial(reached.part, place))


archives = Archives(_archive_of)
"""All that are open in this process."""
os.register_at_fork(after_in_child=archives.forget)

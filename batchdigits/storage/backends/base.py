"""Define what reaches a storage, a `Store`, and what its listings give, an `Entry`."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from batchdigits.storage.urls import Parts

_BLOCK_BYTES = 2**20

Enters = Callable[[str], bool]
"""Tells whether a folder is entered, by its path relative to what is listed, without a slash at its end."""


class Entry(NamedTuple):
    """A file."""

    rest: str
    """Its path relative to what is listed; empty where that is the file itself."""
    size_bytes: int
    """Its size."""
    version: int
    """For `ImageFile.mtime_ns`: another number for other bytes."""
    skipped: str = ""
    """Why it is not to be read, by what it is; empty where nothing is against it."""


def version(mark: str) -> int:
    """Hash an ETag or a CRC to a negative 64-bit integer that takes the place of `mtime_ns`.

    Negative, it never counts as recently modified.
    """
    return ~(int.from_bytes(hashlib.sha256(mark.encode()).digest()[:8]) >> 1)


def entered(entries: Iterable[Entry], enters: Enters) -> Iterator[Entry]:
    """Leave out what lies in folders that are not entered.

    Args:
        entries: In an order in which those of a folder follow one another, so that each is asked about once.
        enters: Asked about a folder after those that it lies in.
    """
    known: dict[str, bool] = {}  # the folders of the entry before
    for entry in entries:
        now: dict[str, bool] = {}
        for at, character in enumerate(entry.rest):
            if character == "/" and all(now.values()):
                folder = entry.rest[:at]
                now[folder] = known[folder] if folder in known else enters(folder)
        known = now
        if all(known.values()):
            yield entry


async def sha256_of(file: Any) -> str:  # noqa: ANN401  (each library has its own)
    """Compute the SHA-256 of what is read asynchronously, in constant memory."""
    checksum = hashlib.sha256()
    while block := await file.read(_BLOCK_BYTES):
        checksum.update(block)
    return checksum.hexdigest()


class Store(Protocol):
    """What reaches a storage."""

    def listed(self, place: Parts, enters: Enters, /) -> Iterator[Entry]:
        """List a folder, or a file by itself."""

    def size(self, place: Parts, /) -> int | None:
        """Give the size of a file; None where there is none."""

    def stands(self, place: Parts, /) -> bool:
        """Tell whether a file or folder is there; of an archive's member, whether the archive is."""

    def sha256(self, place: Parts, /) -> str:
        """Compute the SHA-256 of a file in constant memory; `Missing` where there is none."""

    def put(self, place: Parts, draft: Path, /) -> None:
        """Make a finished file of this machine one of the storage: whole, or not at all."""

    def copy(self, place: Parts, old: Parts, /) -> None:
        """Give a file a second name."""

    def check_folder(self, place: Parts, /) -> None:
        """Find trouble with a report before there is one to write."""


class Server(Store, Protocol):
    """A storage on a network."""

    async def get(self, place: Parts, most_bytes: int, /) -> bytes | None:
        """Try once to read a file; None where it is larger than that."""

    def part(self, place: Parts, start: int, stop: int, /) -> bytes:
        """Read some of a file."""

"""What a listing gives: files behind a URL in, those in folders that are entered out."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

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
    passed_over: str = ""
    """Why it is not to be read, by what it is; empty where nothing is against it."""


def version(mark: str) -> int:
    """Make a number of what a storage marks the bytes of a file with; it is negative, and so never a young file's."""
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

"""What is known of a found file in; out, whether it gets a row, by its name alone: on this machine and behind URLs."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from batchdigits.errors import printable, shown
from batchdigits.sources.selection import Selection

IMAGE_ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif"})
"""Endings of files that are decoded."""
UNSUPPORTED_ENDINGS = frozenset({".pdf", ".heic", ".heif", ".avif", ".jp2", ".svg"})
"""Endings of files that get a row which says how to convert them."""

FOUND_ENDINGS = IMAGE_ENDINGS | UNSUPPORTED_ENDINGS
_HIDDEN_NAME = re.compile(r"[.~].*|.*\.(tmp|part|crdownload)|thumbs\.db|__macosx|@eadir", re.IGNORECASE | re.DOTALL)


class ImageFile(NamedTuple):  # a dataclass takes four times as long to make
    """A file that gets one row a page."""

    path: str
    """Absolute path, as `os.fsdecode` gives it: bytes that are not UTF-8 are surrogates; or a normalised URL."""
    name: str
    """The `path` column of its rows: `/` between parts, escaped by `errors.printable`."""
    size_bytes: int
    """Size of the file; 0 for one whose status cannot be read, such as a dangling link."""
    mtime_ns: int
    """Time of its last change in nanoseconds since 1970; 0 for one whose status cannot be read. Behind a URL that tells
    no such time, a negative number that is another for other bytes."""
    ending: str
    """The name's ending, with its dot, in lower case; empty without one."""
    inode: int
    """Inode number of the file; 0 for one whose status cannot be read, or behind a URL."""
    known_sha256: str = ""
    """Of the bytes that were observed at this path before; empty where there are none."""


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Something found that gets no row; it is counted by its reason."""

    path: str
    """Absolute path, as `os.fsdecode` gives it, or a normalised URL."""
    reason: str
    """A short noun phrase, the same for all of its kind: `not an image`."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a found file is judged by."""

    outputs: frozenset[str]
    """The absolute paths of this run's reports."""
    identities: frozenset[tuple[int, int]]
    """Device and inode of those that exist."""
    selection: Selection
    """What is taken."""


def is_hidden(name: str) -> bool:
    """Tell whether the last part of a path is that of a hidden or system file or folder."""
    return _HIDDEN_NAME.fullmatch(name) is not None


def prefix_of(source: str) -> str:
    """What stands before the names inside a folder: the folder as given, escaped, and one slash."""
    return printable(source).rstrip("/") + "/"


def ending_of(path: str) -> str:
    """Return the ending of a path's last part, with its dot, in lower case; empty without one."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def no_candidate(path: str, ending: str, relative: str, rules: Rules) -> str:
    """Say why a file is passed over by its name alone, and by its path in the source; empty where it is not."""
    if path in rules.outputs:
        return ""  # it is judged by what it holds
    if ending not in FOUND_ENDINGS:
        return "not an image"
    return "" if rules.selection.takes(relative) else "left out by --include or --exclude"


def overwriting(path: str) -> str:
    """Say that an output would take an input's place."""
    return f"An output would overwrite the input image {shown(path)}; choose another name for -o."

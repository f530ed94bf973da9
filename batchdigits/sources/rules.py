"""Decide whether a file is read, reported as unsupported, or skipped: by its name, and else by its first bytes."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from batchdigits.errors import UsageError, escape_name, escaped
from batchdigits.records import SIGNATURE

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IMAGE_ENDINGS = frozenset(
    {
        *(".png", ".apng", ".tif", ".tiff", ".bmp", ".dib", ".webp", ".gif"),
        *(".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".avifs"),
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp"),
        *(".pdf", ".heic", ".heif", ".heics", ".heifs", ".hif"),  # by an extra, named by their row where it is missing
    }
)
"""Endings of files that are decoded."""
UNSUPPORTED_ENDINGS = frozenset({".svg"})
"""Endings of files that get a row which says how to convert them."""

FOUND_ENDINGS = IMAGE_ENDINGS | UNSUPPORTED_ENDINGS
NOT_AN_IMAGE = "not an image"
HIDDEN = "hidden or system file"
OUTPUT = "report of this run"
IMAGE_BY_CONTENT = "an image by its first bytes, but not by its ending"
EXCLUDED_FOLDER = "folder left out by --exclude"
ZIP_ARCHIVE = "ZIP archive"
FOLDER_LINK = "symbolic link to a folder out of the source"
FILE_LINK = "symbolic link out of the source"
NAMED = {
    IMAGE_BY_CONTENT: "rename it",
    ZIP_ARCHIVE: "give it as a SOURCE of its own, zip:///PATH",
    FOLDER_LINK: "give that folder as a SOURCE of its own",
    FILE_LINK: "give its folder as a SOURCE of its own",
}
"""The reasons for which rows may be missed, and what brings them."""
_HIDDEN_BEGINNINGS, _HIDDEN_ENDINGS = (".", "~"), (".tmp", ".part", ".crdownload")
_SYSTEM_NAMES = frozenset(
    {
        *("thumbs.db", "__macosx", "@eadir", "@tmp", "lost+found", "system volume information"),
        *("$recycle.bin", "#recycle", "@recycle", "network trash folder", "temporary items"),
        *("#snapshot", "@recently-snapshot", "@sharesnap"),
    }
)  # in lower case
_OLD_BINS = frozenset({"RECYCLER", "RECYCLED"})  # of Windows XP and before; `recycled` may be anybody's folder
_NO_ENDING = re.compile(r"|\.[0-9_-]*")  # `Scan 12.05` has none
_SURELY = {  # kinds whose signature a text may hold as well
    "BMP": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),  # with a header's size
    "PDF": re.compile(rb"%PDF-"),
}
FIRST_BYTES = 18
"""How many of a file `is_image` needs."""
_MOST_FRUITLESS = 20  # files of an ending; a million tables beside the scans are not all opened in every run


class Selection:
    """What `--include` and `--exclude` ask for; without patterns everything is taken."""

    def __init__(self, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Compile patterns in the syntax of .gitignore.

        Args:
            include: Where there are any, only files that match are taken.
            exclude: Files that match are not taken, folders that match are not entered.

        Raises:
            UsageError: Something is no pattern.

        Source: https://git-scm.com/docs/gitignore#_pattern_format
        """
        self._include = _compiled("--include", include) if include else None
        self._exclude = _compiled("--exclude", exclude) if exclude else None

    def takes(self, name: str) -> bool:
        """Tell whether a file is read, by its path relative to the source."""
        included = self._include is None or self._include.match_file(name)
        return included and not (self._exclude and self._exclude.match_file(name))

    def enters(self, name: str) -> bool:
        """Tell whether a folder is entered, by its path relative to the source, without a slash at its end."""
        return not (self._exclude and self._exclude.match_file(f"{name}/"))


def _compiled(option: str, patterns: Sequence[str]) -> "GitIgnoreSpec":
    from pathspec import GitIgnoreSpec  # here, for few runs have patterns

    try:
        return GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        names = " ".join(map(escaped, patterns))
        message = f"{option} {names} holds something that is no pattern of .gitignore's syntax: {error}."
        raise UsageError(message) from error


@dataclass(frozen=True, slots=True)
class DiscoveryRules:
    """What a found file is judged by."""

    outputs: frozenset[str]
    """The absolute paths of this run's reports."""
    identities: frozenset[tuple[int, int]]
    """Device and inode of those that exist."""
    selection: Selection
    """What is taken."""
    archives: frozenset[str]
    """The absolute paths of those that are read as sources of their own, or that reports are written into."""
    fruitless: Counter[str] = field(default_factory=Counter)
    """Files that were opened and were no images, by ending."""
    unlisted: dict[str, str] = field(default_factory=dict)
    """The patterns of --exclude for folders that this user may not list."""


def is_hidden(name: str) -> bool:
    """Tell whether the last part of a path is that of a hidden or system file or folder."""
    lower = name.lower()
    return (
        lower in _SYSTEM_NAMES
        or lower.startswith(_HIDDEN_BEGINNINGS)
        or lower.endswith(_HIDDEN_ENDINGS)
        or name in _OLD_BINS
    )


def prefix_of(source: str) -> str:
    """What stands before the names inside a folder: the folder as given, escaped, and one slash."""
    return escape_name(source).rstrip("/") + "/"


def is_image(first_bytes: bytes) -> bool:
    """Tell whether a file is an image, or what a row says how to convert, by its first `FIRST_BYTES`."""
    signature = SIGNATURE.match(first_bytes)
    if signature is None:
        return False
    return _SURELY.get(str(signature.lastgroup), SIGNATURE).match(first_bytes) is not None


def reason_by_content(ending: str, relative: str, rules: DiscoveryRules, begins_as_image: Callable[[], bool]) -> str:
    """Say why a file is skipped that its name does not show to be an image; empty where it has no ending and is one.

    Archives are told by their names: they may hold scans.

    Args:
        ending: Of its name, with the dot, in lower case.
        relative: Its path in the source, which patterns match.
        rules: What a file is judged by.
        begins_as_image: Opens it and asks `is_image`; where many of the same ending were none, it is not called.
    """
    has_ending = not _NO_ENDING.fullmatch(ending)
    if (has_ending and rules.fruitless[ending] == _MOST_FRUITLESS) or not rules.selection.takes(relative):
        return NOT_AN_IMAGE
    if ending == ".zip":
        return ZIP_ARCHIVE
    if begins_as_image():
        return IMAGE_BY_CONTENT if has_ending else ""
    rules.fruitless[ending] += has_ending
    return NOT_AN_IMAGE


def skip_reason(path: str, ending: str, relative: str, rules: DiscoveryRules) -> str:
    """Say why a file is skipped, by its name alone; empty where it is not.

    Args:
        path: Absolute, or a normalised URL.
        ending: Of its name, with the dot, in lower case.
        relative: Its path in the source, which patterns match.
        rules: What a file is judged by.
    """
    if path in rules.outputs:
        return ""  # it is judged by what it holds
    if ending not in FOUND_ENDINGS:
        return NOT_AN_IMAGE
    return "" if rules.selection.takes(relative) else "left out by --include or --exclude"

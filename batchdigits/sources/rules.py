"""Decide by its name whether a file is read, reported as unsupported, or skipped."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchdigits.errors import UsageError, escape_name, escaped

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

IMAGE_ENDINGS = frozenset(
    {
        *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".jp2", ".j2k", ".avif"),
        *(".pdf", ".heic", ".heif"),  # by an extra, which their row names where it is missing
    }
)
"""Endings of files that are decoded."""
UNSUPPORTED_ENDINGS = frozenset({".svg"})
"""Endings of files that get a row which says how to convert them."""

FOUND_ENDINGS = IMAGE_ENDINGS | UNSUPPORTED_ENDINGS
_HIDDEN_NAME = re.compile(r"[.~].*|.*\.(tmp|part|crdownload)|thumbs\.db|__macosx|@eadir", re.IGNORECASE | re.DOTALL)


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


def is_hidden(name: str) -> bool:
    """Tell whether the last part of a path is that of a hidden or system file or folder."""
    return _HIDDEN_NAME.fullmatch(name) is not None


def prefix_of(source: str) -> str:
    """What stands before the names inside a folder: the folder as given, escaped, and one slash."""
    return escape_name(source).rstrip("/") + "/"


def ending_of(path: str) -> str:
    """Return the ending of a path's last part, with its dot, in lower case; empty without one."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


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
        return "not an image"
    return "" if rules.selection.takes(relative) else "left out by --include or --exclude"


def overwriting(path: str) -> str:
    """Say that an output would take an input's place."""
    return f"An output would overwrite the input image {escaped(path)}; choose another name for -o."

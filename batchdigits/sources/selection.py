"""Patterns in the syntax of .gitignore in; out, which files a run reads and which folders it enters.

Source: https://git-scm.com/docs/gitignore#_pattern_format
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batchdigits.errors import UsageError, shown

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


class Selection:
    """What `--include` and `--exclude` ask for; without patterns everything is taken."""

    def __init__(self, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> None:
        """Compile the patterns.

        Args:
            include: Where there are any, only files that match are taken.
            exclude: Files that match are not taken, folders that match are not entered.

        Raises:
            UsageError: Something is no pattern.
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
        names = " ".join(map(shown, patterns))
        message = f"{option} {names} holds something that is no pattern of .gitignore's syntax: {error}."
        raise UsageError(message) from error

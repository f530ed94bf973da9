"""Find the files under all sources, as a stream of `ImageFile` and `Skipped` records that never holds all names.

The order is that of the bytes of their paths, in which a ledger has them; a file that two sources reach is yielded
twice, as the first one names it first. What is held at a time is the listing of a folder and of those that it is in.
A report of this run is no input, and ends the run where it would overwrite an image.
"""

import fnmatch
import heapq
import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from batchdigits.errors import StorageError, UsageError, escape_name, escaped
from batchdigits.records import SIGNATURE, ImageFile, Skipped
from batchdigits.sources.rules import (
    EXCLUDED_FOLDER,
    FILE_LINK,
    FIRST_BYTES,
    FOLDER_LINK,
    FOUND_ENDINGS,
    HIDDEN,
    NOT_AN_IMAGE,
    OUTPUT,
    DiscoveryRules,
    Selection,
    is_hidden,
    is_image,
    prefix_of,
    reason_by_content,
    skip_reason,
)
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.backends.base import Entry
from batchdigits.storage.guards import opened, opened_folder
from batchdigits.storage.remote import listed
from batchdigits.storage.scratch import in_order
from batchdigits.storage.urls import Location, ending_of, parts

_MOST_NAMED = 20  # folders that cannot be listed


def discover(
    sources: Sequence[Location], *, outputs: Sequence[TargetFile], selection: Selection | None = None
) -> Iterator[ImageFile | Skipped]:
    """Find the images under all sources; that every source exists is checked before the first is yielded.

    Args:
        sources: Folders (read recursively), files, globs where no such path exists literally, and URLs of folders or
            files.
        outputs: Report files of this run, which are never taken as input.
        selection: What is taken of all that stands in folders or matches globs; None takes everything.

    Yields:
        A record for each file found, in the order of paths. Names are relative to the folder where that is the only
        source, else they begin with the source as given.

    Raises:
        StorageError: a source does not exist or matches nothing, or a folder cannot be listed.
        UsageError: a source is neither a file nor a folder, or an output would overwrite an image; a URL is not
            spelled as it has to be, or what it needs is not installed.
    """
    rules = DiscoveryRules(
        outputs=frozenset(output.absolute for output in outputs),
        identities=frozenset(
            _identity(status) for output in outputs if not output.is_remote and (status := _status_of(str(output)))
        ),
        selection=selection or Selection(),
        archives=frozenset(
            parts(url).archive
            for url in [
                *(source.path for source in sources if source.is_remote),
                *(output.absolute for output in outputs if output.is_remote),
            ]
        ),
    )
    is_only = len(sources) == 1
    begun = [_begun(source, rules, is_only=is_only) for source in sources]
    yield from begun[0] if is_only else heapq.merge(*begun, key=_path)
    _check_all_listed(rules.unlisted)


def _begun(source: Location, rules: DiscoveryRules, *, is_only: bool) -> Iterator[ImageFile | Skipped]:
    """Look whether a source is there, and begin to find what it holds, in the order of paths."""
    if source.is_remote:
        return in_order(_remote(source, rules, is_only=is_only), _path)
    status = _status_of_source(source.given, rules.selection)
    if status is None:
        return in_order(_glob(source.given, rules), _path)
    if stat.S_ISDIR(status.st_mode):
        prefix = "" if is_only else prefix_of(source.given)
        return _folder(source.path, prefix, _Top.of(source.given), rules)
    name = escape_name(source.given)
    return iter([_image(source.path, name, ending_of(source.path), status, rules, given=True)])


def _path(record: "ImageFile | Skipped | _Inside") -> bytes:
    """Give what records are sorted by, as `urls.encoded` would, without the call."""
    return record.path.encode(errors="surrogateescape")


def source_identities(sources: Sequence[Location]) -> list[tuple[int, int] | None]:
    """Tell which folders the sources are, by device and inode; None for a source, or its beginning, that is no folder.

    Where this changes during a run, a folder was taken away: a disk unmounted, a share lost. URLs are left out: see
    `remote.remote_sources_exist`.
    """
    states = [_status_of(folder) for folder in _beginnings(sources)]
    return [_identity(status) if status and stat.S_ISDIR(status.st_mode) else None for status in states]


def source_paths(sources: Sequence[Location]) -> tuple[str, ...]:
    """Give the absolute paths of this machine, of folders and files, that sources are or, as patterns, begin with."""
    return tuple(map(_absolute, _beginnings(sources)))


def source_folders(sources: Sequence[Location]) -> list[str]:
    """Give those of them that are folders."""
    return [path for path in source_paths(sources) if os.path.isdir(path)]  # noqa: PTH112


def _beginnings(sources: Sequence[Location]) -> list[str]:
    """Give the path of each source that is on this machine; of a pattern, the folder that it begins with."""
    return [
        source.given
        if os.path.lexists(source.given) or not _is_pattern(source.given)
        else _split_glob(source.given)[0] or "."
        for source in sources
        if not source.is_remote
    ]


@dataclass(frozen=True, slots=True)
class _Top:
    """The folder that a source is, or that a glob begins with."""

    path: str
    """Absolute, with a slash at its end; what patterns match is relative to it."""
    real: str
    """The same without symbolic links; links may lead to files below it."""

    @classmethod
    def of(cls, folder: str) -> Self:
        """Look at a folder."""
        return cls(_absolute(folder).rstrip("/") + "/", os.path.realpath(folder))

    def relative(self, path: str) -> str:
        """Take a path's beginning away."""
        return path.removeprefix(self.path)


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100  (Path.absolute keeps `..`)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status_of(path: str) -> os.stat_result | None:
    """Return the status of what a path leads to, or None where there is nothing that can be reached."""
    try:
        return Path(path).stat()
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None


def _status_of_source(source: str, selection: Selection) -> os.stat_result | None:
    """Return the status of a source, or None for a glob that matches something."""
    try:
        status = Path(source).stat() if source else None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        status = None
    except OSError as error:
        message = f"The source {escaped(source)} cannot be read: {error.strerror}. Check its path and permissions."
        raise StorageError(message) from error
    if status is None:
        if os.path.lexists(source) or not _is_pattern(source):
            message = f"The source {escaped(source)} does not exist; check its spelling and that its disk is mounted."
            raise StorageError(message)
        unlisted: dict[str, str] = {}
        if next(_matches(*_split_glob(source), selection, unlisted), None) is None and not unlisted:
            message = f"Nothing matches the source {escaped(source)}; check its spelling and that its disk is mounted."
            raise StorageError(message)
    elif not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        message = f"The source {escaped(source)} is a pipe, socket or device; name a file or a folder."
        raise UsageError(message)
    return status


def _listing(folder: str, top: _Top | None, unlisted: dict[str, str]) -> Iterator[os.DirEntry[str]]:
    """Stream the entries of a folder; trouble with it ends the run, for a report must not lose rows silently.

    A sub-folder that was removed since it was found, or replaced by a link, holds nothing any more. An entry knows no
    path, and may be asked until the next one is taken.

    Args:
        folder: Its path.
        top: What the pattern that leaves it out is relative to; None for the source itself.
        unlisted: Takes that pattern where this user may not list it, so that all such folders are told at once.
    """
    try:
        descriptor = opened_folder(_absolute(folder), top.path) if top else os.open(folder or ".", os.O_DIRECTORY)
        try:
            with os.scandir(descriptor) as entries:
                yield from entries
        finally:
            os.close(descriptor)
    except OSError as error:
        if top and isinstance(error, FileNotFoundError | NotADirectoryError):
            return
        if top and isinstance(error, PermissionError):
            unlisted[folder] = _excluding(folder, top)
            return
        leaving = f"Leave it out with --exclude {_excluding(folder, top)} or check" if top else "Check"
        reason = f"cannot be listed: {error.strerror}. {leaving} its permissions and its disk."
        message = f"The folder {escaped(folder)} {reason}"
        raise StorageError(message) from error


def _excluding(folder: str, top: _Top) -> str:
    """Spell the pattern that leaves a folder out, for a shell; what means something else in it becomes a `?`."""
    pattern = re.sub(r"[^\w./+@=:,-]", "?", top.relative(_absolute(folder)))
    return shlex.quote(f"/{pattern}/")


def _check_all_listed(unlisted: dict[str, str]) -> None:
    """Refuse sources of which folders may not be listed, and say how the rest goes on.

    Raises:
        StorageError: There are such folders.
    """
    if unlisted:
        first = sorted(unlisted)[:_MOST_NAMED]
        options = " ".join(sorted({f"--exclude {unlisted[folder]}" for folder in first}))
        more = f" and {len(unlisted) - len(first):,} more" if len(unlisted) > len(first) else ""
        those = f"The folder {escaped(first[0])}" if len(unlisted) == 1 else f"{len(unlisted):,} folders"
        message = (
            f"{those} cannot be listed: Permission denied. Leave out what may not be listed with {options}{more} "
            "or give this user the right to list."
        )
        raise StorageError(message)


class _Inside(NamedTuple):
    """A folder that is to be walked."""

    path: str
    """With a slash at its end, as all in it begins."""
    prefix: str
    """What begins all names in it, escaped."""


def _folder(folder: str, prefix: str, top: _Top, rules: DiscoveryRules) -> Iterator[ImageFile | Skipped]:
    """Walk an absolute folder; `prefix` (escaped) begins all names."""
    begun = [_listed_in_order(_Inside(f"{folder.rstrip('/')}/", prefix), top, rules)]
    while begun:
        for record in begun[-1]:
            if isinstance(record, _Inside):
                begun.append(_listed_in_order(record, top, rules))
                break
            yield record
        else:
            begun.pop()


def _listed_in_order(inside: _Inside, top: _Top, rules: DiscoveryRules) -> Iterator[ImageFile | Skipped | _Inside]:
    """List a folder, the folders in it among the files."""
    return in_order(_judged_in(inside, top, rules), _path)


def _judged_in(inside: _Inside, top: _Top, rules: DiscoveryRules) -> Iterator[ImageFile | Skipped | _Inside]:
    folder = inside.path.rstrip("/") or "/"
    for entry in _listing(folder, top if len(folder) >= len(top.path) else None, rules.unlisted):
        path, name = inside.path + entry.name, inside.prefix + escape_name(entry.name)
        if not _is_folder(entry):
            yield _file(entry, path, name, top, rules)
        elif rules.selection.enters(top.relative(path)):
            yield _Inside(f"{path}/", f"{name}/")
        else:
            yield Skipped(path, EXCLUDED_FOLDER)


def _glob(source: str, rules: DiscoveryRules) -> Iterator[ImageFile | Skipped]:
    """Treat each match of a pattern like a file that was found, or walk it."""
    beginning, parts = _split_glob(source)
    top = _Top.of(beginning or ".")
    for match, entry in _matches(beginning, parts, rules.selection, rules.unlisted):
        if not _is_folder(entry):
            yield _file(entry, _absolute(match), escape_name(match), top, rules)
        elif rules.selection.enters(top.relative(_absolute(match))):
            yield from _folder(_absolute(match), prefix_of(match), top, rules)
        else:
            yield Skipped(_absolute(match), EXCLUDED_FOLDER)


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _split_glob(source: str) -> tuple[str, list[str]]:
    """Split a pattern into the literal folder it begins with (empty, or ending in a slash) and the parts after it."""
    parts = source.split("/")
    literal = next(index for index, part in enumerate(parts) if _is_pattern(part))
    return "".join(f"{part}/" for part in parts[:literal]), [part for part in parts[literal:] if part]


def _matches(
    beginning: str, parts: list[str], selection: Selection, unlisted: dict[str, str]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Stream what a pattern matches, as path and entry; unlike `glob.glob` it never walks through a link."""
    top = _Top.of(beginning or ".")
    ahead = [(beginning, parts)]
    while ahead:
        folder, parts = ahead.pop()
        if folder != beginning and not selection.enters(top.relative(_absolute(folder))):
            continue
        part, rest = parts[0], parts[1:]
        any_depth = part == "**" and bool(rest)
        if any_depth:
            ahead.append((folder, rest))
        for entry in _listing(folder, top if folder != beginning else None, unlisted):
            if any_depth:
                if _is_folder(entry):
                    ahead.append((f"{folder}{entry.name}/", parts))
            elif fnmatch.fnmatchcase(entry.name, part):
                if not rest:
                    yield folder + entry.name, entry
                elif _is_folder(entry):
                    ahead.append((f"{folder}{entry.name}/", rest))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell a folder to walk from all else: a link to one is none, nor is a hidden one, nor what cannot be asked."""
    try:
        return entry.is_dir(follow_symlinks=False) and not is_hidden(entry.name)
    except OSError:
        return False


def _file(entry: os.DirEntry[str], path: str, name: str, top: _Top, rules: DiscoveryRules) -> ImageFile | Skipped:
    """Judge an entry that is not a folder to walk; where its name shows an image, only an output is opened.

    A symbolic link that leads nowhere gets a row, if its own name is an image's.
    """
    ending = ending_of(entry.name)
    if entry.name[0] in ".~" or (ending not in FOUND_ENDINGS and is_hidden(entry.name)):
        return Skipped(path, HIDDEN)
    is_link = entry.is_symlink()
    status = _status_of(path) if is_link else None
    relative = top.relative(path)
    if status is not None and stat.S_ISDIR(status.st_mode):
        return Skipped(path, _reason_of_folder_link(path, top, rules))
    reason = skip_reason(path, ending, relative, rules)
    if reason == NOT_AN_IMAGE and (_is_regular(status) if is_link else entry.is_file(follow_symlinks=False)):
        reason = reason_by_content(ending, relative, rules, lambda: is_image(_first_bytes(path) or b""))
        reason = NOT_AN_IMAGE if path in rules.archives else reason
    if not reason and status is not None and not _is_inside(os.path.realpath(path), top.real):
        reason = FILE_LINK
    if reason:
        return Skipped(path, reason)
    if not is_link:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return Skipped(path, "gone while its folder was listed")
        except OSError:
            status = None  # gets a row, which will say why it cannot be read
    if status is not None and not _is_regular(status):
        return Skipped(path, "not a regular file")
    return _image(path, name, ending, status, rules, given=False)


def _is_regular(status: os.stat_result | None) -> bool:
    return status is not None and stat.S_ISREG(status.st_mode)


def _reason_of_folder_link(path: str, top: _Top, rules: DiscoveryRules) -> str:
    """Say why a symbolic link to a folder is not followed."""
    if not rules.selection.enters(top.relative(path)):
        return EXCLUDED_FOLDER
    is_reached = _is_inside(os.path.realpath(path) + "/", top.real)
    return "symbolic link to a folder" if is_reached else FOLDER_LINK


def _is_inside(real_path: str, real_folder: str) -> bool:
    return real_path.startswith(real_folder.rstrip("/") + "/")


def _image(
    path: str, name: str, ending: str, status: os.stat_result | None, rules: DiscoveryRules, *, given: bool
) -> ImageFile | Skipped:
    """Make the record of an image, unless it is an output of this run.

    Raises:
        UsageError: it is an output, and an image already stands there.
    """
    if path in rules.outputs or (rules.identities and status is not None and _identity(status) in rules.identities):
        if given or ending in FOUND_ENDINGS:
            first_bytes = _first_bytes(path)
            if first_bytes is None or SIGNATURE.match(first_bytes):  # to be safe
                raise UsageError(_overwriting(path))
        return Skipped(path, OUTPUT)
    if status is None:
        return ImageFile(path, name, size_bytes=0, mtime_ns=0, ending=ending, inode=0)
    inode, ctime_ns = signed_64_bits(status.st_ino), signed_64_bits(status.st_ctime_ns)
    return ImageFile(path, name, status.st_size, signed_64_bits(status.st_mtime_ns), ending, inode, ctime_ns)


def signed_64_bits(number: int) -> int:
    """Fold a number into the 64 bits with a sign that a ledger holds: times after 2262, inodes of some shares."""
    return number if -(2**63) <= number < 2**63 else (number + 2**63) % 2**64 - 2**63


def _first_bytes(path: str) -> bytes | None:
    """Read the first bytes of a regular file; None where it cannot be read."""
    with suppress(OSError), opened(Path(path)) as file:
        return file.read(FIRST_BYTES)
    return None


def _overwriting(path: str) -> str:
    """Say that an output would take an input's place."""
    return f"An output would overwrite the input image {escaped(path)}; choose another name for -o."


def _remote(source: Location, rules: DiscoveryRules, *, is_only: bool) -> Iterator[ImageFile | Skipped]:
    """Find the images behind a URL; where it is the only source, names are relative to it."""
    url = source.path
    place = parts(url)
    prefix = "" if is_only else prefix_of(source.given)
    left: list[Skipped] = []

    def enters(folder: str) -> bool:
        reason = "" if rules.selection.enters(folder) else EXCLUDED_FOLDER
        reason = HIDDEN if is_hidden(folder.rpartition("/")[2]) else reason
        if reason:
            left.append(Skipped(place.inside(folder), reason))
        return not reason

    for entry in listed(url, enters):
        yield from left
        left.clear()
        if entry.rest:
            yield _judged(entry, place.inside(entry.rest), prefix + escape_name(entry.rest), rules)
        elif url in rules.outputs:
            raise UsageError(_overwriting(url))
        else:
            yield ImageFile(
                url, escape_name(source.given), entry.size_bytes, entry.version, ending_of(place.path), inode=0
            )
    yield from left


def _judged(entry: Entry, url: str, name: str, rules: DiscoveryRules) -> ImageFile | Skipped:
    """Judge a file that was found behind a URL."""
    ending = ending_of(entry.rest)
    reason = HIDDEN if is_hidden(entry.rest.rpartition("/")[2]) else entry.skipped
    reason = reason or skip_reason(url, ending, entry.rest, rules)
    reason = OUTPUT if not reason and url in rules.outputs else reason  # whose endings are never an image's
    return Skipped(url, reason) if reason else ImageFile(url, name, entry.size_bytes, entry.version, ending, inode=0)

"""URLs of folders and files in; a stream of `ImageFile` and `PassedOver` records out, by the rules for folders here."""

from collections.abc import Iterator
from itertools import chain

from batchdigits.errors import UsageError, printable
from batchdigits.sources.rules import (
    ImageFile,
    PassedOver,
    Rules,
    ending_of,
    is_hidden,
    no_candidate,
    overwriting,
    prefix_of,
)
from batchdigits.storage import remote
from batchdigits.storage.remote import Entry


def far(source: str, rules: Rules, *, is_only: bool) -> Iterator[ImageFile | PassedOver]:
    """Find the images behind a URL; the first is looked for at once, so that trouble with a source shows before all.

    Args:
        source: The URL as given.
        rules: What is found is judged by them.
        is_only: There is no other source: names are relative to this one.

    Raises:
        StorageError: Nothing is there, or it cannot be listed.
        UsageError: An output would overwrite an image, or what the URL needs is not installed.
    """
    records = _listed(source, rules, is_only=is_only)
    first = next(records, None)
    return records if first is None else chain([first], records)


def _listed(source: str, rules: Rules, *, is_only: bool) -> Iterator[ImageFile | PassedOver]:
    url = remote.absolute(source)
    place = remote.parts(url)
    prefix = "" if is_only else prefix_of(source)
    left: list[PassedOver] = []

    def enters(folder: str) -> bool:
        if is_hidden(folder.rpartition("/")[2]):
            left.append(PassedOver(place.inside(folder), "hidden or system file"))
            return False
        if not rules.selection.enters(folder):
            left.append(PassedOver(place.inside(folder), "folder left out by --exclude"))
            return False
        return True

    for entry in remote.listed(url, enters):
        yield from left
        left.clear()
        if entry.rest:
            yield _judged(entry, place.inside(entry.rest), prefix + printable(entry.rest), rules)
        elif url in rules.outputs:
            raise UsageError(overwriting(url))
        else:
            yield ImageFile(url, printable(source), entry.size_bytes, entry.version, ending_of(place.path), inode=0)
    yield from left


def _judged(entry: Entry, url: str, name: str, rules: Rules) -> ImageFile | PassedOver:
    """Judge a file that was found behind a URL."""
    if is_hidden(entry.rest.rpartition("/")[2]):
        return PassedOver(url, "hidden or system file")
    if entry.passed_over:
        return PassedOver(url, entry.passed_over)
    ending = ending_of(entry.rest)
    if reason := no_candidate(url, ending, entry.rest, rules):
        return PassedOver(url, reason)
    if url in rules.outputs:  # whose endings are never an image's
        return PassedOver(url, "report of this run")
    return ImageFile(url, name, entry.size_bytes, entry.version, ending, inode=0)

"""Find out which of the discovered files have to be read, in which phase, and why.

What is found comes in the order of paths, and so do the rows of the ledger: both are gone through once, side by side.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum, StrEnum
from itertools import chain, compress, islice, repeat
from typing import Any

from batchdigits.errors import FaultKind
from batchdigits.ledger.database import Database
from batchdigits.records import NO_SUM, ImageFile, Skipped
from batchdigits.storage.scratch import Spool
from batchdigits.storage.urls import encoded, span

_BLOCK = 2048  # records that are held at a time


class Phase(IntEnum):
    """In which phase of a run a pending file is read."""

    STABLE = 1
    """First."""
    UNDRAWN = 2
    """Then: its picture is wanted, and all else of it is known."""
    RECENT = 3
    """Last: it may still be being written."""


class Why(StrEnum):
    """Why a file has to be read."""

    NEW = "new"
    """It was never read."""
    CHANGED = "changed"
    """Its size, its times or its inode are others than it was read with; its bytes may be the same."""
    ASKED = "asked"
    """It was asked for, now or in a run that did not come to it."""
    CONDITION = "condition"
    """It was read under another cache key."""
    UNDRAWN = "undrawn"
    """Its picture is shown now, and was not drawn when it was read."""
    UNOPENED = "unopened"
    """It could not be opened, or not be read for another reason that may pass."""


_KNOWN = """
SELECT path, size_bytes, mtime_ns, inode, ctime_ns, condition, {asked}, {undrawn}, fault FROM pages
WHERE page = 1 ORDER BY path
"""
_FAILED = """
stale OR EXISTS (SELECT 1 FROM pages AS any INDEXED BY faulty WHERE any.path = pages.path AND any.fault IS NOT NULL)
"""
UNDRAWN_SUM = 0
"""The sum of `records.UNDRAWN`: a picture that is to be drawn when a report shows it."""
IS_UNDRAWN = f"""
CASE pages WHEN 1 THEN png_sum IS {UNDRAWN_SUM} ELSE EXISTS (
    SELECT 1 FROM pages AS any WHERE any.path = pages.path AND any.png_sum = {UNDRAWN_SUM}
) END
"""
"""Of the first page of a file, whether one of its pictures is."""
_SHA256 = "SELECT lower(hex(substr(seen, 1, 32))) FROM pages WHERE path = ? AND page = 1"

_Known = tuple[bytes, int, int, int | None, int | None, int, int, int, str | None]  # what `_KNOWN` selects


class Plan:
    """What a run has to do."""

    def __init__(self, database: Database) -> None:
        """Begin with nothing found."""
        self.files = 0
        """Image files found, each counted once."""
        self.pending: Counter[Why] = Counter()
        """How many of them have to be read, by reason."""
        self.pending_bytes = 0
        """The size of these together."""
        self.skipped: Counter[str] = Counter()
        """Everything else, by reason."""
        self.left: set[bytes] = set()
        """The paths of files that were left to the next run so far."""
        self.found: Spool[tuple[bytes, str]] = Spool()
        """All that was found, in the order of paths: the path, and the name in rows."""
        self.missing: Spool[bytes] = Spool()
        """The paths that the ledger knows and that were not found, in order."""
        self.is_by_name = True
        """Whether the order of paths is that of names, too."""
        self.database = database
        """Open."""
        self.edges: list[tuple[bytes, bytes]] = []
        """The first and the last path of each block of what was found."""
        self._last_name = ""
        self._pending = {phase: Spool[tuple[list[tuple[Any, ...]], list[Why]]]() for phase in Phase}
        self._skipped: Spool[Skipped] = Spool()
        self._sum = hashlib.sha256()

    @property
    def fingerprint(self) -> str:
        """Sum up which files were found."""
        return self._sum.hexdigest()

    def take(self, found: list[tuple[bytes, str]], skipped: list[Skipped], missing: list[bytes]) -> None:
        """Add a block of what was found, and is missing."""
        if found:
            names = [name for _, name in found]
            self.is_by_name &= names == sorted(names) and self._last_name <= names[0]
            self._last_name = names[-1]
            self.edges.append((found[0][0], found[-1][0]))
            self._sum.update(b"\0".join([path for path, _ in found]) + b"\0")
            self.found.add(found)
            self.files += len(found)
        if skipped:
            self._skipped.add(skipped)
            self.skipped.update([record.reason for record in skipped])
        if missing:
            self.missing.add(missing)

    def ask(self, files: list[ImageFile], whys: list[Why], phase: Phase) -> None:
        """Add files that have to be read, and say why of each."""
        if files:
            columns = list(zip(*files, strict=True))  # which pickle in a tenth of the time
            self._pending[phase].add([(columns, whys)])
            self.pending.update(whys)
            self.pending_bytes += sum([file.size_bytes for file in files])

    def in_phase(self, phase: Phase) -> Iterator[ImageFile]:
        """Give the files that have to be read in a phase, in the order of paths; what is recorded changes nothing."""
        blocks = (zip(*columns, strict=True) for columns, _ in self._pending[phase])
        return map(ImageFile._make, chain.from_iterable(blocks))

    def asked(self) -> Iterator[tuple[bytes, Phase, Why]]:
        """Give the path of each file that has to be read, in order, its phase, and why."""
        return heapq.merge(*map(self._asked_in, Phase))

    def _asked_in(self, phase: Phase) -> Iterator[tuple[bytes, Phase, Why]]:
        for (paths, *_), whys in self._pending[phase]:
            yield from zip(map(encoded, paths), repeat(phase), whys)

    def todo(self) -> Iterator[tuple[str, Phase | None, str]]:
        """Give all that is pending, and after it all that was skipped, in the order of paths.

        Yields:
            The absolute path, its phase, and a `Why`; of what was skipped, None and the reason.
        """
        for path, phase, why in self.asked():
            yield path.decode(errors="surrogateescape"), phase, why
        for record in self._skipped:
            yield record.path, None, record.reason

    def first_skipped(self, reason: str, most: int) -> list[str]:
        """Give the first absolute paths that were skipped for a reason."""
        return list(islice((record.path for record in self._skipped if record.reason == reason), most))

    def blocks(self) -> Iterator[list[tuple[bytes, str]]]:
        """Give what was found in blocks, none of which is empty, in the order of paths."""
        return (self.found[at] for at in range(len(self.found)))

    def between(self, start: bytes, stop: bytes) -> Iterator[bytes]:
        """Give the paths of files that were found and stand between two others."""
        for at, (first, last) in enumerate(self.edges):
            if last > start and first < stop:
                yield from (path for path, _ in self.found[at] if start < path < stop)

    def has_lost(self, folder: str) -> bool:
        """Tell whether an absolute folder, or a normalised URL, held images in an earlier run and holds none now."""
        beginning, ending = map(encoded, span(folder))
        after = beginning[:-1] + b"0"  # the byte after the slash, in which it ends
        if any(path.endswith(ending) for path in self.between(beginning, after)):
            return False
        select = "SELECT 1 FROM pages WHERE path > ? AND path < ? AND substr(path, length(path) + 1 - ?) = ?"
        return bool(self.database.execute(select, (beginning, after, len(ending), ending)).fetchone())

    def defer(self, files: Iterable[ImageFile]) -> None:
        """Leave files to the next run: the last known row of each stays, a new one has none yet."""
        self.left.update(encoded(file.path) for file in files)

    @property
    def deferred(self) -> int:
        """How many files were left so far."""
        return len(self.left)


def plan(
    database: Database,
    found: Iterable[ImageFile | Skipped],
    *,
    condition: int,
    recent_ns: Callable[[], range] = lambda: range(0),
    retry_failed: bool = False,
    force: bool = False,
    pictures: bool = False,
) -> Plan:
    """Take in what discovery finds; a file that is reached twice keeps its first name.

    A file is pending where it, or the cache key, has changed since it was observed, and where it could not be
    opened then.

    Args:
        database: Open.
        found: All that the sources hold, in the order of paths.
        condition: The id of the cache key under which files are read now.
        recent_ns: Gives the times of last change, in nanoseconds, of files that are read last.
        retry_failed: Files with a fault are pending, too.
        force: All are.
        pictures: So are those whose pictures were not drawn: a report shows them.
    """
    made = Plan(database)
    asked = "1" if force else _FAILED if retry_failed else "stale"
    with database.errors():
        _merge(made, found, _known(database, asked, IS_UNDRAWN if pictures else "0"), condition, recent_ns)
    if force or retry_failed:
        with database.transaction():
            database.executemany("DELETE FROM told WHERE path = ?", ((path,) for path, _ in made.found))
            stale = ((path,) for path, _, why in made.asked() if why is Why.ASKED)  # others are read again as they are
            database.executemany("UPDATE pages SET stale = 1 WHERE path = ?", stale)
    return made


def _known(database: Database, asked: str, undrawn: str) -> Iterator[_Known]:
    """Give what the ledger knows, in the order of paths.

    Raises:
        StorageError: It is not in order, so that some would not be found.
    """
    last = b""
    for row in database.execute(_KNOWN.format(asked=asked, undrawn=undrawn)):
        if type(row[0]) is not bytes or row[0] <= last:
            raise database.damaged()
        last = row[0]
        yield row


def _merge(
    plan: Plan,
    found: Iterable[ImageFile | Skipped],
    known: Iterator[_Known],
    condition: int,
    recent_ns: Callable[[], range],
) -> None:
    """Go through what is found and what is known side by side."""
    records, row, last = iter(found), next(known, None), b""
    while block := list(islice(records, _BLOCK)):
        files: dict[bytes, ImageFile] = {}
        for record in block:
            if isinstance(record, ImageFile):
                files.setdefault(encoded(record.path), record)
        files.pop(last, None)
        last = next(reversed(files), last)
        pending = dict.fromkeys(files, Why.NEW)
        missing = []
        while row is not None and row[0] <= last:
            path = row[0]
            if path not in files:
                missing.append(path)
            elif why := _why(plan.database, files[path], row, condition):
                pending[path] = why
                if why in (Why.CHANGED, Why.UNOPENED):
                    files[path] = files[path]._replace(known_sha256=_sha256(plan.database, row, condition))
            else:
                del pending[path]
            row = next(known, None)
            if len(missing) == _BLOCK:
                plan.take([], [], missing)
                missing = []
        skipped = [record for record in block if isinstance(record, Skipped)]
        plan.take([(path, file.name) for path, file in files.items()], skipped, missing)
        asked, recent = [files[path] for path in pending], recent_ns()
        phases = [
            Phase.UNDRAWN if why is Why.UNDRAWN else Phase.RECENT if file.mtime_ns in recent else Phase.STABLE
            for file, why in zip(asked, pending.values(), strict=True)
        ]
        for phase in set(phases):
            chosen = [one is phase for one in phases]
            plan.ask(list(compress(asked, chosen)), list(compress(pending.values(), chosen)), phase)
    rest = chain([] if row is None else [row], known)
    while missing := [path for path, *_ in islice(rest, _BLOCK)]:
        plan.take([], [], missing)


def _why(database: Database, file: ImageFile, row: _Known, condition: int) -> Why | None:
    """Say why a file that is known has to be read; None where it has not."""
    _, size_bytes, mtime_ns, inode, ctime_ns, read_under, is_asked_for, is_undrawn, fault = row
    if size_bytes != file.size_bytes or mtime_ns != file.mtime_ns or inode != file.inode or ctime_ns != file.ctime_ns:
        return Why.CHANGED
    if is_asked_for:
        return Why.ASKED
    if read_under != condition:
        return Why.CONDITION
    if is_undrawn:
        return Why.UNDRAWN
    if fault == FaultKind.UNREADABLE and not _sha256(database, row, condition):
        return Why.UNOPENED
    return None


def _sha256(database: Database, row: _Known, condition: int) -> str:
    """Give the sum of the bytes that were read, which may be those of the file still; empty where it counts no more."""
    path, *_, read_under, is_asked_for, is_undrawn, _ = row
    if read_under != condition or is_asked_for or is_undrawn:
        return ""
    found = database.execute(_SHA256, (path,)).fetchone()
    if found is None:  # a page of the file is out of order
        raise database.damaged()
    return "" if found[0] == NO_SUM else str(found[0])

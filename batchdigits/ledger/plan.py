"""Find out which of the discovered files have to be read, in which phase, and why."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import islice
from operator import itemgetter

from batchdigits.errors import FaultKind
from batchdigits.ledger.database import Database
from batchdigits.records import ImageFile, Skipped
from batchdigits.storage.urls import span

_CHUNK = 8192  # records that are held at a time


class Phase(IntEnum):
    """In which phase of a run a pending file is read."""

    STABLE = 1
    """First."""
    RECENT = 2
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
    UNOPENED = "unopened"
    """It could not be opened, or not be read for another reason that may pass."""


_PENDING = f"""
INSERT INTO pending (path, sha256, why, phase)
SELECT
    found.path,
    CASE WHEN whole.condition = :condition AND whole.ending = found.ending AND NOT whole.stale
        THEN whole.sha256 ELSE '' END,
    CASE WHEN files.path IS NULL THEN '{Why.NEW}'
        WHEN files.size_bytes != found.size_bytes OR files.mtime_ns != found.mtime_ns
            OR files.inode IS NOT found.inode OR files.ctime_ns IS NOT found.ctime_ns THEN '{Why.CHANGED}'
        WHEN whole.stale THEN '{Why.ASKED}'
        WHEN whole.condition IS NOT :condition OR whole.ending != found.ending THEN '{Why.CONDITION}'
        ELSE '{Why.UNOPENED}' END AS why,
    CASE WHEN found.mtime_ns BETWEEN :oldest AND :now THEN {Phase.RECENT:d}
        ELSE {Phase.STABLE:d} END AS phase
FROM found
LEFT JOIN files ON files.path = found.path
LEFT JOIN observations AS whole ON whole.id = files.observation
WHERE why != '{Why.UNOPENED}'
    OR (whole.sha256 = ''
        AND EXISTS (SELECT 1 FROM pages WHERE observation = whole.id AND fault = '{FaultKind.UNREADABLE}'))
ORDER BY phase, found.name
"""  # SQLite compares text as UTF-8 bytes, which is by code point


_BLOCK = """
SELECT path, name, size_bytes, mtime_ns, ending, inode, ctime_ns, sha256, position
FROM (SELECT * FROM pending WHERE phase = ? AND position > ? ORDER BY position LIMIT ?) JOIN found USING (path)
ORDER BY position
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to do; the files themselves stand in the database."""

    files: int
    """Image files found, each counted once."""
    pending: Counter[Why]
    """How many of them have to be read, by reason."""
    pending_bytes: int
    """The size of these together."""
    skipped: Counter[str]
    """Everything else, by reason."""
    database: Database
    """Open; `plan` has filled its tables `found`, `pending` and `skipped`."""

    def in_phase(self, phase: Phase) -> Iterator[ImageFile]:
        """Give the files that have to be read in a phase, in the order of rows; what is recorded changes nothing."""
        last = 0
        while rows := self.database.execute(_BLOCK, (phase, last, _CHUNK)).fetchall():
            for path, *rest, last in rows:  # noqa: B007  the last one is where the next block begins
                yield ImageFile(path.decode(errors="surrogateescape"), *rest)

    def todo(self) -> Iterator[tuple[str, Phase | None, str]]:
        """Give all that is pending, and after it all that was skipped, in the order of paths.

        Yields:
            The absolute path, its phase, and a `Why`; of what was skipped, None and the reason.
        """
        for path, phase, why in self.database.execute("SELECT path, phase, why FROM pending ORDER BY path"):
            yield path.decode(errors="surrogateescape"), Phase(phase), why
        for path, reason in self.database.execute("SELECT path, reason FROM skipped ORDER BY path, reason"):
            yield path.decode(errors="surrogateescape"), None, reason

    def first_skipped(self, reason: str, most: int) -> list[str]:
        """Give the first absolute paths that were skipped for a reason."""
        select = "SELECT path FROM skipped WHERE reason = ? ORDER BY path LIMIT ?"
        return [path.decode(errors="surrogateescape") for (path,) in self.database.execute(select, (reason, most))]

    def has_lost(self, folder: str) -> bool:
        """Tell whether an absolute folder, or a normalised URL, held images in an earlier run and holds none now."""
        beginning, ending = map(encoded, span(folder))
        after = beginning[:-1] + b"0"  # the byte after the slash, in which it ends
        known, found = (
            self.database.execute(
                f"SELECT 1 FROM {table} WHERE path > ? AND path < ? AND substr(path, length(path) + 1 - ?) = ?",
                (beginning, after, len(ending), ending),
            ).fetchone()
            for table in ("files", "found")
        )
        return bool(known and not found)

    def defer(self, files: Iterable[ImageFile]) -> None:
        """Leave files to the next run: the last known row of each stays, a new one has none yet."""
        with self.database.transaction() as execute:
            self.database.executemany("INSERT OR IGNORE INTO deferred VALUES (?)", [(encoded(f.path),) for f in files])
            here = "path IN (SELECT path FROM deferred)"
            execute(f"DELETE FROM found WHERE {here} AND path NOT IN (SELECT path FROM files)")

    @property
    def deferred(self) -> int:
        """How many files were left so far."""
        return int(self.database.execute("SELECT count(*) FROM deferred").fetchone()[0])


def plan(
    database: Database,
    found: Iterable[ImageFile | Skipped],
    *,
    condition: int,
    recent_ns: Callable[[], range] = lambda: range(0),
    retry_failed: bool = False,
    force: bool = False,
) -> Plan:
    """Take in what discovery finds; a file that is reached twice keeps its first name.

    A file is pending where it, or the cache key, has changed since it was observed, and where it could not be
    opened then.

    Args:
        database: Open, with nothing found so far.
        found: All that the sources hold.
        condition: The id of the cache key under which files are read now.
        recent_ns: Gives the times of last change, in nanoseconds, of files that are read last; called when all are
            found.
        retry_failed: Files with a fault are pending, too.
        force: All are.
    """
    execute = database.execute
    with database.transaction():
        _insert_found(database, found)
        if force or retry_failed:
            here = "(SELECT observation FROM files JOIN found ON files.path = found.path)"
            failed = "" if force else "AND id IN (SELECT observation FROM pages WHERE fault IS NOT NULL)"
            execute(f"UPDATE observations SET stale = 1 WHERE id IN {here} {failed}")
            execute("DELETE FROM told WHERE path IN (SELECT path FROM found)")
        times = recent_ns()
        execute(_PENDING, {"condition": condition, "oldest": times.start, "now": times.stop - 1})
        (files,) = execute("SELECT count(*) FROM found").fetchone()
        counts = execute(
            "SELECT why, count(*), sum(size_bytes) FROM pending JOIN found USING (path) GROUP BY 1"
        ).fetchall()
        skipped = dict(execute("SELECT reason, count(*) FROM skipped GROUP BY 1"))
    pending = Counter({Why(why): count for why, count, _ in counts})
    return Plan(files, pending, sum(size_bytes for *_, size_bytes in counts), Counter(skipped), database)


def _insert_found(database: Database, found: Iterable[ImageFile | Skipped]) -> None:
    columns = "path, name, size_bytes, mtime_ns, ending, inode, ctime_ns"
    image = f"INSERT OR IGNORE INTO found ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)"
    other = "INSERT INTO skipped (path, reason) VALUES (?, ?)"
    found = iter(found)
    while chunk := list(islice(found, _CHUNK)):
        images = [(encoded(file.path), *file[1:-1]) for file in chunk if isinstance(file, ImageFile)]
        images.sort(key=itemgetter(0))  # in the order of the table, which is quicker
        database.executemany(image, images)
        others = [(encoded(item.path), item.reason) for item in chunk if isinstance(item, Skipped)]
        database.executemany(other, others)


def encoded(path: str) -> bytes:
    """Spell a path as the file system has it."""
    return path.encode(errors="surrogateescape")

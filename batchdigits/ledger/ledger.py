"""Keep what was seen of files: tell what is pending, store predictions, and give them back in the order of rows.

An SQLite database with a row a page: logits, ink measures or a fault, and under what they were made; and with people's
answers, which belong to bytes, whatever file has them; never decisions. Beside a report it is a file that grows from
run to run; without one it is private to a run and gone with it.

What SQLite does not notice, a flipped byte in a value, the checksums of the rows do.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from batchdigits.errors import OF_THE_MACHINE, escaped, unforeseen
from batchdigits.ledger import last_run
from batchdigits.ledger.database import Database
from batchdigits.ledger.plan import IS_UNDRAWN, UNDRAWN_SUM, Plan, Why, plan
from batchdigits.ledger.reader import CHUNK, Observations, read
from batchdigits.ledger.schema import COVERED, are_whole, blobs, checksum, insert, stored
from batchdigits.records import NO_SUM, ImageFile, Skipped
from batchdigits.storage.atomic import TargetFile
from batchdigits.storage.urls import encoded, file_ending

if TYPE_CHECKING:
    from batchdigits.records import Batch, KnownBytes

log = logging.getLogger(__name__)

_SHA256 = 32  # bytes of a sum
_KEY = 8  # bytes of a sha256 by which copies are found; others begin so by chance alone
_MOST_CONDITIONS = 2**31

_KNOWN_BYTES = f"""
SELECT path, CAST(substr(seen, 1, 32) AS BLOB) FROM pages
WHERE page = 1 AND condition = ?1 AND NOT stale AND NOT (?2 AND {IS_UNDRAWN}) ORDER BY path
"""
_OWN = f"SELECT {COVERED}, sum, stale, png FROM pages WHERE path = ? ORDER BY page"
_COPIES = f"""
CREATE TEMP TABLE copies (key BLOB, path BLOB, PRIMARY KEY (key, path)) WITHOUT ROWID;
INSERT INTO copies SELECT substr(seen, 1, {_KEY}), path FROM pages
WHERE page = 1 AND condition = {{}} AND NOT stale ORDER BY 1, 2
"""  # made when the first copy is met: an index would change a page of the file for each image
_ANOTHER = "INSERT OR IGNORE INTO copies VALUES (?, ?)"
_HAD = """
SELECT page, answer FROM pages JOIN answers USING (page)
WHERE path = ? AND sha256 = lower(hex(substr(seen, 1, 32))) ORDER BY page
"""
UNREPORTED = """
SELECT path, size_bytes, mtime_ns, count(*)
FROM pages INDEXED BY faulty LEFT JOIN told USING (path, size_bytes, mtime_ns)
WHERE fault IS NOT NULL AND told.path IS NULL AND pages.path BETWEEN ? AND ? GROUP BY path
"""

Publications = dict[str, tuple[str, ...]]  # what may stand at a report's path, by its sha256: its sources
PUBLISHED = "SELECT path, sha256, sources, sum FROM reports WHERE path = ?"
"""The rows of one report, by its path: for `publications`."""


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """A person's answer that a file had, and has no more since its bytes are others."""

    path: str
    """The file, absolute."""
    page: int
    """From 1."""
    answer: str
    """`0` to `9`, `x` or `c`."""
    is_read: bool
    """Whether the file's bytes could be read now."""


@dataclass(frozen=True, slots=True)
class CacheKey:
    """What makes stored predictions valid: where any of it changes, every file is predicted anew."""

    bundle: str
    """The bundle's id, which covers the weights and the normalisation's settings."""
    others: str
    """Versions of decoding, normalisation and runtime, and the limits of decoding, in one line."""


class Ledger:
    """An open ledger: a context manager."""

    def __init__(self, path: Path | None, cache_key: CacheKey) -> None:
        """Say where it is; nothing is opened yet.

        Args:
            path: The ledger's file, made where there is none; None for one that is private to this run.
            cache_key: What stored predictions have to have been made under.
        """
        self.path = path
        self._database = Database(path)
        self._cache_key = cache_key
        self._pictures = False

    def __enter__(self) -> Self:
        """Open it, or begin a new one.

        Raises:
            StorageError: It cannot be opened, is damaged, or is of a newer version.
        """
        self._database.__enter__()
        self._plan = Plan(self._database)
        with self._database.errors():
            self._condition = self._condition_of(self._cache_key)
        return self

    def _condition_of(self, key: CacheKey) -> int:
        """Find the number of a cache key, or make one."""
        rows = self._database.execute("SELECT id, bundle, others, sum FROM conditions").fetchall()
        if not all(row_sum == checksum(*row) and 0 < row[0] < _MOST_CONDITIONS for *row, row_sum in rows):
            raise self._database.damaged()
        self._bundles = {number: bundle for number, bundle, *_ in rows}
        known = [number for number, *names, _ in rows if names == [key.bundle, key.others]]
        if known:
            return int(known[0])
        row = (max(self._bundles, default=0) + 1, key.bundle, key.others)
        with self._database.transaction() as execute:
            execute("INSERT INTO conditions VALUES (?, ?, ?, ?)", (*row, checksum(*row)))
        self._bundles[row[0]] = key.bundle
        return row[0]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._database.__exit__(kind, error, trace)

    def plan(
        self,
        found: Iterable[ImageFile | Skipped],
        *,
        recent_ns: Callable[[], range] = lambda: range(0),
        retry_failed: bool = False,
        force: bool = False,
        pictures: bool = False,
    ) -> Plan:
        """Take in what discovery finds, as `plan.plan` does, under this ledger's cache key."""
        self._pictures = pictures
        self._plan = plan(
            self._database,
            found,
            condition=self._condition,
            recent_ns=recent_ns,
            retry_failed=retry_failed,
            force=force,
            pictures=pictures,
        )
        return self._plan

    def known_bytes(self) -> "KnownBytes":
        """Give all bytes whose pages are known under this run's cache key, and stay so, under whatever name."""
        found: dict[str, list[bytes]] = defaultdict(list)
        with self._database.errors():
            asked = self._plan.asked()
            pending, *_ = next(asked, (b"",))
            for path, sha256 in self._database.execute(_KNOWN_BYTES, (self._condition, self._pictures)):
                while pending and pending < path:
                    pending, *_ = next(asked, (b"",))
                if pending != path and len(sha256) == _SHA256 and any(sha256):
                    found[_ending(path)].append(sha256)
        return {ending: np.sort(np.frombuffer(b"".join(sums), "S32")) for ending, sums in found.items()}

    def record(self, batch: "Batch") -> list[LostAnswer]:
        """Store what was read of some files, faults too, in one transaction.

        Where an error comes of it that nobody foresaw, each file is stored by itself, and those that it comes of as
        faults.

        Args:
            batch: Whole files, all of which `plan` has found; one that was new to it is recorded once in a run.

        Returns:
            The answers that files had before, in the order of paths.
        """
        try:
            return self._record(batch)
        except OF_THE_MACHINE:
            raise
        except Exception:  # noqa: BLE001  (a number that SQLite cannot hold, or what we ourselves did not expect)
            return [lost for one in batch.apart() for lost in self._record_or_fail(one)]

    def _record_or_fail(self, batch: "Batch") -> list[LostAnswer]:
        """Store what was read of one file, or that it cannot be stored."""
        try:
            return self._record(batch)
        except OF_THE_MACHINE:
            raise
        except Exception as error:  # noqa: BLE001
            fault = unforeseen(error)
            log.debug("%s: %s", escaped(batch.files[0].path), fault.trace)
            return self._record(batch.failed(fault))

    def _record(self, batch: "Batch") -> list[LostAnswer]:
        with self._database.transaction() as execute:
            paths = [encoded(file.path) for file in batch.files]
            read = self._read(batch, paths)
            lost = self._replace(read)
            if self._has_copies():
                self._database.executemany(_ANOTHER, [(row[8][:_KEY], row[0]) for row in read if row[1] == 1])
            lost += self._replace(self._unchanged(batch, paths))  # some of which are copies of what was read
            execute("DELETE FROM rendered WHERE true")
        return sorted(lost, key=lambda answer: (encoded(answer.path), answer.page))

    def _replace(self, rows: list[tuple[Any, ...]]) -> list[LostAnswer]:
        """Put rows of whole files in the place of those that they had."""
        lost = self._lost(rows)
        if self._plan.pending.keys() != {Why.NEW}:
            self._database.executemany("DELETE FROM pages WHERE path = ?", {(row[0],) for row in rows})
        insert(self._database.executemany, rows)
        return lost

    def _read(self, batch: "Batch", paths: list[bytes]) -> list[tuple[Any, ...]]:
        """Make rows of what was read."""
        pages = batch.pages.copy()
        places = pages["file"].copy()
        pages["file"] = 0
        counts = np.bincount(places)[places]
        kinds: list[str | None] = [None] * len(pages)
        details = kinds.copy()
        for row in pages["fault"].nonzero()[0].tolist():
            kinds[row], details[row] = batch.faults[row].kind.value, batch.faults[row].detail
        now = self._as_they_are([batch.files[place] for place in places.tolist()])
        files = [paths[place] for place in places.tolist()]
        pngs = list(map(batch.thumbnails.get, range(len(pages))))
        return stored([files, pages["number"].tolist(), counts.tolist(), *now, blobs(pages), kinds, details], pngs)

    def _as_they_are(self, files: list[ImageFile]) -> list[Sequence[int]]:
        """Give the columns of pages that stand for the file of each, and under what it was read."""
        _, _, sizes, mtimes, _, inodes, ctimes, _ = zip(*files, strict=True) if files else [()] * 8
        return [sizes, mtimes, inodes, ctimes, [self._condition] * len(files)]

    def _unchanged(self, batch: "Batch", paths: list[bytes]) -> list[tuple[Any, ...]]:
        """Make rows of what is known of the same bytes, of the file itself or of another one.

        Where that one has changed since its bytes were read, so that it has no row, this one is left to the next run.

        Raises:
            StorageError: It is damaged.
        """
        before: list[tuple[Any, ...]] = []
        places: list[int] = []
        for place, sha256 in batch.unchanged.items():
            rows = self._known_of(bytes.fromhex(sha256), batch.files[place], paths[place])
            if not rows:
                self._plan.defer([batch.files[place]])
            if any(row[2] != len(rows) for row in rows):
                raise self._database.damaged()
            before += rows
            places += [place] * len(rows)
        if not before:
            return []
        *covered, of_rows, _, pngs = zip(*before, strict=True)
        if not are_whole(covered, of_rows, pngs):
            raise self._database.damaged()
        _, pages, counts, *_, seen, fault, detail, _ = covered
        now = self._as_they_are([batch.files[place] for place in places])
        return stored([[paths[place] for place in places], pages, counts, *now, seen, fault, detail], pngs)

    def _known_of(self, sha256: bytes, file: ImageFile, path: bytes) -> list[tuple[Any, ...]]:
        """Give the rows of a file that has the same bytes; none where there is none any more.

        Raises:
            StorageError: It is damaged.
        """
        for other in chain([path], self._copies(sha256[:_KEY])):
            rows = self._database.execute(_OWN, (other,)).fetchall()
            if self._pictures and any(row[11] == UNDRAWN_SUM for row in rows):
                continue
            fitting = [(row[7], row[8][:_SHA256], row[13]) == (self._condition, sha256, 0) for row in rows]
            if any(fitting) and _ending(other) == file.ending:
                if not all(fitting):
                    raise self._database.damaged()
                return rows
        return []

    def _copies(self, key: bytes) -> Iterator[bytes]:
        """Find the paths of files whose bytes may be the same."""
        execute = self._database.execute
        if not self._has_copies():
            for statement in _COPIES.format(self._condition).split(";"):
                execute(statement)
        yield from (path for (path,) in execute("SELECT path FROM copies WHERE key = ?", (key,)))

    def _has_copies(self) -> bool:
        """Tell whether copies were met before."""
        return bool(self._database.execute("SELECT 1 FROM temp.sqlite_master WHERE name = 'copies'").fetchone())

    def _lost(self, rows: list[tuple[Any, ...]]) -> list[LostAnswer]:
        """Give the answers to the bytes that files had, where those that they have now, by their rows, have none."""
        execute = self._database.execute
        if not execute("SELECT 1 FROM answers").fetchone():
            return []
        lost = []
        for path, sha256 in sorted({row[0]: row[8][:_SHA256].hex() for row in rows}.items()):
            for page, answer in execute(_HAD, (path,)).fetchall():
                if not execute("SELECT 1 FROM answers WHERE sha256 = ? AND page = ?", (sha256, page)).fetchone():
                    name = path.decode(errors="surrogateescape")
                    lost.append(LostAnswer(name, page, answer, sha256 != NO_SUM))
        return lost

    def observations(self, chunk: int = CHUNK, *, thumbnails: bool = False) -> Iterator[Observations]:
        """Give all that was observed of what was found, as `reader.read` does."""
        return read(self._plan, self._bundles, chunk, thumbnails=thumbnails)

    def mark_faults_reported(self) -> int:
        """Note that a report shows the faults of what was found; return how many pages it shows for the first time."""
        new = 0
        with self._database.transaction() as execute:
            for block, edges in enumerate(self._plan.edges):
                if not (rows := execute(UNREPORTED, edges).fetchall()):
                    continue
                names = dict(self._plan.found[block])
                told = [row for row in rows if row[0] in names and row[0] not in self._plan.left]
                self._database.executemany("INSERT OR REPLACE INTO told VALUES (?, ?, ?)", [row[:3] for row in told])
                new += sum(row[3] for row in told)
        return new

    def published(self, report: TargetFile) -> Publications:
        """Give what may stand at a report's path, by its sha256: the sources that it was made from.

        Raises:
            StorageError: The ledger is damaged.
        """
        with self._database.errors():
            rows = self._database.execute(PUBLISHED, (bytes(report),)).fetchall()
        try:
            return publications(rows)
        except ValueError as error:
            raise self._database.damaged() from error

    def publish(self, report: TargetFile, sha256: str, sources: Sequence[str], *, replaced: str) -> None:
        """Note what is about to stand at a report's path.

        Args:
            report: Absolute, or behind a normalised URL.
            sha256: Of the new report.
            sources: What it was made from.
            replaced: The sha256 of what stands there now, and may still do if the run is killed; or empty.
        """
        with self._database.transaction() as execute:
            execute("DELETE FROM reports WHERE path = ? AND sha256 != ?", (bytes(report), replaced))
            row = (bytes(report), sha256, json.dumps(sources))
            execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?, ?)", (*row, checksum(*row)))

    def at_once(self) -> AbstractContextManager[object]:
        """Keep all that is kept in the block together, or nothing of it: the disk is waited for but once."""
        return self._database.transaction()

    def keep_run(self, settings: str) -> None:
        """Keep how the reports were made, as `last_run.recall` gives it."""
        last_run.keep(self._database, settings)

    def keep_rendered(self, rendered: last_run.Rendered) -> None:
        """Keep what the reports followed from, and what is in them, until what is observed or answered changes."""
        last_run.keep_rendered(self._database, rendered)

    def rendered(self) -> last_run.Rendered | None:
        """Give what the reports of the last run followed from; None where something has changed since."""
        return last_run.rendered(self._database)


def _ending(path: bytes) -> str:
    """Give the ending under which a file was read."""
    return file_ending(path.decode(errors="surrogateescape"))


def publications(rows: Iterable[tuple[bytes, str, str, int]]) -> Publications:
    """Read what `PUBLISHED` selects; a ValueError is damage."""
    found = {}
    for path, sha256, sources, found_sum in rows:
        if found_sum != checksum(path, sha256, sources):
            raise ValueError
        found[sha256] = tuple(json.loads(sources))
    return found

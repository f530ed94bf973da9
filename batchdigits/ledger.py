"""What was seen: image files in, what is pending out; observations in, observations in the order of rows out.

An SQLite database that holds observations (logits, ink measures, faults) and under what they were made, never
decisions. An observation belongs to bytes: files with the same bytes share it. Beside a report it is a file that grows
from run to run; without one it is private to a run and gone with it.

What SQLite does not notice, a flipped byte in a value, the check sums of the rows do.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.batches import Batch, SeenPage
from batchdigits.database import Database, check_sum
from batchdigits.errors import Fault, FaultKind, StorageError
from batchdigits.images import ImageFile, PassedOver

_PENDING = """
INSERT INTO pending (path, sha256)
SELECT found.path, CASE WHEN whole.condition = :condition AND whole.ending = found.ending AND NOT whole.stale
    THEN whole.sha256 ELSE '' END
FROM found
LEFT JOIN files ON files.path = found.path
LEFT JOIN observations AS whole ON whole.id = files.observation
WHERE files.path IS NULL
    OR files.size_bytes != found.size_bytes OR files.mtime_ns != found.mtime_ns
    OR whole.condition IS NOT :condition OR whole.ending != found.ending OR whole.stale
    OR (whole.sha256 = '' AND EXISTS (SELECT 1 FROM pages WHERE observation = whole.id AND fault = 'unreadable'))
ORDER BY found.name
"""  # SQLite compares text as UTF-8 bytes, which is by code point

_ROWS = """
SELECT name, page, sha256, width, height, logits, ink, fault, detail, bundle, pages.sum, files.sum, found.path
FROM found
JOIN files ON files.path = found.path
JOIN observations ON observations.id = files.observation
JOIN pages ON pages.observation = observations.id
JOIN conditions ON conditions.id = observations.condition
ORDER BY name, page
"""

_FILES = "SELECT count(*), count(files.path) FROM found LEFT JOIN files ON files.path = found.path"
_PAGES = """
SELECT coalesce(sum(observations.pages), 0)
FROM found JOIN files ON files.path = found.path JOIN observations ON observations.id = files.observation
"""

# The last two terms are those of the index; without them SQLite would look at every observation.
_OF_BYTES = "WHERE sha256 = ? AND ending = ? AND condition = ? AND sha256 != '' AND NOT stale"
_OBSERVATION_OF_BYTES = f"SELECT id FROM observations {_OF_BYTES}"
_PAGES_OF_BYTES = f"SELECT page FROM observations JOIN pages ON observation = observations.id {_OF_BYTES}"

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Condition:
    """Under what something is observed: where any of it changes, everything is observed anew."""

    bundle: str
    """The bundle's id, which covers the weights and the normalisation's settings."""
    others: str
    """Versions of decoding, normalisation and runtime, and the limits of decoding, in one line."""


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery gave."""

    files: int
    """Image files, each counted once."""
    pending: int
    """How many of them have to be read."""
    passed_over: Counter[str]
    """Everything else, by reason."""


@dataclass(frozen=True, slots=True)
class Observations:
    """A chunk of N rows in the order of the report, one column a field."""

    names: list[str]
    """The files, as rows show them."""
    pages: list[int]
    """From 1."""
    sha256: list[str]
    """Of each file's bytes; empty where they could not be read."""
    widths: list[int | None]
    """Pixels; None where unknown."""
    heights: list[int | None]
    """Pixels; None where unknown."""
    faults: list[Fault | None]
    """None where the page was read."""
    models: list[str]
    """The id of the bundle that each row was observed with."""
    logits: NDArray[np.float32]
    """float32[P, K], of the P pages without a fault, in order."""
    ink: NDArray[np.float32]
    """float32[P, M], of the P pages without a fault, in order."""


class Ledger:
    """An open ledger: a context manager."""

    def __init__(self, path: Path | None, condition: Condition) -> None:
        """Say where it is; nothing is opened yet.

        Args:
            path: The ledger's file, made where there is none; None for one that is private to this run.
            condition: Under what this run observes.
        """
        self._database = Database(path)
        self._condition = condition

    def __enter__(self) -> Self:
        """Open it, or begin a new one.

        Raises:
            StorageError: It cannot be opened, is damaged, or is of a newer version.
        """
        self._database.__enter__()
        key = (self._condition.bundle, self._condition.others)
        with self._database.transaction() as execute:
            execute("INSERT OR IGNORE INTO conditions (bundle, others) VALUES (?, ?)", key)
            select = "SELECT id FROM conditions WHERE bundle = ? AND others = ?"
            (self._condition_id,) = execute(select, key).fetchone()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._database.__exit__(kind, error, trace)

    def plan(
        self, found: Iterable[ImageFile | PassedOver], *, retry_failed: bool = False, force: bool = False
    ) -> Found:
        """Take in what discovery finds; a file that is reached twice keeps its first name.

        A file is pending where it, or the condition, has changed since it was observed, and where it could not be
        opened then.

        Args:
            found: All that the sources hold.
            retry_failed: Files with a fault are pending, too.
            force: All are.
        """
        passed_over: Counter[str] = Counter()

        def rows() -> Iterator[tuple[bytes | str | int, ...]]:
            for item in found:
                if isinstance(item, PassedOver):
                    passed_over[item.reason] += 1
                else:
                    path = item.path.encode(errors="surrogateescape")
                    yield (path, item.name, item.ending, item.size_bytes, item.mtime_ns, item.device, item.inode)

        columns = "path, name, ending, size_bytes, mtime_ns, device, inode"
        with self._database.transaction():
            self._database.executemany(f"INSERT OR IGNORE INTO found ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
            if force or retry_failed:
                failed = "" if force else "AND id IN (SELECT observation FROM pages WHERE fault IS NOT NULL)"
                self._database.execute(
                    f"UPDATE observations SET stale = 1 WHERE id IN "
                    f"(SELECT observation FROM files JOIN found ON files.path = found.path) {failed}"
                )
            self._database.execute(_PENDING, {"condition": self._condition_id})
            (files,) = self._database.execute("SELECT count(*) FROM found").fetchone()
            (pending,) = self._database.execute("SELECT count(*) FROM pending").fetchone()
        return Found(files, pending, passed_over)

    def pending(self, chunk: int = 4096) -> Iterator[ImageFile]:
        """Give the files that have to be read, in the order of rows; what is recorded meanwhile changes nothing."""
        columns = "path, name, size_bytes, mtime_ns, ending, device, inode, sha256, position"
        select = f"SELECT {columns} FROM pending JOIN found USING (path) WHERE position > ? ORDER BY position LIMIT ?"
        last = 0
        while rows := self._database.execute(select, (last, chunk)).fetchall():
            for path, *rest, _ in rows:
                yield ImageFile(path.decode(errors="surrogateescape"), *rest)
            last = rows[-1][-1]

    def fresh(self, batch: Batch) -> NDArray[np.bool_]:
        """Tell which pages of a batch were never observed before, in this batch neither: bool[N]."""
        seen: dict[tuple[str, str], set[int]] = {}
        fresh = np.ones(len(batch.pages), np.bool_)
        with self._database.transaction():  # one lock for all of these questions
            for row, page in enumerate(batch.pages):
                key = (page.sha256, page.file.ending)
                if key not in seen:
                    known = self._database.execute(_PAGES_OF_BYTES, (*key, self._condition_id))
                    seen[key] = {number for (number,) in known}
                fresh[row] = page.number not in seen[key]
                seen[key].add(page.number)
        return fresh

    def record(self, batch: Batch, fresh: NDArray[np.bool_], logits: NDArray[np.float32]) -> None:
        """Store what was observed of one batch, faults too, in one transaction.

        Args:
            batch: N pages and any number of faults and unchanged files.
            fresh: bool[N], which pages were predicted, as `fresh` told.
            logits: float32[M, K], in the order of the M fresh pages.
        """
        new = [page for page, is_new in zip(batch.pages, fresh, strict=True) if is_new]
        observed: list[tuple[SeenPage, bytes | None, bytes | None, str | None, str | None]] = [
            (page, row.tobytes(), ink.tobytes(), None, None)
            for page, row, ink in zip(new, logits.astype(_FLOAT32), batch.ink[fresh].astype(_FLOAT32), strict=True)
        ]
        observed += [(page, None, None, fault.kind.value, fault.detail) for page, fault in batch.faults]
        with self._database.transaction():
            ids = {file.path: self._observation(sha256, file.ending, pages) for file, sha256, pages in _files(batch)}
            waiting = [(path.encode(errors="surrogateescape"), number) for path, number in ids.items()]
            self._database.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?)", waiting)
            rows = []
            for page, *rest in observed:
                row = (page.number, page.width, page.height, *rest)
                rows.append((ids[page.file.path], *row, check_sum(self._condition.bundle, page.sha256, *row)))
            self._database.executemany("INSERT OR IGNORE INTO pages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._take_in_whole_files()

    def _observation(self, sha256: str, ending: str, pages: int) -> int:
        """Find the observation of a file's bytes, or begin it."""
        key = (sha256, ending, self._condition_id)
        insert = "INSERT OR IGNORE INTO observations (sha256, ending, condition, pages) VALUES (?, ?, ?, ?)"
        made = self._database.execute(insert, (*key, pages))
        if made.rowcount == 1 and made.lastrowid:
            return made.lastrowid
        return int(self._database.execute(_OBSERVATION_OF_BYTES, key).fetchone()[0])

    def _take_in_whole_files(self) -> None:
        """Let the files whose observation has all its pages have it."""
        self._database.execute(
            """
            INSERT OR REPLACE INTO files
            SELECT path, size_bytes, mtime_ns, whole.id, check_sum(path, whole.sha256)
            FROM waiting JOIN found USING (path) JOIN observations AS whole ON whole.id = waiting.observation
            WHERE (SELECT count(*) FROM pages WHERE pages.observation = whole.id) = whole.pages
            """
        )
        if self._database.execute("SELECT 1 FROM waiting WHERE path NOT IN (SELECT path FROM found)").fetchone():
            message = "A page was observed whose file was never planned; its row would be lost."
            raise StorageError(message)
        self._database.execute(
            "DELETE FROM waiting WHERE observation IN (SELECT observation FROM files WHERE files.path = waiting.path)"
        )

    def observations(self, chunk: int = 8192) -> Iterator[Observations]:
        """Give all that was observed of what was found, in the order of rows, `chunk` rows at a time.

        Raises:
            StorageError: The ledger is damaged.
        """
        with self._database.errors():
            files, observed = self._database.execute(_FILES).fetchone()
            if files != observed:
                message = f"{files - observed} files were found and never read; their rows would be lost."
                raise StorageError(message)
            (missing,) = self._database.execute(_PAGES).fetchone()
            cursor = self._database.execute(_ROWS)
            while rows := cursor.fetchmany(chunk):
                missing -= len(rows)
                for _, number, sha256, *seen, bundle, page_sum, file_sum, path in rows:
                    files -= number == 1
                    whole_sum = check_sum(bundle, sha256, number, *seen)
                    if page_sum != whole_sum or file_sum != check_sum(path, sha256):
                        raise self._database.damaged()
                names, pages, sha256s, widths, heights, logits, ink, kinds, details, models = map(
                    list, zip(*(row[:10] for row in rows), strict=True)
                )
                faults = [
                    None if kind is None else Fault(FaultKind(kind), text)
                    for kind, text in zip(kinds, details, strict=True)
                ]
                yield Observations(
                    names, pages, sha256s, widths, heights, faults, models, _matrix(logits), _matrix(ink)
                )
            if files or missing:
                raise self._database.damaged()

    def forget(self) -> None:
        """Drop what was observed of bytes that no file has any more."""
        with self._database.transaction():
            for table, column in (("pages", "observation"), ("observations", "id")):
                self._database.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT observation FROM files)")


def _files(batch: Batch) -> Iterator[tuple[ImageFile, str, int]]:
    """Give each file of a batch once: the file, its sha256 and how many pages it has."""
    seen = {page.file.path: page for page in (*batch.pages, *(page for page, _ in batch.faults))}
    for page in seen.values():
        yield page.file, page.sha256, page.of
    for file in batch.unchanged:
        yield file, file.known_sha256, 0  # its observation is whole


def _matrix(blobs: list[bytes | None]) -> NDArray[np.float32]:
    """Stack float32 rows: float32[P, K]; where there is none, float32[0, 10], which every reader takes."""
    present = [blob for blob in blobs if blob is not None]
    width = len(present[0]) // _FLOAT32.itemsize if present else 10
    return np.frombuffer(b"".join(present), _FLOAT32).reshape(len(present), width)

"""What was seen: image files in, what is pending out; observations in, observations in the order of rows out.

An SQLite database that holds observations (logits, ink measures, faults) and under what they were made, and people's
answers; never decisions. An observation belongs to bytes: files with the same bytes share it. Beside a report it is a
file that grows from run to run; without one it is private to a run and gone with it.

What SQLite does not notice, a flipped byte in a value, the check sums of the rows do.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.batches import Batch, SeenPage
from batchdigits.database import Database, check_sum
from batchdigits.errors import BatchDigitsError, DecoderDied, Interrupted, StorageError, Terminated
from batchdigits.images import ImageFile, PassedOver
from batchdigits.observations import CHUNK, FLOAT32, Observations, read
from batchdigits.plan import Plan, encoded, plan

# A file in a report whose fault no report has shown so far, as it is now.
_UNTOLD = """
FROM pages
CROSS JOIN files ON files.observation = pages.observation
CROSS JOIN found ON found.path = files.path
LEFT JOIN told ON told.path = found.path AND told.size_bytes = found.size_bytes AND told.mtime_ns = found.mtime_ns
WHERE fault IS NOT NULL AND told.path IS NULL AND found.path NOT IN (SELECT path FROM deferred)
"""  # CROSS JOIN: SQLite keeps the order, and so begins with the few pages that have a fault

_DONE = """
SELECT path FROM waiting
WHERE EXISTS (SELECT 1 FROM files WHERE files.path = waiting.path AND files.observation = waiting.observation)
"""  # as a join, SQLite would begin with all files

# The last two terms are those of the index; without them SQLite would look at every observation.
_OF_BYTES = "WHERE sha256 = ? AND ending = ? AND condition = ? AND sha256 != '' AND NOT stale"
_OBSERVATION_OF_BYTES = f"SELECT id FROM observations {_OF_BYTES}"
_PAGES_OF_BYTES = f"SELECT page FROM observations JOIN pages ON observation = observations.id {_OF_BYTES}"

# What a killed run began, and a decoder that crashes now does not let come to its end.
_HALF_OF_ANOTHER = """
SELECT 1 FROM observations WHERE id = ? AND pages != ?
AND pages > (SELECT count(*) FROM pages WHERE observation = observations.id)
"""

# Files that are about to get an observation, which has all its pages.
_WHOLE = """
FROM waiting JOIN found USING (path) JOIN observations AS whole ON whole.id = waiting.observation
WHERE (SELECT count(*) FROM pages WHERE pages.observation = whole.id) = whole.pages
"""
_TAKE_IN = f"""
INSERT OR REPLACE INTO files SELECT path, size_bytes, mtime_ns, whole.id, check_sum(path, whole.sha256) {_WHOLE}
"""
_LOST = f"""
SELECT path, lost.page, lost.answer, now.sha256 != ''
FROM (SELECT path, whole.sha256 {_WHOLE}) AS now
JOIN files USING (path)
JOIN observations AS before ON before.id = files.observation
JOIN answers AS lost ON lost.sha256 = before.sha256
LEFT JOIN answers AS kept ON kept.sha256 = now.sha256 AND kept.page = lost.page
WHERE kept.answer IS NULL
ORDER BY path, lost.page
"""

Publications = dict[str, tuple[str, ...]]  # what may stand at a report's path, by its sha256: its sources
PUBLISHED = "SELECT sha256, sources FROM reports WHERE path = ?"
"""The rows of one report, by its path: for `publications`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Under what something is observed: where any of it changes, everything is observed anew."""

    bundle: str
    """The bundle's id, which covers the weights and the normalisation's settings."""
    others: str
    """Versions of decoding, normalisation and runtime, and the limits of decoding, in one line."""


@dataclass(frozen=True, slots=True)
class LostAnswer:
    """A person's answer that a file had, and has no more since its bytes are others."""

    path: str
    """The file, absolute."""
    page: int
    """From 1."""
    answer: str
    """`0` to `9`, or `x`."""
    is_read: bool
    """Whether the file's bytes could be read now."""


class Ledger:
    """An open ledger: a context manager."""

    def __init__(self, path: Path | None, condition: Condition) -> None:
        """Say where it is; nothing is opened yet.

        Args:
            path: The ledger's file, made where there is none; None for one that is private to this run.
            condition: Under what this run observes.
        """
        self.path = path
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
        """Close it; unless the run was stopped, or died of something unforeseen, nothing is in hand any more.

        What stopped it may be a limit of time, which a decoder that never comes back has used up.
        """
        died = not isinstance(error, BatchDigitsError) or isinstance(error, DecoderDied | Interrupted | Terminated)
        if error is None or not died:
            with suppress(StorageError), self._database.transaction() as execute:
                execute("DELETE FROM in_hand WHERE path IN (SELECT path FROM found)")
        self._database.__exit__(kind, error, trace)

    @property
    def knows(self) -> bool:
        """Tell whether anything was observed before under this run's condition."""
        select = "SELECT 1 FROM observations WHERE condition = ? LIMIT 1"
        with self._database.errors():
            return self._database.execute(select, (self._condition_id,)).fetchone() is not None

    def plan(
        self,
        found: Iterable[ImageFile | PassedOver],
        *,
        young_ns: Callable[[], range] = lambda: range(0),
        retry_failed: bool = False,
        force: bool = False,
    ) -> Plan:
        """Take in what discovery finds, as `plan.plan` does, under this ledger's condition."""
        return plan(
            self._database,
            found,
            condition=self._condition_id,
            young_ns=young_ns,
            retry_failed=retry_failed,
            force=force,
        )

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

    def record(
        self,
        batch: Batch,
        fresh: NDArray[np.bool_],
        logits: NDArray[np.float32],
        thumbnails: Mapping[int, bytes] | None = None,
    ) -> list[LostAnswer]:
        """Store what was observed of one batch, faults too, in one transaction.

        Args:
            batch: N pages and any number of faults and unchanged files.
            fresh: bool[N], which pages were predicted, as `fresh` told.
            logits: float32[M, K], in the order of the M fresh pages.
            thumbnails: PNGs of some of these, by their row in the batch.

        Returns:
            The answers that files had before, in the order of paths.
        """
        new = [page for page, is_new in zip(batch.pages, fresh, strict=True) if is_new]
        observed: list[tuple[SeenPage, bool, bytes | None, bytes | None, str | None, str | None]] = [
            (page, False, row.tobytes(), ink.tobytes(), None, None)
            for page, row, ink in zip(new, logits.astype(FLOAT32), batch.ink[fresh].astype(FLOAT32), strict=True)
        ]
        observed += [
            (page, fault.is_deadly, None, None, fault.kind.value, fault.detail) for page, fault in batch.faults
        ]
        with self._database.transaction():
            ids = {file.path: self._observation(sha256, file.ending, pages) for file, sha256, pages in _files(batch)}
            waiting = [(encoded(path), number) for path, number in ids.items()]
            self._database.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?)", waiting)
            rows = []
            for page, is_deadly, *rest in observed:
                row = (page.number, page.width, page.height, *rest)
                row_sum = check_sum(self._condition.bundle, page.sha256, *row)
                rows.append((ids[page.file.path], *row, row_sum, is_deadly))
            self._database.executemany("INSERT OR IGNORE INTO pages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            pictures = [
                (ids[batch.pages[row].file.path], batch.pages[row].number, png)
                for row, png in (thumbnails or {}).items()
            ]
            self._database.executemany("INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?)", pictures)
            return self._take_in_whole_files()

    def _observation(self, sha256: str, ending: str, pages: int) -> int:
        """Find the observation of a file's bytes, or begin it."""
        key = (sha256, ending, self._condition_id)
        insert = "INSERT OR IGNORE INTO observations (sha256, ending, condition, pages) VALUES (?, ?, ?, ?)"
        made = self._database.execute(insert, (*key, pages))
        if made.rowcount == 1 and made.lastrowid:
            return made.lastrowid
        (known,) = self._database.execute(_OBSERVATION_OF_BYTES, key).fetchone()
        if pages and self._database.execute(_HALF_OF_ANOTHER, (known, pages)).fetchone():
            self._database.execute("UPDATE observations SET stale = 1 WHERE id = ?", (known,))
            return self._observation(sha256, ending, pages)
        return int(known)

    def _take_in_whole_files(self) -> list[LostAnswer]:
        """Let the files whose observation has all its pages have it; give the answers that they lose by that."""
        lost = [
            LostAnswer(path.decode(errors="surrogateescape"), page, answer, bool(is_read))
            for path, page, answer, is_read in self._database.execute(_LOST)
        ]
        self._database.execute(_TAKE_IN)
        if self._database.execute("SELECT 1 FROM waiting WHERE path NOT IN (SELECT path FROM found)").fetchone():
            message = "A page was observed whose file was never planned; its row would be lost."
            raise StorageError(message)
        for table in ("in_hand", "waiting"):
            self._database.execute(f"DELETE FROM {table} WHERE path IN ({_DONE})")
        return lost

    def observations(self, chunk: int = CHUNK, *, thumbnails: bool = False) -> Iterator[Observations]:
        """Give all that was observed of what was found, as `observations.read` does."""
        return read(self._database, chunk, thumbnails=thumbnails)

    def tell_faults(self) -> int:
        """Note that a report shows the faults of what was found; return how many pages it shows for the first time."""
        (pages,) = self._database.execute(f"SELECT count(*) {_UNTOLD}").fetchone()
        if pages:
            with self._database.transaction() as execute:
                columns = "found.path, found.size_bytes, found.mtime_ns"
                execute(f"INSERT OR REPLACE INTO told SELECT DISTINCT {columns} {_UNTOLD}")
        return int(pages)

    def published(self, report: Path) -> Publications:
        """Give what may stand at a report's path, by its sha256: the sources that it was made from.

        Raises:
            StorageError: The ledger is damaged.
        """
        with self._database.errors():
            rows = self._database.execute(PUBLISHED, (bytes(report),)).fetchall()
        try:
            return publications(rows)
        except (ValueError, TypeError) as error:
            raise self._database.damaged() from error

    def publish(self, report: Path, sha256: str, sources: Sequence[str], *, replaced: str) -> None:
        """Note what is about to stand at a report's path.

        Args:
            report: Absolute.
            sha256: Of the new report.
            sources: What it was made from.
            replaced: The sha256 of what stands there now, and may still do if the run is killed; or empty.
        """
        with self._database.transaction() as execute:
            execute("DELETE FROM reports WHERE path = ? AND sha256 != ?", (bytes(report), replaced))
            row = (bytes(report), sha256, json.dumps(sources))
            execute("INSERT OR REPLACE INTO reports (path, sha256, sources) VALUES (?, ?, ?)", row)

    def forget(self) -> None:
        """Drop what was observed of bytes that no file has any more.

        Files that are gone stay known: people may still answer to them, and they may come back.
        """
        with self._database.transaction():
            for table, column in (("thumbnails", "observation"), ("pages", "observation"), ("observations", "id")):
                self._database.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT observation FROM files)")


def publications(rows: Iterable[tuple[str, str]]) -> Publications:
    """Read what `PUBLISHED` selects; a ValueError or TypeError is damage."""
    return {sha256: tuple(json.loads(sources)) for sha256, sources in rows}


def _files(batch: Batch) -> Iterator[tuple[ImageFile, str, int]]:
    """Give each file of a batch once: the file, its sha256 and how many pages it has."""
    seen = {page.file.path: page for page in (*batch.pages, *(page for page, _ in batch.faults))}
    for page in seen.values():
        yield page.file, page.sha256, page.of
    for file in batch.unchanged:
        yield file, file.known_sha256, 0  # its observation is whole

"""Keep what was seen of files: tell what is pending, store predictions, and give them back in the order of rows.

An SQLite database that holds observations (logits, ink measures, faults) and under what they were made, and people's
answers; never decisions. An observation belongs to bytes: files with the same bytes share it. Beside a report it is a
file that grows from run to run; without one it is private to a run and gone with it.

What SQLite does not notice, a flipped byte in a value, the checksums of the rows do.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from batchdigits.errors import OF_THE_MACHINE, escaped, unforeseen
from batchdigits.ledger import last_run, writer
from batchdigits.ledger.database import Database
from batchdigits.ledger.plan import Plan, plan
from batchdigits.ledger.reader import CHUNK, Observations, read
from batchdigits.ledger.writer import LostAnswer
from batchdigits.records import ImageFile, Skipped
from batchdigits.storage.atomic import TargetFile

if TYPE_CHECKING:
    from batchdigits.records import Batch, KnownBytes

log = logging.getLogger(__name__)

# A file in a report whose fault no report has shown so far, as it is now.
_UNREPORTED = """
FROM pages
CROSS JOIN files ON files.observation = pages.observation
CROSS JOIN found ON found.path = files.path
LEFT JOIN told ON told.path = found.path AND told.size_bytes = found.size_bytes AND told.mtime_ns = found.mtime_ns
WHERE fault IS NOT NULL AND told.path IS NULL AND found.path NOT IN (SELECT path FROM deferred)
"""  # CROSS JOIN: SQLite keeps the order, and so begins with the few pages that have a fault

Publications = dict[str, tuple[str, ...]]  # what may stand at a report's path, by its sha256: its sources
PUBLISHED = "SELECT sha256, sources FROM reports WHERE path = ?"
"""The rows of one report, by its path: for `publications`."""


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

    def __enter__(self) -> Self:
        """Open it, or begin a new one.

        Raises:
            StorageError: It cannot be opened, is damaged, or is of a newer version.
        """
        self._database.__enter__()
        key = (self._cache_key.bundle, self._cache_key.others)
        with self._database.transaction() as execute:
            execute("INSERT OR IGNORE INTO conditions (bundle, others) VALUES (?, ?)", key)
            select = "SELECT id FROM conditions WHERE bundle = ? AND others = ?"
            (self._condition_id,) = execute(select, key).fetchone()
            writer.sort_in(self._database)  # what a killed run left, or an older version of this program
        return self

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
    ) -> Plan:
        """Take in what discovery finds, as `plan.plan` does, under this ledger's cache key."""
        return plan(
            self._database,
            found,
            condition=self._condition_id,
            recent_ns=recent_ns,
            retry_failed=retry_failed,
            force=force,
        )

    def known_bytes(self) -> "KnownBytes":
        """Give all bytes whose pages are known under this run's cache key, under whatever name."""
        with self._database.errors():
            return writer.known_bytes(self._database, self._condition_id)

    def record(self, batch: "Batch") -> list[LostAnswer]:
        """Store what was read of some files, faults too, in one transaction.

        Where an error comes of it that nobody foresaw, each file is stored by itself, and those that it comes of as
        faults.

        Args:
            batch: Whole files, all of which `plan` has found.

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
        with self._database.transaction():
            return writer.record(self._database, self._condition_id, batch, bundle=self._cache_key.bundle)

    def observations(self, chunk: int = CHUNK, *, thumbnails: bool = False) -> Iterator[Observations]:
        """Give all that was observed of what was found, as `observations.read` does."""
        return read(self._database, chunk, thumbnails=thumbnails)

    def mark_faults_reported(self) -> int:
        """Note that a report shows the faults of what was found; return how many pages it shows for the first time."""
        (pages,) = self._database.execute(f"SELECT count(*) {_UNREPORTED}").fetchone()
        if pages:
            with self._database.transaction() as execute:
                columns = "found.path, found.size_bytes, found.mtime_ns"
                execute(f"INSERT OR REPLACE INTO told SELECT DISTINCT {columns} {_UNREPORTED}")
        return int(pages)

    def published(self, report: TargetFile) -> Publications:
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
            execute("INSERT OR REPLACE INTO reports (path, sha256, sources) VALUES (?, ?, ?)", row)

    def keep_run(self, settings: str) -> None:
        """Keep how the reports were made, as `last_run.recall` gives it."""
        last_run.keep(self._database, settings)

    def forget(self) -> None:
        """Drop what was observed of bytes that no file has any more.

        Files that are gone stay known: people may still answer to them, and they may come back.
        """
        with self._database.transaction():
            writer.forget(self._database)
            if self.path:
                writer.sort_in(self._database)


def publications(rows: Iterable[tuple[str, str]]) -> Publications:
    """Read what `PUBLISHED` selects; a ValueError or TypeError is damage."""
    found = {}
    for sha256, sources in rows:
        try:
            names = json.loads(sources)
        except RecursionError as error:
            raise ValueError from error
        if not (isinstance(names, list) and all(isinstance(name, str) for name in (sha256, *names))):
            raise TypeError
        found[sha256] = tuple(names)
    return found

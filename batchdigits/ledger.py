"""What was seen: image files in, what is pending out; observations in, observations in the order of rows out.

An SQLite database that holds observations (logits, ink measures, faults), never decisions. Here it is private to
a run and gone with it.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.batches import Batch, SeenPage
from batchdigits.errors import Fault, FaultKind, StorageError
from batchdigits.images import ImageFile, PassedOver

_SCHEMA = """
CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL UNIQUE,      -- absolute, as the file system has it
    name TEXT NOT NULL,             -- as rows show it
    ending TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL
);
CREATE TABLE pages (
    file INTEGER NOT NULL REFERENCES files (id),
    page INTEGER NOT NULL,          -- from 1
    sha256 TEXT NOT NULL,
    width INTEGER,
    height INTEGER,
    logits BLOB,                    -- float32[K], little-endian; NULL where there is a fault
    ink BLOB,                       -- float32[M], little-endian; NULL where there is a fault
    fault TEXT,                     -- a FaultKind
    detail TEXT,
    PRIMARY KEY (file, page)
) WITHOUT ROWID;
"""

_IN_ORDER = """
SELECT name, page, sha256, width, height, logits, ink, fault, detail
FROM pages JOIN files ON files.id = pages.file ORDER BY name, page
"""  # SQLite compares text as UTF-8 bytes, which is by code point

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery gave."""

    files: int
    """Image files, each counted once."""
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
    logits: NDArray[np.float32]
    """float32[P, K], of the P pages without a fault, in order."""
    ink: NDArray[np.float32]
    """float32[P, M], of the P pages without a fault, in order."""


class Ledger:
    """An open ledger: a context manager."""

    def __enter__(self) -> Self:
        """Open a private database that spills to disk when it grows."""
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._database.close()

    def plan(self, found: Iterable[ImageFile | PassedOver]) -> Found:
        """Take in what discovery finds; a file that is reached twice keeps its first name."""
        passed_over: Counter[str] = Counter()

        def rows() -> Iterator[tuple[bytes | str | int, ...]]:
            for item in found:
                if isinstance(item, PassedOver):
                    passed_over[item.reason] += 1
                else:
                    path = item.path.encode(errors="surrogateescape")
                    yield (path, item.name, item.ending, item.size_bytes, item.mtime_ns, item.device, item.inode)

        columns = "path, name, ending, size_bytes, mtime_ns, device, inode"
        with self._transaction():
            self._database.executemany(f"INSERT OR IGNORE INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows())
        (files,) = self._database.execute("SELECT count(*) FROM files").fetchone()
        return Found(files, passed_over)

    def pending(self) -> Iterator[ImageFile]:
        """Give the files that have to be read, in the order of rows."""
        columns = "path, name, size_bytes, mtime_ns, ending, device, inode"
        for path, *rest in self._database.execute(f"SELECT {columns} FROM files ORDER BY name"):
            yield ImageFile(path.decode(errors="surrogateescape"), *rest)

    def record(self, batch: Batch, logits: NDArray[np.float32]) -> None:
        """Store what was observed of one batch, faults too, in one transaction.

        Args:
            batch: N pages and any number of faults.
            logits: float32[N, K], in the order of the pages.
        """
        seen = [
            (*_page(page), row.tobytes(), ink.tobytes(), None, None)
            for page, row, ink in zip(batch.pages, logits.astype(_FLOAT32), batch.ink.astype(_FLOAT32), strict=True)
        ]
        faults = [(*_page(page), None, None, fault.kind, fault.detail) for page, fault in batch.faults]
        with self._transaction():
            stored = self._database.executemany(
                "INSERT INTO pages SELECT id, ?, ?, ?, ?, ?, ?, ?, ? FROM files WHERE path = ?",
                [(*row[1:], row[0]) for row in seen + faults],
            ).rowcount
            if stored != len(seen) + len(faults):
                message = "A page was observed whose file was never planned; its row would be lost."
                raise StorageError(message)

    def observations(self, chunk: int = 8192) -> Iterator[Observations]:
        """Give all that was observed, in the order of rows, `chunk` rows at a time."""
        cursor = self._database.execute(_IN_ORDER)
        while rows := cursor.fetchmany(chunk):
            names, pages, sha256, widths, heights, logits, ink, kinds, details = map(list, zip(*rows, strict=True))
            faults = [
                None if kind is None else Fault(FaultKind(kind), text)
                for kind, text in zip(kinds, details, strict=True)
            ]
            yield Observations(names, pages, sha256, widths, heights, faults, _matrix(logits), _matrix(ink))

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._database)


class _Transaction:
    """Commit the block whole, or nothing of it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.execute("COMMIT" if kind is None else "ROLLBACK")


def _page(page: SeenPage) -> tuple[bytes, int, str, int | None, int | None]:
    path = page.file.path.encode(errors="surrogateescape")
    return path, page.number, page.sha256, page.width, page.height


def _matrix(blobs: list[bytes | None]) -> NDArray[np.float32]:
    """Stack float32 rows: float32[P, K]; where there is none, float32[0, 10], which every reader takes."""
    present = [blob for blob in blobs if blob is not None]
    width = len(present[0]) // _FLOAT32.itemsize if present else 10
    return np.frombuffer(b"".join(present), _FLOAT32).reshape(len(present), width)

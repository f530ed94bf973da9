"""Open the ledger's file: an SQLite database with the ledger's tables, whose errors become ours.

What SQLite does not notice, a flipped byte in a value, the checksums of the rows do.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchdigits.errors import StorageError, escaped
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.guards import PRIVATE
from batchdigits.storage.local import storage_errors

_OBSERVATIONS = """
CREATE TABLE conditions (           -- cache keys: under what something was observed
    id INTEGER PRIMARY KEY,
    bundle TEXT NOT NULL,           -- the bundle's id
    others TEXT NOT NULL,           -- versions of decoding, normalisation and runtime, and the limits of decoding
    UNIQUE (bundle, others)
);
CREATE TABLE observations (         -- of bytes
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,           -- of the file's own bytes; empty where they could not be read
    ending TEXT NOT NULL,           -- the same bytes may be decoded otherwise under another one
    condition INTEGER NOT NULL REFERENCES conditions (id),
    pages INTEGER NOT NULL,         -- how many it has once it is whole
    stale INTEGER NOT NULL DEFAULT 0  -- 1 where it is to be made anew
);
CREATE UNIQUE INDEX observed ON observations (sha256, ending, condition) WHERE sha256 != '' AND NOT stale;
CREATE TABLE pages (
    observation INTEGER NOT NULL REFERENCES observations (id),
    page INTEGER NOT NULL,          -- from 1
    width INTEGER,
    height INTEGER,
    logits BLOB,                    -- float32[K], little-endian; NULL where there is a fault
    ink BLOB,                       -- float32[M], little-endian; NULL where there is a fault
    fault TEXT,                     -- a FaultKind
    detail TEXT,
    sum INTEGER NOT NULL,           -- CRC-32 of the bundle's id, the sha256 and this row
    PRIMARY KEY (observation, page)
) WITHOUT ROWID;
CREATE TABLE files (                -- only those whose observation is whole
    path BLOB PRIMARY KEY,          -- absolute, as the file system has it; or a normalised URL
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    observation INTEGER NOT NULL REFERENCES observations (id),
    sum INTEGER NOT NULL            -- CRC-32 of the path and the observation's sha256
) WITHOUT ROWID;
CREATE INDEX observed_files ON files (observation);
"""

_RUNS = """
CREATE INDEX faulty ON pages (observation) WHERE fault IS NOT NULL;
CREATE TABLE in_hand (              -- files that a run is reading; where it dies, they stay
    path BLOB PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE told (                 -- files with a fault that a report has shown, as they were then
    path BLOB PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE reports (              -- what was published; for the moment of replacing, the old and the new
    path BLOB NOT NULL,             -- absolute, or a normalised URL
    sha256 TEXT NOT NULL,
    sources TEXT NOT NULL,          -- of the call that made it: a JSON list, absolute and sorted
    PRIMARY KEY (path, sha256)
) WITHOUT ROWID;
CREATE TABLE answers (              -- of people, about bytes
    sha256 TEXT NOT NULL,           -- of the file's own bytes
    page INTEGER NOT NULL,          -- from 1
    answer TEXT NOT NULL,           -- 0 to 9, or x
    time TEXT NOT NULL,             -- when it was taken in
    source TEXT NOT NULL,           -- the file that it was taken from
    sum INTEGER NOT NULL,           -- CRC-32 of this row
    PRIMARY KEY (sha256, page)
) WITHOUT ROWID;
CREATE TABLE answered (             -- one row
    answers INTEGER NOT NULL        -- how many there are
);
INSERT INTO answered VALUES (0);
"""

_DEADLY = """
-- 1 where the file ended the process that read it:
ALTER TABLE pages ADD COLUMN deadly INTEGER NOT NULL DEFAULT 0;
UPDATE pages SET deadly = 1 WHERE fault IS NOT NULL AND detail LIKE '%its decoder%';
UPDATE observations SET stale = 1 WHERE id IN (
    SELECT observation FROM pages
    WHERE fault IS NOT NULL AND (detail LIKE '%decoder (SIGKILL)%' OR detail LIKE '%decoder (exit code%')
)
"""

_THUMBNAILS = """
CREATE TABLE thumbnails (           -- of pages that people may want to look at
    observation INTEGER NOT NULL REFERENCES observations (id),
    page INTEGER NOT NULL,          -- from 1
    png BLOB NOT NULL,
    PRIMARY KEY (observation, page)
);
"""

_KNOWN = """
DROP INDEX observed;
CREATE TABLE known (                -- where to find what was observed of some bytes; a run sorts in all at once
    key TEXT NOT NULL,              -- the beginning of their sha256
    observation INTEGER NOT NULL,   -- may be stale, or of bytes that only begin so
    PRIMARY KEY (key, observation)
) WITHOUT ROWID;
CREATE TABLE sorted_in (            -- one row
    upto INTEGER NOT NULL           -- the last observation that is among what is known
);
INSERT INTO sorted_in VALUES (0);
"""

_INODES = """
-- 0 behind a URL; NULL of what an older version read:
ALTER TABLE files ADD COLUMN inode INTEGER;
ALTER TABLE files ADD COLUMN ctime_ns INTEGER;
UPDATE files SET inode = 0, ctime_ns = 0 WHERE substr(path, 1, 1) != x'2f'
"""

_VANISHED = """
CREATE TABLE gone (                 -- known files that the last report of their source did not show
    path BLOB PRIMARY KEY
) WITHOUT ROWID;
CREATE TABLE mounted (              -- what lay under the sources then
    folder BLOB PRIMARY KEY,        -- absolute: a source, or where a disk was mounted below it
    disk TEXT NOT NULL              -- what tells its file system from others
) WITHOUT ROWID
"""

_UNBROKEN = """
-- a file that ends a process is found in the same run:
DROP TABLE in_hand
"""

_MIGRATIONS = (_OBSERVATIONS, _RUNS, _DEADLY, _THUMBNAILS, _KNOWN, _INODES, _VANISHED, _UNBROKEN)
"""What leads from each version to the next, from 0, which is empty."""

SCHEMA_VERSION = len(_MIGRATIONS)
"""`PRAGMA user_version` of the ledgers that this program writes."""

_FOUND = """
CREATE TEMP TABLE found (           -- what this run's sources hold
    path BLOB PRIMARY KEY,
    name TEXT NOT NULL,             -- as rows show it
    ending TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TEMP TABLE skipped (         -- what else they hold
    path BLOB NOT NULL,
    reason TEXT NOT NULL
);
CREATE TEMP TABLE pending (         -- what has to be read, in the order of phases and rows
    position INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    sha256 TEXT NOT NULL,           -- what is known of a file of this path already; else empty
    why TEXT NOT NULL,              -- a Why
    phase INTEGER NOT NULL          -- a Phase
);
CREATE TEMP TABLE deferred (        -- what of it was left to the next run
    path BLOB PRIMARY KEY
) WITHOUT ROWID;
CREATE TEMP TABLE lately (          -- what this run observed, as in `known`
    key TEXT NOT NULL,
    observation INTEGER NOT NULL,
    PRIMARY KEY (key, observation)
) WITHOUT ROWID;
"""


class Database:
    """An open database: a context manager."""

    def __init__(self, path: Path | None) -> None:
        """Say where it is; None for one that is private to this run, and spills to disk when it grows."""
        self._path = path

    def __enter__(self) -> Self:
        """Open it, or begin a new one.

        Raises:
            StorageError: It cannot be opened, is damaged, or is of a newer version.
        """
        self._is_new = self._path is not None and self._begin(self._path)
        with self.errors():
            self._connection = sqlite3.connect(self._path or "", isolation_level=None)
            self.execute = self._connection.execute
            self.executemany = self._connection.executemany
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; a new one in which nothing was kept, since the run failed before, goes.

        Raises:
            StorageError: In the place of an error of SQLite.
        """
        with closing(self._connection), self.errors():
            if isinstance(error, sqlite3.Error):
                raise error
            kept = " UNION ALL ".join(f"SELECT 1 FROM {table}" for table in ("observations", "reports"))
            if self._path and self._is_new and not self.execute(kept).fetchone():
                self._path.unlink(missing_ok=True)

    @staticmethod
    def _begin(path: Path) -> bool:
        """Make a ledger that holds nothing, unless there is one; tell whether it did.

        It appears whole, so that an empty file is known to be damaged.
        """
        with storage_errors(path):
            if path.exists():
                return False
            Path(f"{path}-journal").unlink(missing_ok=True)  # of one that was moved away: SQLite would apply it
        with (
            closing(sqlite3.connect(":memory:", isolation_level=None)) as empty,
            atomic_write(path, mode=PRIVATE) as file,
        ):
            _migrate(empty.execute)
            file.write(empty.serialize())
        return True

    def _prepare(self) -> None:
        (version,) = self.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            message = (
                f"The ledger {self._name} is of version {version}, this program knows {SCHEMA_VERSION}: a newer "
                "batchdigits wrote it; use that, or another --ledger."
            )
            raise StorageError(message)
        if version < 0:
            raise self.damaged()
        if self._path and version == 0:
            if not self.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise self.damaged()
            message = f"{self._name} is a database, but no ledger; name another with --ledger."
            raise StorageError(message)
        self.execute("PRAGMA synchronous = EXTRA")  # else a journal that went comes back after a loss of power
        self.execute("PRAGMA temp.journal_mode = MEMORY")  # what is random in them would be written twice
        with self.transaction():
            if version < SCHEMA_VERSION:
                _migrate(self.execute, version)
            _run(self.execute, _FOUND)

    @property
    def _name(self) -> str:
        return escaped(str(self._path))

    def damaged(self) -> StorageError:
        """Make the error that says so."""
        message = (
            f"The ledger {self._name} is damaged; move it away, and the next run reads all images again into a new one."
        )
        return StorageError(message)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "UTF-8" in str(error):  # Python's message for text that is none
                raise self.damaged() from error
            message = (
                f"The ledger {self._name} cannot be used: {error}; check its folder, its disk and limits on the size "
                "of files, or name another."
            )
            raise StorageError(message) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self.damaged() from error

    @contextmanager
    def transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """Commit the block whole, or nothing of it."""
        with self.errors():
            self.execute("BEGIN IMMEDIATE")
            try:
                yield self.execute
            except BaseException:
                if self._connection.in_transaction:  # where the disk is full, SQLite has rolled back by itself
                    self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")


def glimpse(path: Path, select: str, parameters: tuple[bytes, ...] = ()) -> list[Any]:
    """Ask a ledger that is not this run's, without waiting for it or changing it; nothing where it cannot be read."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as other,
    ):
        return other.execute(select, parameters).fetchall()
    return []


def _migrate(execute: Callable[[str], object], version: int = 0) -> None:
    """Lead the tables of a version to this one."""
    for statements in _MIGRATIONS[version:]:
        _run(execute, statements)
    execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _run(execute: Callable[[str], object], statements: str) -> None:
    """Run several statements within the transaction; `executescript` would commit it."""
    for statement in statements.split(";\n"):
        execute(statement)


def checksum(*values: bytes | str | int | None) -> int:
    """Compute the checksum of a row: CRC-32 over its values."""
    return zlib.crc32(b"\0".join([value if type(value) is bytes else ascii(value).encode() for value in values]))

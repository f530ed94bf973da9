"""The ledger's file: a path in, an open SQLite database with the ledger's tables out.

What SQLite does not notice, a flipped byte in a value, the check sums of the rows do.
"""

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from batchdigits.errors import StorageError, shown

SCHEMA_VERSION = 1
"""`PRAGMA user_version` of the ledgers that this program writes."""

_SCHEMA = """
CREATE TABLE conditions (           -- under what something was observed
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
    path BLOB PRIMARY KEY,          -- absolute, as the file system has it
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    observation INTEGER NOT NULL REFERENCES observations (id),
    sum INTEGER NOT NULL            -- CRC-32 of the path and the observation's sha256
) WITHOUT ROWID;
CREATE INDEX observed_files ON files (observation);
"""

_FOUND = """
CREATE TEMP TABLE found (           -- what this run's sources hold
    path BLOB PRIMARY KEY,
    name TEXT NOT NULL,             -- as rows show it
    ending TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TEMP TABLE pending (         -- what of it has to be read, in the order of rows
    position INTEGER PRIMARY KEY,
    path BLOB NOT NULL,
    sha256 TEXT NOT NULL            -- what is known of a file of this path already; else empty
);
CREATE TEMP TABLE waiting (         -- what was read, and the observation that it waits for
    path BLOB PRIMARY KEY,
    observation INTEGER NOT NULL
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
        with self.errors():
            self._connection = sqlite3.connect(self._path or "", isolation_level=None)
            self.execute = self._connection.execute
            self.executemany = self._connection.executemany
            self._connection.create_function("check_sum", -1, check_sum, deterministic=True)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; a new one in which nothing was kept, since the run failed before, goes."""
        kept = self.execute("SELECT 1 FROM observations").fetchone() if self._is_new else True
        self._connection.close()
        if self._path and not kept:
            self._path.unlink(missing_ok=True)

    def _prepare(self) -> None:
        (version,) = self.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            message = (
                f"The ledger {self._name} is of version {version}, this program knows {SCHEMA_VERSION}: a newer "
                "batchdigits wrote it; use that, or another --ledger."
            )
            raise StorageError(message)
        with self.transaction():
            self._is_new = version == 0
            if self._is_new:
                if self.execute("SELECT 1 FROM sqlite_master").fetchone():
                    message = f"{self._name} is a database, but no ledger; name another with --ledger."
                    raise StorageError(message)
                self._run(_SCHEMA)
                self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._run(_FOUND)

    def _run(self, statements: str) -> None:
        """Run several statements within the transaction; `executescript` would commit it."""
        for statement in statements.split(";\n"):
            self.execute(statement)

    @property
    def _name(self) -> str:
        return shown(str(self._path))

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
            message = f"The ledger {self._name} cannot be used: {error}; check its folder and disk, or name another."
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
                self.execute("ROLLBACK")
                raise
            self.execute("COMMIT")


def check_sum(*values: bytes | str | int | None) -> int:
    """Compute the check sum of a row: CRC-32 over its values."""
    return zlib.crc32(b"\0".join([value if type(value) is bytes else ascii(value).encode() for value in values]))

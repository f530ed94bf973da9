"""Open the ledger's file: an SQLite database with the ledger's tables, whose errors become ours.

What SQLite does not notice, a flipped byte in a value, the checksums of the rows do.
"""

import errno
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from batchdigits.errors import StorageError, escaped
from batchdigits.ledger.schema import SCHEMA_VERSION, migrate
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.guards import PRIVATE
from batchdigits.storage.local import storage_errors


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
            kept = " UNION ALL ".join(f"SELECT 1 FROM {table}" for table in ("pages", "reports"))
            if self._path and self._is_new and not self.execute(kept).fetchone():
                self._path.unlink(missing_ok=True)

    @staticmethod
    def _begin(path: Path) -> bool:
        """Make a ledger that holds nothing, unless there is one; tell whether it did.

        It appears whole, so that an empty file is known to be damaged.
        """
        with storage_errors(path):
            if path.exists():
                if not os.access(path, os.R_OK | os.W_OK):  # SQLite would only say that it cannot open it
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                return False
            Path(f"{path}-journal").unlink(missing_ok=True)  # of one that was moved away: SQLite would apply it
        with (
            closing(sqlite3.connect(":memory:", isolation_level=None)) as empty,
            atomic_write(path, mode=PRIVATE) as file,
        ):
            migrate(empty)
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
        if version < SCHEMA_VERSION:
            with self.transaction():
                try:
                    migrate(self._connection, version)
                except (ValueError, TypeError, OverflowError, IndexError) as error:
                    raise self.damaged() from error

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
        """Turn SQLite's errors into ours, and refuse what it would wait for."""
        self._check_journal()
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

    def _check_journal(self) -> None:
        """Refuse a pipe that somebody has put at the name of the journal, which SQLite opens and would wait for.

        Raises:
            StorageError: There is one.
        """
        with suppress(OSError):
            if self._path and not stat.S_ISREG(os.lstat(f"{os.path.realpath(self._path)}-journal").st_mode):
                message = f"{self._name}-journal is no file, as a ledger needs; remove it, or name another ledger."
                raise StorageError(message)

    @contextmanager
    def transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """Commit the block whole, or nothing of it; one within another is committed with that."""
        if self._connection.in_transaction:
            yield self.execute
            return
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

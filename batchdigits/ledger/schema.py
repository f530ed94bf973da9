"""Define the tables of a ledger, and lead older ledgers to them within one transaction.

Version 9 has a row a page. What people answered stays as it is, in its own table; what was observed is checked before
it is moved.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from batchdigits.errors import MOST_SIDE
from batchdigits.records import NEVER, NO_SUM, PAGE, Pages

if TYPE_CHECKING:
    import sqlite3

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

_ONE_ROW_A_PAGE = """
DROP INDEX faulty;
ALTER TABLE pages RENAME TO pages_before;
ALTER TABLE conditions RENAME TO conditions_before;
ALTER TABLE reports RENAME TO reports_before;
CREATE TABLE conditions (           -- cache keys: under what something was observed
    id INTEGER PRIMARY KEY,
    bundle TEXT NOT NULL,           -- the bundle's id
    others TEXT NOT NULL,           -- versions of decoding, normalisation and runtime, and the limits of decoding
    sum INTEGER NOT NULL,           -- CRC-32 of this row
    UNIQUE (bundle, others)
);
CREATE TABLE pages (                -- what was observed of files, all of whose pages are here
    path BLOB NOT NULL,             -- absolute, as the file system has it; or a normalised URL
    page INTEGER NOT NULL,          -- from 1
    pages INTEGER NOT NULL,         -- how many the file has
    size_bytes INTEGER NOT NULL,    -- of the file, as its times and its inode are, when it was read
    mtime_ns INTEGER NOT NULL,
    inode INTEGER,                  -- 0 behind a URL; NULL of what an older version read
    ctime_ns INTEGER,
    condition INTEGER NOT NULL REFERENCES conditions (id),
    seen BLOB NOT NULL,             -- a record of `records.PAGE`
    fault TEXT,                     -- a FaultKind
    detail TEXT,
    png_sum INTEGER,                -- CRC-32 of the thumbnail
    sum INTEGER NOT NULL,           -- CRC-32 of all before
    stale INTEGER NOT NULL,         -- 1 where it is to be made anew
    png BLOB,                       -- a thumbnail, of a page that people may want to look at
    PRIMARY KEY (path, page)
) WITHOUT ROWID;
CREATE INDEX faulty ON pages (path) WHERE fault IS NOT NULL;
CREATE TABLE reports (              -- what was published; for the moment of replacing, the old and the new
    path BLOB NOT NULL,             -- absolute, or a normalised URL
    sha256 TEXT NOT NULL,
    sources TEXT NOT NULL,          -- of the call that made it: a JSON list, absolute and sorted
    sum INTEGER NOT NULL,           -- CRC-32 of this row
    PRIMARY KEY (path, sha256)
) WITHOUT ROWID;
CREATE TABLE rendered (             -- one row, until what is observed or answered changes
    key TEXT NOT NULL,              -- what the reports of the last run follow from, beside that
    marks TEXT NOT NULL,            -- how the file system knows them: JSON
    summary TEXT NOT NULL,          -- of what is in them: JSON
    sum INTEGER NOT NULL            -- CRC-32 of this row
);
CREATE TABLE IF NOT EXISTS last_run (settings TEXT NOT NULL, sum INTEGER NOT NULL)
"""

_GONE = """
DROP TABLE pages_before;
DROP TABLE thumbnails;
DROP TABLE files;
DROP TABLE observations;
DROP TABLE conditions_before;
DROP TABLE reports_before;
DROP TABLE known;
DROP TABLE sorted_in
"""

_BEFORE = """
SELECT
    path, pages_before.page, observations.pages, size_bytes, mtime_ns, inode, ctime_ns, condition, stale, bundle,
    sha256, width, height, logits, ink, fault, detail, png, pages_before.sum, files.sum
FROM files
JOIN observations ON observations.id = files.observation
JOIN conditions_before ON conditions_before.id = condition
JOIN pages_before ON pages_before.observation = observations.id
LEFT JOIN thumbnails ON thumbnails.observation = observations.id AND thumbnails.page = pages_before.page
ORDER BY path, pages_before.page
"""
_COUNTS = """
SELECT (SELECT count(*) FROM files), coalesce(sum(observations.pages), 0)
FROM files JOIN observations ON observations.id = files.observation
"""

_MIGRATIONS = (_OBSERVATIONS, _RUNS, _DEADLY, _THUMBNAILS, _KNOWN, _INODES, _VANISHED, _UNBROKEN, _ONE_ROW_A_PAGE)
"""What leads from each version to the next, from 0, which is empty."""

SCHEMA_VERSION = len(_MIGRATIONS)
"""`PRAGMA user_version` of the ledgers that this program writes."""

COVERED = "path, page, pages, size_bytes, mtime_ns, inode, ctime_ns, condition, seen, fault, detail, png_sum"
"""The columns of a page that its sum covers, in the order of `row_sums`."""

_AT_A_TIME = 4096  # rows that are moved
_IN_A_STATEMENT = 64  # rows: SQLite takes them a quarter faster than one by one, and 999 values in all of its versions
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT = f"INSERT INTO pages ({COVERED}, sum, stale, png) VALUES {_ROW}"
_FLOAT32 = np.dtype("<f4")  # of the logits and ink measures of older ledgers


def migrate(connection: "sqlite3.Connection", version: int = 0) -> None:
    """Lead the tables of a version to this one, within a transaction.

    Raises:
        ValueError: Something that was observed is damaged; so is a TypeError, an OverflowError or an IndexError.
    """
    for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
        _run(connection.execute, statements)
        if number == len(_MIGRATIONS):
            _move(connection)
            _run(connection.execute, _GONE)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _run(execute: Callable[[str], object], statements: str) -> None:
    """Run several statements within the transaction; `executescript` would commit it."""
    for statement in statements.split(";\n"):
        execute(statement)


def _move(connection: "sqlite3.Connection") -> None:
    """Make rows of pages of what version 8 knew of files; give what it had no sum for one."""
    for table, columns in (("conditions", "id, bundle, others"), ("reports", "path, sha256, sources")):
        rows = connection.execute(f"SELECT {columns} FROM {table}_before").fetchall()
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", [(*row, checksum(*row)) for row in rows])
    files, pages = connection.execute(_COUNTS).fetchone()
    for rows in _moved(connection):
        insert(connection.executemany, rows)
    if connection.execute("SELECT count(DISTINCT path), count(*) FROM pages").fetchone() != (files, pages):
        raise ValueError  # some would have no row


def _moved(connection: "sqlite3.Connection") -> Iterator[list[tuple[Any, ...]]]:
    cursor = connection.execute(_BEFORE)
    while rows := cursor.fetchmany(_AT_A_TIME):
        for row in rows:
            path, page, *_, bundle, sha256, width, height, logits, ink, fault, detail, _, page_sum, file_sum = row
            of_page = checksum(bundle, sha256, page, width, height, logits, ink, fault, detail)
            if (page_sum, file_sum) != (of_page, checksum(path, sha256)):
                raise ValueError
        columns = list(zip(*rows, strict=True))
        faults, details, pngs = columns[15:18]
        yield stored([*columns[:8], _records(rows), faults, details], pngs, columns[8])


def _records(rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
    """Make records of what version 8 knew of pages; it knew some sides that no page has."""
    pages = np.zeros(len(rows), PAGE)
    pages["logits"] = NEVER
    for page, row in zip(pages, rows, strict=True):
        page["number"], (sha256, width, height, logits, ink, fault) = row[1], row[10:16]
        page["sha256"] = np.void(bytes.fromhex(sha256 or NO_SUM))
        page["width"], page["height"] = (side if 0 < (side or 0) <= MOST_SIDE else 0 for side in (width, height))
        page["fault"] = fault is not None
        if fault is None:
            for name, blob in (("logits", logits), ("ink", ink)):
                values = np.frombuffer(blob, _FLOAT32)
                page[name][: len(values)] = values
    return blobs(pages)


def blobs(pages: Pages) -> list[bytes]:
    """Spell records as the ledger keeps them."""
    data, size = pages.tobytes(), PAGE.itemsize
    return [data[at : at + size] for at in range(0, len(data), size)]


def stored(
    columns: Sequence[Sequence[Any]], pngs: Sequence[bytes | None], stale: Sequence[int] = ()
) -> list[tuple[Any, ...]]:
    """Complete pages for `insert`.

    Args:
        columns: What stands in `COVERED`, but for the last, a column each.
        pngs: Their thumbnails.
        stale: Which are to be made anew.
    """
    covered = [*columns, _png_sums(pngs)]
    return list(zip(*covered, row_sums(covered), stale or repeat(0, len(pngs)), pngs, strict=True))


def insert(executemany: Callable[..., object], rows: list[tuple[Any, ...]]) -> None:
    """Store what `stored` makes of pages that are not there."""
    whole = len(rows) - len(rows) % _IN_A_STATEMENT
    several = [tuple(chain.from_iterable(rows[at : at + _IN_A_STATEMENT])) for at in range(0, whole, _IN_A_STATEMENT)]
    executemany(_INSERT + f", {_ROW}" * (_IN_A_STATEMENT - 1), several)
    executemany(_INSERT, rows[whole:])


def are_whole(
    covered: Sequence[Sequence[Any]], of_rows: Sequence[int], pngs: Sequence[bytes | None] | None = None
) -> bool:
    """Tell whether pages are as they were stored.

    Args:
        covered: What stands in `COVERED`, a column each.
        of_rows: Their sums.
        pngs: Their thumbnails; None where they were not asked for.
    """
    with suppress(TypeError):
        return list(of_rows) == row_sums(covered) and (pngs is None or list(covered[-1]) == _png_sums(pngs))
    return False


def _png_sums(pngs: Iterable[bytes | None]) -> list[int | None]:
    """Compute the sum of each thumbnail, where there is one."""
    return [None if png is None else zlib.crc32(png) for png in pngs]


def row_sums(columns: Sequence[Sequence[Any]]) -> list[int]:
    """Compute the sums of pages.

    Args:
        columns: What stands in `COVERED`, a column each.

    Raises:
        TypeError: A path or a record is damaged.
    """
    paths, *numbers, seen, fault, detail, png_sum = columns
    of_file, of_page = (b", ".join(map(_format, some)) for some in (numbers, (fault, detail, png_sum)))
    row = b"%%b%%b((%b), (%b))" % (of_file, of_page)
    values = zip(paths, seen, *numbers, fault, detail, png_sum, strict=True)
    return list(map(zlib.crc32, map(row.__mod__, values)))


def _format(column: Iterable[Any]) -> bytes:
    """Say how the values of a column are spelled: integers alone as all others are, but in a quicker way."""
    return b"%d" if set(map(type, column)) == {int} else b"%a"


def checksum(*values: bytes | str | int | None) -> int:
    """Compute the checksum of another row: CRC-32 over its values."""
    return zlib.crc32(b"\0".join([value if type(value) is bytes else ascii(value).encode() for value in values]))

"""Store a batch in one transaction; stored predictions are found again by file content (SHA-256).

An observation belongs to bytes, and is found by the beginning of their sha256. An index of all that is known, filled
in the order of hashes, would change a page of the file for each image: so what a run observes is found by a table of
its own, `lately`, and sorted into `known` at once, as the run ends or, where it was killed, as the next one begins.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchdigits.ledger.database import Database
from batchdigits.ledger.plan import encoded
from batchdigits.ledger.reader import FLOAT32, file_checksum, page_checksum
from batchdigits.records import ImageFile

if TYPE_CHECKING:
    from batchdigits.records import Batch, KnownBytes

_SOME = 499  # values that a statement is asked with at a time, twice; every SQLite takes 999
_KEY = 10  # characters of a sha256; of a million images, hardly two share them by chance

# What has only the beginning of its sha256 in common with what is asked for comes, too.
_OF_BYTES = """
FROM (
    SELECT observation FROM known WHERE key IN ({0}) UNION ALL SELECT observation FROM lately WHERE key IN ({0})
) AS alike CROSS JOIN observations ON id = alike.observation
"""
OBSERVATIONS_OF_BYTES = f"""
SELECT sha256, ending, id, pages, (SELECT count(*) FROM pages WHERE pages.observation = id)
{_OF_BYTES} WHERE condition = ? AND NOT stale
"""
_KNOWN_BYTES = """
SELECT sha256, ending FROM observations
WHERE condition = ? AND NOT stale AND sha256 != '' AND id IN (SELECT observation FROM files)
"""
HAD = """
SELECT path, page, answer
FROM files CROSS JOIN observations ON id = files.observation CROSS JOIN answers USING (sha256)
WHERE path IN ({}) ORDER BY path, page
"""

_SORT_IN = f"""
INSERT OR IGNORE INTO known SELECT substr(sha256, 1, {_KEY}), id FROM observations
WHERE id > (SELECT upto FROM sorted_in) AND sha256 != '' ORDER BY 1, 2
"""


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


_File = tuple[ImageFile, str, int]  # its sha256, and how many pages it has; 0 for one that is unchanged
_Now = tuple[bytes, int, int, int, int, int, str]  # path, size_bytes, mtime_ns, inode, ctime_ns, observation, sha256
_PAGES = """
INSERT OR IGNORE INTO pages (observation, page, width, height, logits, ink, fault, detail, sum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_TAKE = """
INSERT OR REPLACE INTO files (path, size_bytes, mtime_ns, inode, ctime_ns, observation, sum)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def record(database: Database, condition: int, batch: "Batch", *, bundle: str) -> list[LostAnswer]:
    """Store the predictions and faults of one batch within a transaction; what is known of bytes stays as it is.

    Args:
        database: Open, in a transaction.
        condition: The id of the cache key.
        batch: Whole files, all of which a plan has found.
        bundle: The id of the model.

    Returns:
        The answers that files had before, in the order of paths.
    """
    sums, places = batch.sha256, batch.pages["file"].tolist()
    files = _files(batch, sums, places)
    ids = _observations(database, condition, files)
    columns = [batch.pages[name].tolist() for name in ("number", "width", "height", "fault")]
    blobs = [_blobs(batch.pages[name]) for name in ("logits", "ink")]
    rows, pictures = [], []
    for row, (place, sha256, number, width, height, is_fault, logits, ink) in enumerate(
        zip(places, sums, *columns, *blobs, strict=True)
    ):
        seen: tuple[bytes | str | None, ...] = (logits, ink, None, None)
        if is_fault:
            seen = (None, None, batch.faults[row].kind.value, batch.faults[row].detail)
        values = (number, width or None, height or None, *seen)
        rows.append((ids[place], *values, page_checksum((bundle, sha256, *values))))
        if row in batch.thumbnails:
            pictures.append((ids[place], number, batch.thumbnails[row]))
    database.executemany(_PAGES, rows)
    database.executemany("INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?)", pictures)
    now: list[_Now] = [
        (encoded(file.path), file.size_bytes, file.mtime_ns, file.inode, file.ctime_ns, number, sha256)
        for (file, sha256, _), number in zip(files, ids, strict=True)
    ]
    lost = _lost(database, now)
    database.executemany(_TAKE, [(path, *row, file_checksum(path, sha256)) for path, *row, sha256 in now])
    return lost


def known_bytes(database: Database, condition: int) -> "KnownBytes":
    """Give all bytes whose pages a file of this ledger has."""
    found: dict[str, list[str]] = {}
    for sha256, ending in database.execute(_KNOWN_BYTES, (condition,)):
        found.setdefault(ending, []).append(sha256)
    return {ending: np.sort(np.frombuffer(bytes.fromhex("".join(sums)), "S32")) for ending, sums in found.items()}


def sort_in(database: Database) -> None:
    """Let all that was observed be found by any run, within a transaction."""
    database.execute(_SORT_IN)
    database.execute("UPDATE sorted_in SET upto = (SELECT coalesce(max(id), 0) FROM observations)")


def forget(database: Database) -> None:
    """Drop what was observed of bytes that no file has any more, within a transaction."""
    for table, column in (("thumbnails", "observation"), ("pages", "observation"), ("observations", "id")):
        gone = database.execute(f"DELETE FROM {table} WHERE {column} NOT IN (SELECT observation FROM files)")
    if gone.rowcount:
        database.execute("DELETE FROM known WHERE observation NOT IN (SELECT id FROM observations)")


def _of_bytes(database: Database, select: str, sha256s: Iterable[str], condition: int) -> Iterator[tuple[Any, ...]]:
    """Ask what is known of files' bytes under a condition."""
    keys = iter({sha256[:_KEY] for sha256 in sha256s})
    while some := list(islice(keys, _SOME)):
        yield from database.execute(select.format(_places(some)), (*some, *some, condition))


def _observations(database: Database, condition: int, files: Sequence[_File]) -> list[int]:
    """Find the observation of each file's bytes, or begin it; give their ids."""
    known = {
        (sha256, ending): found
        for sha256, ending, *found in _of_bytes(
            database, OBSERVATIONS_OF_BYTES, (sum for _, sum, _ in files), condition
        )
    }
    (last,) = database.execute("SELECT coalesce(max(id), 0) FROM observations").fetchone()
    ids, begun, stale = [], [], []
    for file, sha256, pages in files:
        key = (sha256, file.ending)
        number, of, seen = known.get(key, (0, 0, 0))
        if number and pages not in (0, of) and of > seen:
            # What a killed run of an earlier version began, and a decoder that crashes now does not let end.
            stale.append((number,))
            number = 0
        if not number:
            last = number = last + 1
            begun.append((number, *key, condition, pages))
            if sha256:
                known[key] = [number, pages, pages]
        ids.append(number)
    database.executemany(
        "INSERT INTO observations (id, sha256, ending, condition, pages) VALUES (?, ?, ?, ?, ?)", begun
    )
    database.executemany("UPDATE observations SET stale = 1 WHERE id = ?", stale)
    lately = sorted((sha256[:_KEY], number) for number, sha256, *_ in begun if sha256)
    database.executemany("INSERT INTO lately VALUES (?, ?)", lately)
    return ids


def _lost(database: Database, whole: Sequence[_Now]) -> list[LostAnswer]:
    """Give the answers to the bytes that files had, where those that they have now have none."""
    if not database.execute("SELECT 1 FROM answers").fetchone():
        return []
    now = {row[0]: row[-1] for row in whole}
    paths = iter(sorted(now))
    lost = []
    while some := list(islice(paths, _SOME)):
        for path, page, answer in database.execute(HAD.format(_places(some)), some).fetchall():
            kept = database.execute("SELECT 1 FROM answers WHERE sha256 = ? AND page = ?", (now[path], page))
            if not kept.fetchone():
                lost.append(LostAnswer(path.decode(errors="surrogateescape"), page, answer, now[path] != ""))
    return lost


def _files(batch: "Batch", sums: Sequence[str], places: Sequence[int]) -> list[_File]:
    """Give each file of a batch: the file, its sha256 and how many pages it has."""
    sha256 = [batch.unchanged.get(place, "") for place in range(len(batch.files))]  # whose observations are whole
    pages = [0] * len(batch.files)
    for text, place in zip(sums, places, strict=True):
        sha256[place] = text
        pages[place] += 1
    return list(zip(batch.files, sha256, pages, strict=True))


def _blobs(matrix: NDArray[np.float32]) -> list[bytes]:
    """Spell the rows of a matrix as the ledger keeps them."""
    data, width = matrix.astype(FLOAT32).tobytes(), matrix.shape[1] * FLOAT32.itemsize
    return [data[at : at + width] for at in range(0, len(data), width)]


def _places(values: Sequence[object]) -> str:
    """Spell as many places for values as there are."""
    return ", ".join("?" * len(values))

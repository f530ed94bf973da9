"""Store a batch in one transaction; stored predictions are found again by file content (SHA-256).

An observation belongs to bytes, and is found by the beginning of their sha256. An index of all that is known, filled
in the order of hashes, would change a page of the file for each image: so what a run observes is found by a table of
its own, `lately`, and sorted into `known` at once, as the run ends or, where it was killed, as the next one begins.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import StorageError
from batchdigits.ledger.database import Database
from batchdigits.ledger.plan import encoded
from batchdigits.ledger.reader import FLOAT32, file_checksum, page_checksum
from batchdigits.records import ImageFile

if TYPE_CHECKING:
    from batchdigits.records import Batch, SeenPage

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
PAGES_OF_BYTES = f"""
SELECT sha256, ending, page {_OF_BYTES} CROSS JOIN pages ON pages.observation = id WHERE condition = ? AND NOT stale
"""

_PLANNED = "SELECT ?1 IN (SELECT path FROM found), ?1 IN (SELECT path FROM deferred)"
_WHOLE = """
SELECT path, size_bytes, mtime_ns, inode, ctime_ns, waiting.observation, waiting.sha256
FROM waiting JOIN observations ON id = observation
WHERE pages = (SELECT count(*) FROM pages WHERE pages.observation = id)
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
_TAKE = """
INSERT OR REPLACE INTO files (path, size_bytes, mtime_ns, inode, ctime_ns, observation, sum)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""


def is_new(database: Database, condition: int, batch: "Batch") -> NDArray[np.bool_]:
    """Tell which pages of a batch were never observed before, in this batch neither: bool[N]."""
    with database.transaction():  # one lock for all of these questions
        seen = set(_of_bytes(database, PAGES_OF_BYTES, (page.sha256 for page in batch.pages), condition))
    found = np.ones(len(batch.pages), np.bool_)
    for row, page in enumerate(batch.pages):
        key = (page.sha256, page.file.ending, page.number)
        found[row] = key not in seen
        seen.add(key)
    return found


def record(
    database: Database,
    condition: int,
    batch: "Batch",
    is_new: NDArray[np.bool_],
    logits: NDArray[np.float32],
    *,
    bundle: str,
    thumbnails: Mapping[int, bytes],
) -> list[LostAnswer]:
    """Store the predictions and faults of one batch within a transaction.

    Args:
        database: Open, in a transaction.
        condition: The id of the cache key.
        batch: N pages, and any number of faults and unchanged files.
        is_new: bool[N], which pages were predicted.
        logits: float32[M, K], in the order of the M new pages.
        bundle: The id of the model.
        thumbnails: PNGs of some of these, by their row in the batch.

    Returns:
        The answers that files had before, in the order of paths.
    """
    new = list(compress(batch.pages, is_new))
    files = list(_files(batch))
    ids = _observations(database, condition, files)

    def row_of(page: "SeenPage", is_deadly: bool, *seen: bytes | str | None) -> tuple[int | bytes | str | None, ...]:
        values = (page.number, page.width, page.height, *seen)
        return (ids[page.file.path], *values, page_checksum((bundle, page.sha256, *values)), is_deadly)

    rows = [
        row_of(page, False, row, ink, None, None)
        for page, row, ink in zip(new, _blobs(logits), _blobs(batch.ink[is_new]), strict=True)
    ]
    rows += [row_of(page, fault.is_deadly, None, None, fault.kind.value, fault.detail) for page, fault in batch.faults]
    database.executemany("INSERT OR IGNORE INTO pages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    pictures = [(ids[batch.pages[row].file.path], batch.pages[row].number, png) for row, png in thumbnails.items()]
    database.executemany("INSERT OR IGNORE INTO thumbnails VALUES (?, ?, ?)", pictures)
    return _assign_observations(database, files, ids)


def by_file(
    batch: "Batch", is_new: NDArray[np.bool_], logits: NDArray[np.float32], thumbnails: Mapping[int, bytes]
) -> Iterator[tuple["Batch", NDArray[np.bool_], NDArray[np.float32], dict[int, bytes]]]:
    """Take what is to be recorded to pieces, one a file."""
    paths = {file.path: None for file in batch.files()}
    place = np.cumsum(is_new) - 1  # of a new page among the logits
    for path in paths:
        rows = [row for row, page in enumerate(batch.pages) if page.file.path == path]
        pictures = {at: thumbnails[row] for at, row in enumerate(rows) if row in thumbnails}
        own = logits[[place[row] for row in rows if is_new[row]]]
        yield batch.without(paths.keys() - {path}), is_new[rows], own, pictures


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


def _observations(database: Database, condition: int, files: Sequence[_File]) -> dict[str, int]:
    """Find the observation of each file's bytes, or begin it; give its id by the file's path."""
    known = {
        (sha256, ending): found
        for sha256, ending, *found in _of_bytes(
            database, OBSERVATIONS_OF_BYTES, (sum for _, sum, _ in files), condition
        )
    }
    (last,) = database.execute("SELECT coalesce(max(id), 0) FROM observations").fetchone()
    ids, begun, stale = {}, [], []
    for file, sha256, pages in files:
        key = (sha256, file.ending)
        number, of, seen = known.get(key, (0, 0, 0))
        if number and pages not in (0, of) and of > seen:
            # What a killed run began, and a decoder that crashes now does not let come to its end.
            stale.append((number,))
            number = 0
        if not number:
            last = number = last + 1
            begun.append((number, *key, condition, pages))
            if sha256:
                known[key] = [number, pages, 0]
        ids[file.path] = number
    database.executemany(
        "INSERT INTO observations (id, sha256, ending, condition, pages) VALUES (?, ?, ?, ?, ?)", begun
    )
    database.executemany("UPDATE observations SET stale = 1 WHERE id = ?", stale)
    lately = sorted((sha256[:_KEY], number) for number, sha256, *_ in begun if sha256)
    database.executemany("INSERT INTO lately VALUES (?, ?)", lately)
    return ids


def _assign_observations(database: Database, files: Sequence[_File], ids: Mapping[str, int]) -> list[LostAnswer]:
    """Let the files whose observation has all its pages have it; give the answers that they lose by that."""
    rows: list[_Now] = [
        (encoded(file.path), file.size_bytes, file.mtime_ns, file.inode, file.ctime_ns, ids[file.path], sha256)
        for file, sha256, _ in files
    ]
    # A file of one page has it now, and an unchanged one had all before.
    waiting = _planned(database, [row for row, (_, _, pages) in zip(rows, files, strict=True) if pages > 1])
    database.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?)", waiting)
    finished: list[_Now] = database.execute(_WHOLE).fetchall()
    database.executemany("DELETE FROM waiting WHERE path = ?", [row[:1] for row in finished])
    whole = [row for row, (_, _, pages) in zip(rows, files, strict=True) if pages <= 1] + finished
    if _done(database, whole) < len(whole):  # what was in progress was found, and not deferred
        whole = _planned(database, whole)
    lost = _lost(database, whole)
    taken = [(path, *row, file_checksum(path, sha256)) for path, *row, sha256 in whole]
    database.executemany(_TAKE, taken)
    return lost


def _done(database: Database, rows: Sequence[_Now]) -> int:
    """Note that files are no longer in progress; return how many were."""
    paths = iter([path for path, *_ in rows])
    count = 0
    while some := list(islice(paths, _SOME)):
        count += database.execute(f"DELETE FROM in_hand WHERE path IN ({_places(some)})", some).rowcount
    return count


def _planned(database: Database, rows: Iterable[_Now]) -> list[_Now]:
    """Leave out files that were deferred meanwhile.

    Raises:
        StorageError: One was never found.
    """
    planned = []
    for row in rows:
        is_found, is_deferred = database.execute(_PLANNED, row[:1]).fetchone()
        if not is_found and not is_deferred:
            message = "A page was observed whose file was never planned; its row would be lost."
            raise StorageError(message)
        if not is_deferred:
            planned.append(row)
    return planned


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


def _files(batch: "Batch") -> Iterator[_File]:
    """Give each file of a batch once: the file, its sha256 and how many pages it has."""
    seen = {page.file.path: page for page in (*batch.pages, *(page for page, _ in batch.faults))}
    for page in seen.values():
        yield page.file, page.sha256, page.of
    for file in batch.unchanged:
        yield file, file.known_sha256, 0  # its observation is whole


def _blobs(matrix: NDArray[np.float32]) -> list[bytes]:
    """Spell the rows of a matrix as the ledger keeps them."""
    data, width = matrix.astype(FLOAT32).tobytes(), matrix.shape[1] * FLOAT32.itemsize
    return [data[at : at + width] for at in range(0, len(data), width)]


def _places(values: Sequence[object]) -> str:
    """Spell as many places for values as there are."""
    return ", ".join("?" * len(values))

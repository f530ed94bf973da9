"""Store people's answers in the ledger, and find the images that they answered, for training.

An answer belongs to bytes: to no path, model or run. What SQLite does not notice, their checksums and their number do.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from batchdigits.errors import escape_name
from batchdigits.ledger.database import Database, glimpse
from batchdigits.ledger.location import ledger_of
from batchdigits.ledger.schema import checksum
from batchdigits.records import NO_SUM
from batchdigits.storage.local import LocalFile

Key = tuple[str, int]  # the sha256 of a file's bytes, and the page from 1

_STORE = """
INSERT INTO answers (sha256, page, answer, time, source, sum) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET answer = excluded.answer, time = excluded.time, source = excluded.source, sum = excluded.sum
WHERE answer != excluded.answer
"""

_SEEN = "lower(hex(substr(seen, 1, 32)))"
_UNKNOWN = f"""
SELECT sha256, page FROM given EXCEPT SELECT {_SEEN}, page FROM pages EXCEPT SELECT sha256, page FROM answers
"""


def unknown(database: Database, keys: Collection[Key]) -> set[Key]:
    """Tell which pages the ledger has never seen; one that has an answer already is known."""
    with database.transaction() as execute:
        execute("CREATE TEMP TABLE given (sha256 TEXT, page INTEGER, PRIMARY KEY (sha256, page)) WITHOUT ROWID")
        database.executemany("INSERT INTO given VALUES (?, ?)", keys)
        found = set(execute(_UNKNOWN))
        execute("DROP TABLE given")
    return found


def replaced(database: Database, answers: Mapping[Key, str]) -> dict[Key, str]:
    """Give the answers that others would take the place of, by page."""
    found = {}
    with database.errors():
        for key, answer in answers.items():
            row = database.execute("SELECT answer FROM answers WHERE sha256 = ? AND page = ?", key).fetchone()
            if row and row[0] != answer:
                found[key] = row[0]
    return found


def store_answers(database: Database, answers: Mapping[Key, str], *, time: str, source: str) -> tuple[int, int]:
    """Store answers, all in one transaction; one that is there already stays as it is.

    Args:
        database: The ledger's, open.
        answers: `0` to `9`, `x`, or `c`, by page.
        time: When they were given, as a text.
        source: Where they come from.

    Returns:
        How many are new, and how many changed.

    Raises:
        StorageError: The ledger cannot be written.
    """
    rows = []
    for key, answer in answers.items():
        row = (*key, answer, time, source)
        rows.append((*row, checksum(*row)))
    with database.transaction() as execute:
        (before,) = execute("SELECT count(*) FROM answers").fetchone()
        written = database.executemany(_STORE, rows).rowcount if rows else 0
        (after,) = execute("SELECT count(*) FROM answers").fetchone()
        if written:
            execute("DELETE FROM rendered WHERE true")
        if after != before:
            execute("UPDATE answered SET answers = answers + ?", (after - before,))
    return after - before, written - (after - before)


def withdraw(database: Database, keys: Collection[Key]) -> int:
    """Take answers back; return how many there were.

    Raises:
        StorageError: The ledger cannot be written.
    """
    with database.transaction() as execute:
        found = database.executemany("DELETE FROM answers WHERE sha256 = ? AND page = ?", keys).rowcount if keys else 0
        if found:
            execute("DELETE FROM rendered WHERE true")
            execute("UPDATE answered SET answers = answers - ?", (found,))
    return found


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that the ledger knows."""

    path: str
    """Absolute, as reports spell names."""
    sha256: str
    """Of its bytes; empty where they could not be read."""
    pages: int
    """How many it has."""


def files_named(database: Database, names: Collection[str]) -> dict[str, list[KnownFile]]:
    """Find files by the name that a person gives, which may lack folders at its beginning.

    Args:
        database: The ledger's, open.
        names: As reports spell them, `/` between parts.

    Returns:
        By each name that fits any: where it is the whole path below a source of a report, that file; else all that end
        in it.
    """
    wanted: dict[str, list[str]] = defaultdict(list)
    for name in names:
        wanted[name.rpartition("/")[2]].append(name)
    fitting: dict[str, list[KnownFile]] = defaultdict(list)
    with database.errors():
        published = database.execute("SELECT path, sha256, sources, sum FROM reports").fetchall()
        if any(row_sum != checksum(*row) for *row, row_sum in published):
            raise database.damaged()
        sources = {f"{escape_name(source)}/" for *_, listed, _ in published for source in json.loads(listed)}
        for path, sha256, pages in database.execute(_FILES):
            of_bytes = "" if sha256 == NO_SUM else sha256
            file = KnownFile(escape_name(path.decode(errors="surrogateescape")), of_bytes, pages)
            for name in wanted.get(file.path.rpartition("/")[2], ()):
                if f"/{file.path}".endswith(f"/{name}"):
                    fitting[name].append(file)
    exact = {
        name: [file for file in files if file.path == name or file.path.removesuffix(name) in sources]
        for name, files in fitting.items()
    }
    return {name: exact[name] or files for name, files in fitting.items()}


_FILES = f"SELECT path, {_SEEN}, pages FROM pages WHERE page = 1 ORDER BY path"


def check(database: Database) -> int:
    """Check that all answers are there, as they were stored; count them.

    Raises:
        StorageError: The ledger is damaged.
    """
    with database.errors():
        count, last = 0, ("", 0)
        for *row, row_sum in database.execute("SELECT * FROM answers ORDER BY sha256, page"):
            if row_sum != checksum(*row) or (row[0], row[1]) <= last:  # out of order, one would not be found
                raise database.damaged()
            count, last = count + 1, (row[0], row[1])
        if database.execute("SELECT answers FROM answered").fetchall() != [(count,)]:
            raise database.damaged()
    return count


_ANSWERED = f"""
SELECT pages.path, answers.page, sha256, answer
FROM answers JOIN pages ON pages.page = answers.page AND {_SEEN} = sha256
ORDER BY 1, 2
"""
_ANSWERED_BEFORE = """
SELECT files.path, answers.page, answers.sha256, answers.answer
FROM answers JOIN observations USING (sha256) JOIN files ON files.observation = observations.id
ORDER BY files.path, answers.page
"""  # of ledgers before version 9


@dataclass(frozen=True, slots=True)
class Answered:
    """A page that somebody answered."""

    path: str
    """A file that holds the image, absolute."""
    page: int
    """From 1."""
    sha256: str
    """Of the bytes that the answer is about."""
    answer: str
    """`0` to `9`, `x` for no digit, or `c` where nobody can tell."""


def has_answers(report: Path) -> bool:
    """Tell whether a file is a report whose ledger is in its folder."""
    return report.is_file() and ledger_of(LocalFile(report)).is_file()


def answered(report: Path) -> list[Answered]:
    """Read the answers of a report's ledger, in the order of paths, without waiting for a run that may hold it.

    Of copies of an image one is given, and one that is still there if there is any: the scans may have been moved.
    """
    ledger = ledger_of(LocalFile(report))
    rows = glimpse(ledger, _ANSWERED) or glimpse(ledger, _ANSWERED_BEFORE)
    found: dict[Key, Answered] = {}
    for path, page, sha256, text in rows:
        if list(map(type, (path, page, sha256, text))) != [bytes, int, str, str]:
            continue  # it is damaged
        one = Answered(path.decode(errors="surrogateescape"), page, sha256, text)
        first = found.setdefault((sha256, page), one)
        if first is not one and not Path(first.path).is_file():
            found[sha256, page] = one
    return sorted(found.values(), key=lambda one: (one.path, one.page))

"""The ledger's file: it appears whole, older ones are led to this version, damaged ones are refused."""

import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits.errors import Fault, FaultKind, StorageError
from batchdigits.ledger import schema as module
from batchdigits.ledger.database import Database
from batchdigits.ledger.ledger import CacheKey
from batchdigits.ledger.plan import Why
from batchdigits.ledger.schema import SCHEMA_VERSION, checksum
from batchdigits.records import NEVER, ImageFile
from batchdigits.storage.local import LocalFile
from tests.cli_runner import CHECKOUT, run
from tests.file_states import disk_of, names
from tests.ledger.test_ledger import HERE, a_run, image, ledger_at, seen, seen_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.csv.ledger"


def schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return sorted(database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


OLD_FILES = (image("a.png"), image("b.png"), image("far", path="s3://far/c.png", inode=0, ending=""))


def made_by_version(version: int, path: Path, files: Sequence[ImageFile] = OLD_FILES) -> None:
    """Make a ledger as an older version of this program did: what it knew of files, the first of which has two pages.

    The second page is faulty; somebody has answered the first, and it has a picture.
    """
    with closing(sqlite3.connect(path)) as database:
        for statements in module._MIGRATIONS[:version]:
            database.executescript(statements)
        database.execute("INSERT INTO conditions VALUES (1, ?, ?)", (HERE.bundle, HERE.others))
        for number, file in enumerate(files, 1):
            sha256, logits = seen(file).sha256, np.full(10, number, "<f4").tobytes()
            pages: list[tuple[Any, ...]] = [(1, 28, 30, logits, np.full(4, number, "<f4").tobytes(), None, None)]
            if number == 1:
                pages.append((2, 2**32 - 1, None, None, None, "unreadable", "it is cut"))
            select = "INSERT INTO observations (id, sha256, ending, condition, pages) VALUES (?, ?, ?, 1, ?)"
            database.execute(select, (number, sha256, file.ending, len(pages)))
            select = "INSERT INTO pages (observation, page, width, height, logits, ink, fault, detail, sum) "
            rows = [(number, *page, checksum(HERE.bundle, sha256, *page)) for page in pages]
            database.executemany(f"{select} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            known = (bytes(file.path, "utf-8"), file.size_bytes, file.mtime_ns, number)
            select = "INSERT INTO files (path, size_bytes, mtime_ns, observation, sum) VALUES (?, ?, ?, ?, ?)"
            database.execute(select, (*known, checksum(known[0], sha256)))
        if version >= 2:
            row = (seen(files[0]).sha256, 1, "7", "then", "a test")
            database.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
            database.execute("UPDATE answered SET answers = 1")
            database.execute("INSERT INTO reports VALUES (?, ?, ?)", (b"/r.csv", "12" * 32, '["/scans"]'))
        if version >= 4:
            database.execute("INSERT INTO thumbnails VALUES (1, 1, ?)", (b"a picture",))
        if version >= 6:
            database.execute("UPDATE files SET inode = 9 * (substr(path, 1, 1) = x'2f'), ctime_ns = 0")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()


DIE_HALFWAY = """
import os, sqlite3, sys

database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that what is not committed reaches the file
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE pages SET size_bytes = 99, path = path || zeroblob(9000)")
os._exit(0)
"""


def leave_a_hot_journal(path: Path) -> None:
    """Leave a ledger as a run does that is killed in the midst of a transaction."""
    subprocess.run([sys.executable, "-c", DIE_HALFWAY, path], check=True)
    assert Path(f"{path}-journal").exists()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_ledger_is_led_to_this_version_and_keeps_what_it_knows(path: Path, version: int) -> None:
    made_by_version(version, path)
    with ledger_at(path) as ledger:
        plan = ledger.plan(OLD_FILES)
        assert plan.pending == ({} if version >= 6 else {Why.CHANGED: 2})  # whose inodes nobody knew
        (rows,) = ledger.observations(thumbnails=True)
        assert list(zip(rows.names, rows.pages, strict=True)) == [("a.png", 1), ("a.png", 2), ("b.png", 1), ("far", 1)]
        assert rows.sha256 == [seen(file).sha256 for file in (OLD_FILES[0], *OLD_FILES)]
        assert (rows.widths.tolist(), rows.heights.tolist()) == ([28, 0, 28, 28], [30, 0, 30, 30])
        assert rows.logits.tolist() == [[number] * 10 + [NEVER] * 2 for number in (1, 2, 3)]
        assert rows.ink.tolist() == [[number] * 4 + [0] * 4 for number in (1, 2, 3)]
        assert rows.faults == [None, Fault(FaultKind.UNREADABLE, "it is cut"), None, None]
        assert rows.corrected == ["7" if version >= 2 else "", "", "", ""]
        assert rows.thumbnails == [b"a picture" if version >= 4 else b"", b"", b"", b""]
        assert rows.models == [HERE.bundle] * 4
        published = ledger.published(LocalFile(Path("/r.csv")))
        assert published == ({"12" * 32: ("/scans",)} if version >= 2 else {})
    a_run(path.with_name("new"), OLD_FILES)
    assert schema(path) == schema(path.with_name("new"))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pages SET logits = zeroblob(40) WHERE observation = 2",
        "UPDATE pages SET detail = 'all is well' WHERE page = 2",
        "UPDATE pages SET page = 9223372036854775807 WHERE page = 2",
        "UPDATE observations SET sha256 = 'no sum' WHERE id = 2",
        "UPDATE observations SET pages = 2 WHERE id = 2",
        "UPDATE files SET path = '/folder/c.png' WHERE observation = 2",
        "DELETE FROM observations WHERE id = 2",
        "DELETE FROM conditions",
        "DELETE FROM pages WHERE page = 2",
    ],
)
def test_damage_in_an_older_ledger_is_told_and_the_ledger_stays(path: Path, damage: str) -> None:
    made_by_version(8, path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(damage)
        database.commit()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="is damaged; move it away"), ledger_at(path):
        pass
    assert path.read_bytes() == before


MIGRATE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from batchdigits.ledger import database, schema

migrate, stored = schema.migrate, schema.stored
moment, schema._AT_A_TIME = sys.argv[2], 100
calls = []

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def stored_or_dead(*rows):
    calls.append(rows)
    return die() if len(calls) == 15 else stored(*rows)

def migrated(connection, version):
    connection.execute("PRAGMA cache_size = 2")  # so that what is not committed reaches the file
    migrate(connection, version)
    die()

database.migrate = migrated
if moment != "done":
    setattr(schema, moment, stored_or_dead if moment == "stored" else die)
with database.Database(Path(sys.argv[1])):
    pass
"""


@pytest.mark.parametrize("moment", ["_move", "_records", "stored", "done"])
def test_a_migration_that_is_killed_leaves_the_older_ledger_and_the_next_run_goes_on(path: Path, moment: str) -> None:
    files = [image(f"{number:04}.png") for number in range(2000)]
    made_by_version(8, path, files)
    killed = subprocess.run([sys.executable, "-c", MIGRATE_AND_DIE, path, moment], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    with ledger_at(path) as ledger:
        assert not ledger.plan(files).pending
        (rows,) = ledger.observations()
        assert (len(rows.names), rows.corrected[0]) == (2001, "7")


def test_a_migration_that_fails_leaves_the_older_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by_version(1, path)
    before = schema(path)
    monkeypatch.setattr(module, "_MIGRATIONS", (module._OBSERVATIONS, module._RUNS + "CREATE TABLE files (again);\n"))
    with pytest.raises(StorageError), Database(path):
        pass
    assert schema(path) == before
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


@pytest.mark.parametrize("number", [2**31, 2**63 - 1, -(2**63)])
def test_an_absurd_number_is_damage(path: Path, number: int) -> None:
    a_run(path, [image("a.png")])
    with closing(sqlite3.connect(path)) as database:
        [(bundle, others)] = database.execute("SELECT bundle, others FROM conditions")
        database.execute("UPDATE conditions SET id = ?, sum = ?", (number, checksum(number, bundle, others)))
        database.execute("UPDATE pages SET condition = ?", (number,))
        database.commit()
    for key in (HERE, CacheKey(bundle="cd" * 32, others="decoding 2")):
        with pytest.raises(StorageError, match="is damaged; move it away"), ledger_at(path, key):
            pass


def test_an_empty_file_is_no_new_ledger_but_a_damaged_one(path: Path) -> None:
    path.touch()
    with pytest.raises(StorageError, match=r"is damaged; move it away"), Database(path):
        pass
    assert path.stat().st_size == 0


def test_a_ledger_that_cannot_be_made_leaves_nothing(path: Path) -> None:
    with disk_of(4096), pytest.raises(StorageError, match="the disk is full"), Database(path):
        pass
    assert names(path.parent) == []


def test_a_disk_that_is_full_is_what_the_message_says_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    a_run(path, [image("a.png")])
    files = [image(f"{number:04}.png") for number in range(400)]
    with disk_of(path.stat().st_size + 4096), pytest.raises(StorageError, match="full|disk I/O error"):
        a_run(path, files)
    assert a_run(path, files) == (400, 400)


def test_a_version_that_never_was_is_damage(path: Path) -> None:
    a_run(path, [image("a.png")])
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = -5")
    with pytest.raises(StorageError, match="is damaged; move it away"), ledger_at(path):
        pass


def test_text_that_is_not_utf_8_is_damage(path: Path) -> None:
    a_run(path, [image("a.png")])
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE pages SET detail = CAST(x'ff' AS TEXT)")
        database.commit()
    with ledger_at(path) as ledger:
        ledger.plan([image("a.png")])
        with pytest.raises(StorageError, match="is damaged; move it away"):
            list(ledger.observations())


def test_a_journal_of_a_ledger_that_was_moved_away_is_not_applied_to_the_new_one(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    leave_a_hot_journal(path)
    path.unlink()
    assert a_run(path, files) == (2, 2)
    assert seen_in(path, files) is not None
    assert names(path.parent) == ["report.csv.ledger"]


def test_what_a_killed_run_had_half_written_is_taken_back(path: Path) -> None:
    files = [image("a.png"), image("b.png")]
    a_run(path, files)
    leave_a_hot_journal(path)
    assert a_run(path, files) == (0, 0)
    assert names(path.parent) == ["report.csv.ledger"]


def test_a_new_ledger_in_which_nothing_was_kept_goes(path: Path) -> None:
    with ledger_at(path) as ledger:
        ledger.plan([image("a.png")])
    assert names(path.parent) == []


def test_a_new_ledger_is_its_owners_alone_and_keeps_the_mode_that_a_person_gives_it(path: Path) -> None:
    a_run(path, [image("a.png")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o664)
    a_run(path, [image("a.png"), image("b.png")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


PIPED = """
import os, sys
from pathlib import Path
from batchdigits.ledger.database import Database

with Database(Path(sys.argv[1])) as database:
    os.mkfifo(sys.argv[1] + "-journal")
    with database.transaction():
        pass
"""


def test_a_pipe_at_the_journals_name_is_not_waited_for_while_the_ledger_is_open(path: Path) -> None:
    result = run([sys.executable, "-c", PIPED, path], cwd=CHECKOUT)  # SQLite could not be interrupted here
    assert "-journal is no file, as a ledger needs; remove it" in result.stderr
    Path(f"{path}-journal").unlink()
    with Database(path) as database, database.transaction():
        pass


def test_what_is_recorded_survives_a_loss_of_power(path: Path) -> None:
    """The folder is brought to the disk when a journal has gone from it, which nothing less than EXTRA does."""
    with Database(path) as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (3,)


def test_a_transaction_within_another_is_kept_with_that_or_not_at_all(path: Path) -> None:
    insert = "INSERT INTO told VALUES (?, 1, 1)"

    def keep_and_fail(database: Database) -> None:
        with database.transaction():
            with database.transaction() as execute:
                execute(insert, (b"/lost",))
            message = "an end"
            raise ValueError(message)

    with Database(path) as database:
        with pytest.raises(ValueError, match="an end"):
            keep_and_fail(database)
        with database.transaction(), database.transaction() as execute:
            execute(insert, (b"/kept",))
        assert database.execute("SELECT path FROM told").fetchall() == [(b"/kept",)]

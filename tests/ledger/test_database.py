"""The ledger's file: it appears whole, older ones are led to this version, damaged ones are refused."""

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batchdigits.errors import StorageError
from batchdigits.ledger import database as module
from batchdigits.ledger.database import SCHEMA_VERSION, Database
from tests.file_states import disk_of, names
from tests.ledger.test_ledger import a_run, batch_of, image, ledger_at, record, seen, seen_in


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "report.csv.ledger"


def schema(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as database:
        return sorted(database.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def made_by_version(version: int, path: Path) -> None:
    """Make a ledger as an older version of this program did, with what it knew of three files, one of them far."""
    newer = path.with_name("newer")
    a_run(newer, [image("a.png"), image("b.png"), image("far", path="s3://far/c.png", inode=0)])
    with closing(sqlite3.connect(path)) as database:
        for statements in module._MIGRATIONS[:version]:
            database.executescript(statements)
        database.execute("ATTACH ? AS newer", (str(newer),))
        select = (
            "SELECT name FROM main.sqlite_master WHERE type = 'table' INTERSECT SELECT name FROM newer.sqlite_master"
        )
        for (table,) in database.execute(select).fetchall():
            columns = ", ".join(name for _, name, *_ in database.execute(f"PRAGMA main.table_info({table})"))
            database.execute(f"DELETE FROM main.{table}")
            database.execute(f"INSERT INTO main.{table} SELECT {columns} FROM newer.{table}")
        database.execute(f"PRAGMA user_version = {version}")
        database.commit()
    newer.unlink()


DIE_HALFWAY = """
import os, sqlite3, sys

database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")  # so that what is not committed reaches the file
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE files SET size_bytes = 99, path = path || zeroblob(9000)")
os._exit(0)
"""


def leave_a_hot_journal(path: Path) -> None:
    """Leave a ledger as a run does that is killed in the midst of a transaction."""
    subprocess.run([sys.executable, "-c", DIE_HALFWAY, path], check=True)
    assert Path(f"{path}-journal").exists()


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_an_older_ledger_is_led_to_this_version_and_keeps_what_it_knows(path: Path, version: int) -> None:
    made_by_version(version, path)
    files = [image("a.png"), image("b.png"), image("far", path="s3://far/c.png", inode=0)]
    assert a_run(path, files) == (0 if version >= 6 else 2, 0)  # whose inodes nobody knew
    assert a_run(path, files) == (0, 0)
    with ledger_at(path) as ledger:  # bytes are found under other names
        ledger.plan([image("c.png")])
        assert record(ledger, batch_of([seen(image("c.png"), sha256=seen(files[0]).sha256)])) == 0
    a_run(path.with_name("new"), files)
    assert schema(path) == schema(path.with_name("new"))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_migration_that_fails_leaves_the_older_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_by_version(1, path)
    before = schema(path)
    monkeypatch.setattr(module, "_MIGRATIONS", (module._OBSERVATIONS, module._RUNS + "CREATE TABLE files (again);\n"))
    with pytest.raises(StorageError), Database(path):
        pass
    assert schema(path) == before
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)


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
        database.execute("UPDATE observations SET sha256 = CAST(x'ff' || sha256 AS TEXT)")
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


def test_what_is_recorded_survives_a_loss_of_power(path: Path) -> None:
    """The folder is brought to the disk when a journal has gone from it, which nothing less than EXTRA does."""
    with Database(path) as database:
        assert database.execute("PRAGMA synchronous").fetchone() == (3,)

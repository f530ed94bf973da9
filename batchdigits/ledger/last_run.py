"""Keep how a ledger's reports were made last, so that they can be made again from what it holds.

One row in a table that is made when the first run is kept: ledgers of the same version may lack it.
"""

from pathlib import Path

from batchdigits.ledger.database import Database, checksum, glimpse

_TABLE = "CREATE TABLE IF NOT EXISTS last_run (settings TEXT NOT NULL, sum INTEGER NOT NULL)"
_SELECT = "SELECT settings, sum FROM last_run"


def keep(database: Database, settings: str) -> None:
    """Keep the settings of a run in the place of those before; the same ones write nothing.

    Raises:
        StorageError: The ledger cannot be written.
    """
    with database.errors():
        is_there = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'last_run'").fetchone()
        if is_there and database.execute(_SELECT).fetchall() == [(settings, checksum(settings))]:
            return
    with database.transaction() as execute:
        execute(_TABLE)
        execute("DELETE FROM last_run")
        execute("INSERT INTO last_run VALUES (?, ?)", (settings, checksum(settings)))


def recall(ledger: Path) -> str:
    """Give the settings of the last run; empty where none is kept, or a damaged one."""
    rows = glimpse(ledger, _SELECT)
    return next((settings for settings, row_sum in rows if row_sum == checksum(settings)), "")

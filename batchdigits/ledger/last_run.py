"""What a ledger's last run left: how its reports were made, what they did not show, and which disks lay under it.

By the first, reports can be made again from what the ledger holds; by the others, files that are gone at once, as with
a disk that is not mounted, are told from those that people delete.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchdigits.errors import StorageError, escaped
from batchdigits.ledger.database import Database, checksum, glimpse
from batchdigits.ledger.plan import Plan, Why, encoded
from batchdigits.settings import STDOUT, CsvDialect, DecodingSettings, PredictSettings, ReportSettings, Runtime
from batchdigits.storage.urls import span

# One row, in a table that is made when the first run is kept: ledgers of the same version may lack it.
_TABLE = "CREATE TABLE IF NOT EXISTS last_run (settings TEXT NOT NULL, sum INTEGER NOT NULL)"
_SELECT = "SELECT settings, sum FROM last_run"

_MOST = 100  # files that may go at once, whatever share they are
_SHARE = 10  # a tenth of what the last report showed is many
_REMEDY = "if that is how it should be, give --allow-vanished. Reports stay as they are."

_BELOW = "path > ? AND path < ?"
_COUNT = f"SELECT count(*) FROM {{}} WHERE {_BELOW}"
_NOT_FOUND = f"SELECT path FROM files WHERE {_BELOW} AND path NOT IN (SELECT path FROM found)"
_LEFT = f"SELECT 1 FROM files WHERE {_BELOW} AND path IN (SELECT path FROM found) LIMIT 1"

_NEW = f"(SELECT path FROM pending WHERE why = '{Why.NEW}')"

_Span = tuple[bytes, bytes]  # between which the paths of all in a folder stand


_KEPT = (
    *("sources", "outputs", "include", "exclude", "allow_empty", "allow_vanished"),
    *("target_error", "threshold", "no_adapt", "threads"),
)


def spelled(settings: PredictSettings, model_id: str) -> str:
    """Spell what the rows of a run's reports depend on, beside the ledger."""
    return json.dumps(
        {
            **{name: getattr(settings, name) for name in _KEPT},
            **{"folder": _working_folder(), "model": settings.model and str(settings.model), "model_id": model_id},
            **{"outputs": [output for output in settings.outputs if output != STDOUT]},
            **{"runtime": settings.runtime, "max_pixels": settings.decoding.max_pixels},
            **{"probabilities": settings.report.probabilities, "csv_dialect": settings.report.csv_dialect},
        }
    )


def _working_folder() -> str:
    """Give the folder in which names of the run begin; empty where it is gone, and all names are absolute."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return ""


def parsed(text: str) -> tuple[PredictSettings, str]:
    """Read what `spelled` spells: the settings, and the id of the model."""
    kept: dict[str, Any] = json.loads(text)
    alike: dict[str, Any] = {name: tuple(kept[name]) if isinstance(kept[name], list) else kept[name] for name in _KEPT}
    settings = PredictSettings(
        **alike,
        model=kept["model"] and Path(kept["model"]),
        runtime=Runtime(kept["runtime"]),
        decoding=DecodingSettings(max_pixels=kept["max_pixels"]),
        report=ReportSettings(kept["probabilities"], CsvDialect(kept["csv_dialect"])),
    )
    return settings, kept["model_id"]


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


def check(plan: Plan, disks: Mapping[str, str]) -> None:
    """Refuse to go on where many files, or those of a disk, are gone since the last report.

    Args:
        plan: Of the run.
        disks: What lies under its sources, as `mounts.disks_under` names it.

    Raises:
        StorageError: They are.
    """
    database, spans = plan.database, _spans(disks)
    before = _remembered(database, spans)  # nothing, of an older version of this program
    shown = _count(database, "files", spans) - _count(database, "gone", spans)
    if not before or shown <= _count(database, "found", spans) - _count(database, _NEW, spans):
        return
    gone = [path for one in spans for path in _gone(database, one)]
    for folder, disk in before.items():
        here = _span(folder)
        lost = sum(here[0] < path < here[1] for path in gone)
        is_other = disks.get(folder) != disk
        if lost and is_other and (folder not in disks or not database.execute(_LEFT, here).fetchone()):
            message = (
                f"{_files(lost)} of the last report are gone from {escaped(folder)}, and the disk that was mounted "
                f"there is not there any more; mount it, or {_REMEDY}"
            )
            raise StorageError(message)
    if len(gone) > _MOST and len(gone) * _SHARE >= shown:
        first = escaped(min(gone).decode(errors="surrogateescape"))
        message = (
            f"{_files(len(gone))} of the {shown:,} in the last report are gone at once, such as {first}; check that "
            f"all disks and shares are mounted, or {_REMEDY}"
        )
        raise StorageError(message)


def remember(plan: Plan, disks: Mapping[str, str]) -> None:
    """Note which known files a report that was published did not show, and the disks under its sources."""
    database, spans = plan.database, _spans(disks)
    with database.transaction() as execute:
        before = _remembered(database, spans)
        if before != disks:
            database.executemany("DELETE FROM mounted WHERE folder = ?", [(encoded(folder),) for folder in before])
            rows = [(encoded(folder), disk) for folder, disk in disks.items()]
            database.executemany("INSERT INTO mounted VALUES (?, ?)", rows)
        shown = _count(database, "files", spans) - _count(database, "gone", spans)
        if shown != _count(database, "found", spans):
            execute("DELETE FROM gone WHERE path IN (SELECT path FROM found)")
            for one in spans:
                execute(f"INSERT OR IGNORE INTO gone {_NOT_FOUND}", one)


def _spans(folders: Mapping[str, str]) -> list[_Span]:
    """Give the outermost of some folders, so that each file stands in one of them."""
    outermost: list[_Span] = []
    for here in sorted(map(_span, folders)):
        if not (outermost and here[0] < outermost[-1][1]):
            outermost.append(here)
    return outermost


def _span(folder: str) -> _Span:
    beginning = encoded(span(folder)[0])
    return beginning, beginning[:-1] + b"0"  # the byte after the slash, in which it ends


def _remembered(database: Database, spans: list[_Span]) -> dict[str, str]:
    """Give the disks under the last report of these sources, by the folder."""
    with database.errors():
        rows = database.execute("SELECT folder, disk FROM mounted").fetchall()
    if not all(isinstance(folder, bytes) and isinstance(disk, str) for folder, disk in rows):
        raise database.damaged()
    return {
        folder.decode(errors="surrogateescape"): disk
        for folder, disk in rows
        if any(start <= folder.rstrip(b"/") + b"/" < stop for start, stop in spans)
    }


def _count(database: Database, table: str, spans: list[_Span]) -> int:
    """Count the paths of a table that stand in folders."""
    with database.errors():
        return sum(int(database.execute(_COUNT.format(table), here).fetchone()[0]) for here in spans)


def _gone(database: Database, here: _Span) -> list[bytes]:
    """Give the files of a folder that the last report showed, and that are not there any more."""
    with database.errors():
        rows = database.execute(f"{_NOT_FOUND} AND path NOT IN (SELECT path FROM gone)", here)
        return [path for (path,) in rows if not os.path.lexists(path)]


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"

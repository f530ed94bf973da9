"""What a ledger's last run left: how its reports were made, what they did not show, and which disks lay under it.

By the first, reports can be made again from what the ledger holds; by the others, files that are gone at once, as with
a disk that is not mounted, are told from those that people delete.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchdigits.errors import StorageError, escaped
from batchdigits.ledger.database import Database, glimpse
from batchdigits.ledger.plan import Plan
from batchdigits.ledger.schema import checksum
from batchdigits.settings import STDOUT, CsvDialect, DecodingSettings, PredictSettings, ReportSettings, Runtime
from batchdigits.storage.urls import encoded, span

_SELECT = "SELECT settings, sum FROM last_run"

_MOST = 100  # files that may go at once, whatever share they are
_SHARE = 10  # a tenth of what the last report showed is many
_REMEDY = "if that is how it should be, give --allow-vanished. Reports stay as they are."

_BELOW = "path > ? AND path < ?"
_KNOWN = "SELECT count(*) FROM pages WHERE page = 1"

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
        if database.execute(_SELECT).fetchall() == [(settings, checksum(settings))]:
            return
    with database.transaction() as execute:
        execute("DELETE FROM last_run")
        execute("INSERT INTO last_run VALUES (?, ?)", (settings, checksum(settings)))


@dataclass(frozen=True, slots=True)
class Rendered:
    """What the reports of a run are known by, so that a run which would make the same ones need not."""

    key: str
    """Sums up what they follow from, beside what is observed and answered."""
    marks: str
    """How the file system knows them: JSON."""
    summary: str
    """Of what is in them: JSON."""


def keep_rendered(database: Database, rendered: Rendered) -> None:
    """Keep it until `record` or an answer removes it.

    Raises:
        StorageError: The ledger cannot be written.
    """
    row = (rendered.key, rendered.marks, rendered.summary)
    with database.transaction() as execute:
        execute("DELETE FROM rendered WHERE true")
        execute("INSERT INTO rendered VALUES (?, ?, ?, ?)", (*row, checksum(*row)))


def rendered(database: Database) -> Rendered | None:
    """Give what is kept; None where nothing is, or a damaged one."""
    with database.errors():
        rows = database.execute("SELECT key, marks, summary, sum FROM rendered").fetchall()
    return next((Rendered(*row) for *row, row_sum in rows if row_sum == checksum(*row)), None)


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
    missing = _without(_within(plan.missing, spans), _gone(database, spans)) if before else ()
    gone = [path for path in missing if not os.path.lexists(path)]
    if not gone:
        return
    for folder, disk in before.items():
        here = _span(folder)
        lost = sum(here[0] < path < here[1] for path in gone)
        is_other = disks.get(folder) != disk
        if lost and is_other and (folder not in disks or not _is_left(plan, here)):
            message = (
                f"{_files(lost)} of the last report are gone from {escaped(folder)}, and the disk that was mounted "
                f"there is not there any more; mount it, or {_REMEDY}"
            )
            raise StorageError(message)
    known = sum(database.execute(f"{_KNOWN} AND {_BELOW}", here).fetchone()[0] for here in spans)
    shown = known - sum(1 for _ in _gone(database, spans))
    if len(gone) > _MOST and len(gone) * _SHARE >= shown:
        first = escaped(gone[0].decode(errors="surrogateescape"))
        message = (
            f"{_files(len(gone))} of the {shown:,} in the last report are gone at once, such as {first}; check that "
            f"all disks and shares are mounted, or {_REMEDY}"
        )
        raise StorageError(message)


def remember(plan: Plan, disks: Mapping[str, str]) -> None:
    """Note which known files a report that was published did not show, and the disks under its sources."""
    database, spans = plan.database, _spans(disks)
    with database.transaction():
        before = _remembered(database, spans)
        if before != disks:
            database.executemany("DELETE FROM mounted WHERE folder = ?", [(encoded(folder),) for folder in before])
            rows = [(encoded(folder), disk) for folder, disk in disks.items()]
            database.executemany("INSERT INTO mounted VALUES (?, ?)", rows)
        new = list(_without(_within(plan.missing, spans), _gone(database, spans)))
        found = list(_without(_gone(database, spans), _within(plan.missing, spans)))
        database.executemany("DELETE FROM gone WHERE path = ?", [(path,) for path in found])
        database.executemany("INSERT INTO gone VALUES (?)", [(path,) for path in new])


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


def _gone(database: Database, spans: list[_Span]) -> Iterator[bytes]:
    """Give the paths that the last report of these folders did not show, in order."""
    with database.errors():
        rows = database.execute("SELECT CAST(path AS BLOB) FROM gone ORDER BY path")
        yield from _within((path for (path,) in rows), spans)


def _within(paths: Iterable[bytes], spans: list[_Span]) -> Iterator[bytes]:
    """Keep the paths that stand in folders."""
    return (path for path in paths if any(start < path < stop for start, stop in spans))


def _without(paths: Iterable[bytes], others: Iterator[bytes]) -> Iterator[bytes]:
    """Leave others out of some paths; both are in order."""
    other = next(others, None)
    for path in paths:
        while other is not None and other < path:
            other = next(others, None)
        if path != other:
            yield path


def _is_left(plan: Plan, here: _Span) -> bool:
    """Tell whether a file of a folder that the ledger knows is still there."""
    select = "SELECT 1 FROM pages WHERE path = ?"
    return any(plan.database.execute(select, (path,)).fetchone() for path in plan.between(*here))


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"

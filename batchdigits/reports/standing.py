"""Tell whether the reports that stand there would be made just so again, and what is in them.

A run that finds nothing new ends with that: neither is the ledger read for its pages, nor a report written.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path

import batchdigits
from batchdigits.errors import StorageError
from batchdigits.inference.trust import Trust
from batchdigits.ledger.last_run import Rendered
from batchdigits.ledger.ledger import Ledger
from batchdigits.reports.publish import Outputs
from batchdigits.reports.rows import Tally
from batchdigits.storage.local import file_sha256

_SOURCES = (".py", ".html", ".css", ".js")  # of this program


def kept(ledger: Ledger, outputs: Outputs, follow_from: Sequence[str]) -> tuple[Tally, Trust] | None:
    """Give what is in the reports that stand there, and how far it can be trusted; None where they have to be made.

    Args:
        ledger: The run's.
        outputs: The reports.
        follow_from: All that decides what is in them, beside what the ledger has observed and people answered.
    """
    before, now = ledger.rendered(), _known_by(outputs, follow_from)
    if not (before and now and (before.key, before.marks) == now):
        return None
    try:
        summary = json.loads(before.summary)
        return Tally.parsed(summary["tally"]), Trust.parsed(summary["trust"])
    except (KeyError, TypeError, ValueError):  # another version kept it
        return None


def keep(ledger: Ledger, outputs: Outputs, follow_from: Sequence[str], tally: Tally, trust: Trust) -> None:
    """Keep what is in the reports that were published, for `kept`; not where somebody has edited one since."""
    now = _known_by(outputs, follow_from)
    with suppress(StorageError):  # one is gone again
        targets = [report.target for report in outputs.files]
        if now and all(file_sha256(file.here) in ledger.published(file) for file in targets):
            ledger.keep_rendered(Rendered(*now, json.dumps({"tally": tally.spelled(), "trust": asdict(trust)})))


def _known_by(outputs: Outputs, follow_from: Sequence[str]) -> tuple[str, str] | None:
    """Say what reports follow from, and how the file system knows them; None where nobody could tell later."""
    marks = []
    for report in outputs.files:
        with suppress(OSError):
            if not report.is_remote:
                status = report.target.here.stat()
                marks.append([status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns])
    if outputs.to_stdout or not marks or len(marks) != len(outputs.files):
        return None
    return json.dumps([_program(), *follow_from]), json.dumps(marks)


@cache
def _program() -> str:
    """Sum up this program: its version and, since people work on it, the size and the time of each of its files."""
    found = []
    for folder, _, names in os.walk(Path(batchdigits.__file__).parent):
        for name in names:
            if name.endswith(_SOURCES):
                status = os.stat(f"{folder}/{name}")  # noqa: PTH116  (a Path takes as long again)
                found.append((folder, name, status.st_size, status.st_mtime_ns))
    return hashlib.sha256(f"{batchdigits.__version__} {sorted(found)}".encode()).hexdigest()

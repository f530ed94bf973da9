"""Any folder of images through the whole program, twice: read, ledger and reports of all formats.

`python -m tests.benchmarks.twice FOLDER` reads other people's images, such as icon themes or the test images of
libraries, and checks what is promised of every file: a row a page, as Pillow and `tifffile` (which is no dependency of
the project) count them; no traceback; a documented exit code; and a second run that leaves the reports untouched.
"""

import csv
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from pyarrow import parquet

from batchdigits.errors import ExitCode, escape_name
from batchdigits.reports.formats.csv import unguard
from batchdigits.sources.rules import FIRST_BYTES, FOUND_ENDINGS, is_hidden, is_image
from batchdigits.storage.urls import ending_of
from tests.file_states import written

PROGRAM = [str(Path(sys.executable).with_name("batchdigits"))]
STANDIN = [sys.executable, "-m", "tests.fake_model_cli"]
"""The program with stand-ins for its networks, which starts in a second."""
REPORTS = ("report.csv", "report.parquet", "report.xlsx", "report.html")
_REDUCED_OR_MASK = 1 | 4  # of a TIFF's NewSubfileType: no page of its own
_MOST_SECONDS = 3_600
_COUNT_SECONDS = 5


@dataclass(slots=True)
class Found:
    """What two runs over a folder said."""

    files: int = 0
    """Files that have rows."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of both runs."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Rows, by status."""
    details: Counter[str] = field(default_factory=Counter)
    """Rows with a fault, by what is said of them but for numbers."""
    seconds: float = 0.0
    """Of the first run."""
    trouble: list[str] = field(default_factory=list)
    """Broken promises, a line each."""

    def add(self, other: "Found") -> None:
        """Count another folder in."""
        self.files += other.files
        self.codes += other.codes
        self.statuses += other.statuses
        self.details += other.details
        self.seconds += other.seconds
        self.trouble += other.trouble


def run_twice(
    folder: Path, *options: str, command: list[str] = PROGRAM, counts: Callable[[Path], set[int]] | None = None
) -> Found:
    """Let the program read a folder twice, and check what it promises.

    Args:
        folder: Holds the images; nothing is written into it.
        options: Further ones of `predict`.
        command: The program.
        counts: Tells how many rows a file may have; nothing where nobody can tell.
    """
    found = Found()
    with tempfile.TemporaryDirectory() as place:
        outputs = [part for name in REPORTS for part in ("-o", f"{place}/{name}")]
        reading = [*command, "predict", str(folder), *outputs, "--settle", "0", *options]
        started = time.monotonic()
        first = _run(reading, found)
        found.seconds = time.monotonic() - started
        if first not in (ExitCode.OK, ExitCode.FAULTS):
            return found
        _check_rows(folder, Path(place), found, counts)
        before = [written(Path(place, name)) for name in REPORTS]
        if _run(reading, found) != ExitCode.OK:
            found.trouble.append("the second run has something to tell")
        if [written(Path(place, name)) for name in REPORTS] != before:
            found.trouble.append("the second run wrote reports")
    return found


def _run(command: list[str], found: Found) -> int:
    done = subprocess.run(command, capture_output=True, timeout=_MOST_SECONDS, check=False)
    said = done.stderr.decode(errors="replace")
    found.codes.append(done.returncode)
    if done.returncode not in list(ExitCode) or done.returncode == ExitCode.UNEXPECTED or "Traceback" in said:
        found.trouble.append(f"exit code {done.returncode}: {said[-1_000:]}")
    return done.returncode


def _check_rows(folder: Path, reports: Path, found: Found, counts: Callable[[Path], set[int]] | None) -> None:
    """Check that every image has a row a page, and count what the rows say."""
    pages: dict[str, list[int]] = {}
    with (reports / "report.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pages.setdefault(unguard(row["path"]), []).append(int(row["page"]))
            found.statuses[row["status"]] += 1
            if row["status"] in ("unreadable", "unsupported", "too_large"):
                found.details[re.sub(r"[\d,]+", "0", f"{row['status']}: {row['detail']}")] += 1
            if "unexpected error" in row["detail"]:
                found.trouble.append(f"{row['path']}: {row['detail']}")
    found.files = len(pages)
    if parquet.read_metadata(reports / "report.parquet").num_rows != found.statuses.total():
        found.trouble.append("the reports have different rows")
    for path in _images(folder):
        name = escape_name(str(path.relative_to(folder)))
        rows = pages.pop(name, [])
        if rows != list(range(1, len(rows) + 1)) or not rows:
            found.trouble.append(f"{name} has the pages {rows}")
        elif counts and (expected := counts(path)) and len(rows) not in expected:
            found.trouble.append(f"{name} has {len(rows)} rows, and {' or '.join(map(str, sorted(expected)))} pages")
    found.trouble += [f"{name} has a row, and is no image" for name in pages]


def _images(folder: Path) -> list[Path]:
    """Find what should have a row, without the program's own search."""
    images = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if any(map(is_hidden, parts)) or not (path.is_file() or path.is_symlink()) or path.is_dir():
            continue
        if path.is_symlink() and path.exists() and not path.resolve().is_relative_to(folder.resolve()):
            continue
        ending = ending_of(str(path))
        if ending in FOUND_ENDINGS or (not ending and path.exists() and _begins_as_image(path)):
            images.append(path)
    return images


def _begins_as_image(path: Path) -> bool:
    with path.open("rb") as file:
        return is_image(file.read(FIRST_BYTES))


def pages_by_others(path: Path) -> set[int]:
    """Count a file's pages as Pillow and tifffile do; of anything but a TIFF it is one.

    Each has some seconds, for a chain of directories may be a circle.
    """
    signal.signal(signal.SIGALRM, _give_up)
    found = set()
    for count in (_by_pillow, _by_tifffile):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signal.alarm(_COUNT_SECONDS)
            found |= count(path)
            signal.alarm(0)
    return found - {0}  # where the first page is out of reach


def _give_up(*_: object) -> None:
    raise TimeoutError


def _by_pillow(path: Path) -> set[int]:
    try:
        with Image.open(path) as image:
            return {getattr(image, "n_frames", 1) if image.format == "TIFF" else 1}
    except Exception:  # noqa: BLE001  (then it is another's to tell)
        return set()


def _by_tifffile(path: Path) -> set[int]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return {sum(not int(page.aspage().subfiletype) & _REDUCED_OR_MASK for page in file.pages)}
    except Exception:  # noqa: BLE001
        return set()


def main(
    folders: Annotated[list[Path], typer.Argument(help="Folders of images.")],
    standin: Annotated[bool, typer.Option("--standin", help="Take stand-ins for the networks.")] = False,
    runtime: Annotated[str, typer.Option(help="What the networks run on.")] = "litert",
) -> None:
    """Read folders twice and print what became of them."""
    print("| folder | files | rows | exit codes | seconds | broken promises |", "| --- " * 6 + "|", sep="\n")
    trouble = []
    for folder in folders:
        options = [] if standin else ["--runtime", runtime]
        found = run_twice(folder, *options, command=STANDIN if standin else PROGRAM, counts=pages_by_others)
        rows = ", ".join(f"{count} {status}" for status, count in found.statuses.most_common())
        codes = " ".join(map(str, found.codes))
        print(f"| {folder} | {found.files:,} | {rows} | {codes} | {found.seconds:.0f} | {len(found.trouble)} |")
        for detail, count in found.details.most_common():
            print(f"  {count} × {detail}")
        trouble += found.trouble
    print(*trouble, sep="\n")
    sys.exit(bool(trouble))


if __name__ == "__main__":
    typer.run(main)

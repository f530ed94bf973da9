"""A folder of digits and a command in, how its run ended out: what the parts of `reliability.py` share."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.cli_runner import BATCHDIGITS, CHECKOUT, Result, environment
from tests.sample_pages import digits, png

STAND_IN, TENSORFLOW = "stand-in", "TensorFlow"
COMMANDS = {STAND_IN: (sys.executable, "-m", "tests.fake_model_cli"), TENSORFLOW: (BATCHDIGITS,)}
"""The program without and with its model, to be run in the checkout's root."""
LONG_AGO = 1_600_000_000
"""Seconds since 1970 of the first file's last change; each has its own, and none is still being written."""
STOCK = 2000
"""Files that trials take what they need of."""
STUCK = 1800
"""Seconds after which a command counts as stuck."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one trial."""

    seen: list[str]
    """What happened, in a few words each; the table counts them."""
    wrong: list[str]
    """What was not as expected."""
    figures: dict[str, float] = field(default_factory=dict)
    """What was measured; the names end in the unit."""


def unmet(expectations: Mapping[str, bool]) -> list[str]:
    """List what was expected and does not hold."""
    return [expectation for expectation, holds in expectations.items() if not holds]


@cache
def stock(work: Path) -> list[Path]:
    """Write digits for all trials, once, of which no two have the same bytes, time of change or name."""
    folder = work / "stock"
    folder.mkdir()
    files = [folder / f"{number:04}.png" for number in range(STOCK)]
    for number, (file, digit) in enumerate(zip(files, digits(STOCK), strict=True)):
        file.write_bytes(png(255 - digit))
        os.utime(file, (LONG_AGO + number, LONG_AGO + number))
    return files


def link_into(folder: Path, files: Iterable[Path]) -> None:
    """Make hard links to files, which is fast, under their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file.name).hardlink_to(file)


def replace(file: Path, other: Path) -> None:
    """Put another file into the place of one in a single step, as careful programs do."""
    draft = file.with_name(f".{file.name}.part")
    draft.hardlink_to(other)
    draft.replace(file)


def start(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start a command in a session of its own, by which what it leaves behind can be told."""
    return subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: "subprocess.Popen[str]") -> Result:
    """Wait for the end of a command."""
    said = process.communicate(timeout=STUCK)
    return Result(process.returncode, *said)


def survivors(process: "subprocess.Popen[str]", seconds: float = 10) -> list[int]:
    """List the processes of a command that live on after it has ended, and will not go within some seconds."""
    for _ in range(round(seconds / 0.05)):
        left = in_session(process.pid)
        if not left:
            break
        time.sleep(0.05)
    return left


def in_session(session: int) -> list[int]:
    """List the processes of a session, which is named by the id of the one that it began with."""
    all_ = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208  names are what is needed
    return [one for one in all_ if _session(one) == session]


def _session(process: int) -> int:
    try:
        return os.getsid(process)
    except ProcessLookupError:
        return 0


def difference(report: bytes, expected: bytes) -> str:
    """Say how a report differs from the one that was expected, in rows."""
    rows, right = (Counter(text.splitlines()) for text in (report, expected))
    return f"report differs: {(right - rows).total()} rows of {right.total()} missing, {(rows - right).total()} others"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of scans, the report made of them in a folder of its own, and the command that makes it."""

    folder: Path
    """Holds both folders; of one trial alone."""
    engine: str = STAND_IN
    """A key of `COMMANDS`."""
    batch_size: int = 2
    """Images a prediction; few, so that there are many transactions."""

    @property
    def scans(self) -> Path:
        """The source."""
        return self.folder / "scans"

    @property
    def report(self) -> Path:
        """The report, with its ledger and their lock the only files of its folder."""
        return self.folder / "out" / "report.csv"

    @property
    def ledger(self) -> Path:
        """The report's ledger."""
        return self.report.with_name("report.csv.ledger")

    def start(
        self, *options: str | Path, before: Sequence[str | Path] = (), env: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start a run.

        Args:
            options: What stands behind the source and the report.
            before: A command that runs it.
            env: Changes of the environment.
        """
        self.report.parent.mkdir(exist_ok=True)
        command = [*before, *COMMANDS[self.engine], "predict", self.scans, "-o", self.report]
        return start([*command, "--batch-size", str(self.batch_size), *options], env)

    def run(
        self, *options: str | Path, before: Sequence[str | Path] = (), env: Mapping[str, str] | None = None
    ) -> Result:
        """Run to the end."""
        return finished(self.start(*options, before=before, env=env))

    def read(self) -> bytes:
        """Read the report; empty where there is none."""
        return self.report.read_bytes() if self.report.exists() else b""

    def whole(self) -> bytes:
        """Make the report of a run that nobody disturbs, of the folder as it is; nothing stays of it."""
        report = self.folder / "undisturbed.csv"
        command = [*COMMANDS[self.engine], "predict", self.scans, "-o", report, "--no-ledger"]
        done = finished(start([*command, "--batch-size", str(self.batch_size)]))
        assert done.code in (0, 3), done.stderr
        data = report.read_bytes()
        report.unlink()
        return data

    def known(self) -> int:
        """Count the files that the ledger knows as they are, while a run may be at work."""
        return known_in(self.ledger, "ro")

    def known_after_kill(self) -> int:
        """Count the same in a copy: who looks at a ledger that was left half written has to repair it first."""
        copy = shutil.copytree(self.report.parent, self.folder / "copy")
        known = known_in(copy / self.ledger.name, "rw")
        shutil.rmtree(copy)
        return known

    def wait_until_known(self, files: int, run: "subprocess.Popen[str]") -> None:
        """Wait until the ledger knows so many files, or the run has ended."""
        while self.known() < files and run.poll() is None:
            time.sleep(0.005)

    def left_over(self) -> list[str]:
        """Name what stands beside the report, its ledger and their lock."""
        names = (path.name for path in self.report.parent.iterdir())
        return sorted(name for name in names if not name.startswith(self.report.name) and not name.endswith(".lock"))


def known_in(ledger: Path, mode: str) -> int:
    """Count the files that stand as a ledger knows them, by size and time; `mode` is SQLite's, `ro` or `rw`."""
    if not ledger.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode={mode}", uri=True, timeout=5)) as database:
            rows = database.execute("SELECT path, size_bytes, mtime_ns FROM pages WHERE page = 1").fetchall()
    except sqlite3.OperationalError:  # its tables are being made, or it has to be repaired first
        return 0
    return sum(_state(path) == tuple(state) for path, *state in rows)


def _state(path: bytes) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116  a Path cannot be made of bytes
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


def place_with(folder: Path, files: int) -> Place:
    """Make a folder of scans with the first files of the stock."""
    place = Place(folder)
    link_into(place.scans, stock(folder.parent)[:files])
    return place


def judged(place: Place, results: list[Result], codes: tuple[int, ...], expectations: Mapping[str, bool]) -> Outcome:
    """Judge runs the last of which has to make the right report and to leave nothing beside it.

    Args:
        place: Where they ran, as it is now.
        results: How they ended.
        codes: With what exit codes they should.
        expectations: What else was expected, and whether it holds.
    """
    seen = tuple(result.code for result in results)
    expected, report = place.whole(), place.read()
    wrong = unmet({f"exit codes {codes}": seen == codes, "nothing is left over": not place.left_over()} | expectations)
    wrong += [difference(report, expected)] * (report != expected)
    said = [f"it said: {result.stderr[-300:].strip()}" for result in results]
    return Outcome(["exit codes " + ", ".join(map(str, seen))], wrong + said * bool(wrong))

"""A number of files in; seconds and memory of runs over them out: what is new, what is not, what would be done."""

import statistics
import sys
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.trials import COMMANDS, STAND_IN, Outcome, finished, start, unmet
from tests.cli_runner import BATCHDIGITS, Result
from tests.sample_pages import digits, png

SIZES = (10_000, 100_000, 1_000_000)
IN_A_FOLDER = 10_000
"""Files that stand side by side."""
RUNS: dict[str, tuple[str, ...]] = {"dry run": ("--dry-run",), "first run": (), "nothing new": ()}
"""What is run over each folder, in this order, and its options."""
MOST_MEMORY = 1.25
"""Peak in the largest folder, in those of the smallest, at most."""
MOST_TIME = 1.5
"""Time that a file more takes on the way to the largest folder, in those on the way to the one before, at most."""
MOST_SECONDS = 1.0
"""What a run over 10,000 files may take where nothing is new."""
REPEATS = 5

_MEASURE = """
import os, sys, time
started = time.perf_counter()
nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nowhere)
_, status, usage = os.wait4(process, 0)
print(time.perf_counter() - started, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""  # a process takes over the peak of the one that starts it, so this is done by a small one


def grow(folder: Path, count: int) -> None:
    """Write small PNG files of which no two have the same bytes."""
    drawn = [png(255 - digit) for digit in digits(1000)]
    for number in range(count):
        if number % IN_A_FOLDER == 0:
            inside = folder / f"{number // IN_A_FOLDER:03}"
            inside.mkdir(parents=True)
        text = b"tEXtComment\0%d" % number
        chunk = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
        data = drawn[number % len(drawn)]
        with open(f"{inside}/{number:07}.png", "wb") as file:  # noqa: PTH123  a Path takes as long again
            file.write(data[:-12] + chunk + data[-12:])  # the last chunk has 12 bytes


def measured(*command: str | Path) -> tuple[Result, float, float]:
    """Run a command, its data going nowhere: how it ended, its seconds, and the peak in MiB of its largest process."""
    result = finished(start([sys.executable, "-S", "-c", _MEASURE, *command]))
    seconds, peak = map(float, result.stdout.split())
    return result, seconds, peak


def growth(folder: Path, *, count: int) -> Outcome:
    """Say what would be done with a folder, do it, and do it again."""
    scans, report = folder / "scans", folder / "out" / "report.csv"
    grow(scans, count)
    report.parent.mkdir()
    figures: dict[str, float] = {}
    wrong: list[str] = []
    for name, options in RUNS.items():
        result, seconds, peak = measured(*COMMANDS[STAND_IN], "predict", scans, "-o", report, *options)
        figures |= {f"{name}, s": round(seconds, 2), f"{name}, MiB": round(peak, 1)}
        made = sum(1 for _ in report.open("rb")) - 1 if report.exists() else 0
        expected = 0 if name == "dry run" else count
        wrong += unmet({f"{name}: exit code 0": result.code == 0, f"{name}: {expected} rows": made == expected})
    figures["ledger, MiB"] = round(Path(f"{report}.ledger").stat().st_size / 2**20, 1)
    return Outcome([f"{count:,} files"], wrong, figures)


def judged(sizes: Mapping[str, Outcome]) -> list[str]:
    """Print seconds and peaks, and say where time is not linear in the number of files, or memory not constant."""
    figures = [sizes[f"{count:,} files"].figures for count in SIZES]
    if any(outcome.wrong for outcome in sizes.values()):
        return []  # that is told already
    print("\n| run | " + " | ".join(sizes) + " | µs a file more | peak, last / first |")
    print("| --- |" + " ---: |" * (len(SIZES) + 2))
    wrong = []
    for run in RUNS:
        seconds, peaks = ([of[f"{run}, {unit}"] for of in figures] for unit in ("s", "MiB"))
        more = [1e6 * (b - a) / (n - m) for (a, b), (m, n) in zip(pairwise(seconds), pairwise(SIZES), strict=True)]
        memory = peaks[-1] / peaks[0]
        cells = [f"{one:.1f} s, {peak:.0f} MiB" for one, peak in zip(seconds, peaks, strict=True)]
        print(f"| {run} | {' | '.join(cells)} | {', then '.join(f'{one:.0f}' for one in more)} | {memory:.2f} |")
        linear = more[-1] <= MOST_TIME * more[0]
        wrong += unmet({f"growth, {run}: linear time": linear, f"growth, {run}: memory": memory <= MOST_MEMORY})
    print("Ledger: " + ", ".join(f"{of['ledger, MiB']:,.0f} MiB" for of in figures))
    return wrong


def nothing_new(folder: Path) -> Outcome:
    """Run the installed command, with its model, again and again over a folder in which nothing is new."""
    scans, report = folder / "scans", folder / "report.csv"
    grow(scans, SIZES[0])
    command = ("predict", scans, "-o", report)
    first, first_seconds, _ = measured(BATCHDIGITS, *command)
    again = [measured(BATCHDIGITS, *command) for _ in range(REPEATS)]
    seconds = statistics.median(seconds for _, seconds, _ in again)
    imports = finished(start([sys.executable, "-X", "importtime", "-m", "batchdigits", *command, "-v"]))
    imported = {line.rpartition("|")[2].strip() for line in imports.stderr.splitlines()}
    wrong = unmet(
        {
            "exit code 0": {first.code, imports.code, *(result.code for result, _, _ in again)} == {0},
            f"less than {MOST_SECONDS:g} s": seconds < MOST_SECONDS,
            "imports are seen": "numpy" in imported,
            "TensorFlow is not imported": "tensorflow" not in imported,
        }
    )
    peak = max(peak for _, _, peak in again)
    figures = {"first run, s": first_seconds, f"median of {REPEATS}, s": seconds, "peak, MiB": peak}
    return Outcome(["no TensorFlow"], wrong, figures)


GROWTH: dict[str, Callable[[Path], Outcome]] = {f"{count:,} files": partial(growth, count=count) for count in SIZES}
NOTHING_NEW: dict[str, Callable[[Path], Outcome]] = {f"{SIZES[0]:,} files": nothing_new}

"""A folder to work in, and rounds, in; what the contestants of each part of `speed.py` took out."""

import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.benchmarks import costs, floor, peers, program
from tests.benchmarks.forward import BATCH, CONVNET, convnet_forward, test_pixels
from tests.benchmarks.rounds import Contestant, Lines, Pass, in_phase
from tests.benchmarks.scans import JPEGS, KINDS, NEW, NEW_FILES, SMALL, Kind, distinct, known_and_new
from tests.benchmarks.shell import from_shell, printed
from tests.cli_runner import BATCHDIGITS

FORWARD = "forward pass"
HELP, IMPORT, SCRIPT = "batchdigits --help", "import tensorflow", "the first peer as a script"
ONE, ALL = "one image", f"{SMALL.files:,} small PNGs"
FEW_NEW, NOTHING_NEW = f"{NEW} new among {SMALL.files:,}", f"nothing new in {SMALL.files + NEW:,}"
FIRST_RUN, AGAIN = "first run", "nothing new"

SIZES = (1000, 10_000, 100_000, 1_000_000)
"""Distinct images, ten times as many each time."""
BASE = 10_000
"""The size that larger ones are compared with; from here on the program's workers are processes."""
MOST_ROUNDS = {100_000: 3, 1_000_000: 1}
"""Of the largest sizes."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all parts share."""

    place: Path
    """The folder in which the images are made."""
    runtimes: tuple[str, ...]
    """What the program predicts with."""
    rounds: int
    """How many count."""

    def report(self, name: str) -> Path:
        """Name a report, whose folder is made."""
        folder = self.place / "out"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.csv"


def of_runtime(name: str, runtime: str) -> str:
    """Name a contestant that predicts with a runtime."""
    return f"{name}, {runtime}"


@contextmanager
def own_process() -> Iterator[Callable[..., Pass]]:
    """Start a process, and give what runs a function in it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        try:
            yield lambda function, *arguments: process.submit(function, *arguments).result()
        finally:
            process.submit(program.stop).result()


# ---- files of one kind ---------------------------------------------------------------------------------------------


def throughput(bench: Bench, *, kind: Kind) -> Lines:
    """Go through a folder of files: the floor, this program with each runtime, and its peers."""
    folder, files = kind.made_in(bench.place), kind.paths(bench.place)
    few = files[: kind.loop_files]
    with floor.readers() as ways, processes(bench.runtimes) as own, own_process() as others:
        contestants = floor.contestants(files, kind.images, ways)
        for runtime in bench.runtimes:
            job = program.predict, folder, bench.report(runtime), runtime, kind.images
            contestants[runtime] = Contestant(kind.images, partial(own[runtime], *job))
        if kind.known_to_keras:
            contestants[peers.DATASET] = Contestant(kind.images, partial(others, peers.by_dataset, folder, kind.images))
        images = len(few) * kind.pages
        contestants[peers.LOOP] = Contestant(images, partial(others, peers.by_loop, few, images))
        return in_phase(contestants, bench.rounds, title=kind.name)


@contextmanager
def processes(runtimes: tuple[str, ...]) -> Iterator[dict[str, Callable[..., Pass]]]:
    """Start a process for each runtime."""
    with ExitStack() as stack:
        yield {runtime: stack.enter_context(own_process()) for runtime in runtimes}


# ---- one core ------------------------------------------------------------------------------------------------------


def one_core(bench: Bench) -> Lines:
    """Decode and normalise files in memory, and predict what is normalised."""
    count = len(test_pixels()) // BATCH * BATCH
    with processes(bench.runtimes) as own, own_process() as others:
        contestants = costs.contestants(bench.place)
        for runtime in bench.runtimes:
            report = bench.report(runtime)
            own[runtime](program.predict, JPEGS.made_in(bench.place), report, runtime, JPEGS.images)  # loads the model
            run = partial(own[runtime], program.forward, count)
            contestants[of_runtime(FORWARD, runtime)] = Contestant(count, run)
        contestants[of_runtime(FORWARD, CONVNET)] = Contestant(count, partial(others, convnet_pass, count))
        return in_phase(contestants, bench.rounds, title="one core")


def convnet_pass(count: int) -> Pass:
    """Predict with the convnet of the Keras examples, under the same number of threads."""
    return Pass(convnet_forward(count))


# ---- from the shell ------------------------------------------------------------------------------------------------


def from_the_shell(bench: Bench) -> Lines:
    """Run the installed command, and what it is compared with, from start to end."""
    small, known = SMALL.made_in(bench.place), known_and_new(bench.place)
    contestants = {
        HELP: Contestant(0, partial(from_shell, BATCHDIGITS, "--help")),
        IMPORT: Contestant(0, partial(from_shell, sys.executable, "-c", "import tensorflow")),
        SCRIPT: Contestant(
            SMALL.files, partial(from_shell, sys.executable, "-m", peers.__name__, small, str(SMALL.files))
        ),
    }
    for runtime in bench.runtimes:
        for name, source, images in ((ONE, small / "00000.png", 1), (ALL, small, SMALL.files)):
            report = bench.report(f"shell-{runtime}")
            contestants[of_runtime(name, runtime)] = Contestant(images, partial(afresh, source, report, runtime))
        report = bench.report(f"known-{runtime}")
        afresh(known, report, runtime, "--exclude", NEW_FILES)
        kept = report.with_suffix(".kept")
        keep(report, kept)
        contestants[of_runtime(FEW_NEW, runtime)] = Contestant(NEW, partial(again, known, report, runtime, kept))
        contestants[of_runtime(NOTHING_NEW, runtime)] = Contestant(0, partial(again, known, report, runtime))
    return in_phase(contestants, bench.rounds, title="from the shell")


def command(source: Path, report: Path, runtime: str, *options: str) -> list[str | Path]:
    """Spell a run of the installed command."""
    return [BATCHDIGITS, "predict", source, "-o", report, "--runtime", runtime, "-q", *options]


def afresh(source: Path, report: Path, runtime: str, *options: str, memory: bool = False) -> Pass:
    """Run the command as if nothing were known."""
    program.forget(report)
    return from_shell(*command(source, report, runtime, *options), memory=memory)


def again(source: Path, report: Path, runtime: str, kept: Path | None = None, *, memory: bool = False) -> Pass:
    """Run the command where something is known.

    Args:
        source: Its source.
        report: Its report.
        runtime: One of `program.RUNTIMES`.
        kept: The report as it was before, with its ledger; None goes on from where the last run ended.
        memory: Sample its memory, too.
    """
    if kept:
        keep(kept, report)
    done = from_shell(*command(source, report, runtime), memory=memory)
    rows = report.read_bytes().count(b"\n") - 1
    assert rows == SMALL.files + NEW, rows
    return done


def keep(report: Path, copy: Path) -> None:
    """Copy a report and its ledger."""
    for ending in ("", ".ledger"):
        shutil.copyfile(f"{report}{ending}", f"{copy}{ending}")


# ---- memory --------------------------------------------------------------------------------------------------------


def memory(bench: Bench) -> Lines:
    """Run the installed command over each kind of files, and look at its memory meanwhile."""
    contestants = {}
    for kind in KINDS:
        for runtime in bench.runtimes:
            job = partial(afresh, kind.made_in(bench.place), bench.report(f"memory-{runtime}"), runtime, memory=True)
            contestants[of_runtime(kind.name, runtime)] = Contestant(kind.images, job)
    return in_phase(contestants, bench.rounds, title="memory", warm_up=False)


# ---- growth --------------------------------------------------------------------------------------------------------


def growth(bench: Bench, *, count: int) -> Lines:
    """Go through so many distinct images, loading left out, and then from the shell where nothing is new."""
    folder, first = distinct(bench.place, count), distinct(bench.place, min(count, BASE))
    for file in folder.rglob("*.png"):  # into the page cache
        file.read_bytes()
    contestants = {}
    for runtime in bench.runtimes:
        report = bench.report(f"growth-{runtime}")
        numbers = str(count), str(min(count, BASE))
        run = partial(warmed_up, folder, first, report, runtime, *numbers)
        contestants[of_runtime(FIRST_RUN, runtime)] = Contestant(count, run)
        run = partial(from_shell, *command(folder, report, runtime), memory=True)
        contestants[of_runtime(AGAIN, runtime)] = Contestant(count, run)
    rounds = min(bench.rounds, MOST_ROUNDS.get(count, bench.rounds))
    return in_phase(contestants, rounds, title=f"{count:,} images", warm_up=False)


def warmed_up(*arguments: str | Path) -> Pass:
    """Let a process of its own go through a folder: the seconds of that, and the peak of all it does."""
    done, out = printed(sys.executable, "-m", program.__name__, *arguments, memory=True)
    return Pass(float(out), done.tree_mb, done.main_mb)

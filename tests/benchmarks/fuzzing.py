"""100,000 broken image files through decoding and normalisation: crashes, foreign exceptions, hangs and memory.

Run `python -m tests.benchmarks.fuzzing`: three minutes. Mutants (`tests/damaged_images.py`) are worked through in
order, in blocks, each in a process of its own that says which file it has in hand: a file that ends it, or on which it
hangs, is told by name, written beside the state file, and left out of the block's next attempt. With `--state FILE` a
run that was stopped goes on after its last whole block, as long as the decoder, the mutants and the codecs are the
same.

After them come whole files of as many pixels as the default limit lets through, in the modes that take most memory.

`--program` lets the whole program read the mutants, a thousand to a folder and each folder twice: what decoding hands
out has to get through the ledger and into reports of all formats as well, and one file must never end the run.

`--coverage SECONDS` is another test: `atheris`, which is no dependency of the project, looks for files that lead
through more of the Python code; the codecs in C are not instrumented.
"""

import faulthandler
import hashlib
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[2]))  # for `tests`, whose modules the suite shares

from batchdigits.decoding import codecs as decoding
from batchdigits.decoding import headers
from batchdigits.decoding.pages import Page
from batchdigits.errors import FaultKind
from tests import damaged_images
from tests.benchmarks.twice import STANDIN, Found, run_twice
from tests.damaged_images import (
    DEFAULT,
    SMALL,
    forget_peak,
    keep_normalisation,
    keep_promises,
    most_bytes,
    mutant,
    peak_bytes,
    seeds,
)

BLOCK = 1_000  # files a process
STACK = 16  # files whose pages are normalised together
HANG_SECONDS = 20  # for one file
PROGRAM_BYTES = 100 * 10**6  # what a process takes before it reads anything

LARGEST: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PNG, RGBA": ("RGBA", "PNG", {"compress_level": 1}),
    "JPEG, progressive CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "TIFF, 32-bit floats": ("F", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, RGBA": ("RGBA", "TIFF", {"compression": "tiff_adobe_deflate", "strip_size": 2**31 - 1}),
    "GIF, transparent": ("P", "GIF", {"transparency": 0}),
    "WebP, lossless RGBA": ("RGBA", "WEBP", {"lossless": True, "method": 0}),
    "BMP, RGB": ("RGB", "BMP", {}),
}
"""Mode, format and options of files with as many pixels as are read."""

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(slots=True)
class Tally:
    """What became of the files of one format."""

    files: int = 0
    pages: int = 0
    faults: dict[str, int] = field(default_factory=lambda: {kind.value: 0 for kind in FaultKind})
    """By kind."""
    noisy: int = 0
    """Files of which a codec wrote to file descriptor 2, which the program keeps shut."""
    crashes: int = 0
    hangs: int = 0
    exceptions: int = 0
    """Foreign ones, and broken promises."""
    oversized: int = 0
    """Files that took more memory than they may."""
    slowest_seconds: float = 0.0
    peak_bytes: int = 0
    """Of the whole process, at any of the files."""

    def add(self, other: "Tally") -> None:
        """Count what another one counted."""
        for name in ("files", "pages", "noisy", "crashes", "hangs", "exceptions", "oversized"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, count in other.faults.items():
            self.faults[kind] += count
        self.slowest_seconds = max(self.slowest_seconds, other.slowest_seconds)
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


@dataclass(slots=True)
class Outcome:
    """What became of a block."""

    by_kind: dict[str, Tally]
    """By the format that the mutants were made of."""
    trouble: list[str]
    """A line for each file that is to be looked at."""


# ---- in a process of its own ---------------------------------------------------------------------------------------


def work(numbers: list[int], at: "Synchronized[int]", noise: str, results: Connection) -> None:
    """Read a block's files.

    Args:
        numbers: Of the mutants.
        at: Is told each number before its file is touched.
        noise: File that takes what codecs write to file descriptor 2.
        results: Takes the `Outcome`.
    """
    os.dup2(os.open(noise, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    faulthandler.enable()
    outcome = Outcome({kind: Tally() for kind in seeds()}, [])
    stack = []
    for number in numbers:
        at.value = number
        file = mutant(number)
        tally = outcome.by_kind[file.kind]
        heard = os.fstat(2).st_size
        forget_peak()
        started = time.perf_counter()
        try:
            entries = keep_promises(file.data, file.limits)
            stack += [entry.grey for entry in entries if isinstance(entry, Page)]
            if len(stack) >= STACK or number == numbers[-1]:
                keep_normalisation(stack)
                stack = []
        except Exception as error:  # noqa: BLE001  (this is what is looked for)
            tally.exceptions += 1
            outcome.trouble.append(f"{file.kind} {number}: {type(error).__name__}: {error}")
            entries, stack = [], []
        peak = peak_bytes()
        pages = sum(isinstance(entry, Page) for entry in entries)
        tally.add(Tally(1, pages, slowest_seconds=time.perf_counter() - started, peak_bytes=peak))
        for entry in entries:
            if not isinstance(entry, Page):
                tally.faults[entry.kind] += 1
        tally.noisy += os.fstat(2).st_size > heard
        if peak > PROGRAM_BYTES + most_bytes(file.limits):
            tally.oversized += 1
            outcome.trouble.append(f"{file.kind} {number}: {peak / 1e6:,.0f} MB")
    results.send(outcome)


def work_on_large(path: Path, results: Connection) -> None:
    """Read a whole file that is large; send the seconds that it takes, and the peak of memory."""
    data = path.read_bytes()
    forget_peak()
    started = time.perf_counter()
    entries = keep_promises(data, DEFAULT)
    keep_normalisation([entry.grey for entry in entries if isinstance(entry, Page)])
    results.send((time.perf_counter() - started, peak_bytes()))


# ---- around it -----------------------------------------------------------------------------------------------------


def block(first: int, files: int, keep: Path) -> Outcome:
    """Read a block, and find out which files end the process or let it hang.

    Args:
        first: Number of its first mutant.
        files: How many it has.
        keep: Takes the files that end the process.
    """
    culprits: dict[int, str] = {}
    while True:
        numbers = [number for number in range(first, first + files) if number not in culprits]
        with tempfile.NamedTemporaryFile() as noise:
            found = attempt(numbers, noise.name)
            if isinstance(found, Outcome):
                break
            number, end = found
            if number < first:
                sys.exit(f"The process of a block cannot start: {Path(noise.name).read_text(errors='replace')}")
            last_words = Path(noise.name).read_text(errors="replace")[-1_000:]
        culprits[number] = f"{end}: {last_words}" if end else ""
    for number, end in culprits.items():
        file = mutant(number)
        path = keep / f"fuzzing-{number}.{file.kind.lower()}"
        path.write_bytes(file.data)
        found.by_kind[file.kind].add(Tally(1, crashes=bool(end), hangs=not end))
        found.trouble.append(f"{path}: {end or 'hangs'}")
    return found


def attempt(numbers: list[int], noise: str) -> Outcome | tuple[int, str]:
    """Start a process for files; what it made of them, or the one at which it ended, and how: nothing for a hang."""
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    at = _CONTEXT.Value("q", -1)
    child = _CONTEXT.Process(target=work, args=(numbers, at, noise, theirs))
    child.start()
    theirs.close()
    number, since = -1, time.monotonic()
    while not ours.poll(0.2):
        if at.value != number:
            number, since = at.value, time.monotonic()
        elif time.monotonic() - since > HANG_SECONDS:
            child.kill()
            child.join()
            return number, ""
    try:
        outcome: Outcome = ours.recv()
    except EOFError:
        child.join()
        return at.value, f"exit code {child.exitcode}"
    child.join()
    return outcome


def largest() -> Iterator[tuple[str, int, float, int]]:
    """Read the largest files, each in a process of its own.

    Yields:
        Its name, its size in bytes, the seconds it takes, and the peak of memory in bytes.
    """
    side = math.isqrt(DEFAULT.max_pixels)
    for name, (mode, kind, options) in LARGEST.items():
        with tempfile.NamedTemporaryFile() as file:
            Image.new(mode, (side, side)).save(file, kind, **options)
            file.flush()
            ours, theirs = _CONTEXT.Pipe(duplex=False)
            child = _CONTEXT.Process(target=work_on_large, args=(Path(file.name), theirs))
            child.start()
            theirs.close()
            yield name, file.tell(), *ours.recv()
            child.join()


def subject() -> str:
    """Name what is tested, so that an older state is not taken for it."""
    parts = [Path(str(module.__file__)).read_bytes() for module in (decoding, headers, damaged_images)]
    codecs = [f"{name} {version(name)}".encode() for name in ("pillow", "opencv-python-headless")]
    return hashlib.sha256(
        b"".join([*parts, *codecs, *(data for files in seeds().values() for data in files)])
    ).hexdigest()


def known(state: Path, of: str) -> dict[int, Outcome]:
    """Read the blocks that an earlier run finished, by their first number."""
    blocks = {}
    for line in state.read_text().splitlines() if state.exists() else []:
        with suppress(json.JSONDecodeError):  # the line at which it was stopped
            entry = json.loads(line)
            if entry["of"] == of:
                tallies = {kind: Tally(**tally) for kind, tally in entry["by_kind"].items()}
                blocks[entry["first"]] = Outcome(tallies, entry["trouble"])
    return blocks


def coverage_guided(seconds: int) -> None:
    """Let atheris mutate the seeds; it ends the process itself, with the file written where it found something."""
    import atheris

    def read(data: bytes) -> None:
        greys = [entry.grey for entry in keep_promises(data, SMALL) if isinstance(entry, Page)]
        keep_normalisation(greys[:STACK])

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for kind, files in seeds().items():
            for number, data in enumerate(files):
                (Path(corpus) / f"{kind}-{number}").write_bytes(data)
        options = [
            f"-max_total_time={seconds}",
            f"-timeout={HANG_SECONDS}",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], read)
        atheris.Fuzz()


def through_program(files: int) -> Found:
    """Let the program, with stand-ins for its networks, read mutants in folders of a block each."""
    total = Found()
    for first in tqdm(range(0, files, BLOCK), unit="block", disable=None):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(first, min(first + BLOCK, files)):
                file = mutant(number)
                (Path(folder) / f"{number}.{file.kind.lower()}").write_bytes(file.data)
            found = run_twice(Path(folder), "--max-pixels", str(SMALL.max_pixels), command=STANDIN)
        found.trouble = [f"files {first} to {first + BLOCK - 1}: {line}" for line in found.trouble]
        total.add(found)
    return total


def table(total: dict[str, Tally]) -> str:
    """Lay the tallies out in Markdown, a format a row."""
    counts = ["files", "pages", *FaultKind, "crashes", "hangs", "exceptions", "over memory"]
    everything = Tally()
    for tally in total.values():
        everything.add(tally)
    lines = [
        f"| format | {' | '.join(counts)} | noisy | slowest, ms | peak, MB |",
        "| --- |" + " ---: |" * (len(counts) + 3),
    ]
    for kind, tally in {**total, "all": everything}.items():
        ends = [tally.crashes, tally.hangs, tally.exceptions, tally.oversized, tally.noisy]
        numbers = [tally.files, tally.pages, *tally.faults.values(), *ends]
        figures = [f"{number:,}" for number in numbers]
        figures += [f"{tally.slowest_seconds * 1000:,.0f}", f"{tally.peak_bytes / 1e6:,.0f}"]
        lines.append(f"| {kind} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main(
    files: Annotated[int, typer.Option(help="How many mutants.")] = 100_000,
    state: Annotated[Path | None, typer.Option(help="File that keeps what is done, for a run that goes on.")] = None,
    program: Annotated[bool, typer.Option("--program", help="Through the whole program instead.")] = False,
    coverage: Annotated[int | None, typer.Option(help="Seconds of atheris instead.")] = None,
) -> None:
    """Read broken files and print what became of them."""
    if program:
        found = through_program(files)
        print(f"{found.files:,} files, rows: {dict(found.statuses)}, exit codes: {dict(Counter(found.codes))}")
        print(*found.trouble, sep="\n")
        sys.exit(bool(found.trouble))
    if coverage:
        coverage_guided(coverage)
    of = subject()
    done = known(state, of) if state else {}
    total = {kind: Tally() for kind in seeds()}
    trouble = []
    for first in tqdm(range(0, files, BLOCK), unit="block", disable=None):
        if first not in done:
            done[first] = block(first, BLOCK, state.parent if state else Path())
            if state:
                with state.open("a") as lines:
                    lines.write(json.dumps({"of": of, "first": first, **asdict(done[first])}) + "\n")
        for kind, tally in done[first].by_kind.items():
            total[kind].add(tally)
        trouble += done[first].trouble
    print(table(total), *trouble, "", sep="\n")
    print(f"| {DEFAULT.max_pixels:,} pixels | file, kB | seconds | peak, MB |")
    print("| --- | ---: | ---: | ---: |")
    for name, size_bytes, seconds, peak in largest():
        print(f"| {name} | {size_bytes / 1e3:,.1f} | {seconds:.1f} | {peak / 1e6:,.0f} |")
        if peak > PROGRAM_BYTES + most_bytes(DEFAULT) + size_bytes:
            trouble.append(name)
    if trouble:
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)

"""What each stage costs an image, and how many processors read ten million in an hour: one command in, two tables out.

`python -m tests.benchmarks.stages` runs the command with LiteRT over two folders of a kind, one larger than the other:
the difference of their processor seconds is what the images took, without imports and the start of processes. The
first table is measured, the second computed from it. What photos cost the driver, and to be passed on to it, is taken
from the smaller JPEGs.
"""

import json
import math
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from tqdm import tqdm

from batchdigits.settings import Runtime
from tests.benchmarks import processor, program
from tests.benchmarks.scans import JPEGS, PHOTOS, SMALL, Kind, distinct
from tests.benchmarks.shell import from_shell
from tests.benchmarks.speed import origin

SCANS, SECONDS = 10_000_000, 3600
"""What is to be read, and in which time."""
NODE = 16
"""Processors of a node in `jobs/ray-cluster.yaml`."""
WORKER, DRIVER = ("decode", "normalise", "predict", "decide", "pass on"), ("list", "record", "report", "rest")
"""What scales with the number of workers, and what one process does for all of them."""
OVERLAPPED = ("record", "rest")
"""Of the driver's, what it does while the workers read."""
MEANING = {
    "decode": "read, hash, decode",
    "normalise": "normalise, and halve for thumbnails",
    "predict": "predict",
    "decide": "decide, draw thumbnails",
    "pass on": "the worker's rest: pass it on",
    "list": "list, and plan",
    "record": "record in the ledger",
    "report": "render a CSV report",
    "rest": "the rest: take it over",
}

Costs = dict[str, float]
"""Processor seconds an image by stage."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A small and a large folder of files of one kind."""

    name: str
    """How the tables call them."""
    few: int
    """Files in the small one."""
    many: int
    """Files in the large one."""
    folder: Callable[[Path, int], Path]
    """Makes a folder of so many, or finds it."""


def of_kind(kind: Kind, place: Path, files: int) -> Path:
    """Give a folder of so many files of a kind."""
    other = replace(kind, folder=f"{kind.folder}-{files}", files=files, write=partial(kind.write, files=files))
    return (kind if files == kind.files else other).made_in(place)


PAIRS = (
    Pair(SMALL.name, 10_000, 100_000, distinct),
    Pair(JPEGS.name, JPEGS.files, 4 * JPEGS.files, partial(of_kind, JPEGS)),
    Pair(PHOTOS.name, PHOTOS.files, 4 * PHOTOS.files, partial(of_kind, PHOTOS)),
)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Figures are their medians.")] = 3,
    folder: Annotated[Path | None, typer.Option(help="Where images are made, and kept: 1 GB.")] = None,
    kinds: Annotated[int, typer.Option(min=1, max=len(PAIRS), help="How many kinds of files.")] = len(PAIRS),
) -> None:
    """Measure what the stages cost, and compute what that means for ten million scans in an hour."""
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stages-")))
        pairs = PAIRS[:kinds]
        costs = [all_costs(pair, place.absolute(), rounds) for pair in pairs]
        sizes = [mean_bytes(pair, place.absolute()) for pair in pairs]
    if len(pairs) == len(PAIRS):  # these do not hang on pixels, and a few photos are too few to measure them
        costs[-1] |= {name: costs[-2][name] for name in ("pass on", *DRIVER)}
    print(measured_table(pairs, costs))
    print()
    print(computed_table(pairs, costs, sizes))
    print(f"\n{origin((Runtime.LITERT,))}")


# ---- measured ------------------------------------------------------------------------------------------------------


def all_costs(pair: Pair, place: Path, rounds: int) -> Costs:
    """Measure a kind of files: the medians of what an image took."""
    for count in (pair.few, pair.many):  # into the page cache
        for file in pair.folder(place, count).rglob("*.*"):
            file.read_bytes()
    found: dict[str, list[float]] = defaultdict(list)
    for _ in tqdm(range(rounds), desc=pair.name, unit="round"):
        for name, seconds in cost(pair, place).items():
            found[name].append(seconds)
    return {name: median(values) for name, values in found.items()}


def cost(pair: Pair, place: Path) -> Costs:
    """Measure once what an image of a kind takes in each stage, in the workers and in the main process."""
    few, many = (ran(pair.folder(place, count), place / "out" / "stages.csv") for count in (pair.few, pair.many))
    by_image = {name: (many[name] - few[name]) / (pair.many - pair.few) for name in many}
    passed_on = by_image["workers"] - sum(by_image[name] for name in WORKER if name != "pass on")
    rest = by_image["main"] - sum(by_image[name] for name in ("list", "record", "report"))
    return by_image | {"pass on": passed_on, "rest": rest}


def ran(source: Path, report: Path) -> Costs:
    """Run the command, and give the processor seconds of its stages and processes."""
    program.forget(report)
    numbers = report.with_suffix(".json")
    command = ["predict", source, "-o", report, "--runtime", Runtime.LITERT, "--workers", "1", "-q"]
    from_shell(sys.executable, "-m", processor.__name__, numbers, *command)
    taken: Costs = json.loads(numbers.read_text())
    return taken


def mean_bytes(pair: Pair, place: Path) -> float:
    """Tell how large a file of a kind is."""
    sizes = [file.stat().st_size for file in pair.folder(place, pair.few).rglob("*.*")]
    return sum(sizes) / len(sizes)


# ---- tables --------------------------------------------------------------------------------------------------------


def measured_table(pairs: tuple[Pair, ...], costs: list[Costs]) -> str:
    """Spell what was measured, in µs of one processor an image."""
    workers, driver = ([sum(of[name] for name in names) for of in costs] for names in (WORKER, DRIVER))
    rows = [
        *(line(MEANING[name], [of[name] for of in costs], 1e6) for name in WORKER),
        line("**a worker**", workers, 1e6),
        *(line(MEANING[name], [of[name] for of in costs], 1e6) for name in DRIVER),
        line("**the driver**", driver, 1e6),
    ]
    return table("measured: µs of a processor an image", pairs, rows)


def computed_table(pairs: tuple[Pair, ...], costs: list[Costs], sizes: list[float]) -> str:
    """Spell what follows for `SCANS` images in `SECONDS`."""
    work = [SCANS * sum(of[name] for name in WORKER) for of in costs]
    beside = [SCANS * sum(of[name] for name in OVERLAPPED) for of in costs]
    alone = [SCANS * sum(of[name] for name in DRIVER if name not in OVERLAPPED) for of in costs]
    left = [SECONDS - seconds for seconds in alone]
    processors = [of / seconds for of, seconds in zip(work, left, strict=True)]
    rows = [
        line("the driver alone, before and after: minutes", alone, 1 / 60),
        line("so long the workers may read: minutes", left, 1 / 60),
        line("the driver beside them: minutes", beside, 1 / 60),
        line("the workers together: hours of a processor", work, 1 / 3600, 1),
        line("**processors for the workers**", [math.ceil(number) for number in processors]),
        line(f"nodes of {NODE}", [math.ceil(number / NODE) for number in processors]),
        line("bytes to read: Gbit/s", [8e-9 * SCANS * size / of for size, of in zip(sizes, left, strict=True)], 1, 2),
    ]
    return table(f"computed: {SCANS:,} in {SECONDS // 60} minutes", pairs, rows)


def line(name: str, values: list[float] | list[int], factor: float = 1, digits: int = 0) -> list[str]:
    """Spell a row."""
    return [name, *(f"{value * factor:,.{digits}f}" for value in values)]


def table(title: str, pairs: tuple[Pair, ...], rows: list[list[str]]) -> str:
    """Spell rows as Markdown."""
    all_rows = [[title, *(pair.name for pair in pairs)], ["---", *["---:"] * len(pairs)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in all_rows)


if __name__ == "__main__":
    typer.run(main)

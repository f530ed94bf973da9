"""How fast this program is with each runtime, beside its peers and the floor: one command in, one table out.

Make the whole table in one go: `python -m tests.benchmarks.speed`. What is compared is measured in turn, round after
round, so that noise hits all alike; a first round warms up and does not count. Files come from the page cache. The
table is Markdown. Stopped, it goes on where it was: each part that has ended is a line of the file that `--state`
names, and counts while the program's sources and the options stay as they are.

The parts:
- `small`, `jpeg`, `photos`, `tiff`: pages per second, loading, imports and the start of worker processes left out;
- `core`: what decoding and normalising cost, and the forward pass;
- `shell`: the installed command from its start to its end;
- `memory`: the peak of the installed command with all its processes on each kind of files;
- `growth`: distinct images, ten times as many each time; then nothing new.

What later work adds: files of another kind are one more `Kind` in `scans.py`, another peer one more contestant in
`parts.py`, another runtime one more member of the settings' `Runtime`.
"""

import importlib.util
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from batchdigits.inference import bundle
from batchdigits.reports.rows import MODEL_ID_LENGTH
from tests.benchmarks import parts, tables
from tests.benchmarks.parts import SIZES, Bench
from tests.benchmarks.program import RUNTIMES
from tests.benchmarks.reliability import program_id
from tests.benchmarks.rounds import Lines, lines_of, plain
from tests.benchmarks.scans import KINDS
from tests.cli_runner import CHECKOUT

STATE = Path(tempfile.gettempdir(), "batchdigits-speed.jsonl")
PACKAGES = {"keras": "tensorflow", "litert": "ai_edge_litert"}
"""What each runtime imports."""


def main(
    only: Annotated[list[str] | None, typer.Option(help="A part of the table. May be repeated.")] = None,
    runtime: Annotated[list[str] | None, typer.Option(help="Only this runtime. May be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Measured rounds; figures are their medians.")] = 5,
    largest: Annotated[int, typer.Option(min=SIZES[0], help="Distinct images, at most.")] = SIZES[-1],
    folder: Annotated[Path | None, typer.Option(help="Where images are made, and kept: 5 GB.")] = None,
    state: Annotated[Path, typer.Option(help="The parts so far, as JSON lines.")] = STATE,
) -> None:
    """Measure the program, its peers and the floor, and print one table."""
    runtimes = tuple(runtime or RUNTIMES)
    check_runtimes(runtimes)
    measures = all_parts(largest)
    chosen = [part for part in measures if not only or part.split()[0] in only]
    if unknown := set(only or ()) - {part.split()[0] for part in measures}:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="speed-")))
        measured = {}
        for part in chosen:
            key = {"program": program_id(), "runtimes": list(runtimes), "rounds": rounds, "part": part}
            lines = measured_before(key, state)
            if lines is None:
                lines = measures[part](Bench(place.absolute(), runtimes, rounds))
                with state.open("a") as file:
                    file.write(json.dumps(key | {"lines": plain(lines)}, ensure_ascii=False) + "\n")
            measured[part] = lines
    print(tables.markdown(list(tables.rows(measured))))
    print(f"\n{origin(runtimes)}")


def check_runtimes(runtimes: tuple[str, ...]) -> None:
    """Find out whether all runtimes are there.

    Raises:
        typer.BadParameter: One is not known, or not installed.
    """
    for runtime in runtimes:
        if runtime not in PACKAGES:
            raise typer.BadParameter(f"{runtime} is none of {', '.join(PACKAGES)}", param_hint="--runtime")
        if importlib.util.find_spec(PACKAGES[runtime]) is None:
            others = ", ".join(name for name in PACKAGES if name != runtime)
            raise typer.BadParameter(
                f"{runtime} is not installed here: pip install 'batchdigits[{runtime}]', or measure --runtime {others} "
                "alone",
                param_hint="--runtime",
            )


def all_parts(largest: int) -> dict[str, Callable[[Bench], Lines]]:
    """Name all parts, in the order in which they are measured."""
    return {
        **{kind.folder: partial(parts.throughput, kind=kind) for kind in KINDS},
        "core": parts.one_core,
        "shell": parts.from_the_shell,
        "memory": parts.memory,
        **{tables.growth_part(size): partial(parts.growth, count=size) for size in SIZES if size <= largest},
    }


def measured_before(key: dict[str, Any], state: Path) -> Lines | None:
    """Find a part that has ended before; None where it has not."""
    ended = map(json.loads, state.read_text().splitlines()) if state.exists() else ()
    return next((lines_of(part["lines"]) for part in ended if key.items() <= part.items()), None)


def origin(runtimes: tuple[str, ...]) -> str:
    """Say what was measured, and on what."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True)
    model = bundle.load()
    names = ["tensorflow", "keras", "numpy", "opencv-python-headless"] + ["ai-edge-litert"] * ("litert" in runtimes)
    return (
        f"Commit {commit.stdout.strip()}, model {model.id[:MODEL_ID_LENGTH]} "
        f"({model.provenance['recipe']['arch']}), {os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}, "
        f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names)
    )


if __name__ == "__main__":
    typer.run(main)

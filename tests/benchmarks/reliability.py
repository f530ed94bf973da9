"""Runs that are killed, overlapped, starved and misled in; how many of them ended as they should out.

Make the whole table in one go: `python -m tests.benchmarks.reliability`. Killed itself, it goes on where it stopped:
each trial that has ended is a line of the file that `--state` names, and counts while the program's sources stay as
they are. Trials are seeded, but what a kill hits depends on the machine. The right report is always, byte for byte,
that of a run that nobody disturbed and that keeps no ledger. The default suite shows the same with a few trials each.

Most runs have a stand-in for the model, so that they take a second; all else is the real program.

What later work adds: a fault is one more function in `faults.py` or `extremes.py`, another part one more line of
`main`.
"""

import hashlib
import json
import os
import platform
import sqlite3
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from tests.benchmarks import durability, extremes, faults, growth, kills, processes
from tests.benchmarks.trials import STAND_IN, TENSORFLOW, Outcome
from tests.cli_runner import CHECKOUT

Trial = Callable[[Path], Outcome]
Part = Mapping[str, Trial]
"""The trials by name."""

STATE = Path(tempfile.gettempdir(), "batchdigits-reliability.jsonl")


def main(
    only: Annotated[list[str] | None, typer.Option(help="A part of the table. May be repeated.")] = None,
    kills_stand_in: Annotated[int, typer.Option(min=0, help="Trials with killed runs, with the stand-in.")] = 180,
    kills_tensorflow: Annotated[int, typer.Option(min=0, help="The same with TensorFlow.")] = 20,
    overlaps: Annotated[int, typer.Option(min=0, help="Pairs of runs at once.")] = 50,
    damages: Annotated[int, typer.Option(min=0, help="Damaged ledgers.")] = 300,
    workers: Annotated[int, typer.Option(min=0, help="Runs of which a worker is killed, half as it writes.")] = 420,
    groups: Annotated[int, typer.Option(min=0, help="Runs whose group gets SIGTERM; some end before.")] = 240,
    stops: Annotated[int, typer.Option(min=0, help="Runs whose parent is stopped for a while.")] = 60,
    bits: Annotated[int, typer.Option(min=0, help="Flipped bits of ledgers, with reports of all formats.")] = 500,
    losses: Annotated[int, typer.Option(min=0, help="Losses of power, replayed from a trace.")] = 100,
    state: Annotated[Path, typer.Option(help="The trials so far, as JSON lines.")] = STATE,
    work: Annotated[Path | None, typer.Option(help="Where folders are made; growth needs 6 GB.")] = None,
) -> None:
    """Disturb the program in the ways that its users will, and count how often it ends well."""
    parts: dict[str, Part] = {
        "kills": numbered(kills_stand_in, partial(kills.kill, engine=STAND_IN)),
        "kills with TensorFlow": numbered(kills_tensorflow, partial(kills.kill, engine=TENSORFLOW)),
        "overlaps": numbered(overlaps, kills.overlap),
        "damage": numbered(damages, kills.damage),
        "workers killed": numbered(workers, processes.worker_killed),
        "groups ended": numbered(groups, processes.group_ended),
        "parents stopped": numbered(stops, processes.parent_stopped),
        "hurried": processes.HURRIES,
        "bits": numbered(bits, durability.flipped),
        "power": numbered(losses, durability.power_lost),
        "faults": faults.FAULTS | extremes.EXTREMES,
        "nothing new": growth.NOTHING_NEW,
        "growth": growth.GROWTH,
    }
    if unknown := set(only or ()) - set(parts):
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}; known are {', '.join(parts)}", param_hint="--only")
    program = program_id()
    found = outcomes_of(program, state)
    with tempfile.TemporaryDirectory(prefix="reliability-", dir=work) as temporary:
        for part in only or parts:
            for name, trial in tqdm(parts[part].items(), desc=part, unit="trial"):
                if (part, name) not in found:
                    found[part, name] = carry_out(trial, Path(temporary) / "trial")
                    line = {"program": program, "part": part, "trial": name, **asdict(found[part, name])}
                    with state.open("a") as lines:
                        lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    table = {part: {name: found[part, name] for name in parts[part]} for part in only or parts}
    wrong = print_tables(table)
    print_origin(program, state)
    raise typer.Exit(1 if wrong else 0)


def numbered(count: int, trial: Callable[..., Outcome]) -> Part:
    """Make many trials of one."""
    return {f"{number:03}": partial(trial, number=number) for number in range(count)}


def carry_out(trial: Trial, folder: Path) -> Outcome:
    """Let a trial have a folder, and a name for what it did not think of."""
    folder.mkdir()
    try:
        return trial(folder)
    except Exception as error:  # noqa: BLE001  a trial that fails is one line of the table, not the end of it
        return Outcome(["the trial failed"], [f"{type(error).__name__}: {error}"])
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
        subprocess.run(["rm", "-rf", folder], check=True)  # folders may be deeper than shutil.rmtree can follow


def program_id() -> str:
    """Name the state of the program's sources."""
    sources = sorted((CHECKOUT / "batchdigits").glob("**/*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def outcomes_of(program: str, state: Path) -> dict[tuple[str, str], Outcome]:
    """Read the trials that ended before, by part and name."""
    lines = map(json.loads, state.read_text().splitlines()) if state.exists() else ()
    return {
        (line["part"], line["trial"]): Outcome(line["seen"], line["wrong"], line["figures"])
        for line in lines
        if line["program"] == program
    }


def print_tables(parts: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    """Print a line a part, a line a fault, and the figures; return what was not as expected."""
    print("| part | trials | as expected | seen |\n| --- | ---: | ---: | --- |")
    for part, outcomes in parts.items():
        right = sum(not outcome.wrong for outcome in outcomes.values())
        seen = Counter(what for outcome in outcomes.values() for what in outcome.seen)
        counts = "; ".join(f"{what}: {count}" for what, count in seen.most_common())
        print(f"| {part} | {len(outcomes)} | {right} | {counts} |")
    if "faults" in parts:
        print("\n| fault | as expected | seen |\n| --- | --- | --- |")
        for name, outcome in parts["faults"].items():
            print(f"| {name} | {'no' if outcome.wrong else 'yes'} | {'; '.join(outcome.seen)} |")
    for name, outcome in parts.get("nothing new", {}).items():
        figures = ", ".join(f"{what} {figure:,.3g}" for what, figure in outcome.figures.items())
        print(f"\nNothing new, {name}: {figures}")
    wrong = [f"{part}, {name}: {what}" for part in parts for name, of in parts[part].items() for what in of.wrong]
    if "growth" in parts:
        wrong += growth.judged(parts["growth"])
    print("\nNot as expected: " + ("nothing" if not wrong else "\n- " + "\n- ".join(wrong)))
    return wrong


def print_origin(program: str, state: Path) -> None:
    """Print what the figures were measured on."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=CHECKOUT, capture_output=True, text=True)
    print(
        f"\nProgram {program} (git {commit.stdout.strip()}), {os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; trials in {state}"
    )


if __name__ == "__main__":
    typer.run(main)

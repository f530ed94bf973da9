"""A folder of files in; what came of runs over it that were killed, met another, or found their ledger damaged out."""

import random
import shutil
import signal
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.benchmarks.trials import (
    STAND_IN,
    Outcome,
    Place,
    difference,
    finished,
    link_into,
    replace,
    stock,
    survivors,
    unmet,
)

FILES = 400
"""Files of the folder."""
CHANGES = 20
"""Files that are new, replaced and gone in a folder that changes between two runs; of each kind so many."""
BATCH = {STAND_IN: 2}
"""Images a prediction by engine, else 8: few, so that there are many transactions."""
SOON = 0.03
"""Seconds: the time of some ten batches, or of writing the report."""
SEED = 1998


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """What a run over the folder makes and takes."""

    report: bytes
    """Of a run without a ledger."""
    seconds: float
    """From its start to its end."""


@cache
def undisturbed(work: Path, engine: str) -> Undisturbed:
    """Measure a run over the folder that trials begin with, once."""
    place = place_in(work / "measured", engine)
    report = place.whole()
    started = time.perf_counter()
    assert place.run().code == 0
    seconds = time.perf_counter() - started
    shutil.rmtree(place.folder)
    return Undisturbed(report, seconds)


def place_in(folder: Path, engine: str = STAND_IN) -> Place:
    """Make the folder of scans of a trial."""
    place = Place(folder, engine, BATCH.get(engine, 8))
    link_into(place.scans, stock(folder.parent)[:FILES])
    return place


def change(place: Place, rng: random.Random) -> None:
    """Let files come, go, and be replaced."""
    spare = stock(place.folder.parent)[FILES : FILES + 2 * CHANGES]
    touched = rng.sample(sorted(place.scans.iterdir()), 2 * CHANGES)
    for file, other in zip(touched, spare, strict=False):
        replace(file, other)
    for file in touched[CHANGES:]:
        file.unlink()
    link_into(place.scans, spare[CHANGES:])


def kill(folder: Path, *, engine: str, number: int) -> Outcome:
    """Kill a run at a random moment, sometimes a few in a row, sometimes one that has only a part to do; then run on.

    Half of the moments are drawn from the time that a run takes; since most of it goes into starting, the others come
    right after a number of files is known.
    """
    rng = random.Random(f"{SEED} {engine} {number}")
    whole = undisturbed(folder.parent, engine)
    place = place_in(folder, engine)
    expected, seen, left = whole.report, [], []
    place.report.parent.mkdir()
    if number % 4 == 3:
        assert place.run().code == 0
        change(place, rng)
        expected = place.whole()
    known = reached = place.known()
    before = shutil.copytree(place.report.parent, folder / "before")
    kills = rng.choice([1, 1, 1, 2, 3])
    while len(seen) < kills:
        run = place.start()
        if number % 2:
            place.wait_until_known(rng.randint(min(reached + 1, FILES), FILES), run)
        time.sleep(rng.uniform(0, SOON if number % 2 else whole.seconds))
        run.kill()
        if finished(run).code == -signal.SIGKILL:
            reached = place.known_after_kill()
            seen.append(phase(place, known, reached, expected))
        else:  # it had ended: begin again
            reached = known
            shutil.rmtree(place.report.parent)
            shutil.copytree(before, place.report.parent)
        left += survivors(run)
    result = place.run()
    report = place.read()
    wrong = unmet(
        {
            "exit code 0": result.code == 0,
            "no process lives on": not left,
            "nothing is left over": not place.left_over(),
        }
    )
    return Outcome(seen, wrong + [difference(report, expected)] * (report != expected))


def phase(place: Place, known: int, reached: int, expected: bytes) -> str:
    """Tell how far a run had come when it was killed, by the files that were known before and then."""
    if place.read() == expected:
        return "after the report"
    if reached == FILES:
        return "before the report"
    return "midway" if reached > known else "before any row"


def overlap(folder: Path, *, number: int) -> Outcome:
    """Start two runs at once: one of them works, the other waits for it, or is turned away."""
    rng = random.Random(f"{SEED} overlap {number}")
    place = place_in(folder)
    expected = undisturbed(folder.parent, STAND_IN).report
    options, second_code = [((), 75), (("--if-locked", "skip"), 0), (("--wait", "60"), 0)][number % 3]
    runs = [place.start(*options)]
    time.sleep(rng.uniform(0, 0.3))
    runs.append(place.start(*options))
    codes = sorted(finished(run).code for run in runs)
    report = place.read()
    wrong = unmet(
        {
            f"exit codes 0 and {second_code}, or twice 0 where they did not meet": codes in ([0, second_code], [0, 0]),
            "nothing left over": not place.left_over(),
            "a run after them has nothing to do": "0 of them new or changed" in place.run().stderr,
        }
    )
    seen = [" ".join(["exit codes", str(codes[0]), "and", str(codes[1]), *options])]
    return Outcome(seen, wrong + [difference(report, expected)] * (report != expected))


def damage(folder: Path, *, number: int) -> Outcome:
    """Flip bits of a byte of a ledger, or cut its end off; then run, with or without new files and the old report.

    Either the ledger is refused with what to do about it, and the report stays, or the report is the right one.
    """
    rng = random.Random(f"{SEED} damage {number}")
    place = place_in(folder)
    before = expected = undisturbed(folder.parent, STAND_IN).report
    data = bytearray(ledger_of(place))
    at = rng.randrange(len(data))
    if number % 3:
        data[at] ^= rng.randrange(1, 256)
    else:
        del data[at:]
    place.report.parent.mkdir(exist_ok=True)
    place.ledger.write_bytes(data)
    place.report.write_bytes(before)
    if rng.random() < 0.5:
        change(place, random.Random(SEED))
        expected = report_after_change(place)
    if rng.random() < 0.5:
        place.report.unlink()
        before = b""
    result = place.run()
    report = place.read()
    what = "byte flipped" if number % 3 else "truncated"
    if result.code == 5:
        wrong = unmet({"the remedy is named": "move it away" in result.stderr, "the report stays": report == before})
        return Outcome([f"{what}: refused"], wrong + [result.stderr] * bool(wrong))
    wrong = unmet({"exit code 0 or 5": result.code == 0})
    return Outcome([f"{what}: right report"], wrong + [difference(report, expected)] * (report != expected))


@cache
def ledger_of(place: Place) -> bytes:
    """Make a ledger, once: it holds absolute paths, and every trial has the same."""
    assert place.run().code == 0
    return place.ledger.read_bytes()


@cache
def report_after_change(place: Place) -> bytes:
    """Make the right report of the folder after a change that is always the same, once."""
    return place.whole()

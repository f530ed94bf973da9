"""A folder of files in; what came of runs whose workers, group or parent were killed, ended, stopped or hurried out.

Killed at random moments: what a worker, or its parent, was doing then is left to chance, writing a result included.
"""

import os
import random
import signal
import subprocess
import time
from functools import cache, partial
from pathlib import Path

from tests.benchmarks.trials import (
    Outcome,
    Place,
    difference,
    finished,
    in_session,
    link_into,
    stock,
    survivors,
    unmet,
)
from tests.commands import Result

FILES = 2000
"""Files of the folder."""
SEED = 1998
BOUND = 60
"""Seconds after which a run that was disturbed has to have ended."""
WORKERS = ("--workers", "2")
HURRIED = 12_000
"""Files over which runs are killed again and again."""
START = 2.0
"""Seconds that a run may take until it records something."""
MOST_RUNS = 400
"""Hurried runs after which it will come to no end."""


def disturbed(folder: Path) -> Place:
    """Make the folder of scans of a trial."""
    place = Place(folder)
    link_into(place.scans, stock(folder.parent)[:FILES])
    return place


@cache
def expected_of(work: Path) -> bytes:
    """Make the report of a run that nobody disturbs, once."""
    return disturbed(work / "undisturbed").whole()


def workers_of(run: "subprocess.Popen[str]") -> list[int]:
    """List the processes that a run has started."""
    return [one for one in in_session(run.pid) if one != run.pid and not _tracks(one)]


def _tracks(process: int) -> bool:
    try:
        return b"resource_tracker" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


def begun(place: Place, rng: random.Random) -> "subprocess.Popen[str]":
    """Start a run, and wait until it is somewhere between the start of its workers and its end."""
    run = place.start(*WORKERS)
    while not workers_of(run) and run.poll() is None:
        time.sleep(0.01)
    if rng.random() < 0.7:
        place.wait_until_known(rng.randint(1, FILES // 4), run)
    time.sleep(rng.uniform(0, 0.1))
    return run


def ended(run: "subprocess.Popen[str]") -> Result | None:
    """Wait for the end of a run; None where it does not come, and the run is killed."""
    try:
        run.wait(BOUND)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate()
        return None
    return finished(run)


def worker_killed(folder: Path, *, number: int) -> Outcome:
    """Kill one worker: the run ends, or is right; so are those after it."""
    rng = random.Random(f"{SEED} worker {number}")
    place = disturbed(folder)
    run = begun(place, rng)
    return went_on(place, run, "a worker killed" if _kill_one(run, rng) else "no worker there", codes=(0, 1, 3))


def group_ended(folder: Path, *, number: int) -> Outcome:
    """Send SIGTERM to the whole group, as `timeout` does."""
    rng = random.Random(f"{SEED} group {number}")
    place = disturbed(folder)
    run = begun(place, rng)
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGTERM)
    return went_on(place, run, "SIGTERM to the group", codes=(0, 143))


def parent_stopped(folder: Path, *, number: int) -> Outcome:
    """Stop the parent for a while, so that workers fill their pipes; in every other trial, kill one meanwhile."""
    rng = random.Random(f"{SEED} stopped {number}")
    place = disturbed(folder)
    run = begun(place, rng)
    what = "the parent stopped"
    if run.poll() is None:
        run.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0, 1))
        if number % 2 and _kill_one(run, rng):
            what += ", a worker killed"
        run.send_signal(signal.SIGCONT)
    return went_on(place, run, what, codes=(0, 1, 3))


def _kill_one(run: "subprocess.Popen[str]", rng: random.Random) -> bool:
    workers = workers_of(run)
    if workers:
        os.kill(rng.choice(workers), signal.SIGKILL)
    return bool(workers)


def went_on(place: Place, run: "subprocess.Popen[str]", what: str, *, codes: tuple[int, ...]) -> Outcome:
    """Judge a run that was disturbed, and those that go on from there: three at most."""
    first = ended(run)
    left = survivors(run)
    others: list[int] = []
    while len(others) < 3 and 0 not in others[-1:]:
        others.append(place.run(*WORKERS).code)
    report, expected = place.read(), expected_of(place.folder.parent)
    code = first.code if first else None
    wrong = unmet(
        {
            f"an end within {BOUND} seconds": first is not None,
            f"one of the exit codes {codes}, and not {code}": code in (None, *codes),
            "the next runs come to their end": others[-1] == 0,
            "no process lives on": not left,
            "nothing is left over": not place.left_over(),
        }
    )
    said = [f"it said: {first.stderr[-300:].strip()}"] if wrong and first else []
    wrong += [difference(report, expected)] * (report != expected)
    return Outcome([f"{what}: {code}, then {', '.join(map(str, others))}"], wrong + said)


def hurried(folder: Path, *, seconds: float, files: int = HURRIED) -> Outcome:
    """Kill each run after the same time, until one comes to its end: each that had time to start has got further."""
    place = Place(folder, batch_size=1024)  # as the program has it
    for number in range(0, files, 2000):  # the same bytes under other names would be read, but not predicted
        link_into(place.scans / f"{number:05}", stock(folder.parent)[: min(2000, files - number)])
    known = [0]
    while len(known) <= MOST_RUNS:
        run = place.start(*WORKERS)
        try:
            run.wait(seconds)
            break
        except subprocess.TimeoutExpired:
            run.kill()
            finished(run)
            known.append(place.known_after_kill())
    code = finished(run).code
    still = sum(now <= before for before, now in zip(known, known[1:], strict=False))
    wrong = unmet(
        {
            "an end": code == 0,
            f"progress in each of {len(known) - 1} runs, and not none in {still}": seconds < START or not still,
            "nothing known is lost": known == sorted(known),
        }
    )
    return Outcome([f"killed each {seconds} s: done after {len(known)} runs"], wrong, {"runs": len(known)})


HURRIES = {f"each {seconds} s": partial(hurried, seconds=seconds) for seconds in (0.7, 1.0, 2.0, 3.0, 4.0)}
"""Trials by the seconds after which each run is killed."""

"""A folder of files in; what came of runs whose workers, group or parent were killed, ended, stopped or hurried out.

Killed at random moments: what a worker, or its parent, was doing then is left to chance, writing a result included.
"""

import os
import random
import shutil
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
from tests.cli_runner import Result

FILES = 240
"""Files of the folder, where each takes ten milliseconds to read, or is read as fast as it can be."""
LARGE = 1100
"""Files of the folder whose workers are met while they write: what they tell of a chunk is more than a pipe takes."""
SEED = 1998
BOUND = 600
"""Seconds after which a run that was disturbed has to have ended."""
WORKERS = ("--workers", "2")
TRIES = 5
"""Runs that are begun until one has a worker to meet."""
HURRIED = 12_000
"""Files over which runs are killed again and again."""
START = 2.0
"""Seconds that a run may take until it records something."""
MOST_RUNS = 400
"""Hurried runs after which it will come to no end."""


def disturbed(folder: Path, files: int = FILES) -> Place:
    """Make the folder of scans of a trial."""
    place = Place(folder)
    link_into(place.scans, stock(folder.parent)[:files])
    return place


@cache
def expected_of(work: Path, files: int) -> bytes:
    """Make the report of a run that nobody disturbs, once."""
    return disturbed(work / f"undisturbed-{files}", files).whole()


def workers_of(run: "subprocess.Popen[str]") -> list[int]:
    """List the processes that a run has started, and that live."""
    return [one for one in in_session(run.pid) if one != run.pid and _works(one)]


def _works(process: int) -> bool:
    try:
        command = Path(f"/proc/{process}/cmdline").read_bytes()  # empty of one that has ended
    except OSError:
        return False
    return command != b"" and b"resource_tracker" not in command


def begun(place: Place, *, slowly: bool) -> "subprocess.Popen[str]":
    """Start a run, and wait until it has workers, or has ended."""
    env = {"SLOW": str(place.folder / "count")} if slowly else {}
    run = place.start(*WORKERS, env=env)
    while not workers_of(run) and run.poll() is None:
        time.sleep(0.005)
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
    """Kill one worker, in every other trial while it writes: the run comes to its end all the same, and is right."""
    rng = random.Random(f"{SEED} worker {number}")
    kill, files = (_kill_a_writer, LARGE) if number % 2 else (_kill_a_reader, FILES)
    place = disturbed(folder, files)
    for _ in range(TRIES):
        run = begun(place, slowly=files == FILES)
        if met := kill(run, rng):
            return went_on(place, run, met, codes=(0,), files=files)
        finished(run)
        shutil.rmtree(place.report.parent)
    return Outcome(["no worker was met"], [])


def _kill_a_reader(run: "subprocess.Popen[str]", rng: random.Random) -> str:
    """Kill a worker at a random moment while files are read; say what was met."""
    time.sleep(rng.uniform(0, 1.2))
    return "a worker killed" if _kill_one(workers_of(run), rng) else ""


def _kill_a_writer(run: "subprocess.Popen[str]", rng: random.Random) -> str:
    """Stop the parent, so that a worker fills its pipe and waits; kill it then, or while the parent reads again."""
    writing: list[int] = []
    while run.poll() is None and not writing:
        run.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 0.5
        while time.monotonic() < until and not writing:
            writing = list(filter(_writes, workers_of(run)))
        if not writing:  # none has been given anything yet
            run.send_signal(signal.SIGCONT)
            time.sleep(0.02)
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 0.1))
        met = "a worker killed as it writes" if _kill_one(writing, rng) else ""
        run.send_signal(signal.SIGCONT)
    else:
        run.send_signal(signal.SIGCONT)
        time.sleep(rng.uniform(0, 0.002))
        met = "a worker killed as it is read from" if _kill_one(writing, rng) else ""
    return met


def _writes(process: int) -> bool:
    """Tell whether a process waits in writing to a pipe."""
    try:
        return Path(f"/proc/{process}/wchan").read_text().endswith("pipe_write")
    except OSError:
        return False


def group_ended(folder: Path, *, number: int) -> Outcome:
    """Send SIGTERM to the whole group, as `timeout` does: while files are read, while they are recorded, at the end."""
    rng = random.Random(f"{SEED} group {number}")
    place = disturbed(folder)
    run = begun(place, slowly=number % 2 == 0)
    if number % 4 == 3:
        while not place.report.exists() and run.poll() is None:
            time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.2 if number % 2 else 1.5))
    what = "SIGTERM to the group"
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGTERM)
    else:
        what = "ended before"
    return went_on(place, run, what, codes=(0, 143))


def parent_stopped(folder: Path, *, number: int) -> Outcome:
    """Stop the parent for a while, so that workers fill their pipes; in every other trial, kill one meanwhile."""
    rng = random.Random(f"{SEED} stopped {number}")
    place = disturbed(folder)
    run = begun(place, slowly=True)
    time.sleep(rng.uniform(0, 0.8))
    what = "the parent stopped"
    if run.poll() is None:
        run.send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0, 1))
        if number % 2 and _kill_one(workers_of(run), rng):
            what += ", a worker killed"
        run.send_signal(signal.SIGCONT)
    return went_on(place, run, what, codes=(0,))


def _kill_one(workers: list[int], rng: random.Random) -> bool:
    """Kill one of some workers; tell whether it was still there."""
    try:
        os.kill(rng.choice(workers), signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return False
    return True


def went_on(
    place: Place, run: "subprocess.Popen[str]", what: str, *, codes: tuple[int, ...], files: int = FILES
) -> Outcome:
    """Judge a run that was disturbed, and those that go on from there: three at most."""
    first = ended(run)
    left = survivors(run)
    others: list[int] = []
    while len(others) < 3 and 0 not in others[-1:]:
        others.append(place.run(*WORKERS).code)
    report, expected = place.read(), expected_of(place.folder.parent, files)
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

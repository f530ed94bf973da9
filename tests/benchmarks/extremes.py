"""Folders, names and files as bad as they may be in; what came of a run, and of the runs after it, out."""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks.growth import SIZES, grow
from tests.benchmarks.trials import (
    COMMANDS,
    STAND_IN,
    Outcome,
    Place,
    finished,
    judged,
    link_into,
    place_with,
    start,
    stock,
    survivors,
    unmet,
)

PATH_BYTES, NAME_BYTES = 4095, 255
"""What Linux allows: PATH_MAX without the final zero, and NAME_MAX."""
MANY = SIZES[0]
"""Files from which the program's workers are processes."""


# ---- folders and names ---------------------------------------------------------------------------------------------


def many_in_one_folder(folder: Path) -> Outcome:
    """Put many files side by side."""
    place = Place(folder, batch_size=512)
    grow(place.scans, MANY)
    first, second = place.run(), place.run()
    rows = place.read().count(b"\n") - 1
    expectations = {"a row for each": rows == MANY, "nothing new": "0 of them new or changed" in second.stderr}
    return judged(place, [first, second], (0, 0), expectations)


def deep(folder: Path, *, name_bytes: int) -> Outcome:
    """Nest folders until the path of the file in the last one is as long as a path may be."""
    place = place_with(folder, 10)
    room = PATH_BYTES - len(bytes(place.scans)) - 1
    levels = (room - len("7.png")) // (name_bytes + 1)
    last = "7.png".rjust(room - levels * (name_bytes + 1), "7")
    nest(place.scans, ["d" * name_bytes] * levels, last, stock(folder.parent)[10])
    first, second = place.run(), place.run()
    expectations = {
        "nothing new": "0 of them new or changed" in second.stderr,
        "11 rows": place.read().count(b"\n") == 12,
    }
    outcome = judged(place, [first, second], (0, 0), expectations)
    return Outcome([f"{levels} levels: {outcome.seen[0]}"], outcome.wrong)


def nest(folder: Path, names: list[str], last: str, file: Path) -> None:
    """Make folders in one another and link a file into the last one, step by step: its whole path may be too long."""
    here = os.open(folder, os.O_PATH)
    for name in names:
        os.mkdir(name, dir_fd=here)
        above, here = here, os.open(name, os.O_PATH, dir_fd=here)
        os.close(above)
    os.link(file, last, dst_dir_fd=here)
    os.close(here)


def too_deep(folder: Path) -> Outcome:
    """Nest one level more: the file has no path that could be named."""
    place = place_with(folder, 10)
    nest(place.scans, ["d" * 255] * 16, "7.png", stock(folder.parent)[10])
    result = place.run()
    wrong = unmet(
        {"refused, or a row that says so": result.code in (3, 5), "a sentence": "unexpected" not in result.stderr}
    )
    return Outcome([f"exit code {result.code}"], wrong + [result.stderr[-300:]] * bool(wrong))


def long_names(folder: Path, *, letter: str) -> Outcome:
    """Give the source and two reports names as long as a name may be; those of the reports differ at their ends."""
    whole = place_with(folder, 100).whole()
    longest = letter * ((NAME_BYTES - 8) // len(letter.encode()))
    scans = (folder / "scans").rename(folder / f"{longest}12345678")
    reports = [folder / f"{longest}{number:04}.csv" for number in range(2)]
    results = []
    for report in [*reports, *reports]:
        results.append(finished(start([*COMMANDS[STAND_IN], "predict", scans, "-o", report])))
    expectations = {
        "exit codes 0": not any(result.code for result in results),
        "nothing new": all("0 of them new or changed" in result.stderr for result in results[2:]),
        "the right reports": all(report.exists() and report.read_bytes() == whole for report in reports),
        "a report, a ledger and a lock each": len(list(folder.iterdir())) == 1 + 2 * 3,
    }
    wrong = unmet(expectations)
    seen = "exit codes " + ", ".join(str(result.code) for result in results)
    return Outcome([seen], wrong + [result.stderr[-300:] for result in results] * bool(wrong))


# ---- what kills a process ------------------------------------------------------------------------------------------


def crash(folder: Path, *, files: int, crashing: int) -> Outcome:
    """Let files crash their decoder: they have rows that say so in the same run, and all else is as ever."""
    place = Place(folder, batch_size=64)
    if files < MANY:
        link_into(place.scans, stock(folder.parent)[:files])
    else:
        grow(place.scans, files)
    right = set(place.whole().splitlines())
    paths = sorted(place.scans.rglob("*.png"))
    bad = [paths[files // 4], paths[-1]][:crashing]
    env = {"CRASH_ON": " ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in bad)}
    runs = [place.run(env=env)]
    report = set(place.read().splitlines())
    runs.append(place.run(env=env))
    stays = set(place.read().splitlines()) == report
    runs.append(place.run("--retry-failed"))  # with a decoder that was mended
    told = [row for row in report - right if b",unreadable," in row and b"crashes its decoder" in row]
    expectations = {
        "their rows, and no others, say so": len(told) == len(report - right) == len(right - report) == crashing,
        "the report stays": stays,
    }
    return judged(place, runs, (3, 0, 0), expectations)


def killed_with_workers(folder: Path, *, known: int) -> Outcome:
    """Kill a run whose workers are processes: none lives on, and the next run makes it good."""
    place = Place(folder, batch_size=64)
    grow(place.scans, MANY)
    run = place.start()
    place.wait_until_known(known, run)
    run.kill()
    first, left = finished(run), survivors(run)
    return judged(place, [first, place.run()], (-9, 0), {"no process lives on": not left})


EXTREMES: dict[str, Callable[[Path], Outcome]] = {
    f"{MANY:,} files in one folder": many_in_one_folder,
    **{f"folders of {name_bytes} bytes, nested": partial(deep, name_bytes=name_bytes) for name_bytes in (1, 250)},
    "nested deeper than a path may be": too_deep,
    **{f"names of {NAME_BYTES} bytes, of {letter}": partial(long_names, letter=letter) for letter in "nü数"},
    **{
        f"{crashing} of {files:,} files crash their decoder": partial(crash, files=files, crashing=crashing)
        for files, crashing in ((600, 1), (2000, 2), (MANY, 1))
    },
    **{
        f"killed with worker processes at file {known:,}": partial(killed_with_workers, known=known)
        for known in (1, 5000)
    },
}
"""What a run is tried with, by name."""

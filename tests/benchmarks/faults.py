"""A folder and something that goes wrong with it in; what came of a run, and of the run after it, out."""

import csv
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import cv2

from tests.benchmarks.trials import Outcome, Place, finished, judged, link_into, place_with, replace, stock
from tests.cli_runner import Result
from tests.sample_pages import digits

IS_ROOT = os.geteuid() == 0
PERMISSIONS_HOLD = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search") if IS_ROOT else ()
"""Runs a command so that permissions hold for it."""


# ---- the disk ------------------------------------------------------------------------------------------------------


def hindered(place: Place, run: Callable[[], Result], *options: str | Path) -> Outcome:
    """Run; let files come; run where it cannot write, which leaves the old report; and run where it can."""
    files = stock(place.folder.parent)
    link_into(place.scans, files[:200])
    first, old = place.run(*options), place.read()
    link_into(place.scans, files[200:800])
    second, stands = run(), place.read()
    expectations = {"the old report stands": stands == old, "it says why": "cannot rollback" not in second.stderr}
    return judged(place, [first, second, place.run(*options)], (0, 5, 0), expectations)


def disk_full(folder: Path, *, left: int, options: tuple[str | Path, ...] = ()) -> Outcome:
    """Let the disk of the report have so many bytes left."""
    if not IS_ROOT:
        return Outcome(["not tried: only root may mount a small disk"], [])
    place = Place(folder)

    def run() -> Result:
        filler = place.report.with_name("filler.lock")
        status = os.statvfs(filler.parent)
        filler.write_bytes(bytes(status.f_bavail * status.f_bsize - left))
        result = place.run(*options)
        filler.unlink()
        return result

    with small_disk(place.report.parent):
        return hindered(place, run, *options)


def report_disk_full(folder: Path, *, left: int) -> Outcome:
    """Let the disk of the report have so many bytes left, while the ledger has all that it needs."""
    return disk_full(folder, left=left, options=("--ledger", folder / "ledger"))


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount 2 MiB of memory at a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def size_limit(folder: Path, *, size_bytes: int) -> Outcome:
    """Let no file become larger."""
    place = Place(folder)
    return hindered(place, lambda: place.run(before=("prlimit", f"--fsize={size_bytes}")))


def no_permission(folder: Path, *, name: str) -> Outcome:
    """Take away the permission to write to the folder of the report, or to a file in it."""
    place = Place(folder)

    def run() -> Result:
        path = place.report.parent / name
        mode = path.stat().st_mode
        path.chmod(mode & 0o555)
        result = place.run(before=PERMISSIONS_HOLD)
        path.chmod(mode)
        return result

    return hindered(place, run)


# ---- the source ----------------------------------------------------------------------------------------------------


def source_gone(folder: Path, *, known: int, is_mount: bool) -> Outcome:
    """Take the source away when a run knows so many files; of a mount, an empty folder stays."""
    place = place_with(folder, 600)
    first, old = place.run(), place.read()
    link_into(place.scans, stock(folder.parent)[600:])
    run = place.start()
    place.wait_until_known(known, run)
    away = place.scans.rename(folder / "away")
    if is_mount:
        place.scans.mkdir()
    second, stands = finished(run), place.read()
    if is_mount:
        place.scans.rmdir()
    away.rename(place.scans)
    return judged(place, [first, second, place.run()], (0, 5, 0), {"the old report stands": stands == old})


def files_replaced(folder: Path, *, number: int) -> Outcome:
    """Replace files during a run: each row is of the old bytes or the new ones, whole; the next run knows the new."""
    rng = random.Random(number)
    right = cells_by_sum(folder.parent)
    place = place_with(folder, 1000)
    run = place.start()
    for file, other in zip(rng.sample(sorted(place.scans.iterdir()), 500), stock(folder.parent)[1000:], strict=False):
        if run.poll() is None:
            time.sleep(rng.uniform(0, 0.01))
            replace(file, other)
    first = finished(run)
    whole = all(cells == right[cells[SHA256]] for _, *cells in rows_of(place.read()))
    return judged(place, [first, place.run()], (0, 0), {"each row is whole": whole})


SHA256 = -2
"""The place of the file's sum in a row."""


@cache
def cells_by_sum(work: Path) -> dict[str, list[str]]:
    """Read all files of the stock, undisturbed: the cells of their rows behind the path, by the sum of their bytes."""
    rows = rows_of(place_with(work / "all", len(stock(work))).whole())
    return {cells[SHA256]: cells for _, *cells in rows}


def rows_of(report: bytes) -> list[list[str]]:
    """Read a report's rows."""
    return list(csv.reader(report.decode().splitlines()))[1:]


def file_growing(folder: Path) -> Outcome:
    """Write a file piece by piece while a run goes on: it has no row until it is whole."""
    place = place_with(folder, 100)
    data = stock(folder.parent)[100].read_bytes()
    growing = place.scans / "growing.png"
    growing.write_bytes(data[:50])
    run = place.start("--settle", "2")
    for byte in data[50:-1]:
        if run.poll() is None:
            time.sleep(0.05)
            with growing.open("ab") as file:
                file.write(bytes([byte]))
    first, rows = finished(run), rows_of(place.read())
    growing.write_bytes(data)
    return judged(place, [first, place.run("--settle", "2")], (0, 0), {"it has no row yet": len(rows) == 100})


def clock_set_back(folder: Path) -> Outcome:
    """Let files be of the future, and then, with other bytes of the same length, of a time before 1970."""
    place = place_with(folder, 100)

    def write(first: int, time_: float) -> bytes:
        for number in range(10):
            file = place.scans / f"digit {number}.bmp"
            file.write_bytes(cv2.imencode(".bmp", 255 - digits(300)[first + number])[1].tobytes())
            os.utime(file, (time_, time_))
        return place.whole()

    of_the_future = write(200, time.time() + 3e7)
    first, report = place.run("--settle", "2"), place.read()
    write(250, -1e6)
    second, third = place.run("--settle", "2"), place.run("--settle", "2")
    expectations = {
        "all are read": report == of_the_future,
        "and again": "10 of them new or changed" in second.stderr,
        "and no more": "0 of them new or changed" in third.stderr,
    }
    return judged(place, [first, second, third], (0, 0, 0), expectations)


FAULTS: dict[str, Callable[[Path], Outcome]] = {
    **{f"disk full, {left} KiB left": partial(disk_full, left=left * 1024) for left in (0, 16, 64, 128)},
    **{f"the report's disk full, {left} KiB left": partial(report_disk_full, left=left * 1024) for left in (0, 64)},
    **{f"no file above {size} KiB": partial(size_limit, size_bytes=size * 1024) for size in (0, 16, 100)},
    "no permission to write into the report's folder": partial(no_permission, name=""),
    "no permission to write the ledger": partial(no_permission, name="report.csv.ledger"),
    **{
        f"source {'unmounted' if is_mount else 'moved away'} at file {known}": partial(
            source_gone, known=known, is_mount=is_mount
        )
        for is_mount in (False, True)
        for known in (601, 1000, 1400)
    },
    **{f"files replaced during a run, {number}": partial(files_replaced, number=number) for number in range(5)},
    "a file that grows during a run": file_growing,
    "files of the future, then of before 1970": clock_set_back,
}
"""What goes wrong, by name."""

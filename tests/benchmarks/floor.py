"""Files in, nothing out: the floor, which only reads and decodes them, in each way that may be the quickest."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np

from tests.benchmarks.rounds import Contestant, Line, Lines, timed

FLOOR = "read and decode only, "
"""How the names of its ways begin."""
CORES = len(os.sched_getaffinity(0))
"""Threads, or processes, that go through the files."""
TASKS = 16
"""Tasks a core that the files are cut into."""
LARGEST_TASK = 64
"""Files of one task, at most."""

Ways = dict[str, Callable[[Sequence[Sequence[str]], bool], object]]
"""By name: what goes through tasks, buffered or not."""


@contextmanager
def readers() -> Iterator[Ways]:
    """Start the threads and processes that read, and end them."""
    with ThreadPoolExecutor(CORES) as threads, get_context("spawn").Pool(CORES) as processes:
        yield {
            "1 thread": lambda tasks, buffered: [read_and_decode(task, buffered=buffered) for task in tasks],
            f"{CORES} threads": lambda tasks, buffered: list(
                threads.map(partial(read_and_decode, buffered=buffered), tasks)
            ),
            f"{CORES} processes": lambda tasks, buffered: processes.map(
                partial(read_and_decode, buffered=buffered), tasks, chunksize=1
            ),
        }


def contestants(files: Sequence[str], images: int, ways: Ways) -> dict[str, Contestant]:
    """Let each way go through files, of so many images; once with Python's buffer and once without."""
    size = max(1, min(LARGEST_TASK, len(files) // (TASKS * CORES)))
    tasks = [files[start : start + size] for start in range(0, len(files), size)]
    return {
        f"{FLOOR}{name}, {'' if buffered else 'un'}buffered": Contestant(images, timed(partial(way, tasks, buffered)))
        for name, way in ways.items()
        for buffered in (True, False)
    }


def read_and_decode(files: Sequence[str], *, buffered: bool) -> None:
    """Read and decode files, all their pages, and do nothing with them."""
    for file in files:
        with open(file, "rb", buffering=-1 if buffered else 0) as handle:  # noqa: PTH123  a Path takes longer
            data = np.frombuffer(handle.read(), np.uint8)
        if file.endswith(".tif"):
            cv2.imdecodemulti(data, cv2.IMREAD_GRAYSCALE)
        else:
            cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def quickest(lines: Lines) -> tuple[str, Line]:
    """Find the way that was the quickest, and its line."""
    ways = {name: line for name, line in lines.items() if name.startswith(FLOOR)}
    return min(ways.items(), key=lambda way: way[1].median)

"""What many tests share: the ink finder that ships, and that Ctrl-C reaches the processes they start."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

from batchdigits.inference import bundle
from batchdigits.inference.runtimes import InkFinder
from batchdigits.settings import Runtime

if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # behind `&`, a shell lets its jobs ignore it

settings.register_profile("no test measures time", deadline=None)
settings.load_profile("no test measures time")


def pytest_xdist_auto_num_workers() -> int:
    """Have one process more than cores: a test waits for a part of its time, for clocks or what it started."""
    return 1 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that train come first: what one process takes over from another in the end is short, and repeats none.

    The networks that a module trains for its tests would else be trained in both.
    """
    items.sort(key=lambda item: "training" not in item.path.parts)


@pytest.fixture(scope="session")
def network() -> Iterator[InkFinder]:
    """The packaged ink finder, by LiteRT, which starts at once."""
    with InkFinder(bundle.PACKAGED, runtime=Runtime.LITERT) as finder:
        yield finder

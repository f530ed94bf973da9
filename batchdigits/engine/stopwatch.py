"""The stages of a run in; for how many seconds each was at work, out: several at the same time, so they sum to more."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("list", "decode", "normalise", "load model", "predict", "decide", "record", "settle", "report")
"""All that a run does, in the order in which an image passes through; `decode` reads files, too."""


class Stopwatch:
    """Seconds of a run, and of each stage of it."""

    def __init__(self) -> None:
        """Start."""
        self._started = time.perf_counter()
        self._seconds = dict.fromkeys(STAGES, 0.0)
        self._seen: set[str] = set()

    @property
    def seconds(self) -> dict[str, float]:
        """For how long each stage was at work, in the order of `STAGES`, without those that were not.

        Of decoding workers it is the sum, so that it may be more than the run took.
        """
        return {name: seconds for name, seconds in self._seconds.items() if name in self._seen}

    @property
    def elapsed(self) -> float:
        """Wall-clock seconds since the start."""
        return time.perf_counter() - self._started

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time to a stage; each stage is counted by one thread."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Count time to a stage that was measured elsewhere."""
        self._seconds[name] += seconds
        self._seen.add(name)

"""The stages of a run in; how many seconds each took, out."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(slots=True)
class Stopwatch:
    """Wall-clock seconds of each stage of a run."""

    seconds: dict[str, float] = field(default_factory=dict)
    """By stage, in the order in which stages first ran."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def part(self, name: str, seconds: float, *, of: str) -> None:
        """Count some of a stage's time to a stage of its own."""
        if seconds:
            self.seconds[of] -= seconds
            self.seconds[name] = seconds

    def each(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Pass items on, and count the time that they keep the run waiting to a stage."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

"""What a run did, in numbers and in one line."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from batchdigits.errors import FaultKind

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


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    files: int
    """Image files found."""
    pending: int
    """How many of them had to be read."""
    rows: Counter[str]
    """Rows of the report by status."""
    passed_over: Counter[str]
    """What was found and is no image, by reason."""
    faulty: int
    """Pages new to this run that are unreadable, too large or unsupported."""
    seconds: dict[str, float]
    """Wall-clock time by stage."""

    def line(self) -> str:
        """Say it in one line."""
        pages = self.rows.total()
        busy = sum(self.seconds.values())
        parts = [f"{self.files} {_plural(self.files, 'image')} found"]
        if self.pending != self.files:
            parts.append(f"{self.pending} of them new or changed")
        if pages != self.files:
            parts.append(f"{pages} {_plural(pages, 'page')}")
        always = ("ok", "review", "blank", FaultKind.UNREADABLE)
        parts += [f"{self.rows[name]} {name}" for name in (*always, *sorted(set(self.rows) - set(always)))]
        if self.passed_over:
            parts.append(f"{self.passed_over.total()} passed over")
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        rate = self.pending / busy if busy else 0.0
        return f"{', '.join(parts)}; {rate:,.0f} images/s; seconds: {stages}"


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"

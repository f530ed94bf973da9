"""Contestants in; what each of them took, round after round, out: what the benchmarks of speed share."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm


@dataclass(frozen=True, slots=True)
class Pass:
    """What one contestant took to go through its images once."""

    seconds: float
    """Wall-clock seconds, of the shell or of the work itself; processor seconds where one core is measured."""
    tree_mb: float | None = None
    """Peak of all its processes together, in 10^6 bytes, what they share counted once; None if it was not measured."""
    main_mb: float | None = None
    """Peak of its first process alone, with all that it shares."""
    finding: float | None = None
    """The part of the seconds in which ink was found on pages that rules cannot read; None if it was not measured."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One that goes through images again and again."""

    images: int
    """How many it goes through in one pass; 0 where it is a command that reads none."""
    run: Callable[[], Pass]
    """Go through them once."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one contestant."""

    images: int
    """How many it went through in each pass."""
    passes: Sequence[Pass]
    """One a round."""

    @property
    def seconds(self) -> list[float]:
        """List the seconds by round."""
        return [one.seconds for one in self.passes]

    @property
    def rates(self) -> list[float]:
        """List the images per second by round."""
        return [self.images / one.seconds for one in self.passes]

    @property
    def median(self) -> float:
        """Give the median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def rate(self) -> float:
        """Give the median of the images per second."""
        return statistics.median(self.rates)

    @property
    def other_rates(self) -> list[float]:
        """List the images per second by round, had no ink been looked for; empty if that was not measured."""
        return [self.images / (one.seconds - one.finding) for one in self.passes if one.finding is not None]

    @property
    def tree_mb(self) -> list[float]:
        """List the peaks of all processes by round."""
        return [one.tree_mb for one in self.passes if one.tree_mb is not None]

    @property
    def main_mb(self) -> list[float]:
        """List the peaks of the first process by round."""
        return [one.main_mb for one in self.passes if one.main_mb is not None]


Lines = dict[str, Line]
"""Lines by the name of the contestant; those of one part were measured in turn."""


def plain(lines: Lines) -> dict[str, Any]:
    """Turn lines into what JSON can hold."""
    return {name: asdict(line) for name, line in lines.items()}


def lines_of(data: dict[str, Any]) -> Lines:
    """Turn them back."""
    return {name: Line(line["images"], [Pass(**one) for one in line["passes"]]) for name, line in data.items()}


def in_phase(contestants: Mapping[str, Contestant], rounds: int, *, title: str, warm_up: bool = True) -> Lines:
    """Let all contestants go through their images in turn, round after round, so that noise hits them alike.

    Args:
        contestants: By name.
        rounds: How many count.
        title: Stands before the progress bar.
        warm_up: Begin with one more round, which does not count.
    """
    passes: dict[str, list[Pass]] = {name: [] for name in contestants}
    with tqdm(total=(rounds + warm_up) * len(contestants), desc=title, unit="pass") as bar:
        for number in range(-int(warm_up), rounds):
            for name, contestant in contestants.items():
                done = contestant.run()
                if number >= 0:
                    passes[name].append(done)
                bar.update()
    return {name: Line(contestant.images, passes[name]) for name, contestant in contestants.items()}


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Callable[[], Pass]:
    """Make a pass of work tell its seconds.

    Args:
        work: Goes through the images once.
        clock: `time.process_time` counts processor seconds, of all threads if there are several.
    """

    def run() -> Pass:
        started = clock()
        work()
        return Pass(clock() - started)

    return run

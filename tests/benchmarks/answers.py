"""Whether a threshold that people's answers prove keeps its promise: 600 answers, drawn 200 times from each set.

Make the table in one go: `python -m tests.benchmarks.answers`, two minutes. Each set of at least 670 pages is taken for
a folder of which 600 pages at random are answered, rightly. Where these prove a threshold for a target, the promise is
broken if more of all pages that are `ok` by it are wrong than the target allows; of 200 draws that may be 10.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from batchdigits.inference import bundle
from batchdigits.inference.thresholds import prove_answers, threshold_table
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import by_others, clean_and_corrupted
from tests.benchmarks.reading import SEED, PageSet, Reader

ANSWERS, DRAWS, LEAST_PAGES = 600, 200, 670
TARGETS = (0.005, 0.01, 0.02)


def main(model: Annotated[Path | None, typer.Option(help="A bundle; the packaged one without.")] = None) -> None:
    """Draw answers, prove thresholds, and count the promises that are broken."""
    chosen = bundle.load(model)
    print(f"Model {chosen.id[:12]}; {ANSWERS} answers, {DRAWS} draws\n")
    cells = " | ".join(f"proven / broken at {target:.1%}" for target in TARGETS)
    print(f"| set | pages | {cells} |\n| --- | ---: |{' ---: |' * len(TARGETS)}")
    most = np.zeros(len(TARGETS), np.int64)
    with Reader(chosen) as reader:
        for some in sets(reader):
            found = reader(some.pages, some.full_resolution)
            confidence = np.where(found.may_be_ok, found.confidence, np.nan)
            counts = [kept_and_broken(confidence, found.digit == some.labels, target) for target in TARGETS]
            most = np.maximum(most, [broken for _, broken in counts])
            cells = " | ".join(f"{proven} / {broken}" for proven, broken in counts)
            print(f"| {some.name} | {len(some.pages):,} | {cells} |", flush=True)
    print(f"| broken at most | | {' | '.join(map(str, most.tolist()))} |")


def sets(reader: Reader) -> Iterator[PageSet]:
    """Give the sets that are large enough and that calibrate no model."""
    for source in (clean_and_corrupted(reader, final=False), by_others(), development_sets()):
        yield from (some for some in source if isinstance(some, PageSet) and len(some.pages) >= LEAST_PAGES)


def kept_and_broken(confidence: np.ndarray, right: np.ndarray, target: float) -> tuple[int, int]:
    """Count the draws whose answers prove a threshold, and those of them whose threshold breaks the promise."""
    rng = np.random.default_rng(SEED)
    proven = broken = 0
    for _ in range(DRAWS):
        rows = rng.choice(len(right), ANSWERS, replace=False)
        rows = rows[~np.isnan(confidence[rows])]
        threshold = prove_answers(target, threshold_table(confidence[rows], right[rows]))
        if threshold is not None:
            passes = confidence >= threshold
            proven += 1
            broken += bool((~right[passes]).mean() > target)
    return proven, broken


if __name__ == "__main__":
    typer.run(main)

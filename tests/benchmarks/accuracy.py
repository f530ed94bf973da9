"""How well this program reads all that it may meet, and what it takes for a digit though it is none: one table.

Make it in one go: `python -m tests.benchmarks.accuracy`, some minutes. Every page takes the program's own path, to the
decision at the default threshold. «Right» counts the likeliest of the ten digits, whatever the status; «right and ok»
and «wrong of ok» what stands in the report. Choices are made on this table; so without `--final` it keeps away from
MNIST's test half and takes the validation part instead: those MNIST images that the model's own training split off.
All pages made here are seeded: the same model gives the same table. Intervals are Wilson's, of 95%.

What later work adds: another kind of page stands beside those of `simulated_kinds.py` and `negatives.py`, another set
beside those of `digit_sets.py` and `development_sets.py`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from batchdigits.inference import bundle
from tests.benchmarks import scores
from tests.benchmarks.cases import cases, holds
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import by_others, clean_and_corrupted
from tests.benchmarks.mistake_sheets import draw_mistakes
from tests.benchmarks.negatives import negatives
from tests.benchmarks.reading import DEFAULTS, PageSet, Reader
from tests.benchmarks.scores import Score
from tests.benchmarks.simulated_kinds import simulated_kinds


class Section(StrEnum):
    """A part of the table."""

    MNIST = "mnist"
    SIMULATED = "simulated"
    WRITERS = "writers"
    DEVELOPMENT = "development"
    NEGATIVES = "negatives"
    CASES = "cases"


_TITLES = {
    Section.MNIST: "MNIST, clean and corrupted",
    Section.SIMULATED: "simulated, by writers left out",
    Section.WRITERS: "writers and blocks left out",
    Section.DEVELOPMENT: "development sets",
    Section.NEGATIVES: "no single digit",
    Section.CASES: "cases",
}


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured."""

    final: bool
    """MNIST's test half instead of the validation part."""
    pages: int
    """Of each kind that is made here."""


_SETS: dict[Section, Callable[[Reader, Extent], Iterator[PageSet | str]]] = {
    Section.MNIST: lambda reader, extent: clean_and_corrupted(reader, final=extent.final),
    Section.SIMULATED: lambda _, extent: simulated_kinds(extent.pages),
    Section.WRITERS: lambda _, extent: by_others(),
    Section.DEVELOPMENT: lambda _, extent: development_sets(),
    Section.NEGATIVES: lambda _, extent: negatives(extent.pages),
    Section.CASES: lambda _, extent: cases(),
}
"""The sets of each section, or a sentence for one that is not there."""


def main(
    model: Annotated[Path | None, typer.Option(help="A bundle; the packaged one without.")] = None,
    only: Annotated[list[Section] | None, typer.Option(help="Sections to measure; all without.")] = None,
    pages: Annotated[int, typer.Option(min=1, help="Pages of each simulated kind.")] = 300,
    final: Annotated[bool, typer.Option("--final", help="Take MNIST's test half, not the validation part.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="A file for all counts.")] = None,
    sheets: Annotated[Path | None, typer.Option(help="A folder for contact sheets of the mistakes.")] = None,
) -> None:
    """Measure a model on digits of every kind, on what is no digit, and on empty paper."""
    measured: dict[str, list[dict[str, object]]] = {}
    if sheets:
        sheets.mkdir(parents=True, exist_ok=True)
    with Reader(bundle.load(model)) as reader:
        threshold = reader.model.calibration.threshold(DEFAULTS)
        print(f"Model {reader.model.id[:12]}, threshold {threshold}; 95% Wilson intervals")
        for section in only or list(Section):
            sets = _SETS[section](reader, Extent(final, pages))
            measured[section] = [scores.record(one) for one in _measure(section, sets, reader, sheets)]
    if json_file:
        found: dict[str, Any] = {"model": reader.model.id, "threshold": threshold, "sections": measured}
        json_file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _measure(section: Section, sets: Iterator[PageSet | str], reader: Reader, sheets: Path | None) -> list[Score]:
    """Read the sets of a section, and print a line of the table for each."""
    found: list[Score] = []
    sentences: list[str] = []
    for some in sets:
        if isinstance(some, str):
            sentences.append(some)
            continue
        answers = reader(some.pages, some.full_resolution)
        one = scores.score(some, answers)
        if not found or found[-1].has_digits != one.has_digits:
            print(scores.heading(_TITLES[section], has_digits=one.has_digits))
        print(scores.line(one), flush=True)
        found.append(one)
        if sheets:
            draw_mistakes(sheets, section, some, answers)
    for group in scores.together(found):
        print(scores.line(group))
    if section is Section.CASES and found:
        sentences += ["Their own rules:", *(f"  {one.name}: {holds(one)}" for one in found)]
    print(*(["", *sentences] if sentences else []), sep="\n", end="\n" if sentences else "")
    return found


if __name__ == "__main__":
    typer.run(main)

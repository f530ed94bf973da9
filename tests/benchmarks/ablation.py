"""What each step on the way from a page to what the model reads is worth, so that none stays that earns nothing.

Make the whole table in one go: `python -m tests.benchmarks.ablation`. Its first lines have the share of pages whose
digit is the likeliest of the ten, the others the difference, in points, once one step is turned off: a step that is
worth something has negative numbers. In brackets stands what may be chance: where, of the pages whose answer turned
right or wrong, the 95% interval of the share that turned right holds one half. In the last column, empty paper, right
are the pages that are not `ok`. All pages made here are seeded, and none is of MNIST's test half.

The networks were trained behind all steps: a step's worth includes what they have become used to, and networks that
were trained without it would miss it less.

What later work adds: a step that the normalisation gets has its line in `STEPS`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from textwrap import wrap
from types import ModuleType
from typing import Annotated, Any
from unittest import mock

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from batchdigits.inference import bundle
from batchdigits.inference.audit import wilson_interval
from batchdigits.preprocessing import finder, normalisation, small_pages
from batchdigits.preprocessing.finder import InkNetwork, find_ink
from batchdigits.preprocessing.framing import frame
from batchdigits.preprocessing.looks import Look, Square, look
from batchdigits.preprocessing.small_pages import _is_part
from batchdigits.preprocessing.tiles import Boxes, Components, FoundInk, Integers, TileStack, morph
from batchdigits.records import SIDE, FullResolution, GreyImage, InkImages, Status
from batchdigits.settings import NormalisationSettings
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import by_others, clean_and_corrupted
from tests.benchmarks.negatives import negatives
from tests.benchmarks.reading import PageSet, Reader
from tests.benchmarks.simulated_kinds import simulated_kinds

NAME_WIDTH, WIDTH = 34, 10  # characters of the column of steps, and of each other column

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Off:
    """How a step is turned off."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other values of `NormalisationSettings`."""
    names: Mapping[tuple[ModuleType, str], Any] = field(default_factory=dict)
    """What stands in for functions and constants of a module."""


COLUMNS = {
    "MNIST": ("MNIST, validation part",),
    "stripe": ("corrupted: stripe",),
    "noise": ("corrupted: impulse noise", "corrupted: shot noise"),
    "fog, spatter": ("corrupted: fog", "corrupted: spatter"),
    "others' hands": ("pendigits, test half", "unipen, test half", "uji, test half", "cc0_scans, test half"),
    "frames": ("frame at the edge", "frame inside"),
    "bars": ("bar at one side", "bars at two sides", "black scan edge"),
    "ruled": ("ruled, squared, dotted",),
    "thin, faint, small": ("thin pen on a photo", "faint pencil", "small on a large page"),
    "light": ("photo, edge of a shadow", "dark desk", "sticky note, coloured"),
    "beside it": ("underlined", "ringed", "struck out, new beside", "neighbour at the edge", "punch holes"),
    "one bit": ("one bit", "fax", "tiny, 14 to 20 px"),
    "phone photos": ("phone photos",),
    "form cells": ("printed form cells",),
    "mark tables": ("mark-table cells",),
    "pens, screens": ("ballpoint crops", "drawn on screens"),
    "USPS": ("ZIP codes (USPS), 16×16",),
    "paper, news": ("cut from paper", "newspaper cells"),
}
"""Which sets of `accuracy.py` each column holds."""
EMPTY = "empty paper"


def main(
    model: Annotated[Path | None, typer.Option(help="A bundle; the packaged one without.")] = None,
    pages: Annotated[
        int, typer.Option(min=1, help="Pages of each simulated kind, and ten times so many others.")
    ] = 150,
) -> None:
    """Turn off one step of the normalisation after the other, and measure what the model then reads."""
    with Reader(bundle.load(model)) as reader:
        columns = dict(all_columns(reader, pages))
        print(f"Model {reader.model.id[:12]}; points lost (-) or won (+) by turning off one step\n")
        print_heading(columns)
        full = measure(columns, Off(), reader)
        print_line("all steps: share that is right", [f"{100 * right.mean():.2f} " for right in full])
        for name, off in STEPS.items():
            print_line(name, map(difference, measure(columns, off, reader), full))


def measure(columns: Mapping[str, Sequence[PageSet]], off: Off, reader: Reader) -> list[Flags]:
    """Read all sets without a step, and tell which pages are right: bool[N] for each column."""
    usual = reader.model
    with ExitStack() as patches:
        for (module, name), instead in off.names.items():
            patches.enter_context(mock.patch.object(module, name, instead))
        reader.model = replace(usual, normalisation=replace(usual.normalisation, **off.settings))
        patches.callback(setattr, reader, "model", usual)
        return [np.concatenate([right(some, reader) for some in sets]) for sets in columns.values()]


def right(some: PageSet, reader: Reader) -> Flags:
    """Tell which pages of a set are answered rightly: bool[N]."""
    found = reader(some.pages, some.full_resolution)
    answered = found.status != Status.OK.value if some.labels is None else found.likeliest == some.labels
    return np.asarray(answered, np.bool_)


def all_columns(reader: Reader, pages: int) -> Iterator[tuple[str, list[PageSet]]]:
    """Give the sets of each column; those that are larger lose their last pages."""
    given = (clean_and_corrupted(reader, final=False), by_others(), simulated_kinds(pages), development_sets())
    sets = {some.name: some for source in given for some in source if isinstance(some, PageSet)}
    for column, names in COLUMNS.items():
        some = [first(sets[name], 10 * pages) for name in names if name in sets]
        if some:
            yield column, some
    paper = [some for some in negatives(pages) if isinstance(some, PageSet) and not some.has_writing]
    yield EMPTY, [some for some in paper if some.name not in ("objects, portraits", "textures")]


def first(some: PageSet, count: int) -> PageSet:
    """Keep pages of a set, evenly out of all of them."""
    rows = np.unique(np.linspace(0, len(some.pages) - 1, count).astype(int)).tolist()
    labels = None if some.labels is None else some.labels[rows]
    full_resolution = [some.full_resolution[row] for row in rows] if some.full_resolution else ()
    pages = [some.pages[row] for row in rows]
    return replace(some, pages=pages, labels=labels, full_resolution=full_resolution, files=())


# ---- what stands in for a step -------------------------------------------------------------------------------------


def mean_alone(page: GreyImage, square: Square) -> Look:
    """Show the mean of each cell in the place of its darkest and lightest pixel."""
    seen = look(page, square)
    inside = seen.cells[:, :, 1] <= seen.cells[:, :, 2]
    mean = np.repeat(seen.cells[:, :, :1], 3, axis=2)
    return seen._replace(cells=np.where(inside[:, :, None], mean, seen.cells))


def never_more_pixels(
    pages: Sequence[GreyImage], network: InkNetwork, full_resolution: Sequence[FullResolution | None]
) -> FoundInk:
    """Never decode a page again with more pixels."""
    return find_ink(pages, network, [None] * len(pages))


def always_dark(tiles: TileStack, level: NDArray[np.uint8]) -> Flags:
    """Take the ink for dark on every page."""
    return np.ones(tiles.shape[1], np.bool_)


def more_levels(tiles: TileStack) -> Flags:
    """Take no page for one of one bit."""
    return np.zeros(tiles.shape[1], np.bool_)


def no_edge_rules(
    found: Components, page_sizes: Integers, settings: NormalisationSettings
) -> tuple[Flags, Flags, Flags]:
    """Choose as if no component were a line, or at the page's edge."""
    return _is_part(found._replace(box=found.box + 1), page_sizes + 10**6, settings)


def hard_edges(tiles: TileStack, size: int, operation: int) -> TileStack:
    """Leave the mask of strokes as it is, without the soft edges around them."""
    return tiles if operation == cv2.MORPH_DILATE else morph(tiles, size, operation)


def box_centred(tiles: TileStack, boxes: Boxes, digit_side: int) -> InkImages:
    """Frame as before, then move the middle of each digit's box, not its centre of mass, to the middle."""
    framed = frame(tiles, boxes, digit_side)
    for digit in framed:  # [28, 28]
        for axis in (0, 1):
            inked = np.flatnonzero(digit.any(1 - axis))
            if len(inked):
                shift = (SIDE - 1 - inked[0] - inked[-1]) // 2
                digit[:] = np.roll(digit, shift, axis)  # only empty rows or columns come round
    return framed


STEPS = {
    "finder: one look": Off(names={(finder, "_LONG_ENOUGH"): 0}),
    "finder: mean of each cell alone": Off(names={(finder, "look"): mean_alone}),
    "finder: never more pixels": Off(names={(normalisation, "find_ink"): never_more_pixels}),
    "finder: the main part alone": Off(names={(finder, "_PART_MASS"): 1.0}),
    "finder: parts however far": Off(names={(finder, "_PART_DISTANCE"): np.inf}),
    "rules up to 16 px": Off(names={(normalisation, "TILE_SIDES"): (16,)}),
    "no rules": Off(names={(normalisation, "TILE_SIDES"): (0,)}),
    "polarity: no turning at all": Off(names={(small_pages, "_is_dark"): always_dark}),
    "paper: always even": Off(settings={"flat_share": -1}),
    "pages of one bit": Off(names={(small_pages, "_has_two_levels"): more_levels}),
    "parts: the main one alone": Off(settings={"part_mass": 1.0}),
    "edge rules: none": Off(names={(small_pages, "_is_part"): no_edge_rules}),
    "soft edges": Off(names={(small_pages, "morph"): hard_edges}),
    "centre of mass: box centred": Off(names={(normalisation, "frame"): box_centred}),
}
"""The steps: of the learned ink finder, of where it takes over, and of the rules for small pages, in their order."""


# ---- what is printed -----------------------------------------------------------------------------------------------


def print_heading(columns: Mapping[str, Sequence[PageSet]]) -> None:
    """Name the columns, each over several lines, and count their pages."""
    words = [wrap(name, WIDTH - 1) for name in columns]
    for line in range(max(map(len, words))):
        print_line("", [word[line] if line < len(word) else "" for word in words])
    print_line("pages", [f"{sum(len(some.pages) for some in sets):,} " for sets in columns.values()])


def difference(without: Flags, full: Flags) -> str:
    """Spell the points between two shares of right pages, bool[N] each, in brackets where it may be chance."""
    changed = without != full
    if not changed.any():
        return "0 "
    low, high = wilson_interval(int(without[changed].sum()), int(changed.sum()))
    points = f"{100 * (without.mean() - full.mean()):+.2f}"
    return f"({points})" if low <= 0.5 <= high else f"{points} "


def print_line(name: str, cells: Iterable[str]) -> None:
    """Print a line of the table."""
    print(f"{name:{NAME_WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells), flush=True)


if __name__ == "__main__":
    typer.run(main)

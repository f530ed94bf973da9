"""What each step of the normalisation is worth, so that no step stays that earns nothing.

Make the whole table in one go: `python tests/benchmarks/ablation.py`. Its first line has the accuracy of the full
normalisation, its other lines the difference, in points, once one step is turned off: a step that is worth something
has negative numbers. In brackets stands what may be chance: where, of the pages whose answer turned right or wrong, the
95% interval of the share that turned right holds one half. No answer counts as wrong. In the last column, pages that
nobody wrote on, right are those that are `blank` or `not_a_digit`. No page is of MNIST's test half, and the sets to
its right up to `impulse noise` are made of its validation part too; all pages made here are seeded.

The shipped network was trained behind the full normalisation: a step's worth includes what the network has become
used to, and a network that was trained without the step would miss it less.

What later work adds: a step that the normalisation gets has its line in `STEPS`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from textwrap import wrap
from typing import Annotated, Any
from unittest import mock

import cv2
import numpy as np
import typer
from accuracy import DEFAULTS, Answers, answers, handed_out, validation_part
from corruptions import CORRUPTIONS
from no_digit import SEED, blanks
from numpy.typing import NDArray
from printed import BORDER_SIDES, PHOTOS, beside_strokes, bordered, of_one_bit, photographed, ruled

from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.runtimes import Predictor
from batchdigits.preprocessing import normalisation
from batchdigits.preprocessing.normalisation import _choose, _Found, _frame, _is_part
from batchdigits.preprocessing.polarity import Floats, Signs, find_polarity
from batchdigits.preprocessing.strips import Components, Rows, Strip, morph
from batchdigits.records import SIDE, GreyImage, InkImages, Labels, Status
from batchdigits.settings import NormalisationSettings
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.evaluation.metrics import wilson_interval

CORRUPTED = ("stripe", "fog", "spatter", "impulse noise")
NAME_WIDTH, WIDTH = 30, 10  # characters of the column of steps, and of each other column

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Off:
    """How a step is turned off."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Other values of `NormalisationSettings`."""
    names: Mapping[str, Any] = field(default_factory=dict)
    """What stands in for functions and constants of `batchdigits.preprocessing.normalisation`."""


@dataclass(frozen=True, slots=True)
class Set:
    """Pages that are read again and again."""

    name: str
    """The heading of its column."""
    pages: Sequence[GreyImage]
    """N pages."""
    labels: Labels | None = None
    """int8[N]; None where no page has a digit."""

    def right(self, found: Answers) -> Flags:
        """Tell which pages were answered rightly: bool[N]."""
        if self.labels is None:
            return np.isin(found.status, (Status.BLANK.value, Status.NOT_A_DIGIT.value))
        return np.asarray(found.digit == self.labels, np.bool_)


def main(
    images: Annotated[int, typer.Option(min=1, help="MNIST images in each set that is made of them.")] = 1500,
) -> None:
    """Turn off one step of the normalisation after the other, and measure what the shipped model then reads."""
    model = bundle.load()
    sets = list(all_sets(model, images))
    with Predictor(model, batch_size=DEFAULTS.batch_size) as predictor:
        print(f"Model {model.id[:12]}; points of accuracy lost (-) or won (+) by turning off one step\n")
        print_heading(sets)
        full = measure(sets, Off(), model, predictor)
        print_line("full normalisation: accuracy", [f"{100 * right.mean():.2f} " for right in full])
        for name, off in STEPS.items():
            print_line(name, map(difference, measure(sets, off, model, predictor), full))


def measure(sets: Sequence[Set], off: Off, model: Bundle, predictor: Predictor) -> list[Flags]:
    """Read all sets without a step, and tell which pages are right: bool[N] for each set."""
    without = replace(model, normalisation=replace(model.normalisation, **off.settings))
    with ExitStack() as patches:
        for name, instead in off.names.items():
            patches.enter_context(mock.patch.object(normalisation, name, instead))
        return [some.right(answers(some.pages, without, predictor)) for some in sets]


def all_sets(model: Bundle, images: int) -> Iterator[Set]:
    """Give the sets in the order of their columns; of those made of MNIST only simulated scans have more images."""
    held, held_normalised, labels = validation_part(model)
    scans = Set("simulated scans", vary(held_normalised, np.random.default_rng(SEED), clean_share=0), labels)
    held, labels = held[:images], labels[:images]
    yield Set("MNIST", list(held), labels)
    yield Set("small on large pages", on_large_pages(held), labels)
    yield scans
    thirds = [slice(start, None, len(BORDER_SIDES)) for start in range(len(BORDER_SIDES))]
    framed = [page for part, sides in zip(thirds, BORDER_SIDES, strict=True) for page in bordered(held[part], sides)]
    yield Set("printed borders", framed, np.concatenate([labels[part] for part in thirds]))
    yield Set("ruled or squared", ruled(held), labels)
    yield Set("neighbour's stroke", beside_strokes(held), labels)
    yield Set("16×16, one bit", of_one_bit(held), labels)
    yield Set("phone photos", photographed(held[:PHOTOS]), labels[:PHOTOS])
    for name in CORRUPTED:
        yield Set(name, list(CORRUPTIONS[name](held, np.random.default_rng(SEED))), labels)
    for name, pages, of_set in handed_out():
        yield Set(name.removesuffix(", test half"), pages, of_set)
    yield Set("blank pages", [page for _, pages in blanks() for page in pages])


def on_large_pages(digits: InkImages) -> list[GreyImage]:
    """Put each of uint8[N, 28, 28] as it is somewhere on white paper of 100 to 300 px."""
    rng = np.random.default_rng(SEED)
    made: list[GreyImage] = []
    for digit in digits:
        page = np.full(rng.integers(100, 301, 2), 255, np.uint8)
        top, left = rng.integers(0, np.array(page.shape) - SIDE + 1)
        page[top : top + SIDE, left : left + SIDE] -= digit
        made.append(page)
    return made


# ---- what stands in for a step -------------------------------------------------------------------------------------


def nothing(strip: Strip, extents: Rows, settings: NormalisationSettings) -> Strip:
    """Leave pages as they are."""
    return strip


def polarity_of_border(strip: Strip, light: Floats, extents: Rows, photo: Flags) -> Signs:
    """Take the ink for dark where the border's median is no darker than the page's mean, as on even paper."""
    level, _ = normalisation._border(strip, extents, normalisation.DEFAULTS)
    return find_polarity(strip, level)


def always_dark(strip: Strip, *evidence: Any) -> Signs:
    """Take the ink for dark on every page."""
    return np.ones(strip.shape[1], np.int8)


def slopes_stay(strip: Strip, light: Floats) -> Strip:
    """Leave the light as it is."""
    return strip


def no_photos(ink: Strip, extents: Rows, photo: Flags, *others: Any) -> _Found:
    """Choose components on photos as on cuts."""
    return _choose(ink, extents, np.zeros_like(photo), *others)


def lines_stay(ink: Strip, extents: Rows, settings: NormalisationSettings) -> None:
    """Take no line out."""


def more_levels(strip: Strip) -> Flags:
    """Take no page for one of one bit."""
    return np.zeros(strip.shape[1], np.bool_)


def all_parts(found: Components, extents: Rows, photo: Flags, settings: NormalisationSettings) -> tuple[Flags, Flags]:
    """Keep every component."""
    part = np.ones(len(found.owner), np.bool_)
    part[0] = False  # the paper
    return part, np.zeros_like(part)


def no_edge_rules(
    found: Components, extents: Rows, photo: Flags, settings: NormalisationSettings
) -> tuple[Flags, Flags]:
    """Choose as if no component were a line, or at the page's edge."""
    return _is_part(found._replace(box=found.box + 1), extents + 10**6, photo, settings)


def no_lines(found: Components, extents: Rows, photo: Flags, settings: NormalisationSettings) -> tuple[Flags, Flags]:
    """Choose as if no component were a line; borders are covered as before."""
    return _is_part(found, extents, photo, replace(settings, line_thickness=0))


def hard_edges(strip: Strip, size: int, operation: int) -> Strip:
    """Leave the mask of strokes as it is, without the soft edges around them."""
    return strip if operation == cv2.MORPH_DILATE else morph(strip, size, operation)


def box_centred(found: _Found, settings: NormalisationSettings) -> InkImages:
    """Frame as before, then move the middle of each digit's box, not its centre of mass, to the middle."""
    framed = _frame(found, settings)
    for digit in framed:  # [28, 28]
        for axis in (0, 1):
            inked = np.flatnonzero(digit.any(1 - axis))
            if len(inked):
                shift = (SIDE - 1 - inked[0] - inked[-1]) // 2
                digit[:] = np.roll(digit, shift, axis)  # only empty rows or columns come round
    return framed


STEPS = {
    "bars": Off(names={"turn_bars": nothing}),
    "borders": Off(names={"cover_borders": nothing}),
    "polarity: by the border alone": Off(names={"weigh_polarity": polarity_of_border}),
    "polarity: no turning at all": Off(names={"find_polarity": always_dark, "weigh_polarity": always_dark}),
    "paper: always even": Off(settings={"flat_share": -1}),
    "paper: always estimated": Off(settings={"flat_share": 1}),
    "slopes of light": Off(names={"without_slopes": slopes_stay}),
    "pages of one bit": Off(names={"_has_two_levels": more_levels}),
    "ruled lines": Off(names={"remove_lines": lines_stay}),
    "faintest ink": Off(settings={"least_contrast": 0}),
    "noise level": Off(settings={"noise_factor": 0}),
    "component choice: keep all": Off(names={"_is_part": all_parts}),
    "parts: the main one alone": Off(settings={"part_mass": math.inf}),
    "edge rules: none": Off(names={"_is_part": no_edge_rules}),
    "  lines": Off(names={"_is_part": no_lines}),
    "  weight": Off(settings={"edge_weight": 1, "photo_edge_weight": 1}),
    "  all of photos": Off(names={"_choose": no_photos}),
    "soft edges": Off(names={"morph": hard_edges}),
    "zoom": Off(settings={"zoom_below": 0}),
    "centre of mass: box centred": Off(names={"_frame": box_centred}),
}
"""The steps, in their order."""


# ---- what is printed -----------------------------------------------------------------------------------------------


def print_heading(sets: Sequence[Set]) -> None:
    """Name the columns, each over several lines, and count their images."""
    words = [wrap(some.name, WIDTH - 1) for some in sets]
    for line in range(max(map(len, words))):
        print_line("", [word[line] if line < len(word) else "" for word in words])
    print_line("images", [f"{len(some.pages):,} " for some in sets])


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

"""Grey pages in; the 28×28 pixels that the model reads, and measures of the ink, out: the pixel contract.

Training and prediction both pass through `normalise`. Pages of one call share every step: they are placed side by
side on a strip of square canvases, and each step works on the whole strip, so that the cost of numpy and OpenCV calls
is paid once a strip. A page's result does not depend on its neighbours.

The steps, in order: canvas, bars and borders, polarity, paper, ink, lines, components, frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.borders import cover_borders, turn_bars
from batchdigits.preprocessing.canvas import CANVAS_SIDES, crop, strip_of
from batchdigits.preprocessing.polarity import Signs, find_polarity, slopes_of_light, weigh_polarity, without_slopes
from batchdigits.preprocessing.ruled_lines import remove_lines
from batchdigits.preprocessing.strips import (
    Boxes,
    Components,
    Rows,
    Strip,
    components,
    edges,
    morph,
    most,
    odd,
    spread,
    total,
)
from batchdigits.records import INK_MEASURES, SIDE, FullResolution, GreyImage, InkImages, InkMeasures
from batchdigits.settings import NormalisationSettings

Floats = NDArray[np.float32]

DEFAULTS = NormalisationSettings()


class Normalised(NamedTuple):
    """What the model reads and what is known of the ink; row i belongs to page i."""

    pixels: InkImages
    ink: InkMeasures


def normalise(
    pages: Sequence[GreyImage],
    settings: NormalisationSettings = DEFAULTS,
    *,
    smaller: Sequence[GreyImage] | None = None,
    finer: Sequence[FullResolution | None] = (),
) -> Normalised:
    """Bring pages of any size, polarity and lighting to the pixel contract.

    Args:
        pages: Grey pages, uint8[H, W], H and W at least 1.
        settings: The numbers of the steps.
        smaller: The same pages, where the caller has them `halved` to a side that is no less than the largest canvas.
        finer: Per page, a function that decodes it undownscaled, uint8[H, W]; called only where the digit is shorter
            than `zoom_below` of its canvas. None: not available.

    Returns:
        uint8[N, 28, 28], bright ink on 0, the digit's longer side 20 px, its centre of mass in the middle; and
        float32[N, 4], the columns of `INK_MEASURES`. A page without ink gives zeros.

    Source: 20×20 box and centre of mass: LeCun, Bottou, Bengio, Haffner, «Gradient-based learning applied to
    document recognition», Proceedings of the IEEE 86(11), 1998, section III.A.
    """
    return _normalise(pages, smaller or pages, finer or [None] * len(pages), np.zeros(len(pages), np.int8), settings)


def _normalise(
    pages: Sequence[GreyImage],
    smaller: Sequence[GreyImage],
    finer: Sequence[FullResolution | None],
    polarity: Signs,
    settings: NormalisationSettings,
) -> Normalised:
    """Normalise pages, looked at first as they are in `smaller`; some have a polarity that is known already."""
    pixels = np.zeros((len(pages), SIDE, SIDE), np.uint8)
    ink = np.zeros((len(pages), len(INK_MEASURES)), np.float32)
    longer = np.array([max(page.shape) for page in pages], np.intp)
    canvas = np.minimum(np.searchsorted(CANVAS_SIDES, longer), len(CANVAS_SIDES) - 1)
    far: list[int] = []
    crops: list[GreyImage] = []
    seen_polarity: list[int] = []
    for number in np.unique(canvas):
        rows = np.flatnonzero(canvas == number)
        strip, extents = strip_of([smaller[row] for row in rows.tolist()], CANVAS_SIDES[number])
        found = _find_ink(strip, extents, longer[rows] > settings.cut_side, polarity[rows], settings)
        pixels[rows] = _frame(found, settings)
        ink[rows] = found.measures
        for at in _reduced_too_far(found.boxes, longer[rows], CANVAS_SIDES[number], settings):
            far.append(row := int(rows[at]))
            seen_polarity.append(found.polarity[at])
            crops.append(crop(pages[row], (found.boxes[at] / CANVAS_SIDES[number]).tolist(), finer[row]))
    if far:
        near = _normalise(crops, crops, [None] * len(crops), np.array(seen_polarity, np.int8), settings)
        seen = near.ink[:, 0] > 0  # what looked like ink from afar may be none from near
        pixels[np.array(far)[seen]] = near.pixels[seen]
    return Normalised(pixels, ink)


# ---- a second look ---------------------------------------------------------------------------------------------


def _reduced_too_far(boxes: Boxes, longer: Rows, side: int, settings: NormalisationSettings) -> Rows:
    """Find the pages that were reduced so far that their digit lost detail: numbers of canvases."""
    digit = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return np.flatnonzero((longer > 1.5 * side) & (digit > 0) & (digit < settings.zoom_below * side))


# ---- polarity, paper, ink ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """The ink of a strip of canvases."""

    ink: Strip
    """uint8[side, N, side]: the digit's ink alone, 255 for black on white; 0 elsewhere."""
    boxes: Boxes
    """float32[N, 4]: the digit's box; zeros where no ink was found."""
    measures: InkMeasures
    """float32[N, 4]."""
    polarity: Signs
    """int8[N]: 1 dark ink, -1 light ink."""


def _find_ink(
    strip: Strip, extents: Rows, photo: NDArray[np.bool_], polarity: Signs, settings: NormalisationSettings
) -> _Found:
    """Find the ink of each page.

    Args:
        strip: uint8[side, N, side].
        extents: intp[N, 2], the height and width that each page takes.
        photo: bool[N], whether the page is larger than a cut: it may show much paper, and much light.
        polarity: int8[N], 1 dark ink, -1 light ink, 0 where it is to be found.
        settings: The numbers of the steps.
    """
    side = len(strip)
    if not polarity.all():  # what is read again was cut out from between the borders
        strip = cover_borders(turn_bars(strip, extents, settings), extents, settings)
    level, even = _border(strip, extents, settings)
    lit = np.flatnonzero(even & photo)  # only a drawing, or a scan of saturated white, has no light that falls off
    even[lit] = total(strip[:, lit] == spread(level[lit], side)) > 0.5 * side**2
    uneven = np.flatnonzero(~even)
    uneven = uneven[~_has_two_levels(strip[:, uneven])]
    known, polarity = polarity, np.where(polarity == 0, find_polarity(strip, level), polarity)
    all_uneven = len(uneven) == strip.shape[1]
    ink = np.empty_like(strip) if all_uneven else _find_ink_on_even_paper(strip, level, polarity)
    if len(uneven):
        some = strip[:, uneven], extents[uneven], photo[uneven], known[uneven]  # copies
        ink[:, uneven], polarity[uneven] = _find_ink_on_uneven_paper(*some)
    _clear_beyond(ink, extents)
    remove_lines(ink, extents, settings)
    return _choose(ink, extents, photo, polarity, settings)


def _clear_beyond(ink: Strip, extents: Rows) -> None:
    """Take the ink beyond the pages, where canvases repeat their edges, out of uint8[side, N, side], in place."""
    side = len(ink)
    if extents.min() < side:
        at = np.arange(side)
        ink *= (at < extents[:, :1]).T[:, :, None] & (at < extents[:, 1:])  # [side, N, side]


def _border(
    strip: Strip, extents: Rows, settings: NormalisationSettings
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Find the median level of each page's border, uint8[N], and tell whether that is even paper, bool[N]."""
    border = np.sort(edges(strip.transpose(1, 0, 2), extents), axis=1)  # uint8[N, 4 × side]
    median = border[:, border.shape[1] // 2]
    near = np.abs(border.astype(np.int16) - median[:, None]) <= settings.flat_tolerance
    return median, near.mean(1) > settings.flat_share


def _has_two_levels(strip: Strip) -> NDArray[np.bool_]:
    """Tell which pages are of one bit, so that their paper needs no estimate whatever their border: bool[N]."""
    two = np.ones(strip.shape[1], np.bool_)
    for some in (strip[len(strip) // 2 :: len(strip)], strip):  # by one row, then those that remain by all
        rows = np.flatnonzero(two)
        canvases = some[:, rows]
        lowest, highest = canvases.min(0).min(1)[:, None], canvases.max(0).max(1)[:, None]
        two[rows] = ((canvases == lowest) | (canvases == highest)).all(0).all(1)
    return two


def _find_ink_on_even_paper(strip: Strip, level: NDArray[np.uint8], polarity: Signs) -> Strip:
    """Take as ink what is darker than the paper, once ink that is light on dark is turned, as a share of it."""
    side = len(strip)
    turn = np.where(polarity > 0, np.uint8(0), np.uint8(255))
    paper = level ^ turn
    scale = spread(np.float32(255) / np.maximum(paper, 1), side)
    turn, paper = spread(turn, side), spread(paper, side)
    depth = paper - np.minimum(strip ^ turn, paper)
    return np.asarray((depth * scale).astype(np.uint8))


def _find_ink_on_uneven_paper(
    strip: Strip, extents: Rows, photo: NDArray[np.bool_], polarity: Signs
) -> tuple[Strip, Signs]:
    """Estimate the paper around every dark stroke, and the ink as a share of its brightness.

    Closing with a square wider than a stroke fills dark strokes with their paper, and keeps the edges of shadows. But
    where the light falls off towards the page's edge, it finds no lighter paper beyond; so ink is only what is darker
    than its paper after slopes of light were taken out, too.

    Args:
        strip: uint8[side, N, side]; what is light on dark is turned in it.
        extents: intp[N, 2], the height and width that each page takes.
        photo: bool[N], whether the page is larger than a cut.
        polarity: int8[N], 1 dark ink, -1 light ink, 0 where it is to be found; what is found is set in it.

    Returns:
        The ink, uint8[side, N, side], and the polarity, int8[N], all known.
    """
    light = slopes_of_light(strip, extents)
    unknown = np.flatnonzero(polarity == 0)
    if len(unknown):
        polarity[unknown] = weigh_polarity(strip[:, unknown], light[:, unknown], extents[unknown], photo[unknown])
    turned = np.flatnonzero(polarity < 0)
    if len(turned):
        strip[:, turned], light[:, turned] = ~strip[:, turned], 255 - light[:, turned]
    return np.minimum(_darker_than_paper(strip), _darker_than_paper(without_slopes(strip, light))), polarity


def _darker_than_paper(strip: Strip) -> Strip:
    """Take as ink what is darker than the paper around it, as a share of that: uint8[side, N, side]."""
    paper = np.ascontiguousarray(morph(strip, odd(_PAPER_SCALE * len(strip)), cv2.MORPH_CLOSE))
    return np.asarray(cv2.divide(paper - strip, paper, scale=255), np.uint8)  # 0 where the paper is black


_PAPER_SCALE = 0.27  # of the canvas: side of the square that is wider than any stroke


# ---- components ----------------------------------------------------------------------------------------------------


def _choose(
    ink: Strip, extents: Rows, photo: NDArray[np.bool_], polarity: Signs, settings: NormalisationSettings
) -> _Found:
    """Keep the components that make the digit, with their soft edges."""
    side, count, _ = ink.shape
    peak = most(ink).astype(np.float32)
    faint = np.minimum(ink, spread((settings.ink_level * peak).astype(np.uint8), side))
    noise = settings.noise_factor * total(faint) / extents.prod(1)
    level = np.maximum(settings.ink_level * peak, np.minimum(noise, 0.5 * peak))
    level = np.where(peak >= 255 * settings.least_contrast, np.maximum(level, 1), 255)

    inked = ink >= spread(level.astype(np.uint8), side)
    found = components(inked)
    part, other, edge = _is_part(found, extents, photo, settings)
    mask = inked.astype(np.uint8)
    littered = np.unique(found.owner[1:][~part[1:]])  # most canvases hold nothing but their digit
    mask[:, littered] = np.take(part, found.labels[:, littered])
    kept = ink * morph(mask, 3, cv2.MORPH_DILATE)

    owner = found.owner[part]
    boxes = np.tile(np.array([side, side, 0, 0], np.float32), (count, 1))
    np.minimum.at(boxes[:, :2], owner, found.box[part, :2])
    np.maximum.at(boxes[:, 2:], owner, found.box[part, 2:])
    area = np.bincount(owner, found.area[part], minlength=count)
    boxes[area == 0] = 0
    largest = np.zeros(count)
    np.maximum.at(largest, found.owner, found.area * other)
    cut = np.bincount(found.owner[part & edge], minlength=count) > 0
    columns = [area / extents.prod(1), largest / np.maximum(area, 1), np.where(area > 0, peak / 255, 0), cut]
    return _Found(kept, boxes, np.stack(columns, axis=1).astype(np.float32), polarity)


def _is_part(
    found: Components, extents: Rows, photo: NDArray[np.bool_], settings: NormalisationSettings
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which components make the digit of their canvas, which might be another one, and which touch the edge.

    Returns:
        bool[C] three times; the first two are False for component 0.
    """
    left, top, right, bottom = found.box.T
    height, width = extents[found.owner].T
    of_photo = photo[found.owner]
    edge = found.at_edge(extents)
    across = (right - left >= width) & (bottom - top <= settings.line_thickness * height)
    down = (bottom - top >= height) & (right - left <= settings.line_thickness * width)
    # A line is only a line where there is a digit beside it: a 1 that fills its frame is alone.
    mass = np.where(across | down, 1e-3, 1.0) * found.area
    edge_weight = np.where(of_photo, settings.photo_edge_weight, settings.edge_weight)
    rank = mass * np.where(edge, edge_weight, 1.0)
    rank[0] = 0

    order = np.lexsort((rank[1:], found.owner[1:])) + 1
    main = np.zeros(len(extents), np.intp)  # component 0, of no mass, where a canvas has no component
    main[found.owner[order]] = order  # the last assignment wins: the highest rank
    mine = main[found.owner]

    gap_x = np.maximum(left - right[mine], left[mine] - right)
    gap_y = np.maximum(top - bottom[mine], top[mine] - bottom)
    longer = np.maximum(right[mine] - left[mine], bottom[mine] - top[mine])
    part = (np.maximum(gap_x, gap_y) <= settings.part_distance * longer) & (mass >= settings.part_mass * mass[mine])
    part &= ~(of_photo & edge & ~edge[mine])  # a shadow, or what lies beside the paper
    part[main] = True
    part[0] = False
    other = ~(part | edge | across | down)
    other[0] = False
    return np.asarray(part, np.bool_), np.asarray(other, np.bool_), edge


# ---- frame ---------------------------------------------------------------------------------------------------------


def _frame(found: _Found, settings: NormalisationSettings) -> InkImages:
    """Resample each digit so that its longer side is 20 px and its centre of mass in the middle: uint8[N, 28, 28]."""
    side = len(found.ink)
    ink = found.ink.transpose(1, 0, 2).astype(np.float32)  # [N, side, side]
    low, high = found.boxes[:, :2], found.boxes[:, 2:]  # [N, 2], x then y
    step = np.maximum((high - low).max(1) / settings.digit_side, 1e-6)  # canvas pixels per pixel of the result
    at = np.arange(side) + 0.5
    ones = np.ones(side, np.float32)
    columns, rows = (ones @ ink).astype(np.float64), (ink @ ones).astype(np.float64)
    mass = np.maximum(columns.sum(1), 1e-6)  # whole numbers below 2^24: exact, whatever the order of the sums
    centre = np.stack([columns @ at, rows @ at], axis=1) / mass[:, None]
    # MNIST centres on the middle of pixel 14. The box starts on a whole pixel, so that a digit that already fits is
    # not blurred, and never leaves the frame.
    start = np.rint(SIDE / 2 + 0.5 - (centre - low) / step[:, None])
    start = np.clip(start, 0, np.floor(SIDE - (high - low) / step[:, None] + 1e-3))
    across = _resampling(low[:, 0], start[:, 0], step, side)
    down = _resampling(low[:, 1], start[:, 1], step, side)
    framed = down @ ink @ across.transpose(0, 2, 1)
    framed *= (255 / np.maximum(framed.reshape(len(framed), -1).max(1), 1e-6))[:, None, None]
    return np.asarray(np.rint(framed, out=framed), np.uint8)


def _resampling(low: Floats, start: Floats, step: Floats, side: int) -> Floats:
    """The weights of each canvas pixel in each pixel of the result, along one axis: float32[N, 28, side].

    A pixel of the result is the mean over its own width, and over one canvas pixel at least: so reducing averages
    areas, enlarging interpolates linearly, and a step of 1 copies. A weight is the length that both have in common;
    the weights of a pixel sum to its width, not to one.
    """
    reach = np.maximum(step, 1)[:, None] / 2 + np.float32(0.5)
    middle = low[:, None] + (np.arange(SIDE, dtype=np.float32) + 0.5 - start[:, None]) * step[:, None]  # [N, 28]
    weights = np.empty((len(low), SIDE, side), np.float32)
    np.subtract(middle[:, :, None], np.arange(side) + 0.5, out=weights, casting="same_kind")
    rows = weights.reshape(len(low), -1)  # the same, in longer rows
    np.abs(rows, out=rows)
    np.subtract(reach, rows, out=rows)
    np.clip(rows, 0, 1, out=rows)
    return weights

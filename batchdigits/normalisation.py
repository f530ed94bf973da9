"""Grey pages in; the 28×28 pixels that the model reads, and measures of the ink, out: the pixel contract.

Training and prediction both pass through `normalise`. Pages of one call share every step: they are placed on
square canvases of a few sizes, and each step works on a whole stack of canvases, so that the cost of numpy and
OpenCV calls is paid once a stack. A page's result does not depend on its neighbours.

The steps, in order: canvas, polarity, paper, ink, components, frame.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.settings import NormalisationSettings

GreyImage = NDArray[np.uint8]  # [H, W]
InkImages = NDArray[np.uint8]  # [N, 28, 28], bright ink on 0
InkMeasures = NDArray[np.float32]  # [N, len(INK_MEASURES)]
Stack = NDArray[np.uint8]  # [N, side, side]
Masks = NDArray[np.bool_]  # [N, side, side]
Boxes = NDArray[np.float32]  # [N, 4]: left, top, right, bottom in canvas pixels; right and bottom are exclusive

SIDE = 28
"""Pixels: width and height of the model's input."""

INK_MEASURES = ("share", "contrast")
"""Columns of the ink measures: the share of the page that the digit's ink covers (0: no ink was found), and the
contrast of that ink to its paper; both 0 to 1."""

CANVAS_SIDES = (32, 64, 96)
"""Pixels: a page is placed on the smallest canvas that holds it; a larger page is reduced to the largest."""


DEFAULTS = NormalisationSettings()


class Normalised(NamedTuple):
    """What the model reads and what is known of the ink; row i belongs to page i."""

    pixels: InkImages
    ink: InkMeasures


def normalise(pages: Sequence[GreyImage], settings: NormalisationSettings = DEFAULTS) -> Normalised:
    """Bring pages of any size, polarity and lighting to the pixel contract.

    Args:
        pages: Grey pages, uint8[H, W], H and W at least 1.
        settings: The numbers of the steps.

    Returns:
        uint8[N, 28, 28], bright ink on 0, the digit's longer side 20 px, its centre of mass in the middle; and
        float32[N, 2], the columns of `INK_MEASURES`. A page without ink gives zeros.

    Source: 20×20 box and centre of mass: LeCun, Bottou, Bengio, Haffner, «Gradient-based learning applied to
    document recognition», Proceedings of the IEEE 86(11), 1998, section III.A.
    """
    pixels = np.zeros((len(pages), SIDE, SIDE), np.uint8)
    ink = np.zeros((len(pages), len(INK_MEASURES)), np.float32)
    far: list[int] = []
    crops: list[GreyImage] = []
    for side, rows in _by_canvas(pages).items():
        stack, extents = _canvases([pages[row] for row in rows], side)
        found = _find_ink(stack, extents, settings)
        pixels[rows] = _frame(found, settings)
        ink[rows] = found.measures
        for row, box in zip(rows, found.boxes, strict=True):
            crop = _crop_to_zoom(pages[row], box, side, settings)
            if crop is not None:
                far.append(row)
                crops.append(crop)
    if far:
        near = normalise(crops, settings)
        seen = near.ink[:, 0] > 0  # what looked like ink from afar may be none from near
        pixels[np.array(far)[seen]] = near.pixels[seen]
        ink[np.array(far)[seen], 1] = near.ink[seen, 1]
    return Normalised(pixels, ink)


# ---- canvas ----------------------------------------------------------------------------------------------------


def _by_canvas(pages: Iterable[GreyImage]) -> dict[int, list[int]]:
    """Sort page numbers by the side of the canvas that they need."""
    rows: dict[int, list[int]] = {}
    for row, page in enumerate(pages):
        longer = max(page.shape)
        side = next((side for side in CANVAS_SIDES if longer <= side), CANVAS_SIDES[-1])
        rows.setdefault(side, []).append(row)
    return rows


def _canvases(pages: Sequence[GreyImage], side: int) -> tuple[Stack, NDArray[np.intp]]:
    """Place pages at the top left of square canvases; the rest repeats the page's last row and column.

    Returns:
        uint8[N, side, side], and intp[N, 2], the height and width that the page takes.
    """
    fitted = [_fit(page, side) for page in pages]
    extents = np.array([page.shape for page in fitted], np.intp)
    stack = np.empty((len(pages), side, side), np.uint8)
    for height, width in {page.shape for page in fitted}:
        same = np.flatnonzero((extents == (height, width)).all(1))
        block = np.stack([fitted[row] for row in same])
        if (height, width) != (side, side):
            block = np.pad(block, ((0, 0), (0, side - height), (0, side - width)), mode="edge")
        stack[same] = block
    return stack, extents


def _fit(page: GreyImage, side: int) -> GreyImage:
    longer = max(page.shape)
    if longer <= side:
        return page
    height, width = (max(1, round(extent * side / longer)) for extent in page.shape)
    return cv2.resize(page, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)


def _crop_to_zoom(
    page: GreyImage, box: NDArray[np.float32], side: int, settings: NormalisationSettings
) -> GreyImage | None:
    """Cut the digit's part out of a page that was reduced so far that its digit lost detail."""
    scale = max(page.shape) / side
    left, top, right, bottom = box * scale
    longer = max(right - left, bottom - top)
    if scale < 1.5 or not 0 < longer < settings.zoom_below * side * scale:
        return None
    margin = 0.35 * longer + 2 * scale
    rows = slice(max(0, int(top - margin)), int(bottom + margin) + 1)
    columns = slice(max(0, int(left - margin)), int(right + margin) + 1)
    return page[rows, columns]


# ---- polarity, paper, ink ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """The ink of a stack of canvases."""

    ink: NDArray[np.float32]
    """float32[N, side, side]: the digit's ink alone, as a share of the paper's brightness; 0 elsewhere."""
    boxes: Boxes
    """float32[N, 4]: the digit's box; zeros where no ink was found."""
    measures: InkMeasures
    """float32[N, 2]."""


def _find_ink(stack: Stack, extents: NDArray[np.intp], settings: NormalisationSettings) -> _Found:
    side = stack.shape[1]
    inside = _inside(extents, side)
    flat, paper_level = _border(stack, extents, settings)
    fine, middle, coarse = (max(3, round(side * share) | 1) for share in (0.09, 0.16, 0.27))
    closed = [_filter(stack, size, cv2.MORPH_CLOSE) for size in (fine, middle, coarse)]
    opened = [_filter(stack, size, cv2.MORPH_OPEN) for size in (fine, middle, coarse)]
    dark = _is_dark_ink(stack, closed, opened, flat, paper_level)
    # Ink that is light on dark is turned, so that what follows sees dark ink on light paper only.
    page = np.where(dark[:, None, None], stack, 255 - stack)
    paper = np.where(dark[:, None, None], closed[2], 255 - opened[2])
    level = np.where(dark, paper_level, 255 - paper_level)
    paper = np.where(flat[:, None, None], np.maximum(paper, level[:, None, None]), paper).astype(np.uint8)
    depth = np.where(inside, cv2.subtract(paper.reshape(-1, side), page.reshape(-1, side)).reshape(page.shape), 0)
    return _choose(depth.astype(np.uint8), paper, inside, settings)


def _inside(extents: NDArray[np.intp], side: int) -> Masks:
    """True where a canvas shows the page and not its repeated edge."""
    at = np.arange(side)
    return (at < extents[:, :1])[:, :, None] & (at < extents[:, 1:])[:, None, :]


def _border(
    stack: Stack, extents: NDArray[np.intp], settings: NormalisationSettings
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Tell whether the page's border is of one even paper: bool[N], and its median level, uint8[N]."""
    every = np.arange(len(stack))
    edges = (stack[:, 0], stack[every, extents[:, 0] - 1], stack[:, :, 0], stack[every, :, extents[:, 1] - 1])
    border = np.sort(np.concatenate(edges, axis=1), axis=1).astype(np.int16)
    median = border[:, border.shape[1] // 2]
    near = np.abs(border - median[:, None]) <= settings.flat_tolerance
    return near.mean(1) > settings.flat_share, median.astype(np.uint8)


def _filter(stack: Stack, size: int, operation: int) -> Stack:
    """Close, open or dilate every canvas with a square of `size` px, over the stack as one tall image.

    Canvases are parted by bars as high as the filter reaches, and the bars hold the filter's neutral value, so
    that no canvas sees another.
    """
    count, side, _ = stack.shape
    tall = np.empty((count, side + size // 2, side), np.uint8)
    square = np.ones((size, size), np.uint8)
    for step, neutral in _STEPS[operation]:
        tall[:, :side] = stack
        tall[:, side:] = neutral
        stack = np.asarray(step(tall.reshape(-1, side), square), np.uint8).reshape(tall.shape)[:, :side]
    return stack


_DILATE, _ERODE = (cv2.dilate, 0), (cv2.erode, 255)
_STEPS = {cv2.MORPH_CLOSE: (_DILATE, _ERODE), cv2.MORPH_OPEN: (_ERODE, _DILATE), cv2.MORPH_DILATE: (_DILATE,)}


_POLARITY_WEIGHTS = (4.5, 5.5, -3.8, 1.0, 10.6)
"""Weights of the evidence for dark ink: thin dark against thin light structure at three scales, the border's
level against the page's mean, and the same where the border is even. Fitted by logistic regression on the
handed-out real sets, on shaded copies of them, and on MNIST's training half, each set weighing the same."""


def _is_dark_ink(
    stack: Stack, closed: Sequence[Stack], opened: Sequence[Stack], flat: NDArray[np.bool_], level: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """Tell dark ink on light paper from light ink on dark paper: bool[N].

    Strokes are thin: closing fills thin dark structure, opening removes thin light structure. Where shadows make
    the border's level worthless, the energies of the two still tell.
    """
    evidence = []
    for filled, emptied in zip(closed, opened, strict=True):
        dark = _energy(filled, stack)
        light = _energy(stack, emptied)
        evidence.append((dark - light) / (dark + light + 1e-6))
    values = stack.reshape(len(stack), -1)
    border = (level - values.mean(1)) / (values.std(1) + 1e-6)
    evidence += [border, border * flat]
    score = np.tensordot(_POLARITY_WEIGHTS, np.stack(evidence), axes=1)
    return np.asarray(score >= 0, np.bool_)


def _energy(upper: Stack, lower: Stack) -> NDArray[np.float64]:
    """Sum the squares of upper − lower for each canvas: float64[N]."""
    difference = (upper - lower).reshape(len(upper), -1).astype(np.float32)
    return np.asarray(np.einsum("np,np->n", difference, difference), np.float64)


# ---- components ----------------------------------------------------------------------------------------------------


def _choose(depth: Stack, paper: Stack, inside: Masks, settings: NormalisationSettings) -> _Found:
    """Keep the components that make the digit.

    Args:
        depth: uint8[N, side, side], how much darker than its paper each pixel is.
        paper: uint8[N, side, side], the paper's level.
        inside: bool[N, side, side], where the page is.
        settings: Thresholds.
    """
    count, side, _ = depth.shape
    ink = np.divide(
        depth, np.maximum(paper, 1), dtype=np.float32
    )  # share of the paper's brightness, so shadows drop out
    peak = ink.max((1, 2))
    faint = inside & (ink < settings.ink_level * peak[:, None, None])
    noise = (ink * faint).sum((1, 2)) / np.maximum(faint.sum((1, 2)), 1)
    level = np.maximum(settings.ink_level * peak, np.minimum(settings.noise_factor * noise, 0.6 * peak))
    strokes = (ink >= level[:, None, None]) & (peak >= settings.least_contrast)[:, None, None]

    labels, components = _components(strokes, ink, inside)
    mask = _is_part(components, count, settings)[labels]
    reach = _filter(mask.astype(np.uint8), 3, cv2.MORPH_DILATE) > 0  # keep the strokes' soft edges
    share = mask.sum((1, 2)) / inside.sum((1, 2))
    contrast = (ink * mask).max((1, 2))
    return _Found(ink * (reach & inside), _boxes(mask), np.stack([share, contrast], axis=1).astype(np.float32))


class _Components(NamedTuple):
    """The connected components of a whole stack; row 0 is what belongs to none."""

    owner: NDArray[np.intp]  # [C], the canvas
    box: NDArray[np.float32]  # [C, 4]
    mass: NDArray[np.float32]  # [C], sum of the ink
    page: NDArray[np.float32]  # [C, 2], height and width of the page


def _components(strokes: Masks, ink: NDArray[np.float32], inside: Masks) -> tuple[NDArray[np.int32], _Components]:
    """Label the strokes of all canvases in one OpenCV call: int32[N, side, side], and the components."""
    count, side, _ = strokes.shape
    tall = np.zeros((count, side + 1, side), np.uint8)  # an empty row parts the canvases
    tall[:, :side] = strokes
    _, labels, stats, _ = cv2.connectedComponentsWithStats(tall.reshape(-1, side), connectivity=8, ltype=cv2.CV_32S)
    labels_of = np.asarray(labels, np.int32).reshape(tall.shape)[:, :side]
    owner = stats[:, cv2.CC_STAT_TOP] // (side + 1)
    left, top = stats[:, cv2.CC_STAT_LEFT], stats[:, cv2.CC_STAT_TOP] % (side + 1)
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    mass = np.bincount(labels_of.ravel(), weights=ink.ravel(), minlength=len(stats))
    extents = np.stack([inside[:, :, 0].sum(1), inside[:, 0].sum(1)], axis=1)
    return labels_of, _Components(
        owner.astype(np.intp),
        np.stack([left, top, right, bottom], axis=1).astype(np.float32),
        mass.astype(np.float32),
        extents[owner].astype(np.float32),
    )


def _is_part(found: _Components, count: int, settings: NormalisationSettings) -> NDArray[np.bool_]:
    """Tell which components make the digit of their canvas: bool[C], False for row 0."""
    left, top, right, bottom = found.box.T
    height, width = found.page.T
    edge = (left <= 0) | (top <= 0) | (right >= width) | (bottom >= height)
    across = (right - left >= width) & (bottom - top <= settings.line_thickness * height)
    down = (bottom - top >= height) & (right - left <= settings.line_thickness * width)
    # A line is only a line where there is a digit beside it: a 1 that fills its frame is alone.
    mass = np.where(across | down, 1e-3, 1.0) * found.mass
    rank = mass * np.where(edge, settings.edge_weight, 1.0)
    rank[0] = 0

    order = np.lexsort((rank[1:], found.owner[1:])) + 1
    main = np.zeros(count, np.intp)  # row 0, of no mass, where a canvas has no component
    main[found.owner[order]] = order  # the last assignment wins: the highest rank
    mine = main[found.owner]

    gap_x = np.maximum(left - right[mine], left[mine] - right)
    gap_y = np.maximum(top - bottom[mine], top[mine] - bottom)
    longer = np.maximum(right[mine] - left[mine], bottom[mine] - top[mine])
    near = np.maximum(gap_x, gap_y) <= settings.part_distance * longer
    part = near & (mass >= settings.part_mass * mass[mine]) & (~edge | edge[mine])
    part[main] = True
    part[0] = False
    return np.asarray(part, np.bool_)


def _boxes(mask: Masks) -> Boxes:
    """The box around each mask: float32[N, 4], zeros where it is empty."""
    side = mask.shape[1]
    lines: Masks = np.stack([mask.any(1), mask.any(2)], axis=1)  # [N, 2, side], columns then rows
    boxes = np.concatenate([lines.argmax(2), side - lines[:, :, ::-1].argmax(2)], axis=1)
    return np.where(lines[:, 0].any(axis=1, keepdims=True), boxes, 0).astype(np.float32)


# ---- frame ---------------------------------------------------------------------------------------------------------


def _frame(found: _Found, settings: NormalisationSettings) -> InkImages:
    """Resample each digit so that its longer side is 20 px and its centre of mass in the middle: uint8[N, 28, 28]."""
    side = found.ink.shape[1]
    low, high = found.boxes[:, :2], found.boxes[:, 2:]  # [N, 2], x then y
    step = np.maximum((high - low).max(1) / settings.digit_side, 1e-6)  # canvas pixels per pixel of the result
    at = np.arange(side, dtype=np.float32) + 0.5
    mass = np.maximum(found.ink.sum((1, 2)), 1e-6)
    centre = np.stack([found.ink.sum(1) @ at, found.ink.sum(2) @ at], axis=1) / mass[:, None]
    # MNIST centres on the middle of pixel 14. The box starts on a whole pixel, so that a digit that already fits is
    # not blurred, and never leaves the frame.
    start = np.rint(SIDE / 2 + 0.5 - (centre - low) / step[:, None])
    start = np.clip(start, 0, np.floor(SIDE - (high - low) / step[:, None] + 1e-3))
    across = _resampling(low[:, 0], start[:, 0], step, side)
    down = _resampling(low[:, 1], start[:, 1], step, side)
    framed = down @ found.ink @ across.transpose(0, 2, 1)
    peak = framed.max((1, 2), keepdims=True)
    return np.asarray(np.rint(framed * (255 / np.maximum(peak, 1e-6))), np.uint8)


def _resampling(
    low: NDArray[np.float32], start: NDArray[np.float32], step: NDArray[np.float32], side: int
) -> NDArray[np.float32]:
    """The weights of each canvas pixel in each pixel of the result, along one axis: float32[N, 28, side].

    Reducing averages areas; enlarging interpolates linearly; a step of 1 copies.
    """
    step = step[:, None, None]
    begin = low[:, None, None] + (np.arange(SIDE, dtype=np.float32)[:, None] - start[:, None, None]) * step
    pixel = np.arange(side, dtype=np.float32)
    overlap = np.minimum(begin + step, pixel + 1) - np.maximum(begin, pixel)
    distance = np.abs(begin + step / 2 - pixel - 0.5)
    weights = np.where(step >= 1, overlap / step, 1 - distance)
    return np.maximum(weights, 0).astype(np.float32)

"""Filter many small pages at once: a strip is canvases side by side, and one call goes through all of them.

Each step of the normalisation works on strips; no canvas of a strip sees another.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import InkMeasures

Strip = NDArray[np.uint8]  # [side, N, side]: row, canvas, column
Rows = NDArray[np.intp]
Boxes = NDArray[np.float32]  # [C, 4]: left, top, right, bottom in canvas pixels; right and bottom are exclusive


class Components(NamedTuple):
    """The connected components of a whole strip; component 0 is what belongs to none."""

    labels: NDArray[np.int32]
    """[side, N, side], the component of each pixel."""
    owner: Rows
    """[C], the canvas."""
    box: Boxes
    """[C, 4]."""
    area: NDArray[np.float32]
    """[C], pixels."""

    def at_edge(self, extents: Rows) -> NDArray[np.bool_]:
        """Tell which touch the edge of their page, whose height and width `extents`, intp[N, 2], holds: bool[C]."""
        left, top, right, bottom = self.box.T
        height, width = extents[self.owner].T
        return np.asarray((left <= 0) | (top <= 0) | (right >= width) | (bottom >= height), np.bool_)


class FoundInk(NamedTuple):
    """The ink of N pages, and what is known of it."""

    strip: Strip
    """uint8[side, N, side], the digit's ink alone."""
    boxes: Boxes
    """float32[N, 4], the digit's box on its canvas: left, top, right, bottom; zeros where no ink was found."""
    measures: InkMeasures
    """float32[N, M], the columns of `INK_MEASURES`."""
    places: Boxes
    """float32[N, 4], the digit's box on its page, as shares of the page's width and height; zeros where there is none,
    and on cut-outs, which are nearly all digit."""


def edges(pages: NDArray[Any], extents: Rows) -> NDArray[Any]:
    """Take the border of each page [N, side, side]: [N, 4 × side] of the same dtype."""
    every = np.arange(len(pages))
    sides = (pages[:, 0], pages[every, extents[:, 0] - 1], pages[:, :, 0], pages[every, :, extents[:, 1] - 1])
    return np.concatenate(sides, axis=1)


def spread(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Repeat the value of each canvas, [N], over its columns: [N, side] of the same dtype.

    A strip and this are walked through in rows as long as the strip, a strip and `values[:, None]` canvas by canvas.
    """
    return np.repeat(values, side).reshape(-1, side)


def repeat_edges(strip: NDArray[Any], rows: Rows | int, height: int, width: int) -> None:
    """Fill canvases of [side, N, side] beyond their pages of height × width, in place, with the last row and column."""
    strip[:height, rows, width:] = strip[:height, rows, width - 1 : width]
    strip[height:, rows] = strip[height - 1, rows]


def morph(strip: Strip, size: int, operation: int) -> Strip:
    """Close, open or dilate every canvas with a square of `size` px, in one call over the strip.

    Canvases are parted by bars as wide as the filter reaches, which hold the filter's neutral value, so that no
    canvas sees another.
    """
    side, count, _ = strip.shape
    wide = np.empty((side, count, side + size // 2), np.uint8)
    square = np.ones((size, size), np.uint8)
    for step, neutral in _STEPS[operation]:
        wide[:, :, :side] = strip
        wide[:, :, side:] = neutral
        strip = np.asarray(step(wide.reshape(side, -1), square), np.uint8).reshape(wide.shape)[:, :, :side]
    return strip


_DILATE, _ERODE = (cv2.dilate, 0), (cv2.erode, 255)
_STEPS = {cv2.MORPH_CLOSE: (_DILATE, _ERODE), cv2.MORPH_OPEN: (_ERODE, _DILATE), cv2.MORPH_DILATE: (_DILATE,)}


def components(inked: NDArray[np.bool_]) -> Components:
    """Find what hangs together, corners too, in each canvas of bool[side, N, side], in one call over the strip."""
    side, count, _ = inked.shape
    wide = np.zeros((side, count, side + 1), np.uint8)  # an empty column parts the canvases
    wide[:, :, :side] = inked
    # OpenCV's default numbers them alike, but takes up to three times as long to measure them.
    found = cv2.connectedComponentsWithStatsWithAlgorithm(wide.reshape(side, -1), 8, cv2.CV_32S, cv2.CCL_GRANA)
    labels, stats = np.asarray(found[1], np.int32).reshape(wide.shape)[:, :, :side], np.asarray(found[2])
    left, top = stats[:, cv2.CC_STAT_LEFT] % (side + 1), stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    owner = (stats[:, cv2.CC_STAT_LEFT] // (side + 1)).astype(np.intp)
    box = np.stack([left, top, right, bottom], axis=1).astype(np.float32)
    return Components(labels, owner, box, stats[:, cv2.CC_STAT_AREA].astype(np.float32))


def total(strip: Strip | NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Sum each canvas, one axis at a time, which numpy does ten times as fast as both at once: uint64[N]."""
    return np.asarray(strip.sum(0, dtype=np.uint32).sum(1), np.uint64)


def most(strip: Strip) -> NDArray[np.uint8]:
    """Find the brightest pixel of each canvas: uint8[N]."""
    return np.asarray(strip.max(0).max(1))

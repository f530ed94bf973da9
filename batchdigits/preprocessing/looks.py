"""Look at a square part of a page as the ink finder sees it: 64×64 cells of three numbers each.

A cell is the mean, the darkest and the lightest pixel of its part of the page, so that a stroke thinner than a cell is
still seen. Beyond the page the darkest is white and the lightest black, which no part of a page is.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import LOOK_CELLS, GreyImage

Cells = NDArray[np.uint8]  # [64, 64, 3]

_LEAST_SPREAD = 3.0  # grey levels: standard deviation of a page on which nothing is to be seen, about
_GRAIN = 0.25  # of the span of grey levels within a cell: a standard deviation, about
_CONTRAST = 48.0  # levels of a look that one standard deviation of the page becomes
_SMOOTH = 3  # pixels across a cell up to which pages are stretched smoothly; beyond, a repeated pixel is not seen
_BEYOND = (128, 255, 0)
_LEVELS = np.arange(256, dtype=np.float32)


class Square(NamedTuple):
    """A square part of a page, which may reach beyond it: whole pixels."""

    left: int
    top: int
    side: int

    def meets(self, other: "Square") -> bool:
        """Tell whether it shares pixels with another of its size."""
        return max(abs(self.left - other.left), abs(self.top - other.top)) < self.side


class Look(NamedTuple):
    """What is seen of a part of a page."""

    cells: Cells
    """uint8[64, 64, 3]: mean, darkest and lightest pixel."""
    gain: float
    """How many levels of the cells one grey level of the page became; 0 where what is seen is even."""


def whole(page: GreyImage) -> Square:
    """Give the square that holds a page in its middle."""
    height, width = page.shape
    side = max(height, width)
    return Square((width - side) // 2, (height - side) // 2, side)


def around(box: Sequence[float], margin: float) -> Square:
    """Give the square around a box (left, top, right, bottom), and a margin in shares of its longer side."""
    left, top, right, bottom = box
    side = max(8, round((1 + 2 * margin) * max(right - left, bottom - top)))
    return Square(round((left + right - side) / 2), round((top + bottom - side) / 2), side)


def look(page: GreyImage, square: Square) -> Look:
    """Reduce, or enlarge, a square part of a page to 64×64×3, with a contrast that does not depend on its light."""
    part, x, y, fine = _fitted(page, square)
    rows, columns = part.shape[0] // fine, part.shape[1] // fine
    seen = np.empty((LOOK_CELLS, LOOK_CELLS, 3), np.uint8)
    seen[:] = _BEYOND
    if fine == 1:
        mean, darkest, lightest = part, part, part
    else:
        mean = np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
        darkest, lightest = _reduced(part, fine, cv2.min), _reduced(part, fine, cv2.max)
    level, spread = cv2.meanStdDev(mean)
    within = cv2.mean(lightest)[0] - cv2.mean(darkest)[0]  # cells that are all grain would else be all black and white
    deviation = max(float(spread[0, 0]), _GRAIN * within)
    gain = _CONTRAST / max(deviation, _LEAST_SPREAD) if deviation else 0.0
    table = np.clip(128.5 + gain * (_LEVELS - np.float32(level[0, 0])), 0, 255).astype(np.uint8)
    seen[y : y + rows, x : x + columns] = cv2.LUT(cv2.merge([mean, darkest, lightest]), table)
    return Look(seen, gain)


def _reduced(part: GreyImage, fine: int, choose: Callable[[Any, Any], Any]) -> GreyImage:
    """Choose one of the pixels of each cell, of `fine` × `fine`, by pairs."""
    stripes = reduce(choose, [part[at::fine] for at in range(fine)])
    return np.asarray(reduce(choose, [np.ascontiguousarray(stripes[:, at::fine]) for at in range(fine)]), np.uint8)


def cover(ink: GreyImage, square: Square) -> NDArray[np.uint8]:
    """Reduce a page's ink, uint8[H, W], to the cells of a look: uint8[64, 64], 0 beyond the page."""
    part, x, y, fine = _fitted(ink, square)
    rows, columns = part.shape[0] // fine, part.shape[1] // fine
    covered = np.zeros((LOOK_CELLS, LOOK_CELLS), np.uint8)
    covered[y : y + rows, x : x + columns] = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
    return covered


def _fitted(page: GreyImage, square: Square) -> tuple[GreyImage, int, int, int]:
    """Cut what a square shows of a page, enlarged so that whole pixels make a cell.

    Returns:
        uint8[rows × fine, columns × fine]; the column and the row of its first cell; and `fine`, pixels across a cell.
    """
    height, width = page.shape
    scale = LOOK_CELLS / square.side
    left, right = max(0, square.left), min(width, square.left + square.side)
    top, bottom = max(0, square.top), min(height, square.top + square.side)
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    x, y = (
        min(LOOK_CELLS - 1, max(0, round(scale * (start - edge))))
        for start, edge in ((left, square.left), (top, square.top))
    )
    columns = min(LOOK_CELLS, max(x + 1, round(scale * (right - square.left)))) - x
    rows = min(LOOK_CELLS, max(y + 1, round(scale * (bottom - square.top)))) - y
    fine = -(-square.side // LOOK_CELLS)
    part = page[top:bottom, left:right]
    size = (columns * fine, rows * fine)
    if part.shape[::-1] != size:
        how = cv2.INTER_NEAREST if fine > _SMOOTH else cv2.INTER_LINEAR
        part = np.asarray(cv2.resize(part, size, interpolation=how), np.uint8)
    return part, x, y, fine

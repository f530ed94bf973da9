"""Grey pages of any size in; pages as small as they are looked at, and strips of canvases that hold them, out."""

from collections.abc import Sequence

import cv2
import numpy as np

from batchdigits.preprocessing.strips import Rows, Strip, repeat_edges
from batchdigits.records import FullResolution, GreyImage

CANVAS_SIDES = (16, 28, 32, 48, 64)
"""Pixels: a page is placed on the smallest canvas that holds it; a larger page is reduced to the largest."""

_MARGIN = 0.3  # of a digit's longer side, so that it takes more of its crop than `zoom_below` asks


def strip_of(pages: Sequence[GreyImage], side: int) -> tuple[Strip, Rows]:
    """Place pages at the top left of canvases side by side; the rest repeats the page's last row and column.

    Returns:
        uint8[side, N, side], and intp[N, 2], the height and width that each page takes.
    """
    fitted = [page if max(page.shape) <= side else fit(page, side) for page in pages]
    shapes = [page.shape for page in fitted]
    extents = np.array(shapes, np.intp)
    strip = np.empty((side, len(pages), side), np.uint8)
    for height, width in set(shapes):
        same = np.flatnonzero((extents == (height, width)).all(1))
        stack = np.concatenate([fitted[row] for row in same.tolist()]).reshape(-1, height, width)
        strip[:height, same, :width] = stack.transpose(1, 0, 2)
        repeat_edges(strip, same, height, width)
    return strip, extents


def fit(page: GreyImage, side: int) -> GreyImage:
    """Reduce a page so that its longer side fits: by halves first, the cheapest exact reduction, then linearly."""
    page = halved(page, side)
    if (longer := max(page.shape)) <= side:
        return page
    height, width = (max(1, round(extent * side / longer)) for extent in page.shape)
    return np.asarray(cv2.resize(page, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def halved(page: GreyImage, side: int) -> GreyImage:
    """Halve a page until its longer side is less than twice `side`: the cheapest exact reduction."""
    while min(page.shape) > 1 and max(page.shape) >= 2 * side:
        rows, columns = (extent // 2 for extent in page.shape)
        half = page[: 2 * rows, : 2 * columns]  # an odd row or column is left out
        page = np.asarray(cv2.resize(half, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return page


def crop(page: GreyImage, box: Sequence[float], finer: FullResolution | None = None) -> GreyImage:
    """Cut a digit's part out of its page, with paper around it.

    Args:
        page: uint8[H, W].
        box: Left, top, right and bottom of the digit, as shares of the page's longer side.
        finer: Gives the same page with more pixels; it is asked for where too few to fill a canvas would be cut out.
    """
    side = (1 + 2 * _MARGIN) * max(box[2] - box[0], box[3] - box[1])
    if finer and side * max(page.shape) < CANVAS_SIDES[-1]:
        page = finer()
    left, top, right, bottom = (edge * max(page.shape) for edge in box)
    margin = _MARGIN * max(right - left, bottom - top)
    rows = slice(max(0, int(top - margin)), int(bottom + margin) + 1)
    columns = slice(max(0, int(left - margin)), int(right + margin) + 1)
    return page[rows, columns]

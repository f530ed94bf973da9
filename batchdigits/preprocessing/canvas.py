"""Make pages as small as they are looked at, and place small ones side by side on canvases of one size."""

from collections.abc import Sequence

import cv2
import numpy as np

from batchdigits.preprocessing.strips import Rows, Strip, repeat_edges
from batchdigits.records import GreyImage

CANVAS_SIDES = (16, 28)
"""Pixels: a small page is placed on the smallest canvas that holds it; a larger one is none of theirs."""


def strip_of(pages: Sequence[GreyImage], side: int) -> tuple[Strip, Rows]:
    """Place pages at the top left of canvases side by side; the rest repeats the page's last row and column.

    Returns:
        uint8[side, N, side], and intp[N, 2], the height and width that each page takes.
    """
    shapes = [page.shape for page in pages]
    extents = np.array(shapes, np.intp)
    strip = np.empty((side, len(pages), side), np.uint8)
    for height, width in set(shapes):
        same = np.flatnonzero((extents == (height, width)).all(1))
        stack = np.concatenate([pages[row] for row in same.tolist()]).reshape(-1, height, width)
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

"""A grey page in; a small picture of it for people, and that as a PNG of at most 3 kB, out."""

from functools import lru_cache

import cv2
import numpy as np

from batchdigits.records import GreyImage

SIDE = 96
"""Pixels: the longer side, at most."""
MOST_BYTES = 3072
"""Of a PNG."""

_STEPS = 15  # between 16 levels of grey; a digit needs no more, and they take half the bytes
_HOW = (  # runs of one grey are all that there is to save, and found in a third of the time
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
)
_LEAST_SPREAD = 24  # levels of grey; fainter ink is hardly visible on a screen
_SIDES = (SIDE, 72, 56, 40, 28)  # tried until one fits: noise hardly shrinks


def reduced(page: GreyImage, side: int = SIDE) -> GreyImage:
    """Reduce a page, uint8[H, W], so that its longer side is at most `side`; a smaller one stays as it is."""
    return fit(page, side)


def png(picture: GreyImage) -> bytes:
    """Spell a picture as a PNG: as large as fits into `MOST_BYTES`, in 16 levels of grey, faint ink made visible."""
    levels = _levels(int(picture.min()), int(picture.max()))
    for side in _SIDES:
        _, data = cv2.imencode(".png", cv2.LUT(reduced(picture, side), levels), _HOW)
        if len(data) <= MOST_BYTES:
            break
    return data.tobytes()


@lru_cache(maxsize=1024)
def _levels(low: int, high: int) -> GreyImage:
    """Spread grey levels from black to white, but those of even paper little: its grain says nothing."""
    spread = max(high - low, _LEAST_SPREAD)
    shares = (1 - (high - np.arange(256, dtype=np.float32)) / spread).clip(0, 1)
    return np.asarray(np.rint(shares * _STEPS) * (255 // _STEPS), np.uint8)


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

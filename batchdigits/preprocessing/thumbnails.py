"""Draw pages for people: small pictures, as PNGs of at most 3 kB.

Where a page's digit is small, the picture is the part around it. A chunk of the PNG, which all other programs pass
over, says where on the page that part is, and holds a smaller picture of the whole.
"""

import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from batchdigits.records import FullResolution, GreyImage

SIDE = 96
"""Pixels: the longer side, at most."""
MOST_BYTES = 3072
"""Of a PNG."""
CHUNK = b"inKp"
"""Name of the chunk behind the header: four uint16, left, top, right and bottom of the part of the page that people
should look at, where 65,535 is its whole width or height; then, unless the picture shows all of the page, a PNG that
does."""

_STEPS = 15  # between 16 levels of grey; a digit needs no more, and they take half the bytes
_HOW = (  # runs of one grey are all that there is to save, and found in a third of the time
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
)
_LEAST_SPREAD = 24  # levels of grey; fainter ink is hardly visible on a screen
_SIDES = (SIDE, 72, 56, 40, 28)  # tried until one fits: noise hardly shrinks
_MARGIN = 0.2  # of the digit's longer side, around it
_SMALL, _LARGE = 0.5, 0.75  # shares of the page's longer side: below one a part is drawn by itself, above it is no part
_WHOLE_SIDE, _WHOLE_BYTES = 48, 1024  # of the picture of the whole page
_FEW_PIXELS = 48  # across a part: more are asked for
_HEADER = 33  # bytes: a PNG's signature, and the chunk that says its size
_FULL = 65535


def png(page: GreyImage, ink: Sequence[float] = (0, 0, 0, 0), full_resolution: FullResolution | None = None) -> bytes:
    """Draw a page, or the part of it around a small digit, in 16 levels of grey, faint ink made visible.

    Args:
        page: uint8[H, W].
        ink: The digit's box: left, top, right and bottom as shares of the page's width and height; zeros where nobody
            knows it.
        full_resolution: Gives the page with more pixels, if anything does.

    Returns:
        A PNG, as large as fits into `MOST_BYTES`.
    """
    height, width = page.shape
    left, top, right, bottom = np.multiply(ink, (width, height, width, height)).tolist()
    side = (1 + 2 * _MARGIN) * max(right - left, bottom - top)
    if not 0 < side < _LARGE * max(page.shape):
        return _spelled(page, MOST_BYTES)
    (x, end_x), (y, end_y) = _within(left, right, side, width), _within(top, bottom, side, height)
    chunk = CHUNK + struct.pack(">4H", *(round(_FULL * share) for share in (x, y, end_x, end_y)))
    if side < _SMALL * max(page.shape):
        chunk += _spelled(fit(page, _WHOLE_SIDE), _WHOLE_BYTES)
        page = full_resolution() if full_resolution and side < _FEW_PIXELS else page
        height, width = page.shape
        page = page[int(y * height) : round(end_y * height) + 1, int(x * width) : round(end_x * width) + 1]
    data = _spelled(page, MOST_BYTES - len(chunk) - 8)
    framed = struct.pack(">I", len(chunk) - len(CHUNK)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return data[:_HEADER] + framed + data[_HEADER:]


def _within(low: float, high: float, side: float, extent: int) -> tuple[float, float]:
    """Widen an interval to `side`, but not beyond 0 and `extent`, of which its ends become shares."""
    side = min(side, extent)
    start = min(max((low + high - side) / 2, 0), extent - side)
    return start / extent, (start + side) / extent


def _spelled(picture: GreyImage, most_bytes: int) -> bytes:
    levels = _levels(int(picture.min()), int(picture.max()))
    for side in _SIDES:
        _, data = cv2.imencode(".png", cv2.LUT(fit(picture, side), levels), _HOW)
        if len(data) <= most_bytes:
            break
    return data.tobytes()


def fit(page: GreyImage, side: int) -> GreyImage:
    """Reduce a page so that its longer side fits: by halves first, the cheapest exact reduction, then linearly."""
    page = halve_until(page, side)
    if (longer := max(page.shape)) <= side:
        return page
    height, width = (max(1, round(extent * side / longer)) for extent in page.shape)
    return np.asarray(cv2.resize(page, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def halve_until(page: GreyImage, side: int) -> GreyImage:
    """Halve a page until its longer side is less than twice `side`: the cheapest exact reduction."""
    while min(page.shape) > 1 and max(page.shape) >= 2 * side:
        rows, columns = (extent // 2 for extent in page.shape)
        half = page[: 2 * rows, : 2 * columns]  # an odd row or column is left out
        page = np.asarray(cv2.resize(half, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return page


@lru_cache(maxsize=1024)
def _levels(low: int, high: int) -> GreyImage:
    """Spread grey levels from black to white, but those of even paper little: its grain says nothing."""
    spread = max(high - low, _LEAST_SPREAD)
    shares = (1 - (high - np.arange(256, dtype=np.float32)) / spread).clip(0, 1)
    return np.asarray(np.rint(shares * _STEPS) * (255 // _STEPS), np.uint8)

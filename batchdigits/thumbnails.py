"""A grey page in; a small picture of it for people, and that as a PNG of at most 3 kB, out."""

import cv2
import numpy as np

from batchdigits.normalisation import GreyImage

SIDE = 96
"""Pixels: the longer side, at most."""
MOST_BYTES = 3072
"""Of a PNG."""

_STEP = 255 / 15  # of 16 levels of grey; a digit needs no more, and they take half the bytes
_LEAST_SPREAD = 24  # levels of grey; fainter ink is hardly visible on a screen
_SIDES = (SIDE, 72, 56, 40, 28)  # tried until one fits: noise hardly shrinks


def reduced(page: GreyImage, side: int = SIDE) -> GreyImage:
    """Reduce a page, uint8[H, W], so that its longer side is at most `side`; of a smaller one, give a copy.

    By halves first, which is quick and exact.
    """
    while max(page.shape) >= 2 * side and min(page.shape) > 1:
        rows, columns = (extent // 2 for extent in page.shape)
        page = np.asarray(
            cv2.resize(page[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA), np.uint8
        )
    height, width = page.shape
    if max(height, width) <= side:
        return page.copy()
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(page, size, interpolation=cv2.INTER_AREA), np.uint8)


def png(picture: GreyImage) -> bytes:
    """Spell a picture as a PNG: as large as fits into `MOST_BYTES`, in 16 levels of grey, faint ink made visible."""
    stretched = _stretched(picture)
    for side in _SIDES:
        levels = (np.rint(reduced(stretched, side) / _STEP) * _STEP).astype(np.uint8)
        _, data = cv2.imencode(".png", levels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        if len(data) <= MOST_BYTES:
            break
    return data.tobytes()


def _stretched(picture: GreyImage) -> GreyImage:
    """Spread the levels of a picture from black to white, but those of even paper little: its grain says nothing."""
    low, high = int(picture.min()), int(picture.max())
    spread = max(high - low, _LEAST_SPREAD)
    return (
        np.asarray(255 - (high - picture.astype(np.float32)) * (255 / spread), np.float32).clip(0, 255).astype(np.uint8)
    )

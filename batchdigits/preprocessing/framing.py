"""Frame a digit as the model reads it: at one size, in the middle of 28×28 pixels."""

import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.tiles import Boxes, TileStack
from batchdigits.records import SIDE, InkImages

Floats = NDArray[np.float32]


def frame(tiles: TileStack, boxes: Boxes, digit_side: int) -> InkImages:
    """Resample each digit to the pixel contract: its centre of mass in the middle.

    Args:
        tiles: uint8[side, N, side], ink on 0.
        boxes: float32[N, 4], the digits' boxes: left, top, right, bottom; zeros where there is none.
        digit_side: Pixels of a digit's longer side.

    Returns:
        uint8[N, 28, 28], each digit's strongest ink 255.

    Source: 20×20 box and centre of mass: LeCun, Bottou, Bengio, Haffner, «Gradient-based learning applied to
    document recognition», Proceedings of the IEEE 86(11), 1998, section III.A.
    """
    side = len(tiles)
    ink = tiles.transpose(1, 0, 2).astype(np.float32)  # [N, side, side]
    low, high = boxes[:, :2], boxes[:, 2:]  # [N, 2], x then y
    step = np.maximum((high - low).max(1) / digit_side, 1e-6)  # tile pixels per pixel of the result
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
    """The weights of each tile pixel in each pixel of the result, along one axis: float32[N, 28, side].

    A pixel of the result is the mean over its own width, and over one tile pixel at least: so reducing averages
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

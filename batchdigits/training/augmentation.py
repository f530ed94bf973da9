"""Normalised digits in; varied digits, as pages that a scanner could have given, out.

Seeded and vectorised: one call varies a whole batch, and the same generator state gives the same pages.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.normalisation import SIDE, InkImages

PAGE_SIDE = 40
"""Pixels: side of the varied pages; the digit's 20 px box may grow and turn without leaving them."""

_GAP = 2  # empty rows between the digits of one tall image
_KNOTS = 6  # the elastic field is drawn on 6×6 knots and spread smoothly over the page


def vary(digits: InkImages, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn, shear, stretch, bend and re-ink each digit at random.

    Args:
        digits: uint8[N, 28, 28], bright ink on 0.
        rng: The only source of randomness.

    Returns:
        uint8[N, 40, 40], bright ink on 0; pass them through `normalise` before the network sees them.

    Source: affine and elastic distortion after Simard, Steinkraus, Platt, «Best practices for convolutional
    neural networks applied to visual document analysis», ICDAR 2003.
    """
    return _re_ink(_warp(digits, rng), rng)


def _warp(digits: InkImages, rng: np.random.Generator) -> NDArray[np.uint8]:
    count = len(digits)
    grid = np.arange(PAGE_SIDE, dtype=np.float32) - (PAGE_SIDE - 1) / 2
    matrix = _affine(count, rng)
    bend = _elastic(count, rng)
    x = matrix[:, 0, 0, None, None] * grid + matrix[:, 0, 1, None, None] * grid[:, None] + bend[..., 0]
    y = matrix[:, 1, 0, None, None] * grid + matrix[:, 1, 1, None, None] * grid[:, None] + bend[..., 1]
    # Coordinates in the tall image; clipping to the gap keeps a digit from seeing the next one.
    x = np.clip(x + (SIDE - 1) / 2, -1, SIDE)
    y = np.clip(y + (SIDE - 1) / 2, -1, SIDE) + 1 + (np.arange(count, dtype=np.float32) * (SIDE + _GAP))[:, None, None]
    tall = np.pad(digits, ((0, 0), (1, 1), (0, 0))).reshape(-1, SIDE)
    page = cv2.remap(tall, x.reshape(-1, PAGE_SIDE), y.reshape(-1, PAGE_SIDE), cv2.INTER_LINEAR, borderValue=0)
    return page.reshape(count, PAGE_SIDE, PAGE_SIDE).astype(np.uint8, copy=False)


def _affine(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Matrices from page to digit: float32[N, 2, 2]."""
    turn = np.deg2rad(rng.normal(0, 7, count))
    shear = rng.normal(0, 0.14, count)
    wide, high = np.exp(rng.normal(0, 0.10, (2, count)))
    cos, sin = np.cos(turn), np.sin(turn)
    rows = [[wide * cos, wide * (shear * cos - sin)], [high * sin, high * (shear * sin + cos)]]
    return np.array(rows, np.float32).transpose(2, 0, 1)


def _elastic(count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Smooth displacements in pixels: float32[N, 40, 40, 2]."""
    amplitude = rng.uniform(0, 1.5, (count, 1, 1, 1))
    knots = (rng.normal(0, 1, (count, _KNOTS, _KNOTS, 2)) * amplitude).astype(np.float32)
    field = np.empty((count, PAGE_SIDE, PAGE_SIDE, 2), np.float32)
    for one, spread in zip(knots, field, strict=True):
        cv2.resize(one, (PAGE_SIDE, PAGE_SIDE), dst=spread, interpolation=cv2.INTER_CUBIC)
    return field


def _re_ink(pages: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Make strokes thinner, bolder, softer or harder: a blur, then a steeper or flatter step from paper to ink."""
    count = len(pages)
    tall = cv2.GaussianBlur(pages.reshape(-1, PAGE_SIDE), (3, 3), 0.7).reshape(pages.shape)
    soft = rng.uniform(0, 1, (count, 1, 1)).astype(np.float32)
    mixed = pages + soft * (tall.astype(np.float32) - pages)
    threshold = rng.uniform(0, 90, (count, 1, 1)).astype(np.float32)
    gain = rng.uniform(1, 2.5, (count, 1, 1)).astype(np.float32)
    return np.asarray(np.clip((mixed - threshold) * gain, 0, 255), np.uint8)

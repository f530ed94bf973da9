"""Tell whether the ink of small pages is dark or light."""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.strips import Rows, Strip, edges, energy, morph, odd, total

Floats = NDArray[np.float64]
Signs = NDArray[np.int8]  # [N], 1 dark ink, -1 light ink, 0 unknown

_THIN, _BOLD = 0.06, 0.16  # of the canvas: sides of squares that fill thinner and bolder strokes
_LIGHT_SCALE = 0.3  # of the canvas: side of the square in which the light is taken as even
_DARKEST = 8  # grey levels of light, at least: where there is less, nothing can be told from it
_POLARITY_WEIGHTS = (2.1, 2.9, 0.3, 4.8)
"""Weights of the columns of `polarity_evidence`: a logistic regression on simulated scans."""


def find_polarity(strip: Strip, level: NDArray[np.uint8]) -> Signs:
    """Tell dark ink from light ink on even paper, where the border's level is the paper's: int8[N], 1 or -1."""
    return _sign(level >= total(strip) / len(strip) ** 2)


def weigh_polarity(strip: Strip, light: Floats, extents: Rows) -> Signs:
    """Tell dark ink from light ink on uneven paper, by weighing evidence: int8[N], 1 or -1."""
    return _sign(np.round(polarity_evidence(strip, light, extents) @ _POLARITY_WEIGHTS, 6) >= 0)


def _sign(dark: NDArray[np.bool_]) -> Signs:
    return np.where(dark, np.int8(1), np.int8(-1))


def polarity_evidence(strip: Strip, light: Floats, extents: Rows) -> Floats:
    """Gather what speaks for dark ink on light paper, above 0, and for light ink on dark paper, below 0.

    A negative's evidence is the same with the other sign. Slopes of light are taken out first: the level of a page's
    border says little where one side of it lies in a shadow.

    Args:
        strip: uint8[side, N, side].
        light: float64[side, N, side], the pages' `slopes_of_light`.
        extents: intp[N, 2], the height and width that each page takes.

    Returns:
        float64[N, 4]: the skewness of what differs from the light nearby, for there is less ink than paper; dark
        against light structure, -1 to 1, by closing, which fills dark strokes, and opening; the same for thin strokes;
        and the median of the border against the light, in standard deviations.
    """
    differs = np.ascontiguousarray((strip - light).transpose(1, 0, 2), np.float32)
    border = edges(differs, extents)
    spread = differs.std((1, 2)) + 1e-6
    nearby = (odd(_LIGHT_SCALE * len(strip)),) * 2
    for page in differs:
        page -= cv2.blur(page, nearby, borderType=cv2.BORDER_REFLECT)
    skewness = -np.cbrt((differs * differs * differs).mean((1, 2))) / (differs.std((1, 2)) + 1e-6)
    thin, bold = _structure(strip, _THIN), _structure(strip, _BOLD)
    return np.stack([skewness, bold, thin, np.median(border, axis=1) / spread], axis=1)


def _structure(strip: Strip, scale: float) -> Floats:
    """Weigh dark against light structure that a square of this scale fills: float64[N], -1 to 1."""
    size = odd(scale * len(strip))
    for_dark = energy(morph(strip, size, cv2.MORPH_CLOSE) - strip)
    for_light = energy(strip - morph(strip, size, cv2.MORPH_OPEN))
    return (for_dark - for_light) / (for_dark + for_light + 1e-6)


def slopes_of_light(strip: Strip, extents: Rows) -> Floats:
    """Fit the light of each page, bilinear in x and y, its edges repeated beyond the page: float64[side, N, side]."""
    heights, widths = extents.T
    pages = strip.transpose(1, 0, 2).astype(np.float64)  # [N, side, side]
    down, across = (_linear(lengths, len(strip)) for lengths in (heights, widths))
    fitted = _within(down, heights).transpose(0, 2, 1) @ pages @ _within(across, widths)  # [N, 2, 2]
    return np.asarray((down @ fitted @ across.transpose(0, 2, 1)).transpose(1, 0, 2))


def without_slopes(strip: Strip, light: Floats) -> Strip:
    """Light each page evenly, where its light is `light`, of the same shape: uint8[side, N, side]."""
    light = light.astype(np.float32)
    even = strip * (light.mean((0, 2))[:, None] / np.maximum(light, _DARKEST))
    return np.asarray(np.rint(even.clip(0, 255)), np.uint8)


def _linear(lengths: Rows, side: int) -> Floats:
    """Make the two functions of a linear light along one axis, orthonormal on each page: float64[N, side, 2].

    Beyond the page its last value is repeated.
    """
    last = (lengths - 1)[:, None]
    level = np.repeat(lengths[:, None] ** -0.5, side, axis=1)
    slope = np.minimum(np.arange(side), last) - last / 2
    norm = np.sqrt(lengths * (lengths**2 - 1) / 12)[:, None]  # of 0, 1, 2 … about their mean
    return np.stack([level, slope / np.maximum(norm, 0.5)], axis=2)


def _within(functions: Floats, lengths: Rows) -> Floats:
    """Set functions [N, side, 2] to zero beyond their pages."""
    return functions * (np.arange(functions.shape[1]) < lengths[:, None])[:, :, None]

"""Strips of pages in; whether their ink is dark or light, out: a step of the normalisation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.strips import Rows, Strip, edges, energy, morph, odd, repeat_edges, total

Signs = NDArray[np.int8]  # [N], 1 dark ink, -1 light ink, 0 unknown

_STROKE_SCALES = (0.06, 0.16)  # of the canvas: sides of squares that fill thin and bold strokes
_LIGHT_SCALE = 0.3  # of the canvas: side of the square in which the light is taken as even
_DARKEST = 8  # grey levels of light, at least: where there is less, nothing can be told from it
_POLARITY_WEIGHTS = ((0.7, 2.8, 4.9, 2.1), (0.5, 1.4, 0.7, 2.9))
"""Weights of the columns of `polarity_evidence`, of cuts and of photos: a logistic regression on simulated scans and
on simulated photos, which tests/benchmarks/polarity_weights.py repeats. On a photo the border says little."""


def find_polarity(
    strip: Strip, extents: Rows, level: NDArray[np.uint8], uneven: Rows, photo: NDArray[np.bool_]
) -> Signs:
    """Tell dark ink from light ink: int8[N], 1 or -1.

    The border of even paper is the paper's. Where the paper is uneven, the evidence is weighed.
    """
    dark = level >= total(strip) / len(strip) ** 2
    if len(uneven):
        evidence = polarity_evidence(np.ascontiguousarray(strip[:, uneven]), extents[uneven])
        weights = np.array(_POLARITY_WEIGHTS)[photo[uneven].astype(np.intp)]  # [U, 4]
        dark[uneven] = np.round((evidence * weights).sum(1), 6) >= 0
    return np.where(dark, np.int8(1), np.int8(-1))


def polarity_evidence(strip: Strip, extents: Rows) -> NDArray[np.float64]:
    """Gather what speaks for dark ink on light paper, above 0, and for light ink on dark paper, below 0.

    A negative's evidence is the same with the other sign. Slopes of light are taken out first: the level of a page's
    border says little where one side of it lies in a shadow.

    Returns:
        float64[N, 4]: thin dark against thin light structure at two scales, -1 to 1, by closing, which fills thin
        dark strokes, and opening; the median of the border against the light, in standard deviations of the page; and
        the skewness of what differs from the light nearby, for there is less ink than paper.
    """
    structure = []
    for scale in _STROKE_SCALES:
        size = odd(scale * len(strip))
        dark = energy(morph(strip, size, cv2.MORPH_CLOSE) - strip)
        light = energy(strip - morph(strip, size, cv2.MORPH_OPEN))
        structure.append((dark - light) / (dark + light + 1e-6))
    differs = np.ascontiguousarray((strip - _light(strip, extents)).transpose(1, 0, 2))
    border = np.median(edges(differs, extents), axis=1) / (differs.std((1, 2)) + 1e-6)
    nearby = (odd(_LIGHT_SCALE * len(strip)),) * 2
    for page in differs:
        page -= cv2.blur(page, nearby, borderType=cv2.BORDER_REFLECT)
    skewness = np.cbrt((differs * differs * differs).mean((1, 2))) / (differs.std((1, 2)) + 1e-6)
    return np.stack([*structure, border, -skewness], axis=1)


def without_slopes_of_light(strip: Strip, extents: Rows) -> Strip:
    """Light each page evenly, where its light is bilinear in x and y: uint8[side, N, side]."""
    light = _light(strip, extents)
    even = strip * (light.mean((0, 2))[:, None] / np.maximum(light, _DARKEST))
    return np.asarray(np.rint(even.clip(0, 255)), np.uint8)


def _light(strip: Strip, extents: Rows) -> NDArray[np.float64]:
    """Fit the light of each page, bilinear in x and y, its edges repeated beyond the page: float64[side, N, side]."""
    light = np.empty(strip.shape)
    for height, width in np.unique(extents, axis=0).tolist():
        rows = np.flatnonzero((extents == (height, width)).all(1))
        x, y = (_along(extent) for extent in (width, height))  # [2, W] and [2, H]
        pages = strip[:height, rows, :width].transpose(1, 0, 2).astype(np.float64)
        fitted = y.T @ (y @ pages @ x.T) @ x  # [R, H, W]
        light[:height, rows, :width] = fitted.transpose(1, 0, 2)
        repeat_edges(light, rows, height, width)
    return light


def _along(extent: int) -> NDArray[np.float64]:
    """Make the two functions of a linear light along one axis, orthonormal: float64[2, extent]."""
    slope = np.linspace(-1, 1, extent) if extent > 1 else np.zeros(1)
    return np.stack([np.full(extent, extent**-0.5), slope / max(float(np.linalg.norm(slope)), 1e-6)])

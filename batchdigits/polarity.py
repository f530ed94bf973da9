"""Strips of pages in; whether their ink is dark or light, out: a step of the normalisation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.strips import Rows, Strip, edges, energy, morph, odd, total

Signs = NDArray[np.int8]  # [N], 1 dark ink, -1 light ink, 0 unknown

_STROKE_SCALES = (0.06, 0.16)  # of the canvas: sides of squares that fill thin and bold strokes
_LIGHT_SCALE = 0.3  # of the canvas: side of the square in which the light is taken as even
_POLARITY_WEIGHTS = ((0.7, 2.8, 4.9, 2.1), (0.5, 1.4, 0.7, 2.9))
"""Weights of the columns of `polarity_evidence`, of cuts and of photos: a logistic regression on simulated scans and
on simulated photos, which tests/benchmarks/polarity_weights.py repeats. On a photo the border says nothing."""


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
    differs = _without_slopes(strip)
    border = np.median(edges(differs, extents), axis=1) / (differs.std((1, 2)) + 1e-6)
    nearby = (odd(_LIGHT_SCALE * len(strip)),) * 2
    for page in differs:
        page -= cv2.blur(page, nearby, borderType=cv2.BORDER_REFLECT)
    skewness = np.cbrt((differs * differs * differs).mean((1, 2))) / (differs.std((1, 2)) + 1e-6)
    return np.stack([*structure, border, -skewness], axis=1)


def _without_slopes(strip: Strip) -> NDArray[np.float64]:
    """Subtract from each canvas the light that fits it best, bilinear in x and y: float64[N, side, side]."""
    side, count, _ = strip.shape
    at = np.linspace(-1, 1, side)
    slopes = np.stack([np.ones((side, side)), *np.meshgrid(at, at), np.outer(at, at)]).reshape(4, -1)
    slopes /= np.linalg.norm(slopes, axis=1, keepdims=True)  # orthonormal, since `at` is symmetric
    pages = strip.transpose(1, 0, 2).reshape(count, -1).astype(np.float64)
    return np.asarray((pages - (pages @ slopes.T) @ slopes).reshape(count, side, side))

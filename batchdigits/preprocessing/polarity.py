"""Strips of pages in; whether their ink is dark or light, out: a step of the normalisation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.strips import Rows, Strip, components, edges, energy, halved, morph, most, odd, total

Floats = NDArray[np.float64]
Signs = NDArray[np.int8]  # [N], 1 dark ink, -1 light ink, 0 unknown

_THIN, _BOLD, _BOLDEST = 0.06, 0.16, 0.27  # of the canvas: sides of squares that fill thinner and bolder strokes
_STROKE_LEVEL = 0.5  # share of a page's strongest structure from which a pixel belongs to a stroke
_LIGHT_SCALE = 0.3  # of the canvas: side of the square in which the light is taken as even
_DARKEST = 8  # grey levels of light, at least: where there is less, nothing can be told from it
_POLARITY_WEIGHTS = ((2.1, 2.9, 0.3, 4.8), (3.1, 2.6))
"""Weights of the columns of `polarity_evidence`, of cuts and of photos: logistic regressions on simulated scans and on
simulated photos, which tests/benchmarks/polarity_weights.py repeats."""


def find_polarity(strip: Strip, level: NDArray[np.uint8]) -> Signs:
    """Tell dark ink from light ink on even paper, where the border's level is the paper's: int8[N], 1 or -1."""
    return _sign(level >= total(strip) / len(strip) ** 2)


def weigh_polarity(strip: Strip, light: Floats, extents: Rows, photo: NDArray[np.bool_]) -> Signs:
    """Tell dark ink from light ink on uneven paper, by weighing evidence: int8[N], 1 or -1."""
    dark = np.empty(len(photo), np.bool_)
    for kind in (False, True):
        rows = np.flatnonzero(photo == kind)
        if len(rows):
            evidence = polarity_evidence(strip[:, rows], light[:, rows], extents[rows], photo=kind)
            dark[rows] = np.round(evidence @ _POLARITY_WEIGHTS[kind], 6) >= 0
    return _sign(dark)


def _sign(dark: NDArray[np.bool_]) -> Signs:
    return np.where(dark, np.int8(1), np.int8(-1))


def polarity_evidence(strip: Strip, light: Floats, extents: Rows, *, photo: bool) -> Floats:
    """Gather what speaks for dark ink on light paper, above 0, and for light ink on dark paper, below 0.

    A negative's evidence is the same with the other sign. Slopes of light are taken out first: the level of a page's
    border says little where one side of it lies in a shadow. On a photo neither the border nor thin structure adds to
    what the others say, and structure that touches the page's edge does not count: shadows cut corners off.

    Args:
        strip: uint8[side, N, side].
        light: float64[side, N, side], the pages' `slopes_of_light`.
        extents: intp[N, 2], the height and width that each page takes.
        photo: Whether the pages are photos, or cuts.

    Returns:
        float64[N, 4], of photos float64[N, 2]: the skewness of what differs from the light nearby, for there is less
        ink than paper; dark against light structure, -1 to 1, by closing, which fills dark strokes, and opening; of
        cuts the same for thin strokes, and the median of the border against the light, in standard deviations.
    """
    differs = np.ascontiguousarray((strip - light).transpose(1, 0, 2), np.float32)
    border = edges(differs, extents)
    spread = differs.std((1, 2)) + 1e-6
    nearby = (odd(_LIGHT_SCALE * len(strip)),) * 2
    for page in differs:
        page -= cv2.blur(page, nearby, borderType=cv2.BORDER_REFLECT)
    skewness = -np.cbrt((differs * differs * differs).mean((1, 2))) / (differs.std((1, 2)) + 1e-6)
    if photo:  # at half its size bold structure shows as well
        return np.stack([skewness, _structure(halved(strip), _BOLDEST, (extents + 1) // 2)], axis=1)
    thin, bold = _structure(strip, _THIN), _structure(strip, _BOLD)
    return np.stack([skewness, bold, thin, np.median(border, axis=1) / spread], axis=1)


def _structure(strip: Strip, scale: float, extents: Rows | None = None) -> Floats:
    """Weigh dark against light structure that a square of this scale fills: float64[N], -1 to 1.

    With the pages' extents, what touches their edges does not count.
    """
    size = odd(scale * len(strip))
    dark = morph(strip, size, cv2.MORPH_CLOSE) - strip
    bright = strip - morph(strip, size, cv2.MORPH_OPEN)
    if extents is not None:
        dark, bright = _away_from_edges(dark, extents), _away_from_edges(bright, extents)
    for_dark, for_light = energy(dark), energy(bright)
    return (for_dark - for_light) / (for_dark + for_light + 1e-6)


def _away_from_edges(structure: Strip, extents: Rows) -> Strip:
    """Keep the strokes that do not touch the edge of their page: uint8[side, N, side]."""
    level = np.maximum(_STROKE_LEVEL * most(structure), 1)
    found = components(structure >= level[:, None])
    kept = ~found.at_edge(extents)
    kept[0] = False
    return structure * np.take(kept, found.labels)


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

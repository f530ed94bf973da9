"""Clean digits and a generator in; the same digits under one of fifteen corruptions out, in the manner of MNIST-C.

Every corruption takes uint8[N, 28, 28], bright ink on 0, and the only source of its randomness, and gives
uint8[N, 28, 28]. The kinds and their severities are the published ones, the code is not: what scikit-image and
ImageMagick do there, numpy and OpenCV do here, so that single pixels differ.

Source: N. Mu and J. Gilmer, «MNIST-C: a robustness benchmark for computer vision», ICML 2019 workshop on uncertainty
and robustness in deep learning, arXiv:1906.02337; severities after the default arguments in `corruptions.py` of
https://github.com/google-research/mnist-c.
"""

from collections.abc import Callable
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import SIDE, InkImages

Corruption = Callable[[InkImages, np.random.Generator], InkImages]
Floats = NDArray[np.float64]
Pixel = TypeVar("Pixel", np.uint8, np.float64)

_REACH = 21  # pixels that a motion blur reaches: ImageMagick's kernel of radius 10
_PLASMA_SIDE = 256  # of the map of which the fog is the corner


# ---- noise and blur ------------------------------------------------------------------------------------------------


def shot_noise(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Count few photons: a full white is three on average, black none."""
    return _to_bytes(rng.poisson(digits / 255 * 3) / 3)


def impulse_noise(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Set 17% of the pixels to black or white, at even odds."""
    hit = rng.random(digits.shape) < 0.17
    return np.where(hit, rng.choice(np.array([0, 255], np.uint8), digits.shape), digits)


def glass_blur(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Blur with σ 0.7, twice swap half the pixels with a neighbour to the left, above or both, and blur again.

    The published code blurs along columns only; its scikit-image takes the rows' pixels for colour channels.
    """
    blurred = _blur(digits, 0.7)
    images = np.arange(len(digits))
    for row, column in [(y, x) for y in range(SIDE - 1, 1, -1) for x in range(SIDE - 1, 1, -1)] * 2:
        up, left = rng.integers(0, 2, (2, len(digits)))
        swapped = rng.random(len(digits)) < 0.5
        y, x = np.where(swapped, row - up, row), np.where(swapped, column - left, column)
        here = blurred[:, row, column].copy()
        blurred[:, row, column] = blurred[images, y, x]
        blurred[images, y, x] = here
    return _blur(blurred, 0.7)


def motion_blur(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Smear to one side, with half a Gaussian of σ 3, within 45° of the horizontal."""
    along = np.arange(_REACH)
    weights = np.exp(-(along**2) / (2 * 3**2))
    smeared = np.empty_like(digits)
    for digit, angle, into in zip(digits, rng.uniform(-np.pi / 4, np.pi / 4, len(digits)), smeared, strict=True):
        kernel = np.zeros((2 * _REACH + 1, 2 * _REACH + 1))
        at = np.rint(_REACH + along * np.sin(angle)).astype(int), np.rint(_REACH + along * np.cos(angle)).astype(int)
        np.add.at(kernel, at, weights / weights.sum())
        cv2.filter2D(digit, -1, kernel, dst=into, borderType=cv2.BORDER_REPLICATE)
    return smeared


# ---- geometry ------------------------------------------------------------------------------------------------------


def shear(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Slant by 0.4 px a row, to the left or to the right."""
    return _warp(digits, [np.array([[1, 0.4 * sign], [0, 1]]) for sign in _signs(rng, len(digits))])


def scale(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Reduce to 0.7 of the size, about the middle."""
    return _warp(digits, [np.eye(2) / 0.7] * len(digits))


def rotate(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Turn by 0.4 rad, 23°, one way or the other."""
    cos, sin = np.cos(0.4), np.sin(0.4)
    return _warp(digits, [np.array([[cos, -sign * sin], [sign * sin, cos]]) for sign in _signs(rng, len(digits))])


def translate(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Move by 3 px in x and 3 px in y, each one way or the other; what leaves the frame is lost."""
    padded = np.pad(digits, ((0, 0), (3, 3), (3, 3)))
    rows, columns = 3 + 3 * _signs(rng, len(digits)), 3 + 3 * _signs(rng, len(digits))
    cut = zip(padded, rows, columns, strict=True)
    return np.stack([one[row : row + SIDE, column : column + SIDE] for one, row, column in cut])


# ---- light and things before the lens ------------------------------------------------------------------------------


def brightness(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Add half of the range: black becomes grey, and the upper half of the ink white."""
    return _to_bytes(digits / 255 + 0.5)


def stripe(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Invert the outer quarters: a white bar of seven columns at the left and at the right, with black ink on it."""
    outer = np.arange(SIDE) // 7 % 3 == 0
    return np.where(outer, 255 - digits, digits)


def fog(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Lay fog three times as strong as the ink over it, and reduce the sum to the range: a quarter of the contrast."""
    return _to_bytes(np.stack([(digit / 255 + 3 * _plasma(rng)) / 4 for digit in digits]))


def spatter(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Cover the ink with drops of dark grey mud."""
    liquid = _blur(rng.normal(0.65, 0.3, digits.shape), 1)
    mud = _blur((liquid > 0.65).astype(np.float64), 1.5)
    mud[mud < 0.8] = 0
    return _to_bytes(digits / 255 * (1 - mud) + 63 / 255 * mud)


# ---- lines ---------------------------------------------------------------------------------------------------------


def dotted_line(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Add a straight line from the left edge to the right edge, with two of four columns left out."""
    column = np.arange(SIDE)
    ends = rng.integers(0, SIDE - 1, (2, len(digits), 1))
    heights = ends[0] + (ends[1] - ends[0]) * column / (SIDE - 1)
    drawn = (column % 4 >= 2) & (column < SIDE - 1)
    return _to_bytes(digits / 255 + _line(np.where(drawn, heights, np.nan)))


def zigzag(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Add a line from column 2 to column 25 that swings 2 px to both sides, and may climb or fall by 5 px."""
    first, last = 2, 25
    column = np.arange(SIDE)
    heights = np.full((len(digits), SIDE), np.nan)
    starts, climbs = rng.integers(0, SIDE - 1, len(digits)), rng.integers(-5, 5, len(digits))
    for height, start, climb in zip(heights, starts, climbs, strict=True):
        length = np.hypot(last - first, climb)
        along = np.array([0, *np.arange(2, length, 4), length])
        across = np.array([0, *(2 * (-1) ** np.arange(len(along) - 2)), 0])
        cos, sin = (last - first) / length, climb / length
        turned = first + cos * along - sin * across, start + sin * along + cos * across
        height[first:last] = np.interp(column, *turned)[first:last]
    return _to_bytes(digits / 255 + _line(heights))


def canny_edges(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Show only edges, after a blur of σ 1: one bit, a stroke becomes its outline.

    The thresholds are scikit-image's defaults of that time, 0.1 and 0.2 of the range, on the gradient's length.
    """
    return np.stack([cv2.Canny(digit, 0.1 * 255, 0.2 * 255, L2gradient=True) for digit in _blur(digits, 1)])


CORRUPTIONS: dict[str, Corruption] = {
    "shot noise": shot_noise,
    "impulse noise": impulse_noise,
    "glass blur": glass_blur,
    "motion blur": motion_blur,
    "shear": shear,
    "scale": scale,
    "rotate": rotate,
    "brightness": brightness,
    "translate": translate,
    "stripe": stripe,
    "fog": fog,
    "spatter": spatter,
    "dotted line": dotted_line,
    "zigzag": zigzag,
    "canny edges": canny_edges,
}
"""The fifteen of the published benchmark, in its order."""


# ---- what they share -----------------------------------------------------------------------------------------------


def _to_bytes(light: Floats) -> InkImages:
    """Turn light of 0 to 1 into grey levels; what is outside is clipped."""
    return np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)


def _signs(rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    return rng.choice(np.array([-1, 1]), count)


def _blur(images: NDArray[Pixel], sigma: float) -> NDArray[Pixel]:
    """Blur each of [N, 28, 28] with a Gaussian."""
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE) for image in images])


def _warp(digits: InkImages, backwards: list[Floats]) -> InkImages:
    """Resample about the middle of the frame.

    Args:
        digits: uint8[N, 28, 28].
        backwards: N matrices float64[2, 2] that take a place of the result to its place in the digit, x and y.
    """
    middle = np.full((2, 1), (SIDE - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack(
        [
            cv2.warpAffine(digit, np.hstack([matrix, middle - matrix @ middle]), (SIDE, SIDE), flags=flags)
            for digit, matrix in zip(digits, backwards, strict=True)
        ]
    )


def _line(heights: Floats) -> Floats:
    """Draw one line an image, some 2 px thick with soft edges.

    Args:
        heights: float64[N, 28], the row in which the line crosses each column; NaN where it does not.

    Returns:
        float64[N, 28, 28], 0 to 1.
    """
    distance = np.abs(np.arange(SIDE)[:, None] - heights[:, None, :])  # [N, row, column]
    near = np.minimum(np.nan_to_num(distance, nan=SIDE), 2.29)
    return np.asarray(np.maximum(np.log(1 - near / 2.3) + 1, 0), np.float64)


def _plasma(rng: np.random.Generator) -> Floats:
    """Make a cloud, rough at every scale: float64[28, 28], a corner of a map whose range is 0 to 1.

    Each octave has 1 / 1.4² of the amplitude of the one before, as the benchmark's diamond-square map has.
    """
    cloud: NDArray[np.float64] = np.zeros((1, 1))
    for octave in range(1, 1 + int(np.log2(_PLASMA_SIDE))):
        side = 2**octave
        cloud = np.asarray(cv2.resize(cloud, (side, side), interpolation=cv2.INTER_LINEAR), np.float64)
        cloud += rng.uniform(-1, 1, (side, side)) / 1.4 ** (2 * octave)
    return np.asarray((cloud[:SIDE, :SIDE] - cloud.min()) / np.ptp(cloud), np.float64)

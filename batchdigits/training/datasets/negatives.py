"""Make images without a digit, for the gate to learn from: letters, scribbles, shapes, textures, groups of digits.

All are made here, from fonts that come with matplotlib and OpenCV and from MNIST's own digits.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import SIDE, GreyImage, InkImages

Floats = NDArray[np.float64]

# Letters and signs that nobody takes for a digit; O, I, l, S, Z, B, g, q and their like are left out.
_LETTERS = "CEFHKMNPRTUWXAVaehkmnruwx@#&%?=+*"
_FONT_FILES = ("DejaVu*.ttf", "STIXGeneral*.ttf", "cmr10.ttf", "cmss10.ttf", "cmtt10.ttf", "cmmi10.ttf")
_HERSHEY = range(8)
_SCRIBBLES = 1500
_BLOTS = 600
_GROUPS = 3000
_STROKES = 1000
_SHAPES = 600
_TEXTURES = 800
_CANVAS = 48  # pixels on which signs are drawn before they are normalised


def negatives(digits: InkImages, rng: np.random.Generator) -> InkImages:
    """Make the pool of images without a digit: uint8[N, 28, 28], some 9,000, normalised."""
    pages = [*_letters(), *_hershey()]
    pages += [_scribble(rng) for _ in range(_SCRIBBLES)]
    pages += [_blot(rng) for _ in range(_BLOTS)]
    pages += [_group(digits, rng) for _ in range(_GROUPS)]
    pages += [_strokes(rng) for _ in range(_STROKES)]
    pages += [_shape(rng) for _ in range(_SHAPES)]
    pages += [_texture(rng) for _ in range(_TEXTURES)]
    found = normalise(pages)
    return found.pixels[found.ink[:, 0] > 0]


def _letters() -> list[GreyImage]:
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pages = []
    for path in sorted(path for pattern in _FONT_FILES for path in fonts.glob(pattern)):
        if "Display" in path.name:
            continue
        font = ImageFont.truetype(path, 30)
        for letter in _LETTERS:
            page = Image.new("L", (_CANVAS, _CANVAS))
            ImageDraw.Draw(page).text((_CANVAS // 2, _CANVAS // 2), letter, 255, font, anchor="mm")
            pages.append(np.asarray(page, np.uint8))
    return pages


def _hershey() -> list[GreyImage]:
    pages = []
    for font in _HERSHEY:
        for thickness in (1, 2, 3):
            for letter in _LETTERS:
                page = np.zeros((_CANVAS, _CANVAS), np.uint8)
                cv2.putText(page, letter, (10, 36), font, 1.0, 255, thickness, cv2.LINE_AA)
                pages.append(page)
    return pages


def _scribble(rng: np.random.Generator) -> GreyImage:
    """A pen that wanders about."""
    points = int(rng.integers(50, 130))
    heading = np.cumsum(rng.normal(0, rng.uniform(0.5, 1.2), points)) + rng.uniform(0, 6)
    track = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    track = (track - track.min(0)) / max(float(np.ptp(track, axis=0).max()), 1e-6) * 34 + 7
    return _inked(track, rng)


def _strokes(rng: np.random.Generator) -> GreyImage:
    """Straight strokes of a pen that goes to and fro, more of them than any digit has."""
    turns = rng.uniform(0.7, 1.3, rng.integers(8, 16)) * np.pi
    return _drawn(np.cumsum(turns), rng.uniform(0.7, 1, len(turns)), rng)


def _shape(rng: np.random.Generator) -> GreyImage:
    """A triangle or a square, a star, or a spiral of more turns than a digit has."""
    kind = rng.integers(3)
    if kind == 0:
        corners = int(rng.integers(3, 5))  # more, and it looks like a 0
        return _drawn(np.arange(corners + 1) * 2 * np.pi / corners, np.ones(corners + 1), rng)
    if kind == 1:
        points = int(rng.integers(4, 8))
        reach = np.resize([1, rng.uniform(0.3, 0.6)], 2 * points + 1)
        return _drawn(np.arange(2 * points + 1) * np.pi / points, reach, rng)
    angles = np.linspace(0, rng.uniform(2, 4) * 2 * np.pi, 80) * rng.choice([-1, 1])
    return _drawn(angles, np.linspace(rng.uniform(0, 0.3), 1, len(angles)), rng)


def _drawn(angles: Floats, reach: Floats, rng: np.random.Generator) -> GreyImage:
    """Draw a line through places [P] about the middle, turned and stretched anyhow."""
    angles = angles + rng.uniform(0, 2 * np.pi)
    places = reach * np.stack([np.cos(angles), np.sin(angles)])  # [2, P], -1 to 1
    return _inked(_CANVAS * (0.5 + 0.44 * places.T * rng.uniform(0.6, 1, 2)), rng)


def _inked(track: Floats, rng: np.random.Generator) -> GreyImage:
    """Draw a line through pixels [P, 2], x and y."""
    page = np.zeros((_CANVAS, _CANVAS), np.uint8)
    cv2.polylines(page, [np.rint(track * 8).astype(np.int32)], False, 255, int(rng.integers(1, 4)), cv2.LINE_AA, 3)
    return page


def _texture(rng: np.random.Generator) -> GreyImage:
    """Cloudy, grained or woven all over."""
    across, down = rng.uniform(0.7, 6, 2)
    noise = np.asarray(cv2.GaussianBlur(rng.normal(0, 1, rng.integers(20, 64, 2)), (0, 0), across, sigmaY=down))
    return np.asarray(255 * (noise - noise.min()) / np.ptp(noise), np.uint8)


def _blot(rng: np.random.Generator) -> GreyImage:
    """Smooth noise, cut at a level."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, (_CANVAS, _CANVAS)), (0, 0), rng.uniform(1.5, 6))
    field = np.asarray(noise) > np.quantile(noise, rng.uniform(0.5, 0.85))
    field[[0, 1, -2, -1]] = field[:, [0, 1, -2, -1]] = False
    return np.where(field, np.uint8(255), np.uint8(0))


def _group(digits: InkImages, rng: np.random.Generator) -> GreyImage:
    """Two or three digits side by side."""
    crops = []
    for digit in digits[rng.integers(0, len(digits), int(rng.choice([2, 2, 3])))]:
        columns = np.flatnonzero(digit.any(0))
        crops += [digit[:, columns[0] : columns[-1] + 1], np.zeros((SIDE, int(rng.integers(0, 4))), np.uint8)]
    return np.pad(np.concatenate(crops, axis=1), 4)

"""Compose pages of one kind out of the simulator's parts: bare paper, what is written on it, and a picture of it.

The simulator draws all that befalls a page at random, so that no kind can be measured by itself; here each page shows
what its kind is about. Ink is float32[h, w], how much light it takes, 0 to 1.
"""

import zlib
from typing import NamedTuple

import cv2
import numpy as np

from batchdigits.records import GreyImage
from batchdigits.training.datasets.simulator import camera, paper
from batchdigits.training.datasets.simulator.hands import Hand, Sources
from batchdigits.training.datasets.simulator.strokes import Ink, Pen
from tests.benchmarks.reading import SEED


class Box(NamedTuple):
    """A part of a page: pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def least(self) -> float:
        """Give the shorter side."""
        return min(self.right - self.left, self.bottom - self.top)

    def without(self, margin: float) -> "Box":
        """Take a margin off at all sides."""
        return Box(self.left + margin, self.top + margin, self.right - margin, self.bottom - margin)


def dice(name: str, number: int) -> np.random.Generator:
    """Give the randomness of one page of a kind: the same whatever other kinds there are, and however many pages."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode()), number])


def bare(rng: np.random.Generator, least: float, most: float, *, narrow: float = 0.6) -> Ink:
    """Take a sheet without ink, its longer side between two numbers of pixels, mostly upright."""
    longer = float(np.exp(rng.uniform(np.log(least), np.log(most))))
    sides = round(longer), max(8, round(longer * rng.uniform(narrow, 1)))
    return np.zeros(sides if rng.random() < 0.6 else sides[::-1], np.float32)


def whole(ink: Ink) -> Box:
    """Give the box of a whole page."""
    return Box(0, 0, float(ink.shape[1]), float(ink.shape[0]))


def hand(sources: Sources, rng: np.random.Generator, thin: float = 0.03, thick: float = 0.11, grain: float = 0) -> Hand:
    """Take a writer who is left out of training, and a pen: its width in shares of a digit's height."""
    share = float(np.exp(rng.uniform(np.log(thin), np.log(thick))))
    pressure = rng.uniform(0.1, 0.4) if rng.random() < 0.4 else 0.0
    return Hand(share, Pen(1.0, pressure=pressure, grain=grain), sources, rng)


def write(ink: Ink, by: Hand, within: Box, size: float, strength: float = 1.0) -> tuple[int, Box]:
    """Write a digit of a size somewhere within a box: its label, and its own box."""
    tile, label = by.digit(max(10.0, size))
    return label, place(ink, tile, within, by.rng, strength)


def place(ink: Ink, tile: Ink, within: Box, rng: np.random.Generator, strength: float = 1.0) -> Box:
    """Put a tile of ink somewhere within a box, reduced where it is larger; give where it lies."""
    width, height = max(1.0, within.right - within.left), max(1.0, within.bottom - within.top)
    scale = min(1.0, width / tile.shape[1], height / tile.shape[0])
    if scale < 1:
        size = max(1, int(scale * tile.shape[1])), max(1, int(scale * tile.shape[0]))
        tile = np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA), np.float32)
    at = np.clip(rng.normal(0.5, 0.25, 2), 0, 1)
    x = int(within.left + at[0] * (width - tile.shape[1]))
    y = int(within.top + at[1] * (height - tile.shape[0]))
    paper.put(ink, tile * np.float32(strength), x, y)
    return Box(x, y, x + tile.shape[1], y + tile.shape[0])


def scanned(ink: Ink, rng: np.random.Generator, *, ground: float | None = None, one_bit: bool = False) -> GreyImage:
    """Scan a page: even light, little noise."""
    light = (rng.uniform(0.85, 1.0) if ground is None else ground) * (1 - ink)
    return camera.take(light.astype(np.float32), rng, careful=True, one_bit=one_bit)


def photographed(ink: Ink, rng: np.random.Generator, *, ground: float | None = None, careful: bool = True) -> GreyImage:
    """Photograph a page: paper with a grain, in uneven light."""
    sheet = np.full(ink.shape, rng.uniform(0.6, 0.95) if ground is None else ground, np.float32)
    sheet += rng.uniform(0.002, 0.015) * paper.noise(ink.shape, rng, rng.uniform(1, 4))
    light = sheet * (1 - ink) * camera.illuminate(ink.shape, rng)
    return camera.take(light.astype(np.float32), rng, careful=careful, one_bit=False)


def framed(ink: Ink, rng: np.random.Generator, inset: float) -> Box:
    """Print a frame, set in from the page's edge by a share of its shorter side; give the field within."""
    least = min(ink.shape)
    thick = float(rng.uniform(0.6, max(1.0, 0.025 * least)))
    box = whole(ink).without(inset * least)
    paper.frame(ink, box, thick, rng.uniform(0.4, 1), rng)
    return box.without(max(0.0, -inset * least) + thick + 0.04 * least)

"""Write digits, numbers and other signs with one pen: who wrote them, and with what.

A pen has a width in shares of its digit, so that strokes are as thin or thick on a page of any size as on real ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import DIGITS, GreyImage, Labels
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.simulator import forms
from batchdigits.training.datasets.simulator.paper import line, put
from batchdigits.training.datasets.simulator.strokes import Ink, Movements, Pen, Stroke, bend, draw, roughen

_SHARES = {"pendigits": 0.24, shipped.UNIPEN: 0.38, "uji": 0.03}  # of training digits drawn by pens, else pictures
_FORMS = 0.1  # of all digits of the training part; others are measured by recorded hands alone
_RASTER_SHARES = {shipped.MNIST: 0.50, "optdigits": 0.12, "hwd1000": 0.12, shipped.CC0_SCANS: 0.26}
_DARK_ON_WHITE = ("hwd1000", shipped.CC0_SCANS)
_GRAIN = 16  # grey levels that are paper and no ink, where pictures are scans
_LEAST_INK = 40  # of 255: fainter pixels do not count where a digit is cut out of its picture
_LINE = 6  # pixels across a piece of a cell's line at a scan's edge, at most


@dataclass(frozen=True, slots=True)
class Sources:
    """What is written on pages."""

    movements: Sequence[Movements]
    """Digits as strokes."""
    chosen: Sequence[NDArray[np.intp]]
    """Which samples of each may be drawn."""
    shares: Sequence[float]
    """How often each is drawn from, and then, last, the rasters."""
    rasters: Sequence[tuple[Sequence[GreyImage], Labels]]
    """Digits as pictures, bright ink on 0, with their labels."""
    raster_shares: Sequence[float]
    """How often each of these is drawn from."""
    others: Movements
    """Letters and symbols that nobody takes for digits."""
    other_rows: NDArray[np.intp]
    """Which of them may be drawn."""
    foreign: Sequence[GreyImage]
    """Letters of other scripts, bright ink on 0."""
    forms: float
    """How often a digit is written in one of our own forms instead."""


def sources(part: str, mnist_rows: NDArray[np.intp] | None = None) -> Sources:
    """Take what is written on pages from the sets of the package; where unipen's was taken out, from the others.

    For training, small sets of other hands are drawn from more often than their size would have it. What is measured
    by the others draws each of their digits as often as any other: a digit that stood on many pages would count as if
    many people had written it.

    Args:
        part: `train` or `test`: the half of each set; of MNIST it is always a part of the training half.
        mnist_rows: The rows of MNIST's training half that may be drawn, so that others can be held back for the
            validation. Without them they are all, where the part is `train`, and none where it is `test`.

    Raises:
        StorageError: A file of the package is missing or damaged.
    """
    pens = {name: shipped.movements(name, part) for name in _SHARES if shipped.has(name)}
    pictures = {}
    for name in _RASTER_SHARES:
        if name != shipped.MNIST:
            pictures[name] = _pictures(name, part)
        elif part == "train" or mnist_rows is not None:
            images, labels = shipped.mnist("train")
            rows = np.arange(len(labels)) if mnist_rows is None else mnist_rows
            pictures[name] = list(images[rows]), labels[rows]
    if part == "train":
        drawn, pictured = [_SHARES[name] for name in pens], [_RASTER_SHARES[name] for name in pictures]
        rest = 1 - sum(_SHARES.values())
    else:
        drawn = [float(len(moves)) for moves in pens.values()]
        pictured = [float(len(labels)) for _, labels in pictures.values()]
        rest = sum(pictured)
    others = shipped.letters(part)
    return Sources(
        list(pens.values()),
        [np.arange(len(moves)) for moves in pens.values()],
        _whole([*drawn, rest]),
        list(pictures.values()),
        _whole(pictured),
        others,
        np.arange(len(others)),
        shipped.foreign(part),
        _FORMS if part == "train" else 0.0,
    )


def _pictures(name: str, part: str) -> tuple[list[GreyImage], Labels]:
    """Read a set of pictures as bright ink on 0."""
    pages, labels = shipped.pages(name, part)
    if name not in _DARK_ON_WHITE:
        return pages, labels
    return [_without_lines(np.where(page > 255 - _GRAIN, np.uint8(0), 255 - page)) for page in pages], labels


def _without_lines(picture: GreyImage) -> GreyImage:
    """Take away what is left of a cell's lines at the edges of a scan: it is no ink of the digit."""
    height, width = picture.shape
    _, parts, stats, _ = cv2.connectedComponentsWithStats((picture > _LEAST_INK).astype(np.uint8), connectivity=8)
    for part, (left, top, wide, high, _) in enumerate(stats.tolist()):
        at_edge = left == 0 or top == 0 or left + wide == width or top + high == height
        if part and at_edge and min(wide, high) <= _LINE:
            picture[np.asarray(cv2.dilate((parts == part).astype(np.uint8), np.ones((5, 5)))) > 0] = 0
    return picture


def _whole(shares: Sequence[float]) -> list[float]:
    """Make shares add up to 1."""
    return [share / sum(shares) for share in shares]


class Hand(NamedTuple):
    """One writer with one pen on one page."""

    pen_share: float
    """Width of the pen as a share of the digit's height."""
    pen: Pen
    """All else of the pen; its width is not used."""
    sources: Sources
    rng: np.random.Generator

    def digit(self, size: float, label: int | None = None) -> tuple[Ink, int]:
        """Write a digit: its ink, float32[h, w], and its label.

        Args:
            size: Pixels of the longer side, pen not counted.
            label: What it has to be; None for any.

        Raises:
            ValueError: It is in none of 200 samples.
        """
        rng, sources = self.rng, self.sources
        if rng.random() < sources.forms:
            chosen = int(rng.integers(DIGITS)) if label is None else label
            return self.write(forms.written(chosen, rng), size), chosen
        for _ in range(200):
            at = int(rng.choice(len(sources.shares), p=sources.shares))
            if at == len(sources.movements):
                found = self._raster(size, label)
                if found is not None:
                    return found
                continue
            moves, rows = sources.movements[at], sources.chosen[at]
            row = int(rows[rng.integers(len(rows))])
            if label is None or moves.label[row] == str(label):
                return self.write(moves.strokes(row), size), int(moves.label[row])
        message = f"No sample of the digit {label} was met in 200 draws; expected some of each digit among the sources."
        raise ValueError(message)

    def write(self, strokes: Sequence[Stroke], size: float, amount: float = 1.0) -> Ink:
        """Draw strokes with this pen, bent by `amount`: float32[h, w]."""
        width = max(0.8, self.pen_share * size)
        return draw(bend(strokes, self.rng, amount), size, self.pen._replace(width=width), self.rng)

    def other(self, size: float) -> Ink:
        """Write a letter or a symbol, a sign of another script, or a mark."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            rows = self.sources.other_rows
            return self.write(self.sources.others.strokes(int(rows[rng.integers(len(rows))])), size)
        if kind < 0.6:
            foreign = self.sources.foreign[int(rng.integers(len(self.sources.foreign)))]
            return _grown(foreign, size, self.pen, rng)
        return self.write(_mark(rng), size, 0.6)

    def struck_out(self, size: float) -> Ink:
        """Write a digit and strike it out, so that nobody reads it."""
        tile, _ = self.digit(size)
        room = np.pad(tile, max(2, int(0.1 * size)))
        height, width = room.shape
        for _ in range(int(self.rng.integers(2, 8))):
            ends = (self.rng.uniform(0, 1, 2) * height).tolist()
            inset = (self.rng.uniform(0, 0.2, 2) * width).tolist()
            thick = max(0.8, self.pen_share * size)
            line(room, (inset[0], ends[0]), (width - inset[1], ends[1]), thick, 1.0)
        return room

    def number(self, size: float, count: int) -> Ink:
        """Write `count` digits, each about `size` pixels high, one beside another."""
        rng = self.rng
        tiles = []
        for at in range(count):
            label = 1 if at == 0 and rng.random() < 0.3 else None
            tiles.append(self.digit(size * rng.uniform(0.75, 1.05), label)[0])
        gap = rng.uniform(-0.02, 0.35) * size
        width = int(sum(tile.shape[1] for tile in tiles) + gap * (count - 1)) + 1
        height = int(max(tile.shape[0] for tile in tiles) * 1.1) + 1
        whole = np.zeros((height, max(width, 1)), np.float32)
        x = 0.0
        for tile in tiles:
            put(whole, tile, int(x), int(rng.uniform(0, max(0, height - tile.shape[0]))))
            x += tile.shape[1] + gap
        return whole

    def _raster(self, size: float, label: int | None) -> tuple[Ink, int] | None:
        rng = self.rng
        at = int(rng.choice(len(self.sources.rasters), p=self.sources.raster_shares))
        pictures, labels = self.sources.rasters[at]
        row = int(rng.integers(len(labels)))
        if label is not None and labels[row] != label:
            return None
        return _grown(pictures[row], size, self.pen, rng), int(labels[row])


def ring(rng: np.random.Generator) -> Stroke:
    """Make the ring that somebody draws around a digit."""
    turns = np.linspace(0, 2 * np.pi * rng.uniform(0.93, 1.15), 50) + rng.uniform(0, 6)
    reach = 0.5 * np.linspace(1, rng.uniform(0.9, 1.08), 50)
    around = np.stack([reach * np.cos(turns), reach * np.sin(turns) * rng.uniform(0.8, 1.1)], axis=1)
    return (0.5 + around).astype(np.float32)


def _mark(rng: np.random.Generator) -> list[Stroke]:
    """Make a mark that is no digit: a tick, cross, dash, ring, star, box, zigzag, scribble, arrow or plus."""
    kind = int(rng.integers(11))
    bow = rng.normal(0, 0.04)
    if kind <= 1:  # tick
        x = rng.uniform(0.2, 0.45)
        return [_path([(0, rng.uniform(0.4, 0.8)), (x, 1), (1 - bow, rng.uniform(-0.3, 0.3))])]
    if kind <= 3:  # cross
        a = _path([(0, 0), (0.5 + bow, 0.5), (1, 1)])
        b = _path([(1, rng.uniform(-0.1, 0.2)), (0.5, 0.5 + bow), (rng.uniform(-0.1, 0.2), 1)])
        return [a, b]
    if kind == 4:  # dash, or two strokes that cross
        x = rng.uniform(0, 1)
        return [_path([(0, 0.5), (1, 0.5 + bow)]), _path([(x, 0), (1 - x, 1)])][: int(rng.integers(1, 3))]
    if kind == 5:  # more rings than one
        turns = np.linspace(0, 2 * np.pi * rng.uniform(1.7, 4), 60)
        wide = np.linspace(rng.uniform(0.2, 1), 1, 60) * (1 + 0.06 * np.sin(turns * rng.uniform(0.3, 2)))
        return [_round(turns, wide)]
    if kind == 6:  # star
        points = int(rng.integers(4, 8))
        reach = np.resize([1, rng.uniform(0.3, 0.7)], 2 * points + 1)
        return [_round(np.arange(2 * points + 1) * np.pi / points, reach)]
    if kind == 7:  # triangle or square
        corners = int(rng.integers(3, 5))
        turns = np.arange(corners + 1) * 2 * np.pi / corners + rng.uniform(0, 6)
        return [_round(turns, np.ones(1)), *([_path([(0, 0), (1, 1)])] if rng.random() < 0.3 else [])]
    if kind == 8:  # zigzag
        count = int(rng.integers(5, 14))
        along = np.linspace(0, 1, count) if rng.random() < 0.6 else rng.random(count)
        across = 0.5 + 0.5 * np.where(np.arange(count) % 2, 1, -1) * rng.uniform(0.5, 1, count)
        return [np.stack([along, across * rng.uniform(0.3, 1)], 1).astype(np.float32)]
    if kind == 9:  # scribble
        heading = np.cumsum(rng.normal(0, rng.uniform(0.5, 1.2), 90)) + rng.uniform(0, 6)
        track = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0)
        return [((track - track.min(0)) / max(float(np.ptp(track, axis=0).max()), 1e-6)).astype(np.float32)]
    arrow = [_path([(0, 0.5), (1, 0.5)]), _path([(0.7, 0.2), (1, 0.5), (0.7, 0.8)])]
    return arrow if rng.random() < 0.5 else [_path([(0.5, 0), (0.5, 1)]), _path([(0, 0.5), (1, 0.5)])]


def _round(turns: NDArray[np.float64], reach: NDArray[np.float64]) -> Stroke:
    """Make a stroke of points by their angles and their distance from the middle."""
    return (np.stack([reach * np.cos(turns), reach * np.sin(turns)], axis=1) / 2 + 0.5).astype(np.float32)


def _path(points: list[tuple[float, float]]) -> Stroke:
    return np.array(points, np.float32)


def _grown(picture: GreyImage, size: float, pen: Pen, rng: np.random.Generator) -> Ink:
    """Bring a picture to a size, slanted and turned a little, with the sharp edge that a pen leaves: float32[h, w]."""
    rows, columns = np.flatnonzero(picture.max(1) > _LEAST_INK), np.flatnonzero(picture.max(0) > _LEAST_INK)
    if not len(rows):
        return np.zeros((2, 2), np.float32)
    cut = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255
    height, width = cut.shape
    scales = size / max(height, width) * np.exp(rng.normal(0, 0.1, 2))
    turn, slant = rng.normal(0, 0.08), rng.normal(0, 0.12)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array([[1, slant], [0, 1]])
    matrix = matrix * scales
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ matrix.T
    low, high = corners.min(0) - 2, corners.max(0) + 2
    whole = np.concatenate([matrix, -low[:, None]], axis=1)
    out = np.maximum(np.ceil(high - low), 2).astype(int).tolist()
    mean = float(np.sqrt(abs(np.linalg.det(matrix))))
    if mean < 0.8:
        cut = np.asarray(cv2.GaussianBlur(cut, (0, 0), 0.4 / mean))
    ink = np.asarray(cv2.warpAffine(cut, whole, tuple(out), flags=cv2.INTER_CUBIC), np.float32)
    if mean > 1.6:  # what was soft at 28 px has an edge at its new size
        ink = np.asarray(cv2.GaussianBlur(ink, (0, 0), mean * 0.45), np.float32)
        ink = (ink - rng.uniform(0.35, 0.55)) * np.float32(min(0.9 * mean, 6)) + 0.5
    ink = np.asarray(np.clip(ink, 0, 1), np.float32)
    return roughen(ink, pen._replace(width=size / 10), rng) if pen.grain else ink

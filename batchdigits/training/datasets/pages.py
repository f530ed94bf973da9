"""Simulate pages as they come out of `decoding`: a digit, or none, on paper, in light, before a camera or scanner.

A pen has a width in shares of its digit, a page has pixels, and both are drawn at the page's own scale, so that thin
strokes are as thin as on real pages. Each page comes with its labels: what it shows, where its ink is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.training.datasets import camera, paper
from batchdigits.training.datasets.paper import Ink
from batchdigits.training.datasets.strokes import Movements, Pen, Stroke, bend, draw, roughen

GreyImage = NDArray[np.uint8]


class Kind(IntEnum):
    """What a page shows."""

    BLANK = 0
    """Paper, perhaps ruled, framed or stained."""
    DIGIT = 1
    """One digit."""
    SEVERAL = 2
    """A number of two digits or more."""
    OTHER = 3
    """Something that is no digit."""


class SimulatedPage(NamedTuple):
    """A page and its labels."""

    grey: GreyImage
    """uint8[h, w]."""
    ink: NDArray[np.uint8]
    """uint8[h, w], how much of each pixel the ink to be found covers, 0 to 255."""
    kind: Kind
    label: int
    """The digit; -1 where there is not exactly one."""
    scene: str
    """What kind of page it is, for tables."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is written on pages."""

    movements: Sequence[Movements]
    """Digits as strokes."""
    chosen: Sequence[NDArray[np.intp]]
    """Which samples of each may be drawn."""
    shares: Sequence[float]
    """How often each is drawn from, and then, last, the rasters."""
    rasters: Sequence[tuple[Sequence[GreyImage], NDArray[np.int8]]]
    """Digits as pictures, bright ink on 0, with their labels."""
    raster_shares: Sequence[float]
    others: Movements
    """Letters and symbols that nobody takes for digits."""
    other_rows: NDArray[np.intp]
    foreign: Sequence[GreyImage]
    """Letters of other scripts, bright ink on 0."""


class Hand(NamedTuple):
    """One writer with one pen on one page."""

    pen_share: float
    """Width of the pen as a share of the digit's height."""
    pen: Pen
    sources: Sources
    rng: np.random.Generator

    def digit(self, size: float, label: int | None = None) -> tuple[Ink, int]:
        """Write a digit whose longer side is `size` pixels, pen not counted."""
        rng, sources = self.rng, self.sources
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
        message = f"no sample of {label} was met in 200 draws"
        raise ValueError(message)

    def write(self, strokes: Sequence[Stroke], size: float, amount: float = 1.0) -> Ink:
        """Draw strokes with this pen."""
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
            return _grown(self.sources.foreign[rng.integers(len(self.sources.foreign))], size, self.pen, rng)
        return self.write(_mark(rng), size, 0.6)

    def _raster(self, size: float, label: int | None) -> tuple[Ink, int] | None:
        rng = self.rng
        at = int(rng.choice(len(self.sources.rasters), p=self.sources.raster_shares))
        pictures, labels = self.sources.rasters[at]
        row = int(rng.integers(len(labels)))
        if label is not None and labels[row] != label:
            return None
        return _grown(pictures[row], size, self.pen, rng), int(labels[row])


def _mark(rng: np.random.Generator) -> list[Stroke]:
    """A tick, a cross, a dash, a ring, an arrow, a star, a wave, a box, a scribble: strokes."""
    kind = int(rng.integers(11))
    bow = rng.normal(0, 0.04)
    if kind <= 1:
        x = rng.uniform(0.2, 0.45)
        return [_path([(0, rng.uniform(0.4, 0.8)), (x, 1), (1 - bow, rng.uniform(-0.3, 0.3))])]
    if kind <= 3:
        a = _path([(0, 0), (0.5 + bow, 0.5), (1, 1)])
        b = _path([(1, rng.uniform(-0.1, 0.2)), (0.5, 0.5 + bow), (rng.uniform(-0.1, 0.2), 1)])
        return [a, b]
    if kind == 4:
        x = rng.uniform(0, 1)
        return [_path([(0, 0.5), (1, 0.5 + bow)]), _path([(x, 0), (1 - x, 1)])][: int(rng.integers(1, 3))]
    if kind == 5:  # more rings than one
        turns = np.linspace(0, 2 * np.pi * rng.uniform(1.7, 4), 60)
        reach = np.linspace(rng.uniform(0.2, 1), 1, 60) * (1 + 0.06 * np.sin(turns * rng.uniform(0.3, 2)))
        return [(np.stack([reach * np.cos(turns), reach * np.sin(turns)], 1) / 2 + 0.5).astype(np.float32)]
    if kind == 6:
        points = int(rng.integers(4, 8))
        turns = np.arange(2 * points + 1) * np.pi / points
        reach = np.resize([1, rng.uniform(0.3, 0.7)], 2 * points + 1)
        return [(np.stack([reach * np.cos(turns), reach * np.sin(turns)], 1) / 2 + 0.5).astype(np.float32)]
    if kind == 7:
        corners = int(rng.integers(3, 5))
        turns = np.arange(corners + 1) * 2 * np.pi / corners + rng.uniform(0, 6)
        box = (np.stack([np.cos(turns), np.sin(turns)], 1) / 2 + 0.5).astype(np.float32)
        return [box, *([_path([(0, 0), (1, 1)])] if rng.random() < 0.3 else [])]
    if kind == 8:  # zigzag
        count = int(rng.integers(5, 14))
        x = np.linspace(0, 1, count) if rng.random() < 0.6 else rng.random(count)
        y = 0.5 + 0.5 * np.where(np.arange(count) % 2, 1, -1) * rng.uniform(0.5, 1, count)
        return [np.stack([x, y * rng.uniform(0.3, 1)], 1).astype(np.float32)]
    if kind == 9:  # scribble
        heading = np.cumsum(rng.normal(0, rng.uniform(0.5, 1.2), 90)) + rng.uniform(0, 6)
        track = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0)
        return [((track - track.min(0)) / max(float(np.ptp(track, axis=0).max()), 1e-6)).astype(np.float32)]
    arrow = [_path([(0, 0.5), (1, 0.5)]), _path([(0.7, 0.2), (1, 0.5), (0.7, 0.8)])]
    return arrow if rng.random() < 0.5 else [_path([(0.5, 0), (0.5, 1)]), _path([(0, 0.5), (1, 0.5)])]


def _path(points: list[tuple[float, float]]) -> Stroke:
    return np.array(points, np.float32)


def _grown(picture: GreyImage, size: float, pen: Pen, rng: np.random.Generator) -> Ink:
    """Bring a picture of a digit to a size, slanted and turned a little, with the sharp edge that a pen leaves."""
    rows, columns = np.flatnonzero(picture.max(1) > 40), np.flatnonzero(picture.max(0) > 40)
    if not len(rows):
        return np.zeros((2, 2), np.float32)
    cut = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / 255
    height, width = cut.shape
    scale = size / max(height, width) * np.exp(rng.normal(0, 0.1, 2))
    turn, slant = rng.normal(0, 0.08), rng.normal(0, 0.12)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array([[1, slant], [0, 1]])
    matrix = matrix * scale
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ matrix.T
    low, high = corners.min(0) - 2, corners.max(0) + 2
    whole = np.concatenate([matrix, -low[:, None]], axis=1)
    out = np.maximum(np.ceil(high - low), 2).astype(int).tolist()
    mean = float(np.sqrt(abs(np.linalg.det(matrix))))
    if mean < 0.8:
        cut = np.asarray(cv2.GaussianBlur(cut, (0, 0), 0.4 / mean))
    ink = np.asarray(cv2.warpAffine(cut, whole, tuple(out), flags=cv2.INTER_CUBIC))
    if mean > 1.6:  # what was soft at 28 px has an edge at its new size
        ink = np.asarray(cv2.GaussianBlur(ink, (0, 0), mean * 0.45))
        ink = (ink - rng.uniform(0.35, 0.55)) * np.float32(min(0.9 * mean, 6)) + 0.5
    ink = np.clip(ink, 0, 1).astype(np.float32)
    return roughen(ink, pen._replace(width=size / 10), rng) if pen.grain else ink


def simulate(sources: Sources, rng: np.random.Generator) -> SimulatedPage:
    """Make one page."""
    scene = _SCENES[int(rng.choice(len(_SCENES), p=_SHARES))]
    return _Page(sources, rng, scene).make()


_SCENES = ("plain", "cutout", "cell", "exam", "ruled", "photo", "small", "old", "tiny", "board")
_SHARES = np.array([0.12, 0.13, 0.15, 0.09, 0.10, 0.16, 0.08, 0.08, 0.06, 0.03])
_KINDS = np.array([0.07, 0.74, 0.07, 0.12])


class _Page:
    """One page while it is made."""

    def __init__(self, sources: Sources, rng: np.random.Generator, scene: str) -> None:
        self.rng = rng
        self.scene = scene
        self.kind = Kind(int(rng.choice(4, p=_KINDS)))
        self.label = -1
        height, width = self._shape()
        self.height, self.width = height, width
        self.shape = (height, width)
        self.least = min(self.shape)
        self.ink = np.zeros(self.shape, np.float32)  # of the digit
        self.rest = np.zeros(self.shape, np.float32)  # dark, beside it
        self.one_bit = rng.random() < {"tiny": 0.35, "photo": 0.02, "exam": 0.02, "board": 0.0, "old": 0.0}.get(
            scene, 0.09
        )
        self.hand = Hand(*self._pen(), sources, rng)
        self.strength = float(rng.uniform(0.55, 1.0))
        if rng.random() < {"photo": 0.22, "exam": 0.3, "cell": 0.35, "ruled": 0.25}.get(scene, 0.15):
            self.strength = float(rng.uniform(0.10, 0.55))
        if rng.random() < 0.02:
            self.strength = float(rng.uniform(0.04, 0.1))
        if self.one_bit or scene == "tiny":
            self.strength = max(self.strength, 0.5)

    def _shape(self) -> tuple[int, int]:
        rng = self.rng
        low, high = {
            "tiny": (14, 34), "small": (28, 72), "exam": (36, 130), "cutout": (30, 300), "cell": (48, 520),
            "old": (40, 200), "board": (40, 260), "plain": (48, 640), "ruled": (90, 700), "photo": (110, 760),
        }[self.scene]  # fmt: skip
        longer = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        if self.scene in ("plain", "photo") and rng.random() < 0.05:
            longer = rng.uniform(700, 1024)
        shorter = longer * (1 if rng.random() < 0.25 else rng.uniform(0.55, 1.0))
        if self.scene == "cutout":
            shorter = longer * rng.uniform(0.45, 1.0)
        height, width = max(8, round(longer)), max(8, round(shorter))
        wide = {"cell": 0.6, "exam": 0.5, "plain": 0.4, "photo": 0.3, "tiny": 0.15, "cutout": 0.12}.get(
            self.scene, 0.35
        )
        return (width, height) if rng.random() < wide else (height, width)

    def _pen(self) -> tuple[float, Pen]:
        rng, scene = self.rng, self.scene
        thick = float(np.exp(rng.uniform(np.log(0.014), np.log(0.16))))
        if scene in ("photo", "plain", "ruled") and rng.random() < 0.45:
            thick = rng.uniform(0.010, 0.045)
        if scene in ("tiny", "small"):
            thick = max(thick, rng.uniform(0.05, 0.14))
        chance = rng.random(4)
        grain = rng.uniform(0.1, 0.65) if chance[0] < {"board": 0.9, "cell": 0.35}.get(scene, 0.2) else 0.0
        gaps = rng.uniform(0.01, 0.08) if chance[2] < 0.08 else 0.0
        feather = rng.uniform(0.2, 0.8) if chance[3] < 0.25 else 0.0
        pressure = rng.uniform(0.1, 0.55) if chance[1] < 0.4 else 0.0
        flat = float(np.exp(rng.normal(0, 0.3))) if rng.random() < 0.2 else 1.0
        return thick, Pen(1.0, flat, pressure, gaps, grain, feather)

    # ---- what is written ---------------------------------------------------------------------------------------------

    def make(self) -> SimulatedPage:
        """Write, print, light and photograph."""
        rng = self.rng
        self.field = self._lay_out()
        if self.kind is Kind.DIGIT:
            self._write_digit()
        elif self.kind is Kind.SEVERAL:
            self._write_number()
        elif self.kind is Kind.OTHER:
            self._write_other()
        self._litter()
        return self._picture()

    def _lay_out(self) -> tuple[float, float, float, float]:
        """Print what was on the page before anybody wrote; give the field to be written in: left, top, right, bottom."""
        rng, scene, height, width = self.rng, self.scene, self.height, self.width
        whole = (0.0, 0.0, float(width), float(height))
        strength = float(rng.uniform(0.25, 1.0))
        thick = float(np.exp(rng.uniform(np.log(0.4), np.log(max(0.6, 0.035 * self.least)))))
        if scene == "cell":
            return self._cell(thick, strength)
        if scene == "exam":
            for side in range(4):  # pieces of lines at the edges
                if rng.random() < 0.5:
                    at = rng.normal(0, 0.03) * self.least + (
                        rng.uniform(0, 0.13) * self.least if rng.random() < 0.35 else 0
                    )
                    tilt = rng.normal(0, 0.02) * self.least
                    ends = [((at, -2), (at + tilt, height + 2)), ((width - at, -2), (width - at + tilt, height + 2)),
                            ((-2, at), (width + 2, at + tilt)), ((-2, height - at), (width + 2, height - at + tilt))][side]  # fmt: skip
                    paper.line(self.rest, *ends, rng.uniform(0.6, max(0.8, 0.04 * self.least)), strength)
            return whole
        if scene in ("ruled", "photo") and (scene == "ruled" or rng.random() < 0.25):
            pitch = float(np.exp(rng.uniform(np.log(max(5.0, self.least / 22)), np.log(0.7 * self.least))))
            faint = float(rng.uniform(0.04, 0.6))
            tilt = rng.normal(0, 0.02)
            kind = rng.random()
            offset = (rng.uniform(0, pitch), rng.uniform(0, pitch))
            thin = float(rng.uniform(0.4, max(0.7, 0.004 * self.least + 0.05 * min(pitch, 20))))
            if kind < 0.4:
                across = (0.0, pitch) if rng.random() < 0.7 else (pitch, 0.0)
                paper.grid(self.rest, across, offset, thin, faint, tilt)
            elif kind < 0.85:
                paper.grid(
                    self.rest, (pitch, pitch * rng.choice([1.0, rng.uniform(0.6, 1.6)])), offset, thin, faint, tilt
                )
                if rng.random() < 0.2:
                    paper.grid(self.rest, (pitch / 5, pitch / 5), offset, thin / 2, faint / 2, tilt)
            else:
                paper.dots(self.rest, max(pitch, self.least / 25), max(1.0, thin), faint)
            if rng.random() < 0.15:
                x = rng.uniform(0.05, 0.95) * width
                paper.line(self.rest, (x, -2), (x + tilt * height, height + 2), thin, min(1.0, 1.5 * faint))
        if scene in ("old", "plain") and rng.random() < 0.25:
            self._table(thick, strength)
        return whole

    def _cell(self, thick: float, strength: float) -> tuple[float, float, float, float]:
        rng, height, width = self.rng, self.height, self.width
        inset = rng.choice(
            [rng.uniform(-0.01, 0.03), rng.uniform(0.02, 0.10), rng.uniform(0.08, 0.3)], p=[0.5, 0.3, 0.2]
        )
        left, top = (inset + rng.normal(0, 0.01, 2)) * self.least
        right, bottom = (
            width - (inset + rng.normal(0, 0.01)) * self.least,
            height - (inset + rng.normal(0, 0.01)) * self.least,
        )
        kind = rng.random()
        if kind < 0.7:
            paper.frame(self.rest, (left, top, right, bottom), thick, strength, rng)
            if rng.random() < 0.08:
                d = thick + rng.uniform(1, 0.04 * self.least + 1)
                paper.frame(self.rest, (left + d, top + d, right - d, bottom - d), thick / 2, strength, rng)
        elif kind < 0.85:  # comb: a low rail with teeth
            teeth = rng.uniform(0.15, 0.5)
            paper.line(self.rest, (left - 5, bottom), (right + 5, bottom), thick, strength)
            for x in (left, right):
                paper.line(self.rest, (x, bottom), (x, bottom - teeth * (bottom - top)), thick, strength)
        else:  # table: neighbours' cells too
            self._table(thick, strength)
        if rng.random() < 0.12:
            size = rng.uniform(0.06, 0.16) * (bottom - top)
            tile = paper.text(rng, size)
            paper.put(
                self.rest,
                tile * np.float32(strength),
                int(left + thick + rng.uniform(0, 0.1) * width),
                int(top + thick),
            )
        if rng.random() < 0.12 and inset > 0.05:  # dark beyond the frame, or the next cells' paper
            level = np.float32(rng.uniform(0.1, 0.9))
            mask = np.ones(self.shape, np.float32)
            mask[max(0, int(top)) : int(bottom), max(0, int(left)) : int(right)] = 0
            np.maximum(self.rest, mask * level, out=self.rest)
        pad = thick / 2 + 1
        return (
            max(0.0, left + pad),
            max(0.0, top + pad),
            min(float(width), right - pad),
            min(float(height), bottom - pad),
        )

    def _table(self, thick: float, strength: float) -> None:
        rng = self.rng
        pitch = rng.uniform(0.55, 1.3, 2) * (self.width, self.height)
        paper.grid(
            self.rest,
            (float(pitch[0]), float(pitch[1])),
            tuple((rng.uniform(-0.15, 0.15, 2) * pitch).tolist()),
            thick,
            strength,
            rng.normal(0, 0.01),
        )

    def _size(self) -> tuple[float, float]:
        """How high a digit is, and how wide at most: pixels."""
        rng = self.rng
        left, top, right, bottom = self.field
        room = max(6.0, min(right - left, (bottom - top)))
        share = {
            "tiny": rng.uniform(0.7, 1.02), "small": rng.uniform(0.55, 1.0), "cutout": rng.uniform(0.7, 1.02),
            "cell": rng.uniform(0.3, 0.98), "exam": rng.uniform(0.3, 0.8), "old": rng.uniform(0.45, 1.05),
            "board": rng.uniform(0.35, 0.95), "plain": rng.uniform(0.06, 0.95), "ruled": rng.uniform(0.12, 0.9),
            "photo": rng.uniform(0.1, 0.98),
        }[self.scene]  # fmt: skip
        return max(11.0, share * room), room

    def _place(self, tile: Ink, overlap: float = 0.0) -> tuple[int, int]:
        """Choose where a tile lies: mostly whole within the field."""
        rng = self.rng
        left, top, right, bottom = self.field
        height, width = tile.shape
        spread = 0.28 if self.scene in ("cell", "exam", "tiny", "small", "cutout") else 0.5
        at = np.clip(rng.normal(0.5, spread, 2), -overlap, 1 + overlap)
        return int(left + at[0] * (right - left - width)), int(top + at[1] * (bottom - top - height))

    def _fit(self, tile: Ink) -> Ink:
        left, top, right, bottom = self.field
        scale = min((right - left) / tile.shape[1], (bottom - top) / tile.shape[0], 1.0)
        scale *= 1.0 if self.rng.random() < 0.85 else 1.06
        if scale >= 1:
            return tile
        size = (max(1, int(tile.shape[1] * scale)), max(1, int(tile.shape[0] * scale)))
        return np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA))

    def _write_digit(self) -> None:
        rng = self.rng
        size, _ = self._size()
        tile, self.label = self.hand.digit(size)
        filled = self.scene in ("tiny", "cutout", "small") and rng.random() < 0.45
        if filled:  # cut out by its box, perhaps stretched to its frame, some of its ink cut off
            left, top, right, bottom = self.field
            grown = rng.uniform(0.97, 1.06)
            stretch = rng.uniform(1, 3) if rng.random() < 0.5 else 1.0
            high, wide = tile.shape
            scale = min(grown * (bottom - top) / high, grown * (right - left) / (wide * stretch))
            size = (max(2, int(wide * stretch * scale)), max(4, int(high * scale)))
            tile = np.asarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR))
            if rng.random() < 0.6:  # the page is no larger than its digit
                self._cut_to(tile)
        tile = tile if filled else self._fit(tile)
        x, y = self._place(tile, overlap=0.06)
        self.box = (x, y, x + tile.shape[1], y + tile.shape[0])
        paper.put(self.ink, tile, x, y)
        self._accompany(tile.shape)

    def _cut_to(self, tile: Ink) -> None:
        """Cut the page down to a digit that was laid out to fill it."""
        rng = self.rng
        pad = rng.uniform(-0.02, 0.1, 2) * max(tile.shape)
        self.height = max(8, min(self.height, int(tile.shape[0] + pad[0])))
        self.width = max(6, min(self.width, int(tile.shape[1] + pad[1])))
        self.shape = (self.height, self.width)
        self.least = min(self.shape)
        self.ink, self.rest = self.ink[: self.height, : self.width], self.rest[: self.height, : self.width]
        self.field = (0.0, 0.0, float(self.width), float(self.height))

    def _accompany(self, tile_shape: tuple[int, int]) -> None:
        """Add what stands beside a digit, and is none of it."""
        rng, (x0, y0, x1, y1) = self.rng, self.box
        size = max(tile_shape)
        chance = rng.random(9)
        thick = max(0.8, self.hand.pen_share * size)
        if chance[0] < 0.05:  # underline
            y = y1 + rng.uniform(0.06, 0.25) * size
            reach = rng.uniform(0.1, 0.6) * size
            paper.line(
                self.rest, (x0 - reach, y + rng.normal(0, 0.03) * size), (x1 + reach, y), thick, rng.uniform(0.5, 1)
            )
            if rng.random() < 0.2:
                paper.line(self.rest, (x0 - reach, y + 0.1 * size), (x1 + reach, y + 0.1 * size), thick, 0.8)
        if chance[1] < 0.035:  # ring
            strokes = [self._ring()]
            tile = self.hand.write(strokes, (1.25 + 0.5 * rng.random()) * float(np.hypot(*tile_shape)), 0.4)
            cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
            paper.put(self.rest, tile, int(cx - tile.shape[1] / 2), int(cy - tile.shape[0] / 2))
        if chance[2] < 0.035:  # struck out beside
            old, _ = self.hand.digit(size * rng.uniform(0.7, 1.1))
            side = rng.choice([-1, 1])
            at = x0 - old.shape[1] - rng.uniform(0.1, 0.5) * size if side < 0 else x1 + rng.uniform(0.1, 0.5) * size
            top = y0 + rng.normal(0, 0.1) * size
            struck = np.zeros_like(self.rest)
            paper.put(struck, old, int(at), int(top))
            for _ in range(int(rng.integers(1, 6))):
                a = (at + rng.uniform(-0.15, 0.2) * old.shape[1], top + rng.uniform(0, 1) * old.shape[0])
                b = (at + rng.uniform(0.8, 1.15) * old.shape[1], top + rng.uniform(0, 1) * old.shape[0])
                paper.line(struck, a, b, thick, 1.0)
            np.maximum(self.rest, struck, out=self.rest)
        if chance[3] < 0.06:  # a dot, comma or bracket
            radius = max(0.8, rng.uniform(0.4, 0.9) * thick)
            paper.disk(self.rest, (x1 + rng.uniform(0.05, 0.4) * size, y1 - rng.uniform(-0.1, 0.3) * size), radius, 0.9)
        if chance[4] < 0.16:  # a neighbour reaches in
            self._neighbour(size)
        if chance[5] < 0.02:  # printed unit or label near
            tile = paper.text(rng, max(6, rng.uniform(0.12, 0.35) * size))
            paper.put(self.rest, tile * np.float32(rng.uniform(0.3, 1)), int(x1 + 0.2 * size), int(y1 - tile.shape[0]))

    def _ring(self) -> Stroke:
        turns = np.linspace(0, 2 * np.pi * self.rng.uniform(0.93, 1.15), 50) + self.rng.uniform(0, 6)
        reach = 0.5 * np.linspace(1, self.rng.uniform(0.9, 1.08), 50)
        return (0.5 + np.stack([reach * np.cos(turns), reach * np.sin(turns) * self.rng.uniform(0.8, 1.1)], 1)).astype(
            np.float32
        )

    def _neighbour(self, size: float) -> None:
        """Let a piece of another digit or letter show at an edge of the page."""
        rng = self.rng
        tile = self.hand.digit(size * rng.uniform(0.7, 1.2))[0] if rng.random() < 0.7 else self.hand.other(size)
        reach = rng.uniform(0.03, 0.4)
        height, width = tile.shape
        side = int(rng.choice(4, p=[0.35, 0.35, 0.15, 0.15]))
        x = (
            [-int(width * (1 - reach)), self.width - int(width * reach)][side]
            if side < 2
            else int(rng.uniform(-0.2, 0.9) * self.width)
        )
        y = (
            [-int(height * (1 - reach)), self.height - int(height * reach)][side - 2]
            if side >= 2
            else int(rng.uniform(-0.1, 0.8) * self.height)
        )
        apart = np.zeros_like(self.rest)
        paper.put(apart, tile, x, y)
        if not ((apart > 0.3) & (cv2.dilate(self.ink, np.ones((3, 3))) > 0.3)).any():
            np.maximum(self.rest, apart, out=self.rest)

    def _write_number(self) -> None:
        rng = self.rng
        count = int(rng.choice([2, 2, 2, 3, 4]))
        left, top, right, bottom = self.field
        size = min(self._size()[0], 1.6 * (right - left) / count, bottom - top)
        tiles = []
        for at in range(count):
            label = 1 if at == 0 and rng.random() < 0.3 else None
            tile = self.hand.digit(size * rng.uniform(0.75, 1.05), label)[0]
            tiles.append(tile)
        gap = rng.uniform(-0.02, 0.35) * size
        width = int(sum(tile.shape[1] for tile in tiles) + gap * (count - 1)) + 1
        high = int(max(tile.shape[0] for tile in tiles) * 1.1) + 1
        whole = np.zeros((high, max(width, 1)), np.float32)
        x = 0.0
        for tile in tiles:
            paper.put(whole, tile, int(x), int(rng.uniform(0, max(0, high - tile.shape[0]))))
            x += tile.shape[1] + gap
        whole = self._fit(whole)
        paper.put(self.ink, whole, *self._place(whole))

    def _write_other(self) -> None:
        rng = self.rng
        kind = rng.random()
        if kind < 0.62:
            tile = self._fit(self.hand.other(self._size()[0]))
            self.box = (*self._place(tile), 0, 0)
            paper.put(self.ink, tile, *self.box[:2])
        elif kind < 0.72:  # a word
            size = max(8.0, 0.5 * self._size()[0])
            tiles = [self.hand.other(size * rng.uniform(0.7, 1.1)) for _ in range(int(rng.integers(2, 6)))]
            x, y = self.field[0] + rng.uniform(0, 0.2) * self.width, self.field[1] + rng.uniform(0, 0.7) * self.height
            for tile in tiles:
                paper.put(self.ink, tile, int(x), int(y))
                x += tile.shape[1] * rng.uniform(0.95, 1.3)
        elif kind < 0.84:
            paper.column_of_text(self.rest, rng, float(rng.uniform(0.3, 1)))
        elif kind < 0.9:  # a form: boxes and words
            for _ in range(int(rng.integers(4, 14))):
                x, y = rng.uniform(-0.1, 0.9) * self.width, rng.uniform(-0.1, 0.9) * self.height
                w, h = rng.uniform(0.1, 0.6) * self.width, rng.uniform(0.05, 0.3) * self.height
                paper.frame(
                    self.rest,
                    (x, y, x + w, y + h),
                    rng.uniform(0.5, 0.012 * self.least + 0.6),
                    rng.uniform(0.3, 1),
                    rng,
                )
                if rng.random() < 0.6:
                    paper.put(self.rest, paper.text(rng, max(5, rng.uniform(0.02, 0.1) * self.height)), int(x), int(y))
        elif kind < 0.95:  # an object, a portrait: shapes one over another, each shaded
            self._draw_object()
        else:  # a texture: smooth noise of many greys
            field = paper.noise(self.shape, rng, max(2.0, self.least * rng.uniform(0.05, 0.4)))
            field += 0.4 * paper.noise(self.shape, rng, max(1.5, self.least * rng.uniform(0.02, 0.1)))
            level = 1 / (1 + np.exp(-np.clip(field * rng.uniform(0.8, 6), -30, 30)))
            np.maximum(self.rest, level.astype(np.float32) * np.float32(rng.uniform(0.3, 1)), out=self.rest)

    def _draw_object(self) -> None:
        rng = self.rng
        whole = np.full(self.shape, rng.uniform(0, 0.8), np.float32)
        for _ in range(int(rng.integers(2, 9))):
            mask = np.zeros(self.shape, np.uint8)
            at = (rng.normal(0.5, 0.2, 2) * (self.width, self.height)).astype(int).tolist()
            if rng.random() < 0.6:
                axes = np.maximum(1, rng.uniform(0.05, 0.45, 2) * self.least).astype(int).tolist()
                cv2.ellipse(mask, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
            else:
                corners = at + rng.normal(0, 0.25, (int(rng.integers(3, 7)), 2)) * self.least
                cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
            shade = np.clip(
                rng.uniform(0, 1) + rng.uniform(0, 0.25) * paper.noise(self.shape, rng, max(2.0, 0.3 * self.least)),
                0,
                1,
            )
            part = mask.astype(np.float32) / 255
            whole = whole * (1 - part) + shade * part
        if rng.random() < 0.6:
            whole = np.asarray(cv2.GaussianBlur(whole, (0, 0), rng.uniform(0.4, 0.04 * self.least + 0.5)))
        np.maximum(self.rest, whole, out=self.rest)

    # ---- what befalls the paper ---------------------------------------------------------------------------------------

    def _litter(self) -> None:
        rng, least = self.rng, self.least
        chance = rng.random(8)
        if chance[0] < 0.12:  # dust
            for _ in range(int(rng.integers(1, 12))):
                paper.blot(self.rest, rng, rng.uniform(0.5, max(1.0, 0.012 * least)), rng.uniform(0.2, 1))
        if self.scene == "tiny":
            return
        if chance[1] < 0.03 and least > 90:  # punch holes
            radius, x = rng.uniform(0.015, 0.06) * least, rng.uniform(0.02, 0.1) * self.width
            for y in (rng.uniform(0.1, 0.45), rng.uniform(0.55, 0.9)):
                paper.disk(self.rest, (x, y * self.height), radius, rng.uniform(0.5, 1))
        if chance[2] < 0.05:  # the scanner's black edge
            depth = rng.uniform(0.01, 0.12) * least
            edge = [(slice(None), slice(0, int(depth) + 1)), (slice(None), slice(-int(depth) - 1, None)),
                    (slice(0, int(depth) + 1), slice(None)), (slice(-int(depth) - 1, None), slice(None))]  # fmt: skip
            for side in np.flatnonzero(rng.random(4) < 0.4).tolist():
                self.rest[edge[side]] = np.maximum(self.rest[edge[side]], np.float32(rng.uniform(0.6, 1)))
        if chance[3] < 0.04:  # bleeding through
            ghost = np.zeros_like(self.rest)
            if rng.random() < 0.5:
                paper.column_of_text(ghost, rng, 1.0)
            else:
                tile = self.hand.digit(self._size()[0])[0]
                paper.put(ghost, tile, *self._place(tile))
            np.maximum(self.rest, ghost[:, ::-1] * np.float32(rng.uniform(0.04, 0.2)), out=self.rest)
        if chance[4] < 0.03:  # stamp, coffee
            paper.blot(
                self.rest, rng, rng.uniform(0.15, 0.5) * least, rng.uniform(0.08, 0.45), ring=bool(rng.random() < 0.6)
            )
        if chance[5] < 0.02:
            tile = paper.text(rng, max(6.0, rng.uniform(0.03, 0.1) * least))
            x, y = rng.uniform(0, 0.8) * self.width, rng.choice([0.01, 0.9]) * self.height
            paper.put(self.rest, tile * np.float32(rng.uniform(0.3, 0.9)), int(x), int(y))

    def _picture(self) -> SimulatedPage:
        rng, scene = self.rng, self.scene
        careful = self.kind is Kind.DIGIT and (self.strength < 0.3 or self.hand.pen_share < 0.03)
        ground = float(rng.uniform(0.75, 1.0)) if rng.random() < 0.6 else float(rng.uniform(0.35, 1.0))
        sheet = np.full(self.shape, ground, np.float32)
        rough = rng.random()
        if scene != "tiny" and rough < 0.5:
            sheet += rng.uniform(0.002, 0.03) * paper.noise(self.shape, rng, rng.uniform(1, 4))
            if rough < 0.15:
                sheet += rng.uniform(0.01, 0.06) * paper.noise(self.shape, rng, max(3.0, 0.1 * self.least))
        if scene == "old":  # stains, and the weave of a security print
            if rng.random() < 0.5:
                sheet *= (
                    1
                    - rng.uniform(0.05, 0.35)
                    * np.clip(paper.noise(self.shape, rng, max(3.0, self.least / 4)), 0, 2)
                    / 2
                )
            if rng.random() < 0.5:
                sheet *= 1 - self._pattern()
        if scene in ("photo", "ruled") and rng.random() < 0.12:  # a crease
            y = rng.uniform(0, 1) * self.height
            along = (
                np.arange(self.height, dtype=np.float32)[:, None]
                - y
                - rng.normal(0, 0.1) * np.arange(self.width, dtype=np.float32)
            )
            sheet += (
                rng.uniform(0.03, 0.15) * np.exp(-((along / max(1.0, 0.01 * self.least)) ** 2)) * np.sign(along + 0.5)
            )
        strength = np.float32(self.strength)
        beside = np.float32(1.0 if rng.random() < 0.5 else np.clip(self.strength * rng.uniform(0.6, 1.6), 0, 1))
        light = sheet * (1 - np.maximum(self.ink * strength, self.rest * beside))
        target = self.ink
        if scene in ("photo", "ruled", "plain") and rng.random() < {"photo": 0.22}.get(scene, 0.08) and self.least > 60:
            light, target = camera.lay_on_desk(light, target, rng)
        if scene != "tiny" and rng.random() < {"photo": 0.9, "ruled": 0.5, "exam": 0.4, "old": 0.4, "board": 0.5}.get(
            scene, 0.2
        ):
            light = light * camera.illuminate(light.shape, rng)
        if rng.random() < {"board": 0.95, "tiny": 0.4, "small": 0.35}.get(scene, 0.08):
            light = (1.0 if rng.random() < 0.6 else rng.uniform(0.5, 1)) - light * np.float32(rng.uniform(0.6, 1))
            light = np.clip(light, 0, 1)
        grey = camera.take(light, rng, careful=careful, one_bit=self.one_bit)
        grey, target = self._resized(grey, target)
        if rng.random() < 0.03:  # blacked or whited out to the end
            grey = 255 - grey if rng.random() < 0.5 else np.minimum(grey, 252)
        inked = np.asarray(np.clip(255 * target, 0, 255), np.uint8)
        return SimulatedPage(grey, inked, self.kind, self.label, scene)

    def _pattern(self) -> Ink:
        rng = self.rng
        x = np.arange(self.width, dtype=np.float32) / self.least
        y = np.arange(self.height, dtype=np.float32)[:, None] / self.least
        wave = np.zeros(self.shape, np.float32)
        for _ in range(2):
            fx, fy, bow = rng.normal(0, 14, 3).astype(np.float32)
            wave += np.sin(fx * x + fy * y + 0.3 * bow * np.sin(5 * y) + rng.uniform(0, 6))
        return np.float32(rng.uniform(0.03, 0.22)) * (wave > rng.uniform(-0.5, 1)).astype(np.float32)

    def _resized(self, grey: GreyImage, target: Ink) -> tuple[GreyImage, Ink]:
        """Lose pixels: a low resolution, a fax's oblong pixels, a second time on its way."""
        rng = self.rng
        chance = rng.random(2)
        height, width = grey.shape
        digit = max(1, self._extent())
        if chance[0] < 0.06 and digit > 30:  # down and up again: soft
            part = max(rng.uniform(0.3, 0.9), 14 / digit)
            small = cv2.resize(
                grey, (max(1, int(width * part)), max(1, int(height * part))), interpolation=cv2.INTER_AREA
            )
            grey = np.asarray(
                cv2.resize(
                    small,
                    (width, height),
                    interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST])),
                ),
                np.uint8,
            )
        if chance[1] < 0.05 and digit > 24:
            squeeze = rng.uniform(0.45, 0.9)
            size = (
                (width, max(1, int(height * squeeze))) if rng.random() < 0.5 else (max(1, int(width * squeeze)), height)
            )
            grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
            target = np.asarray(cv2.resize(target, size, interpolation=cv2.INTER_AREA))
        return grey, target

    def _extent(self) -> int:
        rows = np.flatnonzero(self.ink.max(1) > 0.3)
        return int(rows[-1] - rows[0]) + 1 if len(rows) else 0

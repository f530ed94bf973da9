"""Read pen movements, and draw them with a pen: the ink of a digit at any size.

Strokes carry what pictures of 28×28 pixels lost: where a pen of any width would have left ink on a page of any
resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Stroke = Floats  # [P, 2], x to the right, y down; the longer side of all strokes of a sample is 1
Ink = Floats  # [h, w], 0 none to 1 full

_POINTS = 28  # that a stroke as long as its digit's longer side is drawn with
_SOFT = 1.4  # pixels that OpenCV's soft edges add to a line
_SHIFT = 4  # bits of a pixel's fraction, in OpenCV's drawing


@dataclass(frozen=True, slots=True)
class Movements:
    """Pen movements of many samples, one after another."""

    xy: Floats
    """float32[P, 2]."""
    stroke: NDArray[np.int32]
    """int32[S + 1]: stroke k is `xy[stroke[k]:stroke[k + 1]]`."""
    sample: NDArray[np.int32]
    """int32[N + 1]: sample i is the strokes `sample[i]` to `sample[i + 1] - 1`."""
    label: list[str]
    """[N], the character."""
    writer: list[str]
    """[N], source and writer."""

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.label)

    def strokes(self, number: int) -> list[Stroke]:
        """Give the strokes of one sample, its box moved to the origin and its longer side scaled to 1."""
        first, end = self.sample[number], self.sample[number + 1]
        points = self.xy[self.stroke[first] : self.stroke[end]]
        low = points.min(0)
        scale = max(float((points.max(0) - low).max()), 1e-6)
        return [(self.xy[self.stroke[k] : self.stroke[k + 1]] - low) / scale for k in range(first, end)]

    def take(self, rows: NDArray[np.intp]) -> "Movements":
        """Keep some samples, in the order given."""
        kept = [(int(self.sample[row]), int(self.sample[row + 1])) for row in rows.tolist()]
        strokes = np.concatenate([np.arange(first, end) for first, end in kept] or [np.zeros(0, np.intp)])
        points = [self.xy[self.stroke[k] : self.stroke[k + 1]] for k in strokes.tolist()]
        return Movements(
            np.concatenate([self.xy[:0], *points]),
            _ends([len(part) for part in points]),
            _ends([end - first for first, end in kept]),
            [self.label[row] for row in rows.tolist()],
            [self.writer[row] for row in rows.tolist()],
        )


def join(parts: Sequence[Movements]) -> Movements:
    """Put movements one after another."""
    return Movements(
        np.concatenate([part.xy for part in parts]),
        _ends([count for part in parts for count in np.diff(part.stroke).tolist()]),
        _ends([count for part in parts for count in np.diff(part.sample).tolist()]),
        [label for part in parts for label in part.label],
        [writer for part in parts for writer in part.writer],
    )


def load(source: Path | BinaryIO) -> Movements:
    """Read one file of strokes, as the `FORMAT.md` that comes with the data tells it."""
    with np.load(source) as stored:
        writers = [f"{source}/{writer}" for source, writer in zip(stored["source"], stored["writer"], strict=True)]
        xy = stored["xy"].astype(np.float32)
        return Movements(xy, stored["stroke"], stored["sample"], stored["label"].tolist(), writers)


def _ends(counts: Sequence[int]) -> NDArray[np.int32]:
    """Give where each of some runs begins, and where the last one ends: int32[N + 1]."""
    return np.concatenate([[0], np.cumsum(np.array(counts, np.int32))]).astype(np.int32)


class Pen(NamedTuple):
    """What strokes are drawn with."""

    width: float
    """Pixels."""
    flat: float = 1.0
    """Width across over width down: 1 is a round pen."""
    pressure: float = 0.0
    """How much the width changes along a stroke, 0 to 0.6."""
    gaps: float = 0.0
    """Share of the strokes' pieces that are missing."""
    grain: float = 0.0
    """How rough the ink is: 0 solid, 1 chalk or a dry brush."""
    feather: float = 0.0
    """How much fainter ink is where the pen is light, 0 to 1."""


def bend(strokes: Sequence[Stroke], rng: np.random.Generator, amount: float = 1.0) -> list[Stroke]:
    """Slant, turn, stretch and bend strokes at random, as another day's hand would write them."""
    turn = rng.normal(0, 0.09 * amount)
    slant = rng.normal(0, 0.16 * amount)
    stretch = np.exp(rng.normal(0, 0.13 * amount, 2))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.array([[1, slant], [0, 1]])
    matrix = (matrix * stretch).astype(np.float32)
    depth = (abs(rng.normal(0, 0.022 * amount, (2, 2)))).astype(np.float32)
    waves = rng.normal(0, 1.3, (2, 2, 2)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, (2, 2)).astype(np.float32)
    bent = []
    for stroke in strokes:
        moved = (stroke - 0.5) @ matrix.T
        for wave, phase, deep in zip(waves, phases, depth, strict=True):
            moved = moved + deep * np.sin(2 * np.pi * moved @ wave.T + phase)
        bent.append(moved.astype(np.float32))
    low = np.min([stroke.min(0) for stroke in bent], axis=0)
    high = np.max([stroke.max(0) for stroke in bent], axis=0)
    scale = max(float((high - low).max()), 1e-6)
    return [(stroke - low) / scale for stroke in bent]


def draw(strokes: Sequence[Stroke], size: float, pen: Pen, rng: np.random.Generator) -> Ink:
    """Draw strokes.

    Args:
        strokes: Of one sample, the longer side of its box 1.
        size: Pixels of that side; the pen's width comes on top.
        pen: What draws.
        rng: Randomness of pressure, gaps and grain.

    Returns:
        float32[h, w], with the least margin that holds the pen.
    """
    finer = 1 if pen.width >= 7 else 2 if pen.width >= 3 else 4
    across, down = finer / np.sqrt(pen.flat), finer * np.sqrt(pen.flat)
    margin = pen.width * max(pen.flat, 1 / pen.flat) ** 0.5 / 2 + 1
    extent = np.max([stroke.max(0) for stroke in strokes], axis=0) * size + 2 * margin
    width, height = max(1, int(np.ceil(extent[0]))), max(1, int(np.ceil(extent[1])))
    ink = np.zeros((int(np.ceil(height * down)), int(np.ceil(width * across))), np.uint8)
    scale = np.array([across, down], np.float32)
    for stroke in strokes:
        points = _resampled(stroke)
        places = np.rint(((points * size + margin) * scale) * 2**_SHIFT).astype(np.int32)
        wave = np.sin(np.linspace(rng.uniform(0, 6), rng.uniform(3, 14), len(points)))
        press = 1 + pen.pressure * wave
        thick = np.maximum(np.rint(pen.width * finer * press - _SOFT), 1).astype(int).tolist()
        level = (255 * (1 - pen.feather * (0.5 - 0.5 * wave))).astype(int).tolist()
        if len(points) == 1:
            cv2.circle(ink, (places[0] >> _SHIFT).tolist(), max(1, thick[0] // 2 + 1), 255, -1, cv2.LINE_AA)
            continue
        if pen.pressure == 0 and pen.gaps == 0 and pen.feather == 0:
            cv2.polylines(ink, [places], False, 255, thick[0], cv2.LINE_AA, _SHIFT)
            continue
        missing = rng.random(len(points)) < pen.gaps
        ends = places.tolist()
        for at in range(len(points) - 1):
            if not missing[at]:
                cv2.line(ink, ends[at], ends[at + 1], level[at], thick[at], cv2.LINE_AA, _SHIFT)
    if ink.shape != (height, width):
        ink = np.asarray(cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    drawn = np.asarray(ink / np.float32(255), np.float32)
    return roughen(drawn, pen, rng) if pen.grain else drawn


def roughen(ink: Ink, pen: Pen, rng: np.random.Generator) -> Ink:
    """Let a rough pen miss the valleys of the paper."""
    height, width = ink.shape
    coarse = float(rng.uniform(1, max(1.5, pen.width / 2)))
    grain = rng.random((int(height / coarse) + 2, int(width / coarse) + 2), np.float32)
    grain = np.asarray(cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR))
    low = 0.75 * pen.grain
    return np.asarray(ink * np.clip((grain - low + 0.25) / 0.4, 0.15 * (1 - pen.grain), 1), np.float32)


def _resampled(stroke: Stroke) -> Stroke:
    """Place points at even distances along a stroke: float32[P, 2]."""
    steps = np.hypot(*np.diff(stroke, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    count = int(np.ceil(along[-1] * _POINTS))
    if count < 1:
        return stroke[:1]
    at = np.linspace(0, along[-1], count + 1)
    return np.stack([np.interp(at, along, stroke[:, axis]) for axis in (0, 1)], axis=1).astype(np.float32)

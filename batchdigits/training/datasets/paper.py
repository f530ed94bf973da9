"""Print, rule, frame and stain simulated pages: what is on paper beside the digit.

Every function takes a page's ink so far, float32[h, w], 0 none to 1 full, and adds to it in place.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Ink = NDArray[np.float32]  # [h, w], 0 none to 1 full

_FONTS = tuple(range(8))
_WORDS = (
    "No.",
    "Date",
    "Name",
    "sum",
    "Total",
    "Class",
    "a)",
    "1.",
    "x",
    "kg",
    "EUR",
    "Form 7",
    "Frage",
    "Pts",
    "/20",
    "12",
)


def put(ink: Ink, tile: Ink, x: int, y: int) -> None:
    """Lay a tile of ink over a page, its top left corner at (x, y), which may be outside."""
    height, width = ink.shape
    top, left = max(0, y), max(0, x)
    bottom, right = min(height, y + tile.shape[0]), min(width, x + tile.shape[1])
    if top < bottom and left < right:
        target = ink[top:bottom, left:right]
        np.maximum(target, tile[top - y : bottom - y, left - x : right - x], out=target)


def line(ink: Ink, start: tuple[float, float], end: tuple[float, float], thick: float, strength: float) -> None:
    """Draw a straight line with soft edges, also thinner than a pixel; points are (x, y)."""
    level = strength * min(1.0, thick)
    wide = max(1, round(thick))
    low = np.floor(np.minimum(start, end)).astype(int) - wide - 2
    high = np.ceil(np.maximum(start, end)).astype(int) + wide + 3
    low, high = np.maximum(low, 0), np.minimum(high, ink.shape[::-1])
    if (low >= high).any():
        return
    left, top = low.tolist()
    drawn = np.zeros((high - low)[::-1], np.uint8)
    points = [tuple(np.rint((np.array(point) - low) * 16).astype(int).tolist()) for point in (start, end)]
    cv2.line(drawn, points[0], points[1], 255, wide, cv2.LINE_AA, 4)
    put(ink, drawn.astype(np.float32) * np.float32(level / 255), left, top)


def frame(
    ink: Ink, box: tuple[float, float, float, float], thick: float, strength: float, rng: np.random.Generator
) -> None:
    """Draw the sides of a box (left, top, right, bottom), a little askew, one or two of them missing now and then."""
    left, top, right, bottom = box
    slope = rng.normal(0, 0.006) * (right - left)
    corners = [(left, top), (right, top + slope), (right - slope, bottom + slope), (left - slope, bottom)]
    shown = rng.random(4) < rng.choice([1.0, 1.0, 0.6])
    beyond = rng.choice([0.0, 0.0, 0.2]) * (right - left) * rng.random(4)
    for side in np.flatnonzero(shown).tolist():
        (x0, y0), (x1, y1) = corners[side], corners[(side + 1) % 4]
        length = max(np.hypot(x1 - x0, y1 - y0), 1e-6)
        dx, dy = (x1 - x0) / length * beyond[side], (y1 - y0) / length * beyond[side]
        line(ink, (x0 - dx, y0 - dy), (x1 + dx, y1 + dy), thick, strength)


def grid(
    ink: Ink, pitch: tuple[float, float], offset: tuple[float, float], thick: float, strength: float, tilt: float
) -> None:
    """Rule lines across a page at even distances; a pitch of 0 rules none in that direction."""
    height, width = ink.shape
    if pitch[1] > 0:
        for y in np.arange(offset[1] % pitch[1] - pitch[1], height + pitch[1], pitch[1]).tolist():
            line(ink, (-2, y - tilt * width / 2), (width + 2, y + tilt * width / 2), thick, strength)
    if pitch[0] > 0:
        for x in np.arange(offset[0] % pitch[0] - pitch[0], width + pitch[0], pitch[0]).tolist():
            line(ink, (x + tilt * height / 2, -2), (x - tilt * height / 2, height + 2), thick, strength)


def dots(ink: Ink, pitch: float, thick: float, strength: float) -> None:
    """Print a lattice of dots."""
    height, width = ink.shape
    radius = max(1, round(thick / 2))
    tile = np.zeros((2 * radius + 1, 2 * radius + 1), np.uint8)
    cv2.circle(tile, (radius, radius), radius, 255, -1, cv2.LINE_AA)
    soft = tile.astype(np.float32) * np.float32(strength / 255)
    for y in np.arange(pitch / 2, height, pitch).astype(int).tolist():
        for x in np.arange(pitch / 2, width, pitch).astype(int).tolist():
            put(ink, soft, x - radius, y - radius)


def text(rng: np.random.Generator, size: float, words: str | None = None) -> Ink:
    """Print some letters in one of OpenCV's fonts, `size` pixels high: a tile."""
    said = words or str(rng.choice(_WORDS))
    font = int(rng.choice(_FONTS))
    scale = size / 22
    thick = max(1, round(scale * rng.uniform(0.7, 2.5)))
    (width, height), below = cv2.getTextSize(said, font, scale, thick)
    tile = np.zeros((height + below + 2 * thick + 2, width + 2 * thick + 2), np.uint8)
    cv2.putText(tile, said, (thick, height + thick), font, scale, 255, thick, cv2.LINE_AA)
    return tile.astype(np.float32) / np.float32(255)


def column_of_text(ink: Ink, rng: np.random.Generator, strength: float) -> None:
    """Print or write a page full of lines of text."""
    height, width = ink.shape
    size = rng.uniform(max(5, height / 70), max(6, height / 14))
    left, right = rng.uniform(0.02, 0.15) * width, rng.uniform(0.7, 1.0) * width
    letters = np.array(list("abcdefghijklmnopqrstuvwxyzABCDE      .,"))
    y = rng.uniform(0, 0.1) * height
    count = max(2, int((right - left) / (0.75 * size)))
    while y < height * rng.uniform(0.75, 1.1):
        tile = text(rng, size, "".join(rng.choice(letters, int(count * rng.choice([1, 1, 1, rng.uniform(0.2, 1)])))))
        put(ink, tile * np.float32(strength), int(left), int(y))
        y += size * rng.uniform(1.5, 2.0)


def blot(ink: Ink, rng: np.random.Generator, radius: float, strength: float, *, ring: bool = False) -> None:
    """Leave a disk, or a ring, with soft edges somewhere."""
    height, width = ink.shape
    at = rng.uniform(-0.1, 1.1, 2) * (width, height)
    disk(ink, (float(at[0]), float(at[1])), radius, strength, thick=max(1.0, radius * 0.12) if ring else 0)


def disk(ink: Ink, at: tuple[float, float], radius: float, strength: float, thick: float = 0) -> None:
    """Fill a disk, or draw a ring of some thickness."""
    reach = int(np.ceil(radius + thick)) + 2
    tile = np.zeros((2 * reach, 2 * reach), np.uint8)
    wide = max(1, round(thick)) if thick else -1
    cv2.circle(tile, (reach, reach), max(1, round(radius)), 255, wide, cv2.LINE_AA)
    put(ink, tile.astype(np.float32) * np.float32(strength / 255), int(at[0]) - reach, int(at[1]) - reach)


def noise(shape: tuple[int, int], rng: np.random.Generator, scale: float) -> Ink:
    """Make smooth noise, about standard normal, whose grains are `scale` pixels: float32[h, w]."""
    height, width = shape
    small = rng.standard_normal((int(height / scale) + 3, int(width / scale) + 3), np.float32)
    if scale <= 1:
        return small[:height, :width]
    return np.asarray(
        cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC if scale > 3 else cv2.INTER_LINEAR)
    )

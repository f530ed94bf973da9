"""Print, rule, frame and stain simulated pages: what is on paper beside the digit.

Each function that takes a page's ink so far, float32[h, w], 0 none to 1 full, adds to it in place.
"""

import cv2
import numpy as np

from batchdigits.training.datasets.simulator.strokes import Ink

_SOFT = 1.4  # pixels that OpenCV's soft edges add to a line
_FONTS = tuple(range(8))
_WORDS = (
    *("No.", "Date", "Name", "sum", "Total", "Class", "a)", "1.", "x", "kg", "EUR", "Form 7", "Frage", "Pts", "/20"),
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
    wide = max(1, round(thick - _SOFT))
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


def punch(ink: Ink, rng: np.random.Generator) -> None:
    """Punch two holes at the left, through which something dark is seen."""
    height, width = ink.shape
    radius, x = rng.uniform(0.015, 0.06) * min(ink.shape), rng.uniform(0.02, 0.1) * width
    for y in (rng.uniform(0.1, 0.45), rng.uniform(0.55, 0.9)):
        disk(ink, (x, y * height), radius, rng.uniform(0.5, 1))


def scanner_edge(ink: Ink, rng: np.random.Generator) -> None:
    """Blacken some of the edges, where a scanner looked beyond the paper."""
    deep = int(rng.uniform(0.01, 0.12) * min(ink.shape)) + 1
    edges = (ink[:, :deep], ink[:, -deep:], ink[:deep], ink[-deep:])
    for side in np.flatnonzero(rng.random(4) < 0.4).tolist():
        np.maximum(edges[side], np.float32(rng.uniform(0.6, 1)), out=edges[side])


def form(ink: Ink, rng: np.random.Generator) -> None:
    """Print boxes and words all over."""
    height, width = ink.shape
    for _ in range(int(rng.integers(4, 14))):
        x, y = rng.uniform(-0.1, 0.9) * width, rng.uniform(-0.1, 0.9) * height
        w, h = rng.uniform(0.1, 0.6) * width, rng.uniform(0.05, 0.3) * height
        thick = rng.uniform(0.5, 0.012 * min(ink.shape) + 0.6)
        frame(ink, (x, y, x + w, y + h), thick, rng.uniform(0.3, 1), rng)
        if rng.random() < 0.6:
            put(ink, text(rng, max(5, rng.uniform(0.02, 0.1) * height)), int(x), int(y))


def shapes(ink: Ink, rng: np.random.Generator) -> None:
    """Fill a page with an object, or a portrait: shapes one over another, each shaded."""
    height, width = ink.shape
    least = min(ink.shape)
    whole = np.full(ink.shape, rng.uniform(0, 0.8), np.float32)
    for _ in range(int(rng.integers(2, 9))):
        mask = np.zeros(ink.shape, np.uint8)
        at = (rng.normal(0.5, 0.2, 2) * (width, height)).astype(int).tolist()
        if rng.random() < 0.6:
            axes = np.maximum(1, rng.uniform(0.05, 0.45, 2) * least).astype(int).tolist()
            cv2.ellipse(mask, at, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
        else:
            corners = at + rng.normal(0, 0.25, (int(rng.integers(3, 7)), 2)) * least
            cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 255, cv2.LINE_AA)
        level = rng.uniform(0, 1)
        shade = np.clip(level + rng.uniform(0, 0.25) * noise(ink.shape, rng, max(2.0, 0.3 * least)), 0, 1)
        part = mask.astype(np.float32) / 255
        whole = whole * (1 - part) + shade * part
    if rng.random() < 0.6:
        whole = np.asarray(cv2.GaussianBlur(whole, (0, 0), rng.uniform(0.4, 0.04 * least + 0.5)))
    np.maximum(ink, whole, out=ink)


def texture(ink: Ink, rng: np.random.Generator) -> None:
    """Fill a page with smooth noise of many greys."""
    least = min(ink.shape)
    field = noise(ink.shape, rng, max(2.0, least * rng.uniform(0.05, 0.4)))
    field += 0.4 * noise(ink.shape, rng, max(1.5, least * rng.uniform(0.02, 0.1)))
    level = 1 / (1 + np.exp(-np.clip(field * rng.uniform(0.8, 6), -30, 30)))
    np.maximum(ink, level.astype(np.float32) * np.float32(rng.uniform(0.3, 1)), out=ink)


def weave(shape: tuple[int, int], rng: np.random.Generator) -> Ink:
    """Make the waves of a security print: float32[h, w], 0 or how much light they take."""
    height, width = shape
    x = np.arange(width, dtype=np.float32) / min(shape)
    y = np.arange(height, dtype=np.float32)[:, None] / min(shape)
    wave = np.zeros(shape, np.float32)
    for _ in range(2):
        fx, fy, bow = rng.normal(0, 14, 3).astype(np.float32)
        wave += np.sin(fx * x + fy * y + 0.3 * bow * np.sin(5 * y) + rng.uniform(0, 6))
    return np.float32(rng.uniform(0.03, 0.22)) * (wave > rng.uniform(-0.5, 1)).astype(np.float32)


def crease(shape: tuple[int, int], rng: np.random.Generator) -> Ink:
    """Fold paper: float32[h, w], how much lighter on one side of the fold, darker on the other."""
    height, width = shape
    y = rng.uniform(0, 1) * height
    rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    along = rows - y - rng.normal(0, 0.1) * columns
    deep = rng.uniform(0.03, 0.15)
    fold = np.exp(-((along / max(1.0, 0.01 * min(shape))) ** 2))
    return np.asarray(deep * fold * np.sign(along + 0.5), np.float32)


def noise(shape: tuple[int, int], rng: np.random.Generator, scale: float) -> Ink:
    """Make smooth noise, about standard normal, whose grains are `scale` pixels: float32[h, w]."""
    height, width = shape
    small = rng.standard_normal((int(height / scale) + 3, int(width / scale) + 3), np.float32)
    if scale <= 1:
        return small[:height, :width]
    how = cv2.INTER_CUBIC if scale > 3 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(small, (width, height), interpolation=how))

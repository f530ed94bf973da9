"""Simulate scans: turn normalised digits into pages as scanners, phones and drawing programs give them.

Seeded and vectorised: one call makes the pages of a whole batch, and the same generator state gives the same pages.
The pages then pass through the same normalisation as real ones, before the network sees them.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import SIDE, GreyImage, InkImages

Floats = NDArray[np.float32]
Inks = NDArray[np.float32]  # [N, side, side], 0 no ink to 1 full ink

_MOST = 512  # digits that are written at a time: OpenCV resamples images of fewer than 32,767 rows
_GAP = 2  # empty rows between the digits of one tall image
_KNOTS = 5  # the elastic field is drawn on 5×5 knots and spread smoothly over the page
_PAGE_SIDES = (20, 24, 28)  # pixels; pages of one group are made together
_LIGHT_ON_DARK = 0.35  # share of the scanned pages: chalk, negatives, MNIST itself
_DIGIT_SIDE = 20  # pixels of a normalised digit
_FEWEST_PIXELS = 11  # of a digit that can be read
_MOST_STRETCHED = 3.0  # times as wide as it was: more, and a 1 is a block
_CLEAN_SIDE = 28  # pixels of a clean page: the digit's 20 px box may grow and turn


def vary(digits: InkImages, rng: np.random.Generator, *, clean_share: float = 0.75) -> list[GreyImage]:
    """Write each digit anew on a page of its own.

    Args:
        digits: uint8[N, 28, 28], bright ink on 0; a row without ink becomes a page without a digit.
        rng: The only source of randomness.
        clean_share: Share of the digits, the first ones, that stand on even paper: turned, bent and re-inked, and
            some of them spoilt. A page without a digit is a simulated scan always: of even paper nothing can be learnt.

    Returns:
        N pages in the order of the digits.

    Source: affine and elastic distortion after Simard, Steinkraus, Platt, «Best practices for convolutional
    neural networks applied to visual document analysis», ICDAR 2003.
    """
    if len(digits) > _MOST:
        return vary(digits[:_MOST], rng, clean_share=clean_share) + vary(digits[_MOST:], rng, clean_share=clean_share)
    inked = digits.any((1, 2))
    clean = np.flatnonzero(inked)[: round(clean_share * np.count_nonzero(inked))]
    made = dict(zip(clean.tolist(), _clean(digits[clean], rng), strict=True)) if len(clean) else {}
    scanned = np.setdiff1d(np.arange(len(digits)), clean)
    for side, rows in zip(_PAGE_SIDES, np.array_split(scanned, len(_PAGE_SIDES)), strict=True):
        if len(rows):
            made |= zip(rows.tolist(), _scanned(digits[rows], side, rng), strict=True)
    return [made[row] for row in range(len(digits))]


# ---- clean pages -----------------------------------------------------------------------------------------------------


def _clean(digits: InkImages, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn, shear, stretch, bend and re-ink on black paper: uint8[N, 40, 40]."""
    count = len(digits)
    scale = np.exp(rng.normal(0, 0.10, (count, 2))).astype(np.float32)
    at = np.full((count, 2), _CLEAN_SIDE / 2, np.float32)
    ink = _re_ink(_write(digits, _CLEAN_SIDE, scale, at, rng), np.ones((count, 1, 1), np.float32), rng)
    _spoil(ink, rng)
    pages = np.asarray(255 * ink, np.uint8)
    _add_impulses(pages, rng)
    return pages


def _write(digits: InkImages, side: int, scale: Floats, at: Floats, rng: np.random.Generator) -> Inks:
    """Resample digits onto square pages.

    Args:
        digits: uint8[N, 28, 28].
        side: Pixels of the pages.
        scale: float32[N, 2], page pixels a digit pixel, along x and y.
        at: float32[N, 2], where the middle of the 28×28 comes to lie, x and y.
        rng: Randomness of turn, shear and bend.

    Returns:
        float32[N, side, side], 0 to 1.
    """
    count = len(digits)
    turn = np.deg2rad(np.where(rng.random(count) < 0.12, rng.uniform(-28, 28, count), rng.normal(0, 6, count)))
    shear = rng.normal(0, 0.13, count)
    cos, sin = np.cos(turn), np.sin(turn)
    rows = [[cos, shear * cos - sin], [sin, shear * sin + cos]]
    matrix = (np.array(rows).transpose(2, 0, 1) / scale[:, :, None]).astype(np.float32)  # page to digit
    bend = _bend(count, side, rng)
    pixel = np.arange(side, dtype=np.float32) + 0.5
    dx, dy = (pixel - at[:, axis, None] for axis in (0, 1))  # [N, side]
    tall_at = 1 + np.arange(count, dtype=np.float32) * (SIDE + _GAP)
    # Coordinates in the tall image of all digits; clipping to the gap keeps a digit from seeing the next one.
    x = matrix[:, 0, 0, None, None] * dx[:, None] + matrix[:, 0, 1, None, None] * dy[:, :, None] + bend[..., 0]
    y = matrix[:, 1, 0, None, None] * dx[:, None] + matrix[:, 1, 1, None, None] * dy[:, :, None] + bend[..., 1]
    x = np.clip(x + (SIDE - 1) / 2, -1, SIDE)
    y = np.clip(y + (SIDE - 1) / 2, -1, SIDE) + tall_at[:, None, None]
    tall = np.pad(digits, ((0, 0), (1, 1), (0, 0))).reshape(-1, SIDE)
    page = cv2.remap(tall, x.reshape(-1, side), y.reshape(-1, side), cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(page, np.float32).reshape(count, side, side) / np.float32(255)


def _bend(count: int, side: int, rng: np.random.Generator) -> Floats:
    """Smooth displacements in digit pixels: float32[N, side, side, 2]."""
    amplitude = rng.uniform(0, 1.0, (count, 1, 1, 1))
    knots = (rng.normal(0, 1, (count, _KNOTS, _KNOTS, 2)) * amplitude).astype(np.float32)
    field = np.empty((count, side, side, 2), np.float32)
    for one, spread in zip(knots, field, strict=True):
        cv2.resize(one, (side, side), dst=spread, interpolation=cv2.INTER_CUBIC)
    return field


def _re_ink(ink: Inks, scale: Floats, rng: np.random.Generator) -> Inks:
    """Make strokes thinner or bolder, softer or harder, by another step from paper to ink.

    Args:
        ink: float32[N, side, side].
        scale: float32[N, 1, 1], by how much the digit was enlarged: the larger, the harder its edges can be.
        rng: Randomness.
    """
    threshold = rng.uniform(0, 0.4, scale.shape).astype(np.float32)
    gain = rng.uniform(1, 1.2 + 1.4 * np.maximum(scale, 1)).astype(np.float32)
    return np.asarray(np.clip((ink - threshold) * gain, 0, 1), np.float32)


# ---- spoilt ink ------------------------------------------------------------------------------------------------------


def _spoil(ink: Inks, rng: np.random.Generator) -> None:
    """Spoil some digits in one of the ways in which drawing programs, filters, pens and people spoil them."""
    written = ink.any((1, 2))
    chance = rng.random(len(ink))
    low = 0.0
    for share, spoil in _SPOILT:
        for row in np.flatnonzero(written & (low <= chance) & (chance < low + share)):
            ink[row] = spoil(ink[row], rng)
        low += share


def _outline(ink: Floats, rng: np.random.Generator) -> Floats:
    """Show only the edge of each stroke, as edge filters and outline fonts do."""
    stroke = (ink > rng.uniform(0.15, 0.7)).astype(np.uint8)
    inner = cv2.erode(stroke, cv2.getStructuringElement(int(rng.integers(2)), (3, 3)))  # a square or a cross
    return np.asarray(stroke - inner, np.float32)


def _strike(ink: Floats, rng: np.random.Generator) -> Floats:
    """Draw a line across the digit: straight or a zigzag, whole or dotted."""
    side = len(ink)
    unit = side / SIDE
    x = np.arange(rng.uniform(0, 0.3) * side, rng.uniform(0.7, 1) * side, rng.uniform(2, 5) * unit)
    swing = np.resize([-1.0, 1.0], len(x)) * rng.choice([0.0, rng.uniform(0.5, 3)], p=[0.3, 0.7]) * unit
    climb = np.linspace(-0.5, 0.5, len(x)) * rng.uniform(-1, 1) * side * rng.choice([0.25, 0.8])
    y = rng.uniform(0.1, 0.9) * side + climb + swing
    drawn = np.zeros((side, side), np.uint8)
    places = np.rint(16 * np.stack([x, y], axis=1)).astype(np.int32)  # in sixteenths of a pixel
    cv2.polylines(drawn, [places], False, 255, int(rng.choice([1, 1, 2])), cv2.LINE_AA, 4)
    if rng.random() < 0.4:
        drawn[:, np.arange(side) % 4 < rng.integers(1, 3)] = 0
    return np.asarray(np.maximum(ink, drawn * np.float32(rng.uniform(0.5, 1) / 255)))


def _spatter(ink: Floats, rng: np.random.Generator) -> Floats:
    """Let drops of something greyish cover parts of the ink and of the paper."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, ink.shape).astype(np.float32), (0, 0), rng.uniform(0.8, 2))
    drops = np.asarray(noise > np.quantile(noise, rng.uniform(0.65, 0.95)), np.float32)
    return np.asarray(ink * (1 - drops) + rng.uniform(0, 0.3) * drops, np.float32)


def _skip(ink: Floats, rng: np.random.Generator) -> Floats:
    """Let the pen, or a sensor that counts few photons, leave gaps and stains in the strokes."""
    photons = rng.uniform(2, 10)
    return np.minimum(rng.poisson(ink * photons) / photons, 1).astype(np.float32)


def _unfocus(ink: Floats, rng: np.random.Generator) -> Floats:
    """Blur evenly, or along a way as a moved camera does."""
    unit = len(ink) / SIDE
    if rng.random() < 0.6:
        return np.asarray(cv2.GaussianBlur(ink, (0, 0), rng.uniform(0.6, 1.7) * unit), np.float32)
    size = int(rng.integers(3, 10))
    kernel = np.zeros((size, size), np.float32)
    cv2.line(kernel, (0, int(rng.integers(size))), (size - 1, int(rng.integers(size))), 1.0)
    moved = np.asarray(cv2.filter2D(ink, -1, kernel / kernel.sum()), np.float32)
    return moved / np.float32(max(float(moved.max()), 0.2))


def _invert_bars(ink: Floats, rng: np.random.Generator) -> Floats:
    """Turn ink and paper at one or two sides, as where half a cell is printed dark."""
    side = len(ink)
    turned = ink if rng.random() < 0.6 else ink.T
    low, high = (rng.uniform(0.1, 0.32, 2) * side).astype(int).tolist()
    if rng.random() < 0.7:
        turned[:, :low] = 1 - turned[:, :low]
    if rng.random() < 0.7:
        turned[:, side - high :] = 1 - turned[:, side - high :]
    return ink


_SPOILT = ((0.05, _outline), (0.09, _strike), (0.03, _spatter), (0.04, _skip), (0.05, _unfocus), (0.03, _invert_bars))
"""Share of the clean digits that are spoilt, and how."""


def _add_impulses(pages: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Set pixels of some pages to black or white."""
    share = _some(0.04, rng.uniform(0.01, 0.2, len(pages)), rng)
    for row in np.flatnonzero(share):
        hit = rng.random(pages[row].shape) < share[row]
        pages[row][hit] = rng.choice(np.array([0, 255], np.uint8), int(hit.sum()))


# ---- scanned pages ---------------------------------------------------------------------------------------------------


def _scanned(digits: InkImages, side: int, rng: np.random.Generator) -> list[GreyImage]:
    """Write digits on simulated paper, and photograph or scan it."""
    scale, at = _placement(digits, side, rng)
    ink = _re_ink(_write(digits, side, scale, at, rng), scale.mean(1)[:, None, None], rng)
    inked = np.asarray(ink.any((1, 2)), np.bool_)
    one_bit = rng.random(len(digits)) < 0.12
    strength = np.where(one_bit, 1, _some(0.6, rng.uniform(0.3, 1, len(digits)), rng, otherwise=1.0))
    ink *= strength[:, None, None]
    _add_neighbours(ink, digits, side, scale, at, rng)
    _add_lines(ink, np.flatnonzero(inked), rng)
    _rule(ink, np.where(inked, 0.05, 0.2), rng)
    _add_specks(ink, rng)
    paper = _paper(len(digits), side, rng)
    empty = np.flatnonzero(~inked)
    paper[empty] *= _paper(len(empty), side, rng)  # of even paper nothing can be learnt
    paper[one_bit] = 1  # who thresholds a page has seen to its light
    light = paper * (1 - ink)
    turned = rng.random(len(digits)) < _LIGHT_ON_DARK
    light = np.where(turned[:, None, None], 1 - light, light)
    noise = _some(0.5, rng.uniform(0, 0.035, len(digits)), rng) + _some(0.06, rng.uniform(0, 0.1, len(digits)), rng)
    noise = np.where(inked, noise * strength, _some(0.6, rng.uniform(0, 0.1, len(digits)), rng))
    light += rng.normal(0, 1, light.shape).astype(np.float32) * noise[:, None, None].astype(np.float32)
    pages = np.asarray(np.clip(255 * light, 0, 255), np.uint8)
    fewest = side * _FEWEST_PIXELS / (_DIGIT_SIDE * scale.max(1))
    return [_captured(*page, rng) for page in zip(pages, inked, one_bit, fewest, strict=True)]


def _some(share: float, values: NDArray[np.float64], rng: np.random.Generator, otherwise: float = 0.0) -> Floats:
    """Keep a random share of the values and set the others: float32 of the same shape."""
    return np.where(rng.random(values.shape) < share, values, otherwise).astype(np.float32)


def _placement(digits: InkImages, side: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Choose how large each digit is and where it lies: float32[N, 2] twice, as `_write` takes them."""
    count = len(digits)
    inked = digits > 0
    box = np.stack([_span(inked.max(1)), _span(inked.max(2))], axis=1)  # [N, 2], first and size, of x and y
    size = np.maximum(box[:, :, 1], 1)
    longer = np.where(rng.random(count) < 0.35, rng.uniform(0.92, 1.0, count), rng.uniform(0.4, 0.9, count)) * side
    longer = np.maximum(longer, 14)
    even = np.repeat(longer[:, None] / size.max(1, keepdims=True), 2, axis=1)
    filled = 0.97 * side / size
    # Some digits are stretched to the frame, wholly or on the way to it.
    stretch = np.where(rng.random(count) < 0.15, 1.0, _some(0.3, rng.uniform(0, 0.7, count), rng))[:, None]
    scale = even ** (1 - stretch) * filled**stretch * np.exp(rng.normal(0, 0.07, (count, 2)))
    scale = np.minimum(scale, np.minimum(filled * 1.03, _MOST_STRETCHED * even))
    free = np.maximum(side - scale * size, 0)
    corner = rng.uniform(0, 1, (count, 2)) * free
    at = corner + scale * (SIDE / 2 - box[:, :, 0])
    return scale.astype(np.float32), at.astype(np.float32)


def _span(lines: NDArray[np.bool_]) -> NDArray[np.intp]:
    """First index and length of what is set in each row: intp[N, 2]."""
    first = lines.argmax(1)
    return np.stack([first, lines.shape[1] - lines[:, ::-1].argmax(1) - first], axis=1)


def _add_neighbours(
    ink: Inks, digits: InkImages, side: int, scale: Floats, at: Floats, rng: np.random.Generator
) -> None:
    """Let the end of another digit's stroke reach into some pages, at an edge."""
    rows = np.flatnonzero(rng.random(len(digits)) < 0.2)
    if not len(rows):
        return
    others = rng.permutation(len(digits))[: len(rows)]
    axis = (rng.random(len(rows)) < 0.25).astype(int)  # mostly beside, sometimes above or below
    sign = rng.choice([-1.0, 1.0], len(rows))
    middle = at[rows].copy()
    edge = np.where(sign > 0, side, 0)
    reach = rng.uniform(-2, 7, len(rows))  # of 10, half the box: how much of it the page shows
    middle[np.arange(len(rows)), axis] = edge + sign * (10 - reach) * scale[rows, axis]
    fragment = _write(digits[others], side, scale[rows], middle.astype(np.float32), rng)
    ink[rows] = np.maximum(ink[rows], fragment * ink[rows].max((1, 2), keepdims=True))


def _add_lines(ink: Inks, inked: NDArray[np.intp], rng: np.random.Generator) -> None:
    """Rule some of the pages with a digit, and leave parts of a printed cell's border on others.

    An empty page with one line on it looks like a 1.
    """
    count, side = len(inked), ink.shape[1]
    pixel = np.arange(side, dtype=np.float32) + 0.5
    for axis in (0, 1):
        for near_edge in (0.0, 1.0, None):
            share = 0.07 if near_edge is None else 0.12
            strength = _some(share, np.asarray(rng.uniform(0.1, 0.8, count)), rng)
            ruled = np.flatnonzero(strength)
            rows = inked[ruled]
            inset = rng.uniform(-0.02, 0.07, len(rows)) * side
            where = rng.uniform(0, side, len(rows)) if near_edge is None else np.abs(near_edge * side - inset)
            thick = rng.uniform(0.5, 0.5 + side / 24, len(rows))
            tilt = rng.normal(0, 0.012, (len(rows), 1)) * (pixel - side / 2)  # [R, side], along the line
            distance = np.abs(pixel - where[:, None, None] - tilt[:, :, None])  # [R, along, across]
            line = np.clip(thick[:, None, None] / 2 + 0.5 - distance, 0, 1) * strength[ruled, None, None]
            line = line if axis else line.transpose(0, 2, 1)
            ink[rows] = np.maximum(ink[rows], line.astype(np.float32))


def _rule(ink: Inks, share: NDArray[np.float64], rng: np.random.Generator) -> None:
    """Print faint lines at even distances on some pages, and across them on some of these: ruled, squared paper."""
    side = ink.shape[1]
    for row in np.flatnonzero(rng.random(len(ink)) < share):
        pitch, thick, strength = rng.uniform(5, 0.8 * side), rng.uniform(0.5, 1.5), rng.uniform(0.08, 0.6)
        for paper in (ink[row], ink[row].T)[: rng.integers(1, 3)]:
            from_line = np.abs((np.arange(side) + rng.uniform(0, pitch)) % pitch - pitch / 2)
            line = strength * np.clip(thick / 2 + 0.5 - from_line, 0, 1)
            np.maximum(paper, line[:, None].astype(np.float32), out=paper)


def _add_specks(ink: Inks, rng: np.random.Generator) -> None:
    """Sprinkle dust on some pages."""
    count, side, _ = ink.shape
    rows = np.flatnonzero(rng.random(count) < 0.12)
    specks = rng.integers(0, side, (len(rows), 4, 2))
    for row, places in zip(rows, specks, strict=True):
        ink[row, places[:, 0], places[:, 1]] = rng.uniform(0.3, 1)


def _paper(count: int, side: int, rng: np.random.Generator) -> Inks:
    """Make empty paper: colour, texture, security pattern, shadow: float32[N, side, side], 0 dark to 1 white."""
    ones = np.ones((count, 1, 1), np.float32)
    paper = ones * _some(0.65, rng.uniform(0.4, 1, count), rng, otherwise=1.0)[:, None, None]
    across = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    # Security pattern: two waves over one another.
    depth = _some(0.12, rng.uniform(0.03, 0.18, count), rng)[:, None, None]
    if depth.any():
        wave = np.zeros((count, side, side), np.float32)
        for _ in range(2):
            fx, fy = rng.normal(0, 35, (2, count, 1, 1)).astype(np.float32)
            wave += np.sin(fx * across + fy * across[:, None] + rng.uniform(0, 6, (count, 1, 1)).astype(np.float32))
        paper = paper * (1 - depth * (wave > 0.5))
    # Shadow: from a soft slope to a sharp edge, in any direction.
    dark = _some(0.4, rng.uniform(0.1, 0.65, count), rng)[:, None, None]
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1)).astype(np.float32)
    along = np.cos(angle) * across + np.sin(angle) * across[:, None]
    width = rng.choice(np.array([0.02, 0.1, 0.3, 1.0], np.float32), (count, 1, 1))
    offset = rng.uniform(-0.4, 0.4, (count, 1, 1)).astype(np.float32)
    paper = paper * (1 - dark / (1 + np.exp(np.clip((along - offset) / width, -30, 30))))
    # Texture: coarse fibres.
    rough = _some(0.35, rng.uniform(0.01, 0.06, count), rng)
    for row in np.flatnonzero(rough):
        grain = rng.normal(0, rough[row], (side // 3, side // 3)).astype(np.float32)
        paper[row] += cv2.resize(grain, (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(paper, np.float32)


def _captured(page: GreyImage, inked: bool, one_bit: bool, fewest: float, rng: np.random.Generator) -> GreyImage:
    """Cut, blur, shrink to `fewest` pixels at least, compress or threshold one page, or leave it as it is."""
    chance = rng.random(3)
    if not inked:
        page = page[: int(len(page) * rng.uniform(0.3, 1)), : int(len(page) * rng.uniform(0.3, 1))]
    side = max(page.shape)
    if chance[0] < 0.25:  # out of focus
        page = np.asarray(cv2.GaussianBlur(page, (0, 0), rng.uniform(0.3, 0.2 + side / 32)), np.uint8)
    if chance[1] < 0.2 and inked:  # few pixels
        small = max(int(rng.integers(13, 22)), int(fewest))
        if small < side:
            page = np.asarray(cv2.resize(page, (small, small), interpolation=cv2.INTER_AREA), np.uint8)
    if chance[2] < 0.15:  # strong compression
        _, data = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(12, 70))])
        page = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)
    if one_bit:
        level, _ = cv2.threshold(page, 0, 255, cv2.THRESH_OTSU)
        page = np.where(page > level + rng.normal(0, 8), np.uint8(255), np.uint8(0))
    return page

"""Print what is on a page before anybody writes: cells, combs, tables, ruled and squared paper.

Each kind of page has a field that its digit belongs in; lines beside and beneath it are what a finder has to leave out.
"""

import numpy as np

from batchdigits.training.datasets.simulator import paper
from batchdigits.training.datasets.simulator.strokes import Ink

Field = tuple[float, float, float, float]  # left, top, right, bottom: pixels


def lay_out(ink: Ink, scene: str, rng: np.random.Generator) -> Field:
    """Print the lines of a kind of page.

    Args:
        ink: float32[h, w], drawn into.
        scene: One of `pages.SCENES`.
        rng: Randomness.

    Returns:
        The field to be written in.
    """
    height, width = ink.shape
    least = min(ink.shape)
    strength = float(rng.uniform(0.25, 1.0))
    thick = float(np.exp(rng.uniform(np.log(0.4), np.log(max(0.6, 0.035 * least)))))
    if scene == "cell":
        return _cell(ink, thick, strength, rng)
    if scene == "exam":
        _edges(ink, strength, rng)
    elif scene in ("ruled", "photo") and (scene == "ruled" or rng.random() < 0.25):
        _ruled(ink, rng)
    elif scene in ("old", "plain") and rng.random() < 0.25:
        _table(ink, thick, strength, rng)
    return (0.0, 0.0, float(width), float(height))


def _edges(ink: Ink, strength: float, rng: np.random.Generator) -> None:
    """Leave pieces of a cell's lines at the edges, as whoever cut it out did."""
    height, width = ink.shape
    least = min(ink.shape)
    for side in range(4):  # left, right, top, bottom
        if rng.random() < 0.5:
            at = rng.normal(0, 0.03) * least + (rng.uniform(0, 0.13) * least if rng.random() < 0.35 else 0)
            tilt = rng.normal(0, 0.02) * least
            x, y = (at, at) if side in (0, 2) else (width - at, height - at)
            start, end = ((x, -2), (x + tilt, height + 2)) if side < 2 else ((-2, y), (width + 2, y + tilt))
            paper.line(ink, start, end, rng.uniform(0.6, max(0.8, 0.04 * least)), strength)


def _ruled(ink: Ink, rng: np.random.Generator) -> None:
    """Rule or square the paper, or cover it with dots."""
    height, width = ink.shape
    least = min(ink.shape)
    pitch = float(np.exp(rng.uniform(np.log(max(5.0, least / 22)), np.log(0.7 * least))))
    faint = float(rng.uniform(0.04, 0.6))
    tilt = rng.normal(0, 0.02)
    kind = rng.random()
    offset = (rng.uniform(0, pitch), rng.uniform(0, pitch))
    thin = float(rng.uniform(0.4, max(0.7, 0.004 * least + 0.05 * min(pitch, 20))))
    if kind < 0.4:
        across = (0.0, pitch) if rng.random() < 0.7 else (pitch, 0.0)
        paper.grid(ink, across, offset, thin, faint, tilt)
    elif kind < 0.85:
        paper.grid(ink, (pitch, pitch * rng.choice([1.0, rng.uniform(0.6, 1.6)])), offset, thin, faint, tilt)
        if rng.random() < 0.2:
            paper.grid(ink, (pitch / 5, pitch / 5), offset, thin / 2, faint / 2, tilt)
    else:
        paper.dots(ink, max(pitch, least / 25), max(1.0, thin), faint)
    if rng.random() < 0.15:  # a margin
        x = rng.uniform(0.05, 0.95) * width
        paper.line(ink, (x, -2), (x + tilt * height, height + 2), thin, min(1.0, 1.5 * faint))


def _cell(ink: Ink, thick: float, strength: float, rng: np.random.Generator) -> Field:
    """Frame a cell, near or inside the page's edge: a box, a comb, or one of a table."""
    height, width = ink.shape
    least = min(ink.shape)
    insets = [rng.uniform(-0.01, 0.03), rng.uniform(0.02, 0.10), rng.uniform(0.08, 0.3)]
    inset = float(rng.choice(insets, p=[0.5, 0.3, 0.2]))
    left, top = ((inset + rng.normal(0, 0.01, 2)) * least).tolist()
    right, bottom = (side - (inset + rng.normal(0, 0.01)) * least for side in (width, height))
    kind = rng.random()
    if kind < 0.7:
        paper.frame(ink, (left, top, right, bottom), thick, strength, rng)
        if rng.random() < 0.08:  # a double one
            d = thick + rng.uniform(1, 0.04 * least + 1)
            paper.frame(ink, (left + d, top + d, right - d, bottom - d), thick / 2, strength, rng)
    elif kind < 0.85:  # comb: a low rail with teeth
        teeth = rng.uniform(0.15, 0.5)
        paper.line(ink, (left - 5, bottom), (right + 5, bottom), thick, strength)
        for x in (left, right):
            paper.line(ink, (x, bottom), (x, bottom - teeth * (bottom - top)), thick, strength)
    else:  # table: neighbours' cells too
        _table(ink, thick, strength, rng)
    if rng.random() < 0.12:  # its name
        tile = paper.text(rng, rng.uniform(0.06, 0.16) * (bottom - top))
        paper.put(ink, tile * np.float32(strength), int(left + thick + rng.uniform(0, 0.1) * width), int(top + thick))
    if rng.random() < 0.12 and inset > 0.05:  # dark beyond the frame, or the next cells' paper
        level = np.float32(rng.uniform(0.1, 0.9))
        mask = np.ones(ink.shape, np.float32)
        mask[max(0, int(top)) : int(bottom), max(0, int(left)) : int(right)] = 0
        np.maximum(ink, mask * level, out=ink)
    pad = thick / 2 + 1
    return (max(0.0, left + pad), max(0.0, top + pad), min(float(width), right - pad), min(float(height), bottom - pad))


def _table(ink: Ink, thick: float, strength: float, rng: np.random.Generator) -> None:
    """Rule lines so far apart that about one cell is seen."""
    height, width = ink.shape
    across, down = (rng.uniform(0.55, 1.3, 2) * (width, height)).tolist()
    x, y = rng.uniform(-0.15, 0.15, 2).tolist()
    paper.grid(ink, (across, down), (x * across, y * down), thick, strength, rng.normal(0, 0.01))

"""Strips of pages in; the same without bars and printed borders at their edges, out: a step of the normalisation."""

import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.strips import Rows, Strip, repeat_edges
from batchdigits.settings import NormalisationSettings

_LEAST_SIDE = 24  # pixels of a page; on fewer, a stroke that fills its frame looks like a border
_SIDES = 2
_ALONG = 0.75  # share of a bar's edge along which it differs from what is beside it
_LEAST_INK = 0.02  # share of the page between two bars that is ink, at least


def turn_bars(strip: Strip, extents: Rows, settings: NormalisationSettings) -> Strip:
    """Give the bars at two opposite sides of a page, wider than borders, the colour of the paper between them.

    A bar differs from what is beside it all along a straight edge. It is turned to a negative and not covered: a
    digit that reaches into it may be inverted there.

    Args:
        strip: uint8[side, N, side], pages at the top left of their canvases.
        extents: intp[N, 2], the height and width that each page takes.
        settings: How much a bar differs from the paper.

    Returns:
        The strip itself where no page has bars, else a copy.
    """
    maybe = _has_bars(strip, extents, settings) | _has_bars(strip.transpose(2, 1, 0), extents[:, ::-1], settings)
    if maybe.any():
        strip = strip.copy()
    for page in np.flatnonzero(maybe).tolist():
        height, width = extents[page].tolist()
        shown = strip[:height, page, :width]
        for lying in (shown, shown.T):
            _turn(lying, settings)
        repeat_edges(strip, page, height, width)
    return strip


def _has_bars(strip: Strip, extents: Rows, settings: NormalisationSettings) -> NDArray[np.bool_]:
    """Tell by the first and the last row which pages may have bars at the left and right: bool[N]."""
    every = np.arange(strip.shape[1])
    ends = strip[0].astype(np.int16), strip[extents[:, 0] - 1, every].astype(np.int16)  # [N, side]
    step_first, step_last = (np.diff(end) for end in ends)
    steps = np.minimum(np.abs(step_first), np.abs(step_last)) > settings.border_step
    return np.asarray((np.count_nonzero(steps, axis=1) >= _SIDES) & (extents.min(1) >= _LEAST_SIDE), np.bool_)


def _turn(page: NDArray[np.uint8], settings: NormalisationSettings) -> None:
    """Turn the bars at the left and right of one page [H, W], a view, where it has both."""
    width = page.shape[1]
    step = np.abs(np.diff(page.astype(np.int16), axis=1)) > settings.border_step
    edges = np.flatnonzero(step.mean(0) >= _ALONG) + 1  # the first column after each straight edge
    if len(edges) < _SIDES or not edges[0] < width / 2 < edges[-1]:
        return
    left, middle, right = np.split(page, [edges[0], edges[-1]], axis=1)
    paper, *levels = (int(np.median(part)) for part in (middle, left, right))
    inked = np.mean(np.abs(middle.astype(np.int16) - paper) > settings.border_step)
    if inked < _LEAST_INK or min(abs(level - paper) for level in levels) <= settings.border_step:
        return  # what is between the edges is a stroke, or they are those of a line
    for bar, level in zip((left, right), levels, strict=True):
        bar[:] = np.clip(level + paper - bar.astype(np.int16), 0, 255)


def cover_borders(strip: Strip, extents: Rows, settings: NormalisationSettings) -> Strip:
    """Cover the printed borders of cells and forms with the paper behind them.

    Their level must not pass for the paper's. A border is a line of one level, unlike the paper, along two sides of
    the page or more: of one side alone nothing is covered, for the bar of a 7 may be as long as its page.

    Args:
        strip: uint8[side, N, side], pages at the top left of their canvases.
        extents: intp[N, 2], the height and width that each page takes.
        settings: How thick a border may be, and how much it differs from the paper.

    Returns:
        The strip itself where no page has a border, else a copy.
    """
    side, count, _ = strip.shape
    band = max(1, round(settings.line_thickness * side))
    every, near = np.arange(count)[:, None], np.arange(band + 2)
    bottom, right = (extents[:, axis, None] - 1 - near for axis in (0, 1))  # [N, band + 2]
    lines = np.stack(  # in the order in which rot90 makes them the top: [side, 4, N, band + 2]
        [
            strip[: band + 2].transpose(2, 1, 0),
            strip[:, every, right],
            strip[bottom, every].transpose(2, 0, 1),
            strip[:, :, : band + 2],
        ],
        axis=1,
    )
    level = lines.sum(0, dtype=np.uint32) / np.float32(side)
    one_level = lines.max(0) - lines.min(0) <= settings.border_step
    steps = np.abs(level[:, :, :-2] - level[:, :, 2:]) > 0.7 * settings.border_step  # the next line may be half border
    border = one_level[:, :, :-2] & steps  # [4, N, band]
    maybe = (border.any(2).sum(0) >= _SIDES) & (extents.min(1) >= _LEAST_SIDE)
    if maybe.any():
        strip = strip.copy()
    for page in np.flatnonzero(maybe).tolist():
        height, width = extents[page].tolist()
        shown = strip[:height, page, :width]
        paper = np.partition(shown, shown.size // 2, axis=None)[shown.size // 2]  # most of a page is paper
        unlike = np.abs(level[:, page, :-2] - paper) > settings.border_step
        behind = np.where(border[:, page] & unlike, near[2:], 0).max(1)  # two rows on from the last of a border
        if np.count_nonzero(behind) >= _SIDES:
            for turn, row in enumerate(behind.tolist()):
                top = np.rot90(shown, turn)  # a view, so what is covered stays so
                top[:row] = top[row]
            repeat_edges(strip, page, height, width)
    return strip

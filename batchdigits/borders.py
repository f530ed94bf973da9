"""Strips of pages in; the same without the printed borders of cells and forms, out: a step of the normalisation."""

import numpy as np
from numpy.typing import NDArray

from batchdigits.settings import NormalisationSettings

Strip = NDArray[np.uint8]  # [side, N, side]: row, canvas, column
Rows = NDArray[np.intp]

_LEAST_SIDE = 24  # pixels of a page; on fewer, a stroke that fills its frame looks like a border
_SIDES = 2


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
    lines = np.stack(  # in the order in which rot90 makes them the top: [4, N, band + 2, side]
        [
            strip[: band + 2].transpose(1, 0, 2),
            strip[:, every, right].transpose(1, 2, 0),
            strip[bottom, every],
            strip[:, :, : band + 2].transpose(1, 2, 0),
        ]
    )
    level = lines.sum(3, dtype=np.uint32) / np.float32(side)
    one_level = lines.max(3) - lines.min(3) <= settings.border_step
    steps = np.abs(level[:, :, :-2] - level[:, :, 2:]) > 0.7 * settings.border_step  # the next line may be half border
    border = one_level[:, :, :-2] & steps  # [4, N, band]
    maybe = (border.any(2).sum(0) >= _SIDES) & (extents.min(1) >= _LEAST_SIDE)
    if maybe.any():
        strip = strip.copy()
    for page in np.flatnonzero(maybe).tolist():
        height, width = extents[page].tolist()
        shown = strip[:height, page, :width]
        paper = np.sort(shown, axis=None)[shown.size // 2]  # most of a page is paper
        unlike = np.abs(level[:, page, :-2] - paper) > settings.border_step
        behind = [np.flatnonzero(lines)[-1] + 2 if lines.any() else 0 for lines in border[:, page] & unlike]
        if np.count_nonzero(behind) >= _SIDES:
            for turn, row in enumerate(behind):
                top = np.rot90(shown, turn)  # a view, so what is covered stays so
                top[:row] = top[row]
            strip[:height, page, width:] = shown[:, -1:]
            strip[height:, page] = strip[height - 1, page]
    return strip

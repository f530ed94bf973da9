"""Strips of ink in; the same without the printed lines of ruled and squared paper, out: a step of the normalisation."""

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.strips import Rows, Strip
from batchdigits.settings import NormalisationSettings

_LEAST_SIDE = 24  # pixels of a page; on fewer, a stroke that fills its frame looks like a line
_FAINTEST = 16  # of 255: a line with less ink is no line
_ALONG = 0.9  # share of a line along which there is ink
_THICKNESS = 0.08  # of the page: a thicker line is a stroke
_OF_ITS_OWN = 0.35  # the same for each of its rows
_DARKER = 1.3  # times the line: darker ink is a stroke's
_FREE = 0.06  # of the page: what a line reaches beyond all other ink on both sides; a stroke does not


def remove_lines(ink: Strip, extents: Rows, settings: NormalisationSettings) -> None:
    """Take the printed lines that cross a whole page out of its ink, in place.

    A line reaches from edge to edge and, on both sides, beyond everything else on the page: the bar of a 4 or the base
    of a 2 does not. Where a line crossed a stroke, the stroke is joined again.

    Args:
        ink: uint8[side, N, side], 255 for black on white.
        extents: intp[N, 2], the height and width that each page takes.
        settings: From which share of the darkest ink a pixel belongs to a stroke.
    """
    maybe = _may_have_lines(ink, extents) | _may_have_lines(ink.transpose(2, 1, 0), extents[:, ::-1])
    for page in np.flatnonzero(maybe).tolist():
        height, width = extents[page].tolist()
        _clear(ink[:height, page, :width], settings)


def _may_have_lines(ink: Strip, extents: Rows) -> NDArray[np.bool_]:
    """Tell by a few columns, the ends first, which pages have a row that may be inked throughout: bool[N]."""
    maybe = extents.min(1) >= _LEAST_SIDE
    for samples in (2, 8):
        rows = np.flatnonzero(maybe)
        columns = (extents[rows, 1] - 1) * np.arange(samples)[:, None] // (samples - 1)  # [samples, R]
        seen = ink[:, rows, columns]  # [side, samples, R]
        near = np.maximum(seen[:-1], seen[1:]).min(1)  # [side - 1, R]; a line may be tilted by a pixel
        maybe[rows] = (near >= _FAINTEST).any(0)
    return np.asarray(maybe, np.bool_)


def _clear(page: NDArray[np.uint8], settings: NormalisationSettings) -> None:
    """Take the lines out of one page [H, W], a view."""
    level = max(settings.ink_level * int(page.max()), 1)
    lying, standing = _lines(page, level), _lines(page.T, level)
    rest = page > level
    rest[lying], rest[:, standing] = False, False
    bare = not rest.any() and np.count_nonzero(lying) + np.count_nonzero(standing) >= 2
    for turned, beside, lines, crossing in ((page, rest, lying, standing), (page.T, rest.T, standing, lying)):
        inked = np.flatnonzero(np.count_nonzero(beside, axis=0) >= 2)
        free = _FREE * turned.shape[1]
        if bare or (len(inked) and inked[0] >= free and inked[-1] < turned.shape[1] - free):
            for first, end in _runs(lines):
                _take_out(turned, first, end, crossing)


def _lines(page: NDArray[np.uint8], level: float) -> NDArray[np.bool_]:
    """Tell which rows of a page [H, W] are of a printed line: bool[H]."""
    inked = page > level
    near = inked.copy()  # a line may be tilted by a pixel
    near[1:] |= inked[:-1]
    near[:-1] |= inked[1:]
    lines = (near.mean(1) >= _ALONG) & near[:, 0] & near[:, -1] & (inked.mean(1) >= _OF_ITS_OWN)
    for first, end in _runs(lines):
        if end - first > max(2, _THICKNESS * len(page)):
            lines[first:end] = False
    return np.asarray(lines, np.bool_)


def _runs(lines: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Find where lines begin and end: intp[R, 2]."""
    return np.asarray(np.flatnonzero(np.diff(lines, prepend=False, append=False)).reshape(-1, 2))


def _take_out(page: NDArray[np.uint8], first: int, end: int, crossing: NDArray[np.bool_]) -> None:
    """Clear the rows of a line, but for strokes that are darker than it, and for those that go through it."""
    line = page[first:end]
    printed = _DARKER * float(np.median(line.max(0)))
    through = np.zeros_like(page[0])
    if first > 0 and end < len(page):
        # What crosses as another line does not go through, unless it is a stroke on top of it.
        beside = np.where(crossing & (page[[first - 1, end]] <= printed), np.uint8(0), page[[first - 1, end]])
        through = np.asarray(cv2.dilate(beside, np.ones((1, 3), np.uint8)), np.uint8).min(0)
    darker = (line > printed) & ~crossing  # where two lines cross, they may be darker
    line[:] = np.where(darker, line, np.minimum(line, through))

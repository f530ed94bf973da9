"""Find the ink of a digit on a cut-out of a few pixels, which is nearly all digit, by its levels of grey.

Pages of one call share every step: they are placed on a stack of square tiles, and each step works on the whole
stack.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.tiles import (
    Components,
    FoundInk,
    Integers,
    TileStack,
    components,
    edges,
    morph,
    most,
    repeat_per_column,
    stack_tiles,
    total,
)
from batchdigits.records import DEPTH, EDGE, INK, INK_MEASURES, OTHER, GreyImage
from batchdigits.settings import NormalisationSettings

_LEAST_OF_A_SIDE = 0.03  # that shows the paper: a printed line takes all of a side, a 2 that stands on it nearly all


def find_small_ink(
    pages: Sequence[GreyImage], side: int, settings: NormalisationSettings
) -> tuple[FoundInk, NDArray[np.bool_]]:
    """Find the digit's ink on cut-outs, and tell where that is not for rules to find.

    Args:
        pages: N >= 1 grey pages, uint8[H, W], none larger than the tile.
        side: Pixels of the tile.
        settings: The numbers of the steps.

    Returns:
        The ink; and which pages have neither even paper all around nor two levels alone, bool[N].
    """
    tiles, page_sizes = stack_tiles(pages, side)
    level, even = _border(tiles, page_sizes, settings)
    hard = ~even
    hard[hard] = ~_has_two_levels(tiles[:, hard])
    ink = _find_ink_on_even_paper(tiles, level, _is_dark(tiles, level))
    _clear_beyond(ink, page_sizes)
    return _choose(ink, page_sizes, settings), hard


def _is_dark(tiles: TileStack, level: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell dark ink from light ink, where the border's level is the paper's: bool[N]."""
    return np.asarray(level >= total(tiles) / len(tiles) ** 2)


def _clear_beyond(ink: TileStack, page_sizes: Integers) -> None:
    """Take the ink beyond the pages, where tiles repeat their edges, out of uint8[side, N, side], in place."""
    side = len(ink)
    if page_sizes.min() < side:
        at = np.arange(side)
        ink *= (at < page_sizes[:, :1]).T[:, :, None] & (at < page_sizes[:, 1:])  # [side, N, side]


def _border(
    tiles: TileStack, page_sizes: Integers, settings: NormalisationSettings
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Find the median level of each page's border, uint8[N], and tell whether that is even paper, bool[N].

    Each side has to show some paper, and of two opposite ones one little else: where a side shows none, a line or a bar
    stands there.
    """
    border = edges(tiles.transpose(1, 0, 2), page_sizes)  # uint8[N, 4 × side]: top and bottom, left and right
    median = np.sort(border, axis=1)[:, border.shape[1] // 2]
    near = np.abs(border.astype(np.int16) - median[:, None]) <= settings.flat_tolerance
    by_side = near.reshape(len(near), 2, 2, len(tiles)).mean(3)
    shown = (by_side.max(2) > settings.flat_share) & (by_side.min(2) > _LEAST_OF_A_SIDE)
    return median, (near.mean(1) > settings.flat_share) & shown.all(1)


def _has_two_levels(tiles: TileStack) -> NDArray[np.bool_]:
    """Tell which pages are of one bit, so that their paper needs no estimate whatever their border: bool[N]."""
    two = np.ones(tiles.shape[1], np.bool_)
    for some in (tiles[len(tiles) // 2 :: len(tiles)], tiles):  # by one row, then those that remain by all
        rows = np.flatnonzero(two)
        left = some[:, rows]
        lowest, highest = left.min(0).min(1)[:, None], left.max(0).max(1)[:, None]
        two[rows] = ((left == lowest) | (left == highest)).all(0).all(1)
    return two


def _find_ink_on_even_paper(tiles: TileStack, level: NDArray[np.uint8], dark: NDArray[np.bool_]) -> TileStack:
    """Take as ink what is darker than the paper, once ink that is light on dark is turned, as a share of it."""
    side = len(tiles)
    turn = np.where(dark, np.uint8(0), np.uint8(255))
    paper = level ^ turn
    scale = repeat_per_column(np.float32(255) / np.maximum(paper, 1), side)
    turn, paper = repeat_per_column(turn, side), repeat_per_column(paper, side)
    depth = paper - np.minimum(tiles ^ turn, paper)
    return np.asarray((depth * scale).astype(np.uint8))


def _choose(ink: TileStack, page_sizes: Integers, settings: NormalisationSettings) -> FoundInk:
    """Keep the components that make the digit, with their soft edges."""
    side, count, _ = ink.shape
    peak = most(ink).astype(np.float32)
    level = np.maximum(settings.ink_level * peak, 1)
    inked = ink >= repeat_per_column(level.astype(np.uint8), side)
    found = components(inked)
    part, other, edge = _is_part(found, page_sizes, settings)
    mask = inked.astype(np.uint8)
    strays = np.bincount(found.owner[1:][~part[1:]], minlength=count)
    littered = np.flatnonzero(strays)  # most tiles hold nothing but their digit
    mask[:, littered] = np.take(part, found.labels[:, littered])
    kept = ink * morph(mask, 3, cv2.MORPH_DILATE)

    boxes = found.boxes(part)
    area = np.bincount(found.owner[part], found.area[part], minlength=count)
    longest, own = np.zeros(count), np.maximum((boxes[:, 2:] - boxes[:, :2]).max(1), 1)
    np.maximum.at(longest, found.owner, (found.box[:, 2:] - found.box[:, :2]).max(1) * other)
    cut = np.bincount(found.owner[part & edge], minlength=count) > 0
    measures = np.zeros((count, len(INK_MEASURES)), np.float32)
    measures[:, INK], measures[:, EDGE] = area / page_sizes.prod(1), cut
    measures[:, OTHER], measures[:, DEPTH] = longest / own, np.where(area > 0, peak / 255, 0)
    return FoundInk(kept, boxes, measures, np.zeros_like(boxes))


def _is_part(
    found: Components, page_sizes: Integers, settings: NormalisationSettings
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which components make the digit of their tile, which might be another one, and which touch the edge.

    Returns:
        bool[C] three times; the first two are False for component 0.
    """
    part, _ = found.parts(found.area, settings.part_mass, settings.part_distance)
    edge = found.at_edge(page_sizes)
    other = np.asarray(~(part | edge), np.bool_)
    other[0] = False
    return part, other, edge

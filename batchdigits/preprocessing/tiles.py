"""Place small pages side by side as a stack of tiles of one size, and filter all of them in one call.

Each step of the normalisation works on whole stacks, so that the cost of a call of numpy or OpenCV is paid once for
many pages; no tile sees another.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.records import GreyImage, InkMeasures

TileStack = NDArray[np.uint8]  # [side, N, side]: row, tile, column
Boxes = NDArray[np.float32]  # [C, 4]: left, top, right, bottom in tile pixels; right and bottom are exclusive
Integers = NDArray[np.intp]

TILE_SIDES = (16, 28)
"""Pixels: a small page is placed on the smallest tile that holds it; a larger one is on none."""


class Components(NamedTuple):
    """The connected components of a whole stack; component 0 is what belongs to none."""

    labels: NDArray[np.int32]
    """[side, N, side], the component of each pixel."""
    owner: Integers
    """[C], the tile."""
    box: Boxes
    """[C, 4]."""
    area: NDArray[np.float32]
    """[C], pixels."""

    def at_edge(self, page_sizes: Integers) -> NDArray[np.bool_]:
        """Tell which touch the edge of their page, whose height and width `page_sizes`, intp[N, 2], holds: bool[C]."""
        left, top, right, bottom = self.box.T
        height, width = page_sizes[self.owner].T
        return np.asarray((left <= 0) | (top <= 0) | (right >= width) | (bottom >= height), np.bool_)

    def parts(self, mass: NDArray[Any], least_mass: float, distance: float) -> tuple[NDArray[np.bool_], Integers]:
        """Tell which make the digit of their tile: the one of most mass, and others that are large and near enough.

        Args:
            mass: [C].
            least_mass: Of another part, as a share of the main one's.
            distance: Of another part, at most, as a share of the main one's longer side.

        Returns:
            bool[C], False for component 0; and intp[C], the main part of each one's tile.
        """
        order = np.lexsort((mass[1:], self.owner[1:])) + 1
        main = np.zeros(self.labels.shape[1], np.intp)
        main[self.owner[order]] = order  # the last assignment wins: the largest mass
        mine = main[self.owner]
        left, top, right, bottom = self.box.T
        gap_x = np.maximum(left - right[mine], left[mine] - right)
        gap_y = np.maximum(top - bottom[mine], top[mine] - bottom)
        longer = np.maximum(right[mine] - left[mine], bottom[mine] - top[mine])
        part = (np.maximum(gap_x, gap_y) <= distance * longer) & (mass >= least_mass * mass[mine])
        part[0] = False
        return np.asarray(part, np.bool_), mine

    def boxes(self, part: NDArray[np.bool_]) -> Boxes:
        """Give the box around the parts of each tile, float32[N, 4]; zeros where there is none."""
        side, count, _ = self.labels.shape
        boxes = np.tile(np.array([side, side, 0, 0], np.float32), (count, 1))
        np.minimum.at(boxes[:, :2], self.owner[part], self.box[part, :2])
        np.maximum.at(boxes[:, 2:], self.owner[part], self.box[part, 2:])
        boxes[boxes[:, 2] == 0] = 0
        return boxes


class FoundInk(NamedTuple):
    """The ink of N pages, and what is known of it."""

    tiles: TileStack
    """uint8[side, N, side], the digit's ink alone."""
    boxes: Boxes
    """float32[N, 4], the digit's box on its tile: left, top, right, bottom; zeros where no ink was found."""
    measures: InkMeasures
    """float32[N, M], the columns of `INK_MEASURES`."""
    places: Boxes
    """float32[N, 4], the digit's box on its page, as shares of the page's width and height; zeros where there is none,
    and on cut-outs, which are nearly all digit."""


def stack_tiles(pages: Sequence[GreyImage], side: int) -> tuple[TileStack, Integers]:
    """Place pages at the top left of a tile each; the rest repeats the page's last row and column.

    Returns:
        uint8[side, N, side], and intp[N, 2], the height and width that each page takes of its tile.
    """
    shapes = [page.shape for page in pages]
    page_sizes = np.array(shapes, np.intp)
    tiles = np.empty((side, len(pages), side), np.uint8)
    for height, width in set(shapes):
        same = np.flatnonzero((page_sizes == (height, width)).all(1))
        stack = np.concatenate([pages[row] for row in same.tolist()]).reshape(-1, height, width)
        tiles[:height, same, :width] = stack.transpose(1, 0, 2)
        tiles[:height, same, width:] = tiles[:height, same, width - 1 : width]
        tiles[height:, same] = tiles[height - 1, same]
    return tiles, page_sizes


def edges(pages: NDArray[Any], page_sizes: Integers) -> NDArray[Any]:
    """Take the border of each page [N, side, side]: [N, 4 × side] of the same dtype."""
    every = np.arange(len(pages))
    sides = (pages[:, 0], pages[every, page_sizes[:, 0] - 1], pages[:, :, 0], pages[every, :, page_sizes[:, 1] - 1])
    return np.concatenate(sides, axis=1)


def repeat_per_column(values: NDArray[Any], side: int) -> NDArray[Any]:
    """Repeat the value of each tile, [N], over its columns: [N, side] of the same dtype.

    A stack and this are walked through in rows as long as the stack, a stack and `values[:, None]` tile by tile.
    """
    return np.repeat(values, side).reshape(-1, side)


def morph(tiles: TileStack, size: int, operation: int) -> TileStack:
    """Close or dilate every tile with a square of `size` px, in one call over the stack.

    Tiles are parted by bars as wide as the filter reaches, which hold the filter's neutral value, so that no
    tile sees another.
    """
    side, count, _ = tiles.shape
    wide = np.empty((side, count, side + size // 2), np.uint8)
    square = np.ones((size, size), np.uint8)
    for step, neutral in _STEPS[operation]:
        wide[:, :, :side] = tiles
        wide[:, :, side:] = neutral
        tiles = np.asarray(step(wide.reshape(side, -1), square), np.uint8).reshape(wide.shape)[:, :, :side]
    return tiles


_DILATE, _ERODE = (cv2.dilate, 0), (cv2.erode, 255)
_STEPS = {cv2.MORPH_CLOSE: (_DILATE, _ERODE), cv2.MORPH_DILATE: (_DILATE,)}


def components(inked: NDArray[np.bool_]) -> Components:
    """Find what hangs together, corners too, in each tile of bool[side, N, side], in one call over the stack."""
    side, count, _ = inked.shape
    wide = np.zeros((side, count, side + 1), np.uint8)  # an empty column parts the tiles
    wide[:, :, :side] = inked
    # OpenCV's default numbers them alike, but takes up to three times as long to measure them.
    found = cv2.connectedComponentsWithStatsWithAlgorithm(wide.reshape(side, -1), 8, cv2.CV_32S, cv2.CCL_GRANA)
    labels, stats = np.asarray(found[1], np.int32).reshape(wide.shape)[:, :, :side], np.asarray(found[2])
    left, top = stats[:, cv2.CC_STAT_LEFT] % (side + 1), stats[:, cv2.CC_STAT_TOP]
    right, bottom = left + stats[:, cv2.CC_STAT_WIDTH], top + stats[:, cv2.CC_STAT_HEIGHT]
    owner = (stats[:, cv2.CC_STAT_LEFT] // (side + 1)).astype(np.intp)
    box = np.stack([left, top, right, bottom], axis=1).astype(np.float32)
    return Components(labels, owner, box, stats[:, cv2.CC_STAT_AREA].astype(np.float32))


def total(tiles: TileStack | NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Sum each tile, one axis at a time, which numpy does ten times as fast as both at once: uint64[N]."""
    return np.asarray(tiles.sum(0, dtype=np.uint32).sum(1), np.uint64)


def most(tiles: TileStack) -> NDArray[np.uint8]:
    """Find the brightest pixel of each tile: uint8[N]."""
    return np.asarray(tiles.max(0).max(1))

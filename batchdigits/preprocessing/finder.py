"""Find the ink of a digit on its page by a learned network, whatever the paper, the light and what is printed there.

The network looks at a whole page and, where the digit is small in that, closer at the part where it found ink. Where it
is sure of nothing on a large page, it looks at parts of it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing.looks import Look, Square, around, look, whole
from batchdigits.preprocessing.tiles import Boxes, FoundInk, TileStack, components, morph
from batchdigits.records import (
    DEPTH,
    EDGE,
    INK,
    INK_MEASURES,
    KINDS,
    LOOK_CELLS,
    OTHER,
    FullResolution,
    GreyImage,
    InkMeasures,
)

InkMaps = NDArray[np.uint8]  # [N, 64, 64], how sure the network is that a cell holds the digit's ink, 0 to 255
Kinds = NDArray[np.float32]  # [N, 4], logits: no writing, one digit, several digits, something else
InkNetwork = Callable[[NDArray[np.uint8]], tuple[InkMaps, Kinds]]
"""Takes looks, uint8[N, 64, 64, 3]."""

_LEAST_PEAK = 70  # of 255: where no cell is surer, there is no ink
_LEAST_LEVEL, _LEVEL = 36, 0.3  # from which a cell is ink: of 255, and of the page's surest cell
_PART_MASS = 0.05  # of the digit's main part, that another part has at least
_PART_DISTANCE = 0.5  # of its longer side, at most
_MARGIN = 0.3  # of the digit's longer side, around it in a closer look
_ONE_DIGIT = 1  # its column among the kinds
_SURELY_NOTHING = np.array([9, 0, 0, 0], np.float32)  # logits of the kinds
_SURELY_SEVERAL = np.array([0, 0, 9, 0], np.float32)
_LARGE = 600  # pixels of a page's longer side, from which a digit may be too small to be seen on the whole of it
_SURE_PEAK = 200  # of 255: from which the ink that is seen on the whole of a large page is believed
_SURE_PART = 180  # of 255: from which a part is taken for the place of the digit
_OTHER_PARTS = 2  # apart from it and as sure, from which a page shows several digits: another is seen in up to four
_PART = 4  # parts of a large page, across and down, and as many again between them
_FEATURE = 0.2  # of the largest difference within a cell of the page: a part without such a cell is empty
_LONG_ENOUGH = 38  # cells: of a digit that is as long in the first look, no closer one is taken


class _Closest(NamedTuple):
    """The closest look at a page that showed ink, or the first."""

    page: GreyImage
    square: Square
    look: Look


def find_ink(
    pages: Sequence[GreyImage], network: InkNetwork, full_resolution: Sequence[FullResolution | None]
) -> FoundInk:
    """Find the digit's ink on each page.

    Args:
        pages: N >= 1 grey pages, uint8[H, W].
        network: The ink finder.
        full_resolution: Per page, what decodes it undownscaled, where its digit turns out small; None: not available.
    """
    asked = [(page, whole(page)) for page in pages]
    closest = [_Closest(page, square, look(page, square)) for page, square in asked]
    maps, kinds = network(np.stack([one.look.cells for one in closest]))
    even = np.array([one.look.gain == 0 for one in closest])  # nothing is there, whatever the network sees
    maps, kinds = np.where(even[:, None, None], np.uint8(0), maps), np.where(even[:, None], _SURELY_NOTHING, kinds)
    tiles, boxes, other = _digits(maps)
    for row in np.flatnonzero(_may_be_missed(closest, maps, kinds)).tolist():
        squares = _parts(closest[row])
        if not squares:  # each cell is of one level, as where a small picture was enlarged: nothing is smaller
            continue
        nearer = [_Closest(pages[row], square, look(pages[row], square)) for square in squares]
        new_maps, new_kinds = network(np.stack([one.look.cells for one in nearer]))
        sureness = new_maps.max((1, 2)) * _shares(new_kinds)[:, _ONE_DIGIT]
        best = int(sureness.argmax())
        if sureness[best] >= _SURE_PART:
            new_tiles, new_boxes, new_other = _digits(new_maps[best : best + 1])
            tiles[:, row], boxes[row], other[row] = new_tiles[:, 0], new_boxes[0], new_other[0]
            closest[row], kinds[row] = nearer[best], new_kinds[best]
            sure = [square for square, much in zip(squares, sureness, strict=True) if much >= _SURE_PART]
            if sum(not square.meets(squares[best]) for square in sure) >= _OTHER_PARTS:
                kinds[row], other[row] = _SURELY_SEVERAL, 1
    longer = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    rows = np.flatnonzero((longer > 0) & (longer < _LONG_ENOUGH))
    if len(rows):
        nearer = [_come_closer(closest[row], boxes[row], full_resolution[row]) for row in rows.tolist()]
        maps, _ = network(np.stack([one.look.cells for one in nearer]))
        new_tiles, new_boxes, _ = _digits(maps)
        for at in np.flatnonzero(new_boxes[:, 2] > 0).tolist():  # what looked like ink from afar may be none from near
            row = rows[at]
            tiles[:, row], boxes[row], closest[row] = new_tiles[:, at], new_boxes[at], nearer[at]
    return FoundInk(tiles, boxes, _measures(tiles, boxes, other, kinds, closest), _places(boxes, closest))


def _may_be_missed(seen: Sequence[_Closest], maps: InkMaps, kinds: Kinds) -> NDArray[np.bool_]:
    """Tell on which large pages there may be one digit that is too small to be seen on the whole of them: bool[N]."""
    large = np.array([max(one.page.shape) >= _LARGE and one.look.gain > 0 for one in seen])
    one_thing_at_most = np.logaddexp(kinds[:, 0], kinds[:, 1]) > np.logaddexp(kinds[:, 2], kinds[:, 3])
    return np.asarray(large & one_thing_at_most & (maps.max((1, 2)) < _SURE_PEAK), np.bool_)


def _parts(seen: _Closest) -> list[Square]:
    """Give the squares that show a part of a page each, overlapping by half, and are not empty."""
    _, darkest, lightest = np.moveaxis(seen.look.cells.astype(np.int16), 2, 0)
    feature = lightest - darkest
    feature = feature >= _FEATURE * max(int(feature.max()), 1)
    cells, step = LOOK_CELLS // _PART, LOOK_CELLS // (2 * _PART)
    cell = seen.square.side / LOOK_CELLS
    return [
        Square(seen.square.left + round(x * cell), seen.square.top + round(y * cell), round(cells * cell))
        for y in range(0, LOOK_CELLS - cells + 1, step)
        for x in range(0, LOOK_CELLS - cells + 1, step)
        if feature[y : y + cells, x : x + cells].any()
    ]


def _come_closer(seen: _Closest, box: NDArray[np.float32], full_resolution: FullResolution | None) -> _Closest:
    """Look at the part of a page where a digit's box is, with more of its pixels where they are needed."""
    page, (left, top, side), _ = seen
    cell = side / LOOK_CELLS
    square = around((box * cell + (left, top, left, top)).tolist(), _MARGIN)
    if full_resolution and square.side < LOOK_CELLS:
        full = full_resolution()
        times = max(full.shape) / max(page.shape)
        page, square = full, Square(*(round(times * edge) for edge in square))
    return _Closest(page, square, look(page, square))


def _digits(maps: InkMaps) -> tuple[TileStack, Boxes, NDArray[np.float32]]:
    """Keep the parts of each map that make its digit.

    Returns:
        uint8[64, N, 64], their ink; float32[N, 4], its box, zeros where there is none; and float32[N], how long the
        longest thing is that was left out, as a share of the digit.
    """
    peak = maps.max((1, 2))
    level = np.maximum(_LEAST_LEVEL, _LEVEL * peak).astype(np.uint8)
    level[peak < _LEAST_PEAK] = 255
    tiles = np.ascontiguousarray(maps.transpose(1, 0, 2))
    inked = np.where(tiles >= level[:, None], np.uint8(255), np.uint8(0))
    found = components(morph(inked, 3, cv2.MORPH_CLOSE) > 0)
    mass = np.bincount(found.labels.ravel(), tiles.ravel(), len(found.area))
    part, mine = found.parts(mass, _PART_MASS, _PART_DISTANCE)
    kept = tiles * morph(np.take(part.astype(np.uint8), found.labels), 3, cv2.MORPH_DILATE)
    size = np.maximum(*(found.box[:, 2:] - found.box[:, :2]).T)
    other = np.zeros(len(maps), np.float32)
    np.maximum.at(other, found.owner[1:], np.where(part, 0, size / np.maximum(size[mine], 1))[1:].astype(np.float32))
    return kept, found.boxes(part), other


def _measures(
    tiles: TileStack, boxes: Boxes, other: NDArray[np.float32], kinds: Kinds, closest: Sequence[_Closest]
) -> InkMeasures:
    """Measure the ink of each page: the columns of `INK_MEASURES`, float32[N, M]."""
    ink = tiles.transpose(1, 0, 2).astype(np.float32)  # [N, 64, 64]
    mass = ink.sum((1, 2)) / 255
    seen = np.stack([one.look.cells[:, :, 0] for one in closest]).astype(np.float32)
    valid = np.stack([one.look.cells[:, :, 1] <= one.look.cells[:, :, 2] for one in closest])  # cells of the page
    paper = valid & (ink < _LEAST_LEVEL)
    inked = (ink * seen).sum((1, 2)) / np.maximum(255 * mass, 1e-6)
    ground = (paper * seen).sum((1, 2)) / np.maximum(paper.sum((1, 2)), 1)
    cell = np.array([one.square.side / LOOK_CELLS for one in closest])
    area = np.array([one.page.size for one in closest])
    gain = np.array([one.look.gain or 1.0 for one in closest])
    measures = np.zeros((len(closest), len(INK_MEASURES)), np.float32)
    has_ink = boxes[:, 2] > 0
    measures[:, INK] = np.where(has_ink, np.clip(mass * cell**2 / area, 1e-6, 1), 0)
    measures[:, OTHER] = other
    measures[:, DEPTH] = np.where(has_ink, np.minimum(np.abs(inked - ground) / gain / 255, 1), 0)
    corners = np.array([(one.square.left, one.square.top) for one in closest])
    low = boxes[:, :2] * cell[:, None] + corners
    high = boxes[:, 2:] * cell[:, None] + corners
    extent = np.array([one.page.shape[::-1] for one in closest])
    slack = 0.6 * cell[:, None]
    measures[:, EDGE] = has_ink & ((low <= slack) | (high >= extent - slack)).any(1)
    measures[:, -len(KINDS) :] = _shares(kinds)
    return measures


def _places(boxes: Boxes, closest: Sequence[_Closest]) -> Boxes:
    """Say where on its page each box of a look is, as shares of the page's width and height: float32[N, 4]."""
    cell = np.array([one.square.side / LOOK_CELLS for one in closest])[:, None]
    corners = np.array([(one.square.left, one.square.top) for one in closest])
    page_sizes = np.array([one.page.shape[::-1] for one in closest])
    places = np.clip((boxes * cell + np.tile(corners, 2)) / np.tile(page_sizes, 2), 0, 1)
    places[boxes[:, 2] == 0] = 0
    return np.asarray(places, np.float32)


def _shares(kinds: Kinds) -> Kinds:
    """Compute probabilities from logits: float32[N, 4]."""
    powers = np.exp(kinds - kinds.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)

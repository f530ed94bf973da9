"""Bring pages to what the model reads: 28×28 pixels of a digit's ink, and measures of it.

Training and prediction both pass through `normalise`, the pixel contract. A page's result does not depend on its
neighbours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from batchdigits.preprocessing.finder import InkNetwork, find_ink
from batchdigits.preprocessing.framing import frame
from batchdigits.preprocessing.small_pages import find_small_ink
from batchdigits.preprocessing.tiles import TILE_SIDES, Boxes
from batchdigits.records import INK_MEASURES, SIDE, FullResolution, GreyImage, InkImages, InkMeasures
from batchdigits.settings import NormalisationSettings

DEFAULTS = NormalisationSettings()


class Normalised(NamedTuple):
    """What the model reads and what is known of the ink; row i belongs to page i."""

    pixels: InkImages
    ink: InkMeasures
    places: Boxes


def normalise(
    pages: Sequence[GreyImage],
    network: InkNetwork,
    settings: NormalisationSettings = DEFAULTS,
    *,
    full_resolution: Sequence[FullResolution | None] = (),
) -> Normalised:
    """Bring pages of any size, polarity and lighting to the pixel contract.

    Cut-outs of few pixels are nearly all digit, and rules find its ink where their paper is even; on all other pages
    the network finds it.

    Args:
        pages: Grey pages, uint8[H, W], H and W at least 1.
        network: The ink finder.
        settings: The numbers of the steps.
        full_resolution: Per page, what decodes it undownscaled, uint8[H, W]; called only where a closer look needs more
            pixels. None: not available.

    Returns:
        uint8[N, 28, 28], bright ink on 0, the digit's longer side 20 px, its centre of mass in the middle;
        float32[N, M], the columns of `INK_MEASURES`; and float32[N, 4], the digit's box on its page as shares of its
        width and height, zeros where it was not looked for. A page without ink gives zeros.
    """
    pixels = np.zeros((len(pages), SIDE, SIDE), np.uint8)
    ink = np.zeros((len(pages), len(INK_MEASURES)), np.float32)
    places = np.zeros((len(pages), 4), np.float32)
    longer = np.array([max(page.shape) for page in pages], np.intp)
    tile = np.searchsorted(TILE_SIDES, longer)
    hard = tile == len(TILE_SIDES)
    for number, side in enumerate(TILE_SIDES):
        rows = np.flatnonzero(tile == number)
        if not len(rows):
            continue
        some = [pages[row] for row in rows.tolist()]
        found, hard[rows] = find_small_ink(some, side, settings)
        pixels[rows], ink[rows] = frame(found.tiles, found.boxes, settings.digit_side), found.measures
    if hard.any():
        rows = np.flatnonzero(hard)
        better = [full_resolution[row] if full_resolution else None for row in rows.tolist()]
        found = find_ink([pages[row] for row in rows.tolist()], network, better)
        pixels[rows], ink[rows] = frame(found.tiles, found.boxes, settings.digit_side), found.measures
        places[rows] = found.places
    return Normalised(pixels, ink, places)

"""Decode a JPEG by TurboJPEG, at a part of its size where that is enough; one that is not whole is refused.

It stands by itself, for TIFFs and PDFs hold JPEGs as well.
"""

import io
import re
from functools import partial
from typing import Final

import cv2
import numpy as np
import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from batchdigits.decoding import headers
from batchdigits.decoding.grayscale import by_colour, grey_of_pillow, is_flat
from batchdigits.decoding.pages import (
    FIRST_SIDEWAYS,
    MAX_SIDE,
    Page,
    PageError,
    check_size,
    damaged,
    page_of,
    pillow_image,
    silence_pillow,
    unsupported,
)
from batchdigits.records import GreyImage
from batchdigits.settings import DecodingSettings

REDUCED_SIDE: Final = 1000
"""Pixels that the longer side keeps, at least, where a JPEG is decoded at 1/2, 1/4 or 1/8 of its size."""
HALVED_FROM: Final = 600
"""Pixels of the longer side from which a JPEG that is not reduced otherwise is decoded at half its size, for the first
look at it: a half has still more than a cut."""

_ODD_HEADER = re.compile(r"unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters")
_FILLING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", re.ASCII)
_LEAST_FACTOR = 8  # by which a JPEG that is only checked is reduced


def jpeg_page(data: bytes, settings: DecodingSettings) -> Page:
    """Decode a JPEG file."""
    header = headers.jpeg_header(data)
    turned = header.orientation >= FIRST_SIDEWAYS
    check_size(*((header.height, header.width) if turned else (header.width, header.height)), settings)
    if not header.is_usual or header.depth != 8:
        raise PageError(unsupported("JPEG", f"{header.depth} bits a sample, lossless, or in layers"))
    if header.channels not in (1, 3):
        _turbo(data, header, "CMYK")
        image = pillow_image(JpegImageFile, headers.bare_jpeg(data), settings)
        return page_of(grey_of_pillow(image), header.width, header.height, header.orientation)
    longer = max(header.width, header.height)
    if longer < HALVED_FROM:
        return _usual_jpeg(data, header, 1)
    halve = longer <= MAX_SIDE
    factor = 2 if halve else next((factor for factor in (8, 4, 2) if longer >= factor * REDUCED_SIDE), 1)
    page = _usual_jpeg(data, header, factor)
    return page._replace(full_resolution=partial(_whole_jpeg, data, header)) if halve else page


def _whole_jpeg(data: bytes, header: headers.JpegHeader) -> GreyImage:
    """Decode a halved page again, at its full size."""
    return _usual_jpeg(data, header, 1).grey


def _usual_jpeg(data: bytes, header: headers.JpegHeader, factor: int) -> Page:
    """Decode grey or colour of 8 bits, at a part of its size."""
    grey = _turbo(data, header, "GRAY", factor)[..., 0]
    if header.channels == 3 and is_flat(grey):
        grey = by_colour(_turbo(data, header, "RGB", factor), grey)
    return page_of(grey, header.width, header.height, header.orientation)


def _turbo(
    data: bytes, header: headers.JpegHeader, colours: str, factor: int = 1, *, is_bare: bool = False
) -> GreyImage:
    """Decode a JPEG as stored, at a part of its size: uint8[H, W, C].

    Args:
        data: The JPEG.
        header: What it says of itself.
        colours: What simplejpeg calls the kind of pixels.
        factor: By which its sides are reduced.
        is_bare: Whether nothing stands before its pixels but what they need; else that is tried where it is not right.

    Raises:
        PageError: it is not whole. Odd headers are no damage, nor what only fills up to the end.
    """
    rows, columns = -(-header.height // factor), -(-header.width // factor)
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, min_height=rows, min_width=columns, min_factor=factor)
    except ValueError as error:
        if not is_bare:
            return _turbo(headers.bare_jpeg(data), header, colours, factor, is_bare=True)
        if not _is_harmless(str(error), data):
            raise PageError(damaged("JPEG", str(error))) from error
        silence_pillow()
        image = JpegImageFile(io.BytesIO(data)).convert("L" if colours == "GRAY" else colours)
        pixels = cv2.resize(np.asarray(image), (columns, rows), interpolation=cv2.INTER_AREA).reshape(rows, columns, -1)
    return np.asarray(pixels, np.uint8)


def check_whole(data: bytes, settings: DecodingSettings) -> None:
    """Refuse a JPEG inside another file that is not whole, or too large: codecs of such files make pixels of any.

    Raises:
        PageError: it is such a JPEG.
        ValueError: it is none.
    """
    header = headers.jpeg_header(data)
    check_size(header.width, header.height, settings)
    if header.is_usual and header.depth == 8:
        _turbo(data, header, "CMYK" if header.channels == 4 else "GRAY", _LEAST_FACTOR)


def _is_harmless(warning: str, data: bytes) -> bool:
    """Tell whether what libjpeg warns of leaves all pixels of a JPEG as they were."""
    if _ODD_HEADER.search(warning):
        return True
    filling = _FILLING.fullmatch(warning)
    end = data.rfind(b"\xff\xd9")
    return filling is not None and len(set(data[max(0, end - int(filling[1])) : end])) <= 1

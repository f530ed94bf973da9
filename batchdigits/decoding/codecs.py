"""Decode the bytes of a file to its grey pages, or to a `Fault` for each page that cannot be read.

What a file is, its content says and never its ending. PNG goes through libspng or libpng and JPEG through TurboJPEG,
which refuse half a picture instead of handing it out, and write nothing to standard error; TIFF and PDF have modules of
their own, and all others go through the plug-ins of Pillow: those by their class, for `Image.open` would try formats
that are none of ours. Safe to call from several threads.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable
from functools import partial
from typing import Final

import cv2
import imagecodecs
import numpy as np
import simplejpeg
from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.WebPImagePlugin import WebPImageFile

from batchdigits.decoding import bitmaps, headers, pdf
from batchdigits.decoding.grayscale import by_colour, grey_of_channels, grey_of_pillow, in_bytes, is_flat
from batchdigits.decoding.pages import (
    FIRST_SIDEWAYS,
    MAX_SIDE,
    Page,
    PageError,
    check_size,
    damaged,
    guarded,
    page_of,
    unsupported,
)
from batchdigits.decoding.tiff import tiff_pages
from batchdigits.errors import Fault, FaultKind
from batchdigits.records import SIGNATURE, GreyImage
from batchdigits.settings import DecodingSettings

REDUCED_SIDE: Final = 1000
"""Pixels that the longer side keeps, at least, where a JPEG is decoded at 1/2, 1/4 or 1/8 of its size."""
HALVED_FROM: Final = 600
"""Pixels of the longer side from which a JPEG that is not reduced otherwise is decoded at half its size, for the first
look at it: a half has still more than a cut."""

_PNG_USUAL_COLOURS = (0, 2, 6)  # grey, RGB, RGBA, which libspng decodes a little faster than libpng
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_EMPTY = Fault(FaultKind.UNREADABLE, "the file is empty; copy it again")
_ODD_HEADER = re.compile(r"unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters")
_JPEG_2000_END = b"\xff\xd9"
_FILLING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", re.ASCII)
_HEIC_NEEDS = "HEIC files need an extra: pip install batchdigits[formats]; or convert it: heif-convert IN.heic OUT.png"

for _library in ("PIL", "tifffile", "imagecodecs"):  # what they log of a bad file is a Fault here
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)


def decode(data: bytes, settings: DecodingSettings, ending: str = "") -> list[Page | Fault]:
    """Decode a file's bytes to its pages; all trouble with them but `MemoryError` is a fault.

    Args:
        data: The whole file.
        settings: The limit of pixels, checked by the header before anything is decoded.
        ending: The file's ending in lower case with its dot; only asked where the content says nothing.

    Returns:
        One entry a page, in order, at least one. Only TIFF and PDF have several; of an animation it is the first frame.
    """
    if not data:
        return [_EMPTY]
    signature = SIGNATURE.match(data)
    if signature is None:
        return [headers.foreign(data, ending)]
    kind = str(signature.lastgroup)
    if kind == "TIFF":
        return tiff_pages(data, settings)
    if kind == "PDF":
        return pdf.pdf_pages(data, settings)
    return [guarded(kind, _PAGE_READERS[kind], data, settings)]


def _png(data: bytes, settings: DecodingSettings) -> Page:
    check_size(*headers.png_size(data), settings)
    png = headers.png(data)
    is_usual = png.depth == 8 and png.colour in _PNG_USUAL_COLOURS and not png.is_transparent
    try:
        pixels = imagecodecs.spng_decode(png.bare) if is_usual else in_bytes(imagecodecs.png_decode(png.bare))
    except (imagecodecs.SpngError, imagecodecs.PngError, UnicodeDecodeError) as error:  # their words may be gone by now
        raise PageError(damaged("PNG", "its pixels are damaged, or fewer than its header says")) from error
    return page_of(grey_of_channels(pixels), png.width, png.height, png.orientation)


def _jpeg(data: bytes, settings: DecodingSettings) -> Page:
    header = headers.jpeg_header(data)
    turned = header.orientation >= FIRST_SIDEWAYS
    check_size(*((header.height, header.width) if turned else (header.width, header.height)), settings)
    if not header.is_usual or header.depth != 8:
        raise PageError(unsupported("JPEG", f"{header.depth} bits a sample, lossless, or in layers"))
    if header.channels not in (1, 3):
        _turbo(data, header, "CMYK")
        image = _loaded(JpegImageFile, data, settings)
        return page_of(grey_of_pillow(image), header.width, header.height, header.orientation)
    longer = max(header.width, header.height)
    halve = HALVED_FROM <= longer <= MAX_SIDE
    factor = 2 if halve else next((factor for factor in (8, 4, 2) if longer >= factor * REDUCED_SIDE), 1)
    page = _usual_jpeg(data, header, factor)
    return page._replace(finer=partial(_finer_jpeg, data, header)) if halve else page


def _finer_jpeg(data: bytes, header: headers.JpegHeader) -> GreyImage:
    """Decode a halved page again, at its full size."""
    return _usual_jpeg(data, header, 1).grey


def _usual_jpeg(data: bytes, header: headers.JpegHeader, factor: int) -> Page:
    """Decode grey or colour of 8 bits, at a part of its size."""
    grey = _turbo(data, header, "GRAY", factor)[..., 0]
    if header.channels == 3 and is_flat(grey):
        grey = by_colour(_turbo(data, header, "RGB", factor), grey)
    return page_of(grey, header.width, header.height, header.orientation)


def _turbo(data: bytes, header: headers.JpegHeader, colours: str, factor: int = 1) -> GreyImage:
    """Decode a JPEG as stored, at a part of its size: uint8[H, W, C].

    Raises:
        PageError: it is not whole. Odd headers are no damage, nor what only fills up to the end.
    """
    rows, columns = -(-header.height // factor), -(-header.width // factor)
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, min_height=rows, min_width=columns, min_factor=factor)
    except ValueError as error:
        if not _is_harmless(str(error), data):
            raise PageError(damaged("JPEG", str(error))) from error
        _silence_pillow()
        image = JpegImageFile(io.BytesIO(data)).convert("L" if colours == "GRAY" else colours)
        pixels = cv2.resize(np.asarray(image), (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(pixels, np.uint8).reshape(rows, columns, -1)


def _is_harmless(warning: str, data: bytes) -> bool:
    """Tell whether what libjpeg warns of leaves all pixels of a JPEG as they were."""
    if _ODD_HEADER.search(warning):
        return True
    filling = _FILLING.fullmatch(warning)
    end = data.rfind(b"\xff\xd9")
    return filling is not None and len(set(data[max(0, end - int(filling[1])) : end])) <= 1


def _loaded(
    plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, settings: DecodingSettings
) -> ImageFile.ImageFile:
    """Load the first frame of an image with Pillow."""
    _silence_pillow()
    image = plugin(io.BytesIO(data))
    check_size(*image.size, settings)
    image.load()
    return image


def _with_pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, settings: DecodingSettings) -> Page:
    image = _loaded(plugin, data, settings)
    exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
    turn = headers.orientation(exif)
    return page_of(grey_of_pillow(image), *image.size, turn if turn > 1 else headers.orientation(xmp))


def _bmp(data: bytes, settings: DecodingSettings) -> Page:
    page = bitmaps.with_masks(data, settings) or _with_pillow(BmpImageFile, data, settings)
    if page.grey[0, -1] == 0 and bitmaps.is_cut_off(data):
        raise PageError(damaged("BMP", "its end was never written"))
    return page


def _gif(data: bytes, settings: DecodingSettings) -> Page:
    check_size(*headers.gif_size(data), settings)
    return _with_pillow(GifImageFile, data, settings)


def _webp(data: bytes, settings: DecodingSettings) -> Page:
    check_size(*headers.webp_size(data), settings)
    _check_end("WebP", data[: headers.webp_end(data)])
    return _with_pillow(WebPImageFile, data, settings)


def _jpeg_2000(data: bytes, settings: DecodingSettings) -> Page:
    if _JPEG_2000_END not in data:
        raise PageError(damaged("JPEG 2000", "it is cut short"))
    return _with_pillow(Jpeg2KImageFile, data, settings)


def _avif(data: bytes, settings: DecodingSettings) -> Page:
    _check_end("AVIF", data)
    return _with_pillow(AvifImageFile, data, settings)


def _heic(data: bytes, settings: DecodingSettings) -> Page:
    """Decode the first image of a telephone's photo, which libheif turns upright."""
    try:
        from pi_heif import HeifImageFile
    except ImportError as error:
        raise PageError(Fault(FaultKind.UNSUPPORTED, _HEIC_NEEDS)) from error
    _check_end("HEIC", data)
    image = _loaded(HeifImageFile, data, settings)
    return page_of(grey_of_pillow(image), *image.size)


def _check_end(kind: str, packed: bytes) -> None:
    """Refuse a copy that stopped half-way.

    Raises:
        PageError: its last part was never written.
    """
    if bitmaps.packed_ends_in_nothing(packed):
        raise PageError(damaged(kind, "its end was never written"))


def _silence_pillow() -> None:
    """Ignore Pillow's warnings of odd metadata: put the filter first, unless it stands there already.

    Not `warnings.catch_warnings`, which is not safe in threads.
    """
    if not warnings.filters or warnings.filters[0] != _PILLOW_FILTER:
        warnings.filterwarnings("ignore", module=r"PIL\.")


_PAGE_READERS: dict[str, Callable[[bytes, DecodingSettings], Page]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "GIF": _gif,
    "WebP": _webp,
    "BMP": _bmp,
    "JP2": _jpeg_2000,
    "AVIF": _avif,
    "HEIC": _heic,
}

"""Decode the bytes of a file to its grey pages, or to a `Fault` for each page that cannot be read.

What a file is, its content says and never its ending. PNG goes through libspng or libpng, or libdeflate where it is of
the plainest, and JPEG through TurboJPEG: they refuse half a picture instead of handing it out, and write nothing to
standard error. TIFF and PDF have modules of their own, and all others go through the plug-ins of Pillow: those by their
class, for `Image.open` would try formats that are none of ours. Safe to call from several threads.
"""

import io
import logging
import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.WebPImagePlugin import WebPImageFile

from batchdigits.decoding import headers, pdf
from batchdigits.decoding.completeness import ends_in_nothing, has_hole, packed_ends_in_nothing
from batchdigits.decoding.grayscale import grey_of, grey_of_channels, grey_of_pillow, in_bytes
from batchdigits.decoding.jpeg import jpeg_page
from batchdigits.decoding.pages import (
    Page,
    PageError,
    check_size,
    damaged,
    guarded,
    needs_extra,
    page_of,
    pillow_image,
)
from batchdigits.decoding.tiff import tiff_pages
from batchdigits.errors import Fault, FaultKind
from batchdigits.records import SIGNATURE, GreyImage
from batchdigits.settings import DecodingSettings

_PNG_USUAL_COLOURS = (2, 6)  # RGB and RGBA, which libspng decodes a little faster than libpng
_PNG_MOST_GREY = 48 * 48  # pixels up to which that is so of grey
_PNG_PIXEL_BYTES = {(8, 0): 1, (8, 2): 3, (8, 6): 4, (16, 0): 2}  # by depth and colour type; more would be too much
_UNHURRIED = b"\x40"  # from here on, the second byte of what zlib packed: it took more time than it had to
_BMP_HEADER = struct.Struct("<IiiHHI")
_BIT_FIELDS = (3, 6)  # of a BMP's «compression»: masks of red, green, blue, or of alpha as well
_EMPTY = Fault(FaultKind.UNREADABLE, "the file is empty; copy it again")
_HEIC_CONVERTED_BY = "heif-convert IN.heic OUT.png"

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
    width, height, depth, colour = headers.png_header(data)
    check_size(width, height, settings)
    packed = headers.packed_rows(data)
    is_plainest = bool(packed)
    pixels = _differences(packed, width, height, _PNG_PIXEL_BYTES.get((depth, colour), 0)) if packed else None
    del packed  # which is as large as the file
    if pixels is not None:
        if depth == 16:
            pixels = in_bytes(pixels.view(">u2")[..., 0].astype(np.uint16))
        return page_of(grey_of_channels(pixels), width, height)
    is_transparent, turn, bare = (False, 1, data) if is_plainest else headers.png(data)
    is_usual = depth == 8 and not is_transparent
    is_usual &= colour in _PNG_USUAL_COLOURS or (colour == 0 and width * height <= _PNG_MOST_GREY)
    try:
        pixels = imagecodecs.spng_decode(bare) if is_usual else in_bytes(imagecodecs.png_decode(bare))
    except (imagecodecs.SpngError, imagecodecs.PngError, UnicodeDecodeError) as error:  # their words may be gone by now
        raise PageError(damaged("PNG", "its pixels are damaged, or fewer than its header says")) from error
    return page_of(grey_of_channels(pixels), width, height, turn)


def _differences(packed: bytes, width: int, height: int, pixel_bytes: int) -> GreyImage | None:
    """Decode the rows of a PNG where each holds differences of neighbours, as OpenCV writes it: in half the time.

    Args:
        packed: As zlib packed them.
        width: Of a row, in pixels.
        height: How many there are.
        pixel_bytes: Of a pixel; 0 of one that a codec has to decode.

    Returns:
        uint8[H, W], or uint8[H, W, B] where a pixel has several bytes. None of all others, and where something is
        wrong, which a codec has to say.
    """
    if not pixel_bytes or packed[1:2] >= _UNHURRIED:  # others choose a way for each row
        return None
    row = 1 + width * pixel_bytes
    try:
        rows = imagecodecs.deflate_decode(packed, out=height * row)
    except imagecodecs.DeflateError:
        return None
    if rows[::row] != b"\1" * height or len(rows) != height * row:
        return None
    shape = (height, width, pixel_bytes) if pixel_bytes > 1 else (height, width)
    differences = np.ndarray(shape, np.uint8, rows, 1, (row, pixel_bytes, 1)[: len(shape)])
    return np.asarray(imagecodecs.delta_decode(differences, axis=1), np.uint8)


def _with_pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, settings: DecodingSettings) -> Page:
    image = pillow_image(plugin, data, settings)
    exif, xmp = image.info.get("exif", b""), image.info.get("xmp", b"")
    turn = headers.orientation(exif)
    return page_of(grey_of_pillow(image), *image.size, turn if turn > 1 else headers.orientation(xmp))


def _bmp(data: bytes, settings: DecodingSettings) -> Page:
    page = _bmp_of_masks(data, settings) or _with_pillow(BmpImageFile, data, settings)
    if page.grey[0, -1] == 0 and _is_cut_off(data):
        raise PageError(damaged("BMP", "its end was never written"))
    return page


def _bmp_of_masks(data: bytes, settings: DecodingSettings) -> Page | None:
    """Read a BMP whose colours stand at places that it names; None where it names none.

    Raises:
        PageError: it is over the limit.
        ValueError: it is cut short, or of a depth that no BMP of this kind has.
        struct.error: it ends within its header.
    """
    header_bytes, width, height, _, bits, packing = _BMP_HEADER.unpack_from(data, 14)
    if header_bytes < 40 or packing not in _BIT_FIELDS:
        return None
    check_size(width, abs(height), settings)
    if bits not in (16, 32):
        message = f"bit fields of {bits} bits are not supported"
        raise ValueError(message)
    has_alpha = packing == 6 or header_bytes >= 56
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", data, 54)
    (start,) = struct.unpack_from("<I", data, 10)
    row = -(-width * bits // 32) * 4
    if len(data) < start + row * abs(height):
        message = "it is cut short"
        raise ValueError(message)
    words = np.frombuffer(data, f"<u{bits // 8}", row * abs(height) // (bits // 8), start)
    words = words.reshape(abs(height), -1)[:, :width]
    words = words[::-1] if height > 0 else words
    colour = np.dstack([_field(words, mask) for mask in masks[:3]])
    return page_of(grey_of(colour, _field(words, masks[3]) if has_alpha and masks[3] else None), width, abs(height))


def _field(words: NDArray[np.unsignedinteger], mask: int) -> GreyImage:
    """Take the bits of a mask out of [H, W], scaled to 8."""
    if not mask:
        return np.zeros(words.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    values = (words.astype(np.uint32) & np.uint32(mask)) >> np.uint32(shift)
    return np.asarray(np.rint(values * np.float32(255 / (mask >> shift))), np.uint8)


def _is_cut_off(data: bytes) -> bool:
    """Tell whether the last pixels of a BMP were never written; of its last row, the first, where they are black."""
    start, (_, width, _, _, bits, packing) = struct.unpack_from("<I", data, 10)[0], _BMP_HEADER.unpack_from(data, 14)
    return packing in (0, *_BIT_FIELDS) and ends_in_nothing(
        data, start, max(1, -(-width * bits // 32) * 4), -(-width * bits // 8)
    )


def _gif(data: bytes, settings: DecodingSettings) -> Page:
    check_size(*headers.gif_size(data), settings)
    return _with_pillow(GifImageFile, data, settings)


def _webp(data: bytes, settings: DecodingSettings) -> Page:
    check_size(*headers.webp_size(data), settings)
    pixels = data[slice(*headers.webp_pixels(data))]
    if not pixels.startswith(b"VP8 "):
        _check_end("WebP", pixels)  # what is lossless may have as many zeros in its middle
    else:
        _check_parts("WebP", pixels)
    return _with_pillow(WebPImageFile, data, settings)


def _jpeg_2000(data: bytes, settings: DecodingSettings) -> Page:
    if headers.JPEG_2000_END not in data:
        raise PageError(damaged("JPEG 2000", "it is cut short"))
    _check_parts("JPEG 2000", data)
    return _with_pillow(Jpeg2KImageFile, data, settings)


def _avif(data: bytes, settings: DecodingSettings) -> Page:
    _check_end("AVIF", data)
    _check_parts("AVIF", data)
    return _with_pillow(AvifImageFile, data, settings)


def _heic(data: bytes, settings: DecodingSettings) -> Page:
    """Decode the first image of a telephone's photo, which libheif turns upright."""
    try:
        from pi_heif import HeifImageFile
    except ImportError as error:
        raise PageError(needs_extra("HEIC", _HEIC_CONVERTED_BY)) from error
    _check_end("HEIC", data)
    _check_parts("HEIC", data)
    image = pillow_image(HeifImageFile, data, settings)
    return page_of(grey_of_pillow(image), *image.size)


def _check_end(kind: str, packed: bytes) -> None:
    """Refuse a copy that stopped half-way.

    Raises:
        PageError: its last part was never written.
    """
    if packed_ends_in_nothing(packed):
        raise PageError(damaged(kind, "its end was never written"))


def _check_parts(kind: str, packed: bytes) -> None:
    """Refuse what has lost a part, such as a sector of its disk, and is packed so that its codec would not know.

    Raises:
        PageError: it is such a file.
    """
    if has_hole(packed):
        raise PageError(damaged(kind, "a part of it was never written"))


_PAGE_READERS: dict[str, Callable[[bytes, DecodingSettings], Page]] = {
    "PNG": _png,
    "JPEG": jpeg_page,
    "GIF": _gif,
    "WebP": _webp,
    "BMP": _bmp,
    "JP2": _jpeg_2000,
    "AVIF": _avif,
    "HEIC": _heic,
}

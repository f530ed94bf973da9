"""Decode each page of a TIFF, of all the kinds that scanners, fax machines and image programs write.

By tifffile and imagecodecs, which give the samples as they are stored, and refuse a strip that is not whole. Each page
is opened as if it were the first of the file, so that what is wrong with one hides no other.
"""

import io
import math
from typing import TYPE_CHECKING, Any

import cv2
import imagecodecs
import numpy as np

from batchdigits.decoding import headers
from batchdigits.decoding.completeness import ends_in_nothing, is_out_of_step, packed_ends_in_nothing
from batchdigits.decoding.grayscale import grey_of, in_bytes
from batchdigits.decoding.jpeg import check_whole
from batchdigits.decoding.pages import (
    FIRST_SIDEWAYS,
    MOST_PAGE_BYTES,
    Page,
    PageError,
    check_size,
    damaged,
    guarded,
    page_of,
    unsupported,
)
from batchdigits.errors import Fault, FaultKind
from batchdigits.records import GreyImage
from batchdigits.settings import DecodingSettings

if TYPE_CHECKING:
    from tifffile import TiffPage

_MOST_PAGES = 2**16  # of a file
_MOST_SAMPLE_BYTES = 6  # of a pixel of the limit: with what is made of them, 16, as decoding takes otherwise
_ORIENTATION = 274
_PHOTOMETRIC = 262
_PLAIN, _FAX, _JPEG, _OLD_JPEG, _JPEG_2000, _WEBP = 1, (2, 3, 4), 7, 6, (34712, 33003, 33005), 50001
_PACKINGS = {_PLAIN, *_FAX, _JPEG, _OLD_JPEG, 5, 8, 32946, 32773, *_JPEG_2000, 34925, 50000, _WEBP}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _MASK, _SEPARATED, _YCBCR, _LAB, _ICC_LAB = 0, 1, 2, 3, 4, 5, 6, 8, 9
_COLOURS = {
    **dict.fromkeys((_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE, _MASK), 1),
    **dict.fromkeys((_RGB, _YCBCR, _LAB, _ICC_LAB), 3),
    _SEPARATED: 4,
}
"""Kinds of colours that are read, and how many samples of a pixel they take."""
_LOG = (32844, 32845)  # luminance of high range, which libtiff turns into colours
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples
_LOWEST_FIRST = 2  # FillOrder: the bits of a byte stand the other way round
_TOGETHER = 1  # PlanarConfiguration: the samples of a pixel stand together


def tiff_pages(data: bytes, settings: DecodingSettings) -> list[Page | Fault]:
    """Decode every page of a TIFF but reduced copies and masks of others.

    Returns:
        One entry a page; what is after a broken directory, or too much for one file, is one last fault.
    """
    chain = headers.tiff_chain(data, _MOST_PAGES + 1)
    directories = [directory for directory in chain.directories if not directory.is_copy] or chain.directories
    pages: list[Page | Fault] = []
    room = MOST_PAGE_BYTES
    file = io.BytesIO(data)
    for directory in directories:
        if room < 0 or len(pages) == _MOST_PAGES:
            detail = f"the file has more than the {len(pages):,} pages so far; split it"
            return [*pages, Fault(FaultKind.TOO_LARGE, detail)]
        file.seek(0)
        file.write(chain.with_next(directory.offset))
        pages.append(page := guarded("TIFF", _page, file, settings))
        room -= page.grey.nbytes if isinstance(page, Page) else 0
    return [*pages, damaged("TIFF", "a page's directory is cut short")] if chain.is_cut else pages


def _page(file: io.BytesIO, settings: DecodingSettings) -> Page:
    """Decode the first page of a file."""
    from tifffile import PHOTOMETRIC, TiffFile

    file.seek(0)
    page: TiffPage = TiffFile(file, _multifile=False).pages.first
    turn = page.tags.valueof(_ORIENTATION, default=1)
    turn = turn[0] if isinstance(turn, bytes | tuple) and turn else turn
    turn = turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
    width, height = page.imagewidth, page.imagelength
    if _PHOTOMETRIC not in page.tags and page.compression not in _FAX:  # tifffile would take white for zero
        page.photometric = PHOTOMETRIC.RGB if page.samplesperpixel > 2 else PHOTOMETRIC.MINISBLACK
    check_size(*((height, width) if turn >= FIRST_SIDEWAYS else (width, height)), settings)
    _check_kind(page, settings)
    _check_strips(page, file, settings)
    needs_libtiff = page.compression == _OLD_JPEG or page.photometric in _LOG or page.is_subsampled
    if needs_libtiff and page.compression != _JPEG:
        pixels = imagecodecs.tiff_decode(file.getvalue(), index=0, asrgb=True)
        return page_of(grey_of(np.ascontiguousarray(pixels[..., :3])), width, height, turn)
    return page_of(_grey(page, _samples(page, file)), width, height, turn)


def _check_kind(page: "TiffPage", settings: DecodingSettings) -> None:
    """Refuse a page that is not read, or whose samples or tiles take more memory than its pixels may.

    Raises:
        PageError: it is such a page.
    """
    if page.compression not in _PACKINGS:
        raise PageError(unsupported("TIFF", f"packed as {getattr(page.compression, 'name', page.compression)}"))
    if page.photometric not in _COLOURS and page.photometric not in _LOG:
        raise PageError(unsupported("TIFF", f"colours of kind {getattr(page.photometric, 'name', page.photometric)}"))
    if page.dtype is None or page.dtype.kind == "c" or page.imagedepth != 1:
        raise PageError(unsupported("TIFF", f"samples of {page.bitspersample} bits, complex, or in layers"))
    most = settings.max_pixels
    if page.tilewidth * page.tilelength > most:
        detail = f"its tiles of {page.tilewidth} × {page.tilelength} pixels are over the limit; raise --max-pixels"
        raise PageError(Fault(FaultKind.TOO_LARGE, detail))
    if math.prod(page.shape) * page.dtype.itemsize > most * _MOST_SAMPLE_BYTES:
        detail = f"its {page.samplesperpixel} samples a pixel are over the limit of memory; raise --max-pixels"
        raise PageError(Fault(FaultKind.TOO_LARGE, detail))


def _check_strips(page: "TiffPage", file: io.BytesIO, settings: DecodingSettings) -> None:
    """Refuse a page of which a strip or tile is missing, was never written, or holds an image that is too large.

    Raises:
        PageError: it is such a page.
        ValueError: a strip is a JPEG that is not whole.
    """
    data = file.getbuffer()
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if page.is_contiguous:  # then their lengths follow from its size, whatever is said of them
        places = [(page.dataoffsets[0], page.nbytes)]
    elif len(places) < math.prod(page.chunked):
        raise PageError(damaged("TIFF", "a strip of it is missing"))
    for number, (start, length) in enumerate(places):
        if page.compression in _FAX and length == 0:  # which old programs leave out
            continue
        if length == 0 or start + length > len(data):
            raise PageError(damaged("TIFF", "it is cut short"))
        strip = bytes(data[start : start + length])
        if page.compression in _FAX:
            _check_fax(page, strip, number)
        elif page.compression == _JPEG:
            _check_jpeg(page, strip, settings)
        elif page.compression == _WEBP:
            check_size(*headers.webp_size(strip), settings)
        elif page.compression in _JPEG_2000:
            check_size(*headers.jpeg_2000_size(strip), settings)
            if headers.JPEG_2000_END not in strip:
                raise PageError(damaged("TIFF", "it is cut short"))
        if page.compression != _PLAIN and packed_ends_in_nothing(strip):
            raise PageError(damaged("TIFF", "its end was never written"))
    if page.compression == _PLAIN:
        _check_end(page, bytes(data[places[0][0] : sum(places[-1])]))


def _check_end(page: "TiffPage", pixels: bytes) -> None:
    """Refuse a page of which the last pixels, that are not packed, were never written.

    Raises:
        PageError: it is such a page.
    """
    if page.bitspersample == 1 and page.photometric == _WHITE_IS_ZERO:  # zeros are paper
        return
    samples = page.samplesperpixel if page.planarconfig == _TOGETHER else 1
    width = page.tilewidth or page.imagewidth
    row_bytes, used_bytes = (
        -(-columns * samples * page.bitspersample // 8) for columns in (width, (page.imagewidth - 1) % width + 1)
    )
    empty_rows = -page.imagelength % page.tilelength if page.tilelength else 0  # of the last tile
    used = len(pixels) - empty_rows * row_bytes - (row_bytes - used_bytes)
    if ends_in_nothing(pixels[:used], 0, row_bytes, used_bytes, max(1, page.bitspersample // 8)):
        raise PageError(damaged("TIFF", "its end was never written"))


def _check_jpeg(page: "TiffPage", strip: bytes, settings: DecodingSettings) -> None:
    """Refuse a JPEG that is not whole: the codec that tifffile asks makes half a picture of it."""
    whole = (page.jpegtables or b"\xff\xd8")[:2] + (page.jpegtables or b"")[2:-2] + strip[2:]
    check_whole(whole, settings)


def _check_fax(page: "TiffPage", strip: bytes, number: int) -> None:
    """Refuse a strip or tile of fax codes, by its number from 0, that has not as many rows as it should.

    Raises:
        PageError: it is such a strip.
    """
    most = page.tilelength or min(page.rowsperstrip, page.imagelength)
    above = number * most % (-(-page.imagelength // most) * most)  # of a strip, in its plane
    rows = most if page.is_tiled else min(most, page.imagelength - above)
    codes = bytes(imagecodecs.bitorder_decode(strip)) if page.fillorder == _LOWEST_FIRST else strip
    columns = page.tilewidth or page.imagewidth
    if all(is_out_of_step(codes, columns, count, page.compression) for count in {rows, most}):
        raise PageError(damaged("TIFF", "its fax codes are wrong"))


def _samples(page: "TiffPage", file: io.BytesIO) -> np.ndarray[Any, Any]:
    """Decode the samples of a page: [H, W] or [H, W, C], as they are stored."""
    if page.compression in _FAX:  # libtiff tells where the codec that tifffile asks passes over wrong codes
        try:
            return np.asarray(imagecodecs.tiff_decode(file.getvalue(), index=0))
        except imagecodecs.TiffError as error:
            raise PageError(damaged("TIFF", "its fax codes are wrong")) from error
    samples = page.asarray(maxworkers=1)
    return np.moveaxis(samples, 0, -1) if page.axes == "SYX" else samples  # whatever a wrong PlanarConfiguration says


def _grey(page: "TiffPage", samples: np.ndarray[Any, Any]) -> GreyImage:
    """Turn samples into grey by what the page says of their meaning."""
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8
    if page.photometric == _PALETTE and page.colormap is not None:
        indices = samples if samples.ndim == 2 else samples[..., 0]
        return grey_of(_colours_of(page.colormap)[np.minimum(indices, page.colormap.shape[1] - 1)])
    if samples.ndim == 2:
        grey = in_bytes(samples, bits)
        return 255 - grey if page.photometric == _WHITE_IS_ZERO else grey_of(grey)
    count = min(_COLOURS[page.photometric], samples.shape[-1])
    extra = [int(kind) for kind in page.extrasamples][: samples.shape[-1] - count]
    at = next((at for at, kind in enumerate(extra) if kind in (_PREMULTIPLIED, _ALPHA)), None)
    used = samples[..., : count if at is None else count + at + 1]
    pixels = in_bytes(used, bits)
    colour, alpha = np.ascontiguousarray(pixels[..., :count]), None if at is None else pixels[..., -1]
    if at is not None and extra[at] == _PREMULTIPLIED:
        colour = np.asarray(np.minimum(colour * 255.0 / np.maximum(pixels[..., -1:], 1), 255).astype(np.uint8))
    is_rgb = page.photometric == _YCBCR and page.compression == _JPEG  # which tifffile turns into RGB
    return grey_of(_rgb(_RGB if is_rgb else page.photometric, colour), alpha)


def _colours_of(colormap: np.ndarray[Any, Any]) -> GreyImage:
    """Turn a colour map of 16 bits, or of 8 as old programs write it, into uint8[N, 3]."""
    return np.asarray((colormap if colormap.max() < 256 else colormap >> 8).T, np.uint8)


def _rgb(photometric: int, colour: GreyImage) -> GreyImage:
    """Turn uint8[H, W, C] of any kind of colours into uint8[H, W, 3], or into uint8[H, W] where it is grey."""
    if photometric == _SEPARATED and colour.shape[-1] == 4:
        ink, black = 255 - colour[..., :3], 255 - colour[..., 3]
        planes = [np.asarray(cv2.multiply(np.ascontiguousarray(ink[..., at]), black, scale=1 / 255)) for at in range(3)]
        return np.asarray(cv2.merge(planes), np.uint8)
    if photometric == _SEPARATED:
        return np.asarray(255 - colour.max(axis=-1), np.uint8)
    if colour.shape[-1] < 3:
        return 255 - colour[..., 0] if photometric == _WHITE_IS_ZERO else colour[..., 0]
    if photometric == _YCBCR:
        return np.asarray(cv2.cvtColor(colour[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB), np.uint8)
    if photometric in (_LAB, _ICC_LAB):
        centre = np.array([0, 128, 128] if photometric == _LAB else [0, 0, 0], np.uint8)
        return np.asarray(cv2.cvtColor(colour ^ centre, cv2.COLOR_Lab2RGB), np.uint8)
    return colour

"""Decode the bytes of a file to its grey pages, or to a `Fault` for each page that cannot be read.

What a file is, its content says and never its ending. The common kinds (8-bit grey or RGB PNG, grey or colour
JPEG) go through OpenCV after their headers were read here, all others through the plug-ins of Pillow: those by
their class, for `Image.open` would try formats that are none of ours. Safe to call from several threads.
"""

import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, NamedTuple, ParamSpec, TypeVar

import cv2
import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from batchdigits.decoding import headers
from batchdigits.decoding.grayscale import DEEP_MODES, grey_of
from batchdigits.errors import MOST_SIDE, Fault, FaultKind, escape_name
from batchdigits.records import SIGNATURE, GreyImage
from batchdigits.settings import DecodingSettings

MAX_SIDE: Final = 1024
"""Pixels of a page's longer side, at most: a digit needs no more, and memory stays bounded."""
REDUCED_SIDE: Final = 1000
"""Pixels that the longer side keeps, at least, where a JPEG is decoded at 1/2, 1/4 or 1/8 of its size."""
HALVED_FROM: Final = 600
"""Pixels of the longer side from which a JPEG that is not reduced otherwise is decoded at half its size, for the first
look at it: a half has still more than a cut."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_PNG_GREY_OR_RGB = (0, 2)  # colour types without palette and alpha
_PNG_CHUNKS_FOR_PILLOW = frozenset({b"tRNS", b"eXIf", b"acTL"})  # transparency, orientation, animation
_TIFF_PHOTOMETRIC = 262
_TIFF_TILE_SIDES = (322, 323)
_MOST_PAGES = 2**16  # of a file; Pillow compares each with all before it, so that these take most of a minute
_MOST_PAGE_BYTES = 512 * 2**20  # of a file's grey pages, which are held together; 700 scans of A4
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_FIRST_SIDEWAYS = 5  # EXIF orientations from here on swap width and height
_TURNS: dict[int, Callable[[GreyImage], GreyImage]] = {
    2: lambda grey: grey[:, ::-1],
    3: lambda grey: grey[::-1, ::-1],
    4: lambda grey: grey[::-1],
    5: lambda grey: grey.T,
    6: lambda grey: grey.T[:, ::-1],
    7: lambda grey: grey.T[::-1, ::-1],
    8: lambda grey: grey.T[::-1],
}
_EMPTY = Fault(FaultKind.UNREADABLE, "the file is empty; copy it again")
_REDUCED_FLAGS = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # what it says of a bad file is a Fault here


class Page(NamedTuple):
    """One page of a file, in grey, upright as its EXIF orientation says."""

    grey: GreyImage
    """[H, W], 0 black to 255 white, alpha over white; reduced where the longer side was over `MAX_SIDE`, or there is a
    `finer` one."""
    width: int
    """Pixels as stored, after EXIF rotation; not of the reduced `grey`."""
    height: int
    """Pixels as stored, after EXIF rotation; not of the reduced `grey`."""
    finer: Callable[[], GreyImage] | None = None
    """Decodes the page again and not reduced, for where its digit is small; None where `grey` is as good as it gets."""


class _PageError(Exception):
    """Ends the decoding of a page with a fault that is already worded."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


def decode(data: bytes, settings: DecodingSettings, ending: str = "") -> list[Page | Fault]:
    """Decode a file's bytes to its pages; all trouble with them but `MemoryError` is a fault.

    Args:
        data: The whole file.
        settings: The limit of pixels, checked by the header before anything is decoded.
        ending: The file's ending in lower case with its dot; only asked where the content says nothing.

    Returns:
        One entry a page, in order, at least one. Only TIFF has several; of an animation it is the first frame.
    """
    if not data:
        return [_EMPTY]
    signature = SIGNATURE.match(data)
    if signature is None:
        return [headers.foreign(data, ending)]
    kind = str(signature.lastgroup)
    if kind == "TIFF":
        return _tiff_pages(data, settings)
    return [_guarded(kind, _PAGE_READERS[kind], data, settings)]


def _guarded(
    kind: str, step: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result | Fault:
    """Run a step of decoding; this is the one place where an exception becomes a fault."""
    try:
        return step(*args, **kwargs)
    except MemoryError:
        raise
    except _PageError as error:
        return error.fault
    except Image.DecompressionBombError as error:  # Pillow's own limit, where max_pixels was raised above it
        return Fault(FaultKind.TOO_LARGE, escape_name(str(error)))
    except struct.error:
        return _undecodable(kind, "it is cut short")
    except Exception as error:  # noqa: BLE001  (codecs raise nearly everything on damaged bytes)
        return _undecodable(kind, str(error) or type(error).__name__)


def _undecodable(kind: str, reason: str) -> Fault:
    return Fault(
        FaultKind.UNREADABLE,
        f"cannot be decoded as {kind}: {escape_name(reason)[:120]}; copy it again, or export it anew as PNG",
    )


def _check_size(width: int, height: int, settings: DecodingSettings) -> None:
    """Refuse a page by its header.

    Raises:
        _PageError: it has no pixels, or more than the limit.
    """
    if width < 1 or height < 1:
        raise _PageError(Fault(FaultKind.UNREADABLE, f"its header gives a size of {width} × {height} pixels"))
    if width * height > settings.max_pixels:
        detail = f"{width} × {height} pixels are more than the limit of {settings.max_pixels:,}"
        told = (width, height) if max(width, height) <= MOST_SIDE else (None, None)
        raise _PageError(Fault(FaultKind.TOO_LARGE, detail, *told))


def _png(data: bytes, settings: DecodingSettings) -> Page:
    width, height, depth, colour = headers.png_header(data)
    _check_size(width, height, settings)
    chunks = headers.png_chunks(data)
    if depth == 8 and colour in _PNG_GREY_OR_RGB and _PNG_CHUNKS_FOR_PILLOW.isdisjoint(chunks):
        grey = _opencv(data, cv2.IMREAD_GRAYSCALE)
        if grey is not None:
            return _page(grey, width, height)
    return _with_pillow(PngImageFile, data, settings)


def _jpeg(data: bytes, settings: DecodingSettings) -> Page:
    header = headers.jpeg_header(data)
    turned = header.orientation >= _FIRST_SIDEWAYS
    _check_size(*((header.height, header.width) if turned else (header.width, header.height)), settings)
    if header.depth == 8 and header.channels in (1, 3):
        longer = max(header.width, header.height)
        halve = HALVED_FROM <= longer <= MAX_SIDE
        factor = 2 if halve else next((factor for factor in (8, 4, 2) if longer >= factor * REDUCED_SIDE), 1)
        grey = _opencv(data, _REDUCED_FLAGS[factor])
        if grey is not None:
            page = _page(grey, header.width, header.height, header.orientation)
            return page._replace(finer=partial(_finer_jpeg, data, header, page)) if halve else page
    return _with_pillow(JpegImageFile, data, settings)


def _finer_jpeg(data: bytes, header: headers.JpegHeader, page: Page) -> GreyImage:
    """Decode a halved page again, at its full size; it stays as it is where that fails."""
    grey = _opencv(data, cv2.IMREAD_GRAYSCALE)
    return page.grey if grey is None else _page(grey, header.width, header.height, header.orientation).grey


def _opencv(data: bytes, flags: int) -> GreyImage | None:
    """Decode as stored, without EXIF rotation; None where OpenCV cannot."""
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        return None
    return None if grey is None else np.asarray(grey, np.uint8)


def _page(grey: GreyImage, width: int, height: int, exif_orientation: int = 1) -> Page:
    """Make a page of what was decoded, [H, W] as stored: bounded in size, and upright."""
    longer = max(grey.shape)
    if longer > MAX_SIDE:
        rows, columns = (max(1, round(side * MAX_SIDE / longer)) for side in grey.shape)
        grey = np.asarray(cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    if exif_orientation > 1:
        grey = np.ascontiguousarray(_TURNS[exif_orientation](grey))
    return Page(grey, height, width) if exif_orientation >= _FIRST_SIDEWAYS else Page(grey, width, height)


def _with_pillow(plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, settings: DecodingSettings) -> Page:
    """Decode the first frame of anything but a TIFF."""
    _silence_pillow()
    image = plugin(io.BytesIO(data))
    _check_size(*image.size, settings)
    image.load()
    return _page(grey_of(image), *image.size, headers.orientation(image.info.get("exif", b"")))


def _bmp(data: bytes, settings: DecodingSettings) -> Page:
    return _with_pillow(BmpImageFile, data, settings)


def _gif(data: bytes, settings: DecodingSettings) -> Page:
    _check_size(*headers.gif_size(data), settings)
    return _with_pillow(GifImageFile, data, settings)


def _webp(data: bytes, settings: DecodingSettings) -> Page:
    _check_size(*headers.webp_size(data), settings)
    return _with_pillow(WebPImageFile, data, settings)


def _tiff_pages(data: bytes, settings: DecodingSettings) -> list[Page | Fault]:
    """Decode every page of a TIFF; what is after a broken directory, or too much for one file, is one last fault."""
    _silence_pillow()
    pages: list[Page | Fault] = []
    directories = headers.tiff_directories(data)
    room = _MOST_PAGE_BYTES
    image: TiffImageFile | Fault | None = _guarded("TIFF", _open_tiff, data, directories)
    while isinstance(image, TiffImageFile):
        pages.append(page := _guarded("TIFF", _tiff_page, image, settings))
        room -= page.grey.nbytes if isinstance(page, Page) else 0
        image = _guarded("TIFF", _next_tiff_page, image, len(pages), directories)
        if isinstance(image, TiffImageFile) and (room < 0 or len(pages) == _MOST_PAGES):
            image = Fault(FaultKind.TOO_LARGE, f"the file has more than the {len(pages):,} pages so far; split it")
    return [*pages, image] if isinstance(image, Fault) else pages


def _open_tiff(data: bytes, directories: Iterator[int]) -> TiffImageFile:
    next(directories)
    return TiffImageFile(io.BytesIO(data))


def _tiff_page(image: TiffImageFile, settings: DecodingSettings) -> Page:
    """Decode the page that the image stands at."""
    _check_size(*image.size, settings)
    tile_width, tile_height = (image.tag_v2.get(side, 1) for side in _TIFF_TILE_SIDES)
    _check_tiles(tile_width, tile_height, settings)
    image.load()  # turns it upright as well
    grey = grey_of(image)
    # White is zero: Pillow heeds it at 8 bits.
    if image.mode in DEEP_MODES and image.tag_v2.get(_TIFF_PHOTOMETRIC) == 0:
        grey = 255 - grey
    return _page(grey, *image.size)


def _check_tiles(width: int, height: int, settings: DecodingSettings) -> None:
    """Refuse a page by the size of its tiles: libtiff allocates a whole one, however small the page is.

    Raises:
        _PageError: they have more pixels than the limit.
    """
    if width * height > settings.max_pixels:
        raise _PageError(Fault(FaultKind.TOO_LARGE, f"its tiles of {width} × {height} pixels are over the limit"))


def _next_tiff_page(image: TiffImageFile, page: int, directories: Iterator[int]) -> TiffImageFile | None:
    """Go to a page, from 0; None after the last."""
    try:
        image.seek(page)
    except EOFError:
        return None
    next(directories)
    return image


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
}

"""Make pages and faults of what a file's format gives: bounded in size, upright, and never an exception.

What all formats share stands here; what each is decoded by stands in the modules beside it.
"""

import io
import re
import struct
import warnings
from collections.abc import Callable
from typing import Final, NamedTuple, ParamSpec, TypeVar

import cv2
import numpy as np
from PIL import Image, ImageFile

from batchdigits.errors import MOST_SIDE, Fault, FaultKind, escape_name
from batchdigits.records import GreyImage
from batchdigits.settings import DecodingSettings

MAX_SIDE: Final = 1024
"""Pixels of a page's longer side, at most: a digit needs no more, and memory stays bounded."""
MOST_PAGE_BYTES: Final = 512 * 2**20
"""Bytes of a file's grey pages, at most, which are held together; 700 scans of A4."""
FIRST_SIDEWAYS: Final = 5
"""EXIF orientations from here on swap width and height."""

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_MOST_REASON = 120  # characters of a codec's words in a row
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
_IS_SENTENCE = re.compile(
    r"(?!.*\w_\w).*[a-z]{2,} .*[a-z]{2,}", re.IGNORECASE | re.DOTALL
)  # no number, no name of code
_IS_UNKNOWN = re.compile(
    r"unsupported|not supported|not implemented|not been built in|unknown (pixel|data|compression)|invalid palette size"
    r"|not identified by this driver",
    re.IGNORECASE,
)
_TURNS: dict[int, Callable[[GreyImage], GreyImage]] = {
    2: lambda grey: grey[:, ::-1],
    3: lambda grey: grey[::-1, ::-1],
    4: lambda grey: grey[::-1],
    5: lambda grey: grey.T,
    6: lambda grey: grey.T[:, ::-1],
    7: lambda grey: grey.T[::-1, ::-1],
    8: lambda grey: grey.T[::-1],
}


class Page(NamedTuple):
    """One page of a file, in grey, upright as its EXIF orientation says."""

    grey: GreyImage
    """[H, W], 0 black to 255 white, alpha over white; reduced where the longer side was over `MAX_SIDE`, or there is a
    `full_resolution` one."""
    width: int
    """Pixels as stored, after EXIF rotation; not of the reduced `grey`."""
    height: int
    """Pixels as stored, after EXIF rotation; not of the reduced `grey`."""
    full_resolution: Callable[[], GreyImage] | None = None
    """Decodes the page again and not reduced, for where its digit is small; None where `grey` is as good as it gets."""


class PageError(Exception):
    """Ends the decoding of a page with a fault that is already worded."""

    def __init__(self, fault: Fault) -> None:
        """Take the fault."""
        super().__init__(fault.detail)
        self.fault = fault


def guarded(
    kind: str, step: Callable[_Arguments, _Result], *args: _Arguments.args, **kwargs: _Arguments.kwargs
) -> _Result | Fault:
    """Run a step of decoding; this is the one place where an exception becomes a fault."""
    try:
        return step(*args, **kwargs)
    except MemoryError:
        raise
    except PageError as error:
        return error.fault
    except Image.DecompressionBombError as error:  # Pillow's own limit, where max_pixels was raised above it
        return Fault(FaultKind.TOO_LARGE, escape_name(str(error)))
    except struct.error:
        return damaged(kind, "it is cut short")
    except Exception as error:  # noqa: BLE001  (codecs raise nearly everything on damaged bytes)
        said = str(error)
        if isinstance(error, NotImplementedError) or _IS_UNKNOWN.search(said):
            return unsupported(kind, said)
        return damaged(kind, said)


def damaged(kind: str, reason: str = "") -> Fault:
    """Word the fault of a page that is not whole; a reason that is no sentence is left out."""
    return Fault(
        FaultKind.UNREADABLE,
        f"cannot be decoded as {kind}{_told(reason)}; it looks damaged or half copied: copy it again",
    )


def unsupported(kind: str, reason: str) -> Fault:
    """Word the fault of a page that is whole, perhaps, but of a kind that is not read."""
    return Fault(FaultKind.UNSUPPORTED, f"this kind of {kind} is not read{_told(reason)}; export it anew as PNG")


def needs_extra(kind: str, command: str) -> Fault:
    """Word the fault of a page that is read where an extra is installed, and by which command else it is converted.

    What is known of a file is kept, so that a run after the extra's installation has to be told to read it again.
    """
    remedy = "pip install batchdigits[formats], then run with --retry-failed"
    return Fault(FaultKind.UNSUPPORTED, f"{kind} files need an extra: {remedy}; or convert it: {command}")


def _told(reason: str) -> str:
    return f": {escape_name(reason)[:_MOST_REASON]}" if _IS_SENTENCE.match(reason) else ""


def check_size(width: int, height: int, settings: DecodingSettings) -> None:
    """Refuse a page by its header.

    Raises:
        PageError: it has no pixels, or more than the limit.
    """
    if width < 1 or height < 1:
        raise PageError(Fault(FaultKind.UNREADABLE, f"its header gives a size of {width} × {height} pixels"))
    if width * height > settings.max_pixels:
        detail = f"{width} × {height} pixels are more than the limit of {settings.max_pixels:,}; raise --max-pixels"
        told = (width, height) if max(width, height) <= MOST_SIDE else (None, None)
        raise PageError(Fault(FaultKind.TOO_LARGE, detail, *told))


def page_of(grey: GreyImage, width: int, height: int, exif_orientation: int = 1) -> Page:
    """Make a page of what was decoded: bounded in size, and upright.

    Args:
        grey: uint8[H, W] as stored, or already reduced.
        width: Pixels as stored, before EXIF rotation.
        height: Pixels as stored, before EXIF rotation.
        exif_orientation: 1 to 8.
    """
    grey = reduced(grey)
    if exif_orientation > 1:
        grey = np.ascontiguousarray(_TURNS[exif_orientation](grey))
    return Page(grey, height, width) if exif_orientation >= FIRST_SIDEWAYS else Page(grey, width, height)


def reduced(pixels: GreyImage) -> GreyImage:
    """Reduce uint8[H, W] or uint8[H, W, 3] to `MAX_SIDE`; what is smaller is returned as it is."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    if longer <= MAX_SIDE:
        return pixels
    size = max(1, round(width * MAX_SIDE / longer)), max(1, round(height * MAX_SIDE / longer))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def pillow_image(
    plugin: Callable[[io.BytesIO], ImageFile.ImageFile], data: bytes, settings: DecodingSettings
) -> ImageFile.ImageFile:
    """Load the first frame of an image with Pillow."""
    silence_pillow()
    image = plugin(io.BytesIO(data))
    check_size(*image.size, settings)
    image.load()
    return image


def silence_pillow() -> None:
    """Ignore Pillow's warnings of odd metadata: put the filter first, unless it stands there already.

    Not `warnings.catch_warnings`, which is not safe in threads.
    """
    if not warnings.filters or warnings.filters[0] != _PILLOW_FILTER:
        warnings.filterwarnings("ignore", module=r"PIL\.")

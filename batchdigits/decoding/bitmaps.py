"""Read the bit fields of a BMP, and tell whether the rest of a file was never written.

A copy that stops half-way has its full size on some disks, and zeros from there on: no codec of pixels that are not
packed can know, and one of WebP makes grey of them.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.grayscale import grey_of
from batchdigits.decoding.pages import Page, check_size, page_of
from batchdigits.records import GreyImage
from batchdigits.settings import DecodingSettings

_BIT_FIELDS = (3, 6)  # of «compression»: masks of red, green, blue, or of alpha as well
_HEADER = struct.Struct("<IiiHHI")
_LEAST_END = 64  # bytes of zeros that are no chance
_LEAST_SHARE = 1 / 50  # of a file, that they take
_MOST_BLACK = 0.25  # share of zeros among as many bytes before them, at most, where zero is not the colour of the paper
_LOOK_BACK = 4096  # bytes before them that are looked at


def with_masks(data: bytes, settings: DecodingSettings) -> Page | None:
    """Read a BMP whose colours stand at places that it names; None where it names none.

    Raises:
        PageError: it is over the limit.
        ValueError: it is cut short, or of a depth that no BMP of this kind has.
        struct.error: it ends within its header.
    """
    header_bytes, width, height, _, bits, packing = _HEADER.unpack_from(data, 14)
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


def is_cut_off(data: bytes) -> bool:
    """Tell whether the last pixels of a BMP were never written; of its last row, the first, where they are black."""
    start, (_, width, _, _, bits, packing) = struct.unpack_from("<I", data, 10)[0], _HEADER.unpack_from(data, 14)
    return packing in (0, *_BIT_FIELDS) and ends_in_nothing(
        data, start, max(1, -(-width * bits // 32) * 4), -(-width * bits // 8)
    )


def ends_in_nothing(data: bytes, start: int, row_bytes: int, used_bytes: int) -> bool:
    """Tell whether the last of some pixels that are not packed are zeros, and what stands before them is not.

    Paper that is black to the end, or a black margin, is no damage: there, zeros stand before as well, or whole rows
    are of zeros.

    Args:
        data: The file, up to where the pixels end.
        start: Where they begin.
        row_bytes: How long a row is.
        used_bytes: How much of it are pixels; the rest fills up.
    """
    written = _written(data)
    if written == len(data) or (written - start - used_bytes) % row_bytes == 0:
        return False
    before = data[max(start, written - min(len(data) - written, _LOOK_BACK)) : written]
    return before.count(0) <= _MOST_BLACK * len(before)


def packed_ends_in_nothing(data: bytes) -> bool:
    """Tell whether the last part of a packed file is zeros, of which its codec would make something."""
    return _written(data) < len(data)


def _written(data: bytes) -> int:
    """Tell how many bytes stand before the zeros at the end; all of them where these are too few to mean anything."""
    written = len(data.rstrip(b"\0"))
    return written if len(data) - written >= max(_LEAST_END, _LEAST_SHARE * len(data)) else len(data)

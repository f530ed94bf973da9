"""BMPs whose colours stand at places that they name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings

LIMITS = DecodingSettings()
RNG = np.random.default_rng(1)
GREY = np.clip(np.full((120, 90), 225) + RNG.integers(0, 20, (120, 90)), 0, 255).astype(np.uint8)
GREY[20:100, 40:52] = 15


def bmp(words: np.ndarray, masks: tuple[int, ...], *, top_down: bool = False) -> bytes:
    """Write a BMP of bit fields: uint16 or uint32 [H, W]."""
    height, width = words.shape
    bits = 8 * words.itemsize
    rows = (row.tobytes() + bytes(-row.nbytes % 4) for row in (words if top_down else words[::-1]))
    pixels = b"".join(rows)
    packing = 6 if len(masks) == 4 else 3
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, packing, len(pixels), 0, 0, 0, 0
    )
    start = 14 + 40 + 4 * len(masks)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + header
        + struct.pack(f"<{len(masks)}I", *masks)
        + pixels
    )


def page_of(data: bytes) -> Page:
    (page,) = decode(data, LIMITS)
    assert isinstance(page, Page), page
    return page


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("shifts", [(0, 8, 16), (3, 12, 23), (24, 0, 9)])
def test_bit_fields_are_read_wherever_they_stand(shifts: tuple[int, int, int], top_down: bool) -> None:
    words = sum(GREY.astype(np.uint32) << shift for shift in shifts)
    page = page_of(bmp(np.asarray(words, "<u4"), tuple(255 << shift for shift in shifts), top_down=top_down))
    np.testing.assert_array_equal(page.grey, GREY)


def test_bit_fields_of_sixteen_bits_and_an_odd_width_are_read() -> None:
    grey = GREY[:, :89]
    words = sum((grey.astype(np.uint16) >> 3) << shift for shift in (0, 6, 11))
    page = page_of(bmp(np.asarray(words, "<u2"), (31, 31 << 6, 31 << 11)))
    assert np.abs(page.grey.astype(int) - grey).max() <= 8


def test_a_field_of_alpha_is_transparency() -> None:
    alpha = np.where(GREY < 100, 255, 0).astype(np.uint32)
    words = np.asarray(alpha << 24, "<u4")  # black ink on nothing
    page = page_of(bmp(words, (255, 255 << 8, 255 << 16, 255 << 24)))
    np.testing.assert_array_equal(page.grey, np.where(GREY < 100, 0, 255))


def test_bit_fields_that_are_cut_short_are_a_fault() -> None:
    words = GREY.astype("<u4")
    (fault,) = decode(bmp(words, (255, 255, 255))[:-100], LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNREADABLE


def test_a_palette_of_more_colours_than_there_can_be_is_no_damage() -> None:
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "BMP")
    data = bytearray(file.getvalue())
    struct.pack_into("<I", data, 46, 300)
    (fault,) = decode(bytes(data), LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNSUPPORTED
    assert "copy it again" not in fault.detail

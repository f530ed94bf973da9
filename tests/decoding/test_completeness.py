"""Files whose end was never written, and fax codes that are not those of a whole image."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.completeness import Fax, is_whole_fax
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings

LIMITS = DecodingSettings()
RNG = np.random.default_rng(1)
GREY = np.clip(np.full((120, 90), 225) + RNG.integers(0, 20, (120, 90)), 0, 255).astype(np.uint8)
GREY[20:100, 40:52] = 15


def page_of(data: bytes) -> Page:
    (page,) = decode(data, LIMITS)
    assert isinstance(page, Page), page
    return page


def saved(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


FORMATS = {"BMP": {}, "WEBP": {"quality": 90}, "AVIF": {}, "JPEG2000": {}, "JPEG": {}, "GIF": {}, "PNG": {}}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.4, 0.65, 0.9])
def test_a_copy_that_stopped_and_ends_in_zeros_is_a_fault(kind: str, share: float) -> None:
    whole = saved(GREY, kind, **FORMATS[kind])
    page_of(whole)
    written = int(len(whole) * share)
    (fault,) = decode(whole[:written] + bytes(len(whole) - written), LIMITS)
    assert isinstance(fault, Fault), kind
    assert fault.kind == FaultKind.UNREADABLE
    assert "copy it again" in fault.detail


@pytest.mark.parametrize("kind", ["WEBP", "JPEG", "PNG", "GIF", "AVIF", "JPEG2000"])
def test_a_sector_that_is_lost_in_the_middle_is_a_fault(kind: str) -> None:
    whole = saved(np.tile(GREY, (3, 3)), kind, **FORMATS[kind])
    page_of(whole)
    for share in (0.3, 0.6):
        lost = int(len(whole) * share)
        size = max(1024, len(whole) // 12)
        (fault,) = decode(whole[:lost] + bytes(size) + whole[lost + size :], LIMITS)
        assert isinstance(fault, Fault), kind
        assert fault.kind == FaultKind.UNREADABLE


@pytest.mark.parametrize("kind", FORMATS)
def test_paper_of_one_colour_to_the_end_is_no_damage(kind: str) -> None:
    for paper, ink in ((255, 0), (0, 255)):
        page = np.full((300, 200), paper, np.uint8)
        page[40:80, 60:70] = ink
        assert page_of(saved(page, kind, **FORMATS[kind])).grey.shape == (300, 200)


@pytest.mark.parametrize("top", [None, 150, 1400])
def test_a_large_clean_page_is_no_damage_though_a_twentieth_of_its_codes_are_zeros(top: int | None) -> None:
    page = np.full((1754, 1240), 255, np.uint8)
    if top:
        page[top : top + 200, 600:630] = 0
    assert page_of(saved(page, "WEBP")).grey.max() > 250


def test_samples_that_end_in_a_byte_of_zero_are_no_damage() -> None:
    page = np.full((100, 81), 200, ">u2") << 8
    page[80:] = 0
    data = io.BytesIO()
    tifffile.imwrite(data, page, byteorder=">")
    assert page_of(data.getvalue()).grey.shape == page.shape


def test_a_black_margin_is_no_damage() -> None:
    page = np.full((200, 151), 220, np.uint8)
    page[:60] = 0  # the last rows of the file
    assert page_of(saved(page, "BMP")).grey[0, 0] == 0
    assert page_of(saved(np.dstack([page] * 3), "BMP")).grey[0, 0] == 0


def test_an_avif_that_calls_itself_a_still_picture_first_is_an_avif() -> None:
    whole = saved(GREY, "AVIF")
    assert whole[8:12] == b"avif"
    assert page_of(whole[:8] + b"mif1" + whole[12:]).width == 90


def test_a_telephones_zeros_after_a_webp_are_no_damage() -> None:
    assert page_of(saved(GREY, "WEBP") + bytes(4000))


def fax_of(pixels: np.ndarray, packing: str) -> bytes:
    """Pack a page of one bit as fax codes: Group 4, Group 3, or Group 3 whose rows have no ends."""
    data = saved(pixels > 127, "TIFF", compression=packing, strip_size=2**24)
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        (start,), (length,) = tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts
    return data[start : start + length]


@pytest.mark.parametrize("packing", ["group4", "group3", "tiff_ccitt"])
def test_fax_codes_are_whole_to_the_last_row_or_not_at_all(packing: str) -> None:
    for ink in (0, 255):
        page = np.where((GREY > 235) == (ink > 0), 255, 0)  # speckled
        page[90:] = ink  # down to the end
        codes = fax_of(page, packing)
        fax = Fax(is_group_4=packing == "group4", is_aligned=False, columns=90, rows=120)
        assert is_whole_fax(codes, fax)
        for share in (0, 0.1, 0.3, 0.5, 0.8, 0.95):
            cut = codes[: int(len(codes) * share)]
            assert not is_whole_fax(cut, fax)
            assert not is_whole_fax(cut + bytes(len(codes) - len(cut)), fax)


def test_fax_codes_need_no_end_beside_that_of_their_last_row() -> None:
    codes = fax_of(GREY, "group4").rstrip(b"\0")
    assert is_whole_fax(codes[:-3], Fax(is_group_4=True, is_aligned=False, columns=90, rows=120))


def test_of_aligned_fax_codes_only_the_end_is_known() -> None:
    codes = fax_of(GREY, "group4")
    fax = Fax(is_group_4=True, is_aligned=True, columns=90, rows=120)
    assert is_whole_fax(codes, fax)
    assert not is_whole_fax(codes[:-40], fax)

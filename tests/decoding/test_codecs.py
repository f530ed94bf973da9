"""Decoding: every kind of image to upright grey pages, and everything else to faults."""

import io
import os
import struct
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from batchdigits.decoding import tiff
from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import MAX_SIDE, Page, guarded
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings
from tests.sample_pages import Grey

DATA = Path(__file__).parents[1] / "data"
LIMITS = DecodingSettings()

GREY = np.full((20, 30), 230, np.uint8)
GREY[3:17, 5:9] = 10
GREY[3:6, 5:20] = 90
PICTURE = Image.fromarray(GREY)
INK = Image.new("RGBA", PICTURE.size, (0, 0, 0, 0))  # black ink on transparent black
INK.paste((0, 0, 0, 255), (5, 3, 9, 17))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pages_of(data: bytes, **limits: int) -> list[Page]:
    pages = decode(data, DecodingSettings(**limits))
    assert all(isinstance(page, Page) for page in pages), pages
    return [page for page in pages if isinstance(page, Page)]


def page_of(data: bytes) -> Page:
    (page,) = pages_of(data)
    return page


def fault_of(data: bytes, ending: str = "", **limits: int) -> Fault:
    (fault,) = decode(data, DecodingSettings(**limits), ending)
    assert isinstance(fault, Fault), fault
    return fault


def tiff_of(samples: np.ndarray, *, photometric: int = 1, bits: int, sample_format: int = 1) -> bytes:
    """Write an uncompressed little-endian TIFF of one channel, such as Pillow does not write."""
    pixels = samples.tobytes()
    height, width = samples.shape
    short = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height, 339: sample_format}
    entries = [(tag, struct.pack("<HHIHH", tag, 3, 1, value, 0)) for tag, value in short.items()]
    entries += [(tag, struct.pack("<HHII", tag, 4, 1, value)) for tag, value in ((273, 8), (279, len(pixels)))]
    directory = struct.pack("<H", len(entries)) + b"".join(entry for _, entry in sorted(entries)) + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + directory


SMALL = {
    "grey PNG": encoded(PICTURE, "PNG"),
    "RGB PNG": encoded(PICTURE.convert("RGB"), "PNG"),
    "palette PNG": encoded(PICTURE.convert("P"), "PNG"),
    "alpha PNG": encoded(INK, "PNG"),
    "grey JPEG": encoded(PICTURE, "JPEG"),
    "progressive JPEG": encoded(PICTURE.convert("RGB"), "JPEG", progressive=True),
    "CMYK JPEG": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "TIFF": encoded(PICTURE, "TIFF"),
    "LZW TIFF": encoded(PICTURE, "TIFF", compression="tiff_lzw", save_all=True, append_images=[PICTURE] * 2),
    "G4 TIFF": encoded(PICTURE.convert("1"), "TIFF", compression="group4"),
    "BMP": encoded(PICTURE, "BMP"),
    "GIF": encoded(PICTURE, "GIF"),
    "animated GIF": encoded(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)]),
    "WebP": encoded(PICTURE.convert("RGB"), "WEBP"),
    "lossless WebP": encoded(INK, "WEBP", lossless=True),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_file_becomes_grey_pages_of_its_size(name: str) -> None:
    for page in pages_of(SMALL[name]):
        assert page.grey.shape == (20, 30)
        assert page.grey.dtype == np.uint8
        assert page.grey.flags.c_contiguous
        assert (page.width, page.height) == (30, 20)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [(kind, mode) for kind in ("PNG", "TIFF") for mode in ("L", "RGB", "RGBA", "LA", "P")]
    + [("TIFF", "CMYK"), *(("BMP", mode) for mode in ("L", "RGB", "RGBA", "P")), ("GIF", "L"), ("GIF", "P")],
)
def test_lossless_files_of_all_modes_give_the_grey_they_were_made_of(kind: str, mode: str) -> None:
    image = (
        PICTURE.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else PICTURE.convert(mode)
    )
    assert np.abs(page_of(encoded(image, kind)).grey.astype(int) - GREY).max() <= 1


def test_transparent_black_ink_lies_on_white_paper() -> None:
    expected = np.full((20, 30), 255, np.uint8)
    expected[3:17, 5:9] = 0
    for data in (encoded(INK, "PNG"), encoded(INK, "TIFF"), encoded(INK, "WEBP", lossless=True), encoded(INK, "GIF")):
        np.testing.assert_array_equal(page_of(data).grey, expected)


def test_half_transparent_black_is_middle_grey() -> None:
    assert page_of(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), "PNG")).grey[0, 0] == 127


@pytest.mark.parametrize(("mode", "transparent"), [("L", 0), ("RGB", (0, 0, 0)), ("1", 0), ("I;16", 0)])
def test_a_png_colour_that_stands_for_transparent_is_white(mode: str, transparent: object) -> None:
    image = Image.new(mode, (4, 4))
    image.putpixel((1, 2), (9, 90, 9) if mode == "RGB" else 1)
    grey = page_of(encoded(image, "PNG", transparency=transparent)).grey
    assert grey[2, 1] < 255
    grey[2, 1] = 255
    assert (grey == 255).all()


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(GREY > 128)
    for data in (encoded(bits, "PNG"), encoded(bits, "TIFF", compression="group4"), encoded(bits, "BMP")):
        np.testing.assert_array_equal(page_of(data).grey, np.where(GREY > 128, 255, 0))


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    for data in (encoded(image, "PNG"), encoded(image, "TIFF"), encoded(image, "TIFF", compression="tiff_lzw")):
        np.testing.assert_array_equal(page_of(data).grey, GREY)
    big_endian = Image.frombytes("I;16B", image.size, (GREY.astype(">u2") * 257).tobytes())
    np.testing.assert_array_equal(page_of(encoded(big_endian, "TIFF")).grey, GREY)


def test_a_tiff_whose_zero_is_white_is_the_right_way_round_at_every_depth() -> None:
    for bits in (8, 16):
        samples = (255 - GREY).astype(f"<u{bits // 8}") * (257 if bits == 16 else 1)
        np.testing.assert_array_equal(page_of(tiff_of(samples, photometric=0, bits=bits)).grey, GREY)
    samples = ((255 - GREY) / 255).astype("<f4")
    np.testing.assert_array_equal(page_of(tiff_of(samples, photometric=0, bits=32, sample_format=3)).grey, GREY)


@pytest.mark.parametrize("scale", [1 / 255, 1, 257, 1000])
def test_floats_are_scaled_by_the_range_they_fill(scale: float) -> None:
    samples = np.append(GREY, [[0] * 30, [255] * 30], axis=0)
    data = tiff_of((samples * scale).astype("<f4"), bits=32, sample_format=3)
    np.testing.assert_allclose(page_of(data).grey, samples, atol=1)


def test_floats_that_are_no_numbers_are_black_and_raise_nothing() -> None:
    samples = np.array([[np.nan, np.inf, -np.inf, 3e38], [-3e38, 0, 1, 2]], "<f4")
    assert page_of(tiff_of(samples, bits=32, sample_format=3)).grey.shape == (2, 4)
    assert (page_of(tiff_of(np.zeros((2, 2), "<f4"), bits=32, sample_format=3)).grey == 0).all()


def test_integers_of_thirty_two_bits_are_scaled_by_the_range_they_fill() -> None:
    data = tiff_of(GREY.astype("<i4") * 257, bits=32, sample_format=2)
    np.testing.assert_array_equal(page_of(data).grey, GREY)


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    grey = page_of(encoded(PICTURE.convert("CMYK"), "JPEG", quality=95)).grey
    assert np.abs(grey.astype(int) - GREY).mean() < 5


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_pages_are_turned_as_exif_says_and_invalid_values_are_ignored(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    page = page_of(encoded(PICTURE.convert("RGB"), kind, exif=exif, **options))
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        2: np.fliplr,
        3: lambda grey: np.rot90(grey, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda grey: np.rot90(grey, -1),
        7: lambda grey: np.rot90(grey, 2).T,
        8: np.rot90,
    }
    expected = turns.get(orientation, np.copy)(GREY)
    assert (page.height, page.width) == page.grey.shape == expected.shape
    assert np.abs(page.grey.astype(int) - expected).mean() < 5


def test_big_endian_exif_is_read_too() -> None:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    assert page_of(encoded(PICTURE, "JPEG", exif=exif)).grey.shape == (30, 20)


def test_damaged_exif_is_ignored() -> None:
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\0"):
        assert page_of(encoded(PICTURE, "JPEG", exif=exif)).grey.shape == (20, 30)


@pytest.mark.parametrize(
    ("side", "expected"),
    [(599, 599), (1025, 1024), (1500, 1024), (2000, 1000), (2100, 1024), (4000, 1000), (8000, 1000)],
)
def test_a_large_jpeg_is_reduced_and_keeps_its_stored_size(side: int, expected: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    page = page_of(encoded(Image.new("L", (side, 40), 200), "JPEG", exif=exif))
    assert page.grey.shape[0] == expected
    assert (page.width, page.height) == (40, side)


@pytest.mark.parametrize(("side", "seen"), [(599, 599), (600, 300), (601, 301), (1024, 512)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_of_middle_size_is_decoded_at_half_of_it_and_in_full_where_asked(
    side: int, seen: int, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(blurred_noise(40, side)), "JPEG", exif=exif, quality=95)
    whole = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    page = page_of(data)
    assert (page.height, page.width) == whole.shape
    assert max(page.grey.shape) == seen
    if seen == side:
        assert page.full_resolution is None
        return
    assert page.full_resolution is not None
    again = page.full_resolution()
    assert again.flags.c_contiguous
    assert np.abs(again.astype(int) - whole).max() <= 2
    half = cv2.resize(whole, page.grey.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(page.grey.astype(int) - half).mean() < 4


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_that_is_decoded_at_half_its_size_is_a_fault_wherever_it_is_cut_short(
    options: dict[str, Any], silent_codecs: None
) -> None:
    data = encoded(Image.fromarray(blurred_noise(40, 640)), "JPEG", **options)
    for length in [*range(0, len(data), 97), *range(len(data) - 8, len(data))]:
        (entry,) = decode(data[:length], LIMITS)
        assert isinstance(entry, Fault), length
        assert entry.kind is FaultKind.UNREADABLE


def blurred_noise(height: int, width: int) -> Grey:
    noise = np.random.default_rng(1).integers(0, 256, (height, width), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_every_large_page_is_bounded(kind: str) -> None:
    page = page_of(encoded(Image.new("L", (3000, 1), 200).convert("RGB"), kind))
    assert page.grey.shape == (1, MAX_SIDE)
    assert (page.width, page.height) == (3000, 1)


def test_every_page_of_a_tiff_is_read_in_order() -> None:
    images = [Image.new("L", (6, 5), value) for value in (10, 20, 30)]
    pages = pages_of(encoded(images[0], "TIFF", save_all=True, append_images=images[1:]))
    assert [page.grey[0, 0] for page in pages] == [10, 20, 30]


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (6, 5), (value,) * 3) for value in (10, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        assert page_of(data).grey[0, 0] == 10


def test_a_broken_page_of_a_tiff_is_a_fault_between_its_neighbours() -> None:
    first, second, third = decode((DATA / "broken_second_page.tif").read_bytes(), LIMITS)
    assert isinstance(first, Page)
    assert isinstance(second, Fault)
    assert isinstance(third, Page)


def test_a_tiff_cut_in_a_directory_ends_with_a_fault() -> None:
    first, second, third = decode((DATA / "cut_in_third_page.tif").read_bytes(), LIMITS)
    assert isinstance(first, Page)
    assert isinstance(second, Page)
    assert isinstance(third, Fault)


@pytest.mark.parametrize(
    ("pattern", "kind", "says"),
    [
        ("zero_bytes.png", FaultKind.UNREADABLE, "empty"),
        ("junk.*", FaultKind.UNREADABLE, "none of PNG"),
        ("text.gif", FaultKind.UNREADABLE, "none of PNG"),
        ("truncated.*", FaultKind.UNREADABLE, "cannot be decoded as"),
        ("bad_checksum.png", FaultKind.UNREADABLE, "checksum"),
        ("bomb.*", FaultKind.TOO_LARGE, "150,000,000"),
        ("photo.heic", FaultKind.UNSUPPORTED, "export it anew"),
        ("scan.pdf", FaultKind.UNSUPPORTED, "password"),
        ("drawing.svg", FaultKind.UNSUPPORTED, "rsvg-convert"),
    ],
)
def test_each_broken_file_is_the_fault_that_it_should_be(pattern: str, kind: FaultKind, says: str) -> None:
    paths = list(DATA.glob(pattern))
    assert paths
    for path in paths:
        fault = fault_of(path.read_bytes())
        assert fault.kind == kind, path
        assert says in fault.detail, path


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"P5\n3 3\n255\n" + bytes(9), "PNM"),
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"\0\0\1\0\1\0" + bytes(40), "icon"),
        (b"\xff\x0a\x3f\xf0", "JPEG XL"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"v/1\1" + bytes(30), "OpenEXR"),
        (bytes(128) + b"DICM" + bytes(20), "DICOM"),
    ],
)
def test_a_good_file_of_another_kind_is_not_to_be_copied_again(data: bytes, kind: str) -> None:
    fault = fault_of(data)
    assert fault.kind == FaultKind.UNSUPPORTED
    assert fault.detail.startswith(f"{kind} files are not read")
    assert "copy" not in fault.detail


def test_an_archive_names_the_source_that_reads_it() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("7.png", SMALL["grey PNG"])
    fault = fault_of(file.getvalue(), ".png")
    assert fault.kind == FaultKind.UNSUPPORTED
    assert "a ZIP archive; read it as zip:///PATH" in fault.detail
    with zipfile.ZipFile(workbook := io.BytesIO(), "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    assert "none of PNG" in fault_of(workbook.getvalue()).detail


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\n<!DOCTYPE html>\n<html><body><svg/>not found</body></html>", "web page"),
        (b"<HTML><HEAD><TITLE>Log in</TITLE></HEAD></HTML>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    ],
)
def test_what_was_saved_in_the_place_of_an_image_is_named(data: bytes, says: str) -> None:
    fault = fault_of(data, ".png")
    assert fault.kind == FaultKind.UNREADABLE
    assert says in fault.detail


def test_a_packing_that_a_codec_was_built_without_is_not_damage() -> None:
    def step() -> None:
        message = "Error while loading plugin: Support for this compression format has not been built in"
        raise ValueError(message)

    fault = guarded("HEIC", step)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNSUPPORTED
    assert "copy" not in fault.detail


def test_what_is_too_large_by_its_header_tells_its_size() -> None:
    fault = fault_of((DATA / "bomb.png").read_bytes())
    assert (fault.width, fault.height) == (60000, 60000)
    exif = Image.Exif()
    exif[0x0112] = 6
    fault = fault_of(encoded(PICTURE, "JPEG", exif=exif), max_pixels=599)
    assert (fault.width, fault.height) == (20, 30)


def of_width(kind: str, width: int) -> bytes:
    """A file whose header says that it is so wide."""
    if kind == "PNG":
        data = bytearray(SMALL["grey PNG"])
        struct.pack_into(">I", data, 16, width)
        return bytes(data)
    if kind == "BMP":
        data = bytearray(encoded(PICTURE, "BMP"))
        struct.pack_into("<i", data, 18, width)
        return bytes(data)
    entries = [(256, width), (257, 20), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 20), (279, 9)]
    if kind == "BigTIFF":
        directory = struct.pack("<Q", len(entries)) + b"".join(
            struct.pack("<HHQQ", tag, 16, 1, n) for tag, n in entries
        )
        return b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + directory + bytes(8)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, n) for tag, n in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4)


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        *(("PNG", width) for width in (2**31 - 1, 2**31, 2**32 - 1)),
        *(("TIFF", width) for width in (2**31 - 1, 2**31, 2**32 - 1)),
        *(("BigTIFF", width) for width in (2**31, 2**63 - 1, 2**63, 2**64 - 1)),
        *(("BMP", width) for width in (2**31 - 1, -1, -30, -(2**31))),
    ],
)
def test_whatever_width_a_header_says_fits_into_reports_or_is_not_told(kind: str, width: int) -> None:
    fault = fault_of(of_width(kind, width))
    assert fault.kind in (FaultKind.TOO_LARGE, FaultKind.UNREADABLE)
    assert width < 2**31 or fault.kind == FaultKind.TOO_LARGE
    assert (fault.width or 0) < 2**31
    assert (fault.width is None) == (not 0 < width < 2**31)


@pytest.mark.parametrize("name", SMALL)
def test_the_limit_of_pixels_holds_for_every_format_and_is_inclusive(name: str) -> None:
    assert pages_of(SMALL[name], max_pixels=600)
    for fault in decode(SMALL[name], DecodingSettings(max_pixels=599)):
        assert isinstance(fault, Fault)
        assert fault.kind == FaultKind.TOO_LARGE


def test_no_chunk_of_a_png_may_be_longer_than_the_file() -> None:
    whole = SMALL["grey PNG"]
    for name, says in ((b"IHDR", "begin with its header"), (b"IDAT", "cut short"), (b"IEND", "cut short")):
        at = whole.index(name)
        assert says in fault_of(whole[: at - 4] + b"\x7f\xff\xff\xff" + whole[at:]).detail


def test_a_gif_is_as_large_as_its_first_frame_where_that_is_larger_than_its_screen() -> None:
    for name in ("GIF", "animated GIF"):
        data = bytearray(SMALL[name])
        struct.pack_into("<HH", data, 6, 7, 9)
        assert pages_of(bytes(data), max_pixels=600)[0].grey.shape == (20, 30)
        struct.pack_into("<HH", data, data.index(b"\x2c\0\0\0\0") + 5, 13_001, 13_000)
        fault = fault_of(bytes(data))
        assert (fault.kind, fault.width, fault.height) == (FaultKind.TOO_LARGE, 13_001, 13_000)


def test_the_limit_of_pixels_holds_for_the_tiles_of_a_tiff_however_small_the_page_is() -> None:
    data = bytearray(tiff_of(GREY, bits=8))
    for strips, tiles in ((278, 322), (339, 323)):  # fields that can go
        at = data.index(struct.pack("<HHIHH", strips, 3, 1, *((20, 0) if strips == 278 else (1, 0))))
        struct.pack_into("<HHII", data, at, tiles, 4, 1, 13_001)
    fault = fault_of(bytes(data))
    assert fault.kind == FaultKind.TOO_LARGE
    assert "tiles of 13001 × 13001" in fault.detail


def test_a_jpeg_that_goes_over_its_pixels_again_and_again_is_a_fault() -> None:
    data = SMALL["progressive JPEG"]
    last = data.rindex(b"\xff\xda")
    scans = data.count(b"\xff\xda")
    assert pages_of(data)
    assert "more than 100 scans" in fault_of(data[:last] + data[last:-2] * (102 - scans) + data[-2:]).detail


@pytest.mark.parametrize(("limit", "value"), [("_MOST_PAGES", 2), ("MOST_PAGE_BYTES", 1_199)])
def test_a_tiff_of_too_many_pages_is_read_up_to_there(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    monkeypatch.setattr(tiff, limit, value)
    first, second, third = decode(SMALL["LZW TIFF"], LIMITS)
    assert isinstance(first, Page)
    assert isinstance(second, Page)
    assert isinstance(third, Fault)
    assert third.kind == FaultKind.TOO_LARGE
    assert "the 2 pages so far" in third.detail
    monkeypatch.setattr(tiff, limit, value + 1_000)
    assert len(pages_of(SMALL["LZW TIFF"])) == 3


def test_a_size_of_zero_is_a_fault() -> None:
    data = bytearray(SMALL["grey JPEG"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 7] = b"\0\0"
    assert "× 0" in fault_of(bytes(data)).detail


def test_the_content_counts_and_not_the_ending() -> None:
    assert isinstance(decode(SMALL["grey PNG"], LIMITS, ".jpg")[0], Page)
    assert isinstance(decode(SMALL["grey JPEG"], LIMITS, ".pdf")[0], Page)
    assert fault_of(b"no signature", ".svg").kind == FaultKind.UNSUPPORTED


def test_what_follows_the_end_of_an_image_does_not_matter() -> None:
    for name in ("grey PNG", "grey JPEG"):
        np.testing.assert_array_equal(page_of(SMALL[name] + b"more" * 50).grey, page_of(SMALL[name]).grey)


def test_pillows_warnings_do_not_escape() -> None:
    data = tiff_of(GREY, bits=8)
    directory = struct.unpack_from("<I", data, 4)[0]
    odd_tag = struct.pack("<HHII", 700, 2, 9999, 0xFFFFFF)  # its value lies outside of the file
    entries = struct.pack("<H", 11) + data[directory + 2 : -4] + odd_tag
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(page_of(data[:directory] + entries + b"\0" * 4).grey, GREY)


@pytest.mark.parametrize("name", SMALL)
def test_every_truncation_is_a_fault_or_the_whole_page(name: str, silent_codecs: None) -> None:
    whole = pages_of(SMALL[name])
    for length in range(len(SMALL[name])):
        entries = decode(SMALL[name][:length], LIMITS)
        assert 1 <= len(entries) <= len(whole)
        for entry, page in zip(entries, whole, strict=False):
            assert isinstance(entry, Fault) or np.array_equal(entry.grey, page.grey), length


@given(
    data=st.sampled_from(list(SMALL.values())),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_raise_nothing(silent_codecs: None, data: bytes, changes: list[tuple[float, int]]) -> None:
    mutated = bytearray(data)
    for place, value in changes:
        mutated[int(place * len(data))] = value
    entries = decode(bytes(mutated), LIMITS)
    assert entries
    assert all(isinstance(entry, Page | Fault) for entry in entries)


@pytest.fixture(scope="module")
def silent_codecs() -> Any:
    """Keep what libtiff and libjpeg write to file descriptor 2 out of the tests' output."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    yield
    os.dup2(kept, 2)
    os.close(kept)
    os.close(null)


def test_threads_give_the_same_pages_as_one() -> None:
    with ThreadPoolExecutor(4) as pool:
        for name, pages in zip(list(SMALL) * 10, pool.map(pages_of, list(SMALL.values()) * 10), strict=True):
            for page, alone in zip(pages, pages_of(SMALL[name]), strict=True):
                np.testing.assert_array_equal(page.grey, alone.grey)

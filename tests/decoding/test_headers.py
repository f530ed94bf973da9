"""What files say beside their pixels: orientation wherever it was written, and checksums that do not matter."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings

LIMITS = DecodingSettings()
GREY = np.full((20, 30), 230, np.uint8)
GREY[3:17, 5:9] = 10
TURNED = np.rot90(GREY, -1)
XMP = b'<x:xmpmeta><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x:xmpmeta>'
XMP_SPACED = XMP.replace(b'Orientation="6"', b"Orientation = '6' ")
XMP_ELEMENT = b"<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"


def saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, kind, **options)
    return file.getvalue()


def grey_of(data: bytes) -> np.ndarray:
    (page,) = decode(data, LIMITS)
    assert isinstance(page, Page), page
    assert (page.height, page.width) == page.grey.shape
    return page.grey


def exif(order: str, kind: int, value: bytes) -> bytes:
    start = b"II*\0" if order == "<" else b"MM\0*"
    return b"Exif\0\0" + start + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, 1) + value + bytes(4)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: bytes) -> bytes:
    whole = saved("PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(1, "Bxxx"), (3, "Hxx"), (4, "I"), (9, "i")])
def test_an_orientation_is_read_in_every_type_and_order(order: str, kind: int, code: str) -> None:
    grey = grey_of(saved("JPEG", quality=95, exif=exif(order, kind, struct.pack(order + code, 6))))
    assert np.abs(grey.astype(int) - TURNED).mean() < 5


@pytest.mark.parametrize("xmp", [XMP, XMP_SPACED, XMP_ELEMENT])
def test_an_orientation_in_xmp_is_read_where_exif_has_none(xmp: bytes) -> None:
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp
    jpeg = saved("JPEG", quality=95)
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + jpeg[2:]
    for data in (
        jpeg,
        png_with(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        saved("WEBP", lossless=True, xmp=xmp),
    ):
        assert np.abs(grey_of(data).astype(int) - TURNED).mean() < 5


@pytest.mark.parametrize("keyword", [b"Raw profile type exif", b"Raw profile type APP1"])
def test_an_orientation_in_the_text_chunks_of_imagemagick_is_read(keyword: bytes) -> None:
    profile = exif(">", 3, struct.pack(">Hxx", 6))
    text = b"\nexif\n%8d\n%s\n" % (len(profile), profile.hex().encode())
    chunks = (
        chunk(b"tEXt", keyword + b"\0" + text),
        chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text)),
        chunk(b"iTXt", keyword + b"\0\1\0\0\0" + zlib.compress(text)),
    )
    for data in map(png_with, chunks):
        np.testing.assert_array_equal(grey_of(data), TURNED)


@pytest.mark.parametrize("text", [b"\nexif\n 9\nzz zz", b"", b"\xff\xfe", b"\nexif\n"])
def test_damaged_text_chunks_are_ignored(text: bytes) -> None:
    for data in (png_with(chunk(name, b"Raw profile type exif\0" + text)) for name in (b"tEXt", b"zTXt", b"iTXt")):
        np.testing.assert_array_equal(grey_of(data), GREY)


def test_a_wrong_checksum_beside_the_pixels_refuses_no_picture(capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [chunk(name, b"abc\0def")[:-4] + b"\1\2\3\4" for name in (b"tEXt", b"iCCP", b"gAMA", b"eXIf", b"quux")]
    for mode in ("L", "RGB", "P", "LA", "RGBA", "1", "I;16"):
        image = Image.fromarray(GREY.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(GREY).convert(mode)
        file = io.BytesIO()
        image.save(file, "PNG")
        data = file.getvalue()
        assert grey_of(data[:33] + b"".join(wrong) + data[33:-4] + b"\1\2\3\4").shape == (20, 30)
    assert capfd.readouterr() == ("", "")


def test_the_gamma_of_a_png_turns_neither_grey_nor_colour() -> None:
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    for mode in ("L", "RGB", "RGBA"):
        file = io.BytesIO()
        Image.fromarray(GREY).convert(mode).save(file, "PNG")
        data = file.getvalue()
        np.testing.assert_array_equal(grey_of(data[:33] + gamma + data[33:]), GREY)


@pytest.mark.parametrize(("colour", "depth"), [(0, 8), (0, 1), (3, 8), (2, 8), (4, 8), (6, 8), (0, 16), (2, 16)])
def test_a_png_of_fewer_rows_than_its_header_says_is_a_fault(
    colour: int, depth: int, capfd: pytest.CaptureFixture[str]
) -> None:
    samples = (1, 0, 3, 1, 2, 0, 4)[colour]
    row = b"\0" + b"\x55" * ((16 * samples * depth + 7) // 8)
    palette = chunk(b"PLTE", bytes(range(3)) * 256) if colour == 3 else b""

    def png(rows: int) -> bytes:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, depth, colour, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(row * rows)) + chunk(b"IEND", b"")

    assert grey_of(png(16)).shape == (16, 16)
    (fault,) = decode(png(9), LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNREADABLE
    assert "copy it again" in fault.detail
    assert capfd.readouterr() == ("", "")


def test_an_apple_png_is_named_and_not_to_be_copied_again() -> None:
    whole = saved("PNG")
    (fault,) = decode(whole[:8] + chunk(b"CgBI", b"P\0 \2") + whole[8:], LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNSUPPORTED
    assert "saved by an Apple program" in fault.detail
    assert "copy it again" not in fault.detail


@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9", b"\xff\xc5", "another"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_half_a_jpeg_is_a_fault_however_it_ends(
    mode: str, end: bytes | str, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 30, (200, 160), np.uint8) + 200
    Image.fromarray(noise).convert(mode).save(file, "JPEG", quality=90)
    whole = file.getvalue()
    cut = whole[: int(len(whole) * share)]
    (fault,) = decode(
        cut + (whole if isinstance(end, str) else end + whole[len(cut) + 2 :] if end == b"\xff\xc5" else end), LIMITS
    )
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNREADABLE
    assert "copy it again" in fault.detail
    assert capfd.readouterr() == ("", "")


def test_what_only_fills_a_jpeg_up_is_no_damage() -> None:
    whole = saved("JPEG", quality=95)
    for filling in (bytes(40), b"\xaa" * 7):
        np.testing.assert_array_equal(grey_of(whole[:-2] + filling + whole[-2:]), grey_of(whole))
    (fault,) = decode(whole[:-2] + bytes(range(1, 80)) + whole[-2:], LIMITS)
    assert isinstance(fault, Fault)


def test_a_jpeg_with_an_odd_header_is_read() -> None:
    whole = saved("JPEG", quality=95)
    at, scan = whole.index(b"JFIF\0") + 5, whole.index(b"\xff\xda")
    assert whole[scan + 7 : scan + 10] == b"\0\x3f\0"
    for data in (
        whole[:at] + b"\3" + whole[at + 1 :],
        whole[: scan + 7] + b"\0\0\0" + whole[scan + 10 :],
    ):
        np.testing.assert_array_equal(grey_of(data), grey_of(whole))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_what_is_wrong_before_the_pixels_of_a_jpeg_refuses_no_picture(
    mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    file = io.BytesIO()
    Image.fromarray(GREY).convert(mode).save(file, "JPEG", quality=95)
    whole = file.getvalue()
    profile = b"\xff\xe2\0\x0eICC_PROFILE\0"  # without its number
    for junk in (b"\0", b"\1\2\3\4\5", b"\xff\0", profile, b"\xff\xe1\0\4ab" + bytes(40)):
        for marker in (b"\xff\xdb", b"\xff\xc0", b"\xff\xc4"):
            at = whole.index(marker)
            np.testing.assert_array_equal(grey_of(whole[:at] + junk + whole[at:]), grey_of(whole))
        (fault,) = decode(whole[:at] + junk + whole[at:-60], LIMITS)
        assert isinstance(fault, Fault)
    assert capfd.readouterr() == ("", "")


def test_kinds_of_jpeg_that_are_not_read_are_unsupported() -> None:
    whole = saved("JPEG")
    at = whole.index(b"\xff\xc0")
    for data in (whole.replace(b"\xff\xc0", b"\xff\xc3", 1), whole[: at + 4] + b"\x0c" + whole[at + 5 :]):
        (fault,) = decode(data, LIMITS)
        assert isinstance(fault, Fault)
        assert fault.kind == FaultKind.UNSUPPORTED
        assert "copy it again" not in fault.detail


def test_what_is_too_large_names_the_option_and_a_page_of_twelve_hundred_dots_is_not() -> None:
    (fault,) = decode(saved("PNG"), DecodingSettings(max_pixels=599))
    assert isinstance(fault, Fault)
    assert "--max-pixels" in fault.detail
    assert LIMITS.max_pixels >= 9921 * 14031


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF"])
def test_jpeg_2000_and_avif_are_images(kind: str) -> None:
    options = {"AVIF": {"quality": 95}}.get(kind, {})
    assert np.abs(grey_of(saved(kind, **options)).astype(int) - GREY).mean() < 5

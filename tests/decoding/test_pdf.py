"""PDFs and photos of telephones, of the extra `formats`: a row a page, or a reason; and what is said without it."""

import io
import re
import struct
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from batchdigits.decoding import pdf
from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import MAX_SIDE, Page, reduced
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings

DATA = Path(__file__).parents[1] / "data"
LIMITS = DecodingSettings()
ONE_BIT = "/DeviceGray/BitsPerComponent 1"
GREY = np.full((120, 90), 235, np.uint8)
GREY[20:100, 40:52] = 15
GREY[20:32, 20:52] = 15
NOISY = np.random.default_rng(7).integers(0, 256, (*GREY.shape, 4)).astype(np.uint8)  # which packs to no less


def pdf_of(*images: Image.Image, dots: float = 72.0) -> bytes:
    file = io.BytesIO()
    images[0].save(file, "PDF", save_all=True, append_images=images[1:], resolution=dots)
    return file.getvalue()


def drawn(media_box: str, content: bytes = b"0 0 0 rg 20 10 15 80 re f", *more: bytes, resources: str = "") -> bytes:
    """Write a PDF of one page with a black bar, as a program draws it, or with other content."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        f"<</Type/Page/Parent 2 0 R/MediaBox[{media_box}]/Contents 4 0 R/Resources<<{resources}>>>>".encode(),
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        *more,
    ]
    data = b"%PDF-1.4\n"
    for number, text in enumerate(objects, 1):
        data += b"%d 0 obj%s endobj\n" % (number, text)
    return data + b"trailer<</Root 1 0 R/Size %d>>\n%%%%EOF" % (len(objects) + 1)


def holding(packing: str, colours: str, data: bytes, *more: bytes, height: int = 120) -> bytes:
    """Write a PDF whose one page is an image of the size of `GREY`, so packed."""
    about = f"/Type/XObject/Subtype/Image/Width 90/Height {height}/ColorSpace{colours}{packing}/Length {len(data)}"
    image = b"<<%s>>stream\n%s\nendstream" % (about.encode(), data)
    content = f"90 0 0 {height} 0 0 cm /I Do".encode()
    return drawn(f"0 0 90 {height}", content, image, *more, resources="/XObject<</I 5 0 R>>")


def packed(kind: str) -> tuple[str, str, bytes]:
    """Pack `NOISY`, and say how."""
    file, image = io.BytesIO(), Image.fromarray(NOISY[..., 0])
    if kind in ("JPEG", "JPEG2000"):
        image.save(file, kind)
        packing = {"JPEG": "/Filter/DCTDecode", "JPEG2000": "/Filter/JPXDecode"}[kind]
        return packing, "/DeviceGray/BitsPerComponent 8", file.getvalue()
    if kind.startswith("group"):
        rows = "/K -1" if kind == "group4" else "/K 0/EndOfLine true"
        return f"/Filter/CCITTFaxDecode/DecodeParms<<{rows}/Columns 90/Rows 120>>", ONE_BIT, fax(kind)
    if kind.startswith("JBIG2"):
        return "/Filter/JBIG2Decode", ONE_BIT, jbig2(fax("group4"), is_open=kind.endswith("open"))
    colours, depth = kind.split()
    samples = NOISY[..., : {"Gray": 1, "RGB": 3, "CMYK": 4}[colours]]
    bits = np.unpackbits(samples.reshape(120, -1, 1), axis=-1)[..., : int(depth)]  # the first of each sample
    rows = np.packbits(bits.reshape(120, -1), axis=1)
    return "/Filter/FlateDecode", f"/Device{colours}/BitsPerComponent {depth}", zlib.compress(rows.tobytes())


def fax(packing: str) -> bytes:
    """Pack the first bits of `NOISY` as fax codes."""
    file = io.BytesIO()
    Image.fromarray(NOISY[..., 0] > 127).save(file, "TIFF", compression=packing, strip_size=2**20)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as tiff:
        ((start, length),) = zip(tiff.pages.first.dataoffsets, tiff.pages.first.databytecounts, strict=True)
    return file.getvalue()[start : start + length]


def jbig2(codes: bytes, *, is_open: bool) -> bytes:
    """Write JBIG2 of a page, and one region on it, packed as Group 4; the region's length may be left open."""
    page = struct.pack(">IBBBI", 0, 48, 0, 1, 19) + struct.pack(">IIIIBH", 90, 120, 0, 0, 0, 0)
    region = struct.pack(">IIIIBB", 90, 120, 0, 0, 0, 1) + codes + (b"\0\0" + struct.pack(">I", 120)) * is_open
    return page + struct.pack(">IBBBI", 1, 38, 0, 1, 2**32 - 1 if is_open else len(region)) + region


PACKED = [
    "JPEG",
    "JPEG2000",
    "group3",
    "group4",
    "JBIG2",
    "JBIG2 open",
    *(f"{name} {bits}" for name in ("Gray", "RGB", "CMYK") for bits in (1, 2, 4, 8)),
]


@pytest.fixture(autouse=True)
def pdfium() -> None:
    pytest.importorskip("pypdfium2")
    pytest.importorskip("pi_heif")


def test_a_page_that_is_one_scanned_image_is_that_image() -> None:
    for dots in (72.0, 200.0):
        (page,) = decode(pdf_of(Image.fromarray(GREY), dots=dots), LIMITS)
        assert isinstance(page, Page)
        assert (page.width, page.height) == (90, 120)
        assert np.abs(page.grey.astype(int) - GREY).mean() < 4


def test_a_page_that_was_drawn_has_three_hundred_dots_an_inch() -> None:
    (page,) = decode(drawn("0 0 72 144"), LIMITS)
    assert isinstance(page, Page)
    assert (page.width, page.height) == (300, 600)
    assert page.grey[-50, 100] == 0
    assert page.grey[50, 100] == 255


def test_twenty_pages_are_twenty_rows_in_their_order() -> None:
    pages = decode(pdf_of(*(Image.new("L", (60, 80), 100 + 5 * number) for number in range(20))), LIMITS)
    greys = [int(page.grey[40, 30]) for page in pages if isinstance(page, Page)]
    assert np.abs(np.array(greys) - 100 - 5 * np.arange(20)).max() <= 2
    assert len(greys) == 20


def test_a_large_scan_is_bounded_and_keeps_its_size() -> None:
    (page,) = decode(pdf_of(Image.new("L", (1500, 2000), 200), dots=150), LIMITS)
    assert isinstance(page, Page)
    assert (page.width, page.height) == (1500, 2000)
    assert max(page.grey.shape) == MAX_SIDE


@pytest.mark.parametrize("side", [1000, 1024, 2047, 2048, 3000])
def test_a_large_page_is_drawn_smaller_and_looks_as_if_it_were_reduced(side: int) -> None:
    large = cv2.resize(GREY, (side * 3 // 4, side), interpolation=cv2.INTER_CUBIC)
    (page,) = decode(pdf_of(Image.fromarray(large), dots=300), LIMITS)
    assert isinstance(page, Page)
    assert (page.width, page.height) == large.shape[::-1]
    assert page.grey.shape == reduced(large).shape
    assert np.abs(page.grey.astype(int) - reduced(large)).mean() < 2


def test_pages_over_the_most_are_one_last_row(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pdf_of(*[Image.new("L", (20, 20), 200)] * 5)
    for limit, value in (("_MOST_PAGES", 3), ("MOST_PAGE_BYTES", 1_100)):
        with monkeypatch.context() as patch:
            patch.setattr(pdf, limit, value)
            *pages, fault = decode(data, LIMITS)
            assert len(pages) == 3
            assert isinstance(fault, Fault)
            assert fault.kind == FaultKind.TOO_LARGE
            assert "5 pages" in fault.detail


def test_a_page_as_large_as_a_house_is_refused_by_its_size() -> None:
    (fault,) = decode(drawn("0 0 14400 14400"), LIMITS)
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.width) == (FaultKind.TOO_LARGE, 60_000)


def test_an_image_of_more_pixels_than_the_limit_is_drawn_at_fewer_dots() -> None:
    (page,) = decode(pdf_of(Image.fromarray(GREY), dots=600), DecodingSettings(max_pixels=5000))
    assert isinstance(page, Page)
    assert page.width * page.height <= 5000


def test_a_damaged_pdf_is_unreadable_and_a_locked_one_is_not_to_be_copied_again() -> None:
    whole = pdf_of(Image.fromarray(GREY))
    for length in (20, len(whole) // 2):
        (fault,) = decode(whole[:length], LIMITS)
        assert isinstance(fault, Fault)
        assert fault.kind == FaultKind.UNREADABLE
    (fault,) = decode((DATA / "scan.pdf").read_bytes(), LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNSUPPORTED
    assert "password" in fault.detail


@pytest.mark.parametrize("kind", PACKED)
def test_of_an_image_in_a_page_half_is_no_digit(kind: str) -> None:
    packing, colours, data = packed(kind)
    (page,) = decode(holding(packing, colours, data), LIMITS)
    assert isinstance(page, Page)
    cuts = [data[: len(data) * share // 100] for share in (0, 30, 55, 90)]
    for cut in (*cuts, cuts[2] + bytes(len(data) - len(cuts[2]))):
        (fault,) = decode(holding(packing, colours, cut), LIMITS)
        assert isinstance(fault, Fault)
        assert fault.kind == FaultKind.UNREADABLE
        assert "damaged or half copied" in fault.detail


FAX = "/Filter/CCITTFaxDecode/DecodeParms"
GROUP_4 = b"<</K -1/Columns 90/Rows 120>>"


@pytest.mark.parametrize(
    "pdf",
    [
        holding(f"{FAX} 6 0 R", ONE_BIT, fax("group4"), GROUP_4),
        holding(
            f"{FAX}[null 6 0 R]".replace("/CC", "[/ASCIIHexDecode/CC").replace("code/Dec", "code]/Dec"),
            ONE_BIT,
            fax("group4").hex().encode() + b">",
            GROUP_4,
        ),
        holding(f"{FAX}<</K -1/Columns 90>>", ONE_BIT, fax("group4")[:-3], b"<</K 0/EncodedByteAlign true>>"),
        holding(f"{FAX}<</K 0/Columns 90/Rows 120/EncodedByteAlign true>>", ONE_BIT, fax("tiff_ccitt"), GROUP_4),
        holding(f"{FAX}<</K -1/Columns 90/Rows 120>>", ONE_BIT, fax("group4"), height=124),
        holding(f"{FAX}<</K -1/Columns 90/Rows 120>>", ONE_BIT, fax("group4"), height=100),
        holding(f"{FAX}<</K -1/Columns 90/Rows 124>>", ONE_BIT, fax("group4")),
        holding(f"{FAX}<</K -1/Columns 6 0 R/Rows 7 0 R>>", ONE_BIT, fax("group4"), b"90", b"120"),
    ],
    ids=[
        "elsewhere",
        "of two packings",
        "group 4 beside aligned rows",
        "aligned rows beside group 4",
        "fewer rows",
        "more rows",
        "rows that are not there",
        "numbers elsewhere",
    ],
)
def test_fax_codes_are_read_as_their_own_image_says(pdf: bytes) -> None:
    (page,) = decode(pdf, LIMITS)
    assert isinstance(page, Page)
    np.testing.assert_array_equal(page.grey[:120] > 127, NOISY[: len(page.grey), :, 0] <= 127)


def test_fax_codes_of_fewer_rows_than_their_image_says_are_unreadable() -> None:
    (fault,) = decode(holding(f"{FAX}<</K -1/Columns 90>>", ONE_BIT, fax("group4"), height=124), LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNREADABLE


def test_fax_codes_of_wider_rows_than_the_limit_are_refused_before_they_are_decoded() -> None:
    (fault,) = decode(holding(f"{FAX}<</K -1/Columns 10000000/Rows 120>>", ONE_BIT, fax("group4")), LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.TOO_LARGE
    assert "10000000 × 120 pixels are more than the limit" in fault.detail


def test_wrong_fax_codes_are_told_whatever_else_the_file_holds() -> None:
    codes = bytearray(fax("group4"))
    codes[1000:1003] = b"\0\1\0"
    for other in (GROUP_4, b"<</K 0/EncodedByteAlign true>>"):
        (fault,) = decode(holding(f"{FAX}<</K -1/Columns 90>>", ONE_BIT, bytes(codes), other), LIMITS)
        assert isinstance(fault, Fault)
        assert fault.kind == FaultKind.UNREADABLE


def test_an_image_whose_pixels_are_wrong_is_unreadable() -> None:
    packing, colours, data = packed("Gray 8")
    wrong = bytearray(zlib.decompress(data))
    wrong[5000] ^= 255
    broken = zlib.compress(bytes(wrong))[:-4] + data[-4:]
    (fault,) = decode(holding(packing, colours, broken), LIMITS)
    assert isinstance(fault, Fault)


@pytest.mark.parametrize(("name", "size"), [("upright.heic", (90, 120)), ("turned.heic", (120, 90))])
def test_a_heic_photo_is_read_upright(name: str, size: tuple[int, int]) -> None:
    photo = (DATA / name).read_bytes()
    (page,) = decode(photo, LIMITS)
    assert isinstance(page, Page)
    assert (page.width, page.height) == size
    upright = GREY if name == "upright.heic" else np.rot90(GREY, -1)
    assert np.abs(page.grey.astype(int) - upright).mean() < 4
    (fault,) = decode(photo[:-200], LIMITS)
    assert isinstance(fault, Fault)


@pytest.mark.parametrize(("library", "name"), [("pypdfium2", "scan.pdf"), ("pi_heif", "photo.heic")])
def test_without_the_extra_a_row_names_it(library: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (fault,) = decode((DATA / name).read_bytes(), LIMITS)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.UNSUPPORTED
    assert re.search(r"pip install batchdigits\[formats\], then run with --retry-failed; or convert it", fault.detail)

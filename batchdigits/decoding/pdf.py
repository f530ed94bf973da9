"""Decode each page of a PDF: drawn at 300 dots an inch, or where it is one scanned image, at the dots of that.

By PDFium, of the extra `formats`. It is not safe in threads, so that one page is drawn at a time.
"""

import math
import re
import threading
import zlib
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

from batchdigits.decoding import completeness, headers
from batchdigits.decoding.grayscale import grey_of
from batchdigits.decoding.jpeg import check_whole
from batchdigits.decoding.pages import (
    MAX_SIDE,
    MOST_PAGE_BYTES,
    Page,
    PageError,
    check_size,
    damaged,
    guarded,
    needs_extra,
    page_of,
)
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfPage

DOTS_PER_INCH: Final = 300

_POINTS_PER_INCH = 72
_STORED_BITS = [samples * depth for samples in (1, 3, 4) for depth in (1, 2, 4, 8, 16)]  # of a pixel
_FAX = re.compile(rb"/(?:CCITTFaxDecode|CCF)\b")
_MOST_FAX = 10_000  # images of a file whose own parameters are looked at
_MOST_DICTIONARY = 4096  # bytes of what an image says of itself before its data
_ELSEWHERE = re.compile(rb"/(?:DecodeParms|DP)[\s\[nul]{0,20}\s(\d{1,9})\s{1,9}\d{1,5}\s{1,9}R\b")
_SMALL_OBJECT = re.compile(rb"\b(\d{1,9})\s{1,9}\d{1,5}\s{1,9}obj\s{0,9}(<<[^<>]{0,500}>>)")
_GROUP_4 = re.compile(rb"/K\s*-")
_ALIGNED = re.compile(rb"/EncodedByteAlign\s+true")
_COLUMNS = re.compile(rb"/Columns\s+(\d{1,9})\b(?!\s+\d+\s+R\b)")  # and not where the number stands elsewhere
_ROWS = re.compile(rb"/Rows\s+(\d{1,9})\b(?!\s+\d+\s+R\b)")
_USUAL_COLUMNS = 1728  # of fax codes whose parameters do not say it
_MOST_FILLING = 64  # bytes after the last sample of an image
_NO_MORE = 1 - 1e-6  # PDFium rounds sides up
_MOST_PAGES = 1000  # of a file: drawing takes some hundredths of a second a page
_CONVERTED_BY = "pdftoppm -r 300 -png IN.pdf OUT"
_LOCKED = "the PDF is protected by a password; save it without one"
_ONE_AT_A_TIME = threading.Lock()

_FaxOf = Callable[[bytes, int, int], completeness.Fax]


def pdf_pages(data: bytes, settings: DecodingSettings) -> list[Page | Fault]:
    """Decode every page of a PDF.

    Returns:
        One entry a page, at least one; what is too much for one file is one last fault.
    """
    with _ONE_AT_A_TIME:
        document = guarded("PDF", _opened, data)
        if isinstance(document, Fault):
            return [document]
        try:
            return _pages(document, settings, partial(_fax, data, _fax_dictionaries(data)))
        finally:
            document.close()


def _opened(data: bytes) -> "PdfDocument | Fault":
    try:
        import pypdfium2
        from pypdfium2 import raw
    except ImportError:
        return needs_extra("PDF", _CONVERTED_BY)
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            return Fault(FaultKind.UNSUPPORTED, _LOCKED)
        return damaged("PDF", str(error))
    document.init_forms()  # what was filled in is drawn as well
    return document


def _fax_dictionaries(data: bytes) -> dict[int, bytes]:
    """Find what images that are packed as fax codes say of themselves, by where the codes begin in the file."""
    found = {}
    parameters: dict[bytes, bytes] | None = None  # that stand by themselves, by their number
    for named in islice(_FAX.finditer(data), _MOST_FAX):
        first = data.rfind(b"obj", max(0, named.start() - _MOST_DICTIONARY), named.start())
        end = data.find(b"stream", named.end(), named.end() + _MOST_DICTIONARY)
        if first < 0 or end < 0:
            continue
        about = data[first:end]
        if reference := _ELSEWHERE.search(about):
            parameters = dict(_SMALL_OBJECT.findall(data)) if parameters is None else parameters
            about += parameters.get(reference[1], b"")
        found[end + len(b"stream\r\n" if data.startswith(b"\r\n", end + 6) else b"stream\n")] = about
    return found


def _fax(data: bytes, dictionaries: dict[int, bytes], packed: bytes, width: int, height: int) -> completeness.Fax:
    """Tell how the fax codes of an image have to be read, which PDFium does not.

    Args:
        data: The file.
        dictionaries: What its images say, by where their codes begin.
        packed: Those of the image as they stand in the file.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
    """
    about = next((about for start, about in dictionaries.items() if data.startswith(packed, start)), None)
    if about is not None:
        usual = width if b"/Columns" in about else _USUAL_COLUMNS
        width = int([usual, *_COLUMNS.findall(about)][-1])
        height = int([0, *_ROWS.findall(about)][-1]) or height
    else:  # it stands within a page's own, or is encrypted
        about = data
    is_group_4, is_aligned = (pattern.search(about) is not None for pattern in (_GROUP_4, _ALIGNED))
    return completeness.Fax(is_group_4, is_aligned, width, height)


def _pages(document: "PdfDocument", settings: DecodingSettings, fax: _FaxOf) -> list[Page | Fault]:
    if len(document) == 0:
        return [damaged("PDF", "it has no pages")]
    pages: list[Page | Fault] = []
    room = MOST_PAGE_BYTES
    for number in range(len(document)):
        if room < 0 or number == _MOST_PAGES:
            detail = f"the file has {len(document):,} pages, more than the {number:,} so far; split it"
            return [*pages, Fault(FaultKind.TOO_LARGE, detail)]
        pages.append(page := guarded("PDF", _page, document, number, settings, fax))
        room -= page.grey.nbytes if isinstance(page, Page) else 0
    return pages


def _page(document: "PdfDocument", number: int, settings: DecodingSettings, fax: _FaxOf) -> Page:
    """Draw a page, by its number from 0.

    Raises:
        PageError: it has more pixels than the limit, or an image in it is not whole.
        pypdfium2.PdfiumError: it is damaged.
    """
    page = document[number]
    try:
        scale = _image_scale(page, settings) or DOTS_PER_INCH / _POINTS_PER_INCH
        width, height = (math.ceil(side * scale * _NO_MORE) for side in page.get_size())
        check_size(width, height, settings)
        _check_images(page, settings, fax)
        parts = max(1, max(width, height) // MAX_SIDE)  # of a pixel: a page of A4 is drawn in a fifth of the time so
        bitmap = page.render(scale=scale * _NO_MORE / parts, rev_byteorder=True)
        grey = grey_of(bitmap.to_numpy()[..., :3].copy())
        bitmap.close()
        return page_of(grey, width, height)
    finally:
        page.close()


def _check_images(page: "PdfPage", settings: DecodingSettings, fax: _FaxOf) -> None:
    """Refuse a page of whose images one is not whole: PDFium draws the half that there is.

    Raises:
        PageError: it is such a page, or an image's fax codes are of more pixels than the limit.
        ValueError: an image that should be a JPEG is none.
    """
    from pypdfium2 import raw

    for image in page.get_objects(filter=(raw.FPDF_PAGEOBJ_IMAGE,)):
        about = image.get_metadata()
        if about.width * about.height > settings.max_pixels:  # it is drawn at fewer
            continue
        packings, data = image.get_filters(), bytes(image.get_data(decode_simple=True))
        packed_as = packings[-1] if packings else ""
        if packed_as == "DCTDecode" and data:
            check_whole(data, settings)
            continue
        if packed_as == "JPXDecode":
            is_whole = headers.JPEG_2000_END in data
        elif packed_as == "CCITTFaxDecode":
            codes = fax(bytes(image.get_data()), about.width, about.height)
            counts = {codes.rows, about.height}  # of which either may be wrong, or leave out the last rows
            check_size(codes.columns, max(counts), settings)  # which need not be those of the image
            is_whole = any(completeness.is_whole_fax(data, codes._replace(rows=rows)) for rows in counts)
        elif packed_as == "JBIG2Decode":
            is_whole = completeness.is_whole_jbig2(data)
        else:
            bits = 32 if about.colorspace == raw.FPDF_COLORSPACE_DEVICECMYK else about.bits_per_pixel
            is_whole = _has_all_samples(len(data), about.width, about.height, bits)
        if packings == ["FlateDecode"]:
            zlib.decompressobj().decompress(bytes(image.get_data()), len(data) + about.height + 1)
        if not is_whole or about.bits_per_pixel == 0:  # then PDFium made nothing of it
            raise PageError(damaged("PDF", "an image in it is not whole"))


def _has_all_samples(size_bytes: int, width: int, height: int, bits: int) -> bool:
    """Tell whether there are as many bytes as an image has pixels.

    Args:
        size_bytes: How many there are.
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        bits: Of a pixel as PDFium holds it, which may be more than are stored: then any usual number of bits does.
    """
    sizes = (height * -(-width * stored // 8) for stored in _STORED_BITS)
    return size_bytes >= height * -(-width * bits // 8) or any(
        0 <= size_bytes - size <= _MOST_FILLING for size in sizes
    )


def _image_scale(page: "PdfPage", settings: DecodingSettings) -> float | None:
    """Tell the pixels a point at which the one image that a page is keeps its own; None where it is something else."""
    from pypdfium2 import raw

    objects = list(page.get_objects(max_depth=2))
    if len(objects) != 1 or objects[0].type != raw.FPDF_PAGEOBJ_IMAGE:
        return None
    left, bottom, right, top = objects[0].get_bounds()
    width, height = page.get_size()
    if page.get_rotation() % 180:
        left, bottom, right, top = bottom, left, top, right
    if right - left < 0.9 * width or top - bottom < 0.9 * height:
        return None
    across, down = objects[0].get_px_size()
    scale = max(across, down) / max(right - left, top - bottom)
    return scale if width * height * scale**2 <= settings.max_pixels else None

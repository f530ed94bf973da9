"""Read from a file's first bytes what it says before its pixels: kind, size, orientation, the places of its pages.

Read here so that a page's size is known before anything is decoded or allocated, and because codecs skip, or
write to standard error, what a report has to say. Errors are worded to follow «cannot be decoded as PNG: ».
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from batchdigits.errors import Fault, FaultKind

_PNG_HEADER = struct.Struct(">IIBB")
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CHECKSUM = struct.Struct(">I")
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE_MARKERS = frozenset({0x00, 0x01, *range(0xD0, 0xD9), 0xFF})  # without a length; 0xFF only fills
_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_FRAME = struct.Struct(">BHHB")
_JPEG_SCAN = re.compile(rb"\xff\xda\0")  # the marker, and half of its length; it cannot stand among the pixels' bytes
_JPEG_MOST_SCANS = 100  # passes over the pixels; encoders make about ten, and an empty one takes but ten bytes
_GIF_BLOCK = re.compile(rb"[!,;]")  # an extension, a frame, the end; Pillow skips anything else
_EXIF_ORIENTATION = 0x0112
_UNSUPPORTED = {
    ".pdf": re.compile(rb".{0,1000}%PDF-", re.DOTALL),
    ".avif": re.compile(rb".{4}ftypavi[fs]", re.DOTALL),
    ".heic": re.compile(rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    ".jp2": re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"),
    ".svg": re.compile(rb"\s*<[?!\w].{0,4000}<svg|\s*<svg", re.DOTALL),
}
_CONVERSIONS = {
    ".pdf": "pdftoppm -r 300 -png IN.pdf OUT",
    ".avif": "avifdec IN.avif OUT.png",
    ".heic": "heif-convert IN.heic OUT.png",
    ".heif": "heif-convert IN.heif OUT.png",
    ".jp2": "opj_decompress -i IN.jp2 -o OUT.png",
    ".svg": "rsvg-convert -o OUT.png IN.svg",
}


def png_header(data: bytes) -> tuple[int, int, int, int]:
    """Read width and height in pixels, the bits of a sample, and the colour type.

    Raises:
        struct.error: the file ends before them.
    """
    width, height, depth, colour = _PNG_HEADER.unpack_from(data, 16)
    return width, height, depth, colour


def png_chunks(data: bytes) -> list[bytes]:
    """Return the names of a PNG's chunks before its last.

    That they are whole is checked here (the checksum only of those that pixels need, whose names begin with a
    capital): libpng would write to standard error what it finds.

    Raises:
        ValueError: the file ends before its last chunk, or a checksum is wrong.
    """
    names: list[bytes] = []
    view = memoryview(data)
    at = 8
    while at + 12 <= len(data):
        length, name = _PNG_CHUNK.unpack_from(data, at)
        end = at + 8 + length
        if end + 4 > len(data):  # of the last chunk as well: OpenCV allocates what a chunk says of its length
            break
        if name == b"IEND":
            return names
        names.append(name)
        if name[0] < 0x60 and zlib.crc32(view[at + 4 : end]) != _PNG_CHECKSUM.unpack_from(data, end)[0]:
            message = f"the checksum of its chunk {name!r} is wrong"
            raise ValueError(message)
        at = end + 4
    message = "it is cut short"
    raise ValueError(message)


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What a JPEG says of itself before its pixels."""

    width: int
    """Pixels as stored, before EXIF rotation."""
    height: int
    """Pixels as stored, before EXIF rotation."""
    depth: int
    """Bits of a sample."""
    channels: int
    """1 grey, 3 colour, 4 CMYK."""
    orientation: int
    """EXIF orientation, 1 to 8."""


def jpeg_header(data: bytes) -> JpegHeader:
    """Read a JPEG's segments up to the frame header.

    Raises:
        ValueError: there is none, or the file goes over its pixels so often that decoding would take hours.
        struct.error: the file ends within it.
    """
    scans = sum(1 for _ in islice(_JPEG_SCAN.finditer(data), _JPEG_MOST_SCANS + 1))
    if scans > _JPEG_MOST_SCANS:
        message = f"it has more than {_JPEG_MOST_SCANS} scans"
        raise ValueError(message)
    turn = 1
    at = 2
    while 0 <= at <= len(data) - 4:
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, at)
        if prefix != 0xFF or marker in _JPEG_BARE_MARKERS:
            at = data.find(b"\xff", at + 1)
        elif marker in _JPEG_FRAME_MARKERS:
            depth, height, width, channels = _JPEG_FRAME.unpack_from(data, at + 4)
            return JpegHeader(width, height, depth, channels, turn)
        else:
            if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 4):
                turn = orientation(data[at + 4 : at + 2 + length])
            at += 2 + length
    message = "it has no frame header"
    raise ValueError(message)


def orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block; 1 where it has none or an invalid one."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4], "<")
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, value = struct.unpack_from(order + "H6xH", tiff, at)
            if tag == _EXIF_ORIENTATION:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # cut short
        pass
    return 1


def gif_size(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels: of the screen, which Pillow extends to where the first frame ends.

    Raises:
        struct.error: the file ends before them.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)  # past the colours
    while (block := _GIF_BLOCK.search(data, at)) and block[0] == b"!":
        at = block.end() + 1  # past its label
        while data[at : at + 1] > b"\0":
            at += 1 + data[at]
    if block and block[0] == b",":
        left, top, columns, rows = struct.unpack_from("<HHHH", data, block.end())
        width, height = max(width, left + columns), max(height, top + rows)
    return width, height


def webp_size(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels; Pillow allocates the canvas before it can be asked.

    Raises:
        struct.error: the file ends before them.
    """
    if data[12:16] == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (number & 0x3FFF for number in struct.unpack_from("<HH", data, 26))
    return width, height


def tiff_directories(data: bytes) -> Iterator[int]:
    """Follow the chain of directories, one a page; Pillow reads one that is cut short as if it were whole.

    Yields:
        The offset of each directory.

    Raises:
        ValueError: the next directory is not wholly inside the file.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = b"+" in data[2:4]
    count, pointer = (struct.Struct(order + code) for code in ("QQ" if big else "HI"))
    entry_bytes = 20 if big else 12
    at = 8 if big else 4  # of the pointer to the first directory
    while at + pointer.size <= len(data):
        (directory,) = pointer.unpack_from(data, at)
        if directory + count.size > len(data):
            break
        at = directory + count.size + entry_bytes * count.unpack_from(data, directory)[0]
        if at + pointer.size > len(data):
            break
        yield directory
    message = "a page's directory is cut short"
    raise ValueError(message)


def foreign(data: bytes, ending: str) -> Fault:
    """Word the fault of a file that is none of the kinds decoded here."""
    kind = next((kind for kind, signature in _UNSUPPORTED.items() if signature.match(data)), ending)
    if kind in _CONVERSIONS:
        detail = f"{kind[1:].upper()} files are not read; convert it first, for example with: {_CONVERSIONS[kind]}"
        return Fault(FaultKind.UNSUPPORTED, detail)
    return Fault(
        FaultKind.UNREADABLE, "its content is none of PNG, JPEG, TIFF, BMP, GIF, WebP; copy or export it again"
    )

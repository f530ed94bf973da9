"""Read from a file's first bytes what it says before its pixels: kind, size, orientation, the places of its pages.

Read here so that a page's size is known before anything is decoded or allocated, and because codecs skip, or
write to standard error, what a report has to say. Errors are worded to follow «cannot be decoded as PNG: ».
"""

import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import imagecodecs

from batchdigits.errors import Fault, FaultKind

_PNG_HEADER = struct.Struct(">IIBB")
_PNG_BEGINS = b"\0\0\0\rIHDR"
_FEW = 2048  # bytes up to which zlib is the faster with a checksum; of many, it takes fifteen times as long
_PNG_AFTER_HEADER = 33  # where the second chunk begins
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"  # the last chunk, which is empty
_PNG_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_PNG_METADATA = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
_CUT_SHORT = "it is cut short"
_PNG_CHUNK = struct.Struct(">I4s")
_PNG_CHECKSUM = struct.Struct(">I")
_JPEG_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_USUAL_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_BARE_MARKERS = frozenset({0x00, 0x01, *range(0xD0, 0xD9), 0xFF})  # without a length; 0xFF only fills
_JPEG_NEEDED = _JPEG_FRAME_MARKERS | {0xC4, 0xCC, 0xDB, 0xDD, 0xE0, 0xEE}  # tables, and what tells the kind of colours
_JPEG_SEGMENT = struct.Struct(">BBH")
_JPEG_FRAME = struct.Struct(">BHHB")
_JPEG_SCAN = re.compile(b"\xff\xda\0")  # the marker, and half of its length; it cannot stand among the pixels' bytes
_JPEG_MOST_SCANS = 100  # passes over the pixels; encoders make about ten, and an empty one takes but ten bytes
_GIF_BLOCK = re.compile(rb"[!,;]")  # an extension, a frame, the end; Pillow skips anything else
_EXIF_ORIENTATION = 0x0112
_EXIF_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}  # types of a field, and how their numbers are written
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:>|=\s*["'])\s*([1-8])\s*["'<]""")
_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_MOST_METADATA = 2**20  # bytes of a text chunk, unpacked
JPEG_2000_END = b"\xff\xd9"
"""What the codestream of a JPEG 2000 ends with."""
_COPIES = 1 | 4  # bits of NewSubfileType: a reduced copy of another page, a mask of its transparency
_OLD_REDUCED = 2  # of SubfileType, which it took the place of
_SVG = re.compile(rb"\s*<[?!\w].{0,4000}<svg|\s*<svg", re.DOTALL)
_OTHER_IMAGE = re.compile(
    rb"(?P<PNM>P[1-7]\s)|(?P<Photoshop>8BPS\0[\x01\x02])|(?P<GIMP>gimp xcf)|(?P<OpenEXR>v/1\x01)"
    rb"|(?P<JPEG_XL>\xff\x0a|\0{3}\x0cJXL )|(?P<DjVu>AT&TFORM)|(?P<JBIG2>\x97JB2\r\n\x1a\n)|(?P<PostScript>%!PS-)"
    rb"|(?P<icon>\0\0[\x01\x02]\0[^\0]\0)|(?P<Radiance>#\?RADIANCE)|(?P<DDS>DDS \x7c)|(?P<FITS>SIMPLE  =)"
    rb"|(?P<PCX>\x0a[\0-\x05]\x01[\x01\x02\x04\x08])|(?P<DICOM>.{128}DICM)|(?P<Windows_metafile>\xd7\xcd\xc6\x9a)",
    re.DOTALL,
)
"""Matches the first bytes of images of other kinds; the name of the group that matched is what people call it."""
_ZIP = re.compile(
    rb"PK\x03\x04(?!.{26}(?:\[Content_Types\]|_rels/|mimetype))", re.DOTALL
)  # and no document of an office
_ZIP_IS_NOT_OPENED = "it is a ZIP archive; read it as zip:///PATH, where PATH begins at the root of the disk"
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype html|html)\b", re.IGNORECASE)
_LFS_POINTER = re.compile(rb"version https://git-lfs\.")
_SVG_IS_NOT_READ = "SVG files are not read; convert it first, for example with: rsvg-convert -o OUT.png IN.svg"


class Png(NamedTuple):  # a dataclass takes a tenth of the time of a small file to make
    """What a PNG says of itself beside its pixels, and the file without it."""

    is_transparent: bool
    """Whether one of its colours stands for transparent."""
    orientation: int
    """EXIF orientation, 1 to 8, wherever it was written."""
    bare: bytes
    """The file with nothing but what its pixels need, so that nothing else can be wrong."""


def png_header(data: bytes) -> tuple[int, int, int, int]:
    """Read what a PNG says of its pixels.

    Returns:
        Width and height in pixels as stored; bits of a sample; the colour type: 1 a palette, 2 colour, 4 alpha, and
        sums of them.

    Raises:
        NotImplementedError: it is no PNG, but what Apple's tools make of one.
        ValueError: it begins with something else.
        struct.error: the file ends before them.
    """
    if not data.startswith(_PNG_BEGINS, 8):
        if data.startswith(b"CgBI", 12):
            message = "it was saved by an Apple program for a telephone, and other programs cannot read it"
            raise NotImplementedError(message)
        message = "it does not begin with its header"
        raise ValueError(message)
    width, height, depth, colour = _PNG_HEADER.unpack_from(data, 16)
    return width, height, depth, colour


def packed_rows(data: bytes) -> bytes:
    """Give the rows of the plainest PNG as zlib packed them.

    Returns:
        Empty where it is interlaced, or holds anything but its header, rows and end, or a checksum is wrong.
    """
    at, end = _PNG_AFTER_HEADER, len(data) - len(_PNG_END)
    if not (data.startswith(b"\0\0\0", 26) and data.startswith(b"IDAT", at + 4) and data.endswith(_PNG_END)):
        return b""
    if _is_wrong(data[12:29], data, 29):
        return b""
    parts: list[bytes] = []
    while at < end:
        length, name = _PNG_CHUNK.unpack_from(data, at)
        chunk = data[at + 4 : at + 8 + length]
        at += 12 + length
        if name != b"IDAT" or at > end or _is_wrong(chunk, data, at - 4):
            return b""
        parts.append(chunk[4:])
    return b"".join(parts)


def png(data: bytes) -> Png:
    """Read a PNG's chunks from its header, which codecs look at themselves, up to its last.

    That those which pixels need are whole is checked here, to say what is wrong with them.

    Raises:
        ValueError: the file ends within a chunk, or a checksum is wrong.
        struct.error: the file ends before its last chunk.
    """
    turn, is_transparent = 1, False
    left_out: list[tuple[int, int]] = []
    at, name, size_bytes = _PNG_AFTER_HEADER, b"", len(data)
    while name != b"IEND":
        length, name = _PNG_CHUNK.unpack_from(data, at)
        end = at + 12 + length
        if end > size_bytes:  # of the last chunk as well: codecs allocate what a chunk says of its length
            raise ValueError(_CUT_SHORT)
        if name not in _PNG_PIXELS:
            left_out.append((at, end))
            if turn == 1 and name in _PNG_METADATA:
                turn = _orientation_of_chunk(name, data[at + 8 : end - 4])
        elif length and _is_wrong(data[at + 4 : end - 4], data, end - 4):
            message = f"the checksum of its chunk {name!r} is wrong"
            raise ValueError(message)
        elif name == b"tRNS":
            is_transparent = True
        at = end
    bare = data
    if left_out:
        starts, ends = zip((at, size_bytes), *left_out, strict=True)
        bare = b"".join(data[start:end] for start, end in zip((0, *ends[1:]), (*starts[1:], starts[0]), strict=True))
    return Png(is_transparent, turn, bare)


def _is_wrong(chunk: bytes, data: bytes, at: int) -> bool:
    """Tell whether a chunk has not the CRC-32 that stands in a PNG; it is taken by what does so in the least time."""
    checksum = zlib.crc32(chunk) if len(chunk) < _FEW else imagecodecs.deflate_crc32(chunk)
    return bool(checksum != _PNG_CHECKSUM.unpack_from(data, at)[0])


def _orientation_of_chunk(name: bytes, data: bytes) -> int:
    """Read the orientation out of a chunk of metadata; 1 where it has none."""
    if name == b"eXIf":
        return orientation(data)
    keyword, _, text = data.partition(b"\0")
    if keyword.startswith(b"Raw profile type ") or keyword == b"XML:com.adobe.xmp":
        if name == b"iTXt":
            packed = text[:1] == b"\1"
            text = text[2:].split(b"\0", 2)[-1]
        else:
            packed = name == b"zTXt"
            text = text[packed:]
        with suppress(zlib.error, ValueError):
            text = zlib.decompressobj().decompress(text, _MOST_METADATA) if packed else text
            if keyword.startswith(b"Raw"):  # ImageMagick's: a name, a length, and hexadecimal digits
                text = bytes.fromhex(b"".join(text.split()[2:]).decode("ascii", "replace"))
            return orientation(text)
    return 1


class JpegHeader(NamedTuple):  # a dataclass takes a twentieth of the time of a small file to make
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
    is_usual: bool
    """Whether it is packed in a way that codecs know: not lossless, nor in layers."""


def jpeg_header(data: bytes) -> JpegHeader:
    """Read a JPEG's segments up to the frame header.

    Raises:
        ValueError: there is none, or the file goes over its pixels so often that decoding would take hours.
        struct.error: the file ends within it.
    """
    if any(islice(_JPEG_SCAN.finditer(data), _JPEG_MOST_SCANS, None)):  # in half the time that `count` takes
        message = f"it has more than {_JPEG_MOST_SCANS} scans"
        raise ValueError(message)
    exif, xmp = 1, 1  # orientations
    at, last = 2, len(data) - 4
    while 0 <= at <= last:
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, at)
        if prefix != 0xFF or marker in _JPEG_BARE_MARKERS:
            at = data.find(b"\xff", at + 1)
        elif marker in _JPEG_FRAME_MARKERS:
            depth, height, width, channels = _JPEG_FRAME.unpack_from(data, at + 4)
            turn = exif if exif > 1 else xmp
            return JpegHeader(width, height, depth, channels, turn, marker in _JPEG_USUAL_FRAMES)
        else:
            end = at + 2 + length
            if marker == 0xE1 and data.startswith(_EXIF, at + 4):
                exif = orientation(data[at + 4 : end])
            elif marker == 0xE1 and data.startswith(_XMP, at + 4):
                xmp = orientation(data[at + 4 : end])
            at = end
    message = "it has no frame header"
    raise ValueError(message)


def bare_jpeg(data: bytes) -> bytes:
    """Leave out of a JPEG what stands before its pixels and is not needed for them, so that nothing of it can be wrong.

    Raises:
        ValueError: it has no pixels.
        struct.error: it ends within a segment.
    """
    kept = [data[:2]]
    at, last = 2, len(data) - 4
    while 0 <= at <= last:
        prefix, marker, length = _JPEG_SEGMENT.unpack_from(data, at)
        if prefix != 0xFF or marker in _JPEG_BARE_MARKERS:
            at = data.find(b"\xff", at + 1)
        elif marker == 0xDA:
            return b"".join([*kept, data[at:]])
        else:
            kept += [data[at : at + 2 + length]] * (marker in _JPEG_NEEDED)
            at += 2 + length
    raise ValueError(_CUT_SHORT)


def orientation(metadata: bytes) -> int:
    """Return the orientation, 1 to 8, of an EXIF block or of XMP; 1 where it has none or an invalid one."""
    tiff = metadata.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        written = _XMP_ORIENTATION.search(metadata)
        return int(written[1]) if written else 1
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, at)
            if tag == _EXIF_ORIENTATION:
                (value,) = struct.unpack_from(order + _EXIF_INTEGERS.get(kind, "H"), tiff, at + 8)
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


def jpeg_2000_size(data: bytes) -> tuple[int, int]:
    """Read width and height in pixels from the codestream.

    Raises:
        ValueError: there is none.
        struct.error: the file ends before them.
    """
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0:
        message = "it has no codestream"
        raise ValueError(message)
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    return right - left, bottom - top


def webp_pixels(data: bytes) -> tuple[int, int]:
    """Tell where the first chunk of pixels begins and ends; there may be metadata before and after it."""
    at = end = 12
    while end + 8 <= len(data):
        at = end
        name, length = struct.unpack_from("<4sI", data, at)
        end += 8 + length + length % 2
        if name in (b"VP8 ", b"VP8L", b"ANMF"):
            break
    return at, end


@dataclass(frozen=True, slots=True)
class TiffDirectory:
    """Where a page of a TIFF is described."""

    offset: int
    """Of the directory, from the file's beginning."""
    is_copy: bool
    """Whether the page is a reduced copy of another, or a mask."""


class TiffChain(NamedTuple):
    """The directories of a TIFF, in their order."""

    directories: list[TiffDirectory]
    """Those that are whole."""
    is_cut: bool
    """Whether the next one is not wholly inside the file; codecs read it as if it were."""
    with_next: Callable[[int], bytes]
    """Writes the file's first bytes, so that they point to another directory."""


def tiff_chain(data: bytes, most: int) -> TiffChain:
    """Follow the chain of directories, one a page, up to a number of them or to one that was met before."""
    order = "<" if data.startswith(b"II") else ">"
    big = b"+" in data[2:4]
    count, pointer = (struct.Struct(order + code) for code in ("QQ" if big else "HI"))
    entry_bytes = 20 if big else 12
    start = 8 if big else 4  # of the pointer to the first directory

    def with_next(offset: int) -> bytes:
        return data[:start] + pointer.pack(offset)

    found: dict[int, TiffDirectory] = {}
    at = start
    while at + pointer.size <= len(data):
        (offset,) = pointer.unpack_from(data, at)
        if found and (offset == 0 or offset in found or len(found) == most):
            return TiffChain(list(found.values()), is_cut=False, with_next=with_next)
        if offset < start or offset + count.size > len(data):
            break
        first = offset + count.size
        at = first + entry_bytes * count.unpack_from(data, offset)[0]
        if at + pointer.size > len(data):
            break
        found[offset] = TiffDirectory(offset, _is_copy(data, range(first, at, entry_bytes), order, big=big))
    return TiffChain(list(found.values()), is_cut=True, with_next=with_next)


def _is_copy(data: bytes, entries: range, order: str, *, big: bool) -> bool:
    """Look for what a directory's first entries, which stand in order, say of its kind."""
    for at in entries[:2]:
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (254, 255):
            (value,) = struct.unpack_from(order + _EXIF_INTEGERS.get(kind, "I"), data, at + (12 if big else 8))
            if (tag == 254 and value & _COPIES) or (tag == 255 and value == _OLD_REDUCED):
                return True
    return False


def foreign(data: bytes, ending: str) -> Fault:
    """Word the fault of a file that is none of the kinds decoded here."""
    if _WEB_PAGE.match(data):  # before SVG, of which it may hold some
        return Fault(
            FaultKind.UNREADABLE, "it is a web page that was saved in the place of an image; download it again"
        )
    if _SVG.match(data) or ending == ".svg":
        return Fault(FaultKind.UNSUPPORTED, _SVG_IS_NOT_READ)
    if other := _OTHER_IMAGE.match(data):
        kind = str(other.lastgroup).replace("_", " ")
        return Fault(FaultKind.UNSUPPORTED, f"{kind} files are not read, whatever their ending; export it anew as PNG")
    if _ZIP.match(data):
        return Fault(FaultKind.UNSUPPORTED, _ZIP_IS_NOT_OPENED)
    if _LFS_POINTER.match(data):
        return Fault(
            FaultKind.UNREADABLE, "Git LFS left a pointer in the place of the file; fetch it with: git lfs pull"
        )
    return Fault(
        FaultKind.UNREADABLE,
        "its content is none of PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000, AVIF, HEIC, PDF; copy or export it again",
    )

"""Tell whether all of an image was written, where no codec can or will: a copy that stops half-way is no picture.

On some disks such a copy has its full size, and zeros from there on: no codec of pixels that are not packed can know,
and one of WebP makes grey of them. PDFium draws what there is of fax codes and JBIG2, and says nothing.
"""

import struct
from typing import NamedTuple

import imagecodecs

_LEAST_END = 64  # bytes of zeros that are no chance
_LEAST_SHARE = 1 / 50  # of a file, that they take
_LEAST_HOLE = 1 / 16  # of codes that are packed arithmetically; those of empty paper have 1/20 of zeros in a row
_MOST_BLACK = 0.25  # share of zeros among as many bytes before them, at most, where zero is not the colour of the paper
_LOOK_BACK = 4096  # bytes before them that are looked at
_LINE_ENDS = "000000000001"  # in fax codes: no other has as many zeros
_FAX_ENDS = (2 * _LINE_ENDS, 2 * (_LINE_ENDS + "1"))  # of the whole; rows of Group 3 may have a bit more
_FAX_TIFF_BYTES = 8 + 2 + 8 * 12 + 4  # before the codes in a TIFF of eight fields
_ROWS, _GROUP_3, _GROUP_4 = 2, 3, 4  # packings of a TIFF: each row by itself from a byte on, and those of fax machines
_JBIG2_DRAWN = frozenset({6, 7, 22, 23, 38, 39, 42, 43})  # kinds of segments that draw on a page
_JBIG2_OPEN = 2**32 - 1  # length of a segment that ends with two bytes of its own, and the number of its rows


def ends_in_nothing(data: bytes, start: int, row_bytes: int, used_bytes: int, sample_bytes: int = 1) -> bool:
    """Tell whether the last of some pixels that are not packed are zeros, and what stands before them is not.

    Paper that is black to the end, or a black margin, is no damage: there, zeros stand before as well, or whole rows
    are of zeros, or the row above goes on in zeros as well.

    Args:
        data: The file, up to where the pixels end.
        start: Where they begin.
        row_bytes: How long a row is.
        used_bytes: How much of it are pixels; the rest fills up.
        sample_bytes: Of a sample; some bytes of a large one may be zeros where it is not.
    """
    written = _written(data)
    written += (start - written) % sample_bytes
    if written >= len(data) or (written - start - used_bytes) % row_bytes == 0:
        return False
    row_end = written + (used_bytes + start - written) % row_bytes
    before = data[max(start, written - min(len(data) - written, _LOOK_BACK)) : written]
    above = data[max(start, written - row_bytes) : max(start, row_end - row_bytes)]
    return all(part.count(bytes(sample_bytes)) * sample_bytes <= _MOST_BLACK * len(part) for part in (before, above))


def packed_ends_in_nothing(data: bytes) -> bool:
    """Tell whether the last part of a packed file is zeros, of which its codec would make something."""
    return _written(data) < len(data)


def has_hole(packed: bytes) -> bool:
    """Tell whether a part of pixels that are packed arithmetically is zeros: a copy's end, or what a disk has lost."""
    return bytes(max(_LEAST_END, round(_LEAST_HOLE * len(packed)))) in packed


def _written(data: bytes) -> int:
    """Tell how many bytes stand before the zeros at the end; all of them where these are too few to mean anything."""
    written = len(data.rstrip(b"\0"))
    return written if len(data) - written >= max(_LEAST_END, _LEAST_SHARE * len(data)) else len(data)


class Fax(NamedTuple):
    """What is known of the fax codes of a PDF."""

    is_group_4: bool
    """Whether they are of Group 4, and not of Group 3."""
    is_aligned: bool
    """Whether rows begin with a byte of their own, as no codec here knows it of Group 4."""
    columns: int
    """Pixels of a row."""
    rows: int
    """How many there have to be. The mark of the end does not take the place of one: of 720 times three wrong bytes in
    Group 4, hardly any is told by codes that do not exist; there are fewer rows then, or more."""


def is_whole_fax(codes: bytes, fax: Fax) -> bool:
    """Tell whether fax codes are those of a whole image."""
    bits = f"{int.from_bytes(codes):0{8 * len(codes)}b}"
    ends = bits.rstrip("0").endswith(_FAX_ENDS)
    if bits.find("1") >= _LINE_ENDS.find("1"):  # Group 3 in which each row has such a beginning
        return ends or bits.count(_LINE_ENDS) >= fax.rows
    if fax.is_group_4 and not fax.is_aligned:
        return _are_all_rows(codes, fax, _GROUP_4)
    return ends or (not packed_ends_in_nothing(codes) and _are_all_rows(codes, fax, _ROWS))


def _are_all_rows(codes: bytes, fax: Fax, packing: int) -> bool:
    is_right = _are_fax_codes(codes, fax.columns, fax.rows, packing)
    return is_right and not is_out_of_step(codes, fax.columns, fax.rows, packing)


def is_out_of_step(codes: bytes, columns: int, rows: int, packing: int) -> bool:
    """Tell of fax codes what libtiff does not: that there are more rows than there should be, or fewer marks of them.

    Args:
        codes: Of a strip.
        columns: Pixels of a row.
        rows: How many there should be.
        packing: As a TIFF names it.
    """
    if packing == _GROUP_3:  # each row has a mark before or after it
        return f"{int.from_bytes(codes):0{8 * len(codes)}b}".count(_LINE_ENDS) < rows - 1
    more = rows + (2 if packing == _ROWS else 1)  # libtiff may make one row of the end of these
    return _are_fax_codes(codes, columns, more, packing)


def _are_fax_codes(codes: bytes, columns: int, rows: int, packing: int) -> bool:
    """Let libtiff say whether codes, put into a TIFF, are right to the last row."""
    size = {256: columns, 257: rows, 278: rows, 279: len(codes)}
    tags = sorted({**size, 258: 1, 259: packing, 262: 0, 273: _FAX_TIFF_BYTES}.items())
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags)
    header = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + bytes(4)
    try:
        imagecodecs.tiff_decode(header + codes, index=0)
    except imagecodecs.TiffError:
        return False
    return True


def is_whole_jbig2(data: bytes) -> bool:
    """Tell whether the JBIG2 segments of an image, out of a PDF, are all whole, and draw something."""
    written = len(data.rstrip(b"\0\r\n"))
    draws, at = False, 0
    try:
        while at < written:
            kind, at = _jbig2_segment(data, at)
            draws |= kind in _JBIG2_DRAWN
    except (struct.error, ValueError):  # it is cut short
        return False
    return draws and at <= len(data) and not packed_ends_in_nothing(data)


def _jbig2_segment(data: bytes, start: int) -> tuple[int, int]:
    """Read the kind of a segment, and where it ends, which may be beyond the data.

    Source: ITU-T T.88, 7.2.

    Raises:
        struct.error: the data end within what it says of itself.
        ValueError: the data end before it does.
    """
    number, flags, references = struct.unpack_from(">IBB", data, start)
    at, count = start + 6, references >> 5
    if count > 4:
        count = struct.unpack_from(">I", data, start + 5)[0] & 2**29 - 1
        at += 3 + (count + 8) // 8
    at += count * (1 if number <= 2**8 else 2 if number <= 2**16 else 4)
    at += 4 if flags & 64 else 1  # the page that it belongs to
    (length,) = struct.unpack_from(">I", data, at)
    if length < _JBIG2_OPEN:
        return flags & 63, at + 4 + length
    (packing,) = struct.unpack_from(">17xB", data, at + 4)
    return flags & 63, data.index(b"\0\0" if packing & 1 else b"\xff\xac", at + 22) + 6

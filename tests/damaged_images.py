"""Small image files of every format in; files broken at random out, and what must hold of what decoding makes of them.

A mutant follows from its number alone, given the sample images and the Pillow that writes the other seeds: damage is
random as on a bad disk or a cut transfer, and aimed, as by somebody who knows the formats. The default suite and
`benchmarks/fuzzing.py` share this.
"""

import functools
import io
import itertools
import random
import re
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.jpeg import HALVED_FROM
from batchdigits.decoding.pages import MAX_SIDE, Page
from batchdigits.errors import Fault
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import INK_MEASURES, SIDE, SIGNATURE, GreyImage
from batchdigits.settings import DecodingSettings
from tests.fake_model import FakeInkFinder

SAMPLES = Path(__file__).parents[1] / "sample_images"
SEED_BYTES = 15_000  # of a sample, at most: in a small file a mutation hits structure
SMALL = DecodingSettings(max_pixels=1_000_000)
DEFAULT = DecodingSettings()
DEFAULT_EVERY = 20  # one mutant of so many is read under the default limit, the others under a small one, for speed

_FINDER = FakeInkFinder(Path())  # what the ink finder says depends on nothing that decoding could break
_SIGNATURE_BYTES = 12  # of the longest, WebP's
_FAULT_LENGTH = 400  # characters
_STRUCTURE = {
    "PNG": re.compile(rb"IHDR|PLTE|IDAT|IEND|tRNS|eXIf|acTL|fcTL|fdAT|iCCP|zTXt|gAMA"),
    "JPEG": re.compile(rb"\xff[\xc0-\xfe]"),
    "TIFF": re.compile(rb"^[IM]{2}|[\0-\x53]\x01[\x01-\x12]\0|\x01[\0-\x53]\0[\x01-\x12]", re.DOTALL),
    "GIF": re.compile(rb"^GIF|\x2c|\x21[\xf9\xfe\xff]", re.DOTALL),
    "WebP": re.compile(rb"RIFF|VP8[ LX]|ALPH|ANIM|ANMF|EXIF|ICCP"),
    "BMP": re.compile(rb"^BM|^.{14}|^.{28}", re.DOTALL),
}
"""Where a format's fields begin: names of chunks, markers, entries of directories."""
_FIELD_REACH = 16  # bytes from there on in which most fields lie, and a PNG's length before its name
_INTEGERS = (0, 1, 2, 3, 7, 8, 9, 16, 31, 32, 255, 256, 999, 1023, 1024, 1025, 4096, 9999, 10_001, 16_383, 20_000)
_INTERESTING = (
    *_INTEGERS,
    *(2**bits - 1 for bits in (15, 16, 24, 31, 32)),
    2**15,
    2**31,
    2**32 - 8,
    100_000_000,
    2**63,
    2**64 - 1,
)
_CODES = ("B", "<H", ">H", "<I", ">I", "<Q", ">Q")
_PNG_CHUNK = struct.Struct(">I4s")


class Mutant(NamedTuple):
    """A file broken on purpose."""

    kind: str
    """The format of the file that it was made of."""
    data: bytes
    """The file."""
    limits: DecodingSettings
    """What it is to be read under."""


# ---- seeds ---------------------------------------------------------------------------------------------------------


@functools.cache
def seeds() -> dict[str, list[bytes]]:
    """Good files of every format, by format: the small sample images, and those variants that they lack."""
    samples = sorted(path for path in SAMPLES.rglob("*") if path.is_file() and path.stat().st_size <= SEED_BYTES)
    files = [path.read_bytes() for path in samples] + _variants()
    by_kind: dict[str, list[bytes]] = {kind: [] for kind in _STRUCTURE}
    for data in files:
        if signature := SIGNATURE.match(data):
            by_kind[str(signature.lastgroup)].append(data)
    return by_kind


def _variants() -> list[bytes]:
    """Write one picture in every way that Pillow knows, in some that it only reads, and as OpenCV packs it."""
    grey = Image.fromarray(np.add.outer(np.arange(24) * 5, np.arange(40) * 3).astype(np.uint8))
    grey.paste(10, (12, 4, 18, 20))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    bits, colour, alpha = (grey.convert(mode) for mode in ("1", "RGB", "RGBA"))
    palette = colour.quantize(16)
    alpha.putalpha(grey)
    frames: dict[str, Any] = {"save_all": True, "append_images": [colour.rotate(90), colour.rotate(180)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = {"icc_profile": bytes(range(256)) * 2}
    return [
        *(_encoded(image, "PNG") for image in (grey, colour, bits, deep, palette, alpha, grey.convert("LA"))),
        *(cv2.imencode(".png", np.asarray(image))[1].tobytes() for image in (grey, colour, alpha)),
        *(_encoded(colour, "PNG", **options) for options in ({"exif": exif}, profile, frames)),
        _encoded(palette, "PNG", bits=2, transparency=3),
        _interlaced(grey),
        *(_encoded(image, "JPEG") for image in (grey, colour, grey.convert("CMYK"))),
        *(_encoded(colour, "JPEG", progressive=True, subsampling=sampling) for sampling in (0, 2)),
        _encoded(colour, "JPEG", exif=exif, restart_marker_rows=1, **profile),
        *(_encoded(image, "TIFF") for image in (grey, colour, bits, deep, palette, alpha, grey.convert("F"))),
        *(_encoded(colour, "TIFF", compression=name) for name in ("tiff_deflate", "packbits", "jpeg", "tiff_lzw")),
        *(_encoded(bits, "TIFF", compression=name) for name in ("group3", "group4", "tiff_ccitt")),
        _encoded(grey, "TIFF", big_tiff=True, compression="tiff_adobe_deflate", exif=exif),
        _encoded(grey, "TIFF", compression="tiff_lzw", strip_size=200, **frames),
        _tiled(grey),
        *(_encoded(image, "GIF") for image in (grey, palette, bits)),
        _encoded(palette, "GIF", transparency=2, interlace=True, comment=b"a comment"),
        _encoded(colour, "GIF", disposal=2, loop=0, **frames),
        *(_encoded(image, "WEBP", lossless=whole) for image in (colour, alpha) for whole in (False, True)),
        _encoded(colour, "WEBP", exif=exif, **profile),
        *(_encoded(alpha, "WEBP", lossless=whole, **frames) for whole in (False, True)),
        *(_encoded(image, "BMP") for image in (grey, colour, bits, palette, alpha)),
        *(_run_length_bmp(grey, bits) for bits in (4, 8)),
    ]


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _interlaced(image: Image.Image) -> bytes:
    """Write a PNG by Adam7, of which only the header needs to say so: each pass has rows of its own."""
    pixels = np.asarray(image)
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = (row for top, left, down, right in passes for row in pixels[top::down, left::right])
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 0, 0, 0, 1)
    chunks = [
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    written = (_PNG_CHUNK.pack(len(data), name) + data + b"\0\0\0\0" for name, data in chunks)
    return with_checksums(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def _tiled(image: Image.Image) -> bytes:
    """Write a TIFF in tiles of 16 × 16, each deflated."""
    rows, columns = -(-image.height // 16), -(-image.width // 16)
    pixels = np.zeros((rows * 16, columns * 16), np.uint8)
    pixels[: image.height, : image.width] = np.asarray(image)
    tiles = pixels.reshape(rows, 16, columns, 16).swapaxes(1, 2).reshape(-1, 256)
    packed = [zlib.compress(tile.tobytes()) for tile in tiles]
    offsets = list(itertools.accumulate(map(len, packed), initial=8))
    places, lengths = (struct.pack(f"<{len(packed)}I", *numbers) for numbers in (offsets[:-1], map(len, packed)))
    short = {256: image.width, 257: image.height, 258: 8, 259: 8, 262: 1, 277: 1, 322: 16, 323: 16}
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in short.items()]
    entries.append(struct.pack("<HHII", 324, 4, len(packed), offsets[-1]))
    entries.append(struct.pack("<HHII", 325, 4, len(packed), offsets[-1] + len(places)))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    return b"".join([b"II*\0", struct.pack("<I", offsets[-1] + 2 * len(places)), *packed, places, lengths, directory])


def _run_length_bmp(image: Image.Image, bits: int) -> bytes:
    """Write a BMP in runs of equal pixels, of 16 or 256 greys."""
    body = b""
    for row in np.asarray(image)[::-1] >> (8 - bits):
        for value, run in itertools.groupby(row.tolist()):
            body += bytes([len(list(run)), value | value << 4 if bits == 4 else value])
        body += b"\0\0"
    body += b"\0\1"
    palette = b"".join(bytes([grey] * 3 + [0]) for grey in np.linspace(0, 255, 2**bits).astype(int).tolist())
    start = 54 + len(palette)
    method = 2 if bits == 4 else 1
    header = struct.pack("<IiiHHIIiiII", 40, image.width, image.height, 1, bits, method, len(body), 0, 0, 2**bits, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


# ---- mutations -----------------------------------------------------------------------------------------------------


def mutant(number: int) -> Mutant:
    """Make one broken file; the same number gives the same one."""
    rng = random.Random(number)
    kind = rng.choice(list(seeds()))
    data = rng.choice(seeds()[kind])
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        data = rng.choice(_MUTATIONS)(data, kind, rng) or _flip_bits(data, kind, rng)
    if kind == "PNG" and rng.random() < 0.8:
        data = with_checksums(data)
    return Mutant(kind, data, SMALL if number % DEFAULT_EVERY else DEFAULT)


def with_checksums(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right, so that what was broken gets past them."""
    right = bytearray(data)
    at = 8
    while at + 12 <= len(right):
        length, _ = _PNG_CHUNK.unpack_from(right, at)
        end = at + 8 + length
        if end + 4 > len(right):
            break
        struct.pack_into(">I", right, end, zlib.crc32(right[at + 4 : end]))
        at = end + 4
    return bytes(right)


def _flip_bits(data: bytes, _kind: str, rng: random.Random) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def _replace_bytes(data: bytes, _kind: str, rng: random.Random) -> bytes:
    at, length = _place(data, rng), rng.choice((1, 2, 4, 16, 64))
    filling = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return (data[:at] + filling + data[at + length :])[: len(data)]


def _set_field(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Write a number that programs stumble over, in three of four cases where the format has a field."""
    at = _place(data, rng)
    marks = [mark.start() for mark in _STRUCTURE[kind].finditer(data)]
    if marks and rng.random() < 0.75:
        at = max(0, rng.choice(marks) + rng.randrange(-4, _FIELD_REACH))
    code = rng.choice(_CODES)
    value = rng.choice(_INTERESTING) if rng.random() < 0.7 else rng.getrandbits(64)
    field = struct.pack(code, value % 2 ** (8 * struct.calcsize(code)))
    return (data[:at] + field + data[at + len(field) :])[: max(len(data), 1)]


def _set_size(data: bytes, kind: str, rng: random.Random) -> bytes | None:
    """Let one of the places where the format gives a size give another; None where there is none left."""
    places = [(match.end(), code) for pattern, code in _SIZES[kind] for match in pattern.finditer(data)]
    if not places:
        return None
    at, code = rng.choice(places)
    count = len(code) - 1
    largest = 2 ** (8 * struct.calcsize(code) // count - code.count("ii")) - 1  # one bit is the sign
    sides = (rng.choice(_INTEGERS if rng.random() < 0.8 else _INTERESTING) for _ in range(count))
    size = struct.pack(code, *(min(side, largest) for side in sides))
    return data[:at] + size + data[at + len(size) :]


def _filter_anew(data: bytes, kind: str, rng: random.Random) -> bytes | None:
    """Break a PNG's rows and their filters, and compress them anew; None where the file is none that is whole."""
    start = data.find(b"IDAT")
    if kind != "PNG" or start < 4:
        return None
    length, _ = _PNG_CHUNK.unpack_from(data, start - 4)
    try:
        rows = zlib.decompress(data[start + 4 : start + 4 + length])
    except zlib.error:
        return None
    packed = zlib.compress(_replace_bytes(rows, kind, rng)) if rows else b""
    return b"".join([data[: start - 4], _PNG_CHUNK.pack(len(packed), b"IDAT"), packed, data[start + 4 + length :]])


def _insert(data: bytes, _kind: str, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.choice((rng.randbytes(rng.randint(1, 40)), bytes(rng.randint(1, 400)))) + data[at:]


def _delete(data: bytes, _kind: str, rng: random.Random) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 2, 4, 12, rng.randint(1, 400))) :]


def _duplicate(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Repeat a block where it stands or elsewhere; blocks that begin at a field are whole chunks now and then."""
    marks = [mark.start() for mark in _STRUCTURE[kind].finditer(data)]
    start, end = sorted(rng.choice(marks) if marks else _place(data, rng) for _ in range(2))
    if kind == "PNG":
        start, end = max(8, start - 4), max(8, end - 4)  # of the chunk's length
    to = rng.choice((start, end, _place(data, rng)))
    return data[:to] + data[start:end] * rng.choice((1, 1, 2, 30)) + data[to:]


def _truncate(data: bytes, _kind: str, rng: random.Random) -> bytes:
    return data[: max(1, _place(data, rng))]


def _splice(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Go on as another file, of the same format in three of four cases."""
    other = rng.choice(seeds()[kind if rng.random() < 0.75 else rng.choice(list(seeds()))])
    return data[: max(1, _place(data, rng))] + other[_place(other, rng) :]


def _place(data: bytes, rng: random.Random) -> int:
    """Choose an offset, half of them among the first bytes, where the headers stand, and few within the signature."""
    at = rng.randrange(min(len(data), rng.choice((64, len(data)))))
    return at if at >= _SIGNATURE_BYTES or rng.random() < 0.1 else min(_SIGNATURE_BYTES, len(data) - 1)


_MUTATIONS: tuple[Callable[[bytes, str, random.Random], bytes | None], ...] = (
    _flip_bits,
    _replace_bytes,
    _set_field,
    _set_field,
    _set_field,
    _set_size,
    _filter_anew,
    _insert,
    _delete,
    _duplicate,
    _truncate,
    _splice,
)
_SIZES: dict[str, list[tuple[re.Pattern[bytes], str]]] = {
    "PNG": [(re.compile(rb"IHDR"), ">II"), (re.compile(rb"fcTL.{4}", re.DOTALL), ">II")],
    "JPEG": [(re.compile(rb"\xff[\xc0-\xc3]\0.{2}", re.DOTALL), ">HH")],
    "TIFF": [
        (re.compile(rb"[\0\x01\x16\x42\x43]\x01\x03\0\x01\0\0\0"), "<H"),
        (re.compile(rb"[\0\x01\x16\x42\x43]\x01\x04\0\x01\0\0\0"), "<I"),
    ],
    "GIF": [(re.compile(rb"^GIF8[79]a"), "<HH"), (re.compile(rb"\x2c.{4}", re.DOTALL), "<HH")],
    "WebP": [
        (re.compile(rb"VP8L.{5}|VP8X.{8}|VP8 .{10}", re.DOTALL), "<HH"),
        (re.compile(rb"ANMF.{10}", re.DOTALL), "<HH"),
    ],
    "BMP": [(re.compile(rb"^BM.{16}", re.DOTALL), "<ii")],
}
"""What stands right before a pair of sides, by format, and how they are written. In a TIFF each stands alone: width,
height, the rows of a strip, a tile's width and height."""


# ---- promises ------------------------------------------------------------------------------------------------------


def keep_promises(data: bytes, limits: DecodingSettings) -> list[Page | Fault]:
    """Decode a file, and check all that later stages and reports take for granted.

    Raises:
        AssertionError: decoding breaks a promise.
    """
    entries = decode(data, limits)
    assert entries
    for entry in entries:
        if isinstance(entry, Page):
            _keep_page(entry, limits)
        else:
            assert isinstance(entry, Fault)
            assert entry.detail.isprintable(), entry
            assert 0 < len(entry.detail) <= _FAULT_LENGTH, entry
            assert (entry.width is None) == (entry.height is None), entry
    return entries


def _keep_page(page: Page, limits: DecodingSettings) -> None:
    assert page.grey.dtype == np.uint8
    assert page.grey.ndim == 2
    assert page.grey.flags.c_contiguous
    assert 1 <= max(page.grey.shape) <= MAX_SIDE
    assert min(page.grey.shape) >= 1
    stored = page.height, page.width
    assert page.width * page.height <= limits.max_pixels
    assert page.grey.shape == stored or max(stored) >= HALVED_FROM, (page.grey.shape, stored)
    if page.full_resolution:
        assert page.full_resolution().shape == stored


def keep_normalisation(greys: list[GreyImage]) -> None:
    """Normalise pages as one stack, as a worker does, and check what the model is given.

    Raises:
        AssertionError: normalisation breaks a promise.
    """
    pixels, ink, _ = normalise(greys, _FINDER)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(greys), SIDE, SIDE)
    assert ink.shape == (len(greys), len(INK_MEASURES))
    assert np.isfinite(ink).all()
    assert (ink >= 0).all()


# ---- memory --------------------------------------------------------------------------------------------------------


def most_bytes(limits: DecodingSettings) -> int:
    """Say how much memory decoding a file may take: a WebP's canvases, and their copies, take the most a pixel."""
    return 50 * 10**6 + 16 * limits.max_pixels


def forget_peak() -> None:
    """Let the peak of memory begin anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """Tell the most memory that this process took, without its parent, unlike `getrusage`; 0 where nothing says so."""
    with suppress(OSError):
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    return 0

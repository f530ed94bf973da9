"""Every kind of PNG, whole and odd, built chunk by chunk: the same grey whichever codec decodes it, and no noise."""

import io
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image

from batchdigits.decoding import codecs
from batchdigits.decoding.codecs import decode
from batchdigits.decoding.grayscale import in_bytes
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault
from batchdigits.settings import DecodingSettings
from tests.sample_pages import Grey

WIDTH, HEIGHT = 13, 11
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
KINDS = [(depth, colour) for colour in SAMPLES for depth in (1, 2, 4, 8, 16) if depth >= 8 or colour in (0, 3)]
KINDS.remove((16, 3))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def palette(depth: int) -> Grey:
    return np.random.default_rng(3).integers(0, 256, (2**depth, 3)).astype(np.uint8)


def stored(depth: int, colour: int) -> np.ndarray:
    """Draw samples of noise: [H, W, C]."""
    rng = np.random.default_rng(depth * 10 + colour)
    return rng.integers(0, 2**depth, (HEIGHT, WIDTH, SAMPLES[colour])).astype(np.uint16)


def rows_of(samples: np.ndarray, depth: int) -> bytes:
    if depth == 16:
        packed = samples.astype(">u2").reshape(len(samples), -1).view(np.uint8)
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(len(samples), -1), axis=1)
    return b"".join(b"\0" + row.tobytes() for row in packed)


def png(depth: int, colour: int, *, interlaced: bool = False, extra: bytes = b"", behind: bytes = b"") -> bytes:
    samples = stored(depth, colour)
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    parts = [samples[top::down, left::across] for left, top, across, down in passes]
    pixels = b"".join(rows_of(part, depth) for part in parts if part.size) + extra
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, interlaced)
    colours = chunk(b"PLTE", palette(depth).tobytes()) if colour == 3 else b""
    packed = zlib.compress(pixels) + behind
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + colours + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def grey_of(data: bytes) -> Grey:
    (page,) = decode(data, DecodingSettings())
    assert isinstance(page, Page), page
    return page.grey


def fault_of(data: bytes) -> Fault:
    (fault,) = decode(data, DecodingSettings())
    assert isinstance(fault, Fault)
    return fault


def expected(depth: int, colour: int) -> Grey:
    """Make grey of the samples as the standard scales them, through a TIFF of 8 bits."""
    samples = stored(depth, colour)
    pixels = (
        palette(depth)[samples[..., 0]]
        if colour == 3
        else in_bytes(samples.astype(np.float64) * (255 / (2**depth - 1)))
    )
    if pixels.shape[-1] in (1, 2):
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=-1), pixels[..., 1:]], axis=-1)
    image = io.BytesIO()
    Image.fromarray(pixels).save(image, "TIFF")
    return grey_of(image.getvalue())


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("depth", "colour"), KINDS)
def test_every_kind_has_the_grey_of_its_samples(
    depth: int, colour: int, interlaced: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    np.testing.assert_array_equal(grey_of(png(depth, colour, interlaced=interlaced)), expected(depth, colour))
    assert capfd.readouterr() == ("", ""), "codecs write nothing"


@pytest.mark.parametrize("odd", [{"extra": b"x"}, {"extra": bytes(100_000)}, {"behind": b"more"}])
@pytest.mark.parametrize(("depth", "colour"), KINDS)
def test_what_is_too_much_changes_no_pixel_and_is_not_written_of(
    depth: int, colour: int, odd: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    grey = grey_of(png(depth, colour, **odd))
    np.testing.assert_array_equal(grey, expected(depth, colour))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("depth", "colour"), [kind for kind in KINDS if kind[0] > 1 and kind[1] in (0, 2)])
def test_a_colour_that_stands_for_transparent_is_white_at_every_depth(
    depth: int, colour: int, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, samples = png(depth, colour), stored(depth, colour)
    transparent = samples[5, 7]
    data = whole[:33] + chunk(b"tRNS", transparent.astype(">u2").tobytes()) + whole[33:]
    hidden = (samples == transparent).all(axis=-1)
    np.testing.assert_array_equal(grey_of(data), np.where(hidden, 255, expected(depth, colour)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_a_palette_in_a_grey_file_is_left_out(depth: int, capfd: pytest.CaptureFixture[str]) -> None:
    whole = png(depth, 0)
    with_palette = whole[:33] + chunk(b"PLTE", bytes(6)) + whole[33:]
    np.testing.assert_array_equal(grey_of(with_palette), grey_of(whole))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("depth", "colour"), KINDS)
def test_a_header_of_unknown_methods_is_a_fault(depth: int, colour: int, capfd: pytest.CaptureFixture[str]) -> None:
    for wrong in (struct.pack(">BBB", *methods) for methods in ((1, 0, 0), (0, 1, 0), (0, 0, 2))):
        header = struct.pack(">IIBB", WIDTH, HEIGHT, depth, colour) + wrong
        fault = fault_of(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + png(depth, colour)[33:])
        assert "damaged or half copied" in fault.detail
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("depth", "colour"), KINDS)
def test_a_missing_byte_of_pixels_is_a_fault(
    depth: int, colour: int, interlaced: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = png(depth, colour, interlaced=interlaced)
    at = whole.index(b"IDAT")
    pixels = zlib.decompress(whole[at + 4 :])[:-1]
    fault = fault_of(whole[: at - 4] + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b""))
    assert "damaged or half copied" in fault.detail
    assert capfd.readouterr() == ("", "")


GREY_SHAPES = [(HEIGHT, WIDTH), (1, 2), (1, 40), (40, 2), (120, 300)]
OF_OPENCV = [(*shape, bits) for shape in GREY_SHAPES for bits in (8, 16)]
OF_OPENCV += [(HEIGHT, WIDTH, samples, 8) for samples in (3, 4)]


def as_opencv_writes(kind: tuple[int, ...], level: int = 1, damage: Callable[[bytes], bytes] = bytes) -> list[bytes]:
    """Write noise as OpenCV does: the chunks of a PNG, of which the rows hold differences of neighbours."""
    *shape, bits = kind
    pixels = np.random.default_rng(5).integers(0, 2**bits, shape).astype(f"u{bits // 8}")
    data = cv2.imencode(".png", pixels)[1].tobytes()
    at, names = 8, []
    packed = b""
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        names.append(name)
        packed += data[at + 8 : at + 8 + length] * (name == b"IDAT")
        at += 12 + length
    assert set(names) == {b"IHDR", b"IDAT", b"IEND"}
    assert packed[1] >> 6 == 0, "it packs in haste"
    rows = zlib.decompress(packed)
    assert rows[:: len(rows) // shape[0]] == b"\1" * shape[0]
    return [data[:33], zlib.compress(damage(rows), level), chunk(b"IEND", b"")]


def joined(parts: list[bytes], pieces: int = 1) -> bytes:
    start, packed, end = parts
    step = -(-len(packed) // pieces)
    rows = (chunk(b"IDAT", packed[at : at + step]) for at in range(0, len(packed), step))
    return b"".join([start, *rows, end])


@pytest.mark.parametrize("kind", OF_OPENCV)
def test_what_opencv_writes_is_the_same_grey_as_by_the_codecs(
    kind: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = grey_of(joined(as_opencv_writes(kind, level=9)))
    for codec in ("spng_decode", "png_decode"):
        monkeypatch.setattr(codecs.imagecodecs, codec, None)
    for pieces in (1, 2, 7):
        np.testing.assert_array_equal(grey_of(joined(as_opencv_writes(kind), pieces)), expected)


@pytest.mark.parametrize("kind", OF_OPENCV)
def test_what_opencv_wrote_and_is_damaged_is_what_the_codecs_make_of_it(kind: tuple[int, ...]) -> None:
    def other_filters(rows: bytes) -> bytes:
        changed = bytearray(rows)
        changed[:: len(rows) // kind[0]] = bytes(at % 5 for at in range(kind[0]))
        return bytes(changed)

    for damage in (lambda rows: rows[:-1], lambda rows: b"\5" + rows[1:]):
        fault = fault_of(joined(as_opencv_writes(kind, damage=damage)))
        assert fault == fault_of(joined(as_opencv_writes(kind, 9, damage)))
        assert "its pixels are damaged, or fewer" in fault.detail
    for harmless in (lambda rows: rows + b"more", other_filters):
        grey = grey_of(joined(as_opencv_writes(kind, damage=harmless)))
        np.testing.assert_array_equal(grey, grey_of(joined(as_opencv_writes(kind, 9, harmless))))
    whole = joined(as_opencv_writes(kind))
    assert "checksum" in fault_of(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]).detail
    assert "cut short" in fault_of(whole[:-13]).detail

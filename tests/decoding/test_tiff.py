"""TIFFs of every kind: the pixels that were written, a row for each page and none for copies of it."""

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind
from batchdigits.settings import DecodingSettings
from tests.sample_pages import Grey

LIMITS = DecodingSettings()
GREY = np.full((40, 48), 230, np.uint8)
GREY[5:35, 10:16] = 10
GREY[5:11, 10:36] = 90
RGB = np.dstack([GREY] * 3)
DEEP = GREY.astype(np.uint16) * 257
OPAQUE = np.full((40, 48, 1), 255, np.uint8)


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    options = {"photometric": "minisblack", **options}
    byteorder, bigtiff = options.pop("byteorder", "<"), options.pop("bigtiff", False)
    with tifffile.TiffWriter(file, byteorder=byteorder, bigtiff=bigtiff) as writer:
        writer.write(samples, metadata=None, **options)
    return file.getvalue()


def with_jpeg(pixels: Grey) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF", compression="jpeg", quality=95)
    return file.getvalue()


def pages_of(data: bytes) -> list[Page]:
    pages = decode(data, LIMITS)
    assert all(isinstance(page, Page) for page in pages), pages
    return [page for page in pages if isinstance(page, Page)]


def fault_of(data: bytes) -> Fault:
    (fault,) = decode(data, LIMITS)
    assert isinstance(fault, Fault)
    return fault


def lab(rgb: Grey) -> Grey:
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab)) ^ np.array([0, 128, 128], np.uint8)


KINDS = {
    "16 bits in planes": tiff(np.moveaxis(np.dstack([DEEP] * 3), -1, 0), photometric="rgb", planarconfig="separate"),
    "16 bits in planes of tiles": tiff(
        np.moveaxis(np.dstack([DEEP] * 3), -1, 0), photometric="rgb", planarconfig="separate", tile=(16, 16)
    ),
    "CMYK of 16 bits in planes": tiff(
        np.stack([0 * DEEP, 0 * DEEP, 0 * DEEP, 65535 - DEEP]), photometric="separated", planarconfig="separate"
    ),
    "grey and alpha, packed, in planes": tiff(
        np.stack([GREY, OPAQUE[..., 0]]), planarconfig="separate", extrasamples=["unassalpha"], compression="zlib"
    ),
    "grey and alpha of 16 bits": tiff(np.dstack([DEEP, 0 * DEEP + 65535]), extrasamples=["unassalpha"]),
    "grey and premultiplied alpha": tiff(np.dstack([GREY, OPAQUE]), extrasamples=["assocalpha"]),
    "big-endian floats, packed": tiff((GREY / 255).astype("f4"), byteorder=">", compression="lzw"),
    "big-endian floats, predicted": tiff(
        (GREY / 255).astype("f4"), byteorder=">", compression="zlib", predictor="floatingpoint"
    ),
    "big-endian signed integers": tiff((GREY * 128.5).astype("i2"), byteorder=">", compression="zlib"),
    "signed bytes": tiff((GREY // 2).astype("i1")),
    "half floats": tiff((GREY / 255).astype("f2")),
    "big-endian, white is zero": tiff(65535 - DEEP, byteorder=">", photometric="miniswhite", compression="lzw"),
    "big-endian BigTIFF": tiff(DEEP, byteorder=">", bigtiff=True),
    "a colour map of 16 bits": tiff(
        GREY, photometric="palette", colormap=np.stack([np.arange(256, dtype=np.uint16) * 257] * 3)
    ),
    "a colour map of 8 bits": tiff(
        GREY, photometric="palette", colormap=np.stack([np.arange(256, dtype=np.uint16)] * 3)
    ),
    "CIELab": tiff(lab(RGB), photometric="cielab"),
    "10 of 16 bits": tiff(DEEP >> 6),
    "JPEG 2000 inside": tiff(GREY, compression=34712),
    "JPEG inside": with_jpeg(RGB),
    "grey JPEG inside": with_jpeg(GREY),
    "WebP inside": tiff(RGB, photometric="rgb", compression="webp", compressionargs={"lossless": True}),
    "Zstandard": tiff(RGB, photometric="rgb", compression="zstd"),
    "an extra sample that means nothing": tiff(
        np.dstack([RGB, 0 * OPAQUE]), photometric="rgb", extrasamples=["unspecified"]
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_tiff_gives_the_pixels_that_were_written(name: str) -> None:
    (page,) = pages_of(KINDS[name])
    assert (page.width, page.height) == (48, 40)
    assert page.grey.flags.c_contiguous
    assert np.abs(page.grey.astype(int) - GREY).max() <= (30 if name.endswith("JPEG inside") else 2)


@pytest.mark.parametrize("packing", ["group3", "group4", "tiff_ccitt", "packbits", "tiff_lzw", None])
@pytest.mark.parametrize("width", [48, 47, 1])
def test_pages_of_one_bit_are_read_in_every_packing(packing: str | None, width: int) -> None:
    bits = GREY[:, :width] > 128
    file = io.BytesIO()
    Image.fromarray(bits).save(file, "TIFF", compression=packing)
    (page,) = pages_of(file.getvalue())
    np.testing.assert_array_equal(page.grey, np.where(bits, 255, 0))


def test_pages_after_one_that_is_not_read_are_read() -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        writer.write(GREY.astype("c8"), photometric="minisblack", metadata=None)  # complex numbers
        writer.write(GREY, photometric="minisblack", metadata=None)
        writer.write(GREY, photometric="minisblack", compression="packbits", metadata=None)
    first, *others = decode(file.getvalue(), LIMITS)
    assert isinstance(first, Fault)
    assert first.kind == FaultKind.UNSUPPORTED
    assert "copy it again" not in first.detail
    assert len(others) == 2
    for page in others:
        assert isinstance(page, Page)
        np.testing.assert_array_equal(page.grey, GREY)


@pytest.mark.parametrize("kinds", [(0, 1, 1), (1, 0), (0, 4), (2, 2), (3, 2)])
def test_reduced_copies_and_masks_are_no_pages(kinds: tuple[int, ...]) -> None:
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for kind in kinds:
            samples = GREY > 0 if kind == 4 else GREY[::2, ::2] if kind & 1 else GREY
            writer.write(samples, subfiletype=kind, photometric="minisblack", metadata=None)
    pages = pages_of(file.getvalue())
    assert [page.width for page in pages] == [48] * sum(kind in (0, 2) for kind in kinds)


def test_a_file_of_nothing_but_reduced_copies_has_its_pages() -> None:
    assert len(pages_of(tiff(GREY, subfiletype=1))) == 1


def test_directories_that_lead_back_to_the_first_are_read_once() -> None:
    data = bytearray(tiff(GREY))
    (first,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * entries, first)
    assert len(pages_of(bytes(data))) == 1


@pytest.mark.parametrize("kind", [1, 3, 4])  # BYTE, SHORT, LONG
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_page_is_upright(orientation: int, kind: int) -> None:
    (page,) = pages_of(tiff(GREY, extratags=[(274, kind, 1, orientation, True)]))
    turns = {3: 2, 6: -1, 8: 1}
    np.testing.assert_array_equal(page.grey, np.rot90(GREY, turns[orientation]))
    assert (page.height, page.width) == page.grey.shape


def test_fax_data_with_wrong_codes_is_a_fault_and_white_paper_to_the_end_is_none(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(1)
    white = np.ones((128, 112), bool)
    white[20:60, 30:40] = False
    for page in (white, rng.random((128, 112)) < 0.9):
        file = io.BytesIO()
        Image.fromarray(page).save(file, "TIFF", compression="group4")
        pages_of(file.getvalue())
        whole = tifffile.TiffFile(io.BytesIO(file.getvalue())).pages.first
        middle = whole.dataoffsets[0] + whole.databytecounts[0] // 2
        data = bytearray(file.getvalue())
        data[middle : middle + 3] = b"\0\1\0"
        assert "fax codes" in fault_of(bytes(data)).detail
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("packing", ["group3", "group4", "tiff_ccitt"])
def test_fax_data_that_are_damaged_in_the_middle_are_a_fault_in_most_cases(packing: str) -> None:
    rng = np.random.default_rng(2)
    read = 0
    for _ in range(40):
        page = cv2.GaussianBlur(rng.random((160, 130)), (0, 0), 4) > 0.5
        file = io.BytesIO()
        Image.fromarray(page).save(file, "TIFF", compression=packing)
        (whole,) = pages_of(file.getvalue())
        strips = tifffile.TiffFile(io.BytesIO(file.getvalue())).pages.first
        start, length = strips.dataoffsets[0], strips.databytecounts[0]
        for wrong in (rng.bytes(3), bytes(max(200, length // 8))):
            at = start + int(rng.integers(length // 8, length - length // 8 - len(wrong)))
            data = file.getvalue()[:at] + wrong + file.getvalue()[at + len(wrong) :]
            (entry,) = decode(data, LIMITS)
            if isinstance(entry, Page):  # a row of it may be wrong, or missing
                rows = np.mean(entry.grey != whole.grey, axis=1) > 0.1
                read += int(rows.mean() > 0.15)
    assert read <= 1  # of 80


@pytest.mark.parametrize("packing", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("strip_bytes", [6, 50, 96, 10_000])
def test_strips_of_fax_codes_are_read_however_many_there_are(packing: str, strip_bytes: int) -> None:
    bits = GREY > 128
    file = io.BytesIO()
    Image.fromarray(bits).save(file, "TIFF", compression=packing, strip_size=strip_bytes)
    with tifffile.TiffFile(io.BytesIO(file.getvalue())) as written:
        strips = len(written.pages.first.dataoffsets)
    assert strips == -(-len(bits) // max(1, strip_bytes // 6))
    (page,) = pages_of(file.getvalue())
    np.testing.assert_array_equal(page.grey, np.where(bits, 255, 0))


NOISY = np.clip(np.tile(GREY, (3, 3)) + np.random.default_rng(1).integers(0, 9, (120, 144)), 0, 255).astype(np.uint8)
STORED: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "plain": (NOISY, {}),
    "LZW": (NOISY, {"compression": "lzw"}),
    "PackBits": (NOISY, {"compression": "packbits"}),
    "Zstandard": (NOISY, {"compression": "zstd"}),
    "JPEG 2000": (NOISY, {"compression": 34712}),
    "white is zero": (NOISY, {"photometric": "miniswhite"}),
    "floats": ((NOISY / 255).astype("f4"), {}),
    "white floats": (np.round(NOISY / 255).astype("f4"), {}),
    "a colour map": (
        NOISY,
        {"photometric": "palette", "colormap": np.stack([np.arange(256, dtype=np.uint16) * 257] * 3)},
    ),
    "planes": (np.stack([NOISY] * 3), {"photometric": "rgb", "planarconfig": "separate"}),
    "tiles": (NOISY, {"tile": (32, 48)}),
    "one tile": (NOISY, {"tile": (128, 160)}),
    "tiles of colour": (np.dstack([NOISY] * 3), {"photometric": "rgb", "tile": (32, 48)}),
}


@pytest.mark.parametrize("name", STORED)
def test_a_tiff_whose_end_was_never_written_is_a_fault(name: str) -> None:
    samples, options = STORED[name]
    whole = tiff(samples, **options)
    pages_of(whole)
    page = tifffile.TiffFile(io.BytesIO(whole)).pages.first
    first, end = page.dataoffsets[0], page.dataoffsets[-1] + page.databytecounts[-1]
    for share in (0.2, 0.51, 0.8):
        start = first + int((end - first) * share) + 7
        data = whole[:start] + bytes(end - start) + whole[end:]
        assert fault_of(data).kind == FaultKind.UNREADABLE, share


@pytest.mark.parametrize("size", [(120, 144), (64, 64), (65, 63), (1, 130), (129, 1)])
def test_what_fills_up_the_last_tiles_is_no_damage(size: tuple[int, int]) -> None:
    noisy = np.resize(NOISY, size)
    for samples, options in ((noisy, {}), (np.dstack([noisy] * 3), {"photometric": "rgb"}), (noisy > 128, {})):
        (page,) = pages_of(tiff(samples, tile=(64, 64), **options))
        assert page.grey.shape == size


def test_a_black_margin_and_paper_of_zeros_are_no_damage() -> None:
    margin = np.full((200, 150), 220, np.uint8)
    margin[150:] = 0
    pages_of(tiff(margin))
    pages_of(tiff(255 - margin, photometric="miniswhite"))
    light_on_dark = np.zeros((200, 150), np.uint8)
    light_on_dark[80:120, 60:70] = 255
    pages_of(tiff(light_on_dark))
    bar = np.zeros((200, 150), np.uint8)
    bar[150:190, 5:140] = 255  # and ten rows of zeros below, which begin within a row
    for photometric in ("minisblack", "miniswhite"):
        pages_of(tiff(bar, photometric=photometric))


def test_a_jpeg_inside_that_is_cut_is_a_fault() -> None:
    whole = with_jpeg(RGB)
    page = tifffile.TiffFile(io.BytesIO(whole)).pages.first
    start, length = page.dataoffsets[0], page.databytecounts[0]
    cut = start + length * 2 // 3
    assert fault_of(whole[:cut] + b"\xff\xd9" + whole[cut + 2 :]).kind == FaultKind.UNREADABLE


def test_a_kind_that_is_not_read_is_named() -> None:
    for data, says in ((tiff(GREY, compression="lerc"), "LERC"), (tiff(GREY.astype("c8")), "complex")):
        fault = fault_of(data)
        assert fault.kind == FaultKind.UNSUPPORTED
        assert says in fault.detail
        assert "copy it again" not in fault.detail


def test_a_strip_that_unpacks_to_far_more_than_its_page_takes_no_memory() -> None:
    bomb = zlib.compress(bytes(50_000_000))
    data = bytearray(tiff(GREY, compression="zlib"))
    page = tifffile.TiffFile(io.BytesIO(bytes(data))).pages.first
    at = struct.pack("<HHII", 279, 4, 1, page.databytecounts[0])
    assert at in data
    changed = bytes(data).replace(at, struct.pack("<HHII", 279, 4, 1, len(bomb)))
    place = struct.pack("<HHII", 273, 4, 1, page.dataoffsets[0])
    assert decode(changed.replace(place, struct.pack("<HHII", 273, 4, 1, len(changed))) + bomb, LIMITS)


def test_an_image_inside_that_is_too_large_by_its_own_header_is_refused() -> None:
    whole = tiff(GREY, compression=34712)
    at = whole.index(b"\xff\x4f\xff\x51") + 8
    fault = fault_of(whole[:at] + struct.pack(">II", 60_000, 60_000) + whole[at + 8 :])
    assert fault.kind == FaultKind.TOO_LARGE


def test_more_samples_a_pixel_than_memory_allows_are_refused() -> None:
    (fault,) = decode(tiff(np.zeros((40, 40, 40), np.uint16), planarconfig="contig"), DecodingSettings(max_pixels=1600))
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.TOO_LARGE
    assert "--max-pixels" in fault.detail


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("count", [None, 0, 7, 35_711_440])
def test_pixels_that_are_not_packed_are_all_there_whatever_is_said_of_their_length(
    count: int | None, samples: int
) -> None:
    whole = tiff(RGB, photometric="rgb") if samples == 3 else tiff(GREY)
    said = struct.pack("<HHII", 279, 4, 1, GREY.size * samples)
    assert said in whole
    other = struct.pack("<HHII", 279, 4, 1, count) if count is not None else struct.pack("<HHII", 280, 4, 1, 0)
    (page,) = pages_of(whole.replace(said, other))
    np.testing.assert_array_equal(page.grey, GREY)
    cut = whole.replace(said, other)[:-1]
    start = tifffile.TiffFile(io.BytesIO(whole)).pages.first.dataoffsets[0]
    assert start + GREY.size * samples == len(whole)
    assert fault_of(cut).kind == FaultKind.UNREADABLE


@pytest.mark.parametrize("colours", ["minisblack", "rgb"])
def test_where_nothing_is_said_of_colours_zero_is_black(colours: str) -> None:
    whole = tiff(RGB if colours == "rgb" else GREY, photometric=colours)
    said = struct.pack("<HHIH", 262, 3, 1, 2 if colours == "rgb" else 1)
    assert said in whole
    (page,) = pages_of(whole.replace(said, struct.pack("<HHIH", 263, 3, 1, 1)))
    np.testing.assert_array_equal(page.grey, GREY)


def test_what_is_wrong_with_a_page_writes_nothing_to_standard_error(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    bands = tiff(np.zeros((8, 8, 9), np.uint8))
    for data in (bands, bands[:200], bands.replace(b"\1\1\3\0", b"\1\1\7\0"), KINDS["JPEG 2000 inside"][:300]):
        decode(data, LIMITS)
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


def test_chroma_that_is_subsampled_without_jpeg_is_read() -> None:
    rows = bytes(2 * [value for y in range(2) for value in (200, 100, 200, 100, 128, 128)])
    assert len(rows) == 24
    fields = {256: 4, 257: 4, 258: 8, 259: 1, 262: 6, 277: 3, 278: 4, 530: 2 | 2 << 16}
    entries = [struct.pack("<HHII", tag, 3, 2 if tag == 530 else 1, value) for tag, value in fields.items()]
    entries += [struct.pack("<HHII", 273, 4, 1, 8), struct.pack("<HHII", 279, 4, 1, len(rows))]
    directory = (
        struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda entry: entry[:2][::-1])) + bytes(4)
    )
    (page,) = pages_of(b"II*\0" + struct.pack("<I", 8 + len(rows)) + rows + directory)
    assert page.grey.shape == (4, 4)
    assert abs(int(page.grey[0, 0]) - 200) < 10


@pytest.mark.parametrize("planes", [0, 3, 2**16 - 1])
def test_planes_are_read_whatever_a_wrong_number_says_of_them(planes: int) -> None:
    colours = np.dstack([GREY, 255 - GREY, GREY])
    whole = tiff(np.moveaxis(colours, -1, 0), photometric="rgb", planarconfig="separate")
    tag = struct.pack("<HHIH", 284, 3, 1, 2)
    assert whole.count(tag) == 1
    (page,) = pages_of(whole.replace(tag, tag[:-2] + struct.pack("<H", planes)))
    np.testing.assert_array_equal(page.grey, pages_of(whole)[0].grey)

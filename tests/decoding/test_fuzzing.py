"""Broken and hostile files: decoding gives pages or faults, takes little memory for them, and raises nothing.

`benchmarks/fuzzing.py` reads far more mutants of the same kind, each in a process that may crash.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind
from tests.damaged_images import (
    DEFAULT,
    SMALL,
    forget_peak,
    keep_normalisation,
    keep_promises,
    most_bytes,
    mutant,
    peak_bytes,
    seeds,
    with_checksums,
)

MUTANTS = 2_000
STACK = 200  # files whose pages are normalised together
REFUSAL_BYTES = 20 * 10**6  # that a file may take which is refused by its header


def png(width: int, height: int) -> bytes:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB4x", 13, b"IHDR", width, height, 8, 6, 0, 0, 0)
    return with_checksums(header + struct.pack(">I4s4x", 0, b"IDAT") + struct.pack(">I4s4x", 0, b"IEND"))


def jpeg(width: int, height: int) -> bytes:
    start = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0"
    return start + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + b"\xff\xd9"


def tiff(width: int, height: int) -> bytes:
    return directory({256: width, 257: height, 278: height})


def tiled_tiff(width: int, height: int) -> bytes:
    """Write a page of 20 × 20 in one tile of this size."""
    return directory({256: 20, 257: 20, 322: width, 323: height})


def directory(fields: dict[int, int]) -> bytes:
    """Write a TIFF of one deflated block of RGBA, at its end, by the fields that say its size."""
    tiled = 322 in fields
    fields |= {258: 8, 259: 8, 262: 2, 277: 4, (324 if tiled else 273): 8, (325 if tiled else 279): 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(fields)) + entries + bytes(4)


def bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 32, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH3x", width, height) + gif_frame(20, 20) + b";"


def gif_with_a_larger_frame(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH3x", 20, 20) + b"\x21\xf9\4\x09\0\0\0\0" + gif_frame(width, height) + b";"


def gif_frame(width: int, height: int) -> bytes:
    return b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x4c\1\0"


def webp(width: int, height: int) -> bytes:
    return riff(b"VP8 ", b"\x10\0\0\x9d\1\x2a" + struct.pack("<HH", width, height) + bytes(20))


def lossless_webp(width: int, height: int) -> bytes:
    return riff(b"VP8L", b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(20))


def extended_webp(width: int, height: int) -> bytes:
    sides = b"".join((side - 1).to_bytes(3, "little") for side in (width, height))
    return riff(b"VP8X", bytes(4) + sides, lossless_webp(20, 20)[12:])


def riff(name: bytes, data: bytes, more: bytes = b"") -> bytes:
    chunks = b"WEBP" + struct.pack("<4sI", name, len(data)) + data + b"\0" * (len(data) % 2) + more
    return struct.pack("<4sI", b"RIFF", len(chunks)) + chunks


HEADERS: dict[Callable[[int, int], bytes], int] = {
    png: 2**31 - 1,
    jpeg: 2**16 - 1,
    tiff: 2**32 - 1,
    tiled_tiff: 2**32 - 1,
    bmp: 2**31 - 1,
    gif: 2**16 - 1,
    gif_with_a_larger_frame: 2**16 - 1,
    webp: 2**14 - 1,
    lossless_webp: 2**14,
    extended_webp: 2**24,
}
"""Files that are little more than a size, and the largest side that fits in."""


def sized(least: int) -> st.SearchStrategy[bytes]:
    """Files of a header, with sides from the least to the largest."""

    def of(header: Callable[[int, int], bytes]) -> st.SearchStrategy[bytes]:
        side = st.integers(least, HEADERS[header])
        return st.builds(header, side, side)

    return st.sampled_from(list(HEADERS)).flatmap(of)


@contextmanager
def taking_at_most(size_bytes: int) -> Iterator[None]:
    forget_peak()
    before = peak_bytes()
    yield
    assert peak_bytes() - before <= size_bytes


@pytest.fixture(scope="module", autouse=True)
def loaded_codecs() -> None:
    """Read each format once, so that what its codec takes for itself is not put down to a broken file."""
    for files in seeds().values():
        for data in files:
            assert all(isinstance(entry, Page) for entry in keep_promises(data, DEFAULT))


@pytest.mark.parametrize("first", range(0, MUTANTS, STACK))
def test_mutants_are_pages_or_faults_and_their_pages_can_be_normalised(first: int) -> None:
    files = [mutant(number) for number in range(first, first + STACK)]
    entries = [entry for file in files for entry in keep_promises(file.data, file.limits)]
    keep_normalisation([entry.grey for entry in entries if isinstance(entry, Page)])


def test_a_mutant_follows_from_its_number() -> None:
    assert mutant(7) == mutant(7)
    assert len({mutant(number).data for number in range(100)}) > 90


def test_every_format_has_mutants_that_are_read_and_some_that_are_not() -> None:
    seen = {
        (file.kind, isinstance(entry, Page))
        for file in map(mutant, range(1_000))
        for entry in decode(file.data, file.limits)
    }
    assert seen == {(kind, read) for kind in seeds() for read in (True, False)}


SIGNATURES = [
    b"\x89PNG\r\n\x1a\n",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x14\0\0\0\x14\x08\0\0\0\0",
    b"\xff\xd8\xff",
    b"\xff\xd8\xff\xc0",
    *(
        order + rest
        for order, rest in ((b"II", b"*\0\x08\0\0\0"), (b"MM", b"\0*\0\0\0\x08"), (b"II", b"+\0\x08\0\0\0"))
    ),
    b"GIF87a",
    b"GIF89a\x14\0\x14\0\0\0\0",
    *(b"RIFF\x60\0\0\0WEBP" + name for name in (b"", b"VP8 ", b"VP8L", b"VP8X")),
    b"BM",
    b"BM\x99\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
]


@given(start=st.sampled_from(SIGNATURES), rest=st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_anything_after_a_signature_is_a_page_or_a_fault(start: bytes, rest: bytes) -> None:
    keep_promises(start + rest, SMALL)


@given(data=sized(1))
@settings(max_examples=300, deadline=None)
def test_headers_of_any_size_take_no_more_memory_than_the_limit_of_pixels_allows(data: bytes) -> None:
    with taking_at_most(most_bytes(SMALL)):
        keep_promises(data, SMALL)


@given(data=sized(12_248))
@settings(max_examples=300, deadline=None)
def test_bombs_are_refused_by_their_headers(data: bytes) -> None:
    with taking_at_most(REFUSAL_BYTES):
        (fault,) = keep_promises(data, DEFAULT)
    assert isinstance(fault, Fault)
    assert fault.kind == FaultKind.TOO_LARGE

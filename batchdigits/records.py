"""Hold the records that one room hands to the next, and the names of their arrays.

Each type that several rooms share is defined here and nowhere else. What is done with a record stands in the rooms.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import Fault, FaultKind

GreyImage = NDArray[np.uint8]  # [H, W], 0 black to 255 white
FullResolution = Callable[[], GreyImage]
"""Decodes a page once more, not downscaled."""
InkImages = NDArray[np.uint8]  # [N, 28, 28], bright ink on 0: what the model reads
InkMeasures = NDArray[np.float32]  # [N, len(INK_MEASURES)]
Logits = NDArray[np.float32]  # [N, K], K >= 10: the ten digits, then outputs that only the gate uses
Digits = NDArray[np.int8]  # [N], 0 to 9; NO_DIGIT where there is none
Labels = NDArray[np.int8]  # [N], 0 to 9, and beyond them NOT_A_DIGIT and BLANK
Fractions = NDArray[np.float64]  # [N], 0 to 1; NaN where there is none

SIDE = 28
"""Pixels of the side of what the model reads."""
LOOK_CELLS = 64
"""Cells across and down of what the ink finder sees of a page."""
DIGITS = 10
"""The first columns of the logits: the digits 0 to 9."""
NOT_A_DIGIT, BLANK = 10, 11
"""The columns after them, which only the gate uses: ink that is no digit, and empty paper."""
NO_DIGIT = -1
"""What stands in a column of digits where there is none."""

SIGNATURE = re.compile(
    rb"(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<JPEG>\xff\xd8\xff)|(?P<TIFF>II[*+]\0|MM\0[*+])"
    rb"|(?P<GIF>GIF8[79]a)|(?P<WebP>RIFF.{4}WEBP)|(?P<BMP>BM)|(?P<PDF>.{0,1000}?%PDF-)"
    rb"|(?P<JP2>\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)|(?P<AVIF>.{4}ftypavi[fs])"
    rb"|(?P<HEIC>.{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1))",
    re.DOTALL,
)
"""Matches the first bytes of an image file; the name of the group that matched is its kind."""

KINDS = ("nothing", "single", "several", "foreign")
"""What the ink finder takes a page for: one without writing, with one digit, with several digits, with something else.
"""
INK_MEASURES = ("share", "other", "depth", "edge", *KINDS)
"""Columns of the ink measures: the share of the page that the digit's ink covers, 0 to 1 (0: no ink was found); how
long the longest thing is that was left out, as a share of the digit, 0 or more: another digit, perhaps; how much of the
paper's light the ink takes, 0 to 1; whether the digit touches the page's edge, 1 or 0; and how likely the ink finder
takes the whole page for each of `KINDS`: four that sum to 1, or all 0 where it was not asked."""
INK, OTHER, DEPTH, EDGE, NOTHING, SINGLE, SEVERAL, FOREIGN = range(len(INK_MEASURES))


class Status(StrEnum):
    """What a row says about its page."""

    OK = "ok"
    """A digit, at or above the threshold."""
    REVIEW = "review"
    """A digit, below the threshold."""
    ANSWERED = "answered"
    """Somebody has looked and given an answer, whatever the model says of the page."""
    BLANK = "blank"
    """No ink was found, or the gate takes it for the paper's own."""
    NOT_A_DIGIT = "not_a_digit"
    """Ink, but the gate takes it for something else."""
    UNREADABLE = FaultKind.UNREADABLE.value
    """The file could not be opened or decoded."""
    TOO_LARGE = FaultKind.TOO_LARGE.value
    """Over the limit by its header or size; never decoded."""
    UNSUPPORTED = FaultKind.UNSUPPORTED.value
    """A format that has to be converted first."""


class ImageFile(NamedTuple):  # a dataclass takes four times as long to make
    """A file that gets one row a page."""

    path: str
    """Absolute path, as `os.fsdecode` gives it: bytes that are not UTF-8 are surrogates; or a normalised URL."""
    name: str
    """The `path` column of its rows: `/` between parts, escaped by `errors.escape_name`."""
    size_bytes: int
    """Size of the file; 0 for one whose status cannot be read, such as a dangling link."""
    mtime_ns: int
    """Time of its last change in nanoseconds since 1970; 0 for one whose status cannot be read. Behind a URL that tells
    no such time, a negative number that is another for other bytes."""
    ending: str
    """The name's ending, with its dot, in lower case; empty without one."""
    inode: int
    """Inode number of the file; 0 for one whose status cannot be read, or behind a URL."""
    ctime_ns: int = 0
    """When the file system last changed its inode, in nanoseconds since 1970: unlike `mtime_ns` nobody can set it. 0
    where `inode` is."""
    known_sha256: str = ""
    """Of the bytes that were observed at this path before; empty where there are none."""

    @property
    def is_remote(self) -> bool:
        """Whether it is behind a URL."""
        return not self.path.startswith("/")


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something found that gets no row; it is counted by its reason."""

    path: str
    """Absolute path, as `os.fsdecode` gives it, or a normalised URL."""
    reason: str
    """A short noun phrase, the same for all of its kind: `not an image`."""


class SeenPage(NamedTuple):
    """Where one row of a batch comes from."""

    file: ImageFile
    """The file."""
    number: int
    """The page in the file, from 1."""
    width: int | None
    """Pixels as stored, after EXIF rotation; None where a fault hides it."""
    height: int | None
    """Pixels as stored, after EXIF rotation; None where a fault hides it."""
    sha256: str
    """Of the file's own bytes, hexadecimal; empty where they could not be read."""
    of: int
    """How many pages the file has."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages that can be predicted together, and the faults met on the way to them."""

    pages: list[SeenPage]
    """`pages[i]` is `pixels[i]` and `ink[i]`."""
    pixels: InkImages
    """uint8[N, 28, 28]."""
    ink: InkMeasures
    """float32[N, M]."""
    faults: list[tuple[SeenPage, Fault]]
    """Pages without pixels."""
    unchanged: list[ImageFile]
    """Files whose bytes are those that are known of them."""
    pictures: list[GreyImage]
    """`pictures[i]` is `pages[i]`, reduced for people."""

    @classmethod
    def empty(cls) -> Self:
        """Make a batch of nothing."""
        pixels, ink = np.zeros((0, SIDE, SIDE), np.uint8), np.zeros((0, len(INK_MEASURES)), np.float32)
        return cls([], pixels, ink, [], [], [])

    @classmethod
    def concat(cls, *parts: Self) -> Self:
        """Make one batch of some, of one at least."""
        return cls(
            [page for part in parts for page in part.pages],
            np.concatenate([part.pixels for part in parts]),
            np.concatenate([part.ink for part in parts]),
            [fault for part in parts for fault in part.faults],
            [file for part in parts for file in part.unchanged],
            [picture for part in parts for picture in part.pictures],
        )

    @property
    def nbytes(self) -> int:
        """How much memory its arrays take."""
        return self.pixels.nbytes + self.ink.nbytes + sum(picture.nbytes for picture in self.pictures)

    def files(self) -> Iterator[ImageFile]:
        """Give the files of its pages, faults and unchanged files; one of several pages several times."""
        for page in self.pages:
            yield page.file
        for page, _ in self.faults:
            yield page.file
        yield from self.unchanged

    def without(self, paths: Set[str]) -> "Batch":
        """Leave out what belongs to some files."""
        kept = [at for at, page in enumerate(self.pages) if page.file.path not in paths]
        faults = [(page, fault) for page, fault in self.faults if page.file.path not in paths]
        return self._of(kept, faults, [file for file in self.unchanged if file.path not in paths])

    def spoiled(self, faults: Mapping[int, Fault]) -> "Batch":
        """Make pages faults, by their row."""
        kept = [at for at in range(len(self.pages)) if at not in faults]
        return self._of(
            kept, [*self.faults, *((self.pages[at], fault) for at, fault in faults.items())], self.unchanged
        )

    def failed(self, fault: Fault) -> "Batch":
        """Make all of it one fault, whose pages have no sizes."""
        pages = [page._replace(width=None, height=None) for page in (*self.pages, *(page for page, _ in self.faults))]
        return self._of([], [(page, fault) for page in pages], self.unchanged)

    def _of(self, kept: list[int], faults: list[tuple[SeenPage, Fault]], unchanged: list[ImageFile]) -> "Batch":
        """Keep some pages, by their rows, with other faults and unchanged files."""
        pictures = [self.pictures[at] for at in kept]
        return Batch([self.pages[at] for at in kept], self.pixels[kept], self.ink[kept], faults, unchanged, pictures)

    def split(self, size: int) -> tuple["Batch", "Batch"]:
        """Cut off the first `size` pages, and all faults and unchanged files with them."""
        first, rest = slice(None, size), slice(size, None)
        return (
            Batch(
                self.pages[first],
                self.pixels[first],
                self.ink[first],
                self.faults,
                self.unchanged,
                self.pictures[first],
            ),
            Batch(self.pages[rest], self.pixels[rest], self.ink[rest], [], [], self.pictures[rest]),
        )

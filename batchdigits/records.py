"""Hold the records that one room hands to the next, and the names of their arrays.

Each type that several rooms share is defined here and nowhere else. What is done with a record stands in the rooms.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    rb"|(?P<JP2>\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51)|(?P<AVIF>.{4}ftyp(?:avi[fs]|mi[fa]1.{0,60}?avi[fs]))"
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

OUTPUTS = DIGITS + 2
"""Logits that a page has room for: the digits, `NOT_A_DIGIT` and `BLANK`."""
NEVER = np.float32(-1e9)
"""A logit of what a model cannot say."""

PAGE = np.dtype(
    [
        ("sha256", "V32"),  # of the file's own bytes; zeros where they could not be read
        ("file", "<i4"),  # its place among the files
        ("number", "<i4"),  # the page in the file, from 1
        ("width", "<i4"),  # pixels as stored, after EXIF rotation; 0 where unknown
        ("height", "<i4"),
        ("logits", "<f4", (OUTPUTS,)),  # `NEVER` where the model has no such output
        ("ink", "<f4", (len(INK_MEASURES),)),
        ("fault", "?"),  # whether there are neither logits nor ink
    ]
)
"""One page, from the worker that reads it to the report."""
UNDRAWN = b""
"""In the place of a picture that is to be drawn when a report shows it."""
NO_SUM = "0" * 64
"""The sha256 of a record whose file's bytes could not be read, hexadecimal."""
Pages = NDArray[np.void]  # [N] of PAGE
Sums = NDArray[np.bytes_]  # [N] of 32 bytes each, sorted
KnownBytes = Mapping[str, Sums]
"""The sha256 of bytes that need not be read again, by the ending under which they were."""


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


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read of some files, a record a page; a file's pages stand together, and in one batch."""

    files: list[ImageFile]
    """F files."""
    pages: Pages
    """[N] of `PAGE`, in the order of the files."""
    faults: dict[int, Fault] = field(default_factory=dict)
    """What is wrong with the pages that have one, by their row."""
    thumbnails: dict[int, bytes] = field(default_factory=dict)
    """PNGs of some of the others, or `UNDRAWN`, by their row."""
    unchanged: dict[int, str] = field(default_factory=dict)
    """The sha256 of files whose bytes are known, hexadecimal, by their place; they have no pages here."""
    changed: set[int] = field(default_factory=set)
    """The places of files whose size or time was another right after they were read than when they were found."""
    confidences: tuple[int, ...] = ()
    """How many of its pages the model is how sure of, as `drift.histogram` counts; empty where none was predicted."""

    @classmethod
    def concat(cls, *parts: Self) -> Self:
        """Make one batch of some."""
        joined = cls([], np.concatenate([part.pages for part in parts]) if parts else np.zeros(0, PAGE))
        row = 0
        counts = [part.confidences for part in parts if part.confidences]
        for part in parts:
            first = len(joined.files)
            joined.pages["file"][row : row + len(part.pages)] += first
            joined.files.extend(part.files)
            joined.faults.update({row + at: fault for at, fault in part.faults.items()})
            joined.thumbnails.update({row + at: png for at, png in part.thumbnails.items()})
            joined.unchanged.update({first + at: sha256 for at, sha256 in part.unchanged.items()})
            joined.changed.update(first + at for at in part.changed)
            row += len(part.pages)
        return replace(joined, confidences=tuple(map(sum, zip(*counts, strict=True))))

    def __len__(self) -> int:
        """Count the pages."""
        return len(self.pages)

    @property
    def sha256(self) -> list[str]:
        """Of each page's file, hexadecimal; empty where its bytes could not be read."""
        return sums(self.pages)

    def apart(self) -> "Iterator[Batch]":
        """Give each file by itself."""
        for at in range(len(self.files)):
            yield self.of([at])

    def of(self, places: Sequence[int]) -> "Batch":
        """Give some files, by their places; one may come several times. Where the files are left out, they stay so."""
        first, last = (np.searchsorted(self.pages["file"], places, side) for side in ("left", "right"))
        rows = [row for ends in zip(first.tolist(), last.tolist(), strict=True) for row in range(*ends)]
        pages = self.pages[rows]
        pages["file"] = np.repeat(np.arange(len(places)), last - first)
        return Batch(
            [self.files[at] for at in places] if self.files else [],
            pages,
            {row: self.faults[before] for row, before in enumerate(rows) if before in self.faults},
            {row: self.thumbnails[before] for row, before in enumerate(rows) if before in self.thumbnails},
            {place: self.unchanged[before] for place, before in enumerate(places) if before in self.unchanged},
            {place for place, before in enumerate(places) if before in self.changed},
            self.confidences,
        )

    def failed(self, fault: Fault) -> "Batch":
        """Make all of it one fault, whose pages have no sizes; what is unchanged stays so."""
        pages = self.pages.copy()
        pages["fault"], pages["width"], pages["height"] = True, 0, 0
        return Batch(self.files, pages, dict.fromkeys(range(len(pages)), fault), unchanged=self.unchanged)


def sums(pages: Pages) -> list[str]:
    """Spell the sha256 of pages, hexadecimal; empty where there is none."""
    text = pages["sha256"].tobytes().hex()
    found = [text[at : at + 64] for at in range(0, len(text), 64)]
    return ["" if one == NO_SUM else one for one in found]

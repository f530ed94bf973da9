"""Define the one schema of all reports: which columns a row has, in which order, and what an empty cell is.

Every format is a rendering of `Rows` by `COLUMNS`; a column is added here and nowhere else.
"""

from dataclasses import asdict, dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

SCHEMA_VERSION = 2
"""Rises when a column changes its meaning; a new column at the end does not raise it."""


class Kind(Enum):
    """What a column holds, and what stands in `Rows` where a cell is empty."""

    TEXT = auto()
    """Any text; `""` is empty."""
    STATUS = auto()
    """A word of `decisions.Status`; never empty."""
    COUNT = auto()
    """An integer from 1; 0 is empty."""
    DIGIT = auto()
    """0 to 9; -1 is empty."""
    FRACTION = auto()
    """0 to 1 with four decimals; NaN is empty."""
    PROBABILITIES = auto()
    """Ten fractions, for the digits 0 to 9; ten NaN are empty."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of every report."""

    name: str
    """Its header, and the field of `Rows` that holds it."""
    kind: Kind
    """What it holds."""


COLUMNS = (
    Column("path", Kind.TEXT),
    Column("page", Kind.COUNT),
    Column("final", Kind.DIGIT),
    Column("status", Kind.STATUS),
    Column("digit", Kind.DIGIT),
    Column("confidence", Kind.FRACTION),
    Column("corrected", Kind.TEXT),
    Column("detail", Kind.TEXT),
    Column("runner_up", Kind.DIGIT),
    Column("runner_up_confidence", Kind.FRACTION),
    Column("width", Kind.COUNT),
    Column("height", Kind.COUNT),
    Column("sha256", Kind.TEXT),
    Column("model", Kind.TEXT),
    Column("probabilities", Kind.PROBABILITIES),
)
"""The columns in the order of the contract: first what people read. CSV spells the last one as `p0` … `p9`."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk of N decided rows, one column a field; `Kind` says what stands for an empty cell."""

    path: list[str]
    """The page's file, as `errors.escape_name` writes it."""
    page: list[int]
    """From 1."""
    final: NDArray[np.int8]
    """int8[N], the digit that counts."""
    status: list[str]
    """A word of `decisions.Status`."""
    digit: NDArray[np.int8]
    """int8[N], the likeliest digit."""
    confidence: NDArray[np.float64]
    """float64[N], its probability."""
    corrected: list[str]
    """A person's answer: `0` to `9`, `x` for no digit, or `c` where nobody can tell."""
    detail: list[str]
    """The fault, or the reason for review."""
    runner_up: NDArray[np.int8]
    """int8[N], the second likeliest digit."""
    runner_up_confidence: NDArray[np.float64]
    """float64[N], its probability."""
    width: NDArray[np.int32]
    """int32[N], pixels of the page as stored, after EXIF rotation."""
    height: NDArray[np.int32]
    """int32[N], pixels of the page as stored, after EXIF rotation."""
    sha256: list[str]
    """Of the file's own bytes."""
    model: list[str]
    """First 12 characters of the bundle's id."""
    probabilities: NDArray[np.float32]
    """float32[N, 10]."""
    verdict: list[str]
    """No column: the status by what the model says alone, whether or not somebody has answered."""
    thumbnail: list[bytes]
    """No column: a small PNG of the page or, where its digit is small, of the part around that, its longer side at most
    96 pixels; empty where none is kept."""
    audit: NDArray[np.bool_]
    """No column: bool[N], whether the row, whose verdict is `ok`, belongs to the sample that people should check."""

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.path)


@dataclass(frozen=True, slots=True)
class About:
    """What a report was made by and under: everything but the images that changes an answer, and no clock."""

    tool_version: str
    """Version of batchdigits."""
    model: str
    """The bundle's whole id."""
    temperature: float
    """Calibration: what the logits were divided by."""
    gate: float
    """Probability, 0 to 1, that a page shows no digit, above which it was said to have none."""
    threshold: float
    """Confidence, 0 to 1, below which a digit went to review."""
    target_error: float | None
    """Share of wrong digits, 0 to 1, among those that are `ok`, that was asked for; None where the threshold was given
    itself."""
    expected_error: float | None
    """Share of wrong digits among those that are `ok`, 0 to 1, as it is estimated; None of too few digits."""
    basis: str
    """Why the threshold is what it is: a word of `trust.Basis`."""
    trust: str
    """What the rows that are `ok` are worth: the clause that the end of the run says, too."""
    answers_missing: tuple[int | None, ...]
    """How many answers to the audit sample more would prove each of `trust.TARGETS`, about; None: however many."""
    max_pixels: int
    """Width × height above which a page was too large."""
    max_bytes: int
    """Size of a file above which it was too large."""
    versions: str
    """Of decoding, normalisation and the runtime."""

    def metadata(self) -> dict[str, str]:
        """Spell it, with the schema's version, as keys and values for a report's own metadata."""
        entries = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return {f"batchdigits.{name}": str(value) for name, value in entries.items()}

"""Read stored predictions back in the order of rows, each row checked against its checksum."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import Fault, FaultKind
from batchdigits.ledger import answers
from batchdigits.ledger.database import Database

CHUNK = 8192
"""Rows that are held at a time."""
_NEVER = -1e9  # a logit of what a model could not say
FLOAT32 = np.dtype("<f4")
"""How logits and ink measures are kept."""

_ROWS = """
SELECT
    bundle, observations.sha256, pages.page, width, height, logits, ink, fault, detail, name, coalesce(answer, ''),
    {png}, pages.sum, files.sum, found.path
FROM found
JOIN files ON files.path = found.path
JOIN observations ON observations.id = files.observation
JOIN pages ON pages.observation = observations.id
JOIN conditions ON conditions.id = observations.condition
LEFT JOIN answers ON answers.sha256 = observations.sha256 AND answers.page = pages.page
{join}
ORDER BY name, pages.page
"""
_ROWS_ALONE = _ROWS.format(png="x''", join="")
_ROWS_WITH_THUMBNAILS = _ROWS.format(
    png="coalesce(png, x'')",
    join="LEFT JOIN thumbnails ON thumbnails.observation = pages.observation AND thumbnails.page = pages.page",
)

_FILES = "SELECT count(*), count(files.path) FROM found LEFT JOIN files ON files.path = found.path"
_PAGES = """
SELECT coalesce(sum(observations.pages), 0)
FROM found JOIN files ON files.path = found.path JOIN observations ON observations.id = files.observation
"""


@dataclass(frozen=True, slots=True)
class Observations:
    """A chunk of N rows in the order of the report, one column a field."""

    names: list[str]
    """The files, as rows show them."""
    pages: list[int]
    """From 1."""
    sha256: list[str]
    """Of each file's bytes; empty where they could not be read."""
    widths: list[int | None]
    """Pixels; None where unknown."""
    heights: list[int | None]
    """Pixels; None where unknown."""
    faults: list[Fault | None]
    """None where the page was read."""
    models: list[str]
    """The id of the bundle that each row was observed with."""
    corrected: list[str]
    """A person's answer: `0` to `9`, or `x` for no digit; empty where there is none."""
    thumbnails: list[bytes]
    """A PNG of the page; empty where none is kept, or none was asked for."""
    logits: NDArray[np.float32]
    """float32[P, K], of the P pages without a fault, in order."""
    ink: NDArray[np.float32]
    """float32[P, M], of the P pages without a fault, in order."""

    def apart(self) -> Iterator["Observations"]:
        """Give each row by itself."""
        read = 0
        for row, fault in enumerate(self.faults):
            first, read = read, read + (fault is None)
            own = {"logits": slice(first, read), "ink": slice(first, read)}
            cells = {f.name: getattr(self, f.name)[own.get(f.name, slice(row, row + 1))] for f in fields(self)}
            yield Observations(**cells)

    def failed(self, fault: Fault) -> "Observations":
        """Make a row by itself a fault."""
        empty: dict[str, Any] = {"logits": self.logits[:0], "ink": self.ink[:0], "thumbnails": [b""], "corrected": [""]}
        return replace(self, faults=[fault], widths=[None], heights=[None], **empty)


def read(database: Database, chunk: int = CHUNK, *, thumbnails: bool = False) -> Iterator[Observations]:
    """Give all that was observed of what was found, in the order of rows.

    Args:
        database: Where a plan has taken in what was found.
        chunk: Rows at a time.
        thumbnails: Give the pictures, too.

    Raises:
        StorageError: The ledger is damaged.
    """
    answers.check(database)
    with database.errors():
        files, observed = database.execute(_FILES).fetchone()
        if files != observed:
            raise database.damaged()  # some would have no row
        (missing,) = database.execute(_PAGES).fetchone()
        cursor = database.execute(_ROWS_WITH_THUMBNAILS if thumbnails else _ROWS_ALONE)
        while rows := cursor.fetchmany(chunk):
            missing -= len(rows)
            columns = [list(column) for column in zip(*rows, strict=True)]
            models, sha256, pages, widths, heights, logits, ink, kinds, details, names, corrected, pictures = columns[
                :12
            ]
            page_sums, file_sums, paths = columns[12:]
            files -= pages.count(1)
            if page_sums != [page_checksum(row[:9]) for row in rows] or file_sums != list(
                map(file_checksum, paths, sha256)
            ):
                raise database.damaged()
            faults = [
                None if kind is None else Fault(FaultKind(kind), text)
                for kind, text in zip(kinds, details, strict=True)
            ]
            matrices = _matrix(logits, missing=_NEVER), _matrix(ink, missing=0)
            yield Observations(names, pages, sha256, widths, heights, faults, models, corrected, pictures, *matrices)
        if files or missing:
            raise database.damaged()


def _matrix(blobs: list[bytes | None], *, missing: float) -> NDArray[np.float32]:
    """Stack float32 rows: float32[P, K]; where there is none, float32[0, 10], which every reader takes.

    Rows that an earlier model or version made may be shorter: `missing` stands where they have nothing.
    """
    present = [blob for blob in blobs if blob is not None]
    widths = {len(blob) for blob in present} or {10 * FLOAT32.itemsize}
    most = max(widths)
    if len(widths) > 1:
        filling = np.float32(missing).astype(FLOAT32).tobytes()
        present = [blob + filling * ((most - len(blob)) // FLOAT32.itemsize) for blob in present]
    return np.frombuffer(b"".join(present), FLOAT32).reshape(len(present), most // FLOAT32.itemsize)


def page_checksum(values: tuple[Any, ...]) -> int:
    """Compute the checksum of a page, as `database.checksum` does, in half its time.

    Args:
        values: The bundle's id, the sha256, and the page's number, width, height, logits, ink, fault and detail.
    """
    if type(values[5]) is bytes and type(values[6]) is bytes:
        return zlib.crc32(b"%a\0%a\0%a\0%a\0%a\0%b\0%b\0%a\0%a" % values)
    return zlib.crc32(b"%a\0%a\0%a\0%a\0%a\0%a\0%a\0%a\0%a" % values)


def file_checksum(path: bytes, sha256: str) -> int:
    """Compute the checksum of a file, as `database.checksum` does, in a third of its time."""
    return zlib.crc32(b"%b\0%a" % (path, sha256))

"""Read simulated pages as prediction would: the ink that was found on each, with what was written there.

Pages are made by processes that each find the ink of what they made; the same seed gives the same pages whatever their
number.
"""

import hashlib
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from batchdigits.engine.children import one_for_each_core
from batchdigits.engine.worker import prepare_process
from batchdigits.inference.bundle import Network
from batchdigits.inference.runtimes import InkFinder, quickest
from batchdigits.preprocessing.framing import frame
from batchdigits.preprocessing.looks import around, cover
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import BLANK, LOOK_CELLS, NOT_A_DIGIT, GreyImage, InkImages, InkMeasures, Labels
from batchdigits.settings import NormalisationSettings, Runtime
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.local import file_sha256
from batchdigits.training.datasets.simulator.hands import Sources, sources
from batchdigits.training.datasets.simulator.pages import Kind, simulate

log = logging.getLogger(__name__)

_CHUNK = 250  # pages that are made together
_INKED = 80  # of 255: from which a pixel counts for the box of the ink that was written
_MARGIN = 0.3  # of the digit's longer side, around it
_SOFT = 1.0  # pixels: σ of the blur behind which two pictures of ink are compared, so that a pen's width counts little
_LABELS = {Kind.BLANK: BLANK, Kind.SEVERAL: NOT_A_DIGIT, Kind.OTHER: NOT_A_DIGIT}


class SimulatedInk(NamedTuple):
    """What was found on N simulated pages, and what was written there."""

    pixels: InkImages
    """uint8[N, 28, 28]."""
    ink: InkMeasures
    """float32[N, M]."""
    labels: Labels
    """int8[N]: the digit, or `NOT_A_DIGIT`, or `BLANK`."""
    scenes: NDArray[np.str_]
    """str[N], the kind of page."""
    likeness: NDArray[np.float32]
    """float32[N]: how much what was found looks like what was written, 0 to 1."""


class _Job(NamedTuple):
    """What all processes have in common."""

    finder: Path
    runtime: Runtime
    normalisation: NormalisationSettings
    part: str
    mnist_rows: NDArray[np.intp] | None


def read_simulated(
    count: int,
    *,
    finder: Path,
    normalisation: NormalisationSettings,
    part: str,
    seed: int,
    mnist_rows: NDArray[np.intp] | None = None,
    kept_in: Sequence[Path] = (),
    progress: bool = False,
) -> SimulatedInk:
    """Simulate pages, and find the ink on them.

    Args:
        count: Pages; made in chunks of 250.
        finder: The folder of the ink finder.
        normalisation: The numbers of the normalisation.
        part: `train` or `test`: by writers who are trained on, or by others.
        seed: Of the pages.
        mnist_rows: The rows of MNIST's training half that may be drawn; None as `sources` has it.
        kept_in: Folders where the same pages may have been kept; where they were not, the first gets them.
        progress: Show a progress bar on standard error.

    Raises:
        BundleError: The finder cannot be used.
        StorageError: A file of the package is missing or damaged.
    """
    job = _Job(finder, quickest(finder), normalisation, part, mnist_rows)
    name = f"pages-{_key(job, count, seed)}.npz"
    for folder in kept_in:
        if (folder / name).is_file():
            with np.load(folder / name) as kept:
                return SimulatedInk(*(kept[field] for field in SimulatedInk._fields))
    if kept_in:
        kept_in[0].mkdir(exist_ok=True)
    log.info("%d pages are simulated, and their ink is found", count)
    with one_for_each_core(_prepare, job) as pool:
        chunks = pool.map(_make, ((seed, number) for number in range(-(-count // _CHUNK))))
        found = list(tqdm(chunks, "pages", -(-count // _CHUNK), leave=False, disable=not progress, unit="chunk"))
    made = SimulatedInk(*(np.concatenate(column)[:count] for column in zip(*found, strict=True)))
    if kept_in:
        with atomic_write(kept_in[0] / name) as file:
            np.savez(file, **made._asdict())
    return made


def _key(job: _Job, count: int, seed: int) -> str:
    """Name all that the pages depend on."""
    rows = "all" if job.mnist_rows is None else hashlib.sha256(job.mnist_rows.tobytes()).hexdigest()
    weights = file_sha256(job.finder / Network.FINDER.file(Runtime.KERAS))
    text = f"{weights} {job.normalisation} {NormalisationSettings.VERSION} {job.part} {rows} {count} {seed}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# ---- in the processes ----------------------------------------------------------------------------------------------


class _Maker:
    """What a process keeps from one chunk to the next."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.sources: Sources = sources(job.part, job.mnist_rows)
        self.find = ExitStack().enter_context(InkFinder(job.finder, runtime=job.runtime))


_maker: list[_Maker] = []


def _prepare(job: _Job) -> None:
    prepare_process()
    _maker.append(_Maker(job))


def _make(seed: tuple[int, int]) -> SimulatedInk:
    """Make one chunk."""
    (maker,) = _maker
    rng = np.random.default_rng(seed)
    pages = [simulate(maker.sources, rng) for _ in range(_CHUNK)]
    found = normalise([page.grey for page in pages], maker.find, maker.job.normalisation)
    labels = [_LABELS.get(page.kind, page.label) for page in pages]
    likeness = _likeness(found.pixels, _written([page.ink for page in pages], maker.job.normalisation))
    scenes = np.array([page.scene for page in pages])
    return SimulatedInk(found.pixels, found.ink, np.array(labels, np.int8), scenes, likeness)


def _written(inks: Sequence[GreyImage], settings: NormalisationSettings) -> InkImages:
    """Frame what was written, uint8[h, w] each, as `normalise` frames what it finds: uint8[N, 28, 28]."""
    tiles = np.zeros((LOOK_CELLS, len(inks), LOOK_CELLS), np.uint8)
    boxes = np.zeros((len(inks), 4), np.float32)
    for row, ink in enumerate(inks):
        box = _box(ink)
        if box is not None:
            tiles[:, row] = cover(ink, around(box, _MARGIN))
            seen = _box(tiles[:, row])
            boxes[row] = boxes[row] if seen is None else seen
    return frame(tiles, boxes, settings.digit_side)


def _box(ink: GreyImage) -> list[int] | None:
    """Give the box of ink: left, top, right, bottom; None without any."""
    rows, columns = np.flatnonzero(ink.max(1) > _INKED), np.flatnonzero(ink.max(0) > _INKED)
    if not len(rows) or not len(columns):
        return None
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def _likeness(found: InkImages, written: InkImages) -> NDArray[np.float32]:
    """Compare ink to ink by the cosine of what both look like out of focus: float32[N], 0 to 1."""
    soft = [
        np.stack([cv2.GaussianBlur(image, (0, 0), _SOFT) for image in images.astype(np.float32)])
        for images in (found, written)
    ]
    product, own = (soft[0] * soft[1]).sum((1, 2)), [np.linalg.norm(image, axis=(1, 2)) for image in soft]
    return np.asarray(product / np.maximum(own[0] * own[1], 1e-6), np.float32)

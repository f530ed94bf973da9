"""Train the ink finder: the network that tells a digit's ink from all else on its page, on simulated pages.

Each page is looked at twice, as prediction does it: as a whole, and closer, around its ink. Pages are made anew in each
epoch, by processes that work while the network learns.
"""

import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.children import one_for_each_core
from batchdigits.engine.worker import prepare_process
from batchdigits.inference.runtimes import start_tensorflow
from batchdigits.preprocessing.looks import Square, around, cover, look, whole
from batchdigits.records import LOOK_CELLS
from batchdigits.settings import Arch, TrainSettings
from batchdigits.training.architectures import build, fold
from batchdigits.training.datasets.simulator.hands import Sources, sources
from batchdigits.training.datasets.simulator.pages import SimulatedPage, simulate
from batchdigits.training.loop import Lesson, in_bfloat16, learn

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

_PAGES = 50_000  # an epoch
_CHUNK = 250  # pages that are made together
_AHEAD = 6  # chunks that wait; their looks are shuffled together
_VALIDATION = 2000  # pages by writers who are left out of training
_COVER = 1.8  # times the share of a cell that a stroke covers: a thin stroke is ink, too
_INKED = 80  # of 255: from which a pixel counts for the box of the ink
_TURNED = 0.06  # share of the looks that are shown as negatives
_THREADS = 2  # on every machine: the order of sums, and so the last bit, may depend on it
_INK_WEIGHT, _DICE_WEIGHT, _KIND_WEIGHT = 4.0, 0.3, 0.08


class Looks(NamedTuple):
    """What the network learns from: two looks at each of N pages."""

    cells: NDArray[np.uint8]
    """uint8[2 N, 64, 64, 3]."""
    targets: NDArray[np.uint8]
    """uint8[2 N, 4097]: the ink of each cell, 0 to 255, and the page's kind."""


def fit_finder(settings: TrainSettings) -> "keras.Model":
    """Train the ink finder.

    Args:
        settings: The run; `settings.output` receives `history.jsonl` and `checkpoints/`.

    Returns:
        Looks uint8[N, 64, 64, 3] -> float32[N, 4100], ink of each cell, 0 to 1, and logits of four kinds.
    """
    start_tensorflow(_THREADS)
    with one_for_each_core(prepare_process) as makers:
        numbers = range(_VALIDATION // _CHUNK)
        unseen = list(makers.map(_make, [(settings.seed, 0, number) for number in numbers], ["test"] * len(numbers)))
        lesson = Lesson(
            steps=2 * _PAGES // settings.batch_size,
            batches=lambda epoch: _batches(makers, settings, epoch),
            validation=(np.concatenate([one.cells for one in unseen]), np.concatenate([one.targets for one in unseen])),
            loss=finder_loss,
            metric=overlap,
        )
        model = learn(lambda: in_bfloat16(lambda: build(Arch.FINDER)), lesson, settings)
    return fold(model, Arch.FINDER)


def golden_looks(seed: int) -> NDArray[np.uint8]:
    """Make looks at some pages on which two runtimes can be compared: uint8[N, 64, 64, 3]."""
    return _make((seed, 0, 0), "test").cells


def finder_loss(targets: Any, said: Any) -> Any:  # noqa: ANN401  Keras' tensors have no types
    """Cross-entropy of ink and of kinds, and Dice of the ink: float32[N].

    Source of Dice as a loss: Milletari, Navab, Ahmadi, «V-Net», 3DV 2016.
    """
    from keras import ops

    cells = LOOK_CELLS**2
    ink, logits = ops.cast(targets[:, :cells], "float32") / 255, said[:, :cells]
    surprise = ops.maximum(logits, 0) - logits * ink + ops.log1p(ops.exp(-ops.abs(logits)))
    has_ink = ops.cast(ops.sum(ink, axis=1) > 1, "float32")
    dice = has_ink * (1 - _dice(ink, ops.sigmoid(logits)))
    kinds = ops.sparse_categorical_crossentropy(targets[:, cells], said[:, cells:], from_logits=True)
    return _INK_WEIGHT * ops.mean(surprise * (1 + 2 * ink), axis=1) + _DICE_WEIGHT * dice + _KIND_WEIGHT * kinds


def overlap(targets: Any, said: Any) -> Any:  # noqa: ANN401
    """How much of the ink that is there and that is found is both, 0 to 1: float32[N]."""
    from keras import ops

    cells = LOOK_CELLS**2
    return _dice(ops.cast(targets[:, :cells], "float32") / 255, ops.sigmoid(said[:, :cells]))


def _dice(ink: Any, found: Any) -> Any:  # noqa: ANN401
    from keras import ops

    return (2 * ops.sum(ink * found, axis=1) + 8) / (ops.sum(ink + found, axis=1) + 8)


def _batches(
    makers: Executor, settings: TrainSettings, epoch: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Make the pages of an epoch, a few chunks ahead, and shuffle their looks."""
    rng = np.random.default_rng((settings.seed, epoch))
    waiting: deque[Future[Looks]] = deque()
    numbers = iter(range(_PAGES // _CHUNK))
    size, steps = settings.batch_size, 2 * _PAGES // settings.batch_size
    cells, targets = np.zeros((0, LOOK_CELLS, LOOK_CELLS, 3), np.uint8), np.zeros((0, LOOK_CELLS**2 + 1), np.uint8)
    while steps:
        for number in numbers:
            waiting.append(makers.submit(_make, (settings.seed, epoch, number), "train"))
            if len(waiting) >= 2 * _AHEAD:
                break
        made = [waiting.popleft().result() for _ in range(min(_AHEAD, len(waiting)))]
        cells = np.concatenate([cells, *(one.cells for one in made)])
        targets = np.concatenate([targets, *(one.targets for one in made)])
        order = rng.permutation(len(cells))
        keep = len(order) % size if waiting else 0
        for start in range(0, len(order) - keep, size):
            rows = order[start : start + size]
            if steps and len(rows) == size:
                steps -= 1
                yield _some_turned(cells[rows], rng), targets[rows]
        cells, targets = cells[order[len(order) - keep :]], targets[order[len(order) - keep :]]


def _some_turned(cells: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Show some looks as negatives, whose darkest pixels are the lightest; what is beyond the page stays."""
    turned = rng.random(len(cells)) < _TURNED
    beyond = cells[..., 1] > cells[..., 2]
    cells[turned] = 255 - cells[turned][..., [0, 2, 1]]
    cells[beyond] = (128, 255, 0)
    return cells


# ---- in the processes that make pages ------------------------------------------------------------------------------

_SOURCES: dict[str, Sources] = {}


def _make(seed: tuple[int, int, int], part: str) -> Looks:
    """Make a chunk of pages, and look at each twice."""
    if part not in _SOURCES:
        _SOURCES[part] = sources(part)
    rng = np.random.default_rng(seed)
    cells = np.empty((2 * _CHUNK, LOOK_CELLS, LOOK_CELLS, 3), np.uint8)
    targets = np.empty((2 * _CHUNK, LOOK_CELLS**2 + 1), np.uint8)
    for row in range(0, 2 * _CHUNK, 2):
        page = simulate(_SOURCES[part], rng)
        for at, square in enumerate((whole(page.grey), _closer(page, rng))):
            cells[row + at] = look(page.grey, square).cells
            targets[row + at, :-1] = np.minimum(_COVER * cover(page.ink, square).reshape(-1).astype(np.float32), 255)
            targets[row + at, -1] = page.kind
    return Looks(cells, targets)


def _closer(page: SimulatedPage, rng: np.random.Generator) -> Square:
    """Choose a part of a page: about its ink as prediction finds it, or anywhere where there is none."""
    rows, columns = np.flatnonzero(page.ink.max(1) > _INKED), np.flatnonzero(page.ink.max(0) > _INKED)
    height, width = page.grey.shape
    if not len(rows) or not len(columns):
        side = max(12, int(rng.uniform(0.2, 0.8) * max(height, width)))
        left, top = (int(rng.uniform(-0.2 * side, max(1, extent - 0.8 * side))) for extent in (width, height))
        return Square(left, top, side)
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    off = rng.normal(0, 0.05, 4) * max(box[2] - box[0], box[3] - box[1])
    margin = rng.uniform(0.22, 0.45) if rng.random() < 0.8 else rng.uniform(0.4, 1.5)
    return around((box + off).tolist(), margin)

"""Train the network that reads digits, on varied digits and on simulated pages, by labels or by a teacher.

Keras is imported when a function is called.
"""

import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import softmax
from batchdigits.inference.runtimes import InkFinder, Predictor, quickest, start_tensorflow
from batchdigits.preprocessing.finder import InkNetwork
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import DIGITS, INK, SIDE, InkImages, Labels
from batchdigits.settings import Arch, NormalisationSettings, TrainSettings
from batchdigits.training.architectures import OUTPUTS, build, fold
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.simulated import SimulatedInk
from batchdigits.training.loop import Lesson, check_output, in_bfloat16, learn

if TYPE_CHECKING:
    import keras

Targets = Labels | NDArray[np.float32]  # labels, or probabilities [N, K]
_Teach = Callable[[InkImages, Labels], Targets]

log = logging.getLogger(__name__)

_THREADS = 2  # on every machine: the order of sums, and so the last bit, may depend on it
_MADE_TOGETHER = 512  # images
_LEAST_LIKENESS = 0.4  # of what was found to the digit that was written; where the finder lost it, nobody could read it


def fit(training: Labelled, pages: SimulatedInk | None, validation: Labelled, settings: TrainSettings) -> "keras.Model":
    """Train a model, or go on with one.

    Args:
        training: Digits, which are varied in each epoch.
        pages: Simulated pages, which are seen as they are.
        validation: Digits that are never trained on.
        settings: The run; `settings.output` holds the ink finder, and receives `history.jsonl` and `checkpoints/`.

    Returns:
        uint8[N, 28, 28] -> logits float32[N, K]; its weights are the running average over the last steps.

    Raises:
        UsageError: The teacher has other outputs or another normalisation than the network, or is to be overwritten; or
            so is another training.
        BundleError: The teacher cannot be used.
    """
    check_output(settings)
    start_tensorflow(_THREADS)
    import keras

    pixels, labels = training.pixels, training.labels
    varied = 0 if settings.arch is Arch.DENSE else len(labels)  # the tutorial's network sees images as they are
    if pages:
        teaches = pages.ink[:, INK] > 0  # what shows no ink is blank without any network
        if settings.teacher is None:  # a teacher's doubts are worth learning where its labels are not
            teaches &= (pages.labels >= DIGITS) | (pages.likeness >= _LEAST_LIKENESS)
        pixels = np.concatenate([pixels, pages.pixels[teaches]])
        labels = np.concatenate([labels, pages.labels[teaches]])
    with (
        InkFinder(settings.output, runtime=quickest(settings.output)) as network,
        _targets(settings) as targets,  # a teacher is refused before anything is lost
    ):
        if settings.teacher is None:
            val_targets: Targets = validation.labels
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        else:
            val_targets = np.eye(OUTPUTS[settings.arch], dtype=np.float32)[validation.labels]
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        known = targets(pixels, labels)  # once: most are seen as they are, in every epoch
        lesson = Lesson(
            steps=math.ceil(len(pixels) / settings.batch_size),
            batches=lambda epoch: _batches(pixels, labels, known, varied, network, targets, settings, epoch),
            validation=(validation.pixels, val_targets),
            loss=loss,
            metric="accuracy",
        )
        start = partial(_build_network, settings)
        model = learn(partial(in_bfloat16, start) if settings.arch is Arch.TEACHER else start, lesson, settings)
    # Both without the optimizer, which would weigh twice as much as the model.
    return _build_network(settings, model.get_weights()) if settings.base else fold(model, settings.arch)


def _build_network(settings: TrainSettings, weights: list[NDArray[np.float32]] | None = None) -> "keras.Model":
    """Build the network: new, or with the weights of the bundle that goes on learning."""
    model = build(settings.arch, folded=settings.base is not None)
    if settings.base:
        model.set_weights(weights or load_model(bundle.load(settings.base)).get_weights())
    return model


def load_model(made: Bundle) -> "keras.Model":
    """Load a bundle's network."""
    import keras

    return keras.saving.load_model(made.weights, compile=False)


@contextmanager
def _targets(settings: TrainSettings) -> Iterator[_Teach]:
    """Give what says of a batch how the network is to answer: its labels, or a teacher's probabilities.

    These are float32[N, K], before any calibration.

    Source of learning from a teacher that sees the same varied image: Beyer et al., «Knowledge distillation: a good
    teacher is patient and consistent», CVPR 2022.
    """
    if settings.teacher is None:
        yield lambda _, labels: labels
        return
    name, outputs = escaped(str(settings.teacher)), OUTPUTS[settings.arch]
    model = bundle.load(settings.teacher)
    if model.normalisation != NormalisationSettings():
        message = f"The teacher {name} was trained behind another normalisation; train it anew."
        raise UsageError(message)
    with Predictor(model, batch_size=_at_a_time(settings.batch_size)) as teacher:
        taught = teacher(np.zeros((1, SIDE, SIDE), np.uint8)).shape[1]
        if taught != outputs:
            message = f"The teacher {name} has {taught} outputs, expected {outputs}; use another."
            raise UsageError(message)

        def soft(pixels: InkImages, _: Labels) -> Targets:
            return softmax(teacher(pixels)).astype(np.float32)

        yield soft


def _batches(
    pixels: InkImages,
    labels: Labels,
    known: Targets,
    varied: int,
    network: InkNetwork,
    targets: _Teach,
    settings: TrainSettings,
    epoch: int,
) -> Iterator[tuple[InkImages, Targets]]:
    """Shuffle, and vary and normalise the first rows; some batches are made ahead, in a thread.

    Args:
        pixels: uint8[N, 28, 28].
        labels: int8[N].
        known: What is to be said of the pixels as they are.
        varied: How many of them, the first ones, are varied.
        network: The ink finder.
        targets: What is to be said of varied ones.
        settings: The run.
        epoch: From 1; with the seed it makes all that is random.
    """
    rng = np.random.default_rng((settings.seed, epoch))
    order = rng.permutation(len(pixels))
    size = settings.batch_size
    parts = [order[start : start + _at_a_time(size)] for start in range(0, len(order), _at_a_time(size))]

    def make(rows: NDArray[np.int64]) -> tuple[InkImages, Targets]:
        seen, expected, first = pixels[rows], known[rows], rows < varied
        if first.any():
            seen[first] = normalise(vary(seen[first], rng), network).pixels
            expected[first] = targets(seen[first], labels[rows[first]])
        return seen, expected

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(make, parts[0])
        for rows in [*parts[1:], None]:
            seen, expected = ahead.result()
            if rows is not None:
                ahead = pool.submit(make, rows)
            for start in range(0, len(seen), size):
                yield seen[start : start + size], expected[start : start + size]


def _at_a_time(batch_size: int) -> int:
    """Whole batches that are made together: simulator, normalisation and teacher are faster over many images."""
    return batch_size * max(1, _MADE_TOGETHER // batch_size)

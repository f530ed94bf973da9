"""Images with their digits in; a trained Keras model out, with one JSON line an epoch and a checkpoint to resume from.

Keras is imported when a function is called.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from batchdigits.errors import UsageError, shown
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import softmax
from batchdigits.inference.runtimes import Predictor, start_tensorflow
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import SIDE, InkImages, Labels
from batchdigits.settings import (
    EPOCHS,
    FINE_EPOCHS,
    FINE_RATE,
    RATE,
    Arch,
    NormalisationSettings,
    TrainSettings,
)
from batchdigits.training.architectures import OUTPUTS, build, fold
from batchdigits.training.datasets.augmentation import vary

if TYPE_CHECKING:
    import keras

Targets = Labels | NDArray[np.float32]  # labels, or probabilities [N, K]
_Teach = Callable[[InkImages, Labels], Targets]

log = logging.getLogger(__name__)

_WARM_UP = 0.03  # share of all steps in which the learning rate rises to its peak
_WEIGHT_DECAY = 0.01
_THREADS = 2  # on every machine: the order of sums, and so the last bit, may depend on it
_MADE_TOGETHER = 512  # images
_MADE = ("bundle.json", "model.keras")  # what a finished training leaves
_AVERAGE = 0.999  # momentum of the running average of the weights


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of `history.jsonl`."""

    epoch: int
    """From 1."""
    loss: float
    """Mean cross-entropy over the varied training images, while the weights still moved."""
    accuracy: float
    """Share of varied training images where the network said what its labels, or its teacher, say; 0 to 1."""
    val_loss: float
    """Mean cross-entropy of the averaged weights on the validation part."""
    val_accuracy: float
    """Share right on the validation part, 0 to 1."""
    seconds: float
    """Wall-clock time of the epoch."""


def fit(
    pixels: InkImages, labels: Labels, val_pixels: InkImages, val_labels: Labels, settings: TrainSettings
) -> "keras.Model":
    """Train a model, or go on with one.

    Args:
        pixels: uint8[N, 28, 28], normalised.
        labels: int8[N].
        val_pixels: uint8[M, 28, 28], normalised; never trained on.
        val_labels: int8[M].
        settings: The run; `settings.output` receives `history.jsonl` and `checkpoints/`.

    Returns:
        uint8[N, 28, 28] -> logits float32[N, K]; its weights are the running average over the last steps.

    Raises:
        UsageError: The teacher has other outputs or another normalisation than the network, or is to be overwritten; or
            so is another training.
        BundleError: The teacher cannot be used.
    """
    check_output(settings)
    start_tensorflow(_THREADS)
    with _targets(settings) as targets:  # a teacher is refused before anything is lost
        return _fit(pixels, labels, val_pixels, val_labels, targets, settings)


def check_output(settings: TrainSettings) -> None:
    """Check that a run destroys nothing that nobody said it may.

    Raises:
        UsageError: The output holds a training, or a bundle; or the teacher stands there.
    """
    if settings.teacher and settings.teacher.resolve() == settings.output.resolve():
        name = shown(str(settings.teacher))
        message = f"The teacher {name} would be overwritten by its pupil; choose another --output."
        raise UsageError(message)
    go_on = _Checkpoints(settings.output).exist()
    if settings.overwrite or (settings.resume and go_on):
        return
    if go_on or any((settings.output / name).exists() for name in _MADE):
        remedy = "go on with it by --resume, replace it by --overwrite" if go_on else "replace it by --overwrite"
        message = f"The folder {shown(str(settings.output))} holds a training; {remedy}, or choose another --output."
        raise UsageError(message)


def _fit(
    pixels: InkImages,
    labels: Labels,
    val_pixels: InkImages,
    val_labels: Labels,
    targets: _Teach,
    settings: TrainSettings,
) -> "keras.Model":
    import keras

    keras.utils.set_random_seed(settings.seed)
    epochs = epochs_of(settings)
    steps = math.ceil(len(pixels) / settings.batch_size)
    checkpoints = _Checkpoints(settings.output)
    if settings.resume and checkpoints.exist():
        checkpoints.check(settings)
        model, average, done = checkpoints.load()
    else:
        checkpoints.clear(settings)
        model, done = _beginning(settings), 0
        if settings.teacher is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        else:
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=_optimizer(epochs * steps, settings), loss=loss, metrics=["accuracy"])
        average = _Average(model.get_weights(), steps=0)

    val_targets = val_labels if settings.teacher is None else np.eye(OUTPUTS[settings.arch])[val_labels]
    for epoch in range(done + 1, epochs + 1):
        started = time.perf_counter()
        _restart_dropout(model, drawn=(epoch - 1) * steps)
        batches = _batches(pixels, labels, targets, settings, epoch)
        sums = np.zeros(2)
        for seen, expected in tqdm(
            batches, f"epoch {epoch}/{epochs}", steps, leave=False, disable=not settings.progress, unit="batch"
        ):
            sums += np.array(model.train_on_batch(seen, expected)) * len(seen)
            average.add(model.get_weights())
        moving = model.get_weights()
        model.set_weights(average.weights)
        validation = model.evaluate(val_pixels, val_targets, batch_size=500, verbose=0)
        model.set_weights(moving)
        seconds = time.perf_counter() - started
        numbers = (round(float(number), 5) for number in (*sums / len(pixels), *validation, seconds))
        record = EpochRecord(epoch, *numbers)
        checkpoints.keep(model, average, record)
        log.info("epoch %d of %d: %s", epoch, epochs, record)
    model.set_weights(average.weights)
    # Both without the optimizer, which would weigh twice as much as the model.
    return _beginning(settings, model.get_weights()) if settings.base else fold(model, settings.arch)


def _beginning(settings: TrainSettings, weights: list[NDArray[np.float32]] | None = None) -> "keras.Model":
    """Build the network: new, or with the weights of the bundle that goes on learning."""
    model = build(settings.arch, folded=settings.base is not None)
    if settings.base:
        model.set_weights(weights or load_model(bundle.load(settings.base)).get_weights())
    return model


def load_model(made: Bundle) -> "keras.Model":
    """Load a bundle's network."""
    import keras

    return keras.saving.load_model(made.weights, compile=False)


def epochs_of(settings: TrainSettings) -> int:
    """Say how many passes over the data a run makes."""
    if settings.epochs is not None:
        return settings.epochs
    return FINE_EPOCHS if settings.base else EPOCHS[settings.arch]


def _rate(settings: TrainSettings) -> float:
    if settings.learning_rate is not None:
        return settings.learning_rate
    return FINE_RATE if settings.base else RATE


def _restart_dropout(model: "keras.Model", drawn: int) -> None:
    """Say how often dropout has drawn, which Keras does not save; so a resumed run draws what an unbroken one does."""
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):
            state = layer.seed_generator.state
            state.assign([int(state[0]), drawn])


class _Average:
    """A running average of all weights, those of the batch normalisation's statistics too; it is what ships.

    Source: Polyak, Juditsky, «Acceleration of stochastic approximation by averaging», SIAM J. Control 30(4), 1992.
    """

    def __init__(self, weights: list[NDArray[np.float32]], steps: int) -> None:
        self.weights = weights
        self.steps = steps

    def add(self, weights: list[NDArray[np.float32]]) -> None:
        """Take one step in; the first steps count more, so that the random beginning is soon forgotten."""
        self.steps += 1
        share = max(1 - _AVERAGE, 9 / (10 + self.steps))
        for mean, weight in zip(self.weights, weights, strict=True):
            mean += share * (weight - mean)


def _optimizer(steps: int, settings: TrainSettings) -> "keras.Optimizer":
    import keras

    warm_up = max(1, int(_WARM_UP * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        _rate(settings) / 50, max(1, steps - warm_up), warmup_target=_rate(settings), warmup_steps=warm_up
    )
    return keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY)


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
    name, outputs = shown(str(settings.teacher)), OUTPUTS[settings.arch]
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
    pixels: InkImages, labels: Labels, targets: _Teach, settings: TrainSettings, epoch: int
) -> Iterator[tuple[InkImages, Targets]]:
    """Shuffle, vary and normalise; some batches are made ahead in a thread while the network learns from the last."""
    rng = np.random.default_rng((settings.seed, epoch))
    order = rng.permutation(len(pixels))
    size = settings.batch_size
    parts = [order[start : start + _at_a_time(size)] for start in range(0, len(order), _at_a_time(size))]

    def make(rows: NDArray[np.int64]) -> tuple[InkImages, Targets]:
        seen = pixels[rows]
        if settings.arch is not Arch.DENSE:  # the tutorial's network sees the images as they are
            seen = normalise(vary(seen, rng)).pixels
        return seen, targets(seen, labels[rows])

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


def recipe(settings: TrainSettings) -> dict[str, Any]:
    """Name the settings that make the model what it is, each by its value."""
    made_by = {
        name: bundle.load(directory).id if directory else None
        for name, directory in (("teacher", settings.teacher), ("base", settings.base))
    }
    values = asdict(settings) | made_by | {"epochs": epochs_of(settings), "learning_rate": _rate(settings)}
    return {name: value for name, value in values.items() if name not in ("output", "resume", "overwrite", "progress")}


def _recipe_text(settings: TrainSettings) -> str:
    return json.dumps(recipe(settings), indent=2) + "\n"


class _Checkpoints:
    """The last finished epoch on disk: the model with its optimizer, the average, and the history up to it."""

    def __init__(self, output: Path) -> None:
        self.folder = output / "checkpoints"
        self.lines = output / "history.jsonl"
        self.recipe = self.folder / "recipe.json"

    def exist(self) -> bool:
        """Tell whether there is an epoch to go on from."""
        return any(self.folder.glob("epoch-*.npz"))

    def check(self, settings: TrainSettings) -> None:
        """Refuse to go on with a run of another recipe.

        Raises:
            UsageError: The checkpoints were made by other settings.
        """
        if self.recipe.read_text() != _recipe_text(settings):
            message = (
                f"The checkpoints in {shown(str(self.folder))} are of another recipe; give its settings, or train anew "
                "with --overwrite alone."
            )
            raise UsageError(message)

    def load(self) -> "tuple[keras.Model, _Average, int]":
        """Load the last finished epoch: the model, the average and the epoch's number."""
        import keras

        last = max(self.folder.glob("epoch-*.npz"))
        epoch = int(last.stem.removeprefix("epoch-"))
        kept = self.lines.read_text().splitlines(keepends=True)[:epoch]
        self.lines.write_text("".join(kept))
        with np.load(last) as stored:
            steps = int(stored["steps"])
            weights = [stored[f"weight_{number}"] for number in range(len(stored.files) - 1)]
        return keras.saving.load_model(last.with_suffix(".keras")), _Average(weights, steps), epoch

    def clear(self, settings: TrainSettings) -> None:
        """Start anew."""
        text = _recipe_text(settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.iterdir():
            old.unlink()
        self.recipe.write_text(text)
        self.lines.write_text("")

    def keep(self, model: "keras.Model", average: _Average, record: EpochRecord) -> None:
        """Add one epoch. The `.npz` is named last: where it stands, the epoch is whole."""
        old = sorted(self.folder.glob("epoch-*"))
        with self.lines.open("a") as lines:
            lines.write(json.dumps(asdict(record)) + "\n")
        name = self.folder / f"epoch-{record.epoch:04}"
        model.save(name.with_suffix(".keras"))
        arrays: dict[str, Any] = {f"weight_{number}": weight for number, weight in enumerate(average.weights)}
        with (partial := name.with_suffix(".partial")).open("wb") as file:
            np.savez(file, steps=average.steps, **arrays)
        partial.replace(name.with_suffix(".npz"))
        for path in old:
            path.unlink()

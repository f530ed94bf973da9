"""Let a network learn: epochs with a running average of its weights, one JSON line and one checkpoint each.

Keras is imported when a function is called.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from batchdigits.errors import UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Network
from batchdigits.settings import EPOCHS, FINE_EPOCHS, FINE_RATE, RATE, Arch, Runtime, TrainSettings
from batchdigits.storage.local import file_sha256

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

Pictures = NDArray[np.uint8]
Targets = NDArray[Any]
Batches = Callable[[int], Iterator[tuple[Pictures, Targets]]]
"""Gives the batches of an epoch, from 1."""

_WARM_UP = 0.03  # share of all steps in which the learning rate rises to its peak
_WEIGHT_DECAY = 0.01
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

    def line(self, epochs: int) -> str:
        """Say how the epoch went, and how long the rest of so many will take."""
        right = f"{self.val_accuracy:.2%} of the validation part right, loss {self.val_loss:.4f}"
        left = _duration(self.seconds * (epochs - self.epoch))
        rest = f", {left} left" if self.epoch < epochs else ""
        return f"epoch {self.epoch} of {epochs}: {right}; {_duration(self.seconds)}{rest}"


def _duration(seconds: float) -> str:
    """Spell a time for people: 42 s, 12 min, 3.5 h."""
    if seconds < 100:  # noqa: PLR2004  a minute and a half is better known as seconds
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a network is to learn."""

    steps: int
    """Batches an epoch."""
    batches: Batches
    """The same ones whenever an epoch is asked for."""
    validation: tuple[Pictures, Targets]
    """What is never learnt from."""
    loss: Any
    """As Keras takes it."""
    metric: Any
    """The accuracy of the history, as Keras takes it."""


def learn(start: "Callable[[], keras.Model]", lesson: Lesson, settings: TrainSettings) -> "keras.Model":
    """Train a network, or go on with one.

    Args:
        start: Builds it.
        lesson: What it learns.
        settings: The run; `settings.output` receives `history.jsonl` and `checkpoints/`.

    Returns:
        The network; its weights are the running average over the last steps.

    Raises:
        UsageError: The checkpoints are of another recipe.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    epochs, steps = epochs_of(settings), lesson.steps
    checkpoints = _Checkpoints(settings.output)
    if settings.resume and checkpoints.exist():
        checkpoints.check(settings)
        model, average, done = checkpoints.load({lesson.loss, lesson.metric})
    else:
        checkpoints.clear(settings)
        model, done = start(), 0
        model.compile(optimizer=_optimizer(epochs * steps, settings), loss=lesson.loss, metrics=[lesson.metric])
        average = _Average(model.get_weights(), steps=0)

    for epoch in range(done + 1, epochs + 1):
        started = time.perf_counter()
        _restart_dropout(model, drawn=(epoch - 1) * steps)
        sums, count = np.zeros(2), 0
        for seen, expected in tqdm(
            lesson.batches(epoch),
            f"epoch {epoch}/{epochs}",
            steps,
            leave=False,
            disable=not settings.progress,
            unit="batch",
        ):
            sums += np.array(model.train_on_batch(seen, expected)) * len(seen)
            count += len(seen)
            average.add(model.get_weights())
        moving = model.get_weights()
        model.set_weights(average.weights)
        validation = model.evaluate(*lesson.validation, batch_size=500, verbose=0)
        model.set_weights(moving)
        seconds = time.perf_counter() - started
        numbers = (round(float(number), 5) for number in (*sums / count, *validation, seconds))
        record = EpochRecord(epoch, *numbers)
        checkpoints.keep(model, average, record)
        log.info(record.line(epochs))
    model.set_weights(average.weights)
    return model


def check_output(settings: TrainSettings) -> None:
    """Check that a run destroys nothing that nobody said it may.

    Raises:
        UsageError: The output holds a training, or a bundle, or what `--resume` cannot go on from; or the teacher
            stands there.
    """
    if settings.teacher and settings.teacher.resolve() == settings.output.resolve():
        name = escaped(str(settings.teacher))
        message = f"The teacher {name} would be overwritten by its pupil; choose another --output."
        raise UsageError(message)
    checkpoints = _Checkpoints(settings.output)
    go_on = checkpoints.exist()
    if settings.resume and go_on:
        checkpoints.check(settings)
    if settings.overwrite or (settings.resume and go_on):
        return
    # A reader's training begins with a copy of the finder, so that this alone tells nothing of it.
    made = (*_MADE, "finder.keras") if settings.arch is Arch.FINDER else _MADE
    if go_on or any((settings.output / name).exists() for name in made):
        remedy = "go on with it by --resume, replace it by --overwrite" if go_on else "replace it by --overwrite"
        message = f"The folder {escaped(str(settings.output))} holds a training; {remedy}, or choose another --output."
        raise UsageError(message)


def in_bfloat16(build: "Callable[[], keras.Model]") -> "keras.Model":
    """Build a network that multiplies in bfloat16 where the processor has units for it: it learns in half the time.

    Its weights are float32 everywhere.
    """
    import keras

    if not _multiplies_bfloat16():
        return build()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return build()
    finally:
        keras.config.set_dtype_policy(before)


def _multiplies_bfloat16() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False


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


def recipe(settings: TrainSettings) -> dict[str, Any]:
    """Name the settings that make the model what it is, each by its value."""
    made_by = {
        name: bundle.load(directory).id if directory else None
        for name, directory in (("teacher", settings.teacher), ("base", settings.base))
    }
    if settings.finder:
        made_by["finder"] = file_sha256(settings.finder / Network.FINDER.file(Runtime.KERAS))
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
        text = self.recipe.read_text()
        if text != _recipe_text(settings):
            ours = _recipe_text(settings).splitlines()
            others = ", ".join(line.strip(" ,") for line in text.splitlines() if line not in ours)
            message = (
                f"The checkpoints in {escaped(str(self.folder))} are of another recipe ({escaped(others)}); give its "
                "settings, or train anew with --overwrite alone."
            )
            raise UsageError(message)

    def load(self, functions: set[Any]) -> "tuple[keras.Model, _Average, int]":
        """Load the last finished epoch: the model, the average and the epoch's number.

        Args:
            functions: Losses and metrics of ours that the model was compiled with.
        """
        import keras

        last = max(self.folder.glob("epoch-*.npz"))
        epoch = int(last.stem.removeprefix("epoch-"))
        kept = self.lines.read_text().splitlines(keepends=True)[:epoch]
        self.lines.write_text("".join(kept))
        with np.load(last) as stored:
            steps = int(stored["steps"])
            weights = [stored[f"weight_{number}"] for number in range(len(stored.files) - 1)]
        ours = {function.__name__: function for function in functions if hasattr(function, "__name__")}
        model = keras.saving.load_model(last.with_suffix(".keras"), custom_objects=ours)
        return model, _Average(weights, steps), epoch

    def clear(self, settings: TrainSettings) -> None:
        """Start anew."""
        text = _recipe_text(settings)
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("epoch-*"):
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

"""Accuracy against speed of candidate networks, the one that ships among them: what its architecture is chosen by.

Make the whole table in one go: `python tests/benchmarks/architectures.py --epochs 4`. All candidates learn the labels
of the same images, behind the same simulator, normalisation and optimiser, from the same seed; only their layers
differ. Accuracy counts as `accuracy.py` counts it, and keeps away from MNIST's test half. Once all are trained, their
forward passes are measured in turn, round after round, and with them the convnet of `forward.py`.

What later work adds: another network is one more function that gives its layers, and one more line of `CANDIDATES`.
"""

import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from unittest import mock

import numpy as np
import typer
from accuracy import answers, handed_out, validation_part
from forward import BATCH, CONVNET, convnet_forward, keras_convnet, whole_batches
from no_digit import SEED
from numpy.typing import NDArray
from rounds import Contestant, Line, Lines, Pass, in_phase, timed

from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.calibration import Calibration
from batchdigits.inference.runtimes import Predictor, start_tensorflow
from batchdigits.records import INK, GreyImage, InkImages, Labels
from batchdigits.settings import Arch, NormalisationSettings, TrainSettings
from batchdigits.training import architectures, train
from batchdigits.training.architectures import _convolution as convolution
from batchdigits.training.datasets import labelled
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.shipped import NAMES
from batchdigits.training.evaluation.metrics import wilson_interval
from batchdigits.training.trainer import fit, recipe

if TYPE_CHECKING:
    import keras

THREADS = 2  # of TensorFlow, when it trains and when it is measured
FORWARD = 19 * BATCH  # images of one measured pass
HANDED_OUT = ("USPS", "photos")  # how the names of the sets begin that nothing was trained on; one column each
VALIDATION, SCANS = "MNIST val.", "scans"  # the other columns
WIDTH = 36  # characters of a candidate's name

Layers = Callable[[bool], "list[keras.Layer]"]
"""Whether batch normalisation is folded -> the layers from float32[N, 28, 28, 1], 0 to 1, up to the logits' own."""


@dataclass(frozen=True, slots=True)
class Digits:
    """N labelled pages: one column of accuracies."""

    pages: Sequence[GreyImage]
    """N pages uint8[H, W], before normalisation."""
    labels: Labels
    """int8[N]."""


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes of each candidate over the training part.")] = 4,
    images: Annotated[int | None, typer.Option(min=1, help="Train on so few images: for a trial run.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured rounds; speeds are their medians.")] = 15,
) -> None:
    """Train all candidates alike, then measure how well and how fast they read."""
    start_tensorflow(THREADS).get_logger().setLevel("ERROR")  # it finds many models in one process suspicious
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as loaded:
        settings = TrainSettings(  # but for the teacher and the epochs, that of jobs/train.toml
            output=Path(temporary),
            data=NAMES,
            arch=Arch.CNN,
            epochs=epochs,
            batch_size=256,
            learning_rate=0.003,
            progress=sys.stderr.isatty(),
        )
        data = prepared(settings, images)
        models, parameters = {}, {}
        for name, layers in CANDIDATES.items():
            models[name], parameters[name] = trained(name, layers, data, settings)
        predictors = {name: loaded.enter_context(Predictor(model, batch_size=BATCH)) for name, model in models.items()}
        sets = labelled_sets(next(iter(models.values())))
        hits = {name: right(sets, model, predictors[name]) for name, model in models.items()}
        passes = {name: partial(forward, predictors[name]) for name in CANDIDATES}
        passes[CONVNET] = lambda: Pass(convnet_forward(FORWARD))
        contestants = {name: Contestant(FORWARD, run) for name, run in passes.items()}
        lines = in_phase(contestants, repeats, title="forward passes")
    print(f"Trained alike on {len(data[0]):,} images, varied by the simulator; epochs: {epochs}; no teacher.")
    print(f"Forward pass: {THREADS} threads, {BATCH} images a batch, median (lowest–highest) of {repeats} rounds.\n")
    print_table(parameters, lines, sets, hits)


# ---- candidates: `PkSsT` is P filters of S×S at every T-th pixel; batch normalisation follows each one ---------------


def two_convolutions(folded: bool) -> "list[keras.Layer]":
    """Less work than the shipped network: both convolutions halve the image."""
    from keras.layers import Dense, Flatten

    return [
        *convolution(16, 5, strides=2, padding="same", folded=folded),  # -> [N, 14, 14, 16]
        *convolution(32, 5, strides=2, padding="same", folded=folded),  # -> [N, 7, 7, 32]
        Flatten(),
        Dense(64, activation="relu"),
    ]


def four_convolutions(folded: bool) -> "list[keras.Layer]":
    """Deeper: small convolutions only, two before the image is halved again."""
    from keras.layers import Dense, Flatten

    return [
        *convolution(16, 3, strides=2, padding="same", folded=folded),  # -> [N, 14, 14, 16]
        *convolution(32, 3, strides=1, padding="same", folded=folded),  # -> [N, 14, 14, 32]
        *convolution(32, 3, strides=2, padding="same", folded=folded),  # -> [N, 7, 7, 32]
        *convolution(64, 3, strides=1, padding="same", folded=folded),  # -> [N, 7, 7, 64]
        Flatten(),
        Dense(64, activation="relu"),
    ]


def separable_convolutions(folded: bool) -> "list[keras.Layer]":
    """Wider, with convolutions that look at each channel alone and then mix them; about as fast as the shipped one.

    Source: Howard et al., «MobileNets: efficient convolutional neural networks for mobile vision applications», 2017.
    """
    from keras.layers import Dense, Flatten

    return [
        *convolution(16, 5, strides=2, padding="valid", folded=folded),  # -> [N, 12, 12, 16]
        *separable(64, strides=2, padding="same", folded=folded),  # -> [N, 6, 6, 64]
        *separable(128, strides=1, padding="same", folded=folded),  # -> [N, 6, 6, 128]
        *separable(128, strides=1, padding="valid", folded=folded),  # -> [N, 4, 4, 128]
        Flatten(),
        Dense(64, activation="relu"),
    ]


def separable(filters: int, *, strides: int, padding: str, folded: bool) -> "list[keras.Layer]":
    """One such convolution of 3×3; its last weights are those of the mixing, which is what `fold` scales.

    Keras draws the 9 first weights of a channel as if all channels were their inputs. So small ones come out that the
    running variance of the batch normalisation, which starts at 1, would not be down at theirs after a short training.
    """
    from keras.initializers import RandomNormal
    from keras.layers import BatchNormalization, ReLU, SeparableConv2D

    each_alone = RandomNormal(stddev=math.sqrt(2 / 9))  # He et al. 2015, of 9 inputs
    both = SeparableConv2D(
        filters, 3, strides=strides, padding=padding, use_bias=folded, depthwise_initializer=each_alone
    )
    return [both, ReLU()] if folded else [both, BatchNormalization(), ReLU()]


def pooled(_: bool) -> "list[keras.Layer]":
    """The convnet of the Keras examples, as they have it: no batch normalisation.

    Source: https://keras.io/examples/vision/mnist_convnet/
    """
    from keras.layers import Conv2D, Dropout, Flatten, MaxPooling2D

    return [
        Conv2D(32, 3, activation="relu"),  # -> [N, 26, 26, 32]
        MaxPooling2D(2),  # -> [N, 13, 13, 32]
        Conv2D(64, 3, activation="relu"),  # -> [N, 11, 11, 64]
        MaxPooling2D(2),  # -> [N, 5, 5, 64]
        Flatten(),
        Dropout(0.5),
    ]


CANDIDATES: dict[str, Layers] = {
    "cnn, which ships": architectures._cnn,
    "teacher": architectures._teacher,
    "16k5s2 – 32k5s2 – 64": two_convolutions,
    "16k3s2 – 32k3 – 32k3s2 – 64k3 – 64": four_convolutions,
    "16k5s2 – separable 64s2 128 128 – 64": separable_convolutions,
    "32k3 – pool – 64k3 – pool, of Keras": pooled,
    "dense 50 – 50, the tutorial's": lambda _: architectures._dense(),
}


# ---- training ------------------------------------------------------------------------------------------------------


def prepared(settings: TrainSettings, images: int | None) -> tuple[InkImages, Labels, Labelled]:
    """Read and split the data as `runs.train` does.

    Args:
        settings: The run.
        images: How many of the training images are kept, drawn by the run's seed; None keeps all.

    Returns:
        uint8[N, 28, 28] and int8[N] to train on, those without a digit among them, and the validation part.
    """
    sources = [labelled.read(source, NormalisationSettings(), part="train") for source in settings.data]
    data = labelled.join(sources)
    data = data.take(np.flatnonzero(data.ink[:, INK] > 0))
    training, validation = labelled.split(data, share=settings.validation_share, seed=settings.seed)
    pixels, labels = train._with_negatives(train._repeated(training), settings)
    kept = np.random.default_rng(settings.seed).permutation(len(pixels))[:images]
    return pixels[kept], labels[kept], validation


def trained(
    name: str, layers: Layers, data: tuple[InkImages, Labels, Labelled], settings: TrainSettings
) -> tuple[Bundle, int]:
    """Train one candidate in the place of `cnn`, and write it as a bundle into a folder of its own.

    Returns:
        The bundle, and how many numbers the network has that predicts.
    """
    started = time.perf_counter()
    settings = replace(settings, output=settings.output / str(list(CANDIDATES).index(name)))
    pixels, labels, validation = data
    with mock.patch.object(architectures, "_cnn", layers):
        model = fit(pixels, labels, validation.pixels, validation.labels, settings)
    model.save(settings.output / "model.keras")
    made = bundle.save(
        settings.output,
        normalisation=NormalisationSettings(),
        calibration=Calibration(1.0, train._GATE, bundle.load().calibration.risks),  # no digit depends on the threshold
        provenance={"recipe": recipe(settings)},
    )
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return made, model.count_params()


# ---- measuring -----------------------------------------------------------------------------------------------------


def labelled_sets(model: Bundle) -> dict[str, Digits]:
    """Collect what the candidates are to read, by column; all models were made from the same split."""
    held, held_normalised, labels = validation_part(model)
    scans = vary(held_normalised, np.random.default_rng(SEED), clean_share=0)
    sets = {VALIDATION: Digits(list(held), labels), SCANS: Digits(scans, labels)}
    others = list(handed_out())
    for column in HANDED_OUT:
        parts = [(pages, of_part) for name, pages, of_part in others if name.startswith(column)]
        if parts:
            pages = [page for some, _ in parts for page in some]
            sets[column] = Digits(pages, np.concatenate([of_part for _, of_part in parts]))
    return sets


def right(sets: Mapping[str, Digits], model: Bundle, predictor: Predictor) -> dict[str, NDArray[np.bool_]]:
    """Tell by column which pages are read rightly, bool[N]; no answer counts as wrong."""
    return {column: answers(some.pages, model, predictor).digit == some.labels for column, some in sets.items()}


def forward(predictor: Predictor) -> Pass:
    """Predict normalised images in whole batches."""
    return timed(lambda: [predictor(pixels) for pixels in whole_batches(FORWARD)])()


# ---- what is printed -----------------------------------------------------------------------------------------------


def print_table(
    parameters: Mapping[str, int],
    lines: Lines,
    sets: Mapping[str, Digits],
    hits: Mapping[str, Mapping[str, NDArray[np.bool_]]],
) -> None:
    """Print a line for each candidate, the fastest first, and what it was measured on.

    Args:
        parameters: How many numbers each candidate has.
        lines: What was measured of each candidate and of `CONVNET`.
        sets: What was read, by column.
        hits: Which pages of each column each candidate read rightly, bool[N].
    """
    usual = lines[CONVNET]
    print(
        f"{'':{WIDTH}}{'parameters':>11}{'images/s':>10}{'':19}{'× convnet':>11}"
        + "".join(f"{name:>12}" for name in sets)
    )
    print(" " * (WIDTH + 51) + "".join(f"{len(some.labels):12,}" for some in sets.values()))
    for name in sorted(parameters, key=lambda name: lines[name].median):
        shares = "".join(f"{of_set.mean():12.2%}" for of_set in hits[name].values())
        print(f"{name:{WIDTH}}{parameters[name]:11,}{speed(lines[name])}{lines[name].rate / usual.rate:11.2f}{shares}")
    print(f"{CONVNET:{WIDTH}}{keras_convnet().count_params():11,}{speed(usual)}{1:11.2f}   untrained")

    best = max(hits, key=lambda name: hits[name][VALIDATION].sum())
    low, high = wilson_interval(int(hits[best][VALIDATION].sum()), len(hits[best][VALIDATION]))
    print(f"\n95% interval of {best} on {VALIDATION}: {low:.2%} to {high:.2%}.")
    packages = ("batchdigits", "tensorflow", "keras", "numpy")
    print(
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )


def speed(line: Line) -> str:
    """Spell the images per second of the rounds: their median, and their range."""
    spread = f"({min(line.rates):,.0f}–{max(line.rates):,.0f})"
    return f"{line.rate:10,.0f}{spread:>19}"


if __name__ == "__main__":
    typer.run(main)

"""Accuracy against speed of candidate networks, the one that ships among them: what its architecture is chosen by.

Make the whole table in one go: `python -m tests.benchmarks.studies.architectures --epochs 4`. All candidates learn the
labels of the same images and simulated pages, behind the same ink finder, normalisation and optimiser, from the same
seed; only their layers differ. Accuracy counts the likeliest digit, as `accuracy.py` does, and keeps away from MNIST's
test half. Once all are trained, their forward passes are measured in turn, round after round, and with them the convnet
of `forward.py`.

What later work adds: another network is one more function that gives its layers, and one more line of `CANDIDATES`.
"""

import math
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple
from unittest import mock

import numpy as np
import typer
from numpy.typing import NDArray

from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.inference.runtimes import InkFinder, Predictor, start_tensorflow
from batchdigits.inference.thresholds import Calibration
from batchdigits.records import Labels
from batchdigits.settings import Arch, NormalisationSettings, Runtime, TrainSettings
from batchdigits.training import architectures, train
from batchdigits.training.datasets import labelled
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.shipped import MNIST, NAMES, mnist
from batchdigits.training.datasets.simulated import SimulatedInk
from batchdigits.training.evaluation.metrics import wilson_interval
from batchdigits.training.loop import recipe
from batchdigits.training.trainer import fit
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.forward import BATCH, CONVNET, convnet_forward, keras_convnet, whole_batches
from tests.benchmarks.reading import SEED, PageSet, Reader
from tests.benchmarks.rounds import Contestant, Line, Lines, Pass, in_phase, timed

if TYPE_CHECKING:
    from keras import KerasTensor

THREADS = 2  # of TensorFlow, when it trains and when it is measured
FORWARD = 19 * BATCH  # images of one measured pass
VALIDATION, SCANS = "MNIST val.", "scans"  # columns; the others are the development sets, added up by folder
WIDTH = 36  # characters of a candidate's name

Layers = Callable[[architectures._Builder, "KerasTensor"], "KerasTensor"]
"""From float32[N, 28, 28, 1], 0 to 1, up to what the logits' layer takes."""


class Data(NamedTuple):
    """What all candidates learn from, and are validated on."""

    training: Labelled
    pages: SimulatedInk
    validation: Labelled


def main(
    epochs: Annotated[int, typer.Option(min=1, help="Passes of each candidate over the training part.")] = 4,
    images: Annotated[int | None, typer.Option(min=1, help="Train on so few images: for a trial run.")] = None,
    pages: Annotated[int, typer.Option(min=1, help="Simulated pages beside the images.")] = 20_000,
    repeats: Annotated[int, typer.Option(min=1, help="Measured rounds; speeds are their medians.")] = 15,
) -> None:
    """Train all candidates alike, then measure how well and how fast they read."""
    start_tensorflow(THREADS).get_logger().setLevel("ERROR")  # it finds many models in one process suspicious
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as loaded:
        settings = TrainSettings(  # but for the teacher, the pages and the epochs, that of jobs/train.toml
            output=Path(temporary),
            data=NAMES,
            arch=Arch.CNN,
            pages=pages,
            epochs=epochs,
            batch_size=256,
            learning_rate=0.003,
            progress=sys.stderr.isatty(),
        )
        data = prepared(settings, images)
        models, parameters = {}, {}
        for name, layers in CANDIDATES.items():
            models[name], parameters[name] = trained(name, layers, data, settings)
        sets = digit_sets(data.validation)
        hits = {name: right(sets, model) for name, model in models.items()}
        predictors = {name: loaded.enter_context(Predictor(model, batch_size=BATCH)) for name, model in models.items()}
        passes = {name: partial(forward, predictors[name]) for name in CANDIDATES}
        passes[CONVNET] = lambda: Pass(convnet_forward(FORWARD))
        contestants = {name: Contestant(FORWARD, run) for name, run in passes.items()}
        lines = in_phase(contestants, repeats, title="forward passes")
    print(f"Trained alike on {len(data.training):,} images, varied, and {pages:,} pages; {epochs} epochs; no teacher.")
    print(f"Forward pass: {THREADS} threads, {BATCH} images a batch, median (lowest–highest) of {repeats} rounds.\n")
    print_table(parameters, lines, hits)


# ---- candidates: `PkSsT` is P filters of S×S at every T-th pixel; batch normalisation follows each one ---------------


def two_convolutions(add: architectures._Builder, maps: "KerasTensor") -> "KerasTensor":
    """Less work than the shipped network: both convolutions halve the image."""
    from keras.layers import Dense, Flatten

    maps = add.convolution(maps, 16, 5, strides=2)  # -> [N, 14, 14, 16]
    maps = add.convolution(maps, 32, 5, strides=2)  # -> [N, 7, 7, 32]
    return Dense(64, activation="relu", name="features")(Flatten()(maps))


def four_convolutions(add: architectures._Builder, maps: "KerasTensor") -> "KerasTensor":
    """Deeper: small convolutions only, two before the image is halved again."""
    from keras.layers import Dense, Flatten

    maps = add.convolution(maps, 16, strides=2)  # -> [N, 14, 14, 16]
    maps = add.convolution(maps, 32)
    maps = add.convolution(maps, 32, strides=2)  # -> [N, 7, 7, 32]
    maps = add.convolution(maps, 64)
    return Dense(64, activation="relu", name="features")(Flatten()(maps))


def separable_convolutions(add: architectures._Builder, maps: "KerasTensor") -> "KerasTensor":
    """Wider, with convolutions that look at each channel alone and then mix them; about as fast as the shipped one.

    Source: Howard et al., «MobileNets: efficient convolutional neural networks for mobile vision applications», 2017.
    """
    from keras.layers import Dense, Flatten

    maps = add.convolution(maps, 16, 5, strides=2, padding="valid")  # -> [N, 12, 12, 16]
    maps = separable(add, maps, 64, strides=2)  # -> [N, 6, 6, 64]
    maps = separable(add, maps, 128)
    maps = separable(add, maps, 128, padding="valid")  # -> [N, 4, 4, 128]
    return Dense(64, activation="relu", name="features")(Flatten()(maps))


def separable(
    add: architectures._Builder, maps: "KerasTensor", filters: int, *, strides: int = 1, padding: str = "same"
) -> "KerasTensor":
    """One such convolution of 3×3.

    Keras draws the 9 first weights of a channel as if all channels were their inputs. So small ones come out that the
    running variance of the batch normalisation, which starts at 1, would not be down at theirs after a short training.
    """
    from keras.initializers import RandomNormal
    from keras.layers import DepthwiseConv2D

    each_alone = DepthwiseConv2D(
        3,
        strides=strides,
        padding=padding,
        use_bias=False,
        depthwise_initializer=RandomNormal(stddev=math.sqrt(2 / 9)),  # He et al. 2015, of 9 inputs
        name=f"each_of_{maps.shape[-1]}_{padding}",  # the same with and without batch normalisation
    )
    return add.convolution(each_alone(maps), filters, 1)


def pooled(_: architectures._Builder, maps: "KerasTensor") -> "KerasTensor":
    """The convnet of the Keras examples, as they have it: no batch normalisation.

    Source: https://keras.io/examples/vision/mnist_convnet/
    """
    from keras.layers import Conv2D, Dropout, Flatten, MaxPooling2D

    maps = MaxPooling2D(2)(Conv2D(32, 3, activation="relu", name="first")(maps))  # -> [N, 13, 13, 32]
    maps = MaxPooling2D(2)(Conv2D(64, 3, activation="relu", name="second")(maps))  # -> [N, 5, 5, 64]
    return Dropout(0.5)(Flatten()(maps))


CANDIDATES: dict[str, Layers] = {
    "cnn, which ships": architectures._cnn,
    "teacher": architectures._teacher,
    "16k5s2 – 32k5s2 – 64": two_convolutions,
    "16k3s2 – 32k3 – 32k3s2 – 64k3 – 64": four_convolutions,
    "16k5s2 – separable 64s2 128 128 – 64": separable_convolutions,
    "32k3 – pool – 64k3 – pool, of Keras": pooled,
    "dense 50 – 50, the tutorial's": lambda _, maps: architectures._dense(maps),
}


# ---- training ------------------------------------------------------------------------------------------------------


def prepared(settings: TrainSettings, images: int | None) -> Data:
    """Read and split the data as `train.train` does, behind the ink finder that ships.

    Args:
        settings: The run; its output receives the ink finder.
        images: How many of the training images are kept, drawn by the run's seed; None keeps all.
    """
    take_finder(settings.output)
    with InkFinder(settings.output, runtime=Runtime.KERAS) as network:
        sources = [labelled.read(name, network, NormalisationSettings(), part="train") for name in settings.data]
    data = labelled.inked(labelled.join(sources))
    training, validation = labelled.split(data, share=settings.validation_share, seed=settings.seed)
    pages = train._pages(settings, training, "train")
    repeated = train._repeated(training)
    kept = np.random.default_rng(settings.seed).permutation(len(repeated))[:images]
    return Data(repeated.take(kept), pages, validation)


def take_finder(output: Path) -> None:
    """Copy the ink finder that ships, behind which all candidates read."""
    for file in bundle.PACKAGED.glob("finder.*"):
        shutil.copy(file, output)


def trained(name: str, layers: Layers, data: Data, settings: TrainSettings) -> tuple[Bundle, int]:
    """Train one candidate in the place of `cnn`, and write it as a bundle into a folder of its own.

    Returns:
        The bundle, and how many numbers the network has that predicts.
    """
    started = time.perf_counter()
    settings = replace(settings, output=settings.output / str(list(CANDIDATES).index(name)))
    settings.output.mkdir()
    take_finder(settings.output)
    with mock.patch.object(architectures, "_cnn", layers):
        model = fit(data.training, data.pages, data.validation, settings)
    model.save(settings.output / Network.READER.file(Runtime.KERAS))
    made = bundle.save(
        settings.output,
        normalisation=NormalisationSettings(),
        calibration=Calibration(
            1.0, train._GATE, domains=bundle.load().calibration.domains
        ),  # no digit depends on the threshold
        provenance={"recipe": recipe(settings)},
    )
    print(f"{name}: trained in {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return made, model.count_params()


# ---- measuring -----------------------------------------------------------------------------------------------------


def digit_sets(validation: Labelled) -> dict[str, list[PageSet]]:
    """Collect what the candidates are to read, by column."""
    rows = [row for row, name in enumerate(validation.names) if name.startswith(f"{MNIST} ")]
    held = validation.take(np.array(rows, np.int64))
    pages = list(mnist("train")[0][[int(name.split()[-1]) for name in held.names]])
    scans = vary(held.pixels, np.random.default_rng(SEED), clean_share=0)
    sets = {VALIDATION: [PageSet(VALIDATION, pages, held.labels)], SCANS: [PageSet(SCANS, scans, held.labels)]}
    for some in development_sets():
        if isinstance(some, PageSet):
            sets.setdefault(some.group.split("/")[-1], []).append(some)
    return sets


def right(sets: Mapping[str, list[PageSet]], model: Bundle) -> dict[str, NDArray[np.bool_]]:
    """Tell by column which pages are read rightly, bool[N]."""
    with Reader(model, Runtime.KERAS) as reader:

        def of(some: PageSet, labels: Labels | None) -> NDArray[np.bool_]:
            return np.asarray(reader(some.pages, some.full_resolution).likeliest == labels)

        return {column: np.concatenate([of(some, some.labels) for some in parts]) for column, parts in sets.items()}


def forward(predictor: Predictor) -> Pass:
    """Predict normalised images in whole batches."""
    return timed(lambda: [predictor(pixels) for pixels in whole_batches(FORWARD)])()


# ---- what is printed -----------------------------------------------------------------------------------------------


def print_table(
    parameters: Mapping[str, int], lines: Lines, hits: Mapping[str, Mapping[str, NDArray[np.bool_]]]
) -> None:
    """Print a line for each candidate, the fastest first, and what it was measured on.

    Args:
        parameters: How many numbers each candidate has.
        lines: What was measured of each candidate and of `CONVNET`.
        hits: Which pages of each column each candidate read rightly, bool[N].
    """
    usual = lines[CONVNET]
    sets = {column: len(of_set) for column, of_set in next(iter(hits.values())).items()}
    print(
        f"{'':{WIDTH}}{'parameters':>11}{'images/s':>10}{'':19}{'× convnet':>11}"
        + "".join(f"{name:>12}" for name in sets)
    )
    print(" " * (WIDTH + 51) + "".join(f"{size:12,}" for size in sets.values()))
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

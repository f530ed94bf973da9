"""Images per second of this program, of its peers, and of the floor: only reading and decoding.

Run it in one go: `python tests/benchmarks/throughput.py`. It writes MNIST's test images as PNG files into a
temporary folder and measures all contestants in turn, round after round, so that noise hits them alike. The first
round warms up and does not count: imports, model loading, compiling and the start of worker processes are left out,
and files come from the page cache. This program runs with its own thread settings, the peers in a process of their
own with TensorFlow's defaults. What decoding and normalising cost is measured on photos as well, which are made here.

What later work adds: other folders of images stand beside `write_small_pngs`, other runtimes beside `program`, each
as one more line of `main`'s list; other sizes of images are one more `Kind`.
"""

import io
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import cv2
import numpy as np
import typer
from tqdm import tqdm

from batchdigits import bundle, pipeline
from batchdigits.batches import Workers
from batchdigits.bundle import Bundle
from batchdigits.decoding import Page, decode
from batchdigits.normalisation import SIDE, InkImages, normalise
from batchdigits.predictor import Predictor, start_tensorflow
from batchdigits.settings import DecodingSettings, NormalisationSettings, PredictSettings
from batchdigits.training.shipped import mnist

CHUNK = 64  # files a task of the floor's pools
BATCH = PredictSettings(sources=()).batch_size  # images a prediction, and a stack of the normalisation
SINGLES = 200  # files of the slowest peer, which reads some 12 a second
SEED = 1998  # of the photos

PROGRAM = "batchdigits predict -o report.csv"
FLOOR = ("read and decode, 1 thread", "read and decode, 2 threads", "read and decode, 2 processes")
DATASET_PEER = "image_dataset_from_directory + model.predict"
SINGLE_PEER = f"imread + resize + model.predict, one at a time ({SINGLES} files)"
DECODE = "cv2.imdecode alone, grey and at full size"
OWN_DECODE = "the program's decode"
NORMALISE = "the program's decode + normalise"
SHIPPED = "shipped model"
CONVNET = "convnet of the Keras examples"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One line of the table."""

    name: str
    """What it is."""
    images: int
    """How many it goes through in one pass."""
    seconds: Callable[[], float]
    """Go through them once, and tell how long that took."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Files of one size in memory, on which the program's decode + normalise is set against plain decoding."""

    name: str
    """What they are."""
    datas: Sequence[bytes]
    """The files."""
    stack: int
    """Pages that are normalised together: of JPEGs about as many as a worker's chunk of 2 MiB holds."""
    target: float
    """What decode + normalise may cost, in costs of `cv2.imdecode`."""

    def line(self, name: str) -> str:
        """Name a contestant that goes through these files."""
        return f"{self.name}: {name}"


def main(
    images: Annotated[int, typer.Option(min=BATCH, max=10_000, help="Images of MNIST's test half.")] = 10_000,
    repeats: Annotated[int, typer.Option(min=1, help="Measured rounds; figures are their medians.")] = 5,
) -> None:
    """Measure this program, its peers and the floor on a folder of small PNG files."""
    spawn = multiprocessing.get_context("spawn")
    singles, in_whole_batches = min(SINGLES, images), images // BATCH * BATCH
    with (
        tempfile.TemporaryDirectory() as temporary,
        ThreadPoolExecutor(2) as threads,
        spawn.Pool(2) as processes,
        ProcessPoolExecutor(1, mp_context=spawn) as own,
        ProcessPoolExecutor(1, mp_context=spawn) as peers,
    ):
        folder = Path(temporary) / "images"
        files = write_small_pngs(folder, images)
        chunks = [files[start : start + CHUNK] for start in range(0, images, CHUNK)]
        kinds = [
            Kind("28×28 PNG", [Path(file).read_bytes() for file in files], BATCH, 4),
            Kind("600×500 JPEG", photos(128, 500, 600), 64, 2),
            Kind("4000×3000 JPEG", photos(4, 3000, 4000), 1, 1.5),
        ]
        stages: list[Mapping[str, float]] = []

        def run_program() -> float:
            seconds, of_stages = own.submit(program, str(folder), images).result()
            stages.append(of_stages)
            return seconds

        def elsewhere(process: ProcessPoolExecutor, pass_: Callable[..., float], *args: object) -> float:
            return process.submit(pass_, *args).result()

        rates = measure(
            [
                Contestant(FLOOR[0], images, timed(lambda: read_and_decode(files))),
                Contestant(FLOOR[1], images, timed(lambda: list(threads.map(read_and_decode, chunks)))),
                Contestant(FLOOR[2], images, timed(lambda: processes.map(read_and_decode, chunks, chunksize=1))),
                Contestant(PROGRAM, images, run_program),
                Contestant(DATASET_PEER, images, partial(elsewhere, peers, dataset_peer, str(folder), images)),
                Contestant(SINGLE_PEER, singles, partial(elsewhere, peers, single_peer, files[:singles])),
                *(contestant for kind in kinds for contestant in costs(kind)),
                Contestant(SHIPPED, in_whole_batches, partial(elsewhere, own, shipped_forward, in_whole_batches)),
                Contestant(CONVNET, in_whole_batches, partial(elsewhere, own, convnet_forward, in_whole_batches)),
            ],
            repeats,
        )
        own.submit(stop_workers).result()
    print_tables(rates, stages[1:], kinds, images=images)  # without the round that warmed up


def measure(contestants: Sequence[Contestant], repeats: int) -> dict[str, list[float]]:
    """Let all contestants go through their images in turn: images per second of each, for each counted round."""
    rates: dict[str, list[float]] = {contestant.name: [] for contestant in contestants}
    for number in tqdm(range(repeats + 1), unit="round"):
        for contestant in contestants:
            seconds = contestant.seconds()
            if number:  # round 0 warms up
                rates[contestant.name].append(contestant.images / seconds)
    return rates


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """Make a pass of work tell its wall-clock seconds."""

    def seconds() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return seconds


# ---- what they read ------------------------------------------------------------------------------------------------


def write_small_pngs(folder: Path, count: int) -> list[str]:
    """Write the first images of MNIST's test half as grey 28×28 PNG files; return their paths."""
    folder.mkdir()
    files = [str(folder / f"{number:05}.png") for number in range(count)]
    for file, image in zip(files, mnist("test")[0], strict=False):
        cv2.imwrite(file, image)
    return files


def photos(count: int, height: int, width: int) -> list[bytes]:
    """Make colour JPEGs of the first digits of MNIST's test half, each time the same ones, one a digit."""
    rng = np.random.default_rng(SEED)
    return [photo(digit, height, width, rng) for digit in mnist("test")[0][:count]]


def photo(digit: InkImages, height: int, width: int, rng: np.random.Generator) -> bytes:
    """Photograph a digit, [28, 28], that takes a third of the paper's height: cloudy, shadowed, noisy, tinted."""
    side = round(rng.uniform(0.4, 0.6) * height)  # of the digit's frame, 0.3 of which is its margin
    top, left = (round(rng.uniform(0.3, 0.7) * (extent - side)) for extent in (height, width))
    ink = np.asarray(cv2.resize(digit, (side, side), interpolation=cv2.INTER_CUBIC), np.float32) / 255
    strokes = ((ink - 0.35) / 0.3).clip(0, 1)  # they have edges, though they were enlarged
    clouds = rng.normal(225, 2, (6, 8)).astype(np.float32)
    light = rng.uniform(0.8, 1, (2, 2)).astype(np.float32)  # at the corners
    page = np.asarray(cv2.resize(clouds, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    page[top : top + side, left : left + side] *= 1 - 0.75 * strokes
    page *= np.asarray(cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    page += 3 * rng.standard_normal((height, width), np.float32)
    colour = cv2.merge([cv2.convertScaleAbs(page, alpha=share) for share in (0.92, 0.97, 1)])
    _, data = cv2.imencode(".jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(85, 91))])
    return data.tobytes()


# ---- the floor -----------------------------------------------------------------------------------------------------


def read_and_decode(files: Sequence[str]) -> None:
    """Read and decode files, and do nothing with them."""
    for file in files:
        with Path(file).open("rb", buffering=0) as handle:
            cv2.imdecode(np.frombuffer(handle.read(), np.uint8), cv2.IMREAD_GRAYSCALE)


# ---- this program --------------------------------------------------------------------------------------------------


def program(folder: str, images: int) -> tuple[float, Mapping[str, float]]:
    """Run the whole job, listing to report, with a model that is loaded already.

    Returns:
        Wall-clock seconds, of which nothing is subtracted, and the summary's seconds by stage.
    """
    report = Path(folder).parent / "report.csv"
    settings = PredictSettings(sources=(folder,), outputs=(str(report),), batch_size=BATCH)
    Path(f"{report}.ledger").unlink(missing_ok=True)  # else nothing would be new
    loaded_predictor(BATCH)
    started_workers(settings.workers)
    with (
        mock.patch.object(pipeline, "Predictor", already_loaded),
        mock.patch.object(pipeline, "Workers", already_started),
    ):
        started = time.perf_counter()
        summary = pipeline.run(settings, stdout=io.BytesIO())
        seconds = time.perf_counter() - started
    if summary.tally.rows.total() != images or summary.faulty:
        raise AssertionError(f"expected {images} rows without a fault: {summary.line()}")
    return seconds, summary.seconds


def already_loaded(model: Bundle, *, batch_size: int) -> AbstractContextManager[Predictor]:
    """Stand in for the class `Predictor` where the pipeline loads its model."""
    return nullcontext(loaded_predictor(batch_size))


@cache
def loaded_predictor(batch_size: int) -> Predictor:
    """Load the shipped model, once in this process."""
    return Predictor(bundle.load(), batch_size=batch_size).__enter__()


def already_started(count: int, *, processes: bool) -> AbstractContextManager[Workers]:
    """Stand in for the class `Workers` where the pipeline starts its own, which import as a model does."""
    return nullcontext(started_workers(count)) if processes else Workers(count, processes=False)


@cache
def started_workers(count: int) -> Workers:
    """Start worker processes, once in this process."""
    return Workers(count, processes=True).__enter__()


def stop_workers() -> None:
    """End the worker processes, for which this process would wait when it ends."""
    started_workers(PredictSettings(sources=()).workers).__exit__(None, None, None)


# ---- peers ---------------------------------------------------------------------------------------------------------


def dataset_peer(folder: str, images: int) -> float:
    """Predict a folder the way Keras's documentation does: seconds; it writes no report."""
    import keras

    model = keras_convnet()
    started = time.perf_counter()
    dataset = keras.utils.image_dataset_from_directory(
        folder,
        labels=None,
        color_mode="grayscale",
        image_size=(SIDE, SIDE),
        batch_size=BATCH,
        shuffle=False,
        verbose=False,
    )
    probabilities = model.predict(dataset, verbose=0)
    seconds = time.perf_counter() - started
    assert len(probabilities) == images
    return seconds


def single_peer(files: Sequence[str]) -> float:
    """Predict files one by one, as the first script that one writes does: seconds."""
    model = keras_convnet()
    started = time.perf_counter()
    for file in files:
        image = cv2.imread(file, cv2.IMREAD_GRAYSCALE)
        assert image is not None
        pixels = cv2.resize(image, (SIDE, SIDE)).astype(np.float32)
        model.predict(pixels[None, :, :, None], verbose=0)
    return time.perf_counter() - started


@cache
def keras_convnet() -> Any:
    """Build the small convnet of the Keras examples, once in this process.

    Its weights are untrained, which changes no speed. The example divides by 255 before the model; here that is its
    first layer.

    Source: https://keras.io/examples/vision/mnist_convnet/
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    return model


# ---- cost of decoding and normalisation, without reading -----------------------------------------------------------


def costs(kind: Kind) -> list[Contestant]:
    """Set plain decoding, and the program's own stages, to the same files."""
    works = {DECODE: decode_plainly, OWN_DECODE: decode_as_program, NORMALISE: normalise_as_program}
    return [Contestant(kind.line(name), len(kind.datas), on_one_core(partial(works[name], kind))) for name in works]


def on_one_core(work: Callable[[], object]) -> Callable[[], float]:
    """Make a pass of work tell its processor seconds, of all threads if there are several."""

    def seconds() -> float:
        cv2.setNumThreads(1)
        started = time.process_time()
        work()
        return time.process_time() - started

    return seconds


def decode_plainly(kind: Kind) -> None:
    for data in kind.datas:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)


def decode_as_program(kind: Kind) -> None:
    for data in kind.datas:
        decode(data, DecodingSettings())


def normalise_as_program(kind: Kind) -> None:
    settings = NormalisationSettings()
    for start in range(0, len(kind.datas), kind.stack):
        pages = [page for data in kind.datas[start : start + kind.stack] for page in decode(data, DecodingSettings())]
        normalise([page.grey for page in pages if isinstance(page, Page)], settings)


# ---- forward passes alone, both in the process of this program -----------------------------------------------------


def shipped_forward(count: int) -> float:
    """Predict normalised images in whole batches with the shipped model: seconds."""
    predictor = loaded_predictor(BATCH)
    return timed(lambda: [predictor(pixels) for pixels in whole_batches(count)])()


def convnet_forward(count: int) -> float:
    """Predict the same images with the convnet of the Keras examples, compiled the same way: seconds."""
    function = convnet_function()
    return timed(lambda: [function(pixels).numpy() for pixels in whole_batches(count)])()


@cache
def convnet_function() -> Any:
    """Compile the convnet for uint8[BATCH, 28, 28], once in this process."""
    tensorflow = start_tensorflow()
    model = keras_convnet()
    return tensorflow.function(
        lambda pixels: model(tensorflow.cast(pixels, "float32")[..., None], training=False),
        [tensorflow.TensorSpec((BATCH, SIDE, SIDE), tensorflow.uint8)],
        autograph=False,
    )


def whole_batches(count: int) -> Iterator[InkImages]:
    """Give the first images of MNIST's test half, uint8[BATCH, 28, 28] at a time."""
    pixels = test_pixels()
    return (pixels[start : start + BATCH] for start in range(0, count, BATCH))


@cache
def test_pixels() -> InkImages:
    """Unpack MNIST's test half, once in this process."""
    return mnist("test")[0]


# ---- what they print -----------------------------------------------------------------------------------------------


def print_tables(
    rates: Mapping[str, Sequence[float]],
    stages: Sequence[Mapping[str, float]],
    kinds: Sequence[Kind],
    *,
    images: int,
) -> None:
    """Print images per second, ratios, and what they were measured on.

    Args:
        rates: Images per second by contestant, one a round.
        stages: This program's seconds by stage, one mapping a round.
        kinds: What was decoded and normalised.
        images: Files in the folder.
    """
    median = {name: statistics.median(of_rounds) for name, of_rounds in rates.items()}
    floor = max(FLOOR, key=lambda name: median[name])
    print(f"{images:,} MNIST test images as 28×28 PNG files, warm page cache; loading and starting left out;")
    print(f"images per second: median (lowest–highest) of {len(stages)} rounds\n")
    speeds = (*FLOOR, PROGRAM, DATASET_PEER, SINGLE_PEER)
    print_table(rates, speeds, {"× floor": median[floor], "× dataset peer": median[DATASET_PEER]})
    print("\nDecoding and normalising on one core, files in memory, images per processor second:")
    for kind in kinds:
        alone, whole = kind.line(DECODE), kind.line(NORMALISE)
        print_table(rates, (alone, kind.line(OWN_DECODE), whole), {"of imdecode": median[alone]})
        of_rounds = [plain / both for plain, both in zip(rates[alone], rates[whole], strict=True)]
        print(
            f"decode + normalise, {kind.stack} a stack, costs {statistics.median(of_rounds):.2f} "
            f"({min(of_rounds):.2f}–{max(of_rounds):.2f}) × imdecode; the target is at most {kind.target:g} ×\n"
        )
    print(f"Forward pass alone, compiled function, {BATCH} images a batch, same process and threads:")
    print_table(rates, (SHIPPED, CONVNET), {"× convnet": median[CONVNET]})
    shares = {name: statistics.median(of_run[name] for of_run in stages) for name in stages[0]}
    print("\nThis program's seconds by stage: " + ", ".join(f"{name} {spent:.3f}" for name, spent in shares.items()))
    print(f"Floor: {floor}. Convnet: untrained weights, which changes no speed; the peers write no report.")
    packages = ("batchdigits", "tensorflow", "keras", "numpy", "opencv-python-headless")
    model = bundle.load()
    print(
        f"Model {model.id[: pipeline.MODEL_ID_LENGTH]} ({model.provenance['recipe']['arch']}), {os.cpu_count()} CPUs, "
        f"load {os.getloadavg()[1]:.1f}, Python {platform.python_version()}, "
        + ", ".join(f"{package} {version(package)}" for package in packages)
    )


def print_table(rates: Mapping[str, Sequence[float]], names: Sequence[str], ratios: Mapping[str, float]) -> None:
    """Print a line for each name: its images per second, and how that relates to others."""
    print(" " * 64 + f"{'images/s':>9}{'':18}" + "".join(f"{title:>16}" for title in ratios))
    for name in names:
        median = statistics.median(rates[name])
        spread = f"({min(rates[name]):,.0f}–{max(rates[name]):,.0f})"
        print(f"{name:64}{median:9,.0f}{spread:>18}" + "".join(f"{median / other:16.3g}" for other in ratios.values()))


if __name__ == "__main__":
    typer.run(main)

"""The shipped model under the runtimes that could replace TensorFlow: how small, quick and exact each is.

Make the table in one go: `python -m tests.benchmarks.studies.runtimes` (three minutes). It needs, beside this package,
what the package itself does not: in a virtual environment of its own,
`pip install -e . onnxruntime==1.32.0 onnx==1.23.2 tf2onnx==1.17.0 ai-edge-litert==2.3.0`.

Each measurement is a process of its own; all are taken in turn, round after round. The images are MNIST's of the
validation part, which the model was not trained on; its test half is kept for the end. Import and opening come from a
warm page cache. Integers of 8 bits are calibrated on images of the training part.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from tqdm import tqdm

from batchdigits.inference import bundle
from batchdigits.inference.decisions import probabilities
from batchdigits.inference.runtimes import start_tensorflow
from batchdigits.records import InkImages, Logits
from batchdigits.training.finetuning import own_data
from tests.benchmarks.digit_sets import validation_part
from tests.benchmarks.reading import Reader
from tests.benchmarks.studies.one_runtime import BATCH

ONE_RUNTIME = Path(__file__).with_name("one_runtime.py")
THREADS = (1, 2)
CALIBRATING = 512
"""Images that the ranges of the integers are taken from."""
PLATFORMS = {
    "onnxruntime": "Linux x86_64 and aarch64 (glibc 2.28), macOS 14 arm64, Windows x86_64; Python 3.11–3.14",
    "ai-edge-litert": "Linux x86_64 and aarch64 (glibc 2.27), macOS 12 arm64, Windows x86_64; Python 3.11, 3.13 seen",
    "tensorflow": "what the package requires",
}
"""For which the package index has wheels, of onnxruntime 1.32.0 and ai-edge-litert 2.3.0."""
FLOATS, INTEGERS = "float32", "int8"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in the form that one runtime reads."""

    distribution: str
    """The runtime, a key of `PLATFORMS`."""
    numbers: str
    """What it calculates with."""
    model: Path
    """The file."""


def main(repeats: Annotated[int, typer.Option(min=1, help="Measured rounds; figures are their medians.")] = 5) -> None:
    """Convert the shipped model, and measure it under each runtime."""
    model = bundle.load()
    with Reader(model) as reader:
        _, pixels, labels = validation_part(model, reader.network)
        training, _ = own_data(model, reader.network)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        np.save(work / "pixels.npy", pixels)
        with redirect_stdout(sys.stderr):  # Keras says what it exports
            candidates = converted(model.weights, training.pixels[:CALIBRATING], work)
        figures, logits = measured(candidates, work, repeats)
    heads = ["runtime", "numbers", "wheels for", "installed", "import", "open", "µs an image (processor)", "2 threads"]
    heads += ["peak memory", "right", "largest difference to Keras"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * 3}{' ---: |' * (len(heads) - 3)}")
    certainty = {
        candidate: probabilities(given, temperature=model.calibration.temperature)
        for candidate, given in logits.items()
    }
    for candidate, of_candidate in certainty.items():
        one, two = (figures[candidate, threads] for threads in THREADS)
        cells = [
            f"{candidate.distribution} {version(candidate.distribution)}",
            candidate.numbers,
            PLATFORMS[candidate.distribution],
            f"{installed_mb(candidate.distribution):,.0f} MB",
            f"{one['import_seconds']:.2f} s",
            f"{one['open_seconds']:.3f} s",
            f"{one['microseconds']:.1f} ({one['processor_microseconds']:.1f})",
            f"{two['microseconds']:.1f} ({two['processor_microseconds']:.1f})",
            f"{one['peak_mb']:,.0f} MB",
            f"{np.mean(of_candidate.argmax(axis=1) == labels):.2%}",
            f"{np.abs(of_candidate - certainty[candidates[0]]).max():.1g}",
        ]
        print(f"| {' | '.join(cells)} |")
    print(
        f"\n{len(labels):,} images, {BATCH} a batch; {os.cpu_count()} CPUs, load {os.getloadavg()[1]:.1f}, "
        f"Python {platform.python_version()}; medians of {repeats} rounds"
    )


# ---- models --------------------------------------------------------------------------------------------------------


def converted(weights: Path, images: InkImages, work: Path) -> list[Candidate]:
    """Write the model in each form, the one that ships first.

    Args:
        weights: The model as Keras has it.
        images: Normalised images, by which integers are calibrated.
        work: The folder that the files go to.
    """
    tensorflow = start_tensorflow()
    import keras
    import onnxruntime
    from onnxruntime.quantization import QuantFormat, quantize_static

    model = keras.saving.load_model(weights, compile=False)
    model(images[:1])  # one that was never called cannot be exported
    onnx, onnx_integers, tflite, tflite_integers = (
        work / name for name in ("model.onnx", "integers.onnx", "model.tflite", "integers.tflite")
    )
    model.export(str(onnx), format="onnx", verbose=False)
    model.export(str(tflite), format="litert", verbose=False)
    name = onnxruntime.InferenceSession(onnx).get_inputs()[0].name
    quantize_static(onnx, onnx_integers, Images({name: images}), quant_format=QuantFormat.QDQ)
    converter = tensorflow.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    tflite_integers.write_bytes(converter.convert())
    return [
        Candidate("tensorflow", FLOATS, weights),
        Candidate("onnxruntime", FLOATS, onnx),
        Candidate("onnxruntime", INTEGERS, onnx_integers),
        Candidate("ai-edge-litert", FLOATS, tflite),
        Candidate("ai-edge-litert", INTEGERS, tflite_integers),
    ]


class Images:
    """What ONNX Runtime reads calibrating images from: a batch a call, then None."""

    def __init__(self, images: dict[str, InkImages]) -> None:
        """Take N images, uint8[N, 28, 28], under the name of the model's input."""
        self._left = [images]

    def get_next(self) -> dict[str, InkImages] | None:
        """Give all of them once."""
        return self._left.pop() if self._left else None


# ---- measuring -----------------------------------------------------------------------------------------------------


def measured(
    candidates: Sequence[Candidate], work: Path, repeats: int
) -> tuple[dict[tuple[Candidate, int], dict[str, float]], dict[Candidate, Logits]]:
    """Measure all candidates in turn, round after round; a first one warms up.

    Returns:
        The medians by candidate and number of threads, and the logits under one thread, float32[N, K].
    """
    runs: dict[tuple[Candidate, int], list[dict[str, float]]] = {
        (candidate, threads): [] for candidate in candidates for threads in THREADS
    }
    logits = {}
    for number in tqdm(range(-1, repeats), unit="round"):
        for (candidate, threads), of_run in runs.items():
            command = [sys.executable, ONE_RUNTIME, candidate.distribution, candidate.model, str(threads)]
            command += [work / "pixels.npy", work / "logits.npy"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            if number >= 0:
                of_run.append(json.loads(done.stdout))
            if threads == THREADS[0]:
                logits[candidate] = np.load(work / "logits.npy")
    medians = {
        key: {name: statistics.median(one[name] for one in of_run) for name in of_run[0]}
        for key, of_run in runs.items()
    }
    return medians, logits


def installed_mb(distribution: str) -> float:
    """Add up the files of a distribution, without those that it requires, in 10^6 bytes."""
    files = importlib.metadata.files(distribution) or []
    return sum(path.stat().st_size for file in files if (path := Path(str(file.locate()))).is_file()) / 1e6


if __name__ == "__main__":
    typer.run(main)

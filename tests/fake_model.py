"""What stands in for the model where a test is not about it: its networks in numpy, and a bundle that loads."""

from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.thresholds import Calibration, Domain, ThresholdCounts
from batchdigits.preprocessing.finder import InkMaps, Kinds
from batchdigits.records import InkImages, Logits
from batchdigits.settings import NormalisationSettings, Runtime

RISKS = (
    ThresholdCounts(0.99, passed=3500, wrong=0),
    ThresholdCounts(0.9, passed=5000, wrong=15),
    ThresholdCounts(0.1, passed=6000, wrong=60),
)
"""A target error of 0.1% leads to a threshold of 0.99, one of 0.5% to 0.9."""

DOMAINS = (Domain("all", digits=6000, risks=RISKS),)
"""The only domain of stand-ins."""

_WEIGHTS = np.random.default_rng(7).integers(-9, 10, (784, 10))


def logits_of(pixels: InkImages) -> Logits:
    """Give each image logits that differ with its pixels and with nothing else: float32[N, 10].

    They are sums of integers, so the same bits come out however many images are asked at a time.
    """
    assert pixels.dtype == np.uint8
    assert pixels.shape[1:] == (28, 28)
    sums = pixels.reshape(len(pixels), 784).astype(np.int64) @ _WEIGHTS
    return (sums / 4096).astype(np.float32)


class FakePredictor:
    """A predictor without a model, put in the place of `networks.Predictor` or `explain.Predictor`."""

    def __init__(self, bundle: Bundle, *, batch_size: int, runtime: Runtime = Runtime.KERAS, threads: int = 1) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, pixels: InkImages) -> Logits:
        return logits_of(pixels)


class FakeInkFinder:
    """An ink finder without a model, put in the place of `shared_finder.InkFinder` or `explain.InkFinder`.

    What differs much from the paper of an evenly lit page is ink, and the page shows one digit.
    """

    def __init__(self, folder: Path, *, runtime: Runtime = Runtime.KERAS, threads: int = 1) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __call__(self, looks: NDArray[np.uint8]) -> tuple[InkMaps, Kinds]:
        means = looks[..., 0].astype(np.int16)
        paper = np.median(means, axis=(1, 2), keepdims=True)
        kinds = np.tile(np.array([-3, 3, -3, -3], np.float32), (len(looks), 1))
        return np.where(np.abs(means - paper) > 60, np.uint8(255), np.uint8(0)), kinds


def no_network(looks: NDArray[np.uint8]) -> tuple[InkMaps, Kinds]:
    """What stands in for the ink finder where no page may ask for it.

    Raises:
        AssertionError: One does.
    """
    message = f"{len(looks)} pages ask for the ink finder"
    raise AssertionError(message)


def bundle_in(
    directory: Path,
    *,
    temperature: float = 1.0,
    weights: bytes = b"no model",
    finder: bytes = b"no finder",
    exported: bytes | None = None,
    exported_finder: bytes | None = None,
    domains: tuple[Domain, ...] = DOMAINS,
) -> Bundle:
    """Make a bundle that loads, whose networks only stand-ins can use."""
    directory.mkdir(parents=True, exist_ok=True)
    networks = {
        "model.keras": weights,
        "finder.keras": finder,
        "model.tflite": exported,
        "finder.tflite": exported_finder,
    }
    for name, content in networks.items():
        if content is not None:
            (directory / name).write_bytes(content)
    provenance = {"data": {"mnist": "ab" * 32}, "seed": 1998, "metrics": {"accuracy": 0.99}, "note": "made — here"}
    calibration = Calibration(temperature, gate=1.0, domains=domains)
    return bundle.save(directory, normalisation=NormalisationSettings(), calibration=calibration, provenance=provenance)

"""Export a trained Keras model for the fast runtime, and hold that both give the same."""

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import BatchDigitsError, escaped
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.inference.decisions import probabilities, softmax
from batchdigits.inference.runtimes import InkFinder, Predictor
from batchdigits.records import DIGITS, InkImages, Logits
from batchdigits.settings import Runtime

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

MOST_DIFFERENCE = 1e-4
"""Between two runtimes' probabilities of one output."""

_BATCH = 256


def export(model: "keras.Model", directory: Path, network: Network) -> None:
    """Write a network's file for each runtime; the fast one's only where it is installed and can be checked."""
    model.save(directory / network.file(Runtime.KERAS))
    exported = directory / network.file(Runtime.LITERT)
    exported.unlink(missing_ok=True)
    if find_spec("ai_edge_litert") is None:
        log.warning("The bundle gets no model for --runtime litert; install batchdigits[litert] to have it exported.")
        return
    model.export(str(exported), format="litert", verbose=False)


def check(made: Bundle, pixels: InkImages) -> None:
    """Hold that both runtimes read images alike, if the bundle has a model for each.

    Args:
        made: The bundle, its temperature fitted.
        pixels: uint8[N, 28, 28], golden images.

    Raises:
        BatchDigitsError: One of them gives another digit, or a probability that is further off than `MOST_DIFFERENCE`.
    """
    if not made.is_exported:
        return
    logits = [_logits(made, pixels, runtime) for runtime in Runtime]
    slow, fast = (probabilities(found, temperature=made.calibration.temperature) for found in logits)
    gates = [softmax(found)[:, DIGITS:] for found in logits]
    others = np.count_nonzero(slow.argmax(1) != fast.argmax(1))
    difference = max(np.abs(slow - fast).max(initial=0), np.abs(gates[0] - gates[1]).max(initial=0))
    if others or difference > MOST_DIFFERENCE:
        message = (
            f"The exported model of {escaped(str(made.directory))} does not read like the trained one: {others} of "
            f"{len(pixels)} images as another digit, probabilities up to {difference:.1e} apart, at most "
            f"{MOST_DIFFERENCE:.0e} expected."
        )
        raise BatchDigitsError(message)


def check_finder(folder: Path, looks: NDArray[np.uint8]) -> None:
    """Hold that both runtimes find the same ink, if there is a file for each.

    Args:
        folder: Of the ink finder.
        looks: uint8[N, 64, 64, 3], golden ones.

    Raises:
        BatchDigitsError: A cell's ink, or the probability of a kind, is further off than `MOST_DIFFERENCE`.
    """
    if not (folder / Network.FINDER.file(Runtime.LITERT)).is_file():
        return
    found = []
    for runtime in Runtime:
        with InkFinder(folder, runtime=runtime) as finder:
            ink, kinds = finder.raw(looks)
        found.append(np.concatenate([ink, softmax(kinds)], axis=1))
    difference = np.abs(found[0] - found[1]).max(initial=0)
    if difference > MOST_DIFFERENCE:
        message = (
            f"The exported finder of {escaped(str(folder))} does not find what the trained one finds: up to "
            f"{difference:.1e} apart, at most {MOST_DIFFERENCE:.0e} expected."
        )
        raise BatchDigitsError(message)


def _logits(made: Bundle, pixels: InkImages, runtime: Runtime) -> Logits:
    with Predictor(made, batch_size=_BATCH, runtime=runtime) as predictor:
        return predictor(pixels)

"""Explain one image: what digit it was read as, how sure that is, and what the model saw."""

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind, StorageError, UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.decisions import decide_calibrated
from batchdigits.inference.runtimes import InkFinder, Predictor
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import NO_DIGIT, Status
from batchdigits.settings import ExplainSettings, PredictSettings
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.reading import read_local
from batchdigits.storage.urls import refuse

log = logging.getLogger(__name__)

_MAIN_JOB = PredictSettings(sources=())  # its shape of batch gives its bits
_BAR = 40  # characters of a probability of 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of one image."""

    status: str
    """`ok`, `review`, `blank`, `not_a_digit`, or the kind of the fault."""
    digit: int
    """The likeliest digit; -1 where there is none."""
    detail: str
    """The fault, or the reason for review."""
    probabilities: NDArray[np.float32]
    """float32[10]; NaN where there is no digit."""
    pixels: NDArray[np.uint8]
    """uint8[28, 28], what the model saw; all 0 where nothing was read."""

    @property
    def is_fault(self) -> bool:
        """Whether the image could not be read."""
        return self.status in list(FaultKind)

    def text(self) -> str:
        """Say it, with a bar for each probability."""
        if self.digit == NO_DIGIT:
            return f"No digit is recognised: {self.status}: {self.detail}"
        lines = [f"The handwritten digit is recognised as {self.digit}"]
        if self.status != Status.OK:
            lines.append(f"It would go to {self.status}: {self.detail}")
        for digit, share in enumerate(self.probabilities):
            lines.append(f"{digit} {share:.4f} {'█' * round(_BAR * float(share))}".rstrip())
        return "\n".join(lines)


def explain(settings: ExplainSettings) -> Explanation:
    """Read one image; of several pages, the first, with a warning.

    Raises:
        StorageError: The image does not exist.
        UsageError: It is a folder, or behind a URL.
        BundleError: The model cannot be used.
    """
    refuse(settings.image, "The image")
    path = Path(settings.image)
    try:
        size_bytes = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        message = f"The image {escaped(settings.image)} cannot be found: {reason}; check its spelling."
        raise StorageError(message) from error
    if path.is_dir():
        message = f"{escaped(settings.image)} is a folder; name one image, or use predict for folders."
        raise UsageError(message)
    model = bundle.load(settings.model)
    data = read_local(settings.image, size_bytes, settings.decoding.max_bytes)
    pages = [data] if isinstance(data, Fault) else decode(data, settings.decoding, path.suffix.lower())
    if len(pages) > 1:
        log.warning("%s has %d pages; the first is explained.", escaped(settings.image), len(pages))
    page = pages[0]
    if not isinstance(page, Page):
        nothing = np.full(10, np.nan, np.float32)
        return Explanation(page.kind, NO_DIGIT, page.detail, nothing, np.zeros((28, 28), np.uint8))
    with InkFinder(model.directory, runtime=settings.runtime) as network:
        seen = normalise([page.grey], network, model.normalisation, finer=[page.finer])
    with Predictor(model, batch_size=_MAIN_JOB.batch_size, runtime=settings.runtime) as predictor:
        logits = predictor(seen.pixels)
    try:
        threshold = model.calibration.threshold(settings)
    except UsageError as error:  # the digit can be told all the same
        log.warning(str(error))
        threshold = 0.0
    decided = decide_calibrated(logits, seen.ink, model.calibration, threshold=threshold)
    return Explanation(
        decided.status[0], int(decided.digit[0]), decided.detail[0], decided.probabilities[0], seen.pixels[0]
    )


def save_input(explanation: Explanation, path: Path) -> None:
    """Write the 28×28 pixels that the model saw as a PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    _, data = cv2.imencode(".png", explanation.pixels)
    with atomic_write(path) as file:
        file.write(data.tobytes())

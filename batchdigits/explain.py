"""Explain one image: what digit it was read as, how sure that is, and what the model saw."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, FaultKind, UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import decide_calibrated, no_digit, probabilities
from batchdigits.inference.runtimes import InkFinder, Predictor
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import NO_DIGIT, Status
from batchdigits.settings import ExplainSettings, PredictSettings
from batchdigits.storage.atomic import atomic_write
from batchdigits.storage.reading import read_named
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
    """float32[10]; NaN where no ink was read. Of a page without a digit, what the model would say if there were one."""
    pixels: NDArray[np.uint8]
    """uint8[28, 28], what the model saw; all 0 where nothing was read."""
    page: int = 1
    """From 1."""
    no_digit: float | None = None
    """Probability, 0 to 1, that the page shows no digit; None where nobody asked."""
    gate: float = 1.0
    """Above which it is said to have none."""
    threshold: float | None = None
    """Confidence, 0 to 1, from which a digit of one image is `ok`; None where the model proves none."""
    is_given: bool = False
    """Whether that was named, so that a folder has no other."""

    @property
    def is_fault(self) -> bool:
        """Whether the image could not be read."""
        return self.status in list(FaultKind)

    def text(self) -> str:
        """Say it, with a bar for each probability."""
        if self.digit == NO_DIGIT:
            lines = [f"No digit is recognised: {self.status}: {self.detail}"]
            if self.no_digit is not None:
                if self.no_digit > self.gate:  # else it is refused for what stands beside
                    likely = f"That it shows none is {self.no_digit:.2%} likely"
                    lines.append(f"{likely}, and above {self.gate:.2%} it is refused")
                lines.append("If it showed one, it would be:")
        else:
            lines = [f"The handwritten digit is recognised as {self.digit}"]
            if self.status != Status.OK:
                lines.append(f"It would go to {self.status}: {self.detail}")
            if self.threshold is not None:
                own = "" if self.is_given else "; a run may have a threshold of its folder's own, and names it"
                lines.append(f"Here a digit is ok from a confidence of {self.threshold} on{own}")
        if np.isnan(self.probabilities).any():
            return "\n".join(lines)
        for digit, share in enumerate(self.probabilities):
            lines.append(f"{digit} {share:.4f} {'█' * round(_BAR * float(share))}".rstrip())
        return "\n".join(lines)


def explain(settings: ExplainSettings) -> list[Explanation]:
    """Read one image, all its pages.

    Raises:
        StorageError: The image does not exist.
        UsageError: It is a folder, or behind a URL.
        BundleError: The model cannot be used.
    """
    refuse(settings.image, "The image")
    path = Path(settings.image)
    data = read_named(settings.image, settings.decoding.max_bytes)
    if path.is_dir():
        message = f"{escaped(settings.image)} is a folder; name one image, or use predict for folders."
        raise UsageError(message)
    model = bundle.load(settings.model)
    pages = [data] if isinstance(data, Fault) else decode(data, settings.decoding, path.suffix.lower())
    nothing = np.full(10, np.nan, np.float32)
    found = [
        Explanation(page.kind, NO_DIGIT, page.detail, nothing, np.zeros((28, 28), np.uint8), number)
        for number, page in enumerate(pages, 1)
        if isinstance(page, Fault)
    ]
    read = [(number, page) for number, page in enumerate(pages, 1) if isinstance(page, Page)]
    if read:
        found += _explained(model, settings, [number for number, _ in read], [page for _, page in read])
    return sorted(found, key=lambda explanation: explanation.page)


def _explained(
    model: Bundle, settings: ExplainSettings, numbers: Sequence[int], pages: Sequence[Page]
) -> Iterator[Explanation]:
    with InkFinder(model.directory, runtime=settings.runtime) as network:
        full_resolution = [page.full_resolution for page in pages]
        seen = normalise([page.grey for page in pages], network, model.normalisation, full_resolution=full_resolution)
    with Predictor(model, batch_size=_MAIN_JOB.batch_size, runtime=settings.runtime) as predictor:
        logits = predictor(seen.pixels)
    threshold = None
    try:
        threshold = model.calibration.threshold(settings)
    except UsageError as error:  # the digit can be told all the same
        log.warning(str(error))
    decided = decide_calibrated(logits, seen.ink, model.calibration, threshold=threshold or 0.0)
    shares = probabilities(logits, temperature=model.calibration.temperature).astype(np.float32)
    empty = no_digit(logits, seen.ink)
    for row, number in enumerate(numbers):
        is_refused = decided.digit[row] == NO_DIGIT and bool(seen.pixels[row].any())
        yield Explanation(
            decided.status[row],
            int(decided.digit[row]),
            decided.detail[row],
            shares[row] if is_refused else decided.probabilities[row],
            seen.pixels[row],
            number,
            float(empty[row]) if is_refused else None,
            model.calibration.gate,
            threshold,
            settings.threshold is not None,
        )


def save_input(explanation: Explanation, path: Path) -> None:
    """Write the 28×28 pixels that the model saw as a PNG.

    Raises:
        StorageError: The file cannot be written.
    """
    _, data = cv2.imencode(".png", explanation.pixels)
    with atomic_write(path) as file:
        file.write(data.tobytes())

"""Read pages as the program does: their ink, the networks, the decision at the default threshold.

Whatever measures accuracy reads its pages here, so that all of it counts the same.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import decide_calibrated
from batchdigits.inference.runtimes import InkFinder, Predictor, quickest
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import DIGITS, OTHER, Digits, Fractions, FullResolution, GreyImage, InkImages, Labels
from batchdigits.settings import DecodingSettings, PredictSettings, Runtime

SEED = 1998
DEFAULTS = PredictSettings(sources=())
SHARED = Path(__file__).resolve().parents[3] / "shared"  # beside the checkout, where there is one

_TOGETHER = 256  # pages


@dataclass(frozen=True, slots=True)
class PageSet:
    """N pages of one kind, and what is on them."""

    name: str
    pages: Sequence[GreyImage]
    """uint8[H, W], as decoding gives them."""
    labels: Labels | None = None
    """int8[N]; None where no page shows a single digit."""
    full_resolution: Sequence[FullResolution | None] = ()
    """What gives each page with more pixels; none without."""
    files: Sequence[str] = ()
    """Their names, where they are files."""
    has_writing: bool = True
    """There is print or writing on each page: none may be called blank."""
    group: str = ""
    """With which other sets it is added up; none without."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the program says of N pages, and what its model saw."""

    pixels: InkImages
    """uint8[N, 28, 28]."""
    status: NDArray[np.str_]
    """[N], values of `Status`."""
    digit: Digits
    """int8[N], the digit in the report; -1 where there is none."""
    likeliest: Digits
    """int8[N], the likeliest of the ten, whether it was said or not."""
    confidence: Fractions
    """float64[N], of the digit in the report; NaN where there is none."""
    may_be_ok: NDArray[np.bool_]
    """bool[N], whether its digit is `ok` at some threshold."""
    other: NDArray[np.float32]
    """float32[N], the largest thing that was left out, as a share of the digit."""


class Reader:
    """A model that reads pages: a context manager with one verb, the call."""

    def __init__(self, model: Bundle, runtime: Runtime | None = None) -> None:
        """Name the model, and what carries it out: the quickest runtime, unless it is given."""
        chosen = runtime or quickest(model.directory)
        self.model = model
        self.network = InkFinder(model.directory, runtime=chosen)
        self.predict = Predictor(model, batch_size=_TOGETHER, runtime=chosen)
        self._threshold = model.calibration.threshold(DEFAULTS)
        self._loaded = ExitStack()

    def __enter__(self) -> Self:
        """Load both networks."""
        self._loaded.enter_context(self.network)
        self._loaded.enter_context(self.predict)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let them go."""
        self._loaded.close()

    def __call__(self, pages: Sequence[GreyImage], full_resolution: Sequence[FullResolution | None] = ()) -> Answers:
        """Take N >= 1 pages the program's own path, some at a time."""
        stacks = [slice(start, start + _TOGETHER) for start in range(0, len(pages), _TOGETHER)]
        parts = [
            normalise(pages[some], self.network, self.model.normalisation, full_resolution=full_resolution[some])
            for some in stacks
        ]
        pixels = np.concatenate([part.pixels for part in parts])
        ink = np.concatenate([part.ink for part in parts])
        logits = self.predict(pixels)
        said = decide_calibrated(logits, ink, self.model.calibration, threshold=self._threshold)
        likeliest = logits[:, :DIGITS].argmax(1).astype(np.int8)
        status = np.array(said.status, np.str_)
        return Answers(pixels, status, said.digit, likeliest, said.confidence, said.may_be_ok, ink[:, OTHER])


def decoded(data: bytes, name: str) -> Page:
    """Decode the first page of a file as the program does.

    Raises:
        ValueError: It cannot be decoded.
    """
    page = decode(data, DecodingSettings(), Path(name).suffix.lower())[0]
    if not isinstance(page, Page):
        message = f"{name} cannot be decoded: {page.detail}"
        raise ValueError(message)
    return page

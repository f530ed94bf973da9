"""Read digits from Python: one image, many, or a folder as a table.

The names stand in `batchdigits` itself, which imports this module when one of them is asked for.
"""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from batchdigits import pipeline
from batchdigits.decoding.codecs import decode
from batchdigits.decoding.pages import Page
from batchdigits.errors import Fault, UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.decisions import Decisions, decide_calibrated
from batchdigits.inference.runtimes import InkFinder, Predictor, best
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import NO_DIGIT
from batchdigits.settings import DecodingSettings, ModelSettings, PredictSettings, Runtime, RuntimeChoice
from batchdigits.storage.reading import read_named
from batchdigits.storage.scratch import scratch_folder

if TYPE_CHECKING:
    import pandas

_DEFAULTS = PredictSettings(sources=())
_MOST_AT_ONCE = 256  # images that are predicted together
_WHOLE_NUMBERS = {  # the columns of the table, in types that know an empty cell
    **dict.fromkeys(("page", "width", "height"), "Int32"),
    **dict.fromkeys(("digit", "final", "runner_up"), "Int8"),
}
_FILE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # of Pillow, that a PNG holds as they are


class PillowImage(Protocol):
    """What is used of an image of Pillow."""

    mode: str
    """How its pixels are kept."""

    def convert(self, mode: str) -> PillowImage:
        """Keep the pixels otherwise."""

    def save(self, fp: BytesIO, format: str) -> None:  # noqa: A002  its name in Pillow
        """Write it."""


Image = str | os.PathLike[str] | bytes | NDArray[Any] | PillowImage
"""A file's path, a file's bytes, pixels [H, W] or [H, W, 3 or 4] (RGB, RGBA), or an image of Pillow."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What an image was read as; the fields are columns of the report."""

    status: str
    """`ok`, `review`, `blank`, `not_a_digit`, `unreadable`, `too_large` or `unsupported`."""
    digit: int | None
    """The likeliest digit; None where there is none."""
    confidence: float | None
    """The probability, 0 to 1, that it is right."""
    runner_up: int | None
    """The second likeliest digit."""
    runner_up_confidence: float | None
    """Its probability."""
    detail: str
    """Why the status is not `ok`; else empty."""
    probabilities: tuple[float, ...]
    """Of the digits 0 to 9; empty where there is no digit."""


class Reader:
    """Reads images one by one or many at a time, and keeps the model loaded. May be used as a context manager."""

    def __init__(
        self,
        *,
        model: str | os.PathLike[str] | None = None,
        target_error: float | None = None,
        threshold: float | None = None,
        runtime: str = RuntimeChoice.AUTO,
    ) -> None:
        """Load the model.

        Args:
            model: A bundle directory; None is the one in the package.
            target_error: Share of wrong digits, 0 to 1, among those that are `ok`, which the threshold has to keep;
                None is 0.005 or, with a warning, the least that the model can prove.
            threshold: Confidence, 0 to 1, below which a digit goes to review, in the place of the target error.
            runtime: `auto`, `keras` or `litert`.

        Raises:
            BundleError: The model cannot be used.
            UsageError: It cannot prove the target, or the runtime is not installed.
        """
        self._bundle = bundle.load(None if model is None else Path(model))
        chosen = _runtime(runtime, self._bundle.directory)
        settings = ModelSettings(target_error=_target(self._bundle, target_error, threshold), threshold=threshold)
        self._threshold = self._bundle.calibration.threshold(settings)
        with ExitStack() as stack, _without_native_noise():
            self._finder = stack.enter_context(InkFinder(self._bundle.directory, runtime=chosen))
            predictor = Predictor(self._bundle, batch_size=_DEFAULTS.batch_size, runtime=chosen)
            self._predictor = stack.enter_context(predictor)
            self._entered = stack.pop_all()

    def __enter__(self) -> Self:
        """Give the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the model go."""
        self._entered.close()

    def read(self, image: Image) -> Reading:
        """Read one image; of several pages, the first.

        Raises:
            StorageError: There is no file of this path.
            UsageError: It is nothing that an image can be.
        """
        (reading,) = self.read_many([image])
        return reading

    def read_many(self, images: Iterable[Image]) -> Iterator[Reading]:
        """Read images, many at a time, and give what they say in their order.

        An image that cannot be read is a reading that says so.

        Raises:
            StorageError: There is no file of a path.
            UsageError: Something is nothing that an image can be.
        """
        rest = iter(images)
        while some := list(islice(rest, _MOST_AT_ONCE)):
            yield from self._read_some(some)

    def _read_some(self, images: Sequence[Image]) -> Iterator[Reading]:
        found = [_first_page(image) for image in images]
        pages = [page for page in found if isinstance(page, Page)]
        decided: Iterator[Reading] = iter(())
        if pages:
            greys, full_resolution = [page.grey for page in pages], [page.full_resolution for page in pages]
            seen = normalise(greys, self._finder, self._bundle.normalisation, full_resolution=full_resolution)
            decisions = decide_calibrated(
                self._predictor(seen.pixels), seen.ink, self._bundle.calibration, threshold=self._threshold
            )
            decided = _readings(decisions)
        for page in found:
            yield next(decided) if isinstance(page, Page) else _unread(page)


def read(image: Image) -> Reading:
    """Read one image by the model in the package, which stays loaded.

    Args:
        image: A file's path, a file's bytes, pixels, or an image of Pillow.

    Raises:
        StorageError: There is no file of this path.
        UsageError: It is nothing that an image can be.
    """
    return _default_reader().read(image)


def read_folder(
    path: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    target_error: float | None = None,
    threshold: float | None = None,
    runtime: str = RuntimeChoice.AUTO,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    ledger: str | os.PathLike[str] | None = None,
) -> pandas.DataFrame:
    """Read all images of a folder into a table with the columns of the report, one row a page.

    Columns of whole numbers are of pandas' types that know an empty cell: where a row has no digit, `digit`, `final`
    and `runner_up` are `pandas.NA`.

    Args:
        path: The folder; or a file, a glob, or a URL.
        model: A bundle directory; None is the one in the package.
        target_error: Share of wrong digits, 0 to 1, among those that are `ok`, which the threshold has to keep; None is
            0.005 or, with a warning, the least that the model can prove.
        threshold: Confidence, 0 to 1, below which a digit goes to review, in the place of the target error.
        runtime: `auto`, `keras` or `litert`.
        include: Patterns in gitignore syntax; where there are any, only files that match are read.
        exclude: Patterns in gitignore syntax; what matches is skipped.
        ledger: A file that keeps what is known for the next call; None keeps nothing.

    Raises:
        BatchDigitsError: What ends a run of `batchdigits predict`.
    """
    import pandas

    directory = None if model is None else Path(model)
    target = _target(bundle.load(directory), target_error, threshold)
    with scratch_folder() as folder:
        report = folder / "report.parquet"
        settings = PredictSettings(
            sources=(os.fspath(path),),
            outputs=(str(report),),
            model=directory,
            ledger=None if ledger is None else Path(ledger),
            no_ledger=ledger is None,
            include=tuple(include),
            exclude=tuple(exclude),
            settle_seconds=0.0,
            target_error=target,
            threshold=threshold,
            runtime=_runtime(runtime, directory or bundle.PACKAGED),
        )
        with _without_native_noise():
            pipeline.run(settings, stdout=BytesIO())
        return pandas.read_parquet(report).astype(_WHOLE_NUMBERS)


def _target(model: bundle.Bundle, target_error: float | None, threshold: float | None) -> float:
    if target_error is not None:
        return target_error
    return bundle.usual_target(model) if threshold is None else ModelSettings().target_error


@functools.cache
def _default_reader() -> Reader:
    return Reader()


def _runtime(choice: str, directory: Path) -> Runtime:
    if choice not in list(RuntimeChoice):
        message = f"There is no runtime {escaped(choice)}; expected {', '.join(RuntimeChoice)}."
        raise UsageError(message)
    return best(directory) if choice == RuntimeChoice.AUTO else Runtime(choice)


def _first_page(image: Image) -> Page | Fault:
    settings = DecodingSettings()
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        data = read_named(str(path), settings.max_bytes)
        return data if isinstance(data, Fault) else decode(data, settings, path.suffix.lower())[0]
    return decode(image if isinstance(image, bytes) else _as_png(image), settings)[0]


def _as_png(image: NDArray[Any] | PillowImage) -> bytes:
    """Make a file of pixels, so that they are read as files are.

    Raises:
        UsageError: They are no image.
    """
    if not isinstance(image, np.ndarray):
        if not hasattr(image, "convert") or not hasattr(image, "save"):
            message = f"A {type(image).__name__} is no image; expected a path, bytes, an array or an image of Pillow."
            raise UsageError(message)
        buffer = BytesIO()
        (image if image.mode in _FILE_MODES else image.convert("RGB")).save(buffer, format="PNG")
        return buffer.getvalue()
    pixels = image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image
    is_page = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))  # noqa: PLR2004  of an array
    if not is_page or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        message = (
            f"An array of shape {image.shape} and {image.dtype} is no image; expected [H, W], or [H, W, 3 or 4] of RGB "
            "or RGBA, of uint8, uint16 or bool."
        )
        raise UsageError(message)
    if pixels.ndim == 3:  # noqa: PLR2004  OpenCV has blue first
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA)  # noqa: PLR2004
    _, data = cv2.imencode(".png", pixels)
    return data.tobytes()


def _readings(decisions: Decisions) -> Iterator[Reading]:
    for row, status in enumerate(decisions.status):
        has_digit = decisions.digit[row] != NO_DIGIT
        yield Reading(
            str(status),
            int(decisions.digit[row]) if has_digit else None,
            _none_for_nan(decisions.confidence[row]),
            int(decisions.runner_up[row]) if has_digit else None,
            _none_for_nan(decisions.runner_up_confidence[row]),
            decisions.detail[row],
            tuple(map(float, decisions.probabilities[row])) if has_digit else (),
        )


def _unread(fault: Fault) -> Reading:
    return Reading(str(fault.kind), None, None, None, None, fault.detail, ())


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


@contextmanager
def _without_native_noise() -> Iterator[None]:
    """Send nowhere what TensorFlow and codecs write to standard error by themselves; what Python writes still comes."""
    sys.stderr.flush()
    kept, nowhere, stream = os.dup(2), os.open(os.devnull, os.O_WRONLY), sys.stderr
    is_ours = stream is sys.__stderr__
    try:
        with ExitStack() as stack:
            if is_ours:
                sys.stderr = stack.enter_context(os.fdopen(os.dup(kept), "w", buffering=1, errors="backslashreplace"))
            os.dup2(nowhere, 2)
            try:
                yield
            finally:
                os.dup2(kept, 2)
                sys.stderr = stream
    finally:
        os.close(nowhere)
        os.close(kept)

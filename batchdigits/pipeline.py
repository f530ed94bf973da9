"""The order of the stages: settings in, reports written and a summary out. The file to open first.

folder -> images -> decoding -> normalisation -> predictor -> ledger -> decisions -> reports
"""

import importlib.metadata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from batchdigits import __version__, bundle, reports
from batchdigits.batches import FILES_FOR_PROCESSES, Workers, batches
from batchdigits.bundle import Bundle
from batchdigits.decisions import DIGITS, NO_DIGIT, decide
from batchdigits.errors import NoImages, shown
from batchdigits.images import IMAGE_ENDINGS, discover
from batchdigits.ledger import Condition, Ledger, Observations
from batchdigits.locking import held
from batchdigits.monitoring import Stopwatch, Summary
from batchdigits.predictor import Predictor
from batchdigits.reports import About, Rows
from batchdigits.settings import DecodingSettings, NormalisationSettings, PredictSettings
from batchdigits.stopping import Stop

MODEL_ID_LENGTH = 12
"""Characters of the bundle's id that a row shows."""


def run(settings: PredictSettings, *, stdout: BinaryIO, stop: Stop | None = None) -> Summary:
    """Read the digits of all images under the sources, and write the reports.

    Args:
        settings: The run.
        stdout: Where the output `-` goes, as CSV.
        stop: What lets a batch be finished before a signal ends the run.

    Raises:
        Locked: Another run holds the ledger.
        Interrupted: The run was asked to end by SIGINT.
        Terminated: The run was asked to end by SIGTERM.
        UsageError: An output cannot be written as it is named, or would overwrite an input.
        BundleError: The model cannot be used.
        StorageError: A source cannot be listed, or a report not be written.
        NoImages: The sources hold no image, and `allow_empty` is off.
    """
    reports.check_outputs(settings.outputs)
    model = bundle.load(settings.model)
    files = [Path(output) for output in settings.outputs if output != reports.STDOUT]
    watch = Stopwatch()
    rows: Counter[str] = Counter()
    faulty = 0
    place = _ledger_path(settings)
    with ExitStack() as stack:
        if place:
            stack.enter_context(held(place, wait_seconds=settings.wait_seconds))
        ledger = stack.enter_context(Ledger(place, _condition(model, settings)))
        with watch.stage("list"):
            images = discover(settings.sources, outputs=[*files, *([place] if place else [])])
            found = ledger.plan(images, force=settings.force, retry_failed=settings.retry_failed)
        if found.pending:
            faulty = _observe(ledger, model, found.pending, settings, watch, stop or Stop())
            ledger.forget()
        elif not found.files and not settings.allow_empty:
            raise NoImages(_no_images(settings.sources, found.passed_over))
        with watch.stage("report"):
            chunks = _counted(_decided(ledger.observations(), model, settings), rows)
            about = _about(model, settings)
            reports.publish(chunks, settings.outputs, about=about, settings=settings.report, stdout=stdout)
    return Summary(found.files, found.pending, rows, found.passed_over, faulty, watch.seconds)


def _ledger_path(settings: PredictSettings) -> Path | None:
    """Say where the ledger is; None where nothing is kept, as for standard output alone."""
    if settings.no_ledger or settings.ledger:
        return settings.ledger
    reports_in_files = [output for output in settings.outputs if output != reports.STDOUT]
    return Path(f"{reports_in_files[0]}.ledger") if reports_in_files else None


def _condition(model: Bundle, settings: PredictSettings) -> Condition:
    """Name all that what is observed depends on, beside the files."""
    limits = settings.decoding
    return Condition(
        model.id,
        f"decoding {DecodingSettings.VERSION}, normalisation {NormalisationSettings.VERSION}, "
        f"tensorflow {importlib.metadata.version('tensorflow')}, "
        f"at most {limits.max_pixels} pixels and {limits.max_bytes} bytes",
    )


def _observe(ledger: Ledger, model: Bundle, files: int, settings: PredictSettings, watch: Stopwatch, stop: Stop) -> int:
    """Predict all that is pending into the ledger; return how many pages have a fault."""
    faulty = 0
    with ExitStack() as stack:
        workers = stack.enter_context(Workers(settings.workers, processes=files >= FILES_FOR_PROCESSES))
        ready = batches(
            ledger.pending(),
            workers,
            size=settings.batch_size,
            decoding=settings.decoding,
            normalisation=model.normalisation,
        )
        predictor: Predictor | None = None  # where all bytes are known, none is needed
        bar = stack.enter_context(tqdm(total=files, unit="image", disable=not settings.progress))
        for batch in watch.each("read", ready):
            fresh = ledger.fresh(batch)
            if fresh.any() and predictor is None:
                with watch.stage("load model"):
                    predictor = stack.enter_context(Predictor(model, batch_size=settings.batch_size))
            with stop.patiently():
                logits = np.zeros((0, DIGITS), np.float32)
                if predictor and fresh.any():
                    with watch.stage("predict"):
                        logits = predictor(batch.pixels[fresh])
                with watch.stage("record"):
                    ledger.record(batch, fresh, logits)
            faulty += len(batch.faults)
            firsts = sum(page.number == 1 for page in (*batch.pages, *(page for page, _ in batch.faults)))
            bar.update(firsts + len(batch.unchanged))
    return faulty


def _decided(chunks: Iterable[Observations], model: Bundle, settings: PredictSettings) -> Iterator[Rows]:
    """Turn observations into the rows of the report."""
    for seen in chunks:
        decided = decide(
            seen.logits, seen.ink, threshold=settings.threshold, temperature=model.temperature, gate=model.gate
        )
        read = np.array([fault is None for fault in seen.faults])
        status = np.array([fault.kind.value if fault else "" for fault in seen.faults], dtype=object)
        detail = np.array([fault.detail if fault else "" for fault in seen.faults], dtype=object)
        status[read], detail[read] = decided.status, decided.detail

        def spread(column: NDArray[Any], empty: float, read: NDArray[np.bool_] = read) -> NDArray[Any]:
            """Give the pages with a fault their empty cells."""
            full = np.full((len(read), *column.shape[1:]), empty, column.dtype)
            full[read] = column
            return full

        yield Rows(
            path=seen.names,
            page=seen.pages,
            status=status.tolist(),
            digit=spread(decided.digit, NO_DIGIT),
            confidence=spread(decided.confidence, np.nan),
            runner_up=spread(decided.runner_up, NO_DIGIT),
            runner_up_confidence=spread(decided.runner_up_confidence, np.nan),
            corrected=[""] * len(read),
            final=np.full(len(read), NO_DIGIT, np.int8),
            detail=detail.tolist(),
            width=np.array([width or 0 for width in seen.widths], np.int32),
            height=np.array([height or 0 for height in seen.heights], np.int32),
            sha256=seen.sha256,
            model=[name[:MODEL_ID_LENGTH] for name in seen.models],
            probabilities=spread(decided.probabilities, np.nan),
        )


def _counted(chunks: Iterable[Rows], rows: Counter[str]) -> Iterator[Rows]:
    """Pass rows on and count them by status."""
    for chunk in chunks:
        rows.update(chunk.status)
        yield chunk


def _about(model: Bundle, settings: PredictSettings) -> About:
    return About(
        tool_version=__version__,
        model=model.id,
        temperature=model.temperature,
        gate=model.gate,
        threshold=settings.threshold,
        max_pixels=settings.decoding.max_pixels,
        max_bytes=settings.decoding.max_bytes,
    )


def _no_images(sources: tuple[str, ...], passed_over: Counter[str]) -> str:
    names = ", ".join(shown(source) for source in sources)
    others = "; ".join(f"{count} × {reason}" for reason, count in passed_over.most_common())
    held = f" (passed over: {others})" if others else ""
    endings = " ".join(sorted(IMAGE_ENDINGS))
    return f"No image was found in {names}{held}; expected files ending in {endings}. Reports stay as they are."

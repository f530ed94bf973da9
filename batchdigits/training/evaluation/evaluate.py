"""Evaluate a model on labelled images, and write what was measured: metrics, confusion, pictures."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.errors import StorageError, UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import decide_calibrated
from batchdigits.inference.runtimes import Predictor
from batchdigits.inference.trust import Folder, judge
from batchdigits.progress import Progress
from batchdigits.records import NO_DIGIT
from batchdigits.settings import EvaluateSettings, ModelSettings
from batchdigits.storage.atomic import atomic_write
from batchdigits.training.datasets import labelled
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.evaluation import plots
from batchdigits.training.evaluation.metrics import Evaluation, as_json, confusion_csv
from batchdigits.training.evaluation.metrics import evaluate as compare

log = logging.getLogger(__name__)

_BATCH = 256


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure a model on labelled data.

    `settings.output` receives `metrics.json`, `confusion.csv`, `confusion.png`, `reliability.png`, `risk_coverage.png`
    and `mistakes.png`.

    Raises:
        UsageError: The data have wrong labels.
        StorageError: The data do not exist, or the output cannot be written.
        BundleError: The model cannot be used.
    """
    output = made_folder(settings.output)
    model = bundle.load(settings.model)
    with Progress(is_shown=settings.progress) as progress:
        progress.say("Reading the labelled images")
        with SharedFinder(model.directory, settings.runtime) as network:
            data = labelled.read(settings.source, network, model.normalisation, part="test")
        progress.say(f"Predicting {len(data):,} images")
        found = score(data, model, settings)
    result, said = found.result, found.said
    if found.unproven:
        log.warning(found.unproven)
    write_text(output / "metrics.json", json.dumps(as_json(result), indent=2) + "\n")
    draw(output, found)
    wrong = np.flatnonzero(said != data.labels)
    captions = [f"said {_said(said[row])}, true {data.labels[row]}" for row in wrong]
    title = f"{len(wrong)} mistakes of {len(data)}: what the model saw"
    plots.contact_sheet(data.pixels[wrong], captions, output / "mistakes.png", title=title)
    for name, fault, _ in data.unread:
        log.warning("%s was not read and counts as a mistake: %s", name, fault)
    return result


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of N labelled images that were read, and of M with those that were not."""

    result: Evaluation
    """Of all M."""
    said: NDArray[np.int8]
    """int8[N]."""
    confidence: NDArray[np.float64]
    """float64[M], NaN where no digit was said."""
    right: NDArray[np.bool_]
    """bool[M]."""
    unproven: str
    """Why no threshold keeps the target error; empty where one does, or was given."""


def score(data: Labelled, model: Bundle, settings: ModelSettings) -> Score:
    """Predict labelled images, and compare; they are judged as the folder of a run would be."""
    with Predictor(model, batch_size=_BATCH, runtime=settings.runtime) as predictor:
        logits = predictor(data.pixels)
    decided = decide_calibrated(logits, data.ink, model.calibration, threshold=0.0)
    folder, trust, unproven = Folder(), None, ""
    folder.add(decided)
    try:
        trust = judge(folder, model.calibration, settings.target_error, given=settings.threshold)
    except UsageError as error:
        unproven = str(error)
    unread = len(data.unread)
    predicted = np.concatenate([decided.digit, np.full(unread, NO_DIGIT, np.int8)])
    true = np.concatenate([data.labels, np.array([label for _, _, label in data.unread], np.int8)])
    confidence = np.concatenate([decided.confidence, np.full(unread, np.nan)])
    may_be_ok = np.concatenate([decided.may_be_ok, np.zeros(unread, np.bool_)])
    threshold = trust.threshold if trust else None
    result = compare(predicted, true, confidence, threshold=threshold, may_be_ok=may_be_ok)
    if trust:
        result = replace(result, promised_error=trust.promised, expected_error=trust.expected)
    return Score(result, decided.digit, confidence, predicted == true, unproven)


def draw(output: Path, score: Score) -> None:
    """Write the confusion matrix, as picture and table, the reliability diagram and the risk-coverage curve."""
    plots.heatmap(score.result, output / "confusion.png")
    write_text(output / "confusion.csv", confusion_csv(score.result))
    plots.reliability_diagram(score.confidence, score.right, output / "reliability.png")
    threshold = score.result.selected.threshold if score.result.selected else None
    plots.risk_coverage_curve(score.confidence, score.right, output / "risk_coverage.png", threshold=threshold)


def _said(digit: int) -> str:
    return "none" if digit == NO_DIGIT else str(digit)


def made_folder(path: Path) -> Path:
    """Make a folder unless it is there.

    Raises:
        StorageError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The output folder {escaped(str(path))} cannot be made: {error.strerror}; choose another."
        raise StorageError(message) from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write a text so that it appears whole or not at all.

    Raises:
        StorageError: It cannot be written.
    """
    with atomic_write(path) as file:
        file.write(text.encode())

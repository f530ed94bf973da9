"""The training job and the evaluation: settings in; a bundle, metrics and pictures out."""

import importlib.metadata
import json
import logging
import math
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batchdigits import bundle
from batchdigits.bundle import Bundle
from batchdigits.decisions import BLANK, NOT_A_DIGIT, decide
from batchdigits.errors import StorageError, UsageError, shown
from batchdigits.files import atomic_write
from batchdigits.normalisation import GreyImage, InkImages, normalise
from batchdigits.predictor import Predictor
from batchdigits.settings import Arch, EvaluateSettings, NormalisationSettings, TrainSettings
from batchdigits.training import datasets, pictures, shipped
from batchdigits.training.augmentation import vary
from batchdigits.training.datasets import Labelled
from batchdigits.training.evaluation import NO_DIGIT, Evaluation, as_json, confusion_csv, interval_text, percent
from batchdigits.training.evaluation import evaluate as compare
from batchdigits.training.fitting import fit, recipe
from batchdigits.training.negatives import negatives
from batchdigits.training.shipped import Labels

log = logging.getLogger(__name__)

_BATCH = 256
_BLANKS = 4000  # pages without a digit that training sees an epoch
_LEAST_IMAGES = 3000  # of each set of the package; a smaller one is repeated, so that its handwriting has weight
_COLUMNS = 12  # of the picture of simulated scans
_GATE = 0.8  # by tests/benchmarks/accuracy.py: so few true digits are refused that more would gain no blank page
_LIBRARIES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pillow")


def train(settings: TrainSettings) -> Bundle:
    """Train a model and write its bundle.

    `settings.output` receives `model.keras` and `bundle.json`; beside them `samples.png`, `simulated.png`,
    `history.jsonl`, `learning_curves.png`, `metrics.json`, `confusion.csv`, `confusion.png`, and `checkpoints/` for
    `--resume`.

    Raises:
        UsageError: The data have wrong labels, or too few images.
        StorageError: The data do not exist, or the output cannot be written.
    """
    output = _folder(settings.output)
    normalisation = NormalisationSettings()
    data = datasets.join([datasets.read(source, normalisation, part="train") for source in settings.data])
    data = _with_ink(data)
    _describe(data, output / "samples.png")
    training, validation = datasets.split(data, share=settings.validation_share, seed=settings.seed)
    if not len(training) or not len(validation):
        message = f"{len(data)} labelled images are too few to train and to validate on; expected at least 20."
        raise UsageError(message)

    if settings.arch is not Arch.DENSE:
        _simulate(training, output / "simulated.png", settings.seed)
    pixels, labels = _with_negatives(_repeated(training), settings)
    model = fit(pixels, labels, validation.pixels, validation.labels, settings)
    model.save(output / "model.keras")
    gate = 1.0 if settings.arch is Arch.DENSE else _GATE
    made = bundle.save(output, normalisation=normalisation, temperature=1.0, gate=gate, provenance={})

    parts = {"validation": validation}
    for source in settings.data:
        if source in shipped.NAMES:  # the one look at the test half
            parts[f"{source}_test"] = datasets.read(source, normalisation, part="test")
    results = {name: _score(part, made)[0] for name, part in parts.items()}
    for name, result in results.items():
        log.info("%s: %s of %d right, %s", name, percent(result.accuracy), result.count, interval_text(result))
    metrics = {name: as_json(result) for name, result in results.items()}
    _write(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    _pictures(output, results.get("mnist_test", results["validation"]))
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    pictures.learning_curves(history, output / "learning_curves.png")
    provenance = _provenance(settings, training, validation, results)
    return bundle.save(output, normalisation=normalisation, temperature=1.0, gate=gate, provenance=provenance)


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure a model on labelled data.

    `settings.output` receives `metrics.json`, `confusion.csv`, `confusion.png` and `mistakes.png`.

    Raises:
        UsageError: The data have wrong labels.
        StorageError: The data do not exist, or the output cannot be written.
        BundleError: The model cannot be used.
    """
    output = _folder(settings.output)
    model = bundle.load(settings.model)
    data = datasets.read(settings.source, model.normalisation, part="test")
    result, said = _score(data, model)
    _write(output / "metrics.json", json.dumps(as_json(result), indent=2) + "\n")
    _pictures(output, result)
    wrong = np.flatnonzero(said != data.labels)
    captions = [f"said {_said(said[row])}, true {data.labels[row]}" for row in wrong]
    title = f"{len(wrong)} mistakes of {len(data)}: what the model saw"
    pictures.contact_sheet(data.pixels[wrong], captions, output / "mistakes.png", title=title)
    for name, fault, _ in data.unread:
        log.warning("%s was not read and counts as a mistake: %s", name, fault)
    return result


def _score(data: Labelled, model: Bundle) -> tuple[Evaluation, Any]:
    """Predict labelled images: the evaluation, and int8[N], what was said of each that was read."""
    with Predictor(model, batch_size=_BATCH) as predictor:
        logits = predictor(data.pixels)
    decided = decide(logits, data.ink, threshold=0.0, temperature=model.temperature, gate=model.gate)
    unread = len(data.unread)
    predicted = np.concatenate([decided.digit, np.full(unread, NO_DIGIT, np.int8)])
    true = np.concatenate([data.labels, np.array([label for _, _, label in data.unread], np.int8)])
    confidence = np.concatenate([decided.confidence, np.full(unread, np.nan)])
    return compare(predicted, true, confidence), decided.digit


def _with_negatives(training: Labelled, settings: TrainSettings) -> tuple[InkImages, Labels]:
    """Add what the outputs beyond the ten digits learn from: images without a digit, and without ink."""
    if settings.arch is Arch.DENSE:
        return training.pixels, training.labels
    others = negatives(training.pixels, np.random.default_rng(settings.seed))
    blank = np.zeros((_BLANKS, *others.shape[1:]), np.uint8)
    labels = np.repeat(np.array([NOT_A_DIGIT, BLANK], np.int8), [len(others), len(blank)])
    return np.concatenate([training.pixels, others, blank]), np.concatenate([training.labels, labels])


def _repeated(training: Labelled) -> Labelled:
    """Repeat the images of the package's small sets."""
    sets = [name.split()[0] for name in training.names]
    times = {name: math.ceil(_LEAST_IMAGES / sets.count(name)) for name in set(sets) & set(shipped.NAMES)}
    return training.take(np.repeat(np.arange(len(training)), [times.get(name, 1) for name in sets]))


def _with_ink(data: Labelled) -> Labelled:
    """Leave out what cannot teach: images that were not read, and those without ink."""
    inked = np.flatnonzero(data.ink[:, 0] > 0)
    left_out = len(data) - len(inked) + len(data.unread)
    if left_out:
        log.warning("%d images are left out of training: they could not be read, or hold no ink.", left_out)
    return data.take(inked)


def _describe(data: Labelled, path: Path) -> None:
    """Say what the data are, and draw some of them."""
    counts = np.bincount(data.labels, minlength=10)
    log.info("images %s %s, labels %s %s", data.pixels.dtype, data.pixels.shape, data.labels.dtype, data.labels.shape)
    log.info("images a class: %s", ", ".join(f"{digit}: {count}" for digit, count in enumerate(counts)))
    pictures.sample_grid(data.pixels, data.labels, path)
    log.info("labelled samples: %s", path)


def _simulate(training: Labelled, path: Path, seed: int) -> None:
    """Draw some of the digits, a simulated scan of each, and what the network sees of it."""
    rng = np.random.default_rng(seed)
    digits = training.pixels[rng.permutation(len(training))[: 2 * _COLUMNS]]
    pages = vary(digits, rng, clean_share=0)
    rng.shuffle(order := list(range(len(pages))))  # the simulator gives small pages first
    seen = normalise(pages).pixels
    kinds: dict[str, Sequence[GreyImage]] = {"digit": list(digits), "simulated scan": pages, "what is seen": list(seen)}
    bands = order[:_COLUMNS], order[_COLUMNS:]
    images = [kind[row] for band in bands for kind in kinds.values() for row in band]
    captions = [name for band in bands for name in kinds for _ in band]
    title = "Digits, simulated scans of them, and what the network sees of these"
    pictures.contact_sheet(images, captions, path, columns=_COLUMNS, title=title)


def _pictures(output: Path, result: Evaluation) -> None:
    pictures.heatmap(result, output / "confusion.png")
    _write(output / "confusion.csv", confusion_csv(result))


def _provenance(
    settings: TrainSettings, training: Labelled, validation: Labelled, results: dict[str, Evaluation]
) -> dict[str, Any]:
    return {
        "recipe": recipe(settings),
        "data": {source: datasets.fingerprint(source) for source in settings.data},
        "images": {"training": len(training), "validation": len(validation)},
        "metrics": {name: as_json(result) for name, result in results.items()},
        "versions": {name: importlib.metadata.version(name) for name in ("batchdigits", *_LIBRARIES)},
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """The commit of the checkout that this code stands in, with `+` where files differ from it; None without one."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", here.parent], cwd=here, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.returncode else "")


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"The output folder {shown(str(path))} cannot be made: {error.strerror}; choose another."
        raise StorageError(message) from error
    return path


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _said(digit: int) -> str:
    return "none" if digit == NO_DIGIT else str(digit)

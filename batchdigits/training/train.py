"""The training job and the evaluation: settings in; a bundle, metrics and pictures out."""

import importlib.metadata
import json
import logging
import math
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from batchdigits.errors import UsageError
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.calibration import Calibration
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import BLANK, NOT_A_DIGIT, GreyImage, InkImages, Labels
from batchdigits.settings import Arch, EvaluateSettings, NormalisationSettings, TrainSettings
from batchdigits.training import export as exporting
from batchdigits.training import finetuning as tuning
from batchdigits.training.calibration import calibrate
from batchdigits.training.datasets import labelled as datasets
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.negatives import negatives
from batchdigits.training.evaluation import plots as pictures
from batchdigits.training.evaluation.evaluate import draw, made_folder, provable_threshold, score, write_text
from batchdigits.training.evaluation.metrics import Evaluation, as_json, interval_text, percent
from batchdigits.training.trainer import check_output, fit, load_model, recipe

log = logging.getLogger(__name__)

_BLANKS = 4000  # pages without a digit that training sees an epoch
_LEAST_IMAGES = 3000  # of each set of the package; a smaller one is repeated, so that its handwriting has weight
_COLUMNS = 12  # of the picture of simulated scans
_GATE = 0.8  # by tests/benchmarks/accuracy.py: so few true digits are refused that more would gain no blank page
_GOLDEN = 2048  # images of the validation part that both runtimes have to read alike
_LIBRARIES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pillow")


def train(settings: TrainSettings) -> Bundle:
    """Train a model and write its bundle.

    `settings.output` receives `model.keras`, `model.tflite` and `bundle.json`; beside them `samples.png`,
    `simulated.png`, `history.jsonl`, `learning_curves.png`, `metrics.json`, `confusion.csv`, `confusion.png`,
    `reliability.png`, `risk_coverage.png`, and `checkpoints/` for `--resume`.

    Raises:
        UsageError: The data have wrong labels, or too few images; or the output holds a training.
        StorageError: The data do not exist, or the output cannot be written.
    """
    base = tuning.load(settings)
    if base:
        settings = tuning.settled(settings, base)
    check_output(settings)
    if not settings.data and not base:
        settings = replace(settings, data=(shipped.MNIST,))
    output = made_folder(settings.output)
    normalisation = NormalisationSettings()
    if base:
        lesson = tuning.lesson(settings, base)
        training, validation, held = lesson.training, lesson.validation, lesson.held
    else:
        data = datasets.join([datasets.read(source, normalisation, part="train") for source in settings.data])
        data = _with_ink(data)
        _describe(data, output / "samples.png")
        training, validation = datasets.split(data, share=settings.validation_share, seed=settings.seed)
        held = data.take(np.zeros(0, np.int64))
    if not len(training) or not len(validation):
        count = len(training) + len(validation)
        message = f"{count} labelled images are too few to train and to validate on; expected at least 20."
        raise UsageError(message)

    if settings.arch is not Arch.DENSE:
        _simulate(training, output / "simulated.png", settings.seed)
    pixels, labels = _with_negatives(_repeated(training), settings)
    model = fit(pixels, labels, validation.pixels, validation.labels, settings)
    kept = tuning.blend(model, load_model(base), validation) if base else 1.0
    model.save(output / "model.keras")
    exporting.export(model, output)
    gate = 1.0 if settings.arch is Arch.DENSE else _GATE
    raw = bundle.save(output, normalisation=normalisation, calibration=Calibration(1.0, gate), provenance={})
    calibration = calibrate(raw, datasets.join([validation, held]), seed=settings.seed)
    made = bundle.save(output, normalisation=normalisation, calibration=calibration, provenance={})
    exporting.check(made, validation.pixels[:_GOLDEN])

    parts = {"validation": validation, **({"held_out": held} if len(held) else {})}
    threshold = provable_threshold(made, EvaluateSettings(source=""))
    ours = list(parts)
    for source in settings.data:
        if source in shipped.NAMES:  # the one look at the test half
            parts[f"{source}_test"] = datasets.read(source, normalisation, part="test")
    scores = {name: score(part, made, threshold) for name, part in parts.items()}
    results = {name: score.result for name, score in scores.items()}
    before = _compare(base, {name: parts[name] for name in ours}, results, kept) if base else {}
    for name, result in results.items():
        log.info("%s: %s of %d right, %s", name, percent(result.accuracy), result.count, interval_text(result))
    metrics = {name: as_json(result) for name, result in (results | before).items()}
    write_text(output / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    draw(output, scores.get("mnist_test", scores["validation"]))
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    if history:
        pictures.learning_curves(history, output / "learning_curves.png")
    provenance = _provenance(settings, base, training, validation, results)
    return bundle.save(output, normalisation=normalisation, calibration=calibration, provenance=provenance)


def _compare(
    base: Bundle, parts: dict[str, Labelled], results: dict[str, Evaluation], kept: float
) -> dict[str, Evaluation]:
    """Say what a bundle that went on learning reads now, and what it read before; give the latter."""
    found = {}
    log.info("of what was learnt, %.0f%% are kept, so that MNIST is read as well as before", 100 * kept)
    for name, part in parts.items():
        before, after = score(part, base, None).result, results[name]
        found[f"{name}_before"] = before
        log.info(
            "%s: %s right before, %s after, of %d; %s",
            name,
            percent(before.accuracy),
            percent(after.accuracy),
            after.count,
            interval_text(after),
        )
    return found


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
    inked = datasets.inked(data)
    left_out = len(data) - len(inked) + len(data.unread)
    if left_out:
        log.warning("%d images are left out of training: they could not be read, or hold no ink.", left_out)
    return inked


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


def _provenance(
    settings: TrainSettings,
    base: Bundle | None,
    training: Labelled,
    validation: Labelled,
    results: dict[str, Evaluation],
) -> dict[str, Any]:
    made_by = recipe(settings)
    before: dict[str, Any] = {}
    if base:  # what is learnt from next is split as it was
        made_by["data"] = base.provenance["recipe"]["data"]
        new = [source for source in settings.data if source not in made_by["data"]]
        before = {"base": base.provenance, "learnt": {source: datasets.fingerprint(source) for source in new}}
    return {
        "recipe": made_by,
        **before,
        "data": {source: datasets.fingerprint(source) for source in made_by["data"]},
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

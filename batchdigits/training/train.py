"""Train a model: read the data, fit, calibrate, measure, and write the bundle. The training job's order of stages."""

import importlib.metadata
import json
import logging
import math
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.errors import BundleError, UsageError, escaped
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.inference.runtimes import InkFinder, quickest
from batchdigits.inference.thresholds import Calibration
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import GreyImage
from batchdigits.settings import Arch, ModelSettings, NormalisationSettings, Runtime, TrainSettings
from batchdigits.storage.atomic import atomic_write
from batchdigits.training import export, finetuning
from batchdigits.training.calibration import calibrate
from batchdigits.training.datasets import labelled, shipped
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.simulated import SimulatedInk, read_simulated
from batchdigits.training.datasets.simulator.hands import sources
from batchdigits.training.datasets.simulator.pages import simulate
from batchdigits.training.evaluation import plots
from batchdigits.training.evaluation.evaluate import draw, made_folder, score, write_text
from batchdigits.training.evaluation.metrics import Evaluation, as_json, interval_text, percent
from batchdigits.training.finder import fit_finder, golden_looks
from batchdigits.training.loop import check_output, epochs_of, recipe
from batchdigits.training.trainer import fit, load_model

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

_FEWEST_PAGES = 2000  # that a model is calibrated on, by writers who are left out of training
_VALIDATED = 5  # pages that are trained on for each of them
_TIMES = 3  # that each digit is seen in an epoch, varied anew
_LEAST_IMAGES = 3000  # of each set of the package; a smaller one is repeated, so that its handwriting has weight
_COLUMNS = 12  # of the picture of simulated scans
_GATE = 0.9  # of the development sets, one digit in 595 is refused there, and at 0.8 four are
_GOLDEN = 2048  # images of the validation part that both runtimes have to read alike
_LIBRARIES = ("tensorflow", "keras", "numpy", "opencv-python-headless", "pillow")


def train(settings: TrainSettings) -> Bundle:
    """Train a model and write its bundle.

    `settings.output` receives the networks' files and `bundle.json`; beside them `samples.png`,
    `history.jsonl`, `learning_curves.png`, `metrics.json`, `confusion.csv`, `confusion.png`, `reliability.png`,
    `risk_coverage.png`, and `checkpoints/` for `--resume`.

    Raises:
        UsageError: The data have wrong labels, or too few images; or the output holds a training.
        StorageError: The data do not exist, or the output cannot be written.
        BundleError: The ink finder cannot be used.
    """
    base = finetuning.load_base(settings)
    if base:
        settings = finetuning.inherited(settings, base)
    if not settings.data and not base:
        settings = replace(settings, data=(shipped.MNIST,))
    check_output(settings)
    made_folder(settings.output)
    _copy_network(Network.FINDER, settings.finder or (base.directory if base else bundle.PACKAGED), settings.output)
    data = _read(settings, base)
    model = _fit(data, settings)
    kept = finetuning.blend(model, load_model(base), data.validation) if base else 1.0
    export.export(model, settings.output, Network.READER)
    _copy_teacher(settings, base)
    made = _calibrated(data, settings)
    results = _measured(made, data, base, kept)
    provenance = _provenance(settings, base, data, results)
    return bundle.save(
        settings.output, normalisation=made.normalisation, calibration=made.calibration, provenance=provenance
    )


class _Data(NamedTuple):
    """What a network learns from, and what only measures it."""

    training: Labelled
    """What it learns from."""
    validation: Labelled
    """Of the same sources; never learnt from."""
    holdout: Labelled
    """Of what a bundle goes on learning from, for calibration and measuring; else empty."""
    tests: dict[str, Labelled]
    """Test halves by name, at which there is one look, at the end."""
    others: Labelled | None
    """By writers whom no training sees, for calibration; None for the tutorial's network."""


def _read(settings: TrainSettings, base: Bundle | None) -> _Data:
    """Read all data through the finder that stands in the output, as prediction will.

    Raises:
        UsageError: Labels are wrong, or the images too few.
        StorageError: Data do not exist.
    """
    normalisation = NormalisationSettings()
    with SharedFinder(settings.output, quickest(settings.output)) as network:
        if base:
            training, validation, holdout = finetuning.fine_tuning_data(settings, base, network)
        else:
            read = [labelled.read(source, network, normalisation, part="train") for source in settings.data]
            data = _with_ink(labelled.join(read))
            _describe(data, settings.output / "samples.png")
            training, validation = labelled.split(data, share=settings.validation_share, seed=settings.seed)
            holdout = data.take(np.zeros(0, np.int64))
        tests = {
            f"{source}_test": labelled.read(source, network, normalisation, part="test")
            for source in settings.data
            if source in shipped.NAMES
        }
        others = None if settings.arch is Arch.DENSE else labelled.left_out(network, normalisation)
    if not len(training) or not len(validation):
        count = len(training) + len(validation)
        message = f"{count} labelled images are too few to train and to validate on; expected at least 20."
        raise UsageError(message)
    return _Data(training, validation, holdout, tests, others)


def _fit(data: _Data, settings: TrainSettings) -> "keras.Model":
    """Let the network learn; the tutorial's sees the digits alone, each once an epoch."""
    if settings.arch is Arch.DENSE:
        return fit(data.training, None, data.validation, settings)
    learns_pages = epochs_of(settings) > 0 and settings.pages > 0
    pages = _pages(settings, data.training, "train") if learns_pages else None
    return fit(_repeated(data.training), pages, data.validation, settings)


def _copy_teacher(settings: TrainSettings, base: Bundle | None) -> None:
    """Put into the bundle the teacher that it is to ask where it is unsure, or none."""
    if settings.teacher:
        _copy_network(Network.READER, settings.teacher, settings.output, into=Network.TEACHER)
    elif base and base.has(Network.TEACHER):
        _copy_network(Network.TEACHER, base.directory, settings.output)
    else:
        _remove_network(Network.TEACHER, settings.output)


def _calibrated(data: _Data, settings: TrainSettings) -> Bundle:
    """Make a bundle of the networks in the output, calibrated on what they never learnt from.

    Raises:
        BatchDigitsError: The two runtimes do not read alike.
    """
    is_dense = settings.arch is Arch.DENSE
    uncalibrated = Calibration(1.0, 1.0 if is_dense else _GATE)
    raw = bundle.save(settings.output, normalisation=NormalisationSettings(), calibration=uncalibrated, provenance={})
    pages = None if is_dense else _pages(settings, data.validation, "test")
    calibration = calibrate(raw, labelled.join([data.validation, data.holdout]), pages, data.others)
    made = bundle.save(settings.output, normalisation=raw.normalisation, calibration=calibration, provenance={})
    export.check(made, data.validation.pixels[:_GOLDEN])
    return made


def _measured(made: Bundle, data: _Data, base: Bundle | None, kept: float) -> dict[str, Evaluation]:
    """Measure a bundle, beside the one that it went on from, and write and draw what was measured.

    Args:
        made: The bundle.
        data: What it is measured on.
        base: What it went on from.
        kept: The share of what was learnt that it has, 0 to 1.
    """
    ours = {"validation": data.validation, **({"held_out": data.holdout} if len(data.holdout) else {})}
    scores = {name: score(part, made, ModelSettings()) for name, part in (ours | data.tests).items()}
    results = {name: score.result for name, score in scores.items()}
    before = _compare(base, ours, results, kept) if base else {}
    for name, result in results.items():
        log.info("%s: %s of %d right, %s", name, percent(result.accuracy), result.count, interval_text(result))
    metrics = {name: as_json(result) for name, result in (results | before).items()}
    write_text(made.directory / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    draw(made.directory, scores.get("mnist_test", scores["validation"]))
    _draw_history(made.directory)
    return results


def _compare(
    base: Bundle, parts: dict[str, Labelled], results: dict[str, Evaluation], kept: float
) -> dict[str, Evaluation]:
    """Say what a bundle that went on learning reads now, and what it read before; give the latter."""
    found = {}
    log.info("of what was learnt, %.0f%% are kept, so that MNIST is read as well as before", 100 * kept)
    for name, part in parts.items():
        before, after = score(part, base, ModelSettings()).result, results[name]
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


def train_finder(settings: TrainSettings) -> None:
    """Train the ink finder.

    `settings.output` receives `finder.keras` and `finder.tflite`; beside them `simulated.png`, `history.jsonl`,
    `learning_curves.png`, and `checkpoints/` for `--resume`.

    Raises:
        StorageError: The output cannot be written.
    """
    check_output(settings)
    output = made_folder(settings.output)
    model = fit_finder(settings)
    export.export(model, output, Network.FINDER)
    export.check_finder(output, golden_looks(settings.seed))
    _draw_simulated(output, settings.seed)
    _draw_history(output)


def _copy_network(network: Network, folder: Path, output: Path, *, into: Network | None = None) -> None:
    """Copy a network of another bundle, or the ink finder that stands alone.

    Args:
        network: Which one.
        folder: Where it stands.
        output: The bundle that gets it.
        into: What it becomes there; None: the same.

    Raises:
        BundleError: There is none.
    """
    if not (folder / network.file(Runtime.KERAS)).is_file():
        name = network.file(Runtime.KERAS)
        message = f"The folder {escaped(str(folder))} holds no {name}; train one with --arch {network.value}."
        raise BundleError(message)
    if folder.resolve() == output.resolve():
        return
    _remove_network(into or network, output)
    for runtime in Runtime:
        if (made := folder / network.file(runtime)).is_file():
            with atomic_write(output / (into or network).file(runtime)) as file:
                file.write(made.read_bytes())


def _remove_network(network: Network, output: Path) -> None:
    """Take away what an earlier training left."""
    for runtime in Runtime:
        (output / network.file(runtime)).unlink(missing_ok=True)


def _pages(settings: TrainSettings, digits: Labelled, part: str) -> SimulatedInk:
    """Read simulated pages on which MNIST's digits, where they are learnt from, are those of one part alone."""
    rows = {int(name.split()[-1]) for name in digits.names if name.startswith(f"{shipped.MNIST} train ")}
    unseen = part == "test"
    return read_simulated(
        max(_FEWEST_PAGES, settings.pages // _VALIDATED) if unseen else settings.pages,
        finder=settings.output,
        normalisation=NormalisationSettings(),
        part=part,
        seed=settings.seed + unseen,
        mnist_rows=np.array(sorted(rows), np.intp) if rows else None,
        kept_in=[settings.output / "checkpoints", *([settings.teacher / "checkpoints"] if settings.teacher else [])],
        progress=settings.progress,
    )


def _repeated(training: Labelled) -> Labelled:
    """Repeat all images, and more often those of the package's small sets."""
    sets = [name.split()[0] for name in training.names]
    times = {name: math.ceil(_LEAST_IMAGES / sets.count(name)) for name in set(sets) & set(shipped.NAMES)}
    return training.take(np.repeat(np.arange(len(training)), [max(_TIMES, times.get(name, 1)) for name in sets]))


def _with_ink(data: Labelled) -> Labelled:
    """Leave out what cannot teach: images that were not read, and those without ink."""
    inked = labelled.inked(data)
    left_out = len(data) - len(inked) + len(data.unread)
    if left_out:
        log.warning("%d images are left out of training: they could not be read, or hold no ink.", left_out)
    return inked


def _describe(data: Labelled, path: Path) -> None:
    """Say what the data are, and draw some of them."""
    counts = np.bincount(data.labels, minlength=10)
    log.info("images %s %s, labels %s %s", data.pixels.dtype, data.pixels.shape, data.labels.dtype, data.labels.shape)
    log.info("images a class: %s", ", ".join(f"{digit}: {count}" for digit, count in enumerate(counts)))
    plots.sample_grid(data.pixels, data.labels, path)
    log.info("labelled samples: %s", path)


def _draw_history(output: Path) -> None:
    """Draw how the epochs of a run went, if there were any."""
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    if history:
        plots.learning_curves(history, output / "learning_curves.png")


def _draw_simulated(output: Path, seed: int) -> None:
    """Draw some simulated pages, and the ink that is found on each."""
    rng = np.random.default_rng(seed)
    written = sources("test")
    pages = [simulate(written, rng).grey for _ in range(2 * _COLUMNS)]
    with InkFinder(output, runtime=quickest(output)) as network:
        seen = normalise(pages, network).pixels
    kinds: dict[str, Sequence[GreyImage]] = {"simulated page": pages, "what is read": list(seen)}
    bands = slice(None, _COLUMNS), slice(_COLUMNS, None)
    images = [image for band in bands for kind in kinds.values() for image in kind[band]]
    captions = [name for _ in bands for name in kinds for _ in range(_COLUMNS)]
    title = "Simulated pages, and what is found on them"
    plots.contact_sheet(images, captions, output / "simulated.png", columns=_COLUMNS, title=title)


def _provenance(
    settings: TrainSettings,
    base: Bundle | None,
    data: _Data,
    results: dict[str, Evaluation],
) -> dict[str, Any]:
    made_by = recipe(settings)
    before: dict[str, Any] = {}
    if base:  # what is learnt from next is split as it was
        made_by["data"] = base.provenance["recipe"]["data"]
        new = [source for source in settings.data if source not in made_by["data"]]
        before = {"base": base.provenance, "learnt": {source: labelled.fingerprint(source) for source in new}}
    return {
        "recipe": made_by,
        **before,
        "data": {source: labelled.fingerprint(source) for source in made_by["data"]},
        "images": {"training": len(data.training), "validation": len(data.validation)},
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

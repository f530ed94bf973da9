"""How far a model's confidences can be trusted, on sets that neither it nor its calibration has seen.

Make the table in one go: `python -m tests.benchmarks.calibration`, two minutes. Without `--final` it keeps away from
MNIST's test half. `--write` fits the bundle's calibration anew, as training does at its end, and stores it: what is
needed when calibration, normalisation or the format of bundles changes and the weights do not; ten minutes.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.errors import UsageError
from batchdigits.inference import bundle, drift
from batchdigits.inference import thresholds as risk
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.runtimes import quickest
from batchdigits.inference.thresholds import Calibration
from batchdigits.settings import NormalisationSettings
from batchdigits.training.calibration import calibrate
from batchdigits.training.datasets import labelled
from batchdigits.training.datasets.shipped import MNIST, mnist
from batchdigits.training.datasets.simulated import read_simulated
from batchdigits.training.evaluation.metrics import calibration_error
from batchdigits.training.finetuning import own_data
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import by_others
from tests.benchmarks.reading import DEFAULTS, PageSet, Reader
from tests.benchmarks.simulated_kinds import simulated_kinds

_TARGETS = (0.001, 0.002, 0.005, 0.01, 0.02)
_CALIBRATING = 2000  # simulated pages, where a recipe names none
_VALIDATED = 5  # pages that a model was trained on for each of them

Confidences = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""float64[N], NaN where no digit is said, and bool[N], whether it is right."""


def main(
    model: Annotated[Path | None, typer.Option(help="A bundle; the packaged one without.")] = None,
    pages: Annotated[int, typer.Option(min=1, help="Pages of each simulated kind.")] = 100,
    final: Annotated[bool, typer.Option("--final", help="Look at MNIST's test half, too.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Fit the bundle's calibration anew.")] = False,
) -> None:
    """Print the calibration error, and coverage and error at each target, set by set."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = fitted(model or bundle.PACKAGED) if write else bundle.load(model)
    terms = chosen.calibration
    print(f"Model {chosen.id[:12]}, temperature {terms.temperature}, gate {terms.gate}")
    print("\n| | images | ECE | drift | " + " | ".join(f"ok / wrong at {target:.1%}" for target in _TARGETS) + " |")
    print("| --- | ---: | ---: | ---: |" + " --- |" * len(_TARGETS))
    with Reader(chosen) as reader:
        simulated = [confidences(reader, some) for some in simulated_kinds(pages)]
        print_line("simulated pages, all kinds", pooled(simulated), chosen)
        real = []
        for some in real_sets():
            real.append(confidences(reader, some))
            print_line(some.name, real[-1], chosen)
        print_line("real sets, pooled", pooled(real), chosen)
        if final:
            images, labels = mnist("test")
            test_half = confidences(reader, PageSet("MNIST", list(images), labels))
            print_line("MNIST, test half", test_half, chosen)
    thresholds = ", ".join(f"{target:.1%}: {threshold_of(terms, target) or 'not proven'}" for target in _TARGETS)
    print(f"\nThresholds: {thresholds}; the default is {terms.threshold(DEFAULTS)}")


def fitted(folder: Path) -> Bundle:
    """Fit the calibration of a bundle, of this format or an older one, as its own training did, and store it."""
    card = json.loads((folder / "bundle.json").read_bytes())
    recipe, gate = card["provenance"]["recipe"], card["calibration"]["gate"]
    plain = Calibration(1.0, gate)
    model = bundle.save(folder, normalisation=NormalisationSettings(), calibration=plain, provenance=card["provenance"])
    with SharedFinder(folder, quickest(folder)) as network:
        _, validation = own_data(model, network)
        others = labelled.left_out(network, model.normalisation)
    rows = [int(name.split()[-1]) for name in validation.names if name.startswith(f"{MNIST} train ")]
    pages = read_simulated(
        max(_CALIBRATING, recipe.get("pages", 0) // _VALIDATED),
        finder=folder,
        normalisation=model.normalisation,
        part="test",
        seed=recipe["seed"] + 1,
        mnist_rows=np.array(sorted(rows), np.intp),
    )
    terms = calibrate(model, validation, pages, others)
    return bundle.save(folder, normalisation=model.normalisation, calibration=terms, provenance=model.provenance)


def real_sets() -> Iterator[PageSet]:
    """Give the test halves of the package, and the development sets that are there."""
    yield from (some for source in (by_others(), development_sets()) for some in source if isinstance(some, PageSet))


def confidences(reader: Reader, some: PageSet) -> Confidences:
    """Read the pages of one set."""
    found = reader(some.pages, some.full_resolution)
    return found.confidence, found.digit == some.labels


def pooled(parts: list[Confidences]) -> Confidences:
    """Put sets one after another."""
    return np.concatenate([sure for sure, _ in parts]), np.concatenate([right for _, right in parts])


def print_line(name: str, found: Confidences, model: Bundle) -> None:
    """Print a line of the table."""
    confidence, right = found
    terms = model.calibration
    index = drift.index(drift.histogram(confidence), terms.reference)
    cells = [f"{len(right):,}", f"{calibration_error(confidence, right):.2%}", "-" if index is None else f"{index:.2f}"]
    cells += [selected(confidence, right, threshold_of(terms, target) or np.inf) for target in _TARGETS]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def threshold_of(terms: Calibration, target: float) -> float | None:
    """Give the threshold of a target; None where the model cannot prove it."""
    try:
        return risk.loosest_threshold(target, terms.domains)
    except UsageError:
        return None


def selected(confidence: NDArray[np.float64], right: NDArray[np.bool_], threshold: float) -> str:
    """Say how many are ok at a threshold, and how many of these are wrong."""
    passed = confidence >= threshold
    return f"{passed.mean():.2%} / {(~right[passed]).mean():.2%}" if passed.any() else "0 / –"


if __name__ == "__main__":
    typer.run(main)

"""How far the shipped model's confidences can be trusted, on sets that neither it nor its calibration has seen.

Make the table in one go: `python tests/benchmarks/calibration.py`, two minutes. Without `--final` it keeps away from
MNIST's test half. `--write` fits the calibration of the packaged bundle anew, as training does at its end, and stores
it: what is needed when calibration or normalisation changes and the weights do not.
"""

from typing import Annotated

import numpy as np
import typer
from accuracy import DEFAULTS, handed_out, validation_part
from numpy.typing import NDArray

from batchdigits.inference import bundle, drift
from batchdigits.inference import calibration as risk
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import decide
from batchdigits.inference.runtimes import Predictor
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import GreyImage, Labels
from batchdigits.training.calibration import calibrate
from batchdigits.training.datasets.augmentation import vary
from batchdigits.training.datasets.shipped import mnist
from batchdigits.training.evaluation.metrics import calibration_error
from batchdigits.training.finetuning import own_data

_STACK = 512
_TARGETS = (0.001, 0.002, 0.005, 0.01, 0.02)
_SEED = 77  # of simulated scans; another than the calibration's own


def main(
    final: Annotated[bool, typer.Option("--final", help="Look at MNIST's test half, too.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Fit the packaged bundle's calibration anew.")] = False,
) -> None:
    """Print the calibration error, and coverage and error at each target, set by set."""
    model = bundle.load()
    if write:
        model = fitted(model)
    digits, normalised, labels = validation_part(model)
    scans = vary(normalised, np.random.default_rng(_SEED), clean_share=0)
    sets = [("simulated scans of the validation part", scans, labels), *handed_out()]
    if final:
        sets.append(("MNIST, test half", *map_first(mnist("test"))))
    terms = model.calibration
    print(f"Model {model.id[:12]}, temperature {terms.temperature}, gate {terms.gate}")
    found = {name: confidences(model, pages, true) for name, pages, true in sets}
    real = [pair for name, pair in found.items() if "MNIST" not in name and "simulated" not in name]
    found["handed-out real sets, pooled"] = tuple(np.concatenate(part) for part in zip(*real, strict=True))  # type: ignore[assignment]
    print("\n| | images | ECE | drift | " + " | ".join(f"ok / wrong at {target:.1%}" for target in _TARGETS) + " |")
    print("| --- | ---: | ---: | ---: |" + " --- |" * len(_TARGETS))
    for name, (confidence, right) in found.items():
        index = drift.index(drift.histogram(confidence), terms.reference)
        cells = [
            f"{len(right):,}",
            f"{calibration_error(confidence, right):.2%}",
            "-" if index is None else f"{index:.2f}",
        ]
        cells += [selected(confidence, right, risk.loosest_threshold(target, terms.risks)) for target in _TARGETS]
        print(f"| {name} | {' | '.join(cells)} |")
    thresholds = ", ".join(f"{target:.1%}: {risk.loosest_threshold(target, terms.risks)}" for target in _TARGETS)
    print(f"\nThresholds: {thresholds}; the default is {terms.threshold(DEFAULTS)}")


def fitted(model: Bundle) -> Bundle:
    """Fit a bundle's calibration on the validation part of its own training, and store it."""
    _, validation = own_data(model)
    terms = calibrate(model, validation, seed=model.provenance["recipe"]["seed"])
    return bundle.save(
        model.directory, normalisation=model.normalisation, calibration=terms, provenance=model.provenance
    )


def map_first(pair: tuple[NDArray[np.uint8], Labels]) -> tuple[list[GreyImage], Labels]:
    """Part a stack of images into pages."""
    return list(pair[0]), pair[1]


def confidences(model: Bundle, pages: list[GreyImage], labels: Labels) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read pages: float64[N], NaN where no digit is said, and bool[N], whether it is right."""
    terms = model.calibration
    confidence, right = [], []
    with Predictor(model, batch_size=_STACK) as predictor:
        for start in range(0, len(pages), _STACK):
            seen = normalise(pages[start : start + _STACK], model.normalisation)
            logits = predictor(seen.pixels)
            said = decide(logits, seen.ink, threshold=0.0, temperature=terms.temperature, gate=terms.gate)
            confidence.append(said.confidence)
            right.append(said.digit == labels[start : start + _STACK])
    return np.concatenate(confidence), np.concatenate(right)


def selected(confidence: NDArray[np.float64], right: NDArray[np.bool_], threshold: float) -> str:
    """Say how many are ok at a threshold, and how many of these are wrong."""
    passed = confidence >= threshold
    return f"{passed.mean():.2%} / {(~right[passed]).mean():.2%}"


if __name__ == "__main__":
    typer.run(main)

"""Fit the weights by which dark ink is told from light ink: `python tests/benchmarks/polarity_weights.py`.

The evidence for dark ink is weighed by two logistic regressions, on simulated scans and on simulated photos of
MNIST's training half, whose polarity is known. What it prints belongs into `_POLARITY_WEIGHTS` of
`batchdigits/preprocessing/polarity.py`, rounded to one decimal. The handed-out sets, and shaded copies of them, are not
fitted on.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from accuracy import handed_out
from no_digit import slope
from numpy.typing import NDArray
from printed import photographed

from batchdigits.preprocessing import polarity
from batchdigits.preprocessing.normalisation import DEFAULTS, normalise
from batchdigits.preprocessing.polarity import polarity_evidence
from batchdigits.records import GreyImage
from batchdigits.training.datasets import augmentation
from batchdigits.training.datasets.shipped import mnist

SEED = 1998
SCANS, PHOTOS = 12_000, 3_000  # to fit on; a third as many more are kept back
LIGHT_ON_DARK = ("USPS", "optdigits")  # the handed-out sets whose ink is light
PHOTOGRAPHED = "simulated photos, kept back"
RIDGE = 1e-3  # keeps weights finite where the evidence parts all pages
STEPS = 40  # of Newton's method, which needs some ten

Evidence = NDArray[np.float64]  # [N, 4], of photos [N, 2], above 0 for dark ink


def main() -> None:
    """Fit, and print how often the fitted and the present weights are wrong where the evidence decides."""
    digits = normalise(list(mnist("train")[0][: SCANS + SCANS // 3])).pixels
    photos = photographed(digits[: PHOTOS + PHOTOS // 3])
    fitted = [fit(evidence(scans(digits[:SCANS], SEED))), fit(evidence(photos[:PHOTOS], photo=True))]
    for name, some in zip(("cuts", "photos"), fitted, strict=True):
        print(f"weights of {name}: {', '.join(f'{weight:.2f}' for weight in some)}")
    weights = {"fitted": fitted, "in use": polarity._POLARITY_WEIGHTS}
    print(f"\n{'pages whose paper is uneven':40}{'pages':>7}" + "".join(f"{name:>10}" for name in weights))
    rng = np.random.default_rng(SEED)
    kept = {"simulated scans, kept back": scans(digits[SCANS:], SEED + 1), PHOTOGRAPHED: photos[PHOTOS:]}
    for name, pages, _ in handed_out():
        dark = [255 - page for page in pages] if name.startswith(LIGHT_ON_DARK) else pages
        kept |= {name: dark, f"{name}, shaded": [shaded(page, rng) for page in dark]}
    for name, pages in kept.items():
        kind = name == PHOTOGRAPHED
        found = evidence(pages, photo=kind)
        wrong = "".join(f"{np.mean(found @ some[kind] < 0):10.2%}" for some in weights.values()) if len(found) else ""
        print(f"{name:40}{len(found):7,}{wrong}")


def scans(digits: NDArray[np.uint8], seed: int) -> list[GreyImage]:
    """Simulate scans with dark ink: N pages uint8[H, W]; the evidence of a negative is the same but for its sign."""
    with patch.object(augmentation, "_LIGHT_ON_DARK", 0):
        return augmentation.vary(digits, np.random.default_rng(seed), clean_share=0)


def shaded(page: GreyImage, rng: np.random.Generator) -> GreyImage:
    """Throw a shadow with a soft or a sharp edge over a part of a page."""
    across = slope(*page.shape, rng) - rng.uniform(0.2, 0.8)
    shade = rng.uniform(0.1, 0.65) / (1 + np.exp(np.clip(-across / rng.choice([0.02, 0.1, 0.3]), -30, 30)))
    return np.asarray(page * (1 - shade), np.uint8)


def evidence(pages: Sequence[GreyImage], photo: bool = False) -> Evidence:
    """Collect the evidence that the normalisation gathers on its way: of cuts or photos whose paper is uneven only."""
    found = [np.zeros((0, len(polarity._POLARITY_WEIGHTS[photo])))]

    def listen(*some: NDArray[Any], photo: bool) -> Evidence:
        gathered[photo].append(polarity_evidence(*some, photo=photo))
        return gathered[photo][-1]

    gathered: dict[bool, list[Evidence]] = {photo: found, not photo: []}
    with patch.object(polarity, "polarity_evidence", listen):
        normalise(pages, replace(DEFAULTS, zoom_below=0))  # each page once
    return np.concatenate(found)


def fit(found: Evidence) -> NDArray[np.float64]:
    """Find the weights under which dark ink is likeliest, none of them below 0: a weight for each column.

    What would count against itself is no evidence: it is left out.
    """
    weights = np.zeros(found.shape[1])
    kept = np.ones(len(weights), np.bool_)
    while (fitted := by_newton(found[:, kept])).min() < 0:
        kept[np.flatnonzero(kept)[fitted < 0]] = False
    weights[kept] = fitted
    return weights


def by_newton(found: Evidence) -> NDArray[np.float64]:
    """Maximise the likelihood: a weight for each column."""
    weights = np.zeros(found.shape[1])
    for _ in range(STEPS):
        wrong = 1 / (1 + np.exp(found @ weights))
        gradient = wrong @ found / len(found) - RIDGE * weights
        curvature = (found.T * (wrong * (1 - wrong))) @ found / len(found) + RIDGE * np.eye(len(weights))
        weights = weights + np.linalg.solve(curvature, gradient)
    return weights


if __name__ == "__main__":
    main()

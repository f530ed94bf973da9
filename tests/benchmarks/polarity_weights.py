"""Fit the weights by which dark ink is told from light ink: `python -m tests.benchmarks.polarity_weights`.

The evidence for dark ink on small pages is weighed by a logistic regression, on simulated scans of MNIST's training
half, whose polarity is known. What it prints belongs into `_POLARITY_WEIGHTS` of `preprocessing/polarity.py`,
rounded to one decimal. The sets of real pages, and shaded copies of them, are not fitted on.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from batchdigits.preprocessing import polarity
from batchdigits.preprocessing.canvas import CANVAS_SIDES
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.preprocessing.polarity import polarity_evidence
from batchdigits.records import GreyImage
from batchdigits.training.datasets import augmentation
from batchdigits.training.datasets.shipped import mnist
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import by_others
from tests.benchmarks.reading import SEED, PageSet
from tests.networks import no_network

SCANS = 12_000  # to fit on; a third as many more are kept back
LIGHT_ON_DARK = ("ZIP", "optdigits")  # how the names of sets begin whose ink is light
RIDGE = 1e-3  # keeps weights finite where the evidence parts all pages
STEPS = 40  # of Newton's method, which needs some ten

Evidence = NDArray[np.float64]  # [N, 4], above 0 for dark ink


def main() -> None:
    """Fit, and print how often the fitted and the present weights are wrong where the evidence decides."""
    digits = normalise(list(mnist("train")[0][: SCANS + SCANS // 3]), no_network).pixels
    fitted = fit(evidence(scans(digits[:SCANS], SEED)))
    print(f"weights: {', '.join(f'{weight:.2f}' for weight in fitted)}")
    weights = {"fitted": fitted, "in use": np.array(polarity._POLARITY_WEIGHTS)}
    print(f"\n{'pages whose paper is uneven':40}{'pages':>7}" + "".join(f"{name:>10}" for name in weights))
    for name, pages in kept_back(digits[SCANS:]):
        found = evidence(pages)
        wrong = "".join(f"{np.mean(found @ some < 0):10.2%}" for some in weights.values()) if len(found) else ""
        print(f"{name:40}{len(found):7,}{wrong}")


def kept_back(digits: NDArray[np.uint8]) -> Iterator[tuple[str, list[GreyImage]]]:
    """Give pages that nothing is fitted on, their ink dark, each set also with a shadow."""
    rng = np.random.default_rng(SEED)
    yield "simulated scans, kept back", scans(digits, SEED + 1)
    for some in (some for source in (by_others(), development_sets()) for some in source):
        if not isinstance(some, PageSet):
            continue
        small = [page for page in some.pages if max(page.shape) <= CANVAS_SIDES[-1]]
        dark = [255 - page for page in small] if some.name.startswith(LIGHT_ON_DARK) else small
        if dark:
            yield some.name, dark
            yield f"{some.name}, shaded", [shaded(page, rng) for page in dark]


def scans(digits: NDArray[np.uint8], seed: int) -> list[GreyImage]:
    """Simulate scans with dark ink: pages uint8[H, W]; the evidence of a negative is the same but for its sign."""
    with patch.object(augmentation, "_LIGHT_ON_DARK", 0):
        pages = augmentation.vary(digits, np.random.default_rng(seed), clean_share=0)
    return [page for page in pages if max(page.shape) <= CANVAS_SIDES[-1]]


def shaded(page: GreyImage, rng: np.random.Generator) -> GreyImage:
    """Throw a shadow with a soft or a sharp edge over a part of a page."""
    y, x = np.mgrid[0 : page.shape[0], 0 : page.shape[1]]
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = (along - along.min()) / np.ptp(along) - rng.uniform(0.2, 0.8)
    shade = rng.uniform(0.1, 0.65) / (1 + np.exp(np.clip(-across / rng.choice([0.02, 0.1, 0.3]), -30, 30)))
    return np.asarray(page * (1 - shade), np.uint8)


def evidence(pages: Sequence[GreyImage]) -> Evidence:
    """Collect the evidence that the normalisation gathers on its way: of pages whose paper is uneven only."""
    found = [np.zeros((0, len(polarity._POLARITY_WEIGHTS)))]

    def listen(*some: NDArray[Any]) -> Evidence:
        found.append(polarity_evidence(*some))
        return found[-1]

    with patch.object(polarity, "polarity_evidence", listen):
        normalise(pages, no_network)
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

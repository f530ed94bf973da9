"""Calibrate a model on images that it was not trained on.

Clean images alone mislead: a network is surer of them than of pages. So digits by writers who are left out of training
count as well, each once: those of the package's sets, and simulated pages. They are kept apart by their kind, since a
threshold has to hold on each.
"""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from batchdigits.errors import UsageError
from batchdigits.inference import drift
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import MOST_STEPS, decide, evidence, probabilities, temperatures
from batchdigits.inference.folders import doubt_table
from batchdigits.inference.runtimes import Predictor
from batchdigits.inference.thresholds import (
    Calibration,
    Domain,
    Slope,
    prove,
    prove_doubt,
    threshold_table,
    tightest_target,
)
from batchdigits.records import DIGITS, NO_DIGIT, Fractions, InkImages, InkMeasures, Labels, Logits
from batchdigits.settings import PredictSettings
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.simulated import SimulatedInk

log = logging.getLogger(__name__)

OWN = "images of your own"
"""The domain of what came from folders, label files and answered reports."""
KIN = (
    *(OWN, "mnist", "optdigits", "hwd1000", "cc0_scans", "uji", "unipen", "pendigits"),
    *("cutout", "small", "tiny", "exam", "cell", "board", "old", "plain", "ruled", "photo"),
)
"""The domains, in an order in which neighbours are alike: the sets of digits, then the scenes of simulated pages."""
FEWEST = 3800
"""Digits of a domain that proves a target by itself: a quarter of them, with one mistake, just proves 0.5%."""

_BATCH = 512
_FIT = 5  # each fifth digit serves the temperature, so that the thresholds are tested on others
_COLDEST, _HOTTEST = 0.1, 10.0
_STEPS = 60  # of the search; each takes a third off
_NEWTON_STEPS = 30
_RIDGE = 1e-3  # what a slope costs, for each digit


class _Digits(NamedTuple):
    """N digits that calibrate a model."""

    logits: Logits
    ink: InkMeasures
    labels: Labels
    domain: NDArray[np.str_]
    """str[N], of `KIN`."""

    def take(self, rows: NDArray[np.bool_]) -> "_Digits":
        """Keep some."""
        return _Digits(self.logits[rows], self.ink[rows], self.labels[rows], self.domain[rows])


def calibrate(
    model: Bundle, validation: Labelled, pages: SimulatedInk | None, others: Labelled | None = None
) -> Calibration:
    """Fit the temperature, and count for each domain what each threshold lets pass and gets wrong.

    Args:
        model: Its gate stays as it is.
        validation: Normalised images that it was not trained on.
        pages: Simulated pages by writers that it was not trained on; those with one digit count.
        others: Further images by such writers.
    """
    digits = _predicted(model, validation, pages, others)
    gate = model.calibration.gate
    served = np.arange(len(digits.labels)) % _FIT == 0
    temperature, slopes = _fit(digits.take(served), gate)
    plain = Calibration(temperature, gate, slopes)
    tested = digits.take(~served)
    divided_by = temperatures(evidence(tested.logits, tested.ink), plain)
    decided = decide(tested.logits, tested.ink, threshold=0.0, temperature=divided_by, gate=gate)
    confidence = np.where(decided.may_be_ok, decided.confidence, np.nan)
    right = decided.digit == tested.labels
    domains = tuple(_counted(", ".join(names), confidence[rows], right[rows]) for names, rows in _merged(tested.domain))
    reference = tuple(drift.histogram(decided.confidence).tolist())
    made = Calibration(temperature, gate, slopes, domains, reference)
    _tell_cost(made, confidence, right)
    return made


def _predicted(model: Bundle, validation: Labelled, pages: SimulatedInk | None, others: Labelled | None) -> _Digits:
    """Ask the model about all digits that calibrate it."""
    parts: list[tuple[InkImages, InkMeasures, Labels, Sequence[str]]] = [
        (some.pixels, some.ink, some.labels, [_domain(name) for name in some.names])
        for some in (validation, others)
        if some
    ]
    if pages:
        single = pages.labels < DIGITS
        parts.append((pages.pixels[single], pages.ink[single], pages.labels[single], pages.scenes[single].tolist()))
    pixels, ink, labels = (np.concatenate([part[column] for part in parts]) for column in range(3))
    domain = np.array([name for part in parts for name in part[3]], np.str_)
    with Predictor(model, batch_size=_BATCH) as predictor:
        logits = predictor(pixels)
    inked = ink[:, 0] > 0
    return _Digits(logits, ink, labels, domain).take(inked)


def _domain(name: str) -> str:
    """Name the domain of an image by what messages call it, which for the package's sets begins with the set."""
    first = name.split(" ")[0]
    return first if first in KIN else OWN


def _merged(domain: NDArray[np.str_]) -> list[tuple[list[str], NDArray[np.bool_]]]:
    """Part digits into domains that are large enough; none is dropped.

    The rule: the smallest domain of fewer than `FEWEST` digits joins the smaller of its neighbours in `KIN`, until all
    are large enough or only one is left. It looks at counts alone, so that it cannot favour a result.

    Args:
        domain: str[N], of `KIN`.

    Returns:
        The names of each domain, and bool[N], which digits are its.
    """
    groups = [([name], int((domain == name).sum())) for name in KIN if (domain == name).any()]
    while len(groups) > 1 and (least := min(groups, key=lambda group: group[1]))[1] < FEWEST:
        at = groups.index(least)
        beside = min((to for to in (at - 1, at + 1) if 0 <= to < len(groups)), key=lambda to: groups[to][1])
        low, high = min(at, beside), max(at, beside)
        names, count = groups[low][0] + groups[high][0], groups[low][1] + groups[high][1]
        groups[low : high + 1] = [(names, count)]
    return [(names, np.isin(domain, names)) for names, _ in groups]


def _tell_cost(made: Calibration, confidence: Fractions, right: NDArray[np.bool_]) -> None:
    """Say what it costs that a threshold has to hold on each domain, at the default target."""
    target = PredictSettings(sources=()).target_error
    try:
        each, alone = prove(target, made.domains), prove(target, [_counted("all", confidence, right)])
    except UsageError as error:
        tightest = tightest_target(made.domains)
        best = f"The tightest target that they can prove is {tightest:.1%}." if tightest else "They can prove none."
        log.warning("%s %s", error, best)
        return
    log.info(
        "target error %.2f%%: from a confidence of %s, which «%s» decides, and %.1f%% are ok; for the mixture of all "
        "kinds it would be %s, and %.1f%%",
        100 * target,
        each.limit,
        each.domain,
        100 * (confidence >= each.limit).mean(),
        alone.limit,
        100 * (confidence >= alone.limit).mean(),
    )
    if own := prove_doubt(target, made.domains):
        passed = sum(counts.passed for domain in made.domains for counts in domain.doubts if counts.doubt == own.limit)
        log.info(
            "with a threshold for each kind, at a mean doubt of %.3f%%, which «%s» decides, %.1f%% are ok",
            100 * own.limit,
            own.domain,
            100 * passed / len(right),
        )


def _counted(name: str, confidence: Fractions, right: NDArray[np.bool_]) -> Domain:
    """Count what passes of one domain."""
    return Domain(name, len(right), threshold_table(confidence, right), doubt_table(confidence, right))


def _fit(digits: _Digits, gate: float) -> tuple[float, tuple[Slope, ...]]:
    """Fit the temperature, and how it follows the evidence; 1 and no slopes without any digit that passes."""
    said = decide(digits.logits, digits.ink, threshold=0.0, gate=gate).digit != NO_DIGIT
    logits, ink, labels, _ = digits.take(said)
    temperature = fit_temperature(logits, labels)
    if not len(labels):
        return temperature, ()
    seen = evidence(logits, ink)
    centres, spreads = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-6)
    inverse = fit_slopes(logits.astype(np.float64) / temperature, labels, (seen - centres) / spreads)
    slopes = tuple(
        Slope(round(float(centre), 4), round(-float(weight / spread), 6))
        for centre, weight, spread in zip(centres, inverse[1:], spreads, strict=True)
    )
    return round(temperature * math.exp(-inverse[0]), 4), slopes


def fit_slopes(logits: NDArray[np.float64], labels: Labels, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find how the inverse temperature has to follow the evidence, so that labels are likeliest, by Newton's method.

    Args:
        logits: float64[N, K], K >= 10.
        labels: int8[N], 0 to 9.
        evidence: float64[N, F], each column of mean 0 and spread 1.

    Returns:
        float64[1 + F]: weights of 1 and of each column, whose sum is the logarithm of the inverse temperature.
    """
    columns = np.concatenate([np.ones((len(labels), 1)), evidence], axis=1)
    weights = np.zeros(columns.shape[1])
    ridge = _RIDGE * len(labels)
    ten = logits[:, :DIGITS]
    true = ten[np.arange(len(labels)), labels]
    for _ in range(_NEWTON_STEPS):
        steps = columns @ weights
        inside = np.abs(steps) < MOST_STEPS  # beyond, nothing depends on the weights any more
        scale = np.exp(np.clip(steps, -MOST_STEPS, MOST_STEPS))
        shares = probabilities((ten * scale[:, None]).astype(np.float32))
        mean = (shares * ten).sum(axis=1)
        spread = np.maximum((shares * ten**2).sum(axis=1) - mean**2, 0)
        slope = columns.T @ ((mean - true) * scale * inside) + ridge * weights
        curve = (columns * (spread * scale**2 * inside)[:, None]).T @ columns + (ridge + 1e-6) * np.eye(len(weights))
        weights -= np.linalg.solve(curve, slope) / 2  # half of the step: the curve leaves out a part of its own
    return weights


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """Find the temperature that makes labels likeliest, by golden-section search; 1 without any.

    Args:
        logits: float32[N, K], K >= 10.
        labels: int8[N], 0 to 9.

    Source: temperature scaling: Guo, Pleiss, Sun, Weinberger, «On Calibration of Modern Neural Networks», ICML 2017.
    """
    if not len(labels):
        return 1.0

    def surprise(log_temperature: float) -> float:
        likely = probabilities(logits, temperature=math.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(likely, np.finfo(np.float64).tiny)).mean())

    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(_STEPS):
        first, second = high - golden * (high - low), low + golden * (high - low)
        low, high = (low, second) if surprise(first) < surprise(second) else (first, high)
    return round(math.exp((low + high) / 2), 4)

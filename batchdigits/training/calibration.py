"""Calibrate a model on images that it was not trained on.

Clean images alone mislead: a network is surer of them than of pages. So simulated pages by writers who are left out of
training count as well, each once.
"""

import math

import numpy as np

from batchdigits.inference import drift
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.calibration import Calibration, threshold_table
from batchdigits.inference.decisions import decide, probabilities
from batchdigits.inference.runtimes import Predictor
from batchdigits.records import DIGITS, NO_DIGIT, Labels, Logits
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.simulated import SimulatedInk

_BATCH = 512
_FIT = 5  # each fifth digit serves the temperature, so that the thresholds are tested on others
_COLDEST, _HOTTEST = 0.1, 10.0
_STEPS = 60  # of the search; each takes a third off


def calibrate(model: Bundle, validation: Labelled, pages: SimulatedInk | None) -> Calibration:
    """Fit the temperature, and count what each threshold lets pass and gets wrong.

    Args:
        model: Its gate stays as it is.
        validation: N normalised images that it was not trained on.
        pages: Simulated pages by writers that it was not trained on; those with one digit count.
    """
    pixels, ink, labels = validation.pixels, validation.ink, validation.labels
    if pages:
        digits = pages.labels < DIGITS
        pixels = np.concatenate([pixels, pages.pixels[digits]])
        ink, labels = np.concatenate([ink, pages.ink[digits]]), np.concatenate([labels, pages.labels[digits]])
    with Predictor(model, batch_size=_BATCH) as predictor:
        logits = predictor(pixels)

    gate = model.calibration.gate
    said = decide(logits, ink, threshold=0.0, gate=gate).digit != NO_DIGIT
    fits = np.arange(len(labels)) % _FIT == 0
    temperature = fit_temperature(logits[said & fits], labels[said & fits])
    tested = decide(logits[~fits], ink[~fits], threshold=0.0, temperature=temperature, gate=gate)
    risks = threshold_table(tested.confidence, tested.digit == labels[~fits])
    return Calibration(temperature, gate, risks, tuple(drift.histogram(tested.confidence).tolist()))


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

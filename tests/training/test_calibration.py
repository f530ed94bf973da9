"""Calibration: the temperature that makes labels likeliest, and the error of confidences."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest

from batchdigits.inference import bundle
from batchdigits.inference import thresholds as risk
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import EVIDENCE, probabilities
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import BLANK, NOT_A_DIGIT
from batchdigits.training import calibration as module
from batchdigits.training.calibration import FEWEST, KIN, OWN, calibrate, fit_slopes, fit_temperature
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.simulated import SimulatedInk
from batchdigits.training.evaluation.metrics import bins_of, calibration_error, risk_coverage
from tests.fake_model import FakePredictor, bundle_in, logits_of, no_network
from tests.sample_pages import digits


def drawn(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are as likely as these say once they are divided by a temperature."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 4, (count, 12)).astype(np.float32)
    shares = probabilities(logits, temperature=temperature).cumsum(axis=1)
    return logits, (shares < rng.random((count, 1))).sum(axis=1).clip(0, 9).astype(np.int8)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.03)


def test_without_labels_the_temperature_is_1() -> None:
    assert fit_temperature(np.zeros((0, 12), np.float32), np.zeros(0, np.int8)) == 1.0


def test_the_right_temperature_leaves_hardly_any_error_and_a_wrong_one_much() -> None:
    logits, labels = drawn(2.5)

    def error(temperature: float) -> float:
        shares = probabilities(logits, temperature=temperature)
        return calibration_error(shares.max(axis=1), shares.argmax(axis=1) == labels)

    assert error(2.5) < 0.01
    assert error(1.0) > 0.1


def test_the_error_is_the_mean_distance_over_bins_of_equal_count() -> None:
    confidence = np.array([0.9, 0.8, 0.6, np.nan, 0.7])
    right = np.array([True, True, False, True, False])
    counts, sure, hits = bins_of(confidence, right, bins=2)
    assert (counts.tolist(), sure.tolist(), hits.tolist()) == (
        [2, 2],
        [pytest.approx(0.65), pytest.approx(0.85)],
        [0, 1],
    )
    assert calibration_error(confidence, right, bins=2) == pytest.approx((0.65 + 0.15) / 2)
    assert math.isnan(calibration_error(np.array([np.nan]), np.array([True])))


def test_risk_is_followed_from_the_surest_to_all_and_what_was_not_said_is_never_covered() -> None:
    coverage, error = risk_coverage(np.array([0.5, 0.9, np.nan, 0.8]), np.array([False, True, False, True]))
    assert coverage.tolist() == [0.25, 0.5, 0.75]
    assert error.tolist() == pytest.approx([0, 0, 1 / 3])


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setattr(module, "Predictor", FakePredictor)
    return bundle_in(tmp_path_factory.mktemp("model"))


def labelled(count: int, name: str = "a.png") -> Labelled:
    pages = digits(count)
    seen = normalise(list(pages), no_network)
    return Labelled([name] * count, seen.pixels, seen.ink, (np.arange(count) % 10).astype(np.int8), [], [""] * count)


def simulated(count: int) -> SimulatedInk:
    """Pages of which each third shows no digit."""
    seen = normalise(list(digits(300)[-count:]), no_network)
    labels = np.arange(count, dtype=np.int8) % 10
    labels[::3], labels[::6] = NOT_A_DIGIT, BLANK
    return SimulatedInk(seen.pixels, seen.ink, labels, np.full(count, "photo"), np.ones(count, np.float32))


def test_a_calibration_counts_the_simulated_digits_too_and_none_that_served_the_temperature(made: Bundle) -> None:
    found = calibrate(made, labelled(100), simulated(90))
    assert found == calibrate(made, labelled(100), simulated(90))
    assert found.gate == made.calibration.gate
    (domain,) = found.domains  # so few digits are no domains of their own
    assert (domain.name, domain.digits) == (f"{OWN}, photo", 160 * 4 // 5)  # of 100 digits and of those on 60 pages
    loosest = domain.risks[-1]
    assert (loosest.threshold, loosest.passed) == (risk.THRESHOLDS[-1], domain.digits)
    assert sum(found.reference) == loosest.passed
    assert [counts.doubt for counts in domain.doubts] == list(risk.DOUBTS)
    assert len(found.slopes) == len(EVIDENCE)


def test_further_digits_by_writers_left_out_count_too(made: Bundle) -> None:
    (domain,) = calibrate(made, labelled(100), None, labelled(50, "pendigits test 3")).domains
    assert (domain.name, domain.digits) == (f"{OWN}, pendigits", 120)


def test_a_domain_that_is_too_small_joins_the_smaller_of_its_neighbours_and_none_is_dropped() -> None:
    sizes = {"mnist": FEWEST, "unipen": 900, "pendigits": 3000, "cutout": 5000, "old": 300, "photo": 9000}
    domain = np.repeat(list(sizes), list(sizes.values()))
    found = [(names, int(rows.sum())) for names, rows in module._merged(np.random.default_rng(2).permutation(domain))]
    assert found == [
        (["mnist"], FEWEST),
        (["unipen", "pendigits"], 3900),
        (["cutout", "old"], 5300),
        (["photo"], 9000),
    ]
    assert module._merged(np.array(["tiny"] * 9))[0][0] == ["tiny"]
    assert len(set(KIN)) == len(KIN)


def test_what_the_evidence_tells_of_the_temperature_is_found() -> None:
    """Of pages with one mark the logits are twice as sure as they should be."""
    logits, labels = drawn(1.0)
    marked = np.arange(len(labels)) % 2
    weights = fit_slopes(logits * np.where(marked, 2.0, 1.0)[:, None], labels, (marked[:, None] - 0.5) / 0.5)
    plain, sure = math.exp(weights[0] - weights[1]), math.exp(weights[0] + weights[1])
    assert plain == pytest.approx(1, rel=0.05)
    assert sure == pytest.approx(1 / 2, rel=0.05)


def test_the_cost_of_a_threshold_for_each_kind_is_told(made: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    calibrate(made, labelled(100), simulated(90))
    assert "cannot prove the target error 0.50%" in caplog.text  # with 128 digits
    assert caplog.text.endswith("They can prove none.\n")  # most are wrong
    data = labelled(100)
    all_right = replace(data, labels=logits_of(data.pixels)[:, :10].argmax(1).astype(np.int8))
    tightest = risk.tightest_target(calibrate(made, all_right, None).domains)
    assert tightest is not None
    assert caplog.text.endswith(f"The tightest target that they can prove is {tightest:.1%}.\n")


def test_without_pages_the_digits_alone_calibrate(made: Bundle) -> None:
    assert calibrate(made, labelled(100), None).domains[0].risks[-1].passed == 80
    assert calibrate(made, labelled(100), None) == calibrate(
        made, labelled(100), simulated(90)._replace(labels=np.full(90, BLANK, np.int8))
    )


def test_the_packaged_model_proves_the_default_target_on_several_kinds_and_a_doubt_for_folders() -> None:
    domains = bundle.load().calibration.domains
    assert len(domains) >= 4
    assert sorted(", ".join(domain.name for domain in domains).split(", ")) == sorted(set(KIN) - {OWN})
    assert all(domain.digits >= FEWEST for domain in domains)
    assert 0.5 < risk.loosest_threshold(0.005, domains) < 1
    proof = risk.prove_doubt(0.005, domains)
    assert proof is not None
    assert 0 < proof.limit < 0.005

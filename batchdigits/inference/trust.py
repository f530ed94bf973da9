"""Judge how far the `ok` of a folder can be trusted, and find the threshold that follows from it.

All comes of what a ledger holds, so that the same ledger gives the same report: the confidences of the folder's digits,
and the answers that people gave to a random sample of its pages. Without answers nobody knows a folder's true error; it
is estimated by what the validation data had at the same mean doubt.

Source: that the mean of a network's confidences foretells its accuracy elsewhere, as a baseline: Garg, Balakrishnan,
Lipton, Neyshabur, Sedghi, «Leveraging Unlabeled Data to Predict Out-of-Distribution Performance», ICLR 2022.
`tests/benchmarks/estimates.py` measures it against others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from batchdigits.inference import drift
from batchdigits.inference.audit import wilson_interval
from batchdigits.inference.decisions import Decisions
from batchdigits.inference.folders import confidence_counts, mean_doubt, own_threshold, passing
from batchdigits.inference.thresholds import (
    OWN_THRESHOLDS,
    Calibration,
    Domain,
    answers_for,
    prove,
    prove_answers,
    prove_doubt,
    threshold_table,
)

_MOST_KINDS = 3  # that a clause names one by one
LEAST_DIGITS = 200
"""Digits of a folder from which its error is estimated, and its threshold follows it."""
TARGETS = (0.01, 0.005, 0.001)
"""Target errors of which a report tells how many answers are missing to prove them."""


class Basis(StrEnum):
    """Why the threshold of a report is what it is."""

    GIVEN = "given"
    """Somebody named it."""
    VALIDATION = "validation"
    """It keeps the target on each kind of validation data."""
    FOLDER = "folder"
    """It gives the folder's digits a mean doubt at which the target was kept on each kind of validation data."""
    DOUBTFUL = "doubtful"
    """The same, and yet the folder is worse than the validation data, so that nothing is proven for it."""
    ANSWERS = "answers"
    """It is proven on people's answers to a sample of this folder."""


class Checked(NamedTuple):
    """A page of the sample, whose digit is `ok` at some threshold."""

    digit: int
    """What it was read as."""
    confidence: float
    """0 to 1."""
    answer: str
    """A person's; empty where nobody has answered."""


@dataclass(slots=True)
class Folder:
    """What a ledger tells of a folder, whatever the threshold is."""

    counted: NDArray[np.int64] = field(default_factory=lambda: confidence_counts(np.zeros(0)))
    """int64[10,001], the confidences of digits that are `ok` at some threshold, as `confidence_counts` has them."""
    said: NDArray[np.int64] = field(default_factory=lambda: drift.histogram(np.zeros(0)))
    """int64[10], the confidences of all digits, as `drift.histogram` has them."""
    sample: dict[tuple[str, int], Checked] = field(default_factory=dict)
    """By the sha256 of the file's bytes and the page, so that copies of an image count once."""

    def add(self, decided: Decisions) -> None:
        """Count pages."""
        self.counted += confidence_counts(decided.confidence[decided.may_be_ok])
        self.said += drift.histogram(decided.confidence)

    def answered(self, threshold: float = 0.0) -> list[Checked]:
        """Give the sample's pages up to the first that nobody has answered, in the order of their sums.

        That order is as good as by lot; of answers beyond it, somebody chose which to give.

        Args:
            threshold: Confidence, 0 to 1: pages below it are passed over.
        """
        pages = (self.sample[key] for key in sorted(self.sample))
        return list(takewhile(lambda page: page.answer, (page for page in pages if page.confidence >= threshold)))


@dataclass(frozen=True, slots=True)
class Trust:
    """How far the `ok` of a report can be trusted."""

    threshold: float
    """Confidence, 0 to 1, below which a digit goes to review."""
    basis: Basis
    """Why it is that."""
    target_error: float
    """Share of wrong digits among those that are `ok`, 0 to 1, that was asked for."""
    domain: str
    """The kind of validation data that decides; empty where the basis is none of these."""
    expected: float | None
    """The share of wrong digits among those that are `ok`, 0 to 1, as it is estimated; None of too few digits."""
    at_most: float | None
    """What it would be if the folder were like the hardest kind of validation data."""
    answers: int
    """Answers that count as a sample of all pages."""
    wrong: int
    """How many of `passed` are wrong."""
    passed: int
    """Answers that count as a sample of the digits that are `ok`."""
    drifted: bool
    """Whether the folder's digits are less clear than those of the validation data."""
    missing: tuple[int | None, ...]
    """How many answers more would prove each of `TARGETS`, if those to come are like those that are
    there; None: however many."""

    @classmethod
    def parsed(cls, kept: dict[str, Any]) -> Self:
        """Read what JSON made of it."""
        return cls(**kept | {"basis": Basis(kept["basis"]), "missing": tuple(kept["missing"])})

    @property
    def promised(self) -> float | None:
        """The target error that was asked for; None where the threshold was given itself."""
        return None if self.basis is Basis.GIVEN else self.target_error

    def words(self) -> str:
        """Say it in a clause: what was asked for, what is estimated, and what people found.

        «Proven» is said only of what was tested as it is: not where the threshold follows the folder's own clearness,
        nor of scans that are less clear than those that proved it.
        """
        parts = [self._basis()]
        if self.expected is not None and self._is_doubtful:
            parts.append(f"about {self.expected:.2%} of the ok would be wrong if these were like those")
        elif self.expected is not None:
            parts.append(f"about {self.expected:.2%} of the ok are probably wrong")
        if self.passed:
            low, high = wilson_interval(self.wrong, self.passed)
            interval = f"{self.wrong / self.passed:.2%}, 95% interval {low:.2%} to {high:.2%}"
            parts.append(f"of {self.passed:,} ok that were sampled and answered {self.wrong:,} are wrong ({interval})")
        return ", ".join(parts)

    @property
    def _is_doubtful(self) -> bool:
        """Whether nothing that was tested speaks for these scans."""
        return self.basis is Basis.DOUBTFUL or (self.basis is Basis.VALIDATION and self.drifted)

    @property
    def _hardest(self) -> str:
        """The domain; of one that was made of many kinds the first two, and how many more there are."""
        names = self.domain.split(", ")
        return self.domain if len(names) <= _MOST_KINDS else f"{', '.join(names[:2])} and {len(names) - 2} more"

    def _basis(self) -> str:
        own = f"ok from a confidence of {self.threshold}"
        match self.basis:
            case Basis.GIVEN:
                return own
            case _ if self._is_doubtful:
                why = f"it may be missed: these scans are less clear than the validation data, {own}"
            case Basis.VALIDATION:
                why = f"proven for scans like those that were tested; the hardest kind was «{self._hardest}»"
            case Basis.FOLDER:
                why = f"{own}, set by how clear these scans are; the hardest kind tested was «{self._hardest}»"
            case _:
                why = f"proven on {self.answers:,} of your own answers, {own}"
        return f"target error {self.target_error:.2%} ({why})"


def judge(
    folder: Folder, calibration: Calibration, target: float, *, given: float | None = None, adapt: bool = True
) -> Trust:
    """Find the threshold of a folder, and say what it is worth.

    Args:
        folder: All that is in the report.
        calibration: Of the model.
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        given: A confidence that was named as the threshold; None where it follows the target.
        adapt: Whether the threshold may follow the folder.

    Raises:
        UsageError: The validation data cannot prove the target.
    """
    domains = calibration.domains
    answered = folder.answered()
    drifted = drift.is_worse(folder.said, calibration.reference)
    threshold, basis, domain = given, Basis.GIVEN, ""
    if threshold is None:
        threshold, basis, domain = _threshold(folder, answered, calibration, target, drifted=drifted, adapt=adapt)
    expected, at_most = estimate(folder.counted, threshold, domains)
    passed, wrong = _counted(answered, threshold)
    ok, wrong_ok = _counted(folder.answered(threshold), threshold)
    return Trust(
        threshold=threshold,
        basis=basis,
        target_error=target,
        domain=domain,
        expected=expected,
        at_most=at_most,
        answers=len(answered),
        wrong=wrong_ok,
        passed=ok,
        drifted=drifted,
        missing=tuple(answers_for(one, len(answered), passed, wrong) for one in TARGETS),
    )


def _counted(answered: Sequence[Checked], threshold: float) -> tuple[int, int]:
    """Count answers to digits that are `ok` at a threshold, and the wrong ones of these."""
    right = [page.answer == str(page.digit) for page in answered if page.confidence >= threshold]
    return len(right), len(right) - sum(right)


def _threshold(
    folder: Folder, answered: Sequence[Checked], calibration: Calibration, target: float, *, drifted: bool, adapt: bool
) -> tuple[float, Basis, str]:
    """Choose the threshold: by answers, else by the folder's doubt, else by the validation data alone."""
    fixed = prove(target, calibration.domains)
    if not adapt:
        return fixed.limit, Basis.VALIDATION, fixed.domain
    confidence = np.array([page.confidence for page in answered], np.float64)
    right = np.array([page.answer == str(page.digit) for page in answered], np.bool_)
    if (own := prove_answers(target, threshold_table(confidence, right))) is not None:
        return own, Basis.ANSWERS, ""
    doubt = prove_doubt(target, calibration.domains)
    if doubt is None or folder.counted.sum() < LEAST_DIGITS:
        return fixed.limit, Basis.VALIDATION, fixed.domain
    threshold = own_threshold(folder.counted, doubt.limit)
    if threshold is None or drifted:
        return threshold or OWN_THRESHOLDS[0], Basis.DOUBTFUL, doubt.domain
    return threshold, Basis.FOLDER, doubt.domain


def estimate(
    counted: NDArray[np.int64], threshold: float, domains: Sequence[Domain]
) -> tuple[float | None, float | None]:
    """Estimate which share of a folder's `ok` digits is wrong, without any answer.

    It is what the kinds of validation data had, each alike, where their own thresholds gave them the same mean doubt.

    Args:
        counted: int64[10,001], the confidences of digits that may be `ok`.
        threshold: Confidence from which they are.
        domains: Of the model.

    Returns:
        The estimate, and what the hardest domain had; None where the folder has too few digits, or none that is
        `ok`, or the model no domain.
    """
    if counted.sum() < LEAST_DIGITS or not passing(counted, threshold).any() or not domains or not domains[0].doubts:
        return None, None
    doubt = mean_doubt(counted, threshold)
    at = min(sum(counts.doubt < doubt for counts in domains[0].doubts), len(domains[0].doubts) - 1)
    shares = [domain.doubts[at].wrong / max(domain.doubts[at].passed, 1) for domain in domains]
    return sum(shares) / len(shares), max(shares)

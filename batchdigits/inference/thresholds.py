"""Find the confidence threshold that is proven to keep a target error, or say why there is none.

The target is a share of wrong digits among those that are `ok`. The validation data are parted into domains, and a
threshold is accepted where each of them passes by itself: «proven» means that, were the true share above the target on
any of the domains, the threshold would be accepted with a probability of at most 5%.

One threshold for all is as strict as the hardest domain needs. A folder with enough digits has its own: the loosest at
which its `ok` digits have no more than a certain mean doubt, 1 less their confidence. That doubt is what is proven
then, in the same way: each domain is taken for a folder, and gets its own threshold from its confidences alone.

What is still assumed: the pages of a domain were drawn independently, and a user's scans are like some domain, or a
mixture of several in whatever shares. Of scans that are unlike them all, nothing is proven.

Source: Angelopoulos, Bates, Candès, Jordan, Lei, «Learn then Test: Calibrating Predictive Algorithms to Achieve Risk
Control», 2021, https://arxiv.org/abs/2110.01052: a p-value for each threshold, here the exact one of the binomial
distribution, and fixed-sequence testing from strict to loose, which ends at the first threshold that fails. It begins
where a quarter of each domain's digits pass: further on, a single mistake among few would end it. That looks at
confidences alone.

Source: Berger, «Multiparameter hypothesis testing and acceptance sampling», Technometrics 24 (1982) 295–300: that all
of several hypotheses are false is shown at a level where each test rejects at that level, however many there are. The
chance that all of them err together is no larger than the chance that one of them does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from batchdigits.errors import UsageError, escaped
from batchdigits.settings import ModelSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.05
"""Probability, at most, that a threshold is accepted though the true error is above the target."""

STRICTEST = 0.001
"""The smallest target that is offered: pictures for review are kept from the beginning of what it would ask for."""

LOOSEST = 0.1
"""The largest target that is offered: 0.5 is a slip for 0.5%."""

THRESHOLDS = tuple(
    [round(1 - step / 10_000, 4) for step in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    + [round(1 - step / 1000, 3) for step in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    + [round(1 - step / 200, 3) for step in range(2, 20)]
    + [round(0.90 - step / 50, 2) for step in range(40)]
    + [0.1]  # ten shares that sum to one: nothing is below it
)
"""Confidences, from strict to loose, fixed before any data were seen."""


OWN_THRESHOLDS = tuple(threshold for threshold in THRESHOLDS if 0.5 <= threshold <= 0.995)
"""Those that a folder may have of its own, from strict to loose: below the first, pages have pictures for people."""

DOUBTS = tuple(round(0.0002 * 1.1**step, 6) for step in range(64))
"""Mean doubts, from strict to loose, fixed before any data were seen."""


class ThresholdCounts(NamedTuple):
    """What one threshold did to the validation data."""

    threshold: float
    """Confidence, 0 to 1."""
    passed: int
    """Digits at or above it."""
    wrong: int
    """How many of these were said to be another digit than they are."""


class DoubtCounts(NamedTuple):
    """What a threshold did that keeps a mean doubt."""

    doubt: float
    """Mean of 1 less the confidence of those that pass, at most."""
    passed: int
    """Digits at or above the threshold."""
    wrong: int
    """How many of these were said to be another digit than they are."""


_Counts = ThresholdCounts | DoubtCounts


@dataclass(frozen=True, slots=True)
class Domain:
    """Validation data of one kind, and what each threshold did to them."""

    name: str
    """Of the kind, or of several that were merged."""
    digits: int
    """How many digits there are."""
    risks: tuple[ThresholdCounts, ...]
    """From strict to loose."""
    doubts: tuple[DoubtCounts, ...] = ()
    """From strict to loose, where the domain is taken for a folder with a threshold of its own."""


class Proof(NamedTuple):
    """What keeps a target error on each domain."""

    limit: float
    """A threshold, or a mean doubt, 0 to 1."""
    domain: str
    """The domain that decides: the one that is furthest from passing the next looser limit."""


class Slope(NamedTuple):
    """How the logarithm of the temperature follows one column of `decisions.evidence`."""

    centre: float
    """What the column has where it changes nothing."""
    slope: float
    """By how much the logarithm rises with each unit beyond that."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes probabilities and decisions of logits, fitted on data that the model was not trained on."""

    temperature: float
    """What the logits of a page are divided by, where its evidence is that of the centres."""
    gate: float
    """Probability, 0 to 1, that a page shows no digit, above which it is said to have none; 1 lets all pass."""
    slopes: tuple[Slope, ...] = ()
    """One for each column of `decisions.evidence`; empty where all pages have the same temperature."""
    domains: tuple[Domain, ...] = ()
    """The validation data; all have the same thresholds; empty where no target error can be kept."""
    reference: tuple[int, ...] = ()
    """How many of these digits have a confidence in each bin of `drift.EDGES`; empty where drift cannot be told."""

    def threshold(self, settings: ModelSettings) -> float:
        """Find the confidence below which a digit goes to review: the one that is set, or that keeps the target error.

        Raises:
            UsageError: The validation data cannot prove the target.
        """
        if settings.threshold is not None:
            return settings.threshold
        return loosest_threshold(settings.target_error, self.domains)


def threshold_table(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[ThresholdCounts, ...]:
    """Count what each of `THRESHOLDS` lets pass.

    Args:
        confidence: float64[N], four decimals as in reports; NaN where no digit was said, or it passes nowhere.
        right: bool[N].
    """
    return tuple(
        ThresholdCounts(threshold, int((confidence >= threshold).sum()), int((~right[confidence >= threshold]).sum()))
        for threshold in THRESHOLDS
    )


def prove(target: float, domains: Sequence[Domain]) -> Proof:
    """Find the loosest threshold that is proven to keep the target on each domain.

    Args:
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        domains: Of a bundle.

    Raises:
        UsageError: The validation data cannot prove it.
    """
    proof = _tested_by_domain(target, domains, [domain.risks for domain in domains])
    if proof is None:
        raise UsageError(_unproven(target, domains))
    return proof


def prove_doubt(target: float, domains: Sequence[Domain]) -> Proof | None:
    """Find the largest mean doubt that is proven to keep the target on each domain; None where none is.

    Args:
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        domains: Of a bundle.
    """
    return _tested_by_domain(target, domains, [domain.doubts for domain in domains])


def prove_answers(target: float, risks: Sequence[ThresholdCounts]) -> float | None:
    """Find the loosest threshold that people's answers to a random sample prove; None where they prove none.

    The sequence begins halfway between as many digits as a proof needs at least, and all.

    Args:
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        risks: What each threshold lets pass of the sample, from strict to loose.
    """
    least = (least_passing(target) + max((risk.passed for risk in risks), default=0)) / 2
    proof = _tested(target, [""], [tuple(risks)], [max(least, least_passing(target))])
    return proof.limit if proof else None


def answers_for(target: float, answers: int, passed: int, wrong: int) -> int | None:
    """Reckon how many answers more would prove a target, if they are like those that are there; None: however many.

    Args:
        target: Share of wrong digits among those that are `ok`, between 0 and 1.
        answers: Those that are there.
        passed: How many of them are to digits that are `ok`.
        wrong: How many of these are wrong.
    """
    needed = _needed(target, passed, wrong)
    return None if needed is None else math.ceil((needed - passed) * max(answers, 1) / max(passed, 1))


def loosest_threshold(target: float, domains: Sequence[Domain]) -> float:
    """Find the loosest threshold that is proven to keep the target on each domain, as `prove` does."""
    return prove(target, domains).limit


def tightest_target(domains: Sequence[Domain]) -> float | None:
    """Find the smallest target, in steps of `STRICTEST` up to `LOOSEST`, that is proven; None where none is."""
    targets = (round(STRICTEST * step, 6) for step in range(1, round(LOOSEST / STRICTEST) + 1))
    proven = (t for t in targets if _tested_by_domain(t, domains, [domain.risks for domain in domains]))
    return next(proven, None)


def strictest_threshold(domains: Sequence[Domain]) -> float:
    """Give the strictest threshold that a report may have where none is given: 1 where no target is proven."""
    targets = (STRICTEST * step for step in range(1, round(1 / STRICTEST)))
    proofs = (_tested_by_domain(target, domains, [domain.risks for domain in domains]) for target in targets)
    return max(OWN_THRESHOLDS[0], next((proof.limit for proof in proofs if proof), 1.0))


_FIRST_SHARE = 0.25  # of each domain's digits, that the first threshold that is tested lets pass
_MOST = 1_000_000  # digits that a message reckons with


def least_passing(target: float) -> int:
    """Compute how many digits have to pass without a mistake for a proof."""
    return math.ceil(math.log(LEVEL) / math.log1p(-target))


@lru_cache(1024)  # a run proves its target before any work, and again for its report
def probability_of_at_most(wrong: int, passed: int, error: float) -> float:
    """Compute the binomial probability of so few mistakes.

    Args:
        wrong: Mistakes, at most.
        passed: Digits.
        error: The chance of a mistake at each, above 0 and below 1.
    """
    whole = math.lgamma(passed + 1)
    log_error, log_right = math.log(error), math.log1p(-error)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(passed - k + 1) + k * log_error + (passed - k) * log_right
        for k in range(min(wrong, passed) + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def _tested_by_domain(target: float, domains: Sequence[Domain], tables: Sequence[Sequence[_Counts]]) -> Proof | None:
    names = [escaped(domain.name) for domain in domains]  # as a bundle spells them, which anybody may have made
    return _tested(target, names, tables, _least(domains))


def _least(domains: Sequence[Domain]) -> list[float]:
    """Give how many digits of each domain the first limit that is tested lets pass."""
    return [_FIRST_SHARE * domain.digits for domain in domains]


def _tested(
    target: float, names: Sequence[str], tables: Sequence[Sequence[_Counts]], least: Sequence[float]
) -> Proof | None:
    """Test limits in fixed sequence, each on N domains; None where the first one fails, or there is none.

    Args:
        target: As `prove` has it.
        names: Of the domains.
        tables: Of each, what its limits let pass, from strict to loose.
        least: Of each, how many digits the first limit lets pass.
    """
    found = None
    for counts in _sequence(tables, least):
        chances = [probability_of_at_most(one.wrong, one.passed, target) for one in counts]
        decides = max(range(len(names)), key=lambda at: chances[at])
        if chances[decides] > LEVEL:
            return found._replace(domain=names[decides]) if found else None
        found = Proof(counts[0][0], names[decides])
    return found


def _sequence(tables: Sequence[Sequence[_Counts]], least: Sequence[float]) -> Iterator[tuple[_Counts, ...]]:
    """Give the limits that are tested, whatever the target: of each, the counts of every domain."""
    for counts in zip(*tables, strict=True):
        if all(one.passed >= few for one, few in zip(counts, least, strict=True)):
            yield counts


def _needed(target: float, passed: int, wrong: int) -> int | None:
    """Reckon how many digits have to pass for a proof, if those to come are like those; None: however many."""
    share = wrong / max(passed, 1)
    if share >= target:
        return None
    needed = max(passed, least_passing(target))
    while needed < _MOST and probability_of_at_most(math.ceil(share * needed), needed, target) > LEVEL:
        needed = math.ceil(needed * 1.05)
    return needed


def _unproven(target: float, domains: Sequence[Domain]) -> str:
    held = f"The model's validation data cannot prove the target error {target:.2%}"
    remedy = "allow a larger --target-error, or name the confidence yourself with --threshold"
    counts = next(_sequence([domain.risks for domain in domains], _least(domains)), ())
    tested = zip(domains, counts, strict=False)
    name, first = max(
        ((escaped(domain.name), one) for domain, one in tested),
        key=lambda found: probability_of_at_most(found[1].wrong, found[1].passed, target),
        default=("", ThresholdCounts(1.0, passed=0, wrong=0)),
    )
    kind = f" of the kind «{name}»" if len(domains) > 1 else ""
    found = f"of its surest {first.passed:,} digits{kind} {first.wrong:,} are wrong"
    needed = _needed(target, first.passed, first.wrong)
    if needed is None:
        return f"{held}: {found}, so that more of them would not help; {remedy}."
    about = f"about {needed:,}" if needed < _MOST else f"more than {_MOST:,}"
    return f"{held}: {found}, and it takes {about} at that rate; validate on more, {remedy}."

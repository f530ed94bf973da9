"""How near to the truth a folder's error can be estimated without any answer: candidates against each other.

Make the table in one go: `python -m tests.benchmarks.estimates`, some minutes. Each set is taken for a folder; its
threshold is the one that the program gives it, and that of the validation data alone. «True» is the share of wrong
digits among those that are `ok` there; an estimate holds where it is within a factor of two of that, or both are under
0.5%. Of few mistakes, two in place of one are chance; so the last line counts only the folders of which chance leaves
no doubt: the 95% interval of the truth lies where the estimate holds, or outside of it, as a whole.

- disagreement: of the reader and its teacher on what is `ok` (Jiang, Nagarajan, Baek, Kolter, «Assessing Generalization
  of SGD via Disagreement», ICLR 2022); the only one that needs the pages once more, and costs `ms` for each
- thresholded: average thresholded confidence (Garg et al., ICLR 2022)
- histogram: the validation data's error in each bin of confidence, weighted by the folder's
- doubt: the mean of 1 less the confidence
- shipped: `trust.estimate`, what the kinds of validation data had at the same mean doubt
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from batchdigits.inference import bundle
from batchdigits.inference.audit import wilson_interval
from batchdigits.inference.folders import confidence_counts, mean_doubt, own_threshold
from batchdigits.inference.thresholds import OWN_THRESHOLDS, Calibration, prove, prove_doubt
from batchdigits.inference.trust import LEAST_DIGITS, estimate
from tests.benchmarks.development_sets import development_sets
from tests.benchmarks.digit_sets import clean_and_corrupted
from tests.benchmarks.reading import DEFAULTS, PageSet, Reader
from tests.benchmarks.simulated_kinds import simulated_kinds

_ASKED = 300  # `ok` pages of each set, about which the teacher is asked
_SMALL = 0.005  # shares below that are alike
_NAMES = ("disagreement", "thresholded", "histogram", "doubt", "shipped")


@dataclass(frozen=True, slots=True)
class Digits:
    """N digits of a set that may be `ok`."""

    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    said: NDArray[np.int8]
    pixels: NDArray[np.uint8]


def main(
    model: Annotated[Path | None, typer.Option(help="A bundle; the packaged one without.")] = None,
    pages: Annotated[int, typer.Option(min=1, help="Pages of each simulated kind.")] = 300,
) -> None:
    """Print what each candidate says of each set."""
    chosen = bundle.load(model)
    terms = chosen.calibration
    fixed = prove(DEFAULTS.target_error, terms.domains).limit
    doubt = prove_doubt(DEFAULTS.target_error, terms.domains)
    print(f"Model {chosen.id[:12]}; from {fixed} on, or at a mean doubt of {doubt.limit if doubt else '–'}\n")
    print(f"| set | images | threshold | ok | true | {' | '.join(_NAMES)} |")
    print(f"| --- |{' ---: |' * (4 + len(_NAMES))}")
    held: dict[str, list[bool]] = defaultdict(list)
    sure: dict[str, list[bool]] = defaultdict(list)
    seconds, asked = 0.0, 0
    with Reader(chosen) as reader:
        for some in _sets(reader, pages):
            digits = _digits(reader, some)
            own = own_threshold(confidence_counts(digits.confidence), doubt.limit) if doubt else None
            for threshold in sorted({fixed, own or OWN_THRESHOLDS[0]}):
                passes = digits.confidence >= threshold
                if passes.sum() < LEAST_DIGITS:
                    continue
                begun = time.perf_counter()
                rows = np.flatnonzero(passes)[:_ASKED]
                second = _teacher(reader, digits.pixels[rows])
                seconds, asked = seconds + time.perf_counter() - begun, asked + len(rows)
                wrong, true = int((~digits.right[passes]).sum()), float((~digits.right[passes]).mean())
                found = {"disagreement": float((second != digits.said[rows]).mean())}
                found |= _candidates(digits.confidence, threshold, terms)
                for name, value in found.items():
                    held[name].append(_holds(true, value))
                    sure[name] += _whatever_chance_did(wrong, int(passes.sum()), value)
                cells = " | ".join(f"{found[name]:.2%}" for name in _NAMES)
                share = passes.sum() / len(some.pages)
                print(f"| {some.name} | {len(some.pages):,} | {threshold} | {share:.1%} | {true:.2%} | {cells} |")
    cells = " | ".join(f"{np.mean(held[name]):.0%}" for name in _NAMES)
    print(f"| estimates that hold | | | | | {cells} |")
    cells = " | ".join(f"{sum(sure[name])} of {len(sure[name])}" for name in _NAMES)
    print(f"| of which chance leaves no doubt | | | | | {cells} |")
    print(f"\nThe teacher took {1000 * seconds / max(asked, 1):.2f} ms a page on this machine.")


def _sets(reader: Reader, pages: int) -> Iterator[PageSet]:
    """Give the sets that this is measured on: none that calibrates the model."""
    for source in (development_sets(), clean_and_corrupted(reader, final=False), simulated_kinds(pages)):
        yield from (some for some in source if isinstance(some, PageSet))


def _digits(reader: Reader, some: PageSet) -> Digits:
    found = reader(some.pages, some.full_resolution)
    passes = found.may_be_ok
    right = found.digit == some.labels
    return Digits(found.confidence[passes], right[passes], found.digit[passes], found.pixels[passes])


def _teacher(reader: Reader, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    assert reader.predict.teacher, "the bundle has no teacher"
    return reader.predict.teacher.run(pixels)[:, :10].argmax(axis=1)


def _candidates(confidence: NDArray[np.float64], threshold: float, terms: Calibration) -> dict[str, float]:
    """Estimate by all that needs the confidences alone."""
    counted = confidence_counts(confidence)
    passes = confidence[confidence >= threshold]
    limits = [risk.threshold for risk in terms.domains[0].risks]
    passed, wrong = (
        np.array([sum(getattr(domain.risks[at], name) for domain in terms.domains) for at in range(len(limits))])
        for name in ("passed", "wrong")
    )
    last = limits.index(min(limits, key=lambda limit: abs(limit - threshold)))
    within = np.diff(passed[: last + 1], prepend=0), np.diff(wrong[: last + 1], prepend=0)
    bins = np.searchsorted(-np.array(limits[: last + 1]), -passes)
    error = within[1] / np.maximum(within[0], 1)
    # The confidence below which as many of the validation data's `ok` digits lie as are wrong.
    sure = next((limit for limit, many in zip(limits, passed, strict=True) if passed[last] - many <= wrong[last]), 1.0)
    return {
        "thresholded": float((passes < sure).mean()),
        "histogram": float(error[np.minimum(bins, last)].mean()),
        "doubt": mean_doubt(counted, threshold),
        "shipped": estimate(counted, threshold, terms.domains)[0] or 0.0,
    }


def _holds(true: float, found: float) -> bool:
    return (true < _SMALL and found < _SMALL) or (true > 0 and 0.5 <= found / true <= 2)


def _whatever_chance_did(wrong: int, passed: int, found: float) -> list[bool]:
    """Tell whether an estimate holds, or does not, for all that the truth may be; nothing where it may do either."""
    low, high = wilson_interval(wrong, passed)
    least, most = (0.0, max(_SMALL, 2 * found)) if found < _SMALL else (found / 2, 2 * found)
    if least <= low and high <= most:
        return [True]
    return [False] if high < least or most < low else []


if __name__ == "__main__":
    typer.run(main)

import hashlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from batchdigits.errors import BundleError, FaultKind
from batchdigits.inference.audit import in_sample
from batchdigits.inference.decisions import (
    ANOTHER,
    EVIDENCE,
    NONE_BEFORE,
    SEVERAL_DIGITS,
    Decisions,
    decide,
    decide_calibrated,
    evidence,
    no_digit,
    probabilities,
    temperatures,
)
from batchdigits.inference.thresholds import Calibration, Slope
from batchdigits.records import (
    DEPTH,
    DIGITS,
    EDGE,
    FOREIGN,
    INK,
    INK_MEASURES,
    NO_DIGIT,
    NOTHING,
    OTHER,
    SEVERAL,
    SINGLE,
    Status,
)

many_logits = arrays.arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(DIGITS, 12)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32) | st.floats(-8, 8, width=32),
)


def logits_of(*rows: dict[int, float]) -> np.ndarray:
    """Logits whose softmax gives each named digit its probability, and the other digits nearly nothing."""
    values = np.full((len(rows), DIGITS), 1e-12)
    for row, shares in enumerate(rows):
        for digit, share in shares.items():
            values[row, digit] = share
    return np.log(values).astype(np.float32)


def inked(
    *shares: float, other: float = 0, depth: float = 1, edge: bool = False, single: float = 0, nothing: float = 0
) -> np.ndarray:
    """Ink measures of pages whose ink covers these shares, beside another thing of this size.

    The ink finder was asked where it took them for a single digit, or for nothing, with these probabilities.
    """
    ink = np.zeros((len(shares), len(INK_MEASURES)), np.float32)
    ink[:, INK], ink[:, OTHER], ink[:, DEPTH], ink[:, EDGE] = shares, other, depth, edge
    if single or nothing:
        ink[:, NOTHING], ink[:, SINGLE], ink[:, SEVERAL] = nothing, single, 1 - nothing - single
    return ink


def decided(*rows: dict[int, float], threshold: float = 0.9, ink: float = 0.1) -> Decisions:
    return decide(logits_of(*rows), inked(*[ink] * len(rows)), threshold=threshold)


def test_a_sure_digit_is_ok() -> None:
    decisions = decided({7: 0.97, 1: 0.03})
    assert decisions.status == [Status.OK]
    assert decisions.digit.tolist() == [7]
    assert decisions.confidence.tolist() == [0.97]
    assert decisions.runner_up.tolist() == [1]
    assert decisions.runner_up_confidence.tolist() == [0.03]
    assert decisions.detail == [""]


def test_an_unsure_digit_goes_to_review_with_the_two_candidates_in_order() -> None:
    decisions = decided({9: 0.6, 4: 0.4}, {0: 0.5, 8: 0.3, 6: 0.2})
    assert decisions.status == [Status.REVIEW, Status.REVIEW]
    assert decisions.digit.tolist() == [9, 0]
    assert decisions.detail == ["could be 4 or 9", "could be 0 or 8"]


@pytest.mark.parametrize(
    ("depth", "edge", "detail"),
    [
        (0.24, False, "could be 4 or 9; faint ink"),
        (0.25, False, "could be 4 or 9"),
        (1.0, True, "could be 4 or 9; touches the edge"),
        (0.1, True, "could be 4 or 9; faint ink; touches the edge"),
    ],
)
def test_what_may_be_why_a_digit_is_unsure_is_said_of_review_alone(depth: float, edge: bool, detail: str) -> None:
    ink = inked(0.1, 0.1, depth=depth, edge=edge)
    assert decide(logits_of({9: 0.6, 4: 0.4}, {9: 1}), ink, threshold=0.9).detail == [detail, ""]


def test_files_are_drawn_by_their_sums_alone_and_about_as_many_as_asked_for() -> None:
    sums = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    drawn = in_sample(sums, 0.25)
    assert 900 < drawn.sum() < 1100
    assert (in_sample(sums[::-1], 0.25) == drawn[::-1]).all()
    assert (in_sample(sums, 0.5) >= drawn).all()  # a larger sample holds the smaller one
    assert in_sample(sums, 1.0).all()
    assert not in_sample(sums, 0.0).any()
    assert not in_sample([""], 1.0).any()


def test_a_page_without_ink_is_blank_and_its_cells_are_empty() -> None:
    decisions = decided({7: 0.97, 1: 0.03}, ink=0)
    assert decisions.status == [Status.BLANK]
    assert decisions.detail == ["no ink was found"]
    assert decisions.digit.tolist() == [-1]
    assert decisions.runner_up.tolist() == [-1]
    assert np.isnan(decisions.confidence).all()
    assert np.isnan(decisions.runner_up_confidence).all()
    assert np.isnan(decisions.probabilities).all()


def test_a_blank_page_leaves_its_neighbours_where_they_are() -> None:
    ink = inked(0.1, 0, 0.1)
    decisions = decide(logits_of({3: 1}, {4: 1}, {5: 1}), ink, threshold=0.9)
    assert decisions.digit.tolist() == [3, -1, 5]
    assert np.nanargmax(decisions.probabilities[[0, 2]], axis=1).tolist() == [3, 5]


def test_only_the_ink_share_makes_a_page_blank() -> None:
    ink = np.zeros((1, len(INK_MEASURES)), np.float32)
    ink[0, INK] = 1e-9
    assert decide(logits_of({3: 1}), ink, threshold=0.9).status == [Status.OK]


def test_a_page_with_another_thing_as_large_as_a_digit_is_refused_unless_it_is_blank() -> None:
    ink = np.concatenate([inked(0.1, other=ANOTHER), inked(0, other=1), inked(0.1, other=ANOTHER - 0.01)])
    decisions = decide(logits_of({3: 1}, {4: 1}, {5: 1}), ink, threshold=0.9)
    assert decisions.status == [Status.NOT_A_DIGIT, Status.BLANK, Status.OK]
    assert decisions.detail == ["there is more than one thing on it", "no ink was found", ""]
    assert decisions.digit.tolist() == [NO_DIGIT, NO_DIGIT, 5]
    assert np.isnan(decisions.confidence[:2]).all()


@pytest.mark.parametrize(
    ("share", "shown", "status"),
    [(0.89996, 0.9, Status.OK), (0.90004, 0.9, Status.OK), (0.89994, 0.8999, Status.REVIEW)],
)
def test_the_threshold_judges_the_confidence_that_the_row_shows(share: float, shown: float, status: Status) -> None:
    decisions = decided({7: share, 1: 1 - share})
    assert decisions.confidence.tolist() == [shown]
    assert decisions.status == [status]


def test_outputs_after_the_ten_digits_change_nothing() -> None:
    logits = logits_of({7: 0.97, 1: 0.03})
    with_gate = np.hstack([logits, [[1e9, -1e9]]]).astype(np.float32)
    assert decide(with_gate, inked(1), threshold=0.9).confidence.tolist() == [0.97]


def test_a_higher_temperature_is_less_sure_of_the_same_digit() -> None:
    ink = inked(1)
    logits = np.zeros((1, DIGITS), np.float32)
    logits[0, 7] = 6
    hot = decide(logits, ink, threshold=0.9, temperature=2.0)
    assert hot.digit.tolist() == [7]
    assert hot.confidence.tolist() == [round(float(np.exp(3) / (np.exp(3) + 9)), 4)]


def test_each_page_may_have_a_temperature_of_its_own() -> None:
    logits = np.zeros((2, DIGITS), np.float32)
    logits[:, 7] = 6
    both = decide(logits, inked(1, 1), threshold=0.9, temperature=np.array([1.0, 2.0]))
    singles = [decide(logits[:1], inked(1), threshold=0.9, temperature=value).confidence[0] for value in (1.0, 2.0)]
    assert both.confidence.tolist() == singles


def test_the_temperature_follows_the_evidence_within_bounds_and_a_page_without_ink_has_none() -> None:
    logits = logits_of({7: 0.9, 1: 0.1}, {7: 0.9, 1: 0.1}, {7: 0.9, 1: 0.1}, {7: 0.9, 1: 0.1})
    ink = inked(0.1, 0.1, 0.1, 0)
    ink[:3, DEPTH] = 0.5, 1.0, 1e6
    slopes = tuple(Slope(0.5 if name == "depth" else 0.0, 0.2 * (name == "depth")) for name in EVIDENCE)
    terms = Calibration(2.0, gate=1.0, slopes=slopes)
    found = temperatures(evidence(logits[:3], ink[:3]), terms)
    assert found.tolist() == pytest.approx([2.0, 2.0 * np.exp(0.1), 2.0 * np.e])
    decided = decide_calibrated(logits, ink, terms, threshold=0.5)
    expected = decide(logits[:3], ink[:3], threshold=0.5, temperature=found)
    assert decided.confidence[:3].tolist() == expected.confidence.tolist()
    assert decided.status[3] is Status.BLANK
    plain = decide_calibrated(logits, ink, Calibration(2.0, gate=1.0), threshold=0.5)
    assert plain.confidence[1] == decided.confidence[0]


def test_the_evidence_tells_what_each_network_saw() -> None:
    ink = inked(0.1, 0.1, other=3, depth=0.4, edge=True, single=0.5)
    ink[1, NOTHING:] = 0
    found = dict(zip(EVIDENCE, evidence(with_others(0.5, 0.5, 0.0).repeat(2, 0), ink).T.tolist(), strict=True))
    assert found["single"] == pytest.approx([0, 0], abs=1e-6)
    assert found["asked"] == [1, 0]
    assert found["share"] == pytest.approx([np.log(0.1001)] * 2)
    assert (found["other"], found["depth"], found["edge"]) == ([1, 1], pytest.approx([0.4] * 2), [1, 1])
    assert found["no digit"] == pytest.approx([np.log((1 - NONE_BEFORE) / NONE_BEFORE), 0], abs=1e-3)


def test_among_equal_logits_the_smaller_digit_wins() -> None:
    decisions = decide(np.zeros((1, DIGITS), np.float32), inked(1), threshold=0.9)
    assert (decisions.digit.tolist(), decisions.runner_up.tolist()) == ([0], [1])
    assert decisions.confidence.tolist() == [0.1]


def test_the_runner_up_is_known_even_where_its_probability_is_zero() -> None:
    logits = np.full((1, DIGITS), -3e6, np.float32)
    logits[0, 3], logits[0, 8] = 0, -1e6
    decisions = decide(logits, inked(1), threshold=0.9)
    assert (decisions.runner_up.tolist(), decisions.runner_up_confidence.tolist()) == ([8], [0.0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_gives_no_number_is_refused(value: float) -> None:
    logits = np.zeros((2, DIGITS), np.float32)
    logits[1, 4] = value
    ink = inked(1, 1)
    with pytest.raises(BundleError, match="not a finite number"):
        decide(logits, ink, threshold=0.9)
    ink[1] = 0
    assert decide(logits, ink, threshold=0.9).status[1] is Status.BLANK


def test_no_pages_give_no_decisions() -> None:
    decisions = decide(np.zeros((0, DIGITS), np.float32), np.zeros((0, len(INK_MEASURES)), np.float32), threshold=0.9)
    assert decisions.status == decisions.detail == []
    assert decisions.probabilities.shape == (0, DIGITS)


@given(many_logits, st.floats(0.05, 20), st.floats(0, 1))
def test_probabilities_sum_to_one_and_the_row_agrees_with_them(
    logits: np.ndarray, temperature: float, threshold: float
) -> None:
    exact = probabilities(logits, temperature=temperature)
    assert np.allclose(exact.sum(axis=1), 1, rtol=0, atol=1e-12)
    decisions = decide(logits, inked(*np.ones(len(logits))), threshold=threshold, temperature=temperature)
    assert np.abs(decisions.probabilities.sum(axis=1) - 1).max(initial=0) <= 0.0005 + 1e-6
    assert (decisions.confidence == np.round(exact.max(axis=1), 4)).all()
    assert (decisions.confidence >= decisions.runner_up_confidence).all()
    assert (decisions.digit != decisions.runner_up).all()
    assert [status == Status.OK for status in decisions.status] == (decisions.confidence >= threshold).tolist()


@given(many_logits)
def test_a_batch_decides_as_its_rows_one_by_one(logits: np.ndarray) -> None:
    ink = inked(*np.ones(len(logits)))
    whole = decide(logits, ink, threshold=0.5)
    singles = [decide(logits[[row]], ink[[row]], threshold=0.5) for row in range(len(logits))]
    assert whole.status == [single.status[0] for single in singles]
    assert whole.confidence.tolist() == [single.confidence[0] for single in singles]
    assert whole.probabilities.tolist() == [single.probabilities[0].tolist() for single in singles]


def test_every_fault_has_a_status_of_its_name() -> None:
    assert {kind.value for kind in FaultKind} <= {status.value for status in Status}


def test_columns_have_their_types() -> None:
    decisions = decided({7: 1}, {2: 1})
    assert decisions.digit.dtype == decisions.runner_up.dtype == np.int8
    assert decisions.confidence.dtype == decisions.runner_up_confidence.dtype == np.float64
    assert decisions.probabilities.dtype == np.float32
    assert all(isinstance(status, Status) for status in decisions.status)


# ---- the gate --------------------------------------------------------------------------------------------------------


def with_others(digit: float, not_a_digit: float, blank: float) -> np.ndarray:
    """Logits of one page that give a 3, no digit and empty paper these shares of the probability."""
    shares = np.full(12, 1e-9)
    shares[[3, 10, 11]] = digit, not_a_digit, blank
    return np.log(shares + 1e-12)[None].astype(np.float32)


REFUSED = "what is on it does not look like one digit"
EMPTY = "it looks like empty paper"


@pytest.mark.parametrize(
    ("shares", "gate", "status", "detail"),
    [
        ((0.35, 0.65, 0.0), 0.6, Status.NOT_A_DIGIT, REFUSED),
        ((0.35, 0.05, 0.6), 0.6, Status.BLANK, EMPTY),
        ((0.35, 0.33, 0.32), 0.6, Status.NOT_A_DIGIT, REFUSED),
        ((0.45, 0.55, 0.0), 0.6, Status.REVIEW, "may be no digit"),
        ((0.45, 0.0, 0.55), 0.6, Status.REVIEW, "may be no digit"),
        ((0.75, 0.25, 0.0), 0.6, Status.REVIEW, "may be no digit"),
        ((0.94, 0.06, 0.0), 0.6, Status.REVIEW, "may be no digit"),
        ((0.96, 0.04, 0.0), 0.6, Status.OK, ""),
        ((0.55, 0.45, 0.0), 0.4, Status.NOT_A_DIGIT, REFUSED),
        ((0.001, 0.999, 0.0), 1.0, Status.OK, ""),
        ((0.001, 0.0, 0.999), 1.0, Status.OK, ""),
    ],
)
def test_the_gate_refuses_what_is_more_likely_no_digit_than_it_allows_and_asks_about_what_is_doubtful(
    shares: tuple[float, float, float], gate: float, status: Status, detail: str
) -> None:
    ink = inked(0.2, other=ANOTHER - 0.01)
    decisions = decide(with_others(*shares), ink, threshold=0.9, gate=gate)
    assert (decisions.status, decisions.detail) == ([status], [detail])
    passed = status in (Status.OK, Status.REVIEW)
    assert decisions.digit.tolist() == [3 if passed else NO_DIGIT]
    assert (decisions.runner_up[0] == NO_DIGIT) == (not passed)
    for column in (decisions.confidence, decisions.runner_up_confidence, decisions.probabilities):
        assert np.isnan(column).all() == (not passed)


@pytest.mark.parametrize(
    ("reader", "single", "status", "detail"),
    [
        (0.9, 1 - NONE_BEFORE, Status.NOT_A_DIGIT, REFUSED),  # the finder knows no more than it did before it looked
        (0.9, 0.999, Status.OK, ""),
        (0.9, 0.99, Status.REVIEW, "may be no digit"),
        (0.3, 0.3, Status.REVIEW, "may be no digit"),
        (0.04, 0.74, Status.OK, ""),
        (0.15, 0.74, Status.REVIEW, "may be no digit"),
        (0.5, 0.3, Status.NOT_A_DIGIT, SEVERAL_DIGITS),  # what is no single digit is several in these tests
        (0.003, 0.3, Status.OK, ""),
        (0.0001, 0.0001, Status.REVIEW, "may be no digit"),
    ],
)
def test_both_networks_have_a_say_in_what_is_no_digit(
    reader: float, single: float, status: Status, detail: str
) -> None:
    decisions = decide(with_others(1 - reader, reader, 0.0), inked(0.2, single=single), threshold=0.9, gate=0.8)
    assert (decisions.status, decisions.detail) == ([status], [detail])


def test_a_page_on_which_the_finder_was_not_asked_has_the_readers_word_alone() -> None:
    logits = with_others(0.7, 0.2, 0.1)
    assert no_digit(logits, inked(0.2))[0] == pytest.approx(0.3, abs=1e-3)
    assert no_digit(logits, inked(0.2, single=1 - NONE_BEFORE))[0] == pytest.approx(0.3, abs=1e-3)
    surer, less_sure = (no_digit(logits, inked(0.2, single=single))[0] for single in (0.95, 0.4))
    assert surer < 0.3 < less_sure


@pytest.mark.parametrize(("nothing", "status"), [(0.9, Status.BLANK), (0.85, Status.NOT_A_DIGIT)])
def test_where_the_finder_may_have_seen_writing_a_page_is_not_blank(nothing: float, status: Status) -> None:
    without_ink = decide(with_others(0.9, 0.05, 0.05), inked(0, nothing=nothing), threshold=0.9, gate=0.8)
    seen = "no ink was found" if status is Status.BLANK else "no digit was found on it"
    assert (without_ink.status, without_ink.detail) == ([status], [seen])
    refused = decide(with_others(0.05, 0.05, 0.9), inked(0.1, nothing=nothing), threshold=0.9, gate=0.8)
    assert (refused.status, refused.detail) == ([status], [EMPTY if status is Status.BLANK else REFUSED])
    assert (without_ink.digit[0], refused.digit[0]) == (NO_DIGIT, NO_DIGIT)


def test_another_thing_beside_what_the_finder_takes_for_a_single_digit_makes_it_doubtful() -> None:
    ink = np.concatenate([inked(0.1, other=ANOTHER + 0.01, single=single) for single in (0.9, 0.4)])
    decisions = decide(logits_of({3: 1}, {3: 1}), ink, threshold=0.9, gate=0.8)
    assert decisions.status == [Status.REVIEW, Status.NOT_A_DIGIT]
    assert decisions.detail == ["may be no digit", SEVERAL_DIGITS]  # what is no single digit is several there
    assert decisions.digit.tolist() == [3, NO_DIGIT]


def test_a_refused_page_on_which_the_finder_sees_several_digits_says_so() -> None:
    ink = np.concatenate([inked(0.1, 0, single=0.1), inked(0.1, single=0.1)])
    ink[2, SEVERAL], ink[2, FOREIGN] = 0.4, 0.5
    decisions = decide(with_others(0.05, 0.95, 0.0).repeat(3, 0), ink, threshold=0.9, gate=0.8)
    assert decisions.status == [Status.NOT_A_DIGIT] * 3
    assert decisions.detail == [SEVERAL_DIGITS, SEVERAL_DIGITS, REFUSED]


def test_what_is_unsure_and_doubtful_says_both() -> None:
    logits = logits_of({9: 0.6, 4: 0.4})
    ink = inked(0.1, other=ANOTHER + 0.01, single=0.9, depth=0.1)
    assert decide(logits, ink, threshold=0.9, gate=0.8).detail == ["could be 4 or 9; may be no digit; faint ink"]


def test_the_confidence_of_a_digit_that_passed_is_a_share_of_the_ten() -> None:
    decisions = decide(with_others(0.4, 0.6, 0.0), inked(1), threshold=0.9, gate=0.7)
    assert decisions.status == [Status.REVIEW]
    assert decisions.confidence[0] == 1
    assert abs(decisions.probabilities.sum() - 1) < 1e-3


def test_a_model_of_ten_outputs_refuses_nothing() -> None:
    decisions = decide(np.zeros((1, 10), np.float32), inked(1), threshold=0.9, gate=0.001)
    assert decisions.status == [Status.REVIEW]


def test_no_ink_is_blank_whatever_the_gate_would_say() -> None:
    decisions = decide(
        with_others(0.1, 0.9, 0.0), np.zeros((1, len(INK_MEASURES)), np.float32), threshold=0.9, gate=0.5
    )
    assert (decisions.status, decisions.detail) == ([Status.BLANK], ["no ink was found"])


@given(digest=st.binary(min_size=32, max_size=32), share=st.floats(0, 1))
@example(digest=b"\xff" * 32, share=1 - 2**-53)
@example(digest=b"\xff" * 32, share=1.0)
@example(digest=b"\x40" + b"\0" * 31, share=0.25)
@example(digest=b"\0" * 32, share=5e-324)
def test_a_file_is_drawn_where_the_number_that_its_sum_begins_with_is_below_the_share(
    digest: bytes, share: float
) -> None:
    assert in_sample([digest.hex()], share)[0] == (int(digest.hex()[:13], 16) < share * 16**13)

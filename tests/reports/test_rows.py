"""The rows of a report added up: its audit sample, what is left for people, and what failed."""

from dataclasses import replace

import numpy as np

from batchdigits.records import Status
from batchdigits.reports.rows import Tally
from tests.reports.report_rows import joined, seven, sevens


def test_the_audit_counts_answers_to_its_rows_alone() -> None:
    rows = replace(sevens(["a", "b", "c", "d", "e"]), sha256=["aa", "bb", "cc", "dd", "ee"])
    tally = Tally()
    tally.add(replace(rows, corrected=["7", "1", "c", "", "1"], audit=np.array([True, True, True, True, False])))
    for _ in range(3):  # copies of one image
        tally.add(replace(seven(), corrected=["7"], audit=np.array([True])))
    assert (tally.audit.sample, tally.audit.answered, tally.audit.wrong) == (5, 4, 2)
    assert (tally.rows, tally.digits) == ({"ok": 8}, {7: 8})
    assert tally.left == 1  # of the sample; the answered ones are done


def test_what_is_left_is_what_people_should_look_at_and_have_not_answered() -> None:
    tally = Tally()
    for status in Status:
        tally.add(seven(status=[status]))
        tally.add(seven(status=["answered"], verdict=[status], corrected=["7"]))
    assert tally.left == 3  # to review, blank, not a digit
    tally.add(seven(audit=np.array([True])))
    assert tally.left == 4


def test_the_first_rows_that_failed_are_named_so_that_a_terminal_can_show_them() -> None:
    tally = Tally()
    tally.add(sevens(["a.png", "b.png"]))
    failed = {"status": ["unreadable"], "page": [3]}
    tally.add(joined(seven("fine.png"), seven(r"a\\b\x0a‮c.png", status=["too_large"])))
    tally.add(joined(*(seven(f"{name}.tif", **failed) for name in "123")))
    assert tally.failed == [
        (r"a\\b\x0a\u202ec.png", "too_large"),
        ("1.tif, page 3", "unreadable"),
    ]

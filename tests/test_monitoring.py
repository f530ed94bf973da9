"""Monitoring: the seconds of each stage, and the one line that ends a run."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from batchdigits.monitoring import Stopwatch, Summary


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves its only entry."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def summary(**changes: Any) -> Summary:
    fields = {
        "files": 3,
        "pending": changes.get("files", 3),
        "rows": Counter(ok=2, review=1),
        "passed_over": Counter(),
        "faulty": 0,
        "seconds": {"list": 0.5, "read": 1.0},
    }
    return Summary(**{**fields, **changes})


def test_the_seconds_of_a_stage_are_added_up(clock: list[float]) -> None:
    watch = Stopwatch()
    for seconds in (1.5, 2.0):
        with watch.stage("read"):
            clock[0] += seconds
        clock[0] += 50  # nobody's
    assert watch.seconds == {"read": 3.5}


def test_stages_stand_in_the_order_in_which_they_first_ran(clock: list[float]) -> None:
    watch = Stopwatch()
    for name in ("list", "read", "predict", "read"):
        with watch.stage(name):
            clock[0] += 1
    assert list(watch.seconds.items()) == [("list", 1.0), ("read", 2.0), ("predict", 1.0)]


def test_a_stage_that_fails_is_counted_too(clock: list[float]) -> None:
    watch = Stopwatch()

    @watch.stage("read")
    def fail() -> None:
        clock[0] += 2
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert watch.seconds == {"read": 2.0}


def test_two_watches_do_not_share_their_seconds() -> None:
    first, second = Stopwatch(), Stopwatch()
    with first.stage("read"):
        pass
    assert second.seconds == {}


def test_items_pass_and_only_the_wait_for_them_is_counted(clock: list[float]) -> None:
    def slow() -> Iterator[int]:
        for item in range(3):
            clock[0] += 1
            yield item
        clock[0] += 0.5  # the end has to be waited for too

    watch = Stopwatch()
    found = []
    for item in watch.each("read", slow()):
        found.append(item)
        with watch.stage("predict"):
            clock[0] += 10
    assert found == [0, 1, 2]
    assert watch.seconds == {"read": 3.5, "predict": 30.0}


def test_items_are_taken_one_by_one_as_they_are_asked_for(clock: list[float]) -> None:
    source = iter(range(10))
    passed = Stopwatch().each("read", source)
    assert next(passed) == 0
    assert next(source) == 1


def test_an_exception_of_the_items_reaches_who_asked(clock: list[float]) -> None:
    def failing() -> Iterator[int]:
        yield 1
        clock[0] += 1
        message = "gone"
        raise ArithmeticError(message)

    watch = Stopwatch()
    with pytest.raises(ArithmeticError, match="gone"):
        list(watch.each("read", failing()))
    assert watch.seconds == {"read": 1.0}


def test_the_line_says_what_was_found_how_it_was_read_and_how_long_it_took() -> None:
    assert summary().line() == (
        "3 images found, 2 ok, 1 review, 0 blank, 0 unreadable; 2 images/s; seconds: list 0.5, read 1.0"
    )


def test_the_line_counts_pages_where_they_are_not_the_images() -> None:
    line = summary(files=1, rows=Counter(ok=5)).line()
    assert line.startswith("1 image found, 5 pages, 5 ok,")
    assert summary(files=2, rows=Counter(ok=1)).line().startswith("2 images found, 1 page, 1 ok,")
    assert "page" not in summary().line()


def test_the_line_names_every_other_status_that_occurred() -> None:
    rows = Counter(unsupported=4, too_large=1, unreadable=2, blank=3, not_a_digit=7)
    line = summary(files=17, rows=rows).line()
    expected = "0 ok, 0 review, 3 blank, 2 unreadable, 7 not_a_digit, 1 too_large, 4 unsupported;"
    assert line.startswith(f"17 images found, {expected}")


def test_the_line_counts_what_was_passed_over() -> None:
    assert ", 5 passed over;" in summary(passed_over=Counter({"not an image": 3, "hidden": 2})).line()


def test_the_line_counts_what_was_new_where_not_all_was() -> None:
    line = summary(files=10, pending=4, rows=Counter(ok=10), seconds={"list": 2.0}).line()
    assert line.startswith("10 images found, 4 of them new or changed, 10 ok,")
    assert "; 2 images/s;" in line


def test_the_rate_is_that_of_the_whole_run_with_its_thousands_parted() -> None:
    assert "; 12,346 images/s;" in summary(files=12_346, rows=Counter(ok=12_346), seconds={"a": 0.25, "b": 0.75}).line()


@pytest.mark.parametrize("seconds", [{}, {"list": 0.0}])
def test_a_run_without_images_or_seconds_has_a_line_too(seconds: dict[str, float]) -> None:
    line = summary(files=0, rows=Counter(), seconds=seconds).line()
    assert line.startswith("0 images found, 0 ok,")
    assert "0 images/s" in line
    assert "\n" not in line

"""The first signal lets the batch in progress be finished, the second does not; and the seconds of each stage."""

import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from batchdigits.engine import run_context
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.errors import BatchDigitsError, ExitCode, Interrupted, Terminated
from tests.cli_runner import run

CASES = [
    (signal.SIGINT, Interrupted, ExitCode.INTERRUPTED),
    (signal.SIGTERM, Terminated, ExitCode.TERMINATED),
    (signal.SIGHUP, Terminated, ExitCode.TERMINATED),
]


@pytest.mark.parametrize(("number", "error", "code"), CASES)
def test_a_signal_waits_for_the_work_in_hand(number: int, error: type[BatchDigitsError], code: ExitCode) -> None:
    done: list[str] = []

    def work(stop: Stop) -> None:
        with stop.patiently():
            os.kill(os.getpid(), number)
            done.append("the batch")
        done.append("and more")

    with Stop() as stop, pytest.raises(error) as raised:
        work(stop)
    assert done == ["the batch"]
    assert raised.value.exit_code == code
    assert "goes on from there" in str(raised.value)


@pytest.mark.parametrize(("number", "error", "code"), CASES)
def test_a_second_signal_does_not_wait(
    number: int, error: type[BatchDigitsError], code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_context, "_ECHO_SECONDS", 0.0)
    done: list[str] = []

    def work(stop: Stop) -> None:
        with stop.patiently():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), number)
            done.append("the batch")

    with Stop() as stop, pytest.raises(error):
        work(stop)
    assert done == []


@pytest.mark.parametrize(("number", "error", "code"), CASES)
def test_a_signal_that_comes_twice_at_once_is_one(number: int, error: type[BatchDigitsError], code: ExitCode) -> None:
    done: list[str] = []

    def work(stop: Stop) -> None:
        with stop.patiently():
            for _ in range(3):  # as of `timeout`, which signals its command, and then the group of that
                os.kill(os.getpid(), number)
            done.append("the batch")

    with Stop() as stop, pytest.raises(error):
        work(stop)
    assert done == ["the batch"]


@pytest.fixture
def _handlers_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number, _, _ in CASES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers_as_they_were")
@pytest.mark.parametrize(("number", "error", "code"), CASES)
def test_a_signal_before_the_run_waits_for_it_and_one_after_it_changes_nothing(
    number: int, error: type[BatchDigitsError], code: ExitCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_context.hold_signals()
    with Stop() as stop, stop.patiently():
        pass
    os.kill(os.getpid(), number)
    with pytest.raises(error), Stop() as stop, stop.patiently():
        pass
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(run_context, "_ECHO_SECONDS", 0.0)
    os.kill(os.getpid(), number)
    assert ended == [code]  # whoever asks twice does not wait for what hangs


ASKED_TO_END = """
import os, signal, sys
from batchdigits.engine.run_context import hold_signals, release_signals
hold_signals()
os.kill(os.getpid(), int(sys.argv[1]))
release_signals()
"""


@pytest.mark.parametrize(("number", "error", "code"), CASES)
def test_a_signal_that_was_held_for_what_is_no_run_ends_the_process(
    number: int, error: type[BatchDigitsError], code: ExitCode
) -> None:
    assert run([sys.executable, "-c", ASKED_TO_END, str(number)]).code == -number


@pytest.mark.parametrize(("number", "error", "code"), CASES)
def test_between_batches_a_signal_ends_the_run_at_once(
    number: int, error: type[BatchDigitsError], code: ExitCode
) -> None:
    with Stop() as stop:
        with stop.patiently():
            pass
        with pytest.raises(error):
            os.kill(os.getpid(), number)


def test_a_signal_while_the_run_ends_ends_the_process_with_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    with Stop():
        for number, error, _ in CASES[:2]:
            with pytest.raises(error):  # the second only where `os._exit` comes back
                os.kill(os.getpid(), number)
    assert ended == [ExitCode.TERMINATED]


def test_the_signals_are_given_back() -> None:
    before = [signal.getsignal(number) for number, _, _ in CASES]
    with Stop():
        assert [signal.getsignal(number) for number, _, _ in CASES] != before
    assert [signal.getsignal(number) for number, _, _ in CASES] == before


def work_on(stop: Stop, done: list[str], *, before: int = 0, within: int = 0, after: int = 0) -> None:
    """Go through a ready block within a patient one, with signals in between; note what is reached."""

    def take(number: int) -> None:
        if number:
            os.kill(os.getpid(), number)

    with stop.patiently():
        take(before)
        try:
            with stop.readily():
                take(within)
                done.append("the next batch")
        except BatchDigitsError as error:
            done.append(type(error).__name__)
        take(after)
        done.append("what was begun")
    done.append("all")


@pytest.mark.parametrize(("number", "error", "code"), CASES)
@pytest.mark.parametrize("when", ["before", "within"])
def test_a_signal_ends_a_ready_block_and_not_the_patient_one_around_it(
    number: int, error: type[BatchDigitsError], code: ExitCode, when: str
) -> None:
    done: list[str] = []
    with Stop() as stop, pytest.raises(error):
        work_on(stop, done, **{when: number})
    assert done == [error.__name__, "what was begun"]


def test_after_a_ready_block_signals_wait_again() -> None:
    done: list[str] = []
    with Stop() as stop, pytest.raises(Terminated):
        work_on(stop, done, after=signal.SIGTERM)
    assert done == ["the next batch", "what was begun"]


def test_without_a_signal_both_blocks_come_to_their_end() -> None:
    done: list[str] = []
    with Stop() as stop:
        work_on(stop, done)
    assert done == ["the next batch", "what was begun", "all"]


def test_whoever_presses_ctrl_c_hears_at_once_that_the_batch_is_being_finished() -> None:
    heard: list[str] = []
    with pytest.raises(Interrupted), Stop(lambda: heard.append("waiting")) as stop, stop.patiently():
        signal.raise_signal(signal.SIGINT)
    assert heard == ["waiting"]
    with pytest.raises(Interrupted), Stop(lambda: heard.append("again")) as stop, stop.patiently(), stop.readily():
        signal.raise_signal(signal.SIGINT)  # ends it at once
    with pytest.raises(Terminated), Stop(lambda: heard.append("a scheduler")) as stop, stop.patiently():
        signal.raise_signal(signal.SIGTERM)
    assert heard == ["waiting"]


# the seconds of its stages


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves its only entry."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def test_the_seconds_of_a_stage_are_added_up(clock: list[float]) -> None:
    timer = StageTimer()
    for seconds in (1.5, 2.0):
        with timer.stage("decode"):
            clock[0] += seconds
        clock[0] += 50  # nobody's
    assert timer.seconds == {"decode": 3.5}


def test_stages_stand_in_the_order_in_which_an_image_passes_through_whichever_ran_first(clock: list[float]) -> None:
    timer = StageTimer()
    for name in ("predict", "decode", "list", "decode"):
        with timer.stage(name):
            clock[0] += 1
    assert list(timer.seconds.items()) == [("list", 1.0), ("decode", 2.0), ("predict", 1.0)]


def test_a_stage_that_fails_is_counted_too(clock: list[float]) -> None:
    timer = StageTimer()

    @timer.stage("decode")
    def fail() -> None:
        clock[0] += 2
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fail()
    assert timer.seconds == {"decode": 2.0}


def test_time_that_was_measured_elsewhere_is_added_to_its_stage(clock: list[float]) -> None:
    timer = StageTimer()
    with timer.stage("decode"):
        clock[0] += 3
    timer.add("decode", 2.0)
    timer.add("normalise", 0.5)
    assert timer.seconds == {"decode": 5.0, "normalise": 0.5}


def test_the_run_has_taken_what_the_clock_says_whatever_its_stages_did(clock: list[float]) -> None:
    timer = StageTimer()
    timer.add("decode", 100.0)
    clock[0] += 7
    assert timer.elapsed == 7


def test_two_timers_do_not_share_their_seconds() -> None:
    first, second = StageTimer(), StageTimer()
    with first.stage("decode"):
        pass
    assert second.seconds == {}

"""The line that tells what a run is doing: what is recorded, at which rate, and that the clock goes on."""

import logging
import signal
import sys
import time
from pathlib import Path

import pytest

from batchdigits.progress import Progress
from tests.cli_runner import on_a_terminal
from tests.sample_pages import one_of_each, write_png


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still until a test moves its only entry."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_is_recorded_is_done_and_nothing_else(clock: list[float]) -> None:
    progress = Progress(is_shown=False)
    progress.say("Looking for images")
    clock[0] += 3
    assert progress.line() == "Looking for images … 0:03"
    progress.say("Loading the model", 3000)
    clock[0] += 11
    assert progress.line() == "Loading the model: 0/3,000 images … 0:14"


def test_the_rate_is_that_of_recording_without_the_time_that_the_model_took_to_load(clock: list[float]) -> None:
    progress = Progress(is_shown=False)
    progress.say("Reading", 3000)
    clock[0] += 20
    progress.record(1000)
    clock[0] += 1
    assert progress.line() == "Reading: 1,000/3,000 images (33%) … 0:21"  # one batch tells no rate
    clock[0] += 9
    progress.record(1000)
    assert progress.line() == "Reading: 2,000/3,000 images (67%), 100/s, 0:10 left … 0:30"


def test_hours_are_told_as_hours(clock: list[float]) -> None:
    progress = Progress(is_shown=False)
    progress.say("Writing report.xlsx")
    clock[0] += 3600 + 5 * 60 + 9
    assert progress.line() == "Writing report.xlsx … 1:05:09"


def test_what_is_not_shown_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(is_shown=False) as progress:
        progress.say("Reading", 3)
        progress.record(3)
    assert capsys.readouterr() == ("", "")


def test_a_message_takes_the_line_away_first(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("batchdigits")
    handler = logging.StreamHandler()
    log.addHandler(handler)
    try:
        with Progress(is_shown=True) as progress:
            progress.say("Looking for images")
            log.warning("Left out.")
        log.warning("The end.")
    finally:
        log.removeHandler(handler)
    line = "\r\x1b[KLooking for images … 0:00\r\x1b[K"
    assert capsys.readouterr().err == f"{line}Left out.\n\r\x1b[KThe end.\n"


def test_while_it_rests_nothing_is_written_over_what_else_comes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batchdigits.progress._TICK", 0.01)
    with Progress(is_shown=True) as progress:
        progress.say("Reading", 3)
        progress.tick()
        progress.rest()
        time.sleep(0.02)
        capsys.readouterr()
        time.sleep(0.1)
        assert capsys.readouterr().err == ""
        progress.say("Writing report.csv")
        assert "Writing report.csv" in capsys.readouterr().err


def test_a_report_on_the_terminal_stands_on_lines_of_its_own(tmp_path: Path) -> None:
    write_png(tmp_path / "scans" / "7.png", one_of_each()[7])
    program = [sys.executable, "-m", "tests.fake_model_cli"]
    done = on_a_terminal("predict", tmp_path / "scans", "-o", "-", "--no-ledger", program=program)
    assert done.code == 0
    assert "Writing" not in done.stderr


def test_the_clock_ticks_on_a_terminal_and_the_line_goes_where_ctrl_c_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(400):
        write_png(tmp_path / "scans" / f"{number}.png", one_of_each()[number % 10])
    monkeypatch.setenv("SLOW", str(tmp_path / "slow"))
    program = [sys.executable, "-m", "tests.fake_model_cli"]
    job = ("predict", tmp_path / "scans", "-o", tmp_path / "r.csv", "--workers", "1")
    done = on_a_terminal(*job, program=program, signal_after=(b"Loading", int(signal.SIGINT)))
    assert done.code == 130
    lines = done.stderr.replace("\x1b[K", "").replace("\n", "").split("\r")
    assert "Interrupted: what was finished is kept, the next run goes on from there." in lines
    assert any(line.startswith("Loading the model: 0/400 images") for line in lines)

"""The installed command, killed, interrupted and overlapped: whatever happens to a run, the next one makes it good."""

import csv
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from batchdigits.ledger.location import held
from batchdigits.storage.local import file_sha256
from tests.cli_runner import CHECKOUT, PATIENCE, Result, batchdigits, environment, run
from tests.sample_pages import write_differing

FILES = 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that all differ, so that each is predicted."""
    folder = tmp_path_factory.mktemp("killed") / "scans"
    write_differing(folder, FILES)
    return folder


def command(folder: Path, report: Path, *options: str) -> list[str]:
    """The command with a stand-in for the model; `tests/benchmarks/reliability.py` kills it with TensorFlow, too."""
    return [sys.executable, "-m", "tests.fake_model_cli", "predict", str(folder), "-o", str(report), *options]


def stand_in(folder: Path, report: Path, *options: str, crash_on: Path | None = None) -> Result:
    """Run it to its end, with a decoder that crashes on one file, if there is one."""
    crash = {"CRASH_ON": file_sha256(crash_on)} if crash_on else {}
    return run(command(folder, report, *options), cwd=CHECKOUT, env=crash)


@pytest.fixture(scope="module")
def expected(folder: Path) -> bytes:
    """The report of a run that nobody disturbs."""
    assert stand_in(folder, folder.with_name("whole.csv"), "--no-ledger").code == 0
    return folder.with_name("whole.csv").read_bytes()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    return tmp_path / "report.csv"


def started(folder: Path, report: Path, *options: str) -> "subprocess.Popen[str]":
    """Start it so that it takes some seconds; the file `count` beside the report says how many files were decoded."""
    slowly = environment({"SLOW": report.with_name("count")})
    arguments = command(folder, report, *(options or ("--batch-size", "20")))
    return subprocess.Popen(arguments, cwd=CHECKOUT, env=slowly, stderr=subprocess.PIPE, text=True)


def known(report: Path) -> int:
    """Count the files that a ledger knows so far."""
    ledger = Path(f"{report}.ledger")
    if not ledger.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=5)) as database:
            return int(database.execute("SELECT count(*) FROM pages WHERE page = 1").fetchone()[0])
    except sqlite3.OperationalError:  # its tables are being made
        return 0


def wait_until_known(files: int, report: Path, run: "subprocess.Popen[str]") -> None:
    for _ in range(100 * PATIENCE):
        if known(report) >= files or run.poll() is not None:
            return
        time.sleep(0.01)
    pytest.fail("the run is stuck")


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, 130, "Interrupted")]
)
def test_a_signal_keeps_what_was_finished_and_the_next_run_goes_on(
    number: int, code: int, word: str, folder: Path, report: Path, expected: bytes
) -> None:
    run = started(folder, report)
    wait_until_known(40, report, run)
    run.send_signal(number)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == code
    assert f"{word}: what was finished is kept" in said
    assert not report.exists()
    kept = known(report)
    assert 40 <= kept < FILES
    again = stand_in(folder, report)
    assert again.code == 0
    assert f"{FILES - kept} of them new or changed" in again.stderr
    assert report.read_bytes() == expected


def test_time_in_which_somebody_had_stopped_the_run_counts_for_no_worker(folder: Path, report: Path) -> None:
    impatient = "from batchdigits.engine import pool; pool.SECONDS = 6; import runpy; "
    program = [sys.executable, "-c", impatient + "runpy.run_module('tests.fake_model_cli', run_name='__main__')"]
    slowly = environment({"SLOW": report.with_name("count")})
    job = [*program, *command(folder, report, "-v")[3:]]
    run = subprocess.Popen(job, cwd=CHECKOUT, env=slowly, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until_known(20, report, run)
    os.killpg(run.pid, signal.SIGSTOP)  # as Ctrl-Z does, for longer than a decoder may take
    time.sleep(8)
    run.send_signal(signal.SIGCONT)
    time.sleep(0.5)  # it looks at the workers before these can say anything
    os.killpg(run.pid, signal.SIGCONT)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0
    assert "A worker died" not in said


def test_a_run_whose_terminal_is_closed_ends_as_one_that_was_terminated(folder: Path, report: Path) -> None:
    summary = report.with_suffix(".json")
    ours, theirs = pty.openpty()
    job = [sys.executable, "-c", ON_ITS_TERMINAL, *command(folder, report, "--summary", str(summary))]
    env = environment({"SLOW": report.with_name("count")})
    run = subprocess.Popen(
        job, cwd=CHECKOUT, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, text=True
    )
    os.close(theirs)
    wait_until_known(40, report, run)
    os.close(ours)
    assert run.wait(timeout=PATIENCE) == 143
    assert json.loads(summary.read_text())["error"].startswith("Terminated: what was finished is kept")


ON_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that its end is told by SIGHUP
os.execv(sys.argv[1], sys.argv[1:])
"""

PONDEROUS = """
import os, time
from pathlib import Path
from batchdigits.engine import pool
from tests import fake_model_cli

def decode(*arguments):
    Path(os.environ["BEGUN"]).touch()
    for _ in range(16):
        time.sleep(0.05)
    return quickly(*arguments)

pool.SECONDS = 3.0
quickly, fake_model_cli.worker.decode = fake_model_cli.worker.decode, decode
fake_model_cli.app.main()
"""


def test_a_decoder_that_was_stopped_with_the_run_has_the_rest_of_its_time(report: Path) -> None:
    scans, begun = report.with_name("scans"), report.with_name("begun")
    write_differing(scans, 1)
    job = [sys.executable, "-c", PONDEROUS, "predict", str(scans), "-o", str(report), "-v"]
    env = environment({"BEGUN": begun})
    run = subprocess.Popen(job, cwd=CHECKOUT, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for _ in range(100 * PATIENCE):
        if begun.exists():
            break
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGSTOP)
    time.sleep(3)  # while nobody has anything to say, so that the run would wait for as long as a decoder may take
    os.killpg(run.pid, signal.SIGCONT)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0
    assert "A worker died" not in said


def test_a_signal_at_any_moment_after_the_report_is_written_leaves_an_exit_code(report: Path) -> None:
    write_differing(report.with_name("scans"), 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        run = subprocess.Popen(command(report.with_name("scans"), report), cwd=CHECKOUT, env=environment())
        while not report.exists() and run.poll() is None:
            time.sleep(0.001)
        until = time.monotonic() + PATIENCE
        while run.poll() is None and time.monotonic() < until:  # so that one meets Python as it ends
            run.send_signal(number)
            time.sleep(0.0005)
        assert run.returncode in (0, 128 + number)
        report.unlink()


LATE = """
import atexit, os, runpy, signal, sys

class Last:
    def __init__(self):
        self.end = os.kill, os.getpid(), signal.SIGTERM

    def __del__(self):  # when Python has given its signals back
        kill, *call = self.end
        kill(*call)

sys.last = Last()
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
runpy.run_module("tests.fake_model_cli", run_name="__main__")
"""


def test_a_signal_as_python_ends_changes_no_exit_code(report: Path) -> None:
    write_differing(report.with_name("scans"), 1)
    assert run([sys.executable, "-c", LATE, *command(report.with_name("scans"), report)[3:]], cwd=CHECKOUT).code == 0


def test_a_limit_of_time_that_is_shorter_than_a_batch_lets_every_run_finish_something(
    folder: Path, report: Path
) -> None:
    before = 0
    for _ in range(2):
        run = started(folder, report, "--batch-size", "2000")
        while run.poll() is None and not (report.with_name("report.csv.ledger").exists() and known(report) > before):
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=PATIENCE)
        assert run.returncode == 143
        before = known(report)
    assert before < FILES


@pytest.fixture(params=[1, 160, 320])
def killed(request: pytest.FixtureRequest, folder: Path, report: Path) -> int:
    """A run that was killed when it knew so many files: how many it knew in the end."""
    run = started(folder, report)
    wait_until_known(request.param, report, run)
    run.kill()
    run.communicate(timeout=PATIENCE)
    assert run.returncode == -signal.SIGKILL
    return known(report)


def test_a_killed_run_is_made_good_by_the_next(killed: int, folder: Path, report: Path, expected: bytes) -> None:
    assert 0 < killed < FILES
    assert not report.exists()
    assert stand_in(folder, report).code == 0
    assert report.read_bytes() == expected


def test_a_second_run_at_the_same_time_is_turned_away_or_waits(folder: Path, report: Path, expected: bytes) -> None:
    with held(Path(f"{report}.ledger"), wait_seconds=0):  # another run has it
        refused = stand_in(folder, report)
        skipped = stand_in(folder, report, "--if-locked", "skip")
        waiting = started(folder, report, "--wait", str(PATIENCE))
        time.sleep(1)
        assert waiting.poll() is None
        assert not report.exists()
    waiting.communicate(timeout=PATIENCE)
    assert (refused.code, skipped.code, waiting.returncode) == (75, 0, 0)
    assert f"pid {os.getpid()} on " in refused.message
    assert report.read_bytes() == expected


def test_nothing_new_leaves_the_report_as_it_is_and_loads_no_model(folder: Path, report: Path) -> None:
    assert batchdigits("predict", folder, "-o", report, "--runtime", "litert").code == 0
    before = (report.stat().st_mtime_ns, file_sha256(report))
    again = batchdigits("predict", folder, "-o", report, "--runtime", "litert", "-v")
    assert again.code == 0
    assert "load model" not in again.stderr
    assert (report.stat().st_mtime_ns, file_sha256(report)) == before


# ---- a file that crashes its decoder ---------------------------------------------------------------------------------


def rows_of(report: Path) -> dict[str, dict[str, str]]:
    return {row["path"]: row for row in csv.DictReader(report.read_text(encoding="utf-8").splitlines())}


def test_how_a_worker_ended_is_told_where_who_started_the_run_ignores_that_of_processes(
    folder: Path, report: Path
) -> None:
    ignoring = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    ignoring += "os.execv(sys.argv[1], sys.argv[1:])"
    env = {"CRASH_ON": file_sha256(folder / "123.png")}
    assert run([sys.executable, "-c", ignoring, *command(folder, report)], cwd=CHECKOUT, env=env).code == 3
    assert rows_of(report)["123.png"]["detail"].startswith("crashes its decoder (SIGSEGV); ")


def test_a_file_that_crashes_its_decoder_is_a_row_of_the_same_run(folder: Path, report: Path) -> None:
    scans = Path(shutil.copytree(folder, report.with_name("scans")))
    killer = scans / "123.png"
    assert stand_in(scans, report, crash_on=killer).code == 3
    rows = rows_of(report)
    row = rows.pop("123.png")
    assert len(rows) == FILES - 1
    assert (row["status"], row["sha256"]) == ("unreadable", file_sha256(killer))
    assert row["detail"].startswith("crashes its decoder (SIGSEGV); ")
    before = report.stat()
    assert stand_in(scans, report, crash_on=killer).code == 0
    assert report.stat() == before
    shutil.copy(scans / "124.png", killer)  # somebody exports it anew
    assert stand_in(scans, report).code == 0
    exported = rows_of(report)
    assert exported.pop("123.png")["status"] in ("ok", "review")
    assert exported == rows

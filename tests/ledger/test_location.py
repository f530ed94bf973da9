"""One run at a time: whoever comes second is told who is at work, waits, or goes."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchdigits.errors import ExitCode, Locked, StorageError
from batchdigits.ledger.location import held

HOLD = """
import sys, time, pathlib
from batchdigits.ledger.location import held

with held(pathlib.Path(sys.argv[1]), wait_seconds=0):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "report.csv.ledger"


def test_a_second_run_is_told_who_holds_the_ledger(ledger: Path) -> None:
    def come_second() -> None:
        with held(ledger, wait_seconds=0):
            pass

    with held(ledger, wait_seconds=0), pytest.raises(Locked) as error:
        come_second()
    assert error.value.exit_code == ExitCode.LOCKED
    assert re.search(rf"report\.csv\.ledger: pid {os.getpid()} on \S+ since 20\d\d-", str(error.value))


def test_the_lock_is_free_again_after_a_run_that_ended_well_and_after_one_that_failed(ledger: Path) -> None:
    with pytest.raises(ArithmeticError), held(ledger, wait_seconds=0):
        raise ArithmeticError
    with held(ledger, wait_seconds=0):
        pass
    with held(ledger, wait_seconds=0):
        pass


def test_a_link_to_a_ledger_has_the_same_lock(ledger: Path) -> None:
    (ledger.parent / "elsewhere").mkdir()
    link = ledger.parent / "elsewhere" / "link"
    link.symlink_to(ledger)

    def come_second() -> None:
        with held(link, wait_seconds=0):
            pass

    with held(ledger, wait_seconds=0), pytest.raises(Locked):
        come_second()


def test_ledgers_of_two_reports_do_not_block_each_other(ledger: Path) -> None:
    with held(ledger, wait_seconds=0), held(ledger.with_name("other.csv.ledger"), wait_seconds=0):
        pass


def test_the_lock_dies_with_its_process(ledger: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(ledger)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Locked, match=f"pid {holder.pid} "), held(ledger, wait_seconds=0):
        pass
    holder.kill()
    holder.communicate()
    with held(ledger, wait_seconds=5):
        pass


def test_one_that_waits_gets_the_lock_when_the_other_lets_go(ledger: Path) -> None:
    got = threading.Event()

    def wait() -> None:
        with held(ledger, wait_seconds=60):
            got.set()

    with held(ledger, wait_seconds=0):
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.5)
    assert got.wait(30)
    waiting.join()


def test_a_lock_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"), held(tmp_path / "nowhere" / "x", wait_seconds=0):
        pass

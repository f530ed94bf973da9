"""One run at a time: whoever comes second is told who is at work, waits, or goes."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from batchdigits.errors import ExitCode, Locked, StorageError
from batchdigits.ledger.location import copied, held
from batchdigits.storage.guards import locked

HOLD = """
import sys, time, pathlib
from batchdigits.ledger.location import copied, held
from batchdigits.storage.guards import locked

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
    ledger.touch()
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


def test_a_lock_is_private_unless_others_write_the_ledger(ledger: Path) -> None:
    lock = ledger.with_name(f".{ledger.name}.lock")
    for mode, expected in ((None, 0o600), (0o644, 0o600), (0o664, 0o660)):
        if mode:
            ledger.touch()
            ledger.chmod(mode)
        with held(ledger, wait_seconds=0):
            assert stat.S_IMODE(lock.stat().st_mode) == expected


def test_a_process_that_is_gone_is_never_named(ledger: Path) -> None:
    lock = ledger.with_name(f".{ledger.name}.lock")
    gone = subprocess.Popen(["true"])
    gone.wait()
    with locked(lock, wait_seconds=0) as descriptor:
        os.pwrite(descriptor, f"pid {gone.pid} on {socket.gethostname()} since 2026-01-01\n".encode(), 0)
        with pytest.raises(Locked, match=r"holds the ledger \S+\.ledger; try again"), held(ledger, wait_seconds=0):
            pass


def test_a_run_that_has_ended_leaves_no_name(ledger: Path) -> None:
    with held(ledger, wait_seconds=0):
        pass
    assert ledger.with_name(f".{ledger.name}.lock").read_bytes() == b""


@pytest.mark.parametrize("name", ["x.ledger", "x.ledger-journal", ".x.ledger.lock"])
def test_a_pipe_in_the_place_of_a_ledgers_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(StorageError, match="no file|is a pipe"), held(tmp_path / "x.ledger", wait_seconds=10):
        pass
    with pytest.raises(StorageError, match="no file|is a pipe"), copied(tmp_path / "x.ledger"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_journal_of_somebody_else_is_not_played_into_the_ledger(ledger: Path) -> None:
    ledger.touch()
    journal = Path(f"{ledger}-journal")
    journal.write_bytes(b"theirs")
    os.chown(journal, 65534, 65534)
    with pytest.raises(StorageError, match="is a file of another user"), held(ledger, wait_seconds=0):
        pass
    os.chown(ledger, 65534, 65534)  # it is theirs, and they may write it
    with held(ledger, wait_seconds=0):
        pass


def test_a_link_in_the_place_of_the_lock_makes_no_file(ledger: Path) -> None:
    ledger.with_name(f".{ledger.name}.lock").symlink_to("elsewhere")
    with pytest.raises(StorageError, match="is a symbolic link"), held(ledger, wait_seconds=0):
        pass
    assert not (ledger.parent / "elsewhere").exists()

"""Processes: they import nothing from where the run was started, and their death ends their pipe."""

import os
import shutil
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from batchdigits.engine import children
from batchdigits.storage.local import file_sha256
from tests.cli_runner import BATCHDIGITS, CHECKOUT, run
from tests.sample_pages import digits, write_png

NAMES = ("multiprocessing", "pickle", "socket", "queue", "numpy", "cv2", "PIL", "hashlib", "tempfile", "signal")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with a scan, and with modules that leave a mark where they run."""
    folder = tmp_path / "scans"
    write_png(folder / "7.png", digits(60)[0])
    for name in NAMES:
        (folder / f"{name}.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r} + {name!r})")
    return folder


def ran(scans: Path) -> list[str]:
    return sorted(path.name for path in scans.parent.glob("ran*"))


@pytest.mark.parametrize("command", [[BATCHDIGITS], [sys.executable, "-m", "batchdigits"]], ids=["installed", "module"])
def test_nothing_of_the_scans_folder_is_imported(command: list[str], scans: Path) -> None:
    options = ["predict", ".", "--runtime", "litert", "--workers", "2", "-o", "../r.csv"]
    for again in ([], ["--force"]):
        found = run([*command, *options, *again], cwd=scans)
        assert (found.code, ran(scans)) == (0, []), found.stderr


def test_nothing_of_the_scans_folder_is_imported_by_who_reads_on_after_a_worker_that_died(scans: Path) -> None:
    program = scans.with_name("program.py")
    program.write_text("from tests.fake_model_cli import app\nif __name__ == '__main__':\n    app.main()\n")
    killer = file_sha256(scans / "7.png")
    command = [sys.executable, program, "predict", ".", "-o", "../r.csv"]
    found = run(command, cwd=scans, env={"PYTHONPATH": CHECKOUT, "CRASH_ON": killer})
    assert (found.code, "1 failed" in found.stderr, ran(scans)) == (3, True, [])


FROM_A_PROMPT = """
import sys
here = sys.path.pop(0)
from batchdigits.engine import children
from tests.engine import test_children
sys.path.insert(0, here)
ours, process = children.start(test_children.look, "numpy", "queue")
with children.one_for_each_core(len, "") as processes:
    lies_here = list(processes.map(test_children.lies_here, ["numpy", "queue"]))
child = children.Child(test_children.look_again, "numpy", "queue", fork=False)
is_safe = "PYTHONSAFEPATH" in __import__("os").environ
print(here == "", ours.recv(), lies_here, child.answers.recv(), is_safe, sys.path[0] == "")
"""


def look(connection: Connection, *names: str) -> None:
    """What a process does in these tests: it imports modules, and says where they are."""
    connection.send([lies_here(name) for name in names])


def look_again(_: Connection, answers: Connection, *names: str) -> None:
    """What a worker does in these tests."""
    look(answers, *names)


def lies_here(name: str) -> bool:
    return Path(str(__import__(name).__file__)).is_relative_to(Path.cwd())


def test_what_is_started_from_a_prompt_in_the_scans_folder_imports_nothing_from_there(scans: Path) -> None:
    found = run([sys.executable, "-c", FROM_A_PROMPT], cwd=scans, env={"PYTHONPATH": CHECKOUT})
    assert (found.code, found.stderr) == (0, "")
    assert found.stdout == "True [False, False] [False, False] [False, False] False True\n"
    assert ran(scans) == []


WITHOUT_ROOM = """
from batchdigits.engine import children
children._PRELOADED.append("full")
try:
    children.Child(len, fork=False)
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere there is no server")
def test_where_the_server_has_no_room_for_a_process_the_error_is_that_of_a_fork(tmp_path: Path) -> None:
    (tmp_path / "full.py").write_text("import os\ndef full():\n    raise BlockingIOError\nos.fork = full\n")
    found = run([sys.executable, "-c", WITHOUT_ROOM], env={"PYTHONPATH": f"{CHECKOUT}{os.pathsep}{tmp_path}"})
    assert (found.code, found.stdout) == (0, "Resource temporarily unavailable\n")


def end(connection: Connection) -> None:
    """Half of a message, and the end."""
    os.write(connection.fileno(), b"\0\0\1\0half")
    os._exit(1)


def test_the_death_of_a_process_is_the_end_of_its_pipe() -> None:
    ours, process = children.start(end)
    with ours, pytest.raises((EOFError, OSError)):
        ours.recv()
    process.join()
    assert process.exitcode == 1


def test_a_program_that_lies_in_the_current_folder_still_finds_itself(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "batchdigits", tmp_path / "batchdigits", ignore=shutil.ignore_patterns("__pycache__"))
    found = run([sys.executable, "-m", "batchdigits", "--version"], cwd=tmp_path)
    assert (found.code, found.stdout[:12]) == (0, "batchdigits ")

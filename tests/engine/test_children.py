"""Processes: they import nothing from where the run was started, ask back, and their death ends their pipe."""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from batchdigits.engine import children
from batchdigits.engine.children import AskedBack, Child, DiedError, answering, asking_back, reply_to
from batchdigits.storage.local import file_sha256
from tests.commands import BATCHDIGITS, CHECKOUT, run
from tests.digits import digits, make_work_for_processes, write_png

NAMES = ("multiprocessing", "pickle", "socket", "queue", "numpy", "cv2", "PIL", "hashlib", "tempfile", "signal")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with a file so large that processes read it, and with modules that leave a mark where they run."""
    folder = tmp_path / "scans"
    make_work_for_processes(write_png(folder / "7.png", digits(60)[0]))
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


def test_nothing_of_the_scans_folder_is_imported_by_who_reads_what_killed_a_run(scans: Path) -> None:
    program = scans.with_name("program.py")
    program.write_text("from tests.fake_model_cli import app\nif __name__ == '__main__':\n    app.main()\n")
    killer = file_sha256(scans / "7.png")
    for _ in range(2):
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
print(here == "", ours.recv(), lies_here, "PYTHONSAFEPATH" in __import__("os").environ, sys.path[0] == "")
"""


def look(connection: Connection, *names: str) -> None:
    """What a process does in these tests: it imports modules, and says where they are."""
    connection.send([lies_here(name) for name in names])


def lies_here(name: str) -> bool:
    return Path(str(__import__(name).__file__)).is_relative_to(Path.cwd())


def test_what_is_started_from_a_prompt_in_the_scans_folder_imports_nothing_from_there(scans: Path) -> None:
    found = run([sys.executable, "-c", FROM_A_PROMPT], cwd=scans, env={"PYTHONPATH": CHECKOUT})
    assert (found.code, found.stderr) == (0, "")
    assert found.stdout == "True [False, False] [False, False] False True\n"
    assert ran(scans) == []


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


# ---- asking back -------------------------------------------------------------------------------------------------


def add_up(questions: Connection, answers: Connection, replies: Connection, start: int) -> None:
    """What a child runs in these tests: it asks back for each number up to the one in the question, and adds up."""
    ask_back = asking_back(answers, replies)
    answering(questions, answers, lambda number: start + sum(ask_back(value) for value in range(number)))


def recover(questions: Connection, answers: Connection, replies: Connection) -> None:
    """It tells what it met when it asked back, and goes on."""
    ask_back = asking_back(answers, replies)

    def answer(question: int) -> str:
        try:
            return f"{ask_back(question)}"
        except ValueError as error:
            return f"met {error}"

    answering(questions, answers, answer)


def die_after_asking(questions: Connection, answers: Connection, replies: Connection) -> None:
    """It asks back, and ends before it answers."""
    ask_back = asking_back(answers, replies)
    answering(questions, answers, lambda question: os._exit(int(ask_back(question))))


def refuse_odd(number: int) -> int:
    if number % 2:
        message = f"{number} is odd"
        raise ValueError(message)
    return 10 * number


def test_a_process_asks_back_as_often_as_it_likes_before_it_answers() -> None:
    child = Child(add_up, 1000, told=lambda number: 10 * number)
    assert [child.ask(number) for number in (0, 1, 5)] == [1000, 1000, 1100]
    child.end()


def test_many_threads_get_the_answers_to_their_own_questions_while_the_process_asks_back() -> None:
    child = Child(add_up, 0, told=lambda number: number)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(child.ask, number) for number in range(40)]
        assert [future.result() for future in asked] == [sum(range(number)) for number in range(40)]
    child.end()


def test_what_the_reply_meets_is_raised_in_the_process_and_where_it_was_asked_first() -> None:
    child = Child(recover, told=refuse_odd)
    assert [child.ask(number) for number in (2, 3, 4)] == ["20", "met 3 is odd", "40"]
    child.end()
    child = Child(add_up, 0, told=refuse_odd)
    with pytest.raises(ValueError, match="1 is odd"):
        child.ask(3)
    assert child.ask(1) == 0  # it goes on
    child.end()


def test_a_process_that_dies_after_it_asked_back_is_told_of_and_hangs_nobody() -> None:
    child = Child(die_after_asking, told=lambda number: number)
    with pytest.raises(DiedError):
        child.ask(1)
    with pytest.raises(DiedError):
        child.ask(1)
    child.end()


def test_a_reply_is_what_was_told_or_what_it_met() -> None:
    assert reply_to(AskedBack(4), refuse_odd) == 40
    met = reply_to(AskedBack(5), refuse_odd)
    assert isinstance(met, ValueError)

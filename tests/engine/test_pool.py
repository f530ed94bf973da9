"""The pool: every page once, whatever becomes of its processes; the death of one costs nothing but time."""

import logging
import multiprocessing
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchdigits.decoding.codecs import decode
from batchdigits.engine import children, local, networks, serving, shared_finder, worker
from batchdigits.engine import pool as module
from batchdigits.engine.children import Child
from batchdigits.engine.local import Read, Reading, on_this_machine
from batchdigits.engine.pool import chunks, worker_count
from batchdigits.engine.run_context import SIGNALS, StageTimer, Stop
from batchdigits.engine.worker import Drawing
from batchdigits.errors import BatchDigitsError, BundleError, DecoderDied, FaultKind, Interrupted, Terminated
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle
from batchdigits.records import Batch, ImageFile
from batchdigits.settings import PredictSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.local import file_sha256
from batchdigits.storage.urls import locate
from tests.cli_runner import run
from tests.fake_model import FakeInkFinder, FakePredictor, bundle_in
from tests.sample_pages import digits, write_differing, write_png

FILES = 40
Seen = dict[tuple[str, int], tuple[bytes, str]]  # of each page, by its file's name and its number


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "Predictor", FakePredictor)
    monkeypatch.setattr(shared_finder, "InkFinder", FakeInkFinder)
    monkeypatch.setattr(local, "can_fork", lambda: True)  # which takes the stand-ins along, whatever was loaded before


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_in(tmp_path_factory.mktemp("model") / "bundle", temperature=20.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[ImageFile]:
    folder = tmp_path_factory.mktemp("pool") / "scans"
    write_differing(folder, FILES)
    return files_in(folder)


def files_in(folder: Path) -> list[ImageFile]:
    found = discover([locate(str(folder))], outputs=[])
    return sorted((file for file in found if isinstance(file, ImageFile)), key=lambda file: file.name)


@contextmanager
def reading(
    model: Bundle, *, stop: Stop | None = None, timer: StageTimer | None = None, **options: Any
) -> Iterator[Read]:
    settings = PredictSettings(sources=(), **{"workers": 2, "runtime": Runtime.LITERT, **options})
    drawing = Drawing(threshold=0.99, audit=0.0, is_wanted=True)
    with on_this_machine(Reading(model, settings, drawing, timer or StageTimer(), Stop(), {}, False)) as read:
        yield read
    assert multiprocessing.active_children() == []


def read_all(model: Bundle, files: Iterable[ImageFile], **options: Any) -> Batch:
    with reading(model, **options) as read:
        return Batch.concat(*read(files))


def by_row(found: Batch) -> Seen:
    """What was read of each page, by its file's name and its number."""
    names = [(found.files[page["file"]].name, int(page["number"])) for page in found.pages]
    assert len(set(names)) == len(names)
    details = [found.faults[row].detail if row in found.faults else "" for row in range(len(found))]
    seen = [page["logits"].tobytes() + page["ink"].tobytes() for page in found.pages]
    return dict(zip(names, zip(seen, details, strict=True), strict=True))


@pytest.fixture
def expected(model: Bundle, files: list[ImageFile]) -> Seen:
    found = by_row(read_all(model, files, workers=1))
    assert len(found) == FILES
    return found


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 7)


# ---- every page, once ------------------------------------------------------------------------------------------------


def test_bytes_that_any_worker_has_told_of_are_not_read_again(
    model: Bundle, files: list[ImageFile], tmp_path: Path
) -> None:
    junk = tmp_path / "1.png"
    junk.write_bytes(b"\x89PNG\r\n\x1a\njunk")
    copies = [Path(shutil.copy(file.path, tmp_path / f"copy{number}.png")) for number, file in enumerate(files)]
    with reading(model, workers=3) as read:
        first = Batch.concat(*read([*files, *files_in(junk)]))
        second = Batch.concat(*read([*files_in(tmp_path)]))
    assert (len(first.files), len(first), first.unchanged) == (FILES + 1, FILES + 1, {})
    assert [second.files[row].name for row in second.pages["file"]] == ["1.png"]  # a fault is found anew
    assert {second.files[place].path: sha256 for place, sha256 in second.unchanged.items()} == {
        str(copy): file_sha256(copy) for copy in copies
    }


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("runtime", list(Runtime))
def test_pages_do_not_hang_on_chunks_workers_or_where_the_networks_are(
    model: Bundle, files: list[ImageFile], workers: int, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_row(read_all(model, files, workers=1))
    monkeypatch.setattr(module, "_CHUNK_FILES", 3)
    monkeypatch.setattr(module, "_BATCH_PAGES", 5)
    assert by_row(read_all(model, files, workers=workers, runtime=runtime)) == expected


def test_a_chunk_that_a_pipe_has_no_room_for_waits_until_its_worker_does(
    model: Bundle,
    files: list[ImageFile],
    expected: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_capacity", lambda pipe: 0)
    assert by_row(read_all(model, files)) == expected


def test_no_files_need_no_worker(model: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Child", None)
    assert len(read_all(model, [])) == 0


def test_what_reads_reads_more_than_once(model: Bundle, files: list[ImageFile]) -> None:
    with reading(model) as read:
        first, second = Batch.concat(*read(files[:20])), Batch.concat(*read(files[20:]))
    assert [file.name for file in sorted([*first.files, *second.files])] == [file.name for file in files]


def test_large_files_go_into_small_chunks(files: list[ImageFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_FILES", 512)
    monkeypatch.setattr(module, "_CHUNK_BYTES", 3 * files[0].size_bytes)
    assert [len(chunk) for chunk in chunks([files[0]] * 31)] == [3] * 10 + [1]
    assert [len(chunk) for chunk in chunks([files[0]._replace(size_bytes=0)] * 1030)] == [512, 512, 6]


def test_no_more_files_are_taken_than_the_workers_need(model: Bundle, files: list[ImageFile]) -> None:
    taken = 0

    def counted() -> Iterator[ImageFile]:
        nonlocal taken
        for _ in range(60):
            for file in files:
                taken += 1
                yield file

    given = 0
    with reading(model) as read:
        module_pages = module._BATCH_PAGES
        try:
            module._BATCH_PAGES = 10
            for batch in read(counted()):
                given += len(batch.files)
                assert taken - given <= 7 * 2 * 3 + 10
        finally:
            module._BATCH_PAGES = module_pages
    assert given == taken == 60 * FILES


def test_the_seconds_of_the_workers_are_counted(model: Bundle, files: list[ImageFile]) -> None:
    timer = StageTimer()
    read_all(model, files, timer=timer)
    assert list(timer.seconds) == ["decode", "normalise", "load model", "predict", "decide"]


def test_what_is_read_comes_within_a_second(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {}, seconds=0.05)
    monkeypatch.setattr(module, "_CHUNK_FILES", 512)
    with reading(model, workers=1) as read:
        started = time.monotonic()
        first = next(iter(read(files)))
        assert time.monotonic() - started < 10  # all take two seconds on a machine that has nothing else to do
    assert 0 < len(first) < FILES


def test_the_first_pages_wait_for_no_others(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that runs that are killed as soon as they have begun get on, too."""
    monkeypatch.setattr(module, "_BATCH_SECONDS", 1000.0)
    with reading(model) as read:
        found = [len(batch.files) for batch in read(files)]
    assert len(found) == 2
    assert found[0] <= 2 * 7


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 2), (64, 16)])
def test_there_is_a_worker_for_each_core_that_may_be_used_up_to_a_limit(
    cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.os, "sched_getaffinity", lambda process: set(range(cores)))
    assert (worker_count(None), worker_count(3)) == (count, 3)


# ---- the death of a worker -------------------------------------------------------------------------------------------


def spoil(patch: pytest.MonkeyPatch, ends: dict[str, Any], *, seconds: float = 0.0) -> None:
    """Let the decoder do something at some files, by the sha256 of their bytes, and take its time at all."""

    def misbehave(data: bytes, *rest: Any) -> Any:
        time.sleep(seconds)
        for sha256, end in ends.items():
            if sha256 == worker.hashlib.sha256(data).hexdigest():
                end()
        return decode(data, *rest)

    patch.setattr(worker, "decode", misbehave)


def dies(number: int) -> Any:
    return lambda: os.kill(os.getpid(), number)


ENDS = {
    "crashes its decoder (SIGSEGV); move it away, or export it anew as PNG": dies(signal.SIGSEGV),
    "takes its decoder longer than 3 seconds; move it away, or export it anew as PNG": lambda: time.sleep(1000),
    "its decoder was ended (SIGKILL), perhaps for want of memory; the next run tries again": dies(signal.SIGKILL),
    "its decoder was ended (exit code 7), perhaps for want of memory; the next run tries again": lambda: os._exit(7),
}


@pytest.mark.parametrize("workers", [1, 2])
def test_files_that_kill_their_workers_are_rows_of_the_same_run_and_cost_no_other(
    model: Bundle,
    files: list[ImageFile],
    expected: Seen,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killers = [files[at] for at in (0, 11, 12, 39)]
    spoil(monkeypatch, dict(zip([file_sha256(Path(file.path)) for file in killers], ENDS.values(), strict=True)))
    monkeypatch.setattr(module, "SECONDS", 3.0)
    batch = read_all(model, files, workers=workers)
    found = by_row(batch)
    assert [found.pop((file.name, 1))[1] for file in killers] == list(ENDS)
    assert found == {row: seen for row, seen in expected.items() if row[0] not in {file.name for file in killers}}
    sums = {batch.files[page["file"]].name: sha256 for page, sha256 in zip(batch.pages, batch.sha256, strict=True)}
    assert [sums[file.name] != "" for file in killers] == [True, True, False, False]
    assert {fault.kind for fault in batch.faults.values()} == {FaultKind.UNREADABLE}


def cut_outs_in(folder: Path, ending: str = ".png") -> list[ImageFile]:
    """Write digits that need no ink finder; the names of the later half end in `ending`."""
    for number, digit in enumerate(digits(FILES)):
        write_png(folder / f"{number:02}{ending if number > FILES // 2 else '.png'}", digit)
    return files_in(folder)


@pytest.mark.parametrize("room", [1, 1000, 2**20])
def test_what_is_read_ahead_has_its_own_file_however_little_a_pipe_takes(
    model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    files = cut_outs_in(tmp_path, f"{'n' * 200}.png")
    expected = by_row(read_all(model, files))

    def load_late(self: FakePredictor) -> FakePredictor:
        time.sleep(0.5)
        return self

    monkeypatch.setattr(module, "_capacity", lambda _: room)
    monkeypatch.setattr(FakePredictor, "__enter__", load_late)
    monkeypatch.setattr(module, "SECONDS", 10.0)
    monkeypatch.setattr(module.Workers, "_bury", lambda *_: pytest.fail("a worker got nothing, or died"))
    found = read_all(model, files, runtime=Runtime.KERAS)
    assert by_row(found) == expected
    sums = {found.files[page["file"]].path: sha256 for page, sha256 in zip(found.pages, found.sha256, strict=True)}
    assert sums == {file.path: file_sha256(Path(file.path)) for file in files}


@pytest.mark.parametrize("is_deadly", [False, True])
def test_cut_outs_are_read_while_the_networks_load_and_a_death_meanwhile_costs_none_of_them(
    model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_deadly: bool
) -> None:
    files = cut_outs_in(tmp_path)
    expected = by_row(read_all(model, files))
    decoded = multiprocessing.get_context("fork").Value("i")
    last = file_sha256(Path(files[-1].path))

    def counted(data: bytes, *rest: Any) -> Any:
        with decoded.get_lock():
            decoded.value += 1
        if is_deadly and worker.hashlib.sha256(data).hexdigest() == last:
            os.kill(os.getpid(), signal.SIGSEGV)
        return decode(data, *rest)

    def load_late(self: FakePredictor) -> FakePredictor:
        until = time.monotonic() + 20
        while decoded.value < FILES:
            assert time.monotonic() < until, f"{decoded.value} of {FILES} files were decoded meanwhile"
            time.sleep(0.01)
        return self

    monkeypatch.setattr(worker, "decode", counted)
    monkeypatch.setattr(FakePredictor, "__enter__", load_late)
    found = by_row(read_all(model, files, runtime=Runtime.KERAS))
    if is_deadly:
        assert "(SIGSEGV)" in found.pop((files[-1].name, 1))[1]
        expected.pop((files[-1].name, 1))
    assert found == expected


@pytest.mark.parametrize("written", [0, 2, 4, 60_000])
def test_a_worker_that_dies_while_it_answers_hangs_nobody_and_costs_nothing(
    model: Bundle,
    files: list[ImageFile],
    expected: Seen,
    written: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    serve = module.serve

    class DyingEnd:
        """Writes the beginning of an answer, and dies; in the first worker alone."""

        def __init__(self, answers: Connection) -> None:
            self.answers, self.left = answers, 2

        def send(self, answer: Any) -> None:
            self.left -= 1
            if self.left < 0 and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.write(self.answers.fileno(), (struct.pack("!i", 2**20) + bytes(2**20))[:written])
                os.kill(os.getpid(), signal.SIGKILL)
            self.answers.send(answer)

    def dying(questions: Connection, answers: Connection, *rest: Any) -> None:
        serve(questions, DyingEnd(answers), *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "serve", dying)
    assert by_row(read_all(model, files)) == expected
    assert (tmp_path / "died").exists()


@pytest.mark.parametrize("times", [1, 2])
def test_workers_that_somebody_kills_cost_nothing_but_a_file_that_meets_it_twice_by_itself(
    model: Bundle, files: list[ImageFile], expected: Seen, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    spoil(monkeypatch, {}, seconds=0.02)
    monkeypatch.setattr(worker, "_PART_SECONDS", 0.1)
    killed, found = 0, []
    with reading(model) as read:
        module._BATCH_PAGES, pages = 1, module._BATCH_PAGES
        try:
            for batch in read(files):
                found.append(batch)
                if len(found) <= times:
                    for child in multiprocessing.active_children():
                        child.kill()
                        killed += 1
        finally:
            module._BATCH_PAGES = pages
    assert killed >= 2
    rows = by_row(Batch.concat(*found))
    left = {
        key
        for key, (_, detail) in rows.items()
        if detail.endswith("(SIGKILL), perhaps for want of memory; the next run tries again")
    }
    assert len(left) <= 2 * (times - 1)  # one for each worker
    assert {key: row for key, row in rows.items() if key not in left} == {
        key: row for key, row in expected.items() if key not in left
    }


def test_where_one_worker_after_the_other_dies_the_run_ends(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {file_sha256(Path(file.path)): dies(signal.SIGKILL) for file in files})
    monkeypatch.setattr(module, "_MOST_DEATHS", 5)
    with pytest.raises(DecoderDied, match=r"One worker after the other died, the last at .*SIGKILL.*--workers"):
        read_all(model, files)


def test_workers_that_are_killed_before_their_first_word_cost_nothing(
    model: Bundle, files: list[ImageFile], expected: Seen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve = module.serve

    def dying(*arguments: Any) -> None:
        for name in ("first", "second", "third"):
            if not (tmp_path / name).exists():
                (tmp_path / name).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        serve(*arguments)

    monkeypatch.setattr(module, "serve", dying)
    assert by_row(read_all(model, files, workers=1)) == expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_where_no_worker_lives_to_its_first_word_the_run_ends(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(module, "serve", lambda *_: os.kill(os.getpid(), number))
    monkeypatch.setattr(module, "_MOST_DEATHS", 5)
    with pytest.raises(DecoderDied, match="One worker after the other died"):
        read_all(model, files)


def test_a_worker_that_hangs_before_its_first_word_ends_the_run(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    started = multiprocessing.get_context("fork").Semaphore(0)

    def hang(*_: object) -> None:
        started.release()
        time.sleep(1000)

    monkeypatch.setattr(module, "serve", hang)
    monkeypatch.setattr(module, "SECONDS", 1.0)
    with pytest.raises(BatchDigitsError, match="said nothing for 1 second"):
        read_all(model, files, workers=1)
    assert started.acquire(block=False)
    assert not started.acquire(block=False)  # and it is not tried thirty times


def test_a_model_that_never_loads_ends_the_run(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakePredictor, "__enter__", lambda self: time.sleep(1000))
    monkeypatch.setattr(module, "PATIENT_SECONDS", 1.0)
    with pytest.raises(BatchDigitsError, match="A worker has waited for an hour: the model does not load"):
        read_all(model, files, runtime=Runtime.KERAS)
    assert multiprocessing.active_children() == []


def never_there(questions: Connection, answers: Connection, *rest: object) -> None:
    os._exit(1)


def test_workers_that_cannot_start_end_the_run(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "serve", never_there)
    with pytest.raises(BatchDigitsError, match="cannot start; in a script"):
        read_all(model, files)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "Child", refuse)
    with pytest.raises(BatchDigitsError, match="No worker process can be started"):
        read_all(model, files)


def test_fewer_workers_than_wanted_read_as_well(
    model: Bundle,
    files: list[ImageFile],
    expected: Seen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Child] = []

    def one_alone(*arguments: Any, **options: Any) -> Child:
        if made:
            raise OSError(11, "Resource temporarily unavailable")
        made.append(Child(*arguments, **options))
        return made[0]

    monkeypatch.setattr(module, "Child", one_alone)
    assert by_row(read_all(model, files, workers=3)) == expected


def test_the_death_of_the_process_that_has_the_networks_ends_the_run(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: FakePredictor, pixels: np.ndarray) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return pixels

    monkeypatch.setattr(FakePredictor, "__call__", die)
    with pytest.raises(BatchDigitsError, match="The process that runs TensorFlow died"):
        read_all(model, files, runtime=Runtime.KERAS)


# ---- the end of a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", list(Runtime))
def test_networks_that_cannot_be_opened_end_the_run_with_their_sentence(
    model: Bundle, files: list[ImageFile], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FakePredictor):
        def __enter__(self) -> "Broken":
            message = "the model cannot be opened"
            raise BundleError(message)

    monkeypatch.setattr(networks, "Predictor", Broken)
    with pytest.raises(BundleError, match="the model cannot be opened"):
        read_all(model, files, runtime=runtime)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("error", [MemoryError, BundleError, ArithmeticError])
@pytest.mark.parametrize("runtime", list(Runtime))
def test_what_the_networks_meet_ends_the_run_whichever_process_has_them(
    model: Bundle, files: list[ImageFile], error: type[Exception], runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FakePredictor, pixels: np.ndarray) -> np.ndarray:
        message = "no accelerator"
        raise error(message)

    monkeypatch.setattr(FakePredictor, "__call__", fail)
    with pytest.raises(error, match="no accelerator"):
        read_all(model, files, runtime=runtime)
    assert multiprocessing.active_children() == []


def test_an_error_that_no_process_could_raise_again_is_told_as_one_of_ours(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    class LocalError(Exception):
        pass

    def fail(self: FakePredictor, pixels: np.ndarray) -> np.ndarray:
        message = "odd"
        raise LocalError(message)

    monkeypatch.setattr(FakePredictor, "__call__", fail)
    with pytest.raises(BatchDigitsError, match="LocalError: odd"):
        read_all(model, files)


class Counted(serving.Part):
    """A part that is counted as it is made."""

    told: Any = None

    def __new__(cls, *arguments: Any) -> "Counted":
        cls.told.release()
        return super().__new__(cls, *arguments)


@pytest.mark.parametrize("error", [Interrupted, Terminated, ArithmeticError])
def test_what_was_read_before_the_run_ends_comes_first(
    model: Bundle, files: list[ImageFile], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = multiprocessing.get_context("fork").Semaphore(0)
    monkeypatch.setattr(serving, "Part", Counted)
    Counted.told = told

    def asked_to_end() -> Iterator[ImageFile]:
        yield from files[:14]
        for _ in range(2):
            assert told.acquire(timeout=60)
        time.sleep(0.5)  # while it is written
        raise error

    found = []
    with reading(model) as read, pytest.raises(error):
        found.extend(read(asked_to_end()))
    expected = files[:14] if error is not ArithmeticError else []
    assert sorted(file for batch in found for file in batch.files) == sorted(expected)


def test_a_worker_that_somebody_stopped_does_not_keep_the_run_from_its_end(
    model: Bundle, files: list[ImageFile], expected: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = module.serve

    def stopped(*arguments: Any) -> None:
        serve(*arguments)
        os.kill(os.getpid(), signal.SIGSTOP)

    monkeypatch.setattr(module, "serve", stopped)
    monkeypatch.setattr(children, "_END_SECONDS", 0.5)
    assert by_row(read_all(model, files)) == expected


FORGETFUL = """
import time
from batchdigits.engine.children import Child

child = Child(lambda *_: time.sleep(1000), fork=True)
while not int(open(f"/proc/{child.process.pid}/status").read().partition("SigIgn:")[2].split()[0], 16) >> 14 & 1:
    time.sleep(0.01)  # it does not leave SIGTERM to us yet
"""


def test_a_process_that_nobody_ended_does_not_keep_python_from_its_end() -> None:
    assert run([sys.executable, "-c", FORGETFUL]).code == 0


def test_leaving_early_ends_the_workers_at_once(
    model: Bundle, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {file_sha256(Path(files[-1].path)): lambda: time.sleep(1000)})
    monkeypatch.setattr(module, "_BATCH_PAGES", 1)
    with reading(model) as read:
        for at, _ in enumerate(read(files)):
            assert multiprocessing.active_children()
            if at == 3:
                break


def signals_of(child: BaseProcess) -> tuple[int, int]:
    """Which signals a process ignores, and which it catches: a bit for each, from 1."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    ignored, caught = (int(re.findall(rf"Sig{name}:\s*(\w+)", status)[0], 16) for name in ("Ign", "Cgt"))
    return ignored, caught


def test_workers_leave_signals_to_the_run_and_hold_nothing_of_it_open(
    model: Bundle, files: list[ImageFile], tmp_path: Path
) -> None:
    with (tmp_path / "held").open("w") as held, reading(model) as read:
        ready = read(files * 20)
        next(iter(ready))
        workers, until = multiprocessing.active_children(), time.monotonic() + 30
        asked = sum(1 << number - 1 for number in SIGNALS)
        while any(signals_of(child)[0] & asked != asked for child in workers) and time.monotonic() < until:
            time.sleep(0.01)  # the first has told of something, which the second need not have begun to do
        for child in workers:
            ignored, caught = signals_of(child)
            for number in SIGNALS:
                assert ignored >> number - 1 & 1
                assert not caught >> number - 1 & 1
            names = [str(end.readlink()) for end in Path(f"/proc/{child.pid}/fd").iterdir()]
            assert held.name not in names
            assert sum(name.startswith("pipe:") for name in names) <= 3 + 3  # its two, its parent's end, and 0 to 2


def test_a_process_with_threads_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert children.can_fork() == sys.platform.startswith("linux")
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    assert not children.can_fork()
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    assert not children.can_fork()


def test_workers_do_not_wait_for_threads_that_opencv_had_before_the_fork(model: Bundle, files: list[ImageFile]) -> None:
    large = np.zeros((2000, 2000), np.uint8)
    for _ in range(8):
        cv2.setNumThreads(2)
        cv2.GaussianBlur(large, (9, 9), 2)
        assert len(read_all(model, files[:3])) == 3


def test_what_a_worker_says_goes_where_the_run_s_own_words_go(
    model: Bundle, files: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, {file_sha256(Path(files[0].path)): lambda: logging.warning("a word")})
    with (tmp_path / "said").open("w") as said:
        handler = logging.StreamHandler(said)
        monkeypatch.setattr(sys, "stderr", said)
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        read_all(model, files[:3])
    assert (tmp_path / "said").read_text() == "a word\n"


# ---- processes that are no forks -------------------------------------------------------------------------------------


def test_workers_that_are_not_forked_read_the_same(files: list[ImageFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    packaged = bundle.load()
    alone = by_row(read_all(packaged, files[:12], workers=1))
    monkeypatch.setattr(local, "can_fork", lambda: False)
    for _ in range(2):
        assert by_row(read_all(packaged, files[:12], workers=2)) == alone


def environment(questions: Connection, answers: Connection) -> None:
    """Say what a variable is, until nobody asks."""
    with suppress(EOFError):
        while name := questions.recv():
            answers.send((os.environ.get(name), str(Path.cwd())))


def test_workers_that_are_not_forked_see_the_environment_and_the_folder_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word in ("before", "after"):
        folder = tmp_path / word
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setenv("A_WORD", word)
        child = Child(environment, fork=False)
        child.questions.send("A_WORD")
        assert child.answers.recv() == (word, str(folder))
        child.end(kill=False)
        assert child.process.exitcode == 0


def test_a_worker_that_is_not_forked_dies_with_its_signal_and_its_pipe() -> None:
    child = Child(environment, fork=False)
    os.kill(child.process.pid or 0, signal.SIGSEGV)
    with pytest.raises((EOFError, OSError)):
        child.answers.recv()
    child.end(kill=True)
    assert child.process.exitcode == -signal.SIGSEGV


UNGUARDED = """
import threading
from batchdigits import pipeline
from batchdigits.settings import PredictSettings, Runtime

threading.Thread(target=threading.Event().wait, daemon=True).start()
pipeline.run(PredictSettings(sources=("a.png",), outputs=("r.csv",), runtime=Runtime.LITERT), stdout=None)
"""


def test_a_script_without_a_main_guard_is_told_of_it(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    (tmp_path / "a.png").write_bytes(b"no picture")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False
    )
    assert "BatchDigitsError: The worker processes cannot start; in a script, call batchdigits under `if" in done.stderr


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from batchdigits.engine.local import Reading, on_this_machine
from batchdigits.engine.run_context import StageTimer, Stop
from batchdigits.engine.worker import Drawing
from batchdigits.inference import bundle
from batchdigits.settings import PredictSettings, Runtime
from tests.engine.test_pool import files_in

if __name__ == "__main__":
    settings = PredictSettings(sources=(), workers=2, runtime=Runtime.LITERT)
    reading = Reading(bundle.load(), settings, Drawing(1.0, 0.0, False), StageTimer(), Stop(), {}, False)
    with on_this_machine(reading) as read:
        next(read(files_in(Path(sys.argv[1])) * 100))
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_worker_processes_end_with_a_parent_that_was_killed(tmp_path: Path, files: list[ImageFile]) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = subprocess.run(
        [sys.executable, script, Path(files[0].path).parent],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    started = killed.stdout.split()
    assert len(started) == 2
    until = time.monotonic() + 60
    while any(Path("/proc", child).exists() for child in started):
        assert time.monotonic() < until
        time.sleep(0.05)

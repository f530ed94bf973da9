"""Settling: files that may still be being written wait their turn, and those that change wait for the next run."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchdigits.errors import Fault, FaultKind
from batchdigits.records import PAGE, Batch, ImageFile
from batchdigits.sources import settling as module
from batchdigits.sources.discovery import discover
from batchdigits.sources.settling import Settling
from batchdigits.storage.urls import locate
from tests.sample_pages import one_of_each, write_png

NOW_NS = 1_800_000_000_000_000_000


class Clock:
    """Takes the place of the module `time`: it moves only when somebody sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def time_ns(self) -> int:
        return NOW_NS

    def monotonic(self) -> float:
        return 1000 + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def written(path: Path, *, age: float = 0.0) -> ImageFile:
    write_png(path, one_of_each()[3])
    os.utime(path, ns=(NOW_NS, NOW_NS - round(age * 1e9)))
    (file,) = discover([locate(str(path))], outputs=[])
    assert isinstance(file, ImageFile)
    return file


@given(age_ns=st.integers(-(10**10), 10**10), settle=st.sampled_from([0.0, 0.5, 2.0, 3600.0]))
def test_a_file_is_recent_while_its_age_is_less_than_the_limit_and_never_negative(age_ns: int, settle: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", Clock())
        assert (NOW_NS - age_ns in Settling(settle).recent_ns()) == (0 <= age_ns < settle * 1e9)


def test_a_file_that_comes_while_others_are_listed_is_recent_too(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    settling = Settling(2.0)
    monkeypatch.setattr(clock, "time_ns", lambda: NOW_NS + 5_000_000_000)
    assert NOW_NS + 4_000_000_000 in settling.recent_ns()
    assert NOW_NS + 5_000_000_001 not in settling.recent_ns()


def test_the_run_waits_until_a_recent_file_is_stable_and_no_longer(tmp_path: Path, clock: Clock) -> None:
    files = [written(tmp_path / f"{age}.png", age=age) for age in (1.5, 0.25, 1.0)]
    deferred: list[ImageFile] = []
    settling = Settling(2.0)
    assert list(settling.stable(files, deferred.extend)) == files
    assert clock.slept == [0.5, 1.25, 0.0]
    assert settling.waited == 1.75
    assert deferred == []


def test_a_recent_file_that_goes_on_changing_is_deferred_and_the_others_are_not(tmp_path: Path, clock: Clock) -> None:
    grows, touched, replaced, gone, still = (written(tmp_path / f"{name}.png") for name in "abcde")
    Path(grows.path).write_bytes(Path(grows.path).read_bytes() + b"more")
    os.utime(grows.path, ns=(NOW_NS, NOW_NS))
    os.utime(touched.path, ns=(NOW_NS, NOW_NS + 1))
    written(tmp_path / "new.png", age=1)
    (tmp_path / "new.png").replace(replaced.path)
    Path(gone.path).unlink()
    deferred: list[ImageFile] = []
    passed = list(Settling(2.0).stable([grows, touched, replaced, gone, still], deferred.extend))
    assert deferred == [grows, touched, replaced, gone]
    assert passed == [still]


def test_what_changes_while_it_is_read_is_left_out_of_its_batch_pages_and_faults(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [written(tmp_path / f"{name}.png") for name in "abc"]
    (tmp_path / "b.png").write_bytes(b"half")
    (tmp_path / "c.png").write_bytes(b"half")
    files += [written(tmp_path / f"{name}.png") for name in "def"]
    pages = np.zeros(6, PAGE)
    pages["file"], pages["fault"] = range(6), [False, True, True, False, False, True]
    fault = Fault(FaultKind.UNREADABLE, "half")
    batch = Batch(files, pages, {1: fault, 2: fault, 5: fault}, {3: b"picture"}, changed={0, 4})
    os.utime(tmp_path / "a.png")
    asked = []
    ask = module.has_changed
    monkeypatch.setattr(module, "has_changed", lambda file, **how: asked.append(file) or ask(file, **how))
    deferred: list[ImageFile] = []
    still = Settling(2.0).drop_changed(batch, deferred.extend)
    assert [file.name[-5:] for file in deferred] == ["a.png", "b.png", "c.png"]
    assert [file.name[-5:] for file in still.files] == ["d.png", "e.png", "f.png"]
    assert (still.pages["file"].tolist(), still.faults) == ([0, 1, 2], {2: fault})
    assert still.thumbnails == {0: b"picture"}
    assert files[3] not in asked, "whoever read it has seen that it stayed, and it has no fault"
    assert Settling(0).drop_changed(batch, deferred.extend) is batch


def test_what_was_seen_to_change_is_left_out_though_its_time_was_put_back(tmp_path: Path, clock: Clock) -> None:
    file = written(tmp_path / "a.png")
    time.sleep(0.02)  # the time of an inode is as fine as the kernel's clock
    os.utime(file.path, ns=(file.mtime_ns, file.mtime_ns))
    deferred: list[ImageFile] = []
    for changed, left in ((set[int](), []), ({0}, [file])):
        Settling(2.0).drop_changed(Batch([file], np.zeros(1, PAGE), changed=changed), deferred.extend)
        assert deferred == left

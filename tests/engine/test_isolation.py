"""Isolation: a file that crashes its decoder, or never comes back, costs a process and becomes a row."""

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from batchdigits.engine import isolation, worker
from batchdigits.engine.ink import SharedFinder
from batchdigits.engine.isolation import one_by_one
from batchdigits.engine.pool import Workers
from batchdigits.engine.pool import batches as batches_of
from batchdigits.engine.run_context import StageTimer
from batchdigits.errors import DecoderDied, Fault, FaultKind
from batchdigits.inference import bundle
from batchdigits.records import Batch, ImageFile
from batchdigits.settings import DecodingSettings, NormalisationSettings, Runtime
from batchdigits.sources.discovery import discover
from batchdigits.storage.reading import read_all
from batchdigits.storage.urls import locate
from tests.digits import digits, write_png, write_tiff

SETTINGS = {"timer": StageTimer(), "decoding": DecodingSettings(), "normalisation": NormalisationSettings()}
FINDER = SharedFinder(bundle.PACKAGED, Runtime.LITERT)


def misbehave(files: list[worker.Asked], *settings: object) -> worker.Observed:
    """What a child runs in the place of `observe`: some names end it."""
    name = Path(files[0][0]).name
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("lost"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("exit"):
        os._exit(7)
    if name.startswith("hang"):
        time.sleep(1000)
    if name.startswith("raise"):
        raise MemoryError
    return worker.observe(files, *settings)  # type: ignore[arg-type]


def read_slowly(files: list[tuple[str, int]], most_bytes: int) -> Iterator[bytes | Fault]:
    """What a child runs in the place of `read_all`: some names take a server longer than a decoder may take."""
    if Path(files[0][0]).name.startswith("slow"):
        time.sleep(9)
    yield from read_all(files, most_bytes)


def answer(*arguments: object) -> None:
    """Run a child that misbehaves: pickled by name, so that the child imports it from here."""
    isolation.observe = misbehave  # type: ignore[attr-defined]
    isolation.read_all = read_slowly  # type: ignore[attr-defined]
    isolation._answer(*arguments)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(
        ("a.png", "crash.png", "b.png", "exit.png", "hang.png", "lost.png", "raise.png", "slow.png", "z.png")
    ):
        write_png(tmp_path / name, digits(60)[number])
    write_tiff(tmp_path / "c.tif", list(digits(60)[10:13]))
    return tmp_path


def files(folder: Path) -> list[ImageFile]:
    found = discover([locate(str(folder))], outputs=[])
    return sorted((file for file in found if isinstance(file, ImageFile)), key=lambda file: file.name)


def observed(folder: Path) -> dict[str, Batch]:
    return dict(
        zip([file.name for file in files(folder)], one_by_one(files(folder), finder=FINDER, **SETTINGS), strict=True)
    )  # type: ignore[arg-type]


@pytest.fixture
def _misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    served = isolation._answer
    monkeypatch.setattr(isolation, "SECONDS", 8.0)
    monkeypatch.setattr(isolation, "_answer", answer)
    yield
    assert isolation._answer is answer
    assert served is not answer


@pytest.mark.usefixtures("_misbehaving")
def test_each_kind_of_death_is_one_fault_that_says_so_and_costs_no_other_file(folder: Path) -> None:
    found = observed(folder)
    exported, again = (
        "; move it away, or export it anew as PNG",
        ", perhaps for want of memory; the next run tries again",
    )
    expected = {
        "crash.png": f"crashes its decoder (SIGSEGV){exported}",
        "exit.png": f"its decoder was ended (exit code 7){again}",
        "hang.png": f"takes its decoder longer than 8 seconds{exported}",
        "lost.png": f"its decoder was ended (SIGKILL){again}",
        "raise.png": f"its decoder was ended (exit code 1){again}",
    }
    for name, batch in found.items():
        if name not in expected:
            assert len(batch.pages) == (3 if name == "c.tif" else 1)
            continue
        [(page, fault)] = batch.faults
        assert (fault.kind, fault.is_deadly, page.number, page.of) == (FaultKind.UNREADABLE, True, 1, 1)
        assert fault.detail == expected[name]
        sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert page.sha256 == ("" if fault.detail.endswith(again) else sha256)
    assert multiprocessing.active_children() == []


def test_files_that_do_no_harm_are_observed_as_by_the_workers(folder: Path) -> None:
    alone = list(one_by_one(files(folder), finder=FINDER, **SETTINGS))  # type: ignore[arg-type]
    with Workers(1, FINDER, processes=False) as workers:
        (together,) = batches_of(files(folder), workers, size=99, **SETTINGS)  # type: ignore[arg-type]
    assert [page for batch in alone for page in batch.pages] == together.pages
    assert (np.concatenate([batch.pixels for batch in alone]) == together.pixels).all()
    assert (np.concatenate([batch.ink for batch in alone]) == together.ink).all()
    assert multiprocessing.active_children() == []


def end(*_: object) -> None:
    """Run a child that ends before it has said a word."""
    sys.exit(1)


def test_a_process_that_cannot_start_is_no_fault_of_any_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_answer", end)
    with pytest.raises(DecoderDied, match="cannot start: memory is short, or a script calls"):
        list(one_by_one(files(folder), finder=FINDER, **SETTINGS))  # type: ignore[arg-type]
    assert multiprocessing.active_children() == []


def test_no_files_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "get_context", None)
    assert list(one_by_one([], finder=FINDER, **SETTINGS)) == []  # type: ignore[arg-type]


def test_leaving_early_ends_the_process(folder: Path) -> None:
    found = one_by_one(files(folder), finder=FINDER, **SETTINGS)  # type: ignore[arg-type]
    next(iter(found))
    assert multiprocessing.active_children()
    found.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_what_was_observed_elsewhere_stands_in_the_first_batches(folder: Path) -> None:
    first, *rest = files(folder)
    with Workers(1, FINDER, processes=False) as workers:
        isolated = one_by_one([first], finder=FINDER, **SETTINGS)  # type: ignore[arg-type]
        found = list(batches_of(rest, workers, size=4, first=isolated, **SETTINGS))  # type: ignore[arg-type]
    assert [page.file.name for batch in found for page in batch.pages if page.number == 1] == [
        file.name for file in files(folder)
    ]
    assert [len(batch.pages) for batch in found] == [4, 4, 4]

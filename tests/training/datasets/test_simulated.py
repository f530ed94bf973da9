"""Simulated pages as prediction reads them: seeded, kept, and the same whatever number of processes makes them."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from batchdigits.errors import BatchDigitsError
from batchdigits.inference import bundle
from batchdigits.records import BLANK, DIGITS, INK, INK_MEASURES, NOT_A_DIGIT
from batchdigits.settings import NormalisationSettings
from batchdigits.training.datasets import simulated
from batchdigits.training.datasets.simulated import SimulatedInk, read_simulated

COUNT = 300
OPTIONS: dict[str, Any] = {"finder": bundle.PACKAGED, "normalisation": NormalisationSettings(), "part": "train"}


def same(first: SimulatedInk, second: SimulatedInk) -> bool:
    return all((one == other).all() for one, other in zip(first, second, strict=True))


@pytest.fixture(scope="module")
def kept_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept") / "checkpoints"  # which is not there yet, as when a training begins


@pytest.fixture(scope="module")
def made(kept_in: Path) -> SimulatedInk:
    return read_simulated(COUNT, seed=5, kept_in=[kept_in], **OPTIONS)


def test_pages_are_what_was_read_of_them_and_what_was_written_there(made: SimulatedInk) -> None:
    assert (made.pixels.shape, made.pixels.dtype) == ((COUNT, 28, 28), np.uint8)
    assert (made.ink.shape, made.ink.dtype) == ((COUNT, len(INK_MEASURES)), np.float32)
    assert (made.labels.shape, made.labels.dtype) == ((COUNT,), np.int8)
    assert {*range(DIGITS), BLANK, NOT_A_DIGIT} == set(made.labels.tolist())
    digits = made.labels < DIGITS
    assert 0.5 < digits.mean() < 0.95
    assert (made.ink[digits, INK] > 0).mean() > 0.9  # the ink was found
    assert (made.ink[made.labels == BLANK, INK] > 0).mean() < 0.5
    assert not made.pixels[made.ink[:, INK] == 0].any()
    assert len(set(made.scenes.tolist())) > 5
    assert (made.likeness.shape, made.likeness.dtype) == ((COUNT,), np.float32)
    assert (made.likeness[digits] > 0.6).mean() > 0.85  # most digits are found
    assert made.likeness[made.ink[:, INK] == 0].max() == 0


def test_what_was_found_is_like_what_was_written_where_it_is_the_same_ink_of_any_breadth() -> None:
    written = np.zeros((3, 200, 150), np.uint8)
    written[:, 40:160, 60:70] = written[:, 150:160, 60:110] = 255
    framed = simulated._written([*written, np.zeros((30, 20), np.uint8)], NormalisationSettings())
    assert framed.any((1, 2)).tolist() == [True, True, True, False]
    broad = np.stack([cv2.dilate(image, np.ones((2, 2), np.uint8)) for image in framed])
    likeness = simulated._likeness(np.stack([framed[0], broad[1], framed[2, ::-1], framed[0]]), framed)
    assert likeness[0] == pytest.approx(1, abs=1e-5)
    assert likeness[1] > 0.85
    assert likeness[2] < 0.75
    assert likeness[3] == 0


def test_pages_that_were_kept_are_not_made_again(
    made: SimulatedInk, kept_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (kept,) = kept_in.iterdir()
    assert kept.name.startswith("pages-")
    monkeypatch.setattr(simulated, "one_for_each_core", lambda *_: pytest.fail("they were made again"))
    for folders in ([kept_in], [tmp_path, kept_in]):
        assert same(read_simulated(COUNT, seed=5, kept_in=folders, **OPTIONS), made)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"part": "test"},
        {"count": COUNT + 1},
        {"normalisation": NormalisationSettings(digit_side=14)},
        {"mnist_rows": np.arange(100)},
    ],
)
def test_pages_of_anything_else_are_others(
    change: dict[str, Any], made: SimulatedInk, kept_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_again(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(simulated, "one_for_each_core", made_again)
    with pytest.raises(InterruptedError):
        read_simulated(**{"count": COUNT, "seed": 5, "kept_in": [kept_in], **OPTIONS, **change})


def test_pages_do_not_depend_on_the_number_of_processes(made: SimulatedInk, monkeypatch: pytest.MonkeyPatch) -> None:
    cores = 1 if len(os.sched_getaffinity(0)) > 1 else 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert same(read_simulated(COUNT, seed=5, **OPTIONS), made)


def test_without_an_ink_finder_no_page_is_made(tmp_path: Path) -> None:
    with pytest.raises(BatchDigitsError):
        read_simulated(COUNT, seed=5, **{**OPTIONS, "finder": tmp_path})

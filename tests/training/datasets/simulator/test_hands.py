"""Who writes, and with what."""

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.simulator.hands import Hand, Sources, ring, sources
from batchdigits.training.datasets.simulator.strokes import Pen
from tests.training.datasets.simulator.conftest import training


def hand(seed: int, share: float = 0.05, found: Sources | None = None) -> Hand:
    return Hand(share, Pen(1.0), found or training(), np.random.default_rng(seed))


# sources


def check(found: Sources) -> None:
    """Check that everything may be drawn, and that shares are shares."""
    assert len(found.shares) == len(found.movements) + 1 == len(found.chosen) + 1
    assert len(found.raster_shares) == len(found.rasters)
    assert sum(found.shares) == pytest.approx(1, abs=1e-12)
    assert sum(found.raster_shares) == pytest.approx(1, abs=1e-12)
    for moves, rows in zip(found.movements, found.chosen, strict=True):
        assert rows.tolist() == list(range(len(moves)))
    for pictures, labels in found.rasters:
        assert len(pictures) == len(labels)
        assert set(labels.tolist()) == set(range(10))
    assert len(found.other_rows) == len(found.others) > 100


def test_hands_are_drawn_from_the_sets_of_the_package_in_fixed_shares() -> None:
    check(training())
    assert training().shares == pytest.approx([0.24, 0.38, 0.03, 0.35])
    assert training().raster_shares == pytest.approx([0.50, 0.12, 0.12, 0.26])
    assert [len(pictures) for pictures, _ in training().rasters] == [1000, 1449, 765, 641]


def test_pictures_are_bright_ink_on_0_whatever_they_were() -> None:
    for pictures, _ in training().rasters:
        for picture in pictures:
            edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
            assert picture.max() > 60
            assert (picture == 0).mean() > 0.5
            assert np.median(edge) == 0
    for picture in training().foreign:
        assert (picture == 0).mean() > 0.5


def test_pieces_of_a_cells_line_at_the_edge_of_a_scan_are_no_ink() -> None:
    scans, _ = shipped.pages("cc0_scans", "train")
    pictures, _ = training().rasters[3]
    changed = [row for row, scan in enumerate(scans) if (pictures[row] > 40).sum() < (255 - scan > 40).sum()]
    assert 5 < len(changed) < 60
    for row in changed:
        assert (pictures[row] > 40).sum() > 100
        lost = (pictures[row] == 0) & (255 - scans[row] > 40)
        assert lost[12:-12, 12:-12].sum() == 0
    assert pictures[1][:, :6].max() == 0  # which has a line at its left


def test_no_hand_of_the_training_half_writes_in_the_test_half() -> None:
    test = sources("test")
    check(test)

    def hands(found: Sources) -> set[str]:
        return {writer for moves in (*found.movements, found.others) for writer in moves.writer}

    def pictures(found: Sources) -> set[bytes]:
        return {picture.tobytes() for many, _ in found.rasters for picture in many}

    assert hands(test) & hands(training()) == set()
    assert pictures(test) & pictures(training()) == set()


def test_only_the_chosen_rows_of_mnists_training_half_are_drawn_and_never_its_test_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    images, digits = (half[:2000] for half in shipped.mnist("train"))

    def spied(part: str) -> tuple[np.ndarray, np.ndarray]:
        asked.append(part)
        return images, digits

    monkeypatch.setattr(shipped, "mnist", spied)
    rows = np.array([7, 1999, 123, *range(300, 400)])
    for part in ("train", "test"):
        pictures, labels = sources(part, rows).rasters[0]
        assert (np.stack(pictures) == images[rows]).all()
        assert labels.tolist() == digits[rows].tolist()
    assert len(sources("train").rasters[0][0]) == 2000
    assert asked == ["train"] * 3
    assert sources("test").rasters
    assert asked == ["train"] * 3


def test_what_is_measured_draws_each_digit_as_often_as_any_other() -> None:
    test = sources("test", np.arange(1000))
    sizes = [*map(len, test.movements), sum(len(labels) for _, labels in test.rasters)]
    assert test.shares == pytest.approx([size / sum(sizes) for size in sizes])
    pictures = [len(labels) for _, labels in test.rasters]
    assert test.raster_shares == pytest.approx([count / sum(pictures) for count in pictures])


def test_without_unipen_its_share_goes_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_out = shutil.ignore_patterns("unipen")
    shutil.copytree(shipped._FOLDER, tmp_path / "data", ignore=left_out)
    monkeypatch.setattr(shipped, "_FOLDER", tmp_path / "data")
    found = sources("train", np.arange(500))
    check(found)
    assert found.shares == pytest.approx([0.24 / 0.62, 0.03 / 0.62, 0.35 / 0.62])
    assert {writer.split("/")[0] for moves in found.movements for writer in moves.writer} == {"tra", "tes", "uji"}
    assert {writer.split("/")[0] for writer in found.others.writer} == {"uji"}
    ink, label = hand(0, found=found).digit(50)
    assert ink.max() > 0.5
    assert label in range(10)


# what is written


@pytest.mark.parametrize("size", [11, 28, 100, 600])
def test_a_digit_is_about_as_large_as_asked_and_its_ink_is_whole(size: int) -> None:
    ratios = []
    for seed in range(60):
        ink, label = hand(seed).digit(size)
        assert label in range(10)
        assert ink.dtype == np.float32
        assert ink.min() >= 0
        assert ink.max() <= 1
        rows, columns = (np.flatnonzero((ink > 0.3).any(axis)) for axis in (1, 0))
        ratios.append(max(np.ptp(rows), np.ptp(columns)) / size)
    assert np.median(ratios) == pytest.approx(1.05, abs=0.15)
    assert min(ratios) > 0.55
    assert max(ratios) < 1.7


def test_a_digit_that_is_asked_for_is_written_by_all_sources() -> None:
    for label in range(10):
        assert {hand(seed).digit(30, label)[1] for seed in range(10)} == {label}


def test_a_digit_that_no_source_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^No sample of the digit 11 was met in 200 draws; expected some of each"):
        hand(0).digit(30, 11)


def test_a_thin_pen_on_a_large_page_writes_thin_lines() -> None:
    for share in (0.012, 0.1):
        moves = training().movements[0]
        ink = hand(1, share).write(moves.strokes(int(np.flatnonzero(np.array(moves.label) == "1")[0])), 500)
        across = ink[100:400].sum(1)
        assert np.median(across[across > 0]) == pytest.approx(500 * share, rel=0.4)


SIGNS: dict[str, Callable[[Hand], np.ndarray]] = {
    "a letter or mark": lambda one: one.other(60),
    "a number": lambda one: one.number(60, 3),
    "a digit struck out": lambda one: one.struck_out(60),
    "a ring": lambda one: one.write([ring(one.rng)], 60, 0.4),
}


@pytest.mark.parametrize("name", SIGNS)
def test_signs_are_ink_and_come_out_the_same_again(name: str) -> None:
    for seed in range(150):
        ink = SIGNS[name](hand(seed))
        assert ink.dtype == np.float32
        assert ink.max() > 0.3
        assert ink.min() >= 0
        assert ink.tobytes() == SIGNS[name](hand(seed)).tobytes()
        assert 30 < max(ink.shape) < 400


def test_a_number_is_wider_the_more_digits_it_has_and_its_digits_stand_apart_or_touch() -> None:
    widths = {count: [hand(seed).number(50, count) for seed in range(40)] for count in (2, 3, 4)}
    means = [np.mean([ink.shape[1] for ink in many]) for many in widths.values()]
    assert means == sorted(means)
    assert means[2] > 1.6 * means[0]
    parts = [cv2.connectedComponents((ink > 0.3).astype(np.uint8))[0] - 1 for ink in widths[4]]
    assert np.median(parts) >= 3


def test_a_ring_encloses_the_middle() -> None:
    for seed in range(30):
        ink = hand(seed, 0.03).write([ring(np.random.default_rng(seed))], 120, 0.0)
        middle = ink[ink.shape[0] // 2, ink.shape[1] // 2]
        assert middle == 0
        for half in (ink[: ink.shape[0] // 2], ink[ink.shape[0] // 2 :]):
            assert half[:, half.shape[1] // 2].max() > 0.3

"""Pen movements: read, bent and drawn."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.simulator.strokes import Movements, Pen, Stroke, bend, draw, join, load

UJI = shipped.movements("uji", "test")
BAR = [np.array([(0, 0), (0, 1)], np.float32)]
RAIL = [np.array([(0, 0), (1, 0)], np.float32)]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def places(strokes: list[Stroke], size: float, pen: Pen, between: int = 40) -> np.ndarray:
    """Where a pen is drawn along: pixels [P, 2], x and y, of what `draw` gives."""
    margin = pen.width * max(pen.flat, 1 / pen.flat) ** 0.5 / 2 + 1
    parts = [
        np.stack(
            [np.interp(np.linspace(0, len(s) - 1, between * len(s)), np.arange(len(s)), s[:, k]) for k in (0, 1)], 1
        )
        for s in strokes
    ]
    return np.concatenate(parts) * size + margin


# drawn


@pytest.mark.parametrize("width", [0.8, 1.0, 2.0, 5.0])
def test_a_pen_of_any_width_leaves_ink_all_along_the_strokes_and_nowhere_else(width: float) -> None:
    pen = Pen(width)
    for row in range(len(UJI)):
        strokes = UJI.strokes(row)
        ink = draw(strokes, 120, pen, generator())
        way = np.rint(places(strokes, 120, pen) - 0.5).astype(int)
        for reach, share in ((3, 0.98), (7, 1.0)):  # corners are cut where points lie far apart
            near = np.asarray(cv2.dilate(ink, np.ones((reach, reach))))
            assert (near[way[:, 1], way[:, 0]] > 0.2).mean() >= share
        beyond = np.ones(ink.shape, np.uint8)
        beyond[way[:, 1], way[:, 0]] = 0
        distance = np.asarray(cv2.distanceTransform(beyond, cv2.DIST_L2, 5))
        assert ink[distance > width / 2 + 4].max(initial=0) == 0


@settings(deadline=None, max_examples=60)
@given(size=st.integers(12, 500), width=st.floats(0.8, 20), seed=st.integers(0, 99))
def test_a_digit_is_as_large_and_its_pen_as_wide_as_asked(size: int, width: float, seed: int) -> None:
    bar = draw(BAR, size, Pen(width), generator(seed))
    assert (bar.dtype, bar.min() >= 0, bar.max() <= 1) == (np.float32, True, True)
    finer = 1 if width >= 7 else 2 if width >= 3 else 4
    soft = 2.5 / finer  # OpenCV's soft edges come on top
    assert width - 0.6 / finer < bar[bar.shape[0] // 2].sum() < width + soft + 0.6 / finer
    assert np.ptp(np.flatnonzero(bar.max(1) > 0.2)) + 1 == pytest.approx(size + width, abs=3.5)
    assert abs(bar.shape[0] - (size + width + 2)) <= 1  # with the margin that is promised
    assert abs(bar.shape[1] - (width + 2)) <= 1


def test_a_flat_pen_is_wider_across_than_down_by_what_was_asked() -> None:
    for flat in (0.4, 1.0, 2.5):
        upright = draw(BAR, 200, Pen(12, flat), generator())
        level = draw(RAIL, 200, Pen(12, flat), generator())
        across, down = upright[upright.shape[0] // 2].sum(), level[:, level.shape[1] // 2].sum()
        assert across / down == pytest.approx(flat, rel=0.12)
        assert 12**2 <= across * down < 1.3 * 12**2


def test_the_same_generator_draws_the_same_bytes_and_another_one_others() -> None:
    pen = Pen(6, 1.3, 0.4, 0.05, 0.4, 0.5)
    strokes = UJI.strokes(7)
    first, again, other = (draw(bend(strokes, generator(seed)), 90, pen, generator(seed)) for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("change", [{"gaps": 0.3}, {"grain": 0.6}, {"feather": 0.6}])
def test_gaps_grain_and_a_light_pen_leave_less_ink_in_the_same_places(change: dict[str, float]) -> None:
    shares = []
    for row in range(0, len(UJI), 5):
        solid = draw(UJI.strokes(row), 100, Pen(2), generator())
        worn = draw(UJI.strokes(row), 100, Pen(2)._replace(**change), generator())
        assert worn.shape == solid.shape
        shares.append(worn.sum() / solid.sum())
        assert (worn > 0.1)[np.asarray(cv2.dilate(solid, np.ones((3, 3)))) == 0].sum() == 0
    assert max(shares) < 1
    assert 0.2 < np.mean(shares) < 0.9


def test_pressure_makes_a_stroke_thick_here_and_thin_there() -> None:
    even, uneven = (draw(BAR, 200, Pen(10, pressure=pressure), generator(1)).sum(1)[12:-12] for pressure in (0, 0.5))
    assert np.ptp(even) < 1
    assert np.ptp(uneven) > 4
    assert uneven.mean() == pytest.approx(even.mean(), rel=0.25)


def test_one_point_is_a_dot() -> None:
    dot = draw([np.zeros((1, 2), np.float32)], 50, Pen(8), generator())
    assert dot.max() == 1
    assert 0.5 < dot.sum() / (np.pi * 4**2) < 2


# bent


def test_a_bent_digit_fills_a_box_whose_longer_side_is_1_from_the_origin_and_keeps_its_points() -> None:
    for row in range(len(UJI)):
        bent = bend(UJI.strokes(row), generator(row))
        points = np.concatenate(bent)
        assert points.min(0) == pytest.approx([0, 0], abs=1e-5)
        assert points.max() == pytest.approx(1, abs=1e-5)
        assert [len(stroke) for stroke in bent] == [len(stroke) for stroke in UJI.strokes(row)]


def test_bending_by_nothing_changes_nothing_and_by_more_changes_more() -> None:
    def moved(amount: float) -> float:
        rows = range(0, len(UJI), 3)
        pairs = [(UJI.strokes(row), bend(UJI.strokes(row), generator(row), amount)) for row in rows]
        return float(np.mean([np.abs(np.concatenate(a) - np.concatenate(b)).mean() for a, b in pairs]))

    assert moved(0) < 1e-6 < moved(0.5) < moved(1.5)


# read


def test_chosen_and_joined_movements_are_the_same_strokes() -> None:
    rows = np.array([5, 0, 41, 5])
    some = UJI.take(rows)
    assert (some.label, some.writer) == ([UJI.label[r] for r in rows], [UJI.writer[r] for r in rows])
    both = join([some, UJI])
    assert len(both) == 4 + len(UJI)
    for at, row in enumerate([*rows.tolist(), *range(len(UJI))]):
        for given_, wanted in zip(both.strokes(at), UJI.strokes(row), strict=True):
            assert given_.tobytes() == wanted.tobytes()
    assert len(UJI.take(np.zeros(0, np.intp))) == 0


def test_a_file_is_read_as_its_format_says() -> None:
    file = io.BytesIO()
    arrays = {
        "xy": np.array([(0, 0), (10, 20), (30, 40), (7, 7)], np.int16),
        "stroke": np.array([0, 2, 3, 4], np.int32),
        "sample": np.array([0, 2, 3], np.int32),
        "label": np.array(["8", "x"]),
        "writer": np.array(["ann", "bo"]),
        "source": np.array(["abc", "abd"]),
    }
    np.savez(file, **arrays)
    file.seek(0)
    found = load(file)
    assert isinstance(found, Movements)
    assert (found.label, found.writer) == (["8", "x"], ["abc/ann", "abd/bo"])
    first, second = found.strokes(0)
    assert first.tolist() == [[0, 0], [0.25, 0.5]]
    assert second.tolist() == [[0.75, 1]]
    assert found.strokes(1)[0].tolist() == [[0, 0]]

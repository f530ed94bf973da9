"""Print and stains: what is on paper beside the digit."""

from collections.abc import Callable

import numpy as np
import pytest

from batchdigits.training.datasets.simulator import paper
from batchdigits.training.datasets.simulator.strokes import Ink

Print = Callable[[Ink, np.random.Generator], None]
PRINTS: dict[str, Print] = {
    "line": lambda ink, rng: paper.line(ink, (-3, 2), (ink.shape[1] + 3, 5), 1.5, 0.8),
    "frame": lambda ink, rng: paper.frame(ink, (1, 1, ink.shape[1] - 2, ink.shape[0] - 2), 1.2, 0.8, rng),
    "grid": lambda ink, rng: paper.grid(ink, (7, 5), (1, 2), 1, 0.7, 0.01),
    "dots": lambda ink, rng: paper.dots(ink, 5, 1, 0.7),
    "text": lambda ink, rng: paper.put(ink, paper.text(rng, 9), 0, 0),
    "column": lambda ink, rng: paper.column_of_text(ink, rng, 0.9),
    "blot": lambda ink, rng: [paper.blot(ink, rng, 9, 0.5) for _ in range(8)] and None,
    "ring": lambda ink, rng: [paper.blot(ink, rng, 20, 0.5, ring=True) for _ in range(8)] and None,
    "punch": paper.punch,
    "edge": lambda ink, rng: [paper.scanner_edge(ink, rng) for _ in range(8)] and None,
    "form": paper.form,
    "shapes": paper.shapes,
    "texture": paper.texture,
}


def blank(height: int, width: int) -> Ink:
    return np.zeros((height, width), np.float32)


@pytest.mark.parametrize("name", PRINTS)
def test_print_leaves_ink_on_pages_of_any_size_and_takes_none_away(name: str) -> None:
    for shape in ((8, 6), (14, 200), (300, 20), (400, 333)):
        for seed in range(3):
            ink = blank(*shape)
            ink[::2] = 0.3
            PRINTS[name](ink, np.random.default_rng(seed))
            again = blank(*shape)
            again[::2] = 0.3
            PRINTS[name](again, np.random.default_rng(seed))
            assert (ink.shape, ink.dtype) == (shape, np.float32)
            assert ink.tobytes() == again.tobytes()
            assert ink.min() >= 0
            assert ink.max() <= 1
            assert (ink[::2] >= np.float32(0.3)).all()
            if min(shape) > 50:
                assert ink.sum() > again[::2].size * 0.3


@pytest.mark.parametrize("thick", [0.25, 0.5, 1, 2, 5])
def test_a_line_is_as_thick_as_asked_and_one_thinner_than_a_pixel_is_fainter(thick: float) -> None:
    ink = blank(60, 80)
    paper.line(ink, (10, 30), (70, 30), thick, 1.0)
    off = 0.35 * thick if thick <= 1 else 1.1  # OpenCV draws whole pixels, and soft edges around them
    assert abs(ink[:, 40].sum() - thick) <= off
    assert ink[:, :5].sum() == ink[:, 76:].sum() == ink[:20].sum() == ink[40:].sum() == 0


def test_what_lies_outside_of_a_page_is_not_drawn_and_what_is_half_outside_is_half() -> None:
    ink = blank(20, 30)
    tile = np.ones((10, 10), np.float32)
    for x, y in ((-10, 0), (30, 0), (0, -10), (0, 20), (-500, 500)):
        paper.put(ink, tile, x, y)
    paper.line(ink, (-50, -50), (-10, -10), 3, 1)
    assert ink.sum() == 0
    paper.put(ink, tile, -5, 15)
    assert ink.sum() == 25
    assert ink[15:, :5].sum() == 25


def test_a_grid_is_ruled_at_its_pitch_in_the_directions_asked_for() -> None:
    ink = blank(100, 120)
    paper.grid(ink, (0, 20), (0, 7), 1, 1.0, 0)
    assert np.flatnonzero(ink[:, 60] > 0.5).tolist() == [7, 27, 47, 67, 87]
    paper.grid(ink, (30, 0), (11, 0), 1, 1.0, 0)
    assert np.flatnonzero(ink[15] > 0.5).tolist() == [11, 41, 71, 101]


def test_printed_letters_are_about_as_high_as_asked() -> None:
    for size in (8, 20, 60):
        tiles = [paper.text(np.random.default_rng(seed), size, "Date") for seed in range(20)]
        heights = [np.ptp(np.flatnonzero((tile > 0.5).any(1))) for tile in tiles]
        assert 0.6 * size < np.median(heights) < 1.9 * size


def test_noise_is_about_standard_normal_and_as_smooth_as_its_scale() -> None:
    for scale in (1.0, 2.5, 12.0):
        noise = paper.noise((200, 260), np.random.default_rng(1), scale)
        assert (noise.shape, noise.dtype) == ((200, 260), np.float32)
        assert abs(noise.mean()) < 0.25
        assert 0.5 < noise.std() < 1.1
    fine, coarse = (paper.noise((200, 200), np.random.default_rng(1), scale) for scale in (1.0, 12.0))
    assert np.abs(np.diff(fine, axis=1)).mean() > 5 * np.abs(np.diff(coarse, axis=1)).mean()


def test_a_weave_takes_light_in_part_and_a_crease_is_light_on_one_side_and_dark_on_the_other() -> None:
    for seed in range(10):
        weave = paper.weave((90, 70), np.random.default_rng(seed))
        assert (weave.shape, weave.dtype) == ((90, 70), np.float32)
        assert set(np.unique(weave).tolist()) <= {0.0, float(weave.max())}
        assert weave.max() < 0.23
        crease = paper.crease((90, 70), np.random.default_rng(seed))
        assert (crease.shape, crease.dtype) == ((90, 70), np.float32)
        assert crease.max() > 0.01
        assert np.abs(crease).max() <= 0.15
    assert min(paper.crease((90, 70), np.random.default_rng(seed)).min() for seed in range(10)) < -0.05

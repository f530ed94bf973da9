"""Forms: what is printed before anybody writes."""

import numpy as np
import pytest

from batchdigits.training.datasets.simulator.layouts import lay_out
from batchdigits.training.datasets.simulator.pages import SCENES


@pytest.mark.parametrize("scene", SCENES)
def test_the_field_to_be_written_in_lies_on_the_page_and_is_most_of_it(scene: str) -> None:
    for seed in range(60):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(14, 400, 2).tolist()
        ink = np.zeros((height, width), np.float32)
        left, top, right, bottom = lay_out(ink, scene, rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert right - left > 0.2 * min(height, width) - 4
        assert ink.min() >= 0
        assert ink.max() <= 1


@pytest.mark.parametrize(("scene", "least", "most"), [
    ("tiny", 0, 0), ("small", 0, 0), ("cutout", 0, 0), ("board", 0, 0), ("plain", 0.15, 0.4), ("old", 0.15, 0.4),
    ("photo", 0.15, 0.4), ("exam", 0.8, 1), ("ruled", 1, 1), ("cell", 0.95, 1),
])  # fmt: skip
def test_each_kind_of_page_is_printed_as_often_as_it_should_be(scene: str, least: float, most: float) -> None:
    printed = []
    for seed in range(200):
        ink = np.zeros((120, 100), np.float32)
        lay_out(ink, scene, np.random.default_rng(seed))
        printed.append(ink.any())
    assert least <= np.mean(printed) <= most


def test_the_frame_of_a_cell_is_around_its_field_and_hardly_in_it() -> None:
    inside, beyond = [], []
    for seed in range(300):
        ink = np.zeros((160, 160), np.float32)
        left, top, right, bottom = (round(edge) for edge in lay_out(ink, "cell", np.random.default_rng(seed)))
        field = ink[top:bottom, left:right]
        inside.append((field > 0.2).mean())
        beyond.append((ink.sum() - field.sum()) / max(ink.sum(), 1))
    assert np.median(inside) < 0.01  # a frame is a little askew
    assert np.median(beyond) > 0.85

"""Light, desk, lens, file: what happens to a page before it is decoded."""

import cv2
import numpy as np
import pytest

from batchdigits.training.datasets.simulator import camera
from batchdigits.training.datasets.simulator.strokes import Ink

SHAPES = ((8, 6), (14, 200), (300, 20), (260, 333))


def marked(shape: tuple[int, int] = (200, 160)) -> tuple[Ink, Ink]:
    """A white page with a dark block, and the block's ink."""
    ink = np.zeros(shape, np.float32)
    ink[shape[0] // 3 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 1
    return 0.95 - 0.8 * ink, ink


@pytest.mark.parametrize("shape", SHAPES)
def test_light_falls_on_every_pixel_and_never_turns_a_page_black(shape: tuple[int, int]) -> None:
    lights = [camera.illuminate(shape, np.random.default_rng(seed)) for seed in range(100)]
    assert {(light.shape, light.dtype.name) for light in lights} == {(shape, "float32")}
    assert min(light.min() for light in lights) > 0
    assert max(light.max() for light in lights) < 1.5
    assert np.median([light.mean() for light in lights]) > 0.5
    assert 0.05 < np.mean([np.ptp(light) < 0.01 for light in lights]) < 0.5  # some are even


def test_a_picture_has_the_size_of_its_page_and_the_same_generator_takes_the_same() -> None:
    for shape in SHAPES:
        for seed in range(40):
            page, _ = marked(shape)
            how = {"careful": seed % 2 == 0, "one_bit": seed % 5 == 0}
            first = camera.take(page, np.random.default_rng(seed), **how)
            assert (first.shape, first.dtype) == (shape, np.uint8)
            assert first.tobytes() == camera.take(page, np.random.default_rng(seed), **how).tobytes()


def test_what_is_dark_on_a_page_is_dark_in_its_picture() -> None:
    page, ink = marked()
    for seed in range(100):
        grey = camera.take(page, np.random.default_rng(seed), careful=False, one_bit=seed % 5 == 0, strength=0.5)
        assert grey[ink > 0].mean() < grey[ink == 0].mean() - 40


def test_a_scan_of_one_bit_is_black_and_white_but_for_what_compression_does() -> None:
    page, _ = marked()
    shares = []
    for seed in range(60):
        grey = camera.take(page, np.random.default_rng(seed), careful=False, one_bit=True)
        shares.append(((grey == 0) | (grey == 255)).mean())
        assert ((grey < 70) | (grey > 185)).mean() > 0.95
    assert np.mean(np.array(shares) == 1) > 0.5


def test_a_careful_picture_keeps_a_faint_line_that_others_lose_more_of() -> None:
    page = np.full((200, 160), 0.9, np.float32)
    page[40:160, 80] -= 0.15

    def contrast(*, careful: bool) -> float:
        greys = [camera.take(page, np.random.default_rng(seed), careful=careful, one_bit=False) for seed in range(80)]
        depths = [np.median(grey[50:150, :70]) - np.median(grey[50:150, 80]) for grey in greys]
        noise = [float(grey[50:150, :70].std()) for grey in greys]
        return float(np.median(np.array(depths) / np.maximum(noise, 1)))

    assert contrast(careful=True) > 1.3 * contrast(careful=False)


def test_noise_never_drowns_faint_ink_and_one_bit_keeps_it() -> None:
    page = np.full((200, 160), 0.9, np.float32)
    page[40:160, 70:90] -= 0.09

    def worst(strength: float) -> float:
        greys = [
            camera.take(page, np.random.default_rng(seed), careful=False, one_bit=False, strength=strength)
            for seed in range(200)
        ]
        return float(np.max([grey[50:150, :60].std() / max(np.ptp(np.median(grey, axis=0)), 1) for grey in greys]))

    assert worst(0.1) < 0.7 * worst(1.0)
    bits = [
        camera.take(page, np.random.default_rng(seed), careful=False, one_bit=True, strength=0.1) for seed in range(80)
    ]
    assert np.mean([grey[50:150, 75:85].mean() < 90 < 200 < grey[50:150, :60].mean() for grey in bits]) > 0.6


def test_a_sheet_on_a_desk_takes_its_ink_with_it() -> None:
    page, ink = marked()
    moved = 0
    for seed in range(60):
        laid, inked = camera.lay_on_desk(page, ink, np.random.default_rng(seed))
        assert laid.shape == inked.shape == page.shape
        assert laid.dtype == inked.dtype == np.float32
        assert laid[inked > 0.9].mean() == pytest.approx(0.15, abs=0.03)
        around = (np.asarray(cv2.dilate(inked, np.ones((9, 9)))) > 0.1) & (inked == 0)
        assert np.median(laid[around]) == pytest.approx(0.95, abs=0.03)
        moved += int((inked != ink).any())
    assert moved > 40


def test_lost_pixels_are_lost_on_the_page_and_in_its_ink_alike() -> None:
    page, ink = marked()
    grey = np.asarray(255 * page, np.uint8)
    shapes = set()
    for seed in range(200):
        small, inked = camera.lose_pixels(grey, ink, 60, np.random.default_rng(seed))
        assert small.shape == inked.shape
        assert small[inked > 0.9].mean() < small[inked == 0].mean() - 100
        shapes.add(small.shape)
    assert len(shapes) > 5
    assert all(height >= 90 and width >= 72 for height, width in shapes)


def test_a_digit_of_few_pixels_loses_none() -> None:
    page, ink = marked()
    grey = np.asarray(255 * page, np.uint8)
    for seed in range(200):
        same, inked = camera.lose_pixels(grey, ink, 20, np.random.default_rng(seed))
        assert same is grey
        assert inked is ink

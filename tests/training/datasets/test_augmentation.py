from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
from numpy.typing import NDArray

from batchdigits.inference.runtimes import InkFinder
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.training.datasets import augmentation
from batchdigits.training.datasets.augmentation import vary
from tests.sample_pages import digits

Pages = list[NDArray[np.uint8]]


def generator(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


def clean(given: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Vary all digits without scanning or spoiling them: uint8[N, side, side], bright ink on 0."""
    with patch.object(augmentation, "_spoil"), patch.object(augmentation, "_add_impulses"):
        return np.stack(vary(given, generator(seed), clean_share=1.0))


def same(first: Pages, second: Pages) -> list[bool]:
    assert len(first) == len(second)
    return [one.shape == other.shape and bool((one == other).all()) for one, other in zip(first, second, strict=True)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 128, 300])
def test_every_digit_becomes_one_grey_page(count: int) -> None:
    for share in (0.0, 0.4, 1.0):
        pages = vary(digits()[:count], generator(), clean_share=share)
        assert len(pages) == count
        assert all(page.dtype == np.uint8 and page.ndim == 2 and min(page.shape) >= 10 for page in pages)


def test_no_page_is_so_large_that_the_ink_finder_would_be_asked() -> None:
    for share in (0.0, 1.0):
        assert max(max(page.shape) for page in vary(digits(), generator(), clean_share=share)) <= 28


@pytest.mark.parametrize("count", [1024, 4096])
def test_a_batch_may_be_as_large_as_the_command_allows(count: int) -> None:
    assert len(vary(np.tile(digits(), (14, 1, 1))[:count], generator())) == count


def test_the_same_generator_state_gives_the_same_pages_and_another_gives_others() -> None:
    first = vary(digits(), generator())
    assert all(same(vary(digits(), generator()), first))
    assert not any(same(vary(digits(), generator(4)), first))


def test_a_generator_that_goes_on_does_not_repeat_its_pages() -> None:
    going_on = generator()
    assert not any(same(vary(digits(), going_on), vary(digits(), going_on)))


def test_the_digits_that_are_given_stay_as_they_are() -> None:
    given = digits().copy()
    vary(given, generator())
    assert (given == digits()).all()


def test_a_clean_digit_sees_nothing_of_its_neighbours() -> None:
    alternating = digits().copy()
    alternating[1::2] = 0
    for seed in range(5):
        with patch.object(augmentation, "_add_impulses"):
            pages = augmentation._clean(alternating, generator(seed))
        assert pages[1::2].max() == 0
        assert (pages[::2].max(axis=(1, 2)) > 0).all()


def test_the_ink_of_a_clean_digit_is_neither_lost_nor_spilled() -> None:
    before = digits().sum(axis=(1, 2))
    for seed in range(5):
        pages = clean(digits(), seed)
        share = pages.sum(axis=(1, 2)) / before
        assert share.min() > 0.05
        assert np.percentile(share, 2) > 0.3
        assert 0.6 < np.median(share) < 1.6
        assert share.max() < 4
        assert (pages.max(axis=(1, 2)) > 100).all()


def test_spoiling_changes_some_clean_digits_and_only_these() -> None:
    def inked(pages: NDArray[np.uint8]) -> NDArray[np.intp]:
        return (pages > 0).sum(axis=(1, 2))

    some = [inked(np.stack(vary(digits(), generator(seed), clean_share=1.0))) for seed in range(3)]
    none = [inked(clean(digits(), seed)) for seed in range(3)]
    assert 0.1 < (np.concatenate(some) != np.concatenate(none)).mean() < 0.4


@pytest.mark.parametrize("spoil", [spoil for _, spoil in augmentation._SPOILT])
def test_spoilt_ink_is_ink_and_is_another(spoil: Callable[..., NDArray[np.float32]]) -> None:
    for digit in digits()[:50] / np.float32(255):
        spoilt = spoil(digit.copy(), generator())
        assert spoilt.dtype == np.float32
        assert spoilt.shape == digit.shape
        assert 0 <= spoilt.min() <= spoilt.max() <= 1
        assert (spoilt != digit).any()


def test_an_outline_leaves_the_inside_of_a_broad_stroke_empty() -> None:
    ink = np.zeros((28, 28), np.float32)
    ink[5:20, 8:18] = 1
    outline = augmentation._outline(ink, generator())
    assert not outline[7:18, 10:16].any()
    assert outline.sum() == 2 * (15 + 10) - 4  # one pixel all around


def test_a_page_without_ink_is_not_spoilt() -> None:
    ink = np.zeros((300, 28, 28), np.float32)
    augmentation._spoil(ink, generator())
    assert not ink.any()


def test_few_clean_digits_reach_the_edge_of_their_page() -> None:
    for seed in range(5):
        pages = clean(digits(), seed)
        edge = np.concatenate([pages[:, 0], pages[:, -1], pages[:, :, 0], pages[:, :, -1]], axis=1)
        assert (edge.max(axis=1) > 0).mean() < 0.2


def test_a_digit_without_ink_becomes_a_simulated_page_in_its_own_place() -> None:
    alternating = digits()[:100].copy()
    alternating[1::2] = 0
    pages = vary(alternating, generator(), clean_share=1.0)
    clean_shape = (augmentation._CLEAN_SIDE,) * 2
    assert all(page.shape == clean_shape for page in pages[::2])
    assert all(page.shape != clean_shape for page in pages[1::2])


def test_most_pages_without_a_digit_show_something_to_learn_from(network: InkFinder) -> None:
    pages = vary(np.zeros((300, 28, 28), np.uint8), generator())
    assert (normalise(pages, network).ink[:, 0] > 0).mean() > 0.5


def test_no_scanned_digit_has_fewer_pixels_than_can_be_read() -> None:
    """A 1 may be shorter than its own frame, which is 20 of 28 px."""
    pages = vary(digits(), generator(), clean_share=0.0)
    assert min(max(page.shape) for page in pages) >= augmentation._FEWEST_PIXELS


@pytest.mark.parametrize(("share", "nearest", "lost"), [(1.0, 0.02, 0.02), (0.0, 0.1, 0.15)])
def test_a_varied_digit_is_still_that_digit_after_normalisation(
    share: float, nearest: float, lost: float, network: InkFinder
) -> None:
    """Most are nearer to themselves, before variation, than to nearly all others; few are beyond recognition."""
    some = digits()[:100]
    before = normalise(list(some), network).pixels.reshape(100, -1) / 255
    after = normalise(vary(some, generator(), clean_share=share), network).pixels.reshape(100, -1) / 255
    distances = np.linalg.norm(after[:, None] - before[None], axis=2)  # [100, 100]
    nearer = (distances < distances.diagonal()[:, None]).mean(axis=1)
    assert np.median(nearer) <= nearest
    assert (nearer > 0.5).mean() <= lost

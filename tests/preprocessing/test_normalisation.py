"""Normalisation: what holds of its pixels whatever steps it takes. No test here knows a step.

The shares and bounds were measured on 300 digits of MNIST's training half and stand a little below what was found; a
better normalisation may raise them.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchdigits.preprocessing.canvas import halved
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import INK_MEASURES, SIDE
from batchdigits.settings import NormalisationSettings
from tests.digits import INK, PAPER, Grey, digits, enlarged, on_page, one_of_each, shaded

SHARE = INK_MEASURES.index("share")
OTHER = INK_MEASURES.index("other")


def noise(height: int, width: int, seed: int) -> Grey:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def paper_noise(height: int, width: int, seed: int) -> Grey:
    return np.random.default_rng(seed).normal(190, 9, (height, width)).clip(0, 255).astype(np.uint8)


def stroke(height: int, width: int, seed: int) -> Grey:
    page = np.full((height, width), 240, np.uint8)
    at = seed % max(1, width - 2)
    page[height // 5 : height - height // 5, at : at + max(1, width // 12)] = 30
    return page


sides = st.sampled_from([1, 2, 3, 5, 20, 27, 28, 29, 31, 32, 33, 63, 64, 65, 95, 96, 97, 150, 300])
random_pages = st.builds(
    lambda make, height, width, seed: make(height, width, seed),
    st.sampled_from([noise, paper_noise, stroke]),
    sides,
    sides,
    st.integers(0, 99),
)
digit_pages = st.builds(
    lambda number, height, width, factor: enlarged(
        on_page(digits()[number], 28 + height, 28 + width, top=height // 2, left=width // 3), factor
    ),
    st.integers(0, 299),
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 3),
)
odd_pages = st.sampled_from(
    [
        np.zeros((1, 1), np.uint8),
        np.full((1, 1), 255, np.uint8),
        noise(1, 500, 0),
        noise(500, 1, 0),
        stroke(3000, 20, 0),
        stroke(20, 3000, 0),
        np.full((28, 28), 128, np.uint8),
    ]
)
pages = random_pages | digit_pages | digit_pages | odd_pages


def normalised(make: Callable[[Grey], Grey], count: int = 300) -> NDArray[np.uint8]:
    return normalise([make(digit) for digit in digits(count)]).pixels


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The correlation of each image of one stack with its fellow in the other: float64[N], 1 for the same."""
    a, b = (stack.reshape(len(stack), -1).astype(np.float64) for stack in (first, second))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-9)


def assert_alike(
    first: NDArray[np.uint8], second: NDArray[np.uint8], *, share: float, at_least: float, middle: float = 0.9
) -> None:
    """Assert that the share of images with a likeness of `at_least` is so high, and the median so like."""
    found = likeness(first, second)
    assert (found >= at_least).mean() >= share, np.quantile(found, [0.001, 0.01, 0.02, 0.05, 0.1, 0.2])
    assert np.median(found) >= middle


# ---- the contract ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(pages, max_size=12))
@example([noise(1, 65, 0), noise(1, 65, 0), stroke(150, 97, 52)])  # its centre of mass lies between two pixels
def test_a_batch_is_its_pages_one_by_one_bit_for_bit(batch: list[Grey]) -> None:
    whole = normalise(batch)
    singles = [normalise([page]) for page in batch]
    assert len(whole.pixels) == len(whole.ink) == len(batch)
    for row, single in enumerate(singles):
        np.testing.assert_array_equal(whole.pixels[row], single.pixels[0])
        np.testing.assert_array_equal(whole.ink[row], single.ink[0])


@settings(max_examples=60, deadline=None)
@given(st.lists(pages, max_size=12))
@example([stroke(300, 500, 40), stroke(191, 400, 100), noise(1, 900, 3)])
def test_pages_that_come_with_halves_of_them_are_the_same_bit_for_bit(batch: list[Grey]) -> None:
    alone, helped = normalise(batch), normalise(batch, smaller=[halved(page, 96) for page in batch])
    np.testing.assert_array_equal(alone.pixels, helped.pixels)
    np.testing.assert_array_equal(alone.ink, helped.ink)


@pytest.mark.parametrize("side", [28, 70, 200])
def test_a_digit_that_is_small_on_a_reduced_page_is_read_from_the_finer_one(side: int) -> None:
    digit = cv2.resize(digits(60)[3], (side, side), interpolation=cv2.INTER_CUBIC)
    page = on_page(digit, 500, 600)
    asked: list[int] = []

    def finer() -> Grey:
        asked.append(1)
        return page

    reduced = halved(page, 300)
    seen = normalise([reduced], finer=[finer])
    small = side < 100
    assert len(asked) == small  # the larger one's part of the reduced page fills a canvas
    np.testing.assert_array_equal(seen.pixels, normalise([page if small else reduced]).pixels)
    np.testing.assert_array_equal(seen.ink, normalise([page]).ink)
    if small:
        assert (seen.pixels != normalise([reduced]).pixels).any()


def test_a_digit_does_not_depend_on_its_neighbours_nor_on_its_place_among_them() -> None:
    batch = list(digits(150)) + [on_page(digit, 100, 70) for digit in digits(150)]
    order = np.random.default_rng(3).permutation(len(batch))
    straight, shuffled = normalise(batch), normalise([batch[row] for row in order])
    np.testing.assert_array_equal(straight.pixels[order], shuffled.pixels)
    np.testing.assert_array_equal(straight.ink[order], shuffled.ink)
    for row in range(0, 300, 10):
        np.testing.assert_array_equal(normalise([batch[row]]).pixels[0], straight.pixels[row])


@settings(max_examples=60, deadline=None)
@given(st.lists(pages, max_size=5))
def test_any_pages_give_pixels_and_measures_of_the_contract(batch: list[Grey]) -> None:
    copies = [page.copy() for page in batch]
    pixels, ink = normalise(batch)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(batch), SIDE, SIDE) == (len(batch), 28, 28)
    assert ink.dtype == np.float32
    assert ink.shape == (len(batch), len(INK_MEASURES))
    assert np.isfinite(ink).all()
    assert (ink >= 0).all()
    assert (ink <= 1).all()
    blank = ink[:, SHARE] == 0
    assert not pixels[blank].any()
    assert (pixels[~blank].max((1, 2), initial=0) == 255).all()
    for page, copy in zip(batch, copies, strict=True):
        np.testing.assert_array_equal(page, copy)


def test_no_pages_give_empty_arrays() -> None:
    pixels, ink = normalise([])
    assert (pixels.shape, pixels.dtype) == ((0, 28, 28), np.uint8)
    assert (ink.shape, ink.dtype) == ((0, len(INK_MEASURES)), np.float32)


@pytest.mark.parametrize("factor", [1, 2, 7])
def test_a_digit_is_20_pixels_long_with_its_centre_of_mass_in_the_middle(factor: int) -> None:
    pixels = normalised(lambda digit: enlarged(on_page(digit, 40, 50, top=9, left=3), factor))
    at = np.arange(28) + 0.5
    for image in pixels:
        stroke = image > 80
        rows, columns = np.flatnonzero(stroke.any(1)), np.flatnonzero(stroke.any(0))
        assert 17 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
        for axis in (0, 1):
            profile = image.sum(axis, dtype=np.float64)
            clipped = profile[0] > 0 or profile[-1] > 0  # it would leave the frame in the very middle
            assert abs(profile @ at / profile.sum() - 14.5) <= (3 if clipped else 1)


def test_the_longer_side_is_as_long_as_the_settings_say() -> None:
    pixels = normalise(list(digits(50)), NormalisationSettings(digit_side=14)).pixels
    extents = [np.ptp(np.argwhere(image > 80), axis=0).max() + 1 for image in pixels]
    assert 12 <= min(extents) <= max(extents) <= 15


# ---- MNIST, and the same digits as people scan them ----------------------------------------------------------------


def test_digits_of_mnist_pass_nearly_unchanged() -> None:
    raw, pixels = digits(), normalised(lambda digit: digit)
    difference = np.abs(pixels.astype(int) - raw).mean((1, 2))
    assert difference.mean() <= 1  # grey levels a pixel; 0.37 was measured
    assert np.quantile(difference, 0.8) <= 0.5  # 86% are the same to the bit
    assert_alike(pixels, raw, share=0.98, at_least=0.8)


def test_no_digit_of_mnist_is_taken_for_a_blank_page() -> None:
    ink = normalise(list(digits())).ink
    assert (ink[:, SHARE] > 0.01).all()
    assert (ink[:, SHARE] < 0.6).all()
    assert (ink[:, OTHER] < 0.2).all()


def test_an_inverted_page_gives_the_same_pixels() -> None:
    for pages, at_most in ((list(digits()), 0), ([on_page(digit, 60, 80) for digit in digits(100)], 4)):
        pixels, of_inverted = (normalise(some).pixels.astype(int) for some in (pages, [255 - page for page in pages]))
        assert np.abs(pixels - of_inverted).max() <= at_most  # a larger page is reduced, and so rounded


def test_bright_ink_comes_out_bright_and_dark_ink_too() -> None:
    seven = one_of_each()[7]
    for page in (seven, 255 - seven, on_page(seven), 255 - on_page(seven)):
        pixels = normalise([page]).pixels
        assert np.median(pixels) == 0
        assert likeness(pixels, seven[None])[0] > 0.95


@pytest.mark.parametrize(("paper", "ink"), [(150, 250), (110, 10), (90, 200), (170, 60), (30, 120), (225, 140)])
def test_neither_paper_nor_ink_needs_to_be_white_or_black(paper: int, ink: int) -> None:
    def in_grey(digit: Grey) -> Grey:
        return np.rint(paper + digit / 255 * (ink - paper)).astype(np.uint8)

    assert_alike(normalised(in_grey), normalised(lambda digit: digit), share=0.98, at_least=0.9)


@pytest.mark.parametrize("spread", [4, 10])
def test_a_digit_may_stand_on_noisy_paper(spread: int) -> None:
    grains = np.random.default_rng(6)

    def on_noise(digit: Grey) -> Grey:
        page = on_page(digit, 60, 60) + grains.normal(0, spread, (60, 60))
        return np.rint(page).clip(0, 255).astype(np.uint8)

    assert_alike(normalised(on_noise), normalised(on_page), share=0.96, at_least=0.8)


@pytest.mark.parametrize(
    ("height", "width", "at_least"),
    [(40, 60, 0.95), (64, 64, 0.95), (90, 120, 0.7), (200, 150, 0.95), (400, 400, 0.95)],
)
def test_a_digit_may_stand_anywhere_on_a_larger_page(height: int, width: int, at_least: float) -> None:
    places = np.random.default_rng(height)

    def somewhere(digit: Grey) -> Grey:
        top, left = places.integers(0, height - 27), places.integers(0, width - 27)
        return on_page(digit, height, width, top=top, left=left)

    # A page over 96 px is reduced, and its digit with it; a far one is read again from near.
    assert_alike(normalised(somewhere), normalised(lambda digit: digit), share=0.99, at_least=at_least)


@pytest.mark.parametrize("factor", [2, 5, 20])
def test_a_digit_may_be_of_any_size(factor: int) -> None:
    large = normalised(lambda digit: enlarged(255 - digit, factor), 100 if factor > 5 else 300)
    plain = normalised(lambda digit: digit, 100 if factor > 5 else 300)
    # What remains is how thick the blurred edges come out.
    assert_alike(large, plain, share=0.92, at_least=0.8)


@pytest.mark.parametrize("darkest", [0.8, 0.6, 0.4])
def test_a_digit_may_lie_in_a_shadow(darkest: float) -> None:
    angles = np.random.default_rng(5)

    def in_shadow(digit: Grey) -> Grey:
        page = enlarged(on_page(digit, 36, 36, top=4, left=4), 5)
        return shaded(page, darkest=darkest, angle=angles.uniform(0, 2 * np.pi))

    assert_alike(normalised(in_shadow), normalised(lambda digit: digit), share=0.92, at_least=0.8)


@pytest.mark.parametrize("darkest", [0.8, 0.6, 0.4])
def test_a_small_digit_on_a_large_page_may_lie_in_a_shadow(darkest: float) -> None:
    angles = np.random.default_rng(5)

    def in_shadow(digit: Grey) -> Grey:
        page = on_page(digit, 84, 84, top=28, left=28)
        return shaded(page, darkest=darkest, angle=angles.uniform(0, 2 * np.pi))

    assert_alike(normalised(in_shadow), normalised(lambda digit: digit), share=0.92, at_least=0.8)


def test_a_pale_digit_looks_like_a_strong_one() -> None:
    def pale(digit: Grey) -> Grey:
        return np.rint(200 - digit / 255 * 50).astype(np.uint8)

    assert_alike(normalised(pale), normalised(lambda digit: digit), share=0.98, at_least=0.9)


# ---- what is on the page beside the digit ---------------------------------------------------------------------------


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("thickness", [1, 3])
def test_a_printed_line_at_the_edge_of_the_page_is_left_out(edge: str, thickness: int) -> None:
    line: dict[str, tuple[slice, slice]] = {
        "top": (slice(thickness), slice(None)),
        "bottom": (slice(-thickness, None), slice(None)),
        "left": (slice(None), slice(thickness)),
        "right": (slice(None), slice(-thickness, None)),
    }

    def beside_line(digit: Grey) -> Grey:
        page = on_page(digit)
        page[line[edge]] = INK
        return page

    assert_alike(normalised(beside_line), normalised(lambda digit: digit), share=0.99, at_least=0.95)


def bordered(page: Grey, sides: str, *, thick: int = 3, inset: int = 0) -> Grey:
    """Print lines along the sides t(op), b(ottom), l(eft), r(ight) of a page, from edge to edge."""
    page = page.copy()
    near, far = slice(inset, inset + thick), slice(-inset - thick, -inset or None)
    for side in sides:
        page[{"t": (near,), "b": (far,), "l": (slice(None), near), "r": (slice(None), far)}[side]] = INK
    return page


def photographed(page: Grey) -> Grey:
    """Light a page from one side, and add noise."""
    noise = np.random.default_rng(11).normal(0, 4, page.shape)
    return np.clip(shaded(page, darkest=0.7, angle=1) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("capture", [lambda page: page, photographed])
@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
@pytest.mark.parametrize(("sides", "thick", "inset"), [("tbrl", 2, 0), ("tl", 3, 0), ("br", 3, 2), ("tlb", 1, 1)])
def test_a_printed_border_around_the_digit_changes_nothing(
    sides: str, thick: int, inset: int, turn: Callable[[Grey], Grey], capture: Callable[[Grey], Grey]
) -> None:
    def page(digit: Grey) -> Grey:
        return capture(turn(on_page(digit)))

    def in_border(digit: Grey) -> Grey:
        return capture(turn(bordered(on_page(digit), sides, thick=thick, inset=inset)))

    assert_alike(normalised(in_border), normalised(page), share=0.93, at_least=0.95)


@pytest.mark.parametrize("side", "tblr")
def test_one_bar_as_long_as_the_page_is_a_stroke_and_stays(side: str) -> None:
    page = np.full((40, 40), PAPER, np.uint8)
    page[5:35, 18:22] = page[18:22, 5:35] = INK
    page = bordered(page, side, thick=4)
    page[
        {"t": (slice(0, 20), slice(18, 22)), "b": (slice(20, 40), slice(18, 22))}.get(
            side, (slice(18, 22), slice(0, 40))
        )
    ] = INK
    pixels = normalise([page]).pixels[0]
    edge = {"t": pixels.argmax(0).min(), "b": pixels[::-1].argmax(0).min()}.get(side)
    assert edge is None or edge < 8
    assert (pixels > 128).any(0).sum() >= 18  # the bar is as wide as the digit's box


@pytest.mark.parametrize(("side", "covered"), [(16, False), (32, True)])
def test_two_bars_as_long_as_the_page_are_strokes_on_a_page_of_few_pixels(side: int, covered: bool) -> None:
    page = np.zeros((side, side), np.uint8)
    page[: side // 8] = page[:, : side // 8] = 255
    page[side // 2 : side // 2 + side // 8, side // 4 : side * 3 // 4] = 255
    inked = normalise([page]).pixels[0] > 128
    assert (inked.any(1).sum() < 10) == covered  # the short bar alone, or all three


@pytest.mark.parametrize("lying", [False, True])
@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
@pytest.mark.parametrize(("left", "right"), [(7, 7), (4, 9)])
def test_bars_at_opposite_sides_change_nothing_where_they_invert_the_digit(
    left: int, right: int, turn: Callable[[Grey], Grey], lying: bool
) -> None:
    def behind_bars(digit: Grey) -> Grey:
        page = digit.copy()
        page[:, :left], page[:, -right:] = 255 - page[:, :left], 255 - page[:, -right:]
        return turn(page)

    def turned(page: Grey) -> Grey:
        return np.rot90(page) if lying else page

    found = normalised(lambda digit: turned(behind_bars(digit)))
    assert_alike(found, normalised(turned), share=0.97, at_least=0.95)


def ruled(page: Grey, *, pitch: int = 11, ink: int = 120, squared: bool = False) -> Grey:
    """Print a line every `pitch` pixels from the left to the right edge, and from top to bottom."""
    page = page.copy()
    for paper in (page, page.T) if squared else (page,):
        paper[5::pitch] = np.minimum(paper[5::pitch], ink)
    return page


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
@pytest.mark.parametrize(("ink", "share"), [(150, 0.85), (INK, 0.75)])
def test_ruled_paper_behind_the_digit_changes_nothing(
    ink: int, share: float, turn: Callable[[Grey], Grey], squared: bool
) -> None:
    found = normalised(lambda digit: turn(ruled(on_page(digit), ink=ink, squared=squared)))
    assert_alike(found, normalised(on_page), share=share, at_least=0.75)


def test_a_tilted_line_is_a_line_too() -> None:
    def above_tilted_line(digit: Grey) -> Grey:
        page = on_page(digit)
        height, width = page.shape
        page[height - 6, : width // 2] = page[height - 7, width // 2 :] = INK
        return page

    assert_alike(normalised(above_tilted_line), normalised(on_page), share=0.99, at_least=0.95)


def test_strokes_that_reach_as_far_as_the_line_make_it_a_stroke() -> None:
    page = np.full((40, 40), PAPER, np.uint8)
    page[4:36, 1:5] = page[4:36, 35:39] = page[20:22] = INK
    with_bar = normalise([page]).pixels[0]
    assert (with_bar > 128).any(0).sum() == 20  # the bar is as long as the digit is wide


def test_lines_alone_are_no_ink_but_one_of_them_may_be_a_stroke() -> None:
    blank = np.full((48, 48), PAPER, np.uint8)
    pixels, ink = normalise([ruled(blank), ruled(blank, pitch=100)])
    assert ink[:, SHARE].astype(bool).tolist() == [False, True]
    assert not pixels[0].any()


def test_paper_at_both_sides_of_a_broad_stroke_is_no_bar() -> None:
    page = np.full((28, 28), PAPER, np.uint8)
    page[:, 10:18] = INK
    inked = normalise([page]).pixels[0] > 128
    assert (inked.any(1).sum(), inked.any(0).sum()) == (20, 6)


@pytest.mark.parametrize("invert", [False, True])
def test_a_page_of_one_bit_needs_no_paper_around_its_digit(invert: bool) -> None:
    def filling(digit: Grey) -> Grey:
        inked = digit > 100
        inked = inked[np.ix_(inked.any(1), inked.any(0))]
        page = np.where(inked, np.uint8(255), np.uint8(0))
        return 255 - page if invert else page

    def with_paper(digit: Grey) -> Grey:
        return np.pad(filling(digit), 4, constant_values=255 * invert)

    assert_alike(normalised(filling), normalised(with_paper), share=0.93, at_least=0.99)


@pytest.mark.parametrize("corner", range(4))
def test_a_vignette_does_not_turn_the_polarity(corner: int) -> None:
    noise = np.random.default_rng(2)

    def vignetted(digit: Grey) -> Grey:
        at = np.arange(56) / 56
        light = np.rot90(0.6 + 0.4 * np.outer(at, at), corner)
        page = np.pad(np.rint(220 - digit * 0.8).astype(np.uint8), 14, constant_values=220)
        return np.clip(page * light + noise.normal(0, 5, page.shape), 0, 255).astype(np.uint8)

    assert_alike(normalised(vignetted), normalised(lambda digit: digit), share=0.93, at_least=0.8)


def photo(digit: Grey, *, top: int, left: int, factor: int = 3) -> Grey:
    """Photograph a digit on a page of 400 × 500 px, whose light falls off towards the corners."""
    page = np.full((400, 500), float(PAPER))
    height, width = (factor * extent for extent in digit.shape)
    page[top : top + height, left : left + width] -= enlarged(digit, factor) / 255 * (PAPER - INK)
    y, x = np.mgrid[-1:1:400j, -1:1:500j]
    return np.asarray(page * (1 - 0.1 * (x**2 + y**2)), np.uint8)


@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
def test_a_small_digit_on_a_photo_outweighs_the_light_that_falls_off(turn: Callable[[Grey], Grey]) -> None:
    places = np.random.default_rng(12)

    def off_centre(digit: Grey) -> Grey:
        return turn(photo(digit, top=places.integers(20, 290), left=places.integers(20, 390)))

    assert_alike(normalised(off_centre, 100), normalised(lambda digit: digit, 100), share=0.93, at_least=0.8)


def test_a_shadow_at_the_edge_of_a_photo_is_not_the_digit() -> None:
    def beside_shadow(digit: Grey) -> Grey:
        page = photo(digit, top=200, left=150)
        page[:60, 200:] = page[:60, 200:] * 0.5
        return page

    found = normalised(beside_shadow, 100)
    assert_alike(found, normalised(lambda digit: photo(digit, top=200, left=150), 100), share=0.97, at_least=0.9)


@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
def test_a_corner_of_a_photo_that_lies_in_the_light_is_seldom_the_digit(turn: Callable[[Grey], Grey]) -> None:
    """In a shadow that takes 40% of the light never, in one that takes 55% seldom."""
    y, x = np.mgrid[0:400, 0:500]
    alone = normalised(lambda digit: photo(digit, top=200, left=150), 100)
    for remaining, share in ((0.6, 0.97), (0.45, 0.5)):

        def beside_light(digit: Grey, remaining: float = remaining) -> Grey:
            page = photo(digit, top=200, left=150)
            return turn(np.where(x > 330 + y, page, page * remaining).astype(np.uint8))

        assert_alike(normalised(beside_light, 100), alone, share=share, at_least=0.9)


@pytest.mark.parametrize("invert", [False, True])
def test_a_large_drawing_in_bold_strokes_is_no_photo(invert: bool) -> None:
    def drawing(digit: Grey) -> Grey:
        page = np.where(enlarged(digit, 14) > 100, np.uint8(0), np.uint8(255))
        return 255 - page if invert else page

    assert_alike(normalised(drawing, 100), normalised(lambda digit: digit, 100), share=0.93, at_least=0.8)


def test_another_digit_beside_the_first_is_measured() -> None:
    first, second, *_ = one_of_each()
    page = np.zeros((40, 90), np.uint8)
    page[6:34, 2:30] = first
    alone = normalise([page]).ink[0, OTHER]
    page[6:34, 60:88] = second
    both = normalise([page]).ink[0, OTHER]
    assert alone == 0
    assert 0.4 < both <= 1


def test_a_small_speck_beside_the_digit_changes_nothing() -> None:
    corners = np.random.default_rng(9)

    def with_speck(digit: Grey) -> Grey:
        page = on_page(digit)
        top, left = corners.choice([3, 50], 2)
        page[top : top + 2, left : left + 2] = INK
        return page

    assert_alike(normalised(with_speck), normalised(on_page), share=0.98, at_least=0.99)


def test_a_dot_close_to_the_digit_changes_nothing() -> None:
    def with_dot(digit: Grey) -> Grey:
        page = on_page(digit)
        columns = np.flatnonzero((page < PAPER - 20).any(0))
        page[28, columns[0] - 4] = INK
        return page

    assert_alike(normalised(with_dot), normalised(on_page), share=0.98, at_least=0.99)


def a_five(*, aside: int = 0, above: int = 0) -> Grey:
    """A 5 of straight strokes; its bar ends so many px beside its back, or hovers so many px above it."""
    five = np.zeros((28, 28), np.uint8)
    five[4 - above : 7 - above, 7 + (3 + aside) * (aside > 0) : 20] = 255
    five[4 + 3 * (above > 0) : 14, 7:10] = 255
    five[12:15, 7:18] = 255
    five[12:23, 17:20] = 255
    five[21:24, 7:20] = 255
    return five


@pytest.mark.parametrize("gap", [{"aside": 1}, {"aside": 3}, {"above": 1}, {"above": 3}])
@pytest.mark.parametrize("factor", [1, 4])
def test_the_detached_bar_of_a_5_stays_part_of_it(gap: dict[str, int], factor: int) -> None:
    whole, parted = (normalise([enlarged(on_page(five), factor)]).pixels[0] for five in (a_five(), a_five(**gap)))
    bar = (slice(0, 9), slice(16, 28))  # the upper right, where a 5 without its bar has nothing
    assert (parted[bar] > 150).sum() >= 0.5 * (whole[bar] > 150).sum() > 0


def test_a_fragment_of_a_neighbour_at_the_edge_is_left_out() -> None:
    def with_fragment(digit: Grey) -> Grey:
        page = on_page(digit)
        page[20:30, :3] = INK
        return page

    assert_alike(normalised(with_fragment), normalised(on_page), share=0.99, at_least=0.95)


def test_a_piece_of_a_neighbour_at_the_edge_is_not_taken_for_the_digit() -> None:
    def with_piece(digit: Grey) -> Grey:
        page = on_page(digit, 56, 70)
        page[15:35, :6] = INK  # 120 px; a digit has 60 to 200
        return page

    assert_alike(normalised(with_piece), normalised(on_page), share=0.88, at_least=0.8)


# ---- pages without ink -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 90, 128, PAPER, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (28, 28), (33, 60), (500, 400), (3000, 20)])
def test_an_even_page_holds_no_ink(level: int, shape: tuple[int, int]) -> None:
    pixels, ink = normalise([np.full(shape, level, np.uint8)])
    assert not pixels.any()
    assert ink[0, SHARE] == 0


def test_what_hardly_differs_from_its_paper_is_no_ink() -> None:
    traces = [np.rint(200 - digit / 255 * 4).astype(np.uint8) for digit in digits(50)]
    pixels, ink = normalise([*traces, *(255 - trace for trace in traces)])
    assert not pixels.any()
    assert not ink[:, SHARE].any()


@pytest.mark.parametrize("darkest", [0.9, 0.6])
def test_a_blank_page_in_an_even_shadow_holds_no_ink(darkest: float) -> None:
    blank = np.full((200, 160), PAPER, np.uint8)
    for angle in (0, 1, 2.5, 4):
        pixels, ink = normalise([shaded(blank, darkest=darkest, angle=angle)])
        assert not pixels.any()
        assert ink[0, SHARE] == 0

"""Normalisation: what holds of its pixels whatever steps it takes. No test here knows a step.

What is compared with clean digits holds of any good ink finder: shares and bounds stand well below what was found.
"""

import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchdigits.inference.runtimes import InkFinder
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import DEPTH, EDGE, INK_MEASURES, KINDS, NOTHING, OTHER, SIDE, SINGLE
from batchdigits.records import INK as SHARE
from batchdigits.settings import NormalisationSettings
from tests.fake_model import no_network
from tests.sample_pages import INK, PAPER, Grey, digits, enlarged, on_page, one_of_each, shaded

COUNT = 40
"""Digits of a kind of page."""


def noise(height: int, width: int, seed: int) -> Grey:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def paper_noise(height: int, width: int, seed: int) -> Grey:
    return np.random.default_rng(seed).normal(190, 9, (height, width)).clip(0, 255).astype(np.uint8)


def stroke(height: int, width: int, seed: int) -> Grey:
    page = np.full((height, width), 240, np.uint8)
    at = seed % max(1, width - 2)
    page[height // 5 : height - height // 5, at : at + max(1, width // 12)] = 30
    return page


sides = st.sampled_from([1, 2, 3, 5, 20, 27, 28, 29, 31, 32, 33, 40, 41, 63, 64, 65, 97, 150, 300])
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


def trimmed(digit: Grey) -> Grey:
    """Cut a digit out of its paper."""
    rows, columns = np.flatnonzero(digit.any(1)), np.flatnonzero(digit.any(0))
    return digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The cosine of each image of one stack with its fellow in the other: float64[N], 1 for the same, 0 for none."""
    a, b = (stack.reshape(len(stack), -1).astype(np.float64) for stack in (first, second))
    return (a * b).sum(1) / np.maximum(np.sqrt((a * a).sum(1) * (b * b).sum(1)), 1e-9)


def assert_alike(
    first: NDArray[np.uint8], second: NDArray[np.uint8], *, share: float = 0.9, at_least: float = 0.7
) -> None:
    """Assert that the share of images with a likeness of `at_least` is so high."""
    found = likeness(first, second)
    assert (found >= at_least).mean() >= share, np.quantile(found, [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]).round(3)


def assert_found(
    network: InkFinder, make: Callable[[Grey], Grey], *, share: float = 0.9, at_least: float = 0.7, count: int = COUNT
) -> None:
    """Assert that of pages with digits of MNIST the digits are read, nearly as MNIST has them."""
    found = normalise([make(digit) for digit in digits(count)], network)
    assert_alike(found.pixels, digits(count), share=share, at_least=at_least)


# ---- the contract ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(pages, max_size=9))
@example([noise(1, 65, 0), noise(1, 65, 0), stroke(150, 97, 52)])  # its centre of mass lies between two pixels
def test_a_batch_is_its_pages_one_by_one_bit_for_bit(network: InkFinder, batch: list[Grey]) -> None:
    whole = normalise(batch, network)
    singles = [normalise([page], network) for page in batch]
    assert len(whole.pixels) == len(whole.ink) == len(batch)
    for row, single in enumerate(singles):
        np.testing.assert_array_equal(whole.pixels[row], single.pixels[0])
        np.testing.assert_array_equal(whole.ink[row], single.ink[0])


@pytest.mark.parametrize("side", [28, 70, 300])
def test_a_digit_that_is_small_on_a_reduced_page_is_read_from_all_its_pixels(network: InkFinder, side: int) -> None:
    digit = np.asarray(cv2.resize(digits(60)[3], (side, side), interpolation=cv2.INTER_CUBIC), np.uint8)
    page = on_page(digit, 480, 600)
    asked: list[int] = []

    def decode_again() -> Grey:
        asked.append(1)
        return page

    reduced = np.asarray(cv2.resize(page, (300, 240), interpolation=cv2.INTER_AREA), np.uint8)
    seen = normalise([reduced], network, full_resolution=[decode_again])
    assert bool(asked) == (side < 100)  # of the larger one the reduced page has pixels enough
    if side < 100:
        assert (seen.pixels != normalise([reduced], network).pixels).any()
        assert likeness(seen.pixels, normalise([page], network).pixels)[0] > 0.8


def test_a_digit_does_not_depend_on_its_neighbours_nor_on_its_place_among_them(network: InkFinder) -> None:
    batch = list(digits(150)) + [on_page(digit, 100, 70) for digit in digits(50)]
    order = np.random.default_rng(3).permutation(len(batch))
    straight, shuffled = normalise(batch, network), normalise([batch[row] for row in order], network)
    np.testing.assert_array_equal(straight.pixels[order], shuffled.pixels)
    np.testing.assert_array_equal(straight.ink[order], shuffled.ink)
    for row in range(0, 200, 10):
        np.testing.assert_array_equal(normalise([batch[row]], network).pixels[0], straight.pixels[row])


@settings(max_examples=25, deadline=None)
@given(st.lists(pages, max_size=5))
def test_any_pages_give_pixels_and_measures_of_the_contract(network: InkFinder, batch: list[Grey]) -> None:
    copies = [page.copy() for page in batch]
    pixels, ink, _ = normalise(batch, network)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (len(batch), SIDE, SIDE) == (len(batch), 28, 28)
    assert ink.dtype == np.float32
    assert ink.shape == (len(batch), len(INK_MEASURES))
    assert np.isfinite(ink).all()
    assert (ink >= 0).all()
    assert (np.delete(ink, OTHER, axis=1) <= 1).all()
    assert np.isin(ink[:, EDGE], (0, 1)).all()
    blank = ink[:, SHARE] == 0
    assert not pixels[blank].any()
    assert not ink[blank][:, [EDGE, DEPTH]].any()
    assert (pixels[~blank].max((1, 2), initial=0) == 255).all()
    for page, of_kinds in zip(batch, ink[:, -len(KINDS) :], strict=True):
        if max(page.shape) > 28:
            assert of_kinds.sum() == pytest.approx(1, abs=1e-5)
    for page, copy in zip(batch, copies, strict=True):
        np.testing.assert_array_equal(page, copy)


def test_no_pages_give_empty_arrays() -> None:
    pixels, ink, _ = normalise([], no_network)
    assert (pixels.shape, pixels.dtype) == ((0, 28, 28), np.uint8)
    assert (ink.shape, ink.dtype) == ((0, len(INK_MEASURES)), np.float32)


def test_cut_outs_of_at_most_28_px_ask_the_ink_finder_only_where_their_paper_is_uneven() -> None:
    seven = one_of_each()[7]
    even = [seven, on_page(trimmed(seven), 28, 27), on_page(trimmed(seven), 24, 28), 255 - seven]
    assert normalise(even, no_network).ink[:, SHARE].all()
    of_one_bit = np.where(noise(28, 23, 1) > 127, np.uint8(255), np.uint8(0))
    normalise([of_one_bit], no_network)
    for uneven in (
        noise(16, 16, 0),
        noise(28, 28, 0),
        shaded(on_page(seven, 28, 28), darkest=0.5, angle=1),
        on_page(seven, 28, 29),
    ):
        with pytest.raises(AssertionError, match="1 pages ask for the ink finder"):
            normalise([uneven], no_network)


@pytest.mark.parametrize("factor", [1, 3, 8])
def test_a_digit_is_20_pixels_long_with_its_centre_of_mass_in_the_middle(network: InkFinder, factor: int) -> None:
    made = [enlarged(on_page(digit, 40, 36, top=9, left=3), factor) for digit in digits(COUNT)]
    at = np.arange(28) + 0.5
    lengths = []
    for image in normalise(made, network).pixels:
        inked = image > 80
        rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
        lengths.append(max(np.ptp(rows), np.ptp(columns)) + 1)
        for axis in (0, 1):
            profile = image.sum(axis, dtype=np.float64)
            clipped = profile[0] > 0 or profile[-1] > 0  # it would leave the frame in the very middle
            assert abs(profile @ at / profile.sum() - 14.5) <= (3 if clipped else 1)
    assert 16 <= np.quantile(lengths, 0.05) <= np.median(lengths) <= max(lengths) <= 22


@pytest.mark.parametrize("factor", [1, 4])
def test_the_longer_side_is_as_long_as_the_settings_say(network: InkFinder, factor: int) -> None:
    made = [enlarged(digit, factor) for digit in digits(50)]
    pixels = normalise(made, network, NormalisationSettings(digit_side=14)).pixels
    extents = [np.ptp(np.argwhere(image > 80), axis=0).max() + 1 for image in pixels]
    assert 11 <= min(extents) <= max(extents) <= 15


# ---- cut-outs: MNIST, and what rules read of few pixels -------------------------------------------------------------


def cut_outs(make: Callable[[Grey], Grey], count: int = 300) -> NDArray[np.uint8]:
    return normalise([make(digit) for digit in digits(count)], no_network).pixels


def test_digits_of_mnist_pass_nearly_unchanged() -> None:
    raw, pixels = digits(), cut_outs(lambda digit: digit)
    difference = np.abs(pixels.astype(int) - raw).mean((1, 2))
    assert difference.mean() <= 1  # grey levels a pixel; 0.37 was measured
    assert np.quantile(difference, 0.8) <= 0.5  # 86% are the same to the bit
    assert_alike(pixels, raw, share=0.98, at_least=0.8)


def test_no_digit_of_mnist_is_taken_for_a_blank_page() -> None:
    ink = normalise(list(digits()), no_network).ink
    assert (ink[:, SHARE] > 0.01).all()
    assert (ink[:, SHARE] < 0.6).all()
    assert (ink[:, OTHER] < 0.2).all()


def test_an_inverted_cut_out_gives_the_same_pixels() -> None:
    for some in (list(digits()), [on_page(trimmed(digit), 28, 26) for digit in digits(100)]):
        pixels, of_inverted = (
            normalise(pages, no_network).pixels.astype(int) for pages in (some, [255 - page for page in some])
        )
        assert np.abs(pixels - of_inverted).max() <= 4  # paper that is not white is no round number of levels


@pytest.mark.parametrize(("paper", "ink"), [(150, 250), (110, 10), (90, 200), (170, 60), (30, 120), (225, 140)])
def test_neither_paper_nor_ink_of_a_cut_out_needs_to_be_white_or_black(paper: int, ink: int) -> None:
    def in_grey(digit: Grey) -> Grey:
        return np.rint(paper + digit / 255 * (ink - paper)).astype(np.uint8)

    assert_alike(cut_outs(in_grey), cut_outs(lambda digit: digit), share=0.98, at_least=0.9)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (24, 28), (26, 25)])
def test_a_digit_may_stand_anywhere_on_a_cut_out(height: int, width: int) -> None:
    places = np.random.default_rng(height)

    def somewhere(digit: Grey) -> Grey:
        digit = trimmed(digit)
        top, left = (
            places.integers(1, most - extent) for most, extent in zip((height, width), digit.shape, strict=True)
        )
        return on_page(digit, height, width, top=top, left=left)

    assert_alike(cut_outs(somewhere), cut_outs(lambda digit: digit), share=0.99, at_least=0.95)


@pytest.mark.parametrize("edge", ["top", "bottom", "left", "right"])
@pytest.mark.parametrize("thickness", [1, 3])
def test_a_cut_out_with_a_printed_line_at_a_side_is_for_the_ink_finder(edge: str, thickness: int) -> None:
    line: dict[str, tuple[slice, slice]] = {
        "top": (slice(thickness), slice(None)),
        "bottom": (slice(-thickness, None), slice(None)),
        "left": (slice(None), slice(thickness)),
        "right": (slice(None), slice(-thickness, None)),
    }
    page = on_page(trimmed(one_of_each()[3]), 28, 28)
    page[line[edge]] = INK
    with pytest.raises(AssertionError, match="1 pages ask for the ink finder"):
        normalise([page], no_network)


def test_a_line_without_a_digit_beside_it_is_the_digit() -> None:
    page = np.full((28, 28), PAPER, np.uint8)
    page[:, 13:15] = INK
    inked = normalise([page], no_network).pixels[0] > 128
    assert (inked.any(1).sum(), inked.any(0).sum()) == (20, 1)


@pytest.mark.parametrize("invert", [False, True])
def test_a_page_of_one_bit_needs_no_paper_around_its_digit(invert: bool) -> None:
    def filling(digit: Grey) -> Grey:
        inked = digit > 100
        inked = inked[np.ix_(inked.any(1), inked.any(0))]
        page = np.where(inked, np.uint8(255), np.uint8(0))
        return 255 - page if invert else page

    def with_paper(digit: Grey) -> Grey:
        return np.pad(filling(digit), 4, constant_values=255 * invert)

    assert_alike(cut_outs(filling), cut_outs(with_paper), share=0.93, at_least=0.99)


def test_another_digit_beside_the_first_is_measured(network: InkFinder) -> None:
    three, two = one_of_each()[3], one_of_each()[2]
    small = np.zeros((12, 28), np.uint8)
    small[:, 1:13] = cv2.resize(three, (12, 12), interpolation=cv2.INTER_AREA)
    both = small.copy()
    both[:, 15:27] = cv2.resize(two, (12, 12), interpolation=cv2.INTER_AREA)
    alone, beside = normalise([small, both], no_network).ink[:, OTHER]
    assert alone == 0
    assert 0.4 < beside <= 1

    large = on_page(np.hstack([enlarged(three, 4), np.zeros((112, 60), np.uint8), enlarged(two, 4)]), 200, 400)
    ink = normalise([large], network).ink[0]
    assert ink[SINGLE] < 0.5 or ink[OTHER] > 0.4


def test_a_small_speck_in_a_corner_changes_nothing() -> None:
    corners = np.random.default_rng(9)

    def with_speck(digit: Grey) -> Grey:
        digit = digit.copy()
        top, left = corners.choice([0, 27], 2)
        digit[top, left] = 255
        return digit

    assert_alike(cut_outs(with_speck), cut_outs(lambda digit: digit), share=0.95, at_least=0.97)


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
@pytest.mark.parametrize("factor", [1, 5])
def test_the_detached_bar_of_a_5_stays_part_of_it(network: InkFinder, gap: dict[str, int], factor: int) -> None:
    fives = [enlarged(on_page(five, 40, 40), factor) for five in (a_five(), a_five(**gap))]
    whole, parted = normalise(fives, network).pixels
    bar = (slice(0, 9), slice(16, 28))  # the upper right, where a 5 without its bar has nothing
    assert (parted[bar] > 120).sum() >= 0.5 * (whole[bar] > 120).sum() > 0


# ---- larger pages: the digit as people scan and photograph it --------------------------------------------------------


def test_bright_ink_comes_out_bright_and_dark_ink_too(network: InkFinder) -> None:
    seven = one_of_each()[7]
    for page in (seven, 255 - seven, on_page(seven), 255 - on_page(seven), enlarged(255 - seven, 9)):
        pixels = normalise([page], network).pixels
        assert np.median(pixels) == 0
        assert likeness(pixels, seven[None])[0] > 0.75


@pytest.mark.parametrize(("height", "width"), [(50, 60), (64, 64), (90, 120), (200, 150), (300, 300)])
def test_a_digit_may_stand_anywhere_on_a_larger_page(network: InkFinder, height: int, width: int) -> None:
    places = np.random.default_rng(height)

    def somewhere(digit: Grey) -> Grey:
        return on_page(digit, height, width, top=places.integers(0, height - 27), left=places.integers(0, width - 27))

    assert_found(network, somewhere)


@pytest.mark.parametrize("factor", [2, 5, 20])
@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
def test_a_digit_may_be_of_any_size_and_dark_or_light(
    network: InkFinder, factor: int, turn: Callable[[Grey], Grey]
) -> None:
    assert_found(network, lambda digit: turn(enlarged(255 - digit, factor)))


@pytest.mark.parametrize(("paper", "ink"), [(150, 250), (110, 10), (90, 200), (170, 60), (30, 120), (225, 140)])
def test_neither_paper_nor_ink_needs_to_be_white_or_black(network: InkFinder, paper: int, ink: int) -> None:
    def in_grey(digit: Grey) -> Grey:
        return enlarged(np.rint(paper + np.pad(digit, 8) / 255 * (ink - paper)).astype(np.uint8), 3)

    assert_found(network, in_grey)


@pytest.mark.parametrize("spread", [4, 10])
def test_a_digit_may_stand_on_noisy_paper(network: InkFinder, spread: int) -> None:
    grains = np.random.default_rng(6)

    def on_noise(digit: Grey) -> Grey:
        page = enlarged(on_page(digit), 3)
        return np.rint(page + grains.normal(0, spread, page.shape)).clip(0, 255).astype(np.uint8)

    assert_found(network, on_noise)


def test_faint_pencil_looks_like_strong_ink_and_is_called_faint(network: InkFinder) -> None:
    grains = np.random.default_rng(7)

    def faint(digit: Grey) -> Grey:
        page = 205 - enlarged(np.pad(digit, 8), 5) / 255 * 22
        return np.rint(page + grains.normal(0, 1.5, page.shape)).astype(np.uint8)

    assert_found(network, faint, share=0.85)
    assert (normalise([faint(digit) for digit in digits(COUNT)], network).ink[:, DEPTH] < 0.2).all()


def thin(digit: Grey, *, side: int = 1000, length: int = 220, width: int = 3) -> Grey:
    """Write a digit with a thin pen on a large page: the outline of MNIST's would be bold."""
    large = cv2.resize(digit, (length, length), interpolation=cv2.INTER_CUBIC)
    inked = (large > 110).astype(np.uint8)
    skeleton = np.zeros_like(inked)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    while inked.any():
        skeleton |= inked & ~cv2.morphologyEx(inked, cv2.MORPH_OPEN, cross)
        inked = np.asarray(cv2.erode(inked, cross), np.uint8)
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width + 2, width + 2))
    line = np.asarray(cv2.morphologyEx(skeleton, cv2.MORPH_CLOSE, pen), np.uint8)
    return on_page(255 * np.asarray(cv2.dilate(line, np.ones((width, width), np.uint8)), np.uint8), side, side)


def test_a_thin_pen_on_a_page_of_1000_px_is_seen(network: InkFinder) -> None:
    some = digits(30)
    found = normalise([thin(digit) for digit in some], network)
    assert (found.ink[:, SHARE] > 0).mean() > 0.95
    # A line is as thick in the end as the finder draws it: so it lies in the digit, and spans it.
    within = (np.minimum(found.pixels, np.asarray([cv2.dilate(digit, np.ones((5, 5))) for digit in some]))).sum((1, 2))
    assert (within / np.maximum(found.pixels.sum((1, 2)), 1) > 0.75).mean() >= 0.85
    assert_alike(found.pixels, some, share=0.8, at_least=0.5)


# ---- what is on the page beside the digit ---------------------------------------------------------------------------


def bordered(page: Grey, sides: str, *, thick: int = 3, inset: int = 0) -> Grey:
    """Print lines along the sides t(op), b(ottom), l(eft), r(ight) of a page, from edge to edge."""
    page = page.copy()
    near, far = slice(inset, inset + thick), slice(-inset - thick, -inset or None)
    for side in sides:
        page[{"t": (near,), "b": (far,), "l": (slice(None), near), "r": (slice(None), far)}[side]] = INK
    return page


def photographed(page: Grey) -> Grey:
    """Light a page from one side, and add noise."""
    grains = np.random.default_rng(11).normal(0, 4, page.shape)
    return np.clip(shaded(page, darkest=0.7, angle=1) + grains, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("capture", [lambda page: page, photographed])
@pytest.mark.parametrize(("sides", "thick", "inset"), [("tbrl", 4, 0), ("tl", 6, 0), ("tbrl", 4, 8), ("tlb", 3, 3)])
def test_a_frame_at_the_edge_of_the_page_or_within_is_left_out(
    network: InkFinder, sides: str, thick: int, inset: int, capture: Callable[[Grey], Grey]
) -> None:
    def in_frame(digit: Grey) -> Grey:
        return capture(bordered(enlarged(on_page(digit, 48, 48), 3), sides, thick=thick, inset=inset))

    assert_found(network, in_frame, share=0.85)


@pytest.mark.parametrize("side", "tblr")
def test_a_bar_along_a_side_is_left_out(network: InkFinder, side: str) -> None:
    assert_found(network, lambda digit: bordered(enlarged(on_page(digit), 3), side, thick=7))


def ruled(page: Grey, *, pitch: int, ink: int, squared: bool) -> Grey:
    """Print a line every `pitch` pixels from the left to the right edge, and from top to bottom."""
    page = page.copy()
    for paper in (page, page.T) if squared else (page,):
        for row in (0, 1):
            paper[5 + row :: pitch] = np.minimum(paper[5 + row :: pitch], ink)
    return page


@pytest.mark.parametrize("squared", [False, True])
def test_ruled_and_squared_paper_is_no_ink(network: InkFinder, squared: bool) -> None:
    def on_ruled_paper(digit: Grey) -> Grey:
        return ruled(enlarged(on_page(digit), 4), pitch=50, ink=170, squared=squared)

    assert_found(network, on_ruled_paper, share=0.8)


def test_a_tilted_line_is_no_ink(network: InkFinder) -> None:
    def above_tilted_line(digit: Grey) -> Grey:
        page = enlarged(on_page(digit), 4)
        cv2.line(page, (0, 205), (223, 212), INK, 3)
        return page

    assert_found(network, above_tilted_line)


def test_a_small_speck_beside_the_digit_on_a_large_page_changes_nothing(network: InkFinder) -> None:
    corners = np.random.default_rng(9)

    def with_speck(digit: Grey) -> Grey:
        page = enlarged(on_page(digit), 4)
        top, left = corners.choice([8, 208], 2)
        page[top : top + 5, left : left + 5] = INK
        return page

    assert_found(network, with_speck)


def test_a_neighbour_that_reaches_in_is_not_taken_for_the_digit(network: InkFinder) -> None:
    neighbour = enlarged(one_of_each()[3], 4)[:, :60]

    def beside(digit: Grey) -> Grey:
        page = enlarged(on_page(digit, 48, 60, left=12), 4)
        page[40:152, 204:] = np.minimum(page[40:152, 204:], 235 - neighbour[:, 24:] / 255 * 195)
        return page

    assert_found(network, beside, share=0.8)


# ---- light -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("darkest", [0.8, 0.6, 0.4])
@pytest.mark.parametrize("margin", [4, 28])
def test_a_digit_may_lie_in_a_shadow(network: InkFinder, darkest: float, margin: int) -> None:
    angles = np.random.default_rng(5)

    def in_shadow(digit: Grey) -> Grey:
        page = enlarged(on_page(digit, 28 + 2 * margin, 28 + 2 * margin), 3)
        return shaded(page, darkest=darkest, angle=angles.uniform(0, 2 * np.pi))

    assert_found(network, in_shadow)


@pytest.mark.parametrize("corner", range(4))
def test_a_vignette_turns_nothing(network: InkFinder, corner: int) -> None:
    grains = np.random.default_rng(2)

    def vignetted(digit: Grey) -> Grey:
        at = np.arange(168) / 168
        light = np.rot90(0.6 + 0.4 * np.outer(at, at), corner)
        return np.clip(enlarged(on_page(digit), 3) * light + grains.normal(0, 5, light.shape), 0, 255).astype(np.uint8)

    assert_found(network, vignetted)


def photo(digit: Grey, *, top: int, left: int, factor: int = 3) -> Grey:
    """Photograph a digit on a page of 400 × 500 px, whose light falls off towards the corners."""
    page = np.full((400, 500), float(PAPER))
    height, width = (factor * extent for extent in digit.shape)
    page[top : top + height, left : left + width] -= enlarged(digit, factor) / 255 * (PAPER - INK)
    y, x = np.mgrid[-1:1:400j, -1:1:500j]
    return np.asarray(page * (1 - 0.1 * (x**2 + y**2)), np.uint8)


@pytest.mark.parametrize("turn", [lambda page: page, lambda page: 255 - page])
def test_a_small_digit_on_a_photo_outweighs_the_light_that_falls_off(
    network: InkFinder, turn: Callable[[Grey], Grey]
) -> None:
    places = np.random.default_rng(12)

    def off_centre(digit: Grey) -> Grey:
        return turn(photo(digit, top=places.integers(20, 290), left=places.integers(20, 390)))

    assert_found(network, off_centre)


@pytest.mark.parametrize("remaining", [0.6, 0.45])
def test_a_shadow_at_the_edge_of_a_photo_is_not_the_digit(network: InkFinder, remaining: float) -> None:
    def beside_shadow(digit: Grey) -> Grey:
        page = photo(digit, top=200, left=150)
        page[:60, 200:] = page[:60, 200:] * remaining
        return page

    assert_found(network, beside_shadow, share=0.85)


@pytest.mark.parametrize("side", ["left", "below"])
def test_a_dark_desk_beside_the_paper_is_not_the_digit(network: InkFinder, side: str) -> None:
    grain = np.random.default_rng(3).normal(55, 8, (400, 500))

    def on_desk(digit: Grey) -> Grey:
        page = photo(digit, top=120, left=220)
        desk = (slice(None), slice(90)) if side == "left" else (slice(310, None), slice(None))
        page[desk] = grain[desk]
        return page

    assert_found(network, on_desk, share=0.85)


@pytest.mark.parametrize("invert", [False, True])
def test_a_large_drawing_in_bold_strokes_is_the_digit(network: InkFinder, invert: bool) -> None:
    def drawing(digit: Grey) -> Grey:
        page = np.where(enlarged(digit, 14) > 100, np.uint8(0), np.uint8(255))
        return 255 - page if invert else page

    assert_found(network, drawing)


# ---- pages without ink -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 1, 90, 128, PAPER, 255])
def test_an_even_page_holds_no_ink(network: InkFinder, level: int) -> None:
    shapes = [(1, 1), (1, 40), (40, 1), (28, 28), (40, 40), (33, 60), (600, 300), (3000, 200)]
    pixels, ink, _ = normalise([np.full(shape, level, np.uint8) for shape in shapes], network)
    assert not pixels.any()
    assert not ink[:, : -len(KINDS)].any()
    assert (ink[5:, NOTHING] > 0.99).all()


def test_a_blank_page_in_an_even_shadow_holds_no_ink(network: InkFinder) -> None:
    blank = np.full((200, 160), PAPER, np.uint8)
    made = [shaded(blank, darkest=darkest, angle=angle) for darkest in (0.9, 0.6) for angle in (0, 1, 2.5, 4)]
    pixels, ink, _ = normalise(made, network)
    assert not pixels.any()
    assert not ink[:, SHARE].any()


def test_grainy_paper_holds_no_ink(network: InkFinder) -> None:
    pixels, ink, _ = normalise([paper_noise(150 + 10 * seed, 200, seed) for seed in range(20)], network)
    assert (ink[:, SHARE] > 0).mean() <= 0.1
    assert not pixels[ink[:, SHARE] == 0].any()


def test_bars_at_both_sides_are_no_even_paper_and_a_digit_that_touches_a_side_in_part_stands_on_it() -> None:
    striped = one_of_each()[3].copy()
    striped[:, :7], striped[:, 21:] = ~striped[:, :7], ~striped[:, 21:]
    with pytest.raises(AssertionError, match="1 pages ask for the ink finder"):
        normalise([striped], no_network)
    touching = on_page(trimmed(one_of_each()[2]), 28, 28)
    touching[27, 9:19] = touching.min()
    assert normalise([touching], no_network).ink[:, SHARE].all()


_CUT_OUTS = """
import sys
import numpy as np
from batchdigits.preprocessing.normalisation import normalise
page = np.full((28, 28), 240, np.uint8)
page[4:24, 13:16] = 20
littered = page.copy()
littered[2, 2] = 20
pixels = normalise([page, littered], None).pixels
assert pixels.any((1, 2)).all() and (pixels[0] == pixels[1]).all()
print("numpy.ma" in sys.modules)
"""


def test_cut_outs_leave_out_a_module_that_each_worker_would_import() -> None:
    done = subprocess.run([sys.executable, "-c", _CUT_OUTS], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["False"]

"""How looks are taken at a page, and what is made of the network's maps; the network here is a rule."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from batchdigits.preprocessing.finder import find_ink
from batchdigits.preprocessing.tiles import FoundInk
from batchdigits.records import (
    DEPTH,
    EDGE,
    FOREIGN,
    INK,
    KINDS,
    LOOK_CELLS,
    NOTHING,
    OTHER,
    SEVERAL,
    SINGLE,
    FullResolution,
    GreyImage,
)

PAPER, PEN = 220, 40


class Rule:
    """A network that takes for ink what is much darker than the paper, and that remembers what it was shown."""

    def __init__(self, *, sure: int = 255, kinds: tuple[float, ...] = (0, 3, 0, 0), blind_after: int = 99) -> None:
        self.sure = sure
        self.kinds = kinds
        self.blind_after = blind_after
        self.seen: list[NDArray[np.uint8]] = []

    def __call__(self, looks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        assert (looks.shape[1:], looks.dtype) == ((LOOK_CELLS, LOOK_CELLS, 3), np.uint8)
        self.seen.append(looks)
        sure = self.sure if len(self.seen) <= self.blind_after else 0
        maps = np.where(looks[..., 0] < 70, np.uint8(sure), np.uint8(0))
        kinds = np.array(self.kinds, np.float32) if len(self.seen) == 1 else np.array([9, -9, -9, -9], np.float32)
        return maps, np.tile(kinds, (len(looks), 1))

    @property
    def asked(self) -> list[int]:
        """How many looks it was shown, call by call."""
        return [len(looks) for looks in self.seen]


def page(height: int, width: int, *boxes: tuple[int, int, int, int]) -> GreyImage:
    """Print dark boxes (left, top, right, bottom) on light paper."""
    made = np.full((height, width), PAPER, np.uint8)
    for left, top, right, bottom in boxes:
        made[top:bottom, left:right] = PEN
    return made


def found_on(page: GreyImage, rule: Rule, full_resolution: FullResolution | None = None) -> FoundInk:
    return find_ink([page], rule, [full_resolution])


def inked(found: FoundInk) -> NDArray[np.bool_]:
    return np.asarray(found.tiles[:, 0] > 0, np.bool_)


# ---- looks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "looks"), [(0.75, 1), (0.4, 2), (0.15, 2), (0.05, 2)])
def test_a_digit_is_looked_at_again_from_near_where_it_is_small(share: float, looks: int) -> None:
    long = round(1200 * share)
    at = 600 - long // 2
    rule = Rule()
    found = found_on(page(1200, 1200, (at, at, at + long // 3, at + long)), rule)
    assert rule.asked == [1] * looks
    left, top, right, bottom = found.boxes[0]
    assert bottom - top >= 25
    assert right - left == pytest.approx((bottom - top) / 3, abs=3)


class Speck:
    """A network that sees, wherever it looks, the same few cells of ink."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, looks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        self.calls += 1
        maps = np.zeros((len(looks), LOOK_CELLS, LOOK_CELLS), np.uint8)
        maps[:, 30:34, 30:34] = 255
        return maps, np.zeros((len(looks), 4), np.float32)


@pytest.mark.parametrize("is_downscaled", [False, True])
def test_the_place_of_a_digit_is_told_as_shares_of_its_page(is_downscaled: bool) -> None:
    box = (600, 90, 660, 270)
    seen = page(300, 400, *[tuple(edge // 2 for edge in box)]) if is_downscaled else page(600, 800, box)  # type: ignore[misc]
    found = find_ink([seen, page(600, 800)], Rule(), [(lambda: page(600, 800, box)) if is_downscaled else None, None])
    assert found.places[0] == pytest.approx([0.75, 0.15, 0.825, 0.45], abs=0.02)
    assert not found.places[1].any()


def test_what_stays_small_is_looked_at_twice_at_most() -> None:
    speck = Speck()
    find_ink([page(900, 900, (0, 0, 900, 450))], speck, [None])
    assert speck.calls == 2


def test_only_those_pages_are_looked_at_again_whose_digit_is_small() -> None:
    rule = Rule()
    large, small = page(300, 300, (100, 20, 200, 280)), page(300, 300, (150, 150, 160, 210))
    find_ink([large, small, page(300, 300), small, large], rule, [None] * 5)
    assert rule.asked == [5, 2]


class FarSighted:
    """A network that is sure of a digit of 6 cells or more, and sees nothing of a smaller one."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, looks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        self.calls.append(len(looks))
        ink = looks[..., 1] < 70
        ink &= looks[..., 1] <= looks[..., 2]
        large = ink.any(2).sum(1) >= 6
        kinds = np.where(large[:, None], np.array([0, 6, 0, 0]), np.array([1, 0, 0, 0])).astype(np.float32)
        return np.where(ink & large[:, None, None], np.uint8(255), np.uint8(0)), kinds


def test_a_digit_that_is_not_seen_on_the_whole_of_a_large_page_is_sought_in_its_parts() -> None:
    network, small = FarSighted(), (2100, 800, 2140, 900)
    found = find_ink([page(3000, 2400, small)], network, [None])
    assert network.calls[0] == 1
    assert 1 <= network.calls[1] <= 9  # only the parts that are not empty
    assert found.boxes[0, 3] - found.boxes[0, 1] > 30
    assert found.measures[0, SINGLE] > 0.9
    alone, beside = FarSighted(), page(3000, 2400, small, (200, 800, 240, 900))
    assert (find_ink([beside], alone, [None]).tiles > 0).any()
    assert alone.calls[1] > network.calls[1]


def test_a_large_page_with_digits_in_places_apart_shows_several() -> None:
    beside = [(left, 1000, left + 40, 1100) for left in (200, 2000)]
    one, two = (find_ink([page(3000, 2400, *beside[:count])], FarSighted(), [None]).measures[0] for count in (1, 2))
    assert (one[SINGLE] > 0.9, one[OTHER]) == (True, 0)
    assert (two[SEVERAL] > 0.9, two[OTHER]) == (True, 1)


def test_no_parts_are_looked_at_of_a_small_page_an_even_one_and_one_of_several_things() -> None:
    small, even = page(500, 400, (200, 200, 204, 210)), page(3000, 2400)
    for one in (small, even):
        network = FarSighted()
        assert not find_ink([one], network, [None]).tiles.any()
        assert network.calls == [1]
    several = Rule(sure=100, kinds=(0, 0, 3, 3))
    find_ink([page(3000, 2400, (100, 100, 2300, 2900))], several, [None])
    assert several.asked == [1]


def test_no_parts_are_looked_at_of_a_page_whose_cells_are_of_one_level_each() -> None:
    small = np.full((LOOK_CELLS, LOOK_CELLS), PAPER, np.uint8)
    small[20:40, 30:34] = PAPER - 60
    rule = Rule(sure=100)
    found = find_ink([small.repeat(10, axis=0).repeat(10, axis=1)], rule, [None])
    assert rule.asked[0] == 1
    assert max(rule.asked) == 1
    assert found.boxes.shape == (1, 4)


def test_where_the_closer_look_shows_no_ink_the_first_one_counts() -> None:
    small = page(600, 600, (300, 300, 330, 400))
    rule, blind = Rule(), Rule(blind_after=1)
    near, far = found_on(small, rule), found_on(small, blind)
    assert blind.asked == rule.asked == [1, 1]
    assert far.boxes[0, 3] - far.boxes[0, 1] == pytest.approx(100 / 600 * 64, abs=1.5)
    assert near.boxes[0, 3] - near.boxes[0, 1] > 30
    assert far.measures[0, INK] == pytest.approx(near.measures[0, INK], rel=0.4)


def test_full_resolution_is_asked_for_once_and_only_where_a_closer_look_needs_more_pixels() -> None:
    asked: list[GreyImage] = []

    def fourfold(of: GreyImage) -> FullResolution:
        def give() -> GreyImage:
            asked.append(of)
            return of.repeat(4, 0).repeat(4, 1)

        return give

    tiny, middling, large = (page(300, 400, (200, 100, 200 + long // 2, 100 + long)) for long in (12, 90, 170))
    for one, times in ((tiny, 1), (middling, 0), (large, 0)):
        asked.clear()
        found_on(one, Rule(), fourfold(one))
        assert len(asked) == times

    found = found_on(tiny, Rule(), fourfold(tiny))
    coarse = found_on(tiny, Rule())
    np.testing.assert_allclose(found.boxes, coarse.boxes, atol=4)  # the same place
    assert found.measures[0, INK] == pytest.approx(12 * 6 / (300 * 400), rel=0.15)


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_a_part_close_to_the_digit_is_kept() -> None:
    found = found_on(page(64, 64, (20, 10, 28, 50), (36, 10, 44, 30)), Rule())
    assert found.boxes[0].tolist() == [20, 10, 44, 50]
    assert inked(found)[15, [24, 40]].all()
    assert found.measures[0, OTHER] == 0


def test_a_thing_far_from_the_digit_is_left_out_and_measured_by_its_length() -> None:
    found = found_on(page(64, 64, (4, 10, 10, 50), (40, 10, 46, 30)), Rule())
    assert found.boxes[0].tolist() == [4, 10, 10, 50]
    assert not inked(found)[:, 30:].any()
    assert found.measures[0, OTHER] == pytest.approx(20 / 40)


def test_a_speck_is_no_part_however_close() -> None:
    found = found_on(page(64, 64, (20, 10, 30, 54), (34, 20, 36, 23)), Rule())
    assert found.boxes[0].tolist() == [20, 10, 30, 54]
    assert not inked(found)[:, 33:].any()
    assert found.measures[0, OTHER] == pytest.approx(3 / 44, abs=0.01)


def test_of_several_things_the_one_with_the_most_ink_is_the_digit() -> None:
    found = found_on(page(64, 64, (2, 4, 5, 60), (36, 10, 56, 50)), Rule())
    assert found.boxes[0].tolist() == [36, 10, 56, 50]
    assert found.measures[0, OTHER] == pytest.approx(56 / 40)


def test_a_gap_of_a_cell_does_not_part_a_stroke() -> None:
    found = found_on(page(64, 64, (20, 4, 26, 30), (20, 31, 26, 60)), Rule())
    assert found.boxes[0].tolist() == [20, 4, 26, 60]


# ---- measures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 320, 1000])
def test_the_share_is_that_of_the_page_however_near_it_was_looked_at(side: int) -> None:
    long = side // 5
    left, top = side // 3, side // 2
    found = found_on(page(side, side * 3 // 4, (left, top, left + long // 2, top + long)), Rule())
    share = (long // 2) * long / (side * (side * 3 // 4))
    assert found.measures[0, INK] == pytest.approx(share, rel=0.25)


@pytest.mark.parametrize(
    ("box", "touches"),
    [
        ((0, 40, 40, 150), True),
        ((160, 40, 200, 150), True),
        ((80, 0, 120, 150), True),
        ((80, 150, 120, 260), True),
        ((9, 40, 50, 150), False),
        ((150, 60, 191, 250), False),
    ],
)
def test_a_digit_that_touches_the_edge_of_the_page_is_told_of(box: tuple[int, int, int, int], touches: bool) -> None:
    assert found_on(page(260, 200, box), Rule()).measures[0, EDGE] == touches


def test_an_edge_is_that_of_the_page_and_not_that_of_a_closer_look() -> None:
    for box, touches in (((0, 500, 40, 620), 1), ((500, 500, 540, 620), 0)):
        rule = Rule()
        assert found_on(page(1000, 1000, box), rule).measures[0, EDGE] == touches
        assert len(rule.asked) > 1


@pytest.mark.parametrize(("paper", "pen"), [(220, 40), (120, 90), (255, 200), (100, 0)])
def test_the_depth_is_the_difference_between_paper_and_ink(paper: int, pen: int) -> None:
    made = np.where(page(300, 300, (100, 50, 180, 250)) == PEN, pen, paper).astype(np.uint8)
    assert found_on(made, Rule()).measures[0, DEPTH] == pytest.approx((paper - pen) / 255, abs=0.03)


def test_the_kinds_are_shares_and_those_of_the_whole_page() -> None:
    rule = Rule(kinds=(1, 3, 2, 0))
    measures = found_on(page(600, 600, (300, 300, 330, 400)), rule).measures[0]
    assert len(rule.asked) == 2  # the second look took the part of the page for empty
    powers = [math.exp(logit) for logit in (1, 3, 2, 0)]
    expected = [power / sum(powers) for power in powers]
    assert measures[[NOTHING, SINGLE, SEVERAL, FOREIGN]].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_page_without_ink_has_no_pixels_no_box_and_no_measures_but_the_kinds() -> None:
    grains = np.random.default_rng(0).normal(200, 1, (90, 120)).round().astype(np.uint8)
    for rule in (Rule(sure=0), Rule(sure=69)):  # where no cell is surer, there is no ink
        found = find_ink([grains, page(90, 120, (40, 20, 60, 70))], rule, [None, None])
        assert rule.asked == [2]
        assert not found.tiles.any()
        assert not found.boxes.any()
        assert not found.measures[:, : -len(KINDS)].any()
        np.testing.assert_allclose(found.measures[:, -len(KINDS) :].sum(1), 1, atol=1e-6)
    assert found_on(page(90, 120, (40, 20, 60, 70)), Rule(sure=71)).boxes.any()


def test_an_even_page_has_nothing_on_it_whatever_the_network_sees() -> None:
    found = find_ink([np.full((90, 60), 128, np.uint8)], Speck(), [None])
    assert not found.boxes.any()
    assert found.measures[0, NOTHING] > 0.99


# ---- neighbours ------------------------------------------------------------------------------------------------------


def test_no_page_depends_on_its_neighbours() -> None:
    rng = np.random.default_rng(5)
    some = []
    for _ in range(30):
        height, width = rng.integers(41, 500, 2)
        long = int(rng.uniform(0.05, 0.9) * height)
        left, top = int(rng.integers(0, width - 5)), int(rng.integers(0, height - long + 1))
        some.append(page(height, width, (left, top, left + 1 + long // 4, top + long)))
    together = find_ink(some, Rule(), [None] * len(some))
    for row, one in enumerate(some):
        alone = found_on(one, Rule())
        np.testing.assert_array_equal(together.tiles[:, row], alone.tiles[:, 0])
        np.testing.assert_array_equal(together.boxes[row], alone.boxes[0])
        np.testing.assert_array_equal(together.measures[row], alone.measures[0])

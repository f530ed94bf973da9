"""The simulator: pages whose labels are true."""

import collections
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from batchdigits.training.datasets.simulator.pages import SCENES, Kind, SimulatedPage, simulate
from tests.training.datasets.simulator.conftest import training

COUNT = 1200


def page_of(seed: int) -> SimulatedPage:
    return simulate(training(), np.random.default_rng(seed))


@dataclass(frozen=True, slots=True)
class Seen:
    """What a test asks of a page; the pages themselves would be a gigabyte."""

    kind: Kind
    label: int
    scene: str
    shape: tuple[int, int]
    ink_shape: tuple[int, int]
    dtypes: tuple[str, str]
    most_ink: int
    inked: float
    """Share of the page, 0 to 1, that is more than half covered."""
    edge: int
    """Most ink in the outermost pixels."""
    contrast: float
    """Grey levels by which the ink is brighter than what is around it; NaN where there is none."""
    displaced: float
    """The same, with the ink somewhere else."""


def contrast(grey: np.ndarray, ink: np.ndarray) -> float:
    """Grey levels by which pixels under ink are brighter than those around it."""
    core = ink >= 0.6 * ink.max()
    reach = 2 * (2 + max(ink.shape) // 60) + 1
    around = (np.asarray(cv2.dilate(ink, np.ones((reach, reach)))) > 30) & (ink < 8)
    return float(np.mean(grey[core])) - float(np.mean(grey[around])) if core.any() and around.any() else np.nan


def seen(page: SimulatedPage) -> Seen:
    grey, ink = page.grey, page.ink
    shown = ink.max() > 60
    shift = (ink.shape[0] // 3, ink.shape[1] // 3)
    return Seen(
        page.kind,
        page.label,
        page.scene,
        grey.shape,
        ink.shape,
        (grey.dtype.name, ink.dtype.name),
        int(ink.max()),
        float((ink > 127).mean()),
        int(max(ink[0].max(), ink[-1].max(), ink[:, 0].max(), ink[:, -1].max())),
        contrast(grey, ink) if shown else np.nan,
        contrast(grey, np.roll(ink, shift, (0, 1))) if shown else np.nan,
    )


@pytest.fixture(scope="module")
def pages() -> list[Seen]:
    """1,200 pages, none of which raised anything."""
    return [seen(page_of(seed)) for seed in range(COUNT)]


def test_the_same_seed_makes_the_same_page_whatever_was_made_before() -> None:
    first = {seed: page_of(seed) for seed in range(40)}
    for seed in reversed(range(40)):
        again = page_of(seed)
        assert again.grey.tobytes() == first[seed].grey.tobytes()
        assert again.ink.tobytes() == first[seed].ink.tobytes()
        assert again[2:] == first[seed][2:]
    assert len({page.grey.tobytes() for page in first.values()}) == 40


def test_all_scenes_and_kinds_come_up_as_often_as_they_should(pages: list[Seen]) -> None:
    scenes = collections.Counter(page.scene for page in pages)
    assert set(scenes) == set(SCENES)
    assert min(scenes.values()) > 0.02 * COUNT
    kinds = collections.Counter(page.kind for page in pages)
    assert set(kinds) == set(Kind)
    assert 0.70 < kinds[Kind.DIGIT] / COUNT < 0.78
    assert {(page.scene, page.kind) for page in pages} == {(scene, kind) for scene in SCENES for kind in Kind}
    labels = collections.Counter(page.label for page in pages if page.kind is Kind.DIGIT)
    assert set(labels) == set(range(10))
    assert max(labels.values()) < 1.6 * min(labels.values())


def test_a_page_and_its_ink_are_grey_pictures_of_one_size_from_a_few_pixels_to_1024(pages: list[Seen]) -> None:
    for page in pages:
        assert page.shape == page.ink_shape
        assert page.dtypes == ("uint8", "uint8")
        assert 6 <= min(page.shape) <= max(page.shape) <= 1024
    longer = [max(page.shape) for page in pages]
    assert min(longer) <= 14
    assert max(longer) > 900
    assert np.quantile(longer, 0.5) > 90


def test_a_digit_has_a_label_and_ink_and_nothing_else_has_a_label(pages: list[Seen]) -> None:
    for page in pages:
        assert (page.label in range(10)) == (page.kind is Kind.DIGIT)
        assert page.label in range(-1, 10)
        if page.kind in (Kind.DIGIT, Kind.SEVERAL):
            assert page.most_ink > 30  # the thinnest pens, on a sheet that was turned on its desk
            assert page.inked < 0.8
        if page.kind is Kind.BLANK:
            assert page.most_ink == 0
    others = [page.most_ink > 30 for page in pages if page.kind is Kind.OTHER]
    assert 0.6 < np.mean(others) < 0.85  # letters and marks; the rest is print, objects, textures


def test_the_ink_lies_on_the_page_and_touches_its_edge_only_now_and_then(pages: list[Seen]) -> None:
    digits = [page for page in pages if page.kind is Kind.DIGIT]
    touching = collections.defaultdict(list)
    for page in digits:
        touching[page.scene].append(page.edge > 127)
    assert 0.04 < np.mean([page.edge > 127 for page in digits]) < 0.35
    assert max(np.mean(touching[scene]) for scene in ("cell", "exam")) < 0.1


def test_where_the_label_says_ink_there_is_ink_and_not_beside_it(pages: list[Seen]) -> None:
    digits = [page for page in pages if page.kind is Kind.DIGIT and not np.isnan(page.contrast + page.displaced)]
    assert len(digits) > 0.6 * COUNT
    there, beside = (np.abs([getattr(page, name) for page in digits]) for name in ("contrast", "displaced"))
    assert np.mean(there > beside) > 0.93
    assert np.mean(there > 4) > 0.985
    assert np.mean([abs(page.contrast) > 4 for page in digits if page.scene == "photo"]) > 0.985
    assert np.median(there) > 5 * np.median(beside)


def test_ink_is_dark_on_light_and_light_on_dark(pages: list[Seen]) -> None:
    digits = [page for page in pages if page.kind is Kind.DIGIT and abs(page.contrast) > 10]
    bright = collections.defaultdict(list)
    for page in digits:
        bright[page.scene].append(page.contrast > 0)
    assert np.mean(bright["board"]) > 0.8
    assert 0.2 < np.mean(bright["tiny"]) < 0.6
    assert all(0.02 < np.mean(bright[scene]) < 0.25 for scene in ("photo", "cell", "plain", "ruled"))
    assert 0.08 < np.mean([page.contrast > 0 for page in digits]) < 0.3


def test_pens_are_thin_and_thick_for_the_size_of_their_digit() -> None:
    widths = []
    for seed in range(150):
        page = page_of(seed)
        if page.kind is Kind.DIGIT and max(page.grey.shape) > 60:
            core = (page.ink > 127).astype(np.uint8)
            rows = np.flatnonzero(core.any(1))
            length = max(np.ptp(rows), np.ptp(np.flatnonzero(core.any(0)))) if len(rows) else 0
            if length > 20:
                deepest = np.asarray(cv2.distanceTransform(core, cv2.DIST_L2, 5)).max()
                widths.append(2 * deepest / length)
    assert len(widths) > 60
    assert np.quantile(widths, 0.1) < 0.07
    assert np.quantile(widths, 0.9) > 0.13

"""What is no digit, through normalisation, the shipped model and the gate: it is hardly ever `ok`.

`tests/benchmarks/accuracy.py` measures the same on more kinds of pages, and on the handed-out photos.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from batchdigits.inference import bundle
from batchdigits.inference.decisions import decide_calibrated
from batchdigits.inference.runtimes import InkFinder, Predictor
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import Status
from batchdigits.settings import PredictSettings, Runtime
from tests.sample_pages import digits, shaded

Grey = NDArray[np.uint8]
Read = Callable[[Sequence[Grey]], list[Status]]

LETTERS = "CEFHKMNPRTUWXaehkmnruwx"
DEFAULTS = PredictSettings(sources=())


@pytest.fixture(scope="module")
def read(network: InkFinder) -> Iterator[Read]:
    model = bundle.load()
    with Predictor(model, batch_size=DEFAULTS.batch_size, runtime=Runtime.LITERT) as predictor:

        def statuses(pages: Sequence[Grey]) -> list[Status]:
            seen = normalise(pages, network, model.normalisation)
            threshold = model.calibration.threshold(DEFAULTS)
            return decide_calibrated(predictor(seen.pixels), seen.ink, model.calibration, threshold=threshold).status

        yield statuses


def share(statuses: Sequence[Status], *counted: Status) -> float:
    return sum(status in counted for status in statuses) / len(statuses)


def letter(sign: str, height: int) -> Grey:
    page = Image.new("L", (2 * height, 2 * height), 255)
    font = ImageFont.load_default(height)  # it comes with Pillow; training sees those of matplotlib
    ImageDraw.Draw(page).text((height, height), sign, 0, font, anchor="mm")
    return np.asarray(page, np.uint8)


@pytest.mark.parametrize("invert", [False, True])
def test_letters_are_hardly_ever_ok(invert: bool, read: Read) -> None:
    pages = [letter(sign, height) for sign in LETTERS for height in (16, 24, 32, 48, 80, 200)]
    statuses = read([255 - page for page in pages] if invert else pages)
    assert share(statuses, Status.OK) <= 0.1
    assert share(statuses, Status.NOT_A_DIGIT) >= 0.6


@pytest.mark.parametrize("gap", [2, 30])
def test_several_digits_on_one_page_are_not_a_digit(gap: int, read: Read) -> None:
    apart = np.zeros((28, gap), np.uint8)
    rows = [
        np.concatenate([first, apart, second], axis=1) for first, second in zip(digits(), digits()[7:], strict=False)
    ]
    statuses = read([255 - np.pad(row, 6) for row in rows])
    assert share(statuses, Status.OK) <= 0.05
    assert share(statuses, Status.NOT_A_DIGIT) >= 0.85


def blank_pages(rng: np.random.Generator, *, slender: bool = False) -> dict[str, list[Grey]]:
    """Paper of each kind, uint8[H, W], at most three times as long as it is wide, or always longer."""

    def made(page: Callable[[int, int], NDArray[np.float64]]) -> list[Grey]:
        shapes = rng.integers(24, 200, (400, 2))
        shapes = shapes[(shapes.max(1) > 3 * shapes.min(1)) == slender]
        return [np.clip(page(height, width), 0, 255).astype(np.uint8) for height, width in shapes[:100].tolist()]

    def ruled(height: int, width: int) -> NDArray[np.float64]:
        page = np.full((height, width), 235.0)
        page[:: int(rng.integers(8, 24))] = rng.uniform(120, 200)
        return page

    def in_shadow(height: int, width: int) -> NDArray[np.float64]:
        paper = np.full((height, width), 230, np.uint8)
        return shaded(paper, darkest=rng.uniform(0.4, 0.9), angle=rng.uniform(0, 6)).astype(np.float64)

    return {
        "white": made(lambda height, width: np.full((height, width), 250.0)),
        "dark": made(lambda height, width: np.full((height, width), 20.0)),
        "noisy": made(lambda height, width: rng.normal(180, rng.uniform(2, 20), (height, width))),
        "ruled": made(ruled),
        "shadow": made(in_shadow),
        "slope": made(
            lambda height, width: np.linspace(rng.uniform(0, 120), rng.uniform(130, 255), width) + np.zeros((height, 1))
        ),
    }


@pytest.mark.parametrize("kind", ["white", "dark", "noisy", "ruled", "shadow", "slope"])
def test_blank_pages_are_hardly_ever_ok(kind: str, read: Read) -> None:
    statuses = read(blank_pages(np.random.default_rng(4))[kind])
    assert share(statuses, Status.OK) <= 0.01
    assert share(statuses, Status.BLANK, Status.NOT_A_DIGIT) >= 0.7


@pytest.mark.parametrize("kind", ["white", "noisy", "shadow", "slope"])
def test_slender_blank_pages_which_look_like_a_1_are_seldom_ok(kind: str, read: Read) -> None:
    assert share(read(blank_pages(np.random.default_rng(4), slender=True)[kind]), Status.OK) <= 0.05


def test_textures_are_hardly_ever_ok(read: Read) -> None:
    rng = np.random.default_rng(5)
    clouds = [cv2.GaussianBlur(rng.normal(0, 1, (64, 64)), (0, 0), rng.uniform(0.8, 6)) for _ in range(200)]
    assert (
        share(read([cv2.normalize(cloud, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U) for cloud in clouds]), Status.OK)
        <= 0.05
    )


def test_true_digits_pass(read: Read) -> None:
    statuses = read([*digits(), *(255 - np.pad(digit, 20) for digit in digits())])
    assert share(statuses, Status.BLANK, Status.NOT_A_DIGIT) <= 0.002

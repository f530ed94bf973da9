"""Explain: one image, what it was read as, why, and what the model saw."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from batchdigits import explain as module
from batchdigits.errors import BundleError, FaultKind, StorageError, UsageError
from batchdigits.explain import Explanation, explain, save_input
from batchdigits.inference.bundle import Bundle
from batchdigits.inference.decisions import probabilities
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.settings import DecodingSettings, ExplainSettings, Runtime
from batchdigits.training.datasets.shipped import mnist
from tests.fake_model import FakeInkFinder, FakePredictor, bundle_in, logits_of
from tests.file_states import names
from tests.sample_pages import enlarged, on_page, one_of_each, png, shaded, write_png, write_tiff

FINDER = FakeInkFinder(Path())
DATA = Path(__file__).parent / "data"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle, and stand-ins for its networks."""
    monkeypatch.setattr(module, "Predictor", FakePredictor)
    monkeypatch.setattr(module, "InkFinder", FakeInkFinder)
    return bundle_in(tmp_path / "bundle", temperature=50.0)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: object, **__: object) -> None:
        pytest.fail("the model was loaded for nothing")

    monkeypatch.setattr(module, "Predictor", unwanted)
    monkeypatch.setattr(module, "InkFinder", unwanted)


def explained(path: Path | str, model: Bundle, **changes: float) -> Explanation:
    (found,) = explain(ExplainSettings(image=str(path), model=model.directory, **changes))  # type: ignore[arg-type]
    return found


def test_the_first_test_image_of_mnist_is_a_7(tmp_path: Path) -> None:
    """The model of the package itself, through TensorFlow."""
    images, labels = mnist("test")
    assert labels[0] == 7
    (found,) = explain(ExplainSettings(image=str(write_png(tmp_path / "first.png", images[0]))))
    assert found.digit == 7
    assert found.text().startswith("The handwritten digit is recognised as 7\n")
    assert found.probabilities.shape == (10,)
    assert abs(found.probabilities.sum() - 1) < 0.001
    assert found.probabilities.argmax() == 7


def test_digit_and_probabilities_are_those_of_what_the_model_saw(tmp_path: Path, model: Bundle) -> None:
    for digit, image in enumerate(one_of_each()):
        page = on_page(image)
        found = explained(write_png(tmp_path / f"{digit}.png", page), model)
        pixels = normalise([page], FINDER).pixels
        np.testing.assert_array_equal(found.pixels, pixels[0])
        expected = probabilities(logits_of(pixels), temperature=50.0)[0]
        np.testing.assert_allclose(found.probabilities, expected, rtol=0, atol=0.5001e-4)
        assert found.digit == expected.argmax()
        assert not found.is_fault


def test_the_threshold_decides_between_ok_and_review(tmp_path: Path, model: Bundle) -> None:
    path = write_png(tmp_path / "a.png", one_of_each()[3])
    sure, unsure = explained(path, model, threshold=0.0), explained(path, model, threshold=1.0)
    assert (sure.status, sure.detail) == ("ok", "")
    assert unsure.status == "review"
    assert unsure.detail.startswith("could be ")
    assert sure.digit == unsure.digit
    assert "review" not in sure.text()
    assert "Here a digit is ok from a confidence of 0.0 on" in sure.text().splitlines()
    assert "on; a run may have a threshold of its folder's own, and names it\n" in explained(path, model).text()
    assert f"It would go to review: {unsure.detail}" in unsure.text().splitlines()


def test_the_text_draws_ten_bars_by_probability() -> None:
    shares = np.array([0, 0, 0, 0.75, 0, 0.25, 0, 0, 0, 0.0001], np.float32)
    text = Explanation("ok", 3, "", shares, np.zeros((28, 28), np.uint8)).text()
    assert text.splitlines() == [
        "The handwritten digit is recognised as 3",
        "0 0.0000",
        "1 0.0000",
        "2 0.0000",
        "3 0.7500 " + "█" * 30,
        "4 0.0000",
        "5 0.2500 " + "█" * 10,
        "6 0.0000",
        "7 0.0000",
        "8 0.0000",
        "9 0.0001",
    ]


def test_a_blank_page_has_no_digit(tmp_path: Path, model: Bundle) -> None:
    found = explained(write_png(tmp_path / "a.png", np.full((50, 50), 255, np.uint8)), model)
    assert (found.status, found.digit, found.is_fault) == ("blank", -1, False)
    assert np.isnan(found.probabilities).all()
    assert not found.pixels.any()
    assert found.text() == "No digit is recognised: blank: no ink was found"


@pytest.mark.parametrize("runtime", list(Runtime))
def test_a_digit_on_a_photo_is_read_by_the_networks_of_the_package(tmp_path: Path, runtime: Runtime) -> None:
    photo = 235 - (enlarged(np.pad(mnist("test")[0][0], 40), 6) * 0.7).astype(np.uint8)
    path = write_png(tmp_path / "first.png", shaded(photo, darkest=0.6, angle=1))
    (found,) = explain(ExplainSettings(image=str(path), runtime=runtime))
    assert found.digit == 7
    assert found.pixels.max() == 255


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("zero_bytes.png", FaultKind.UNREADABLE),
        ("truncated.jpg", FaultKind.UNREADABLE),
        ("bomb.png", FaultKind.TOO_LARGE),
        ("photo.heic", FaultKind.UNSUPPORTED),
    ],
)
@pytest.mark.usefixtures("no_model")
def test_a_fault_is_told_without_starting_the_model(name: str, kind: FaultKind, tmp_path: Path) -> None:
    model = bundle_in(tmp_path / "bundle")
    found = explained(DATA / name, model)
    assert found.is_fault
    assert (found.status, found.digit) == (kind, -1)
    assert found.detail
    assert np.isnan(found.probabilities).all()
    assert (found.pixels.shape, found.pixels.dtype) == ((28, 28), np.uint8)
    assert not found.pixels.any()
    assert found.text() == f"No digit is recognised: {kind}: {found.detail}"


def test_the_limits_are_those_of_the_settings(tmp_path: Path, model: Bundle) -> None:
    path = write_png(tmp_path / "a.png", on_page(one_of_each()[4]))
    limits = DecodingSettings(max_pixels=56 * 56 - 1)
    (found,) = explain(ExplainSettings(image=str(path), model=model.directory, decoding=limits))
    assert found.status == FaultKind.TOO_LARGE


def test_all_pages_of_a_file_are_explained_in_their_order(tmp_path: Path, model: Bundle) -> None:
    pages = [on_page(digit) for digit in one_of_each()[[2, 8]]]
    found = explain(ExplainSettings(str(write_tiff(tmp_path / "a.tif", pages)), model=model.directory))
    assert [explanation.page for explanation in found] == [1, 2]
    for explanation, pixels in zip(found, normalise(pages, FINDER).pixels, strict=True):
        np.testing.assert_array_equal(explanation.pixels, pixels)
    broken = explain(ExplainSettings(str(DATA / "broken_second_page.tif"), model=model.directory))
    assert [(explanation.page, explanation.is_fault) for explanation in broken] == [(1, False), (2, True), (3, False)]


def test_a_page_that_is_refused_shows_its_numbers_too(
    tmp_path: Path, model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated = replace(model, calibration=replace(model.calibration, gate=0.0))
    monkeypatch.setattr(module.bundle, "load", lambda _: gated)
    found = explained(write_png(tmp_path / "a.png", on_page(one_of_each()[3])), model)
    assert (found.status, found.digit) == ("not_a_digit", -1)
    first, likely, then, *bars = found.text().splitlines()
    assert first.startswith("No digit is recognised: not_a_digit: ")
    assert re.fullmatch(r"That it shows none is [\d.]+% likely, and above 0\.00% it is refused", likely)
    assert then == "If it showed one, it would be:"
    assert [bar[0] for bar in bars] == [str(digit) for digit in range(10)]
    assert found.probabilities.sum() == pytest.approx(1, abs=0.001)


def test_a_page_that_is_refused_for_what_stands_beside_is_not_said_to_be_above_the_gate() -> None:
    pixels = np.zeros((28, 28), np.uint8)
    shares = np.full(10, 0.1, np.float32)
    found = Explanation(
        "not_a_digit", -1, "there is more than one thing on it", shares, pixels, no_digit=0.56, gate=0.9
    )
    assert found.text().splitlines()[:2] == [
        "No digit is recognised: not_a_digit: there is more than one thing on it",
        "If it showed one, it would be:",
    ]


def test_an_ending_that_is_not_read_is_told_from_junk(tmp_path: Path, model: Bundle) -> None:
    for name, kind in (("scan.svg", FaultKind.UNSUPPORTED), ("scan.png", FaultKind.UNREADABLE)):
        (tmp_path / name).write_bytes(b"content that says nothing")
        assert explained(tmp_path / name, model).status == kind


def test_a_file_without_an_ending_is_read_by_its_content(tmp_path: Path, model: Bundle) -> None:
    (tmp_path / "scan").write_bytes(png(one_of_each()[1]))
    assert explained(tmp_path / "scan", model).digit >= 0


def test_a_folder_in_place_of_the_image_is_an_error_that_says_so(tmp_path: Path, model: Bundle) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        explained(tmp_path, model)


@pytest.mark.parametrize("name", ["no\nsuch.png", "a\0b.png", "x" * 300, "dangling.png"])
def test_an_image_that_is_not_there_is_named_with_the_remedy(name: str, tmp_path: Path, model: Bundle) -> None:
    (tmp_path / "dangling.png").symlink_to("nowhere")
    with pytest.raises(StorageError, match="check its spelling") as caught:
        explained(f"{tmp_path}/{name}", model)
    assert not set("\n\0") & set(str(caught.value))


@pytest.mark.parametrize("name", ["model.keras", "finder.keras"])
def test_a_damaged_model_is_refused(name: str, tmp_path: Path, model: Bundle) -> None:
    damaged = shutil.copytree(model.directory, tmp_path / "damaged")
    (damaged / name).write_bytes(b"other")
    with pytest.raises(BundleError, match=f"{name} does not match its sha256"):
        explain(ExplainSettings(image=str(write_png(tmp_path / "a.png", one_of_each()[0])), model=damaged))


def test_the_saved_input_is_what_the_model_saw(tmp_path: Path, model: Bundle) -> None:
    page = on_page(one_of_each()[9], 70, 90)
    found = explained(write_png(tmp_path / "a.png", page), model)
    folder = tmp_path / "out"
    folder.mkdir()
    for _ in range(2):  # the second time over the first
        save_input(found, folder / "seen.png")
    assert names(folder) == ["seen.png"]
    saved = cv2.imread(str(folder / "seen.png"), cv2.IMREAD_UNCHANGED)
    assert saved is not None
    np.testing.assert_array_equal(saved, normalise([page], FINDER).pixels[0])
    assert saved.dtype == np.uint8


def test_an_input_that_cannot_be_saved_is_an_error_of_ours(tmp_path: Path, model: Bundle) -> None:
    found = explained(write_png(tmp_path / "a.png", one_of_each()[9]), model)
    with pytest.raises(StorageError, match=r"seen\.png"):
        save_input(found, tmp_path / "nothing" / "seen.png")

"""The training job and the evaluation from labelled data to files, on a few hundred images."""

import csv
import importlib.metadata
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from batchdigits import __version__
from batchdigits.errors import BundleError, UsageError
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.inference.runtimes import Predictor
from batchdigits.inference.thresholds import Calibration
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import BLANK, INK_MEASURES, NOT_A_DIGIT
from batchdigits.settings import Arch, EvaluateSettings, Runtime, TrainSettings
from batchdigits.training import calibration, export, train
from batchdigits.training.datasets import labelled as datasets
from batchdigits.training.datasets import shipped
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.simulated import SimulatedInk
from batchdigits.training.evaluation.evaluate import evaluate
from batchdigits.training.trainer import load_model
from tests.fake_model import no_network
from tests.file_states import names
from tests.sample_pages import one_of_each, write_png
from tests.training.conftest import DENSE as SETTINGS

DATA = Path(__file__).parents[1] / "data"
# Keras 3.15 warns of itself under numpy 2 when it saves a model
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def stop(*_: object) -> None:
    """What stands in the place of `fit` where a test is about what comes before."""
    raise InterruptedError


@pytest.fixture(scope="module")
def made(small_mnist: None, dense_bundle: Bundle) -> Bundle:
    """The dense network; the package is as small while it is read as it was while it was trained."""
    return dense_bundle


def test_the_bundle_loads_and_predicts(made: Bundle) -> None:
    loaded = bundle.load(made.directory)
    assert loaded == made
    images, labels = shipped.mnist("test")
    with Predictor(loaded, batch_size=16) as predictor:
        logits = predictor(normalise(list(images), no_network, loaded.normalisation).pixels)
    assert logits.shape == (100, 10)
    right = int((logits.argmax(axis=1) == labels).sum())
    assert right > 50
    assert right == json.loads((made.directory / "metrics.json").read_text())["mnist_test"]["correct"]


def test_everything_that_is_promised_stands_beside_the_bundle(made: Bundle) -> None:
    promised = ["bundle.json", "confusion.csv", "confusion.png", "finder.keras", "finder.tflite", "history.jsonl"]
    promised += [
        "learning_curves.png",
        "metrics.json",
        "model.keras",
        "model.tflite",
        "reliability.png",
        "risk_coverage.png",
        "samples.png",
    ]
    assert [name for name in names(made.directory) if name != "checkpoints"] == promised
    for picture in made.directory.glob("*.png"):
        with Image.open(picture) as image:
            assert min(image.size) > 100
    with (made.directory / "confusion.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "true"
    assert sum(int(cell) for row in rows for cell in row[1:]) == 100


def test_the_bundle_has_the_ink_finder_that_its_network_reads_behind(made: Bundle) -> None:
    assert made.is_exported
    for name in ("finder.keras", "finder.tflite"):
        assert (made.directory / name).read_bytes() == (bundle.PACKAGED / name).read_bytes()


def test_a_network_takes_its_teacher_along_for_what_it_is_unsure_of(
    made: Bundle, small_mnist: None, without_plots: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, output=tmp_path / "out", epochs=1)
    pupil = train.train(replace(settings, teacher=made.directory))
    for runtime in Runtime:
        own, taken = (folder / name for folder, name in ((made.directory, "model"), (pupil.directory, "teacher")))
        ending = Network.READER.file(runtime).removeprefix("model")
        assert taken.with_suffix(ending).read_bytes() == own.with_suffix(ending).read_bytes()
    assert pupil.has(Network.TEACHER)
    assert pupil.is_exported
    monkeypatch.setattr(export, "find_spec", lambda _: None)  # to export once is enough
    tuned = train.train(TrainSettings(output=tmp_path / "tuned", base=pupil.directory, epochs=0))
    assert tuned.has(Network.TEACHER)
    assert not train.train(replace(settings, overwrite=True)).has(Network.TEACHER)


def test_a_folder_without_an_ink_finder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(BundleError, match=r"nothing.* holds no finder\.keras; train one with --arch finder"):
        train.train(replace(SETTINGS, output=tmp_path / "out", finder=tmp_path / "nothing"))


def test_an_ink_finder_that_was_not_exported_is_read_behind_all_the_same(
    small_mnist: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "finder").mkdir()
    shutil.copy(bundle.PACKAGED / "finder.keras", tmp_path / "finder")
    monkeypatch.setattr(train, "fit", stop)
    with pytest.raises(InterruptedError):
        train.train(replace(SETTINGS, output=tmp_path / "out", finder=tmp_path / "finder"))
    assert names(tmp_path / "out") == ["finder.keras", "samples.png"]


def test_the_metrics_are_of_the_validation_part_and_of_the_test_half(made: Bundle) -> None:
    metrics = json.loads((made.directory / "metrics.json").read_text())
    assert {name: part["count"] for name, part in metrics.items()} == {"validation": 100, "mnist_test": 100}
    for part in metrics.values():
        low, high = part["interval_95"]
        assert 0 <= low <= part["accuracy"] <= high <= 1


def test_the_model_that_ships_has_no_optimizer_in_it(made: Bundle) -> None:
    parameters = 42_310
    assert made.weights.stat().st_size < 2 * 4 * parameters


def test_provenance_tells_where_the_model_comes_from(made: Bundle) -> None:
    told = made.provenance
    assert set(told) >= {"recipe", "data", "images", "metrics", "versions", "git_revision"}
    recipe = {"data": ["mnist"], "arch": "dense", "batch_size": 64, "learning_rate": 0.002, "seed": 1998}
    assert told["recipe"].items() >= (recipe | {"validation_share": 0.1}).items()
    assert len(told["data"]["mnist"]) == 4
    assert all(len(text) == 64 for text in told["data"]["mnist"].values())
    assert told["images"] == {"training": 900, "validation": 100}
    assert told["metrics"] == json.loads((made.directory / "metrics.json").read_text())
    assert told["versions"]["batchdigits"] == __version__
    for library in ("tensorflow", "keras", "numpy", "opencv-python-headless", "pillow"):
        assert told["versions"][library] == importlib.metadata.version(library)
    assert told["git_revision"] is None or len(told["git_revision"].removesuffix("+")) == 40


def test_the_number_of_epochs_is_told_even_where_nobody_named_it(made: Bundle) -> None:
    assert len((made.directory / "history.jsonl").read_text().splitlines()) == 10
    assert made.provenance["recipe"]["epochs"] == 10


def test_the_same_command_gives_the_same_metrics(
    made: Bundle, small_mnist: None, without_plots: None, tmp_path: Path
) -> None:
    again = train.train(replace(SETTINGS, output=tmp_path))
    for part in ("validation", "mnist_test"):
        first, second = (told.provenance["metrics"][part] for told in (made, again))
        assert abs(first["correct"] - second["correct"]) <= 1
        assert first["confidence_when_right"] == pytest.approx(second["confidence_when_right"], abs=1e-4)
    assert (tmp_path / "samples.png").read_bytes() == (made.directory / "samples.png").read_bytes()


def test_a_training_that_is_run_again_leaves_what_it_made(made: Bundle, small_mnist: None) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.directory.rglob("*")}
    with pytest.raises(UsageError, match="holds a training; go on with it by --resume, replace it by --overwrite, or"):
        train.train(replace(SETTINGS, output=made.directory))
    assert {path: path.stat().st_mtime_ns for path in made.directory.rglob("*")} == before


def test_another_network_is_not_gone_on_with_and_that_is_said_before_any_image_is_read(
    made: Bundle, small_mnist: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading(*_: object) -> None:
        pytest.fail("images are read")

    monkeypatch.setattr(train, "_read", reading)
    with pytest.raises(UsageError, match=r'are of another recipe \("arch": "dense".*give its settings'):
        train.train(replace(SETTINGS, output=made.directory, arch=Arch.CNN, resume=True))


def test_a_changed_byte_of_what_was_made_is_noticed(made: Bundle, tmp_path: Path) -> None:
    shutil.copytree(made.directory, tmp_path / "copy")
    data = bytearray((tmp_path / "copy" / "model.keras").read_bytes())
    data[-100] ^= 1
    (tmp_path / "copy" / "model.keras").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.keras does not match"):
        bundle.load(tmp_path / "copy")


def test_the_run_opens_with_what_the_data_are(
    tmp_path: Path, small_mnist: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(train, "fit", stop)
    with caplog.at_level("INFO", "batchdigits"), pytest.raises(InterruptedError):
        train.train(replace(SETTINGS, output=tmp_path))
    assert "uint8 (1000, 28, 28)" in caplog.text
    assert "int8 (1000,)" in caplog.text
    counts = np.bincount(shipped.mnist("train")[1])
    assert ", ".join(f"{digit}: {count}" for digit, count in enumerate(counts)) in caplog.text
    assert names(tmp_path) == ["finder.keras", "finder.tflite", "samples.png"]


def no_pages(count: int, **options: Any) -> SimulatedInk:
    """What stands in the place of `read_simulated`: a few pages, and none with a digit."""
    labels = np.resize(np.array([NOT_A_DIGIT, BLANK], np.int8), 20)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    return SimulatedInk(
        pixels, np.ones((20, len(INK_MEASURES)), np.float32), labels, np.full(20, "a scene"), np.ones(20, np.float32)
    )


def test_small_sets_are_repeated_and_pages_show_no_digit_of_the_validation_part(
    tmp_path: Path, small_mnist: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    asked: list[dict[str, Any]] = []

    def note(count: int, **options: Any) -> SimulatedInk:
        asked.append({"count": count, **options})
        return no_pages(count)

    def keep(*arguments: Any) -> None:
        given.extend(arguments)
        raise InterruptedError

    monkeypatch.setattr(train, "fit", keep)
    monkeypatch.setattr(train, "read_simulated", note)
    monkeypatch.setattr(datasets, "LEFT_OUT", ("uji",))
    with pytest.raises(InterruptedError):
        train.train(replace(SETTINGS, output=tmp_path, arch=Arch.CNN, pages=123))
    training, pages, validation, _ = given
    assert len(training) == 3600  # 900, four times
    assert len(set(training.names)) == 900
    assert pages.labels.tolist() == no_pages(0).labels.tolist()
    (options,) = asked
    assert (options["count"], options["part"], options["finder"], options["seed"]) == (123, "train", tmp_path, 1998)
    assert set(options["mnist_rows"]) == {int(name.split()[-1]) for name in training.names}
    assert not set(options["mnist_rows"]) & {int(name.split()[-1]) for name in validation.names}
    assert options["kept_in"] == [tmp_path / "checkpoints"]


def test_a_model_is_calibrated_on_other_pages_than_it_learnt_from(
    tmp_path: Path, small_mnist: None, without_plots: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def note(count: int, **options: Any) -> SimulatedInk:
        asked.append({"count": count, **options})
        return no_pages(count)

    counted: list[Any] = []

    def calibrate(*arguments: Any) -> Calibration:
        counted.extend(arguments[1:])
        return calibration.calibrate(*arguments)

    monkeypatch.setattr(train, "calibrate", calibrate)
    monkeypatch.setattr(datasets, "LEFT_OUT", ("uji",))
    monkeypatch.setattr(train, "read_simulated", note)
    monkeypatch.setattr(train, "_LEAST_IMAGES", 900)  # each digit is varied once
    settings = replace(SETTINGS, output=tmp_path / "out", arch=Arch.CNN, epochs=1, pages=30_000, batch_size=512)
    made = train.train(settings)
    learnt, tested = asked
    assert (learnt["part"], tested["part"]) == ("train", "test")
    assert (learnt["count"], tested["count"]) == (30_000, 6000)
    assert learnt["seed"] != tested["seed"]
    assert not set(learnt["mnist_rows"]) & set(tested["mnist_rows"])
    assert made.calibration.gate < 1
    validation, _, others = counted
    assert not set(validation.names) & set(others.names)
    assert {name.split(" ")[0] for name in others.names} == {"uji"}
    asked.clear()
    monkeypatch.setattr(export, "find_spec", lambda _: None)
    monkeypatch.setattr(train, "fit", lambda *_: load_model(made))
    monkeypatch.setattr(train, "calibrate", stop)
    with pytest.raises(InterruptedError):
        train.train(replace(settings, output=tmp_path / "few", pages=0))
    assert [options["count"] for options in asked] == [2000]  # it learns from none, and is calibrated all the same


def test_the_tutorials_network_sees_no_pages_and_has_no_gate(made: Bundle) -> None:
    assert made.calibration.gate == 1.0
    assert not list(made.directory.rglob("pages-*"))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A folder with a sub-folder for each digit, one image in each."""
    for digit, image in enumerate(one_of_each()):
        write_png(tmp_path / "labelled" / str(digit) / "a.png", image)
    return tmp_path / "labelled"


def test_an_evaluation_counts_images_that_cannot_be_read_as_mistakes_and_names_them(
    made: Bundle, labelled: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copyfile(DATA / "truncated.jpg", labelled / "4" / "broken.jpg")
    settings = EvaluateSettings(source=str(labelled), output=tmp_path / "out", model=made.directory)
    result = evaluate(settings)
    assert (result.count, result.unanswered) == (11, 1)
    assert result.confusion[4].sum() == 2
    assert "4/broken.jpg" in caplog.text
    assert names(tmp_path / "out") == [
        *("confusion.csv", "confusion.png", "metrics.json", "mistakes.png", "reliability.png", "risk_coverage.png")
    ]
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["count"] == 11


def test_an_evaluation_takes_its_data_for_a_folder_and_says_why_it_cannot_judge_it(
    made: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = EvaluateSettings(source="mnist", output=tmp_path / "out", model=made.directory)
    assert evaluate(settings).selected is None  # 80 digits calibrated this model
    assert "cannot prove the target error 0.50%" in caplog.text
    given = evaluate(replace(settings, threshold=0.3))
    assert given.selected is not None
    assert (given.selected.threshold, given.promised_error, given.expected_error) == (0.3, None, None)


def test_an_evaluation_of_a_blank_image_says_that_no_digit_was_said(
    made: Bundle, labelled: Path, tmp_path: Path
) -> None:
    write_png(labelled / "5" / "blank.png", np.full((40, 40), 255, np.uint8))
    result = evaluate(EvaluateSettings(source=str(labelled), output=tmp_path / "out", model=made.directory))
    assert (result.count, result.unanswered) == (11, 1)


def test_an_evaluation_where_nothing_can_be_read_is_all_mistakes(made: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in" / "3").mkdir(parents=True)
    shutil.copyfile(DATA / "truncated.jpg", tmp_path / "in" / "3" / "a.jpg")
    result = evaluate(EvaluateSettings(source=str(tmp_path / "in"), output=tmp_path / "out", model=made.directory))
    assert (result.count, result.correct, result.unanswered) == (1, 0, 1)


def test_images_without_ink_and_such_that_cannot_be_read_teach_nothing_and_are_counted(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_png(labelled / "5" / "blank.png", np.full((40, 40), 255, np.uint8))
    shutil.copyfile(DATA / "truncated.jpg", labelled / "4" / "broken.jpg")
    seen: list[int] = []

    def note(training: Labelled, pages: Any, validation: Labelled, *_: object) -> None:
        seen.extend([len(training), len(validation), int((training.pixels.max(axis=(1, 2)) == 0).sum())])
        raise InterruptedError

    monkeypatch.setattr(train, "fit", note)
    with pytest.raises(InterruptedError):
        train.train(replace(SETTINGS, data=(str(labelled),), output=tmp_path / "out", validation_share=0.2))
    assert seen == [8, 2, 0]
    assert "2 images are left out" in caplog.text


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_too_few_images_are_a_usage_error(share: float, labelled: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, data=(str(labelled),), output=tmp_path / "out", validation_share=share)
    with pytest.raises(UsageError, match="too few"):
        train.train(settings)


def test_training_on_images_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "in" / "3").mkdir(parents=True)
    shutil.copyfile(DATA / "truncated.jpg", tmp_path / "in" / "3" / "a.jpg")
    with pytest.raises(UsageError, match="0 labelled images"):
        train.train(replace(SETTINGS, data=(str(tmp_path / "in"),), output=tmp_path / "out"))

"""Training on a few hundred images: what it writes, that it repeats itself, and that it survives being killed."""

import functools
import json
import shutil
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits.errors import BundleError, UsageError
from batchdigits.inference import bundle
from batchdigits.inference.thresholds import Calibration
from batchdigits.preprocessing.normalisation import normalise
from batchdigits.records import BLANK, DIGITS, INK, INK_MEASURES, NOT_A_DIGIT
from batchdigits.settings import Arch, NormalisationSettings, TrainSettings
from batchdigits.training import trainer
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.datasets.shipped import mnist
from batchdigits.training.datasets.simulated import SimulatedInk
from batchdigits.training.loop import EpochRecord, Lesson
from batchdigits.training.trainer import fit
from tests.cli_runner import CHECKOUT, run
from tests.fake_model import no_network
from tests.file_states import names
from tests.training.first_epoch import first_epoch_copied

# Keras 3.15 warns of itself under numpy 2 when it saves a model
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LINE = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
DENSE = TrainSettings(output=Path(), arch=Arch.DENSE, epochs=3, batch_size=32)
CNN = TrainSettings(output=Path(), arch=Arch.CNN, epochs=2, batch_size=32)


@functools.cache
def some(count: int) -> tuple[Labelled, Labelled]:
    """The first MNIST training images, normalised, the last fifth of them for validation."""
    images, labels = (half[:count] for half in mnist("train"))
    seen = normalise(list(images), no_network)
    names = [f"mnist train {number}" for number in range(count)]
    whole = Labelled(names, seen.pixels, seen.ink, labels, [], [""] * count)
    rows = np.arange(count)
    return whole.take(rows[: count * 4 // 5]), whole.take(rows[count * 4 // 5 :])


def some_pages(count: int) -> SimulatedInk:
    """What was found on pages: each fourth has no ink, and is blank, and each fourth shows no digit."""
    pixels = np.random.default_rng(3).integers(1, 256, (count, 28, 28), np.uint8)
    ink = np.full((count, len(INK_MEASURES)), 0.1, np.float32)
    labels = (np.arange(count) % 10).astype(np.int8)
    pixels[::4], ink[::4, 0], labels[::4], labels[1::4] = 0, 0, BLANK, NOT_A_DIGIT
    return SimulatedInk(pixels, ink, labels, np.full(count, "a scene"), np.ones(count, np.float32))


def fit_some(count: int, settings: TrainSettings, pages: SimulatedInk | None = None) -> Any:  # noqa: ANN401
    """Train beside a copy of the packaged ink finder."""
    settings.output.mkdir(exist_ok=True)
    for file in bundle.PACKAGED.glob("finder.*"):
        shutil.copy(file, settings.output)
    training, validation = some(count)
    return fit(training, pages, validation, settings)


def trained(settings: TrainSettings, count: int = 500) -> list[Any]:
    """Train, the convolutional network on simulated pages too, and give the weights."""
    pages = some_pages(100) if settings.arch is Arch.CNN else None
    weights: list[Any] = fit_some(count, settings, pages).get_weights()
    return weights


def history(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def without_seconds(output: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in history(output)]


KILLED = """
import os, signal
from pathlib import Path
from dataclasses import replace
from batchdigits.training import loop
from tests.training.test_trainer import CNN, trained

keep = loop._Checkpoints.keep

def keep_and_die(self, model, average, record):
    keep(self, model, average, record)
    os.kill(os.getpid(), signal.SIGKILL)

loop._Checkpoints.keep = keep_and_die
trained(replace(CNN, output=Path("cnn")), 400)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cnn run that was killed after its first epoch."""
    folder = tmp_path_factory.mktemp("killed")
    result = run([sys.executable, "-c", KILLED], cwd=folder, env={"PYTHONPATH": CHECKOUT})
    assert result.code == -signal.SIGKILL, result.stderr
    return folder / "cnn"


@dataclass(frozen=True, slots=True)
class Whole:
    """A run that nobody interrupted."""

    output: Path
    weights: list[Any]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A dense run; beside its folder a copy of that as it stood after the first epoch, `first`."""
    output = tmp_path_factory.mktemp("dense") / "whole"
    with first_epoch_copied(output, output.with_name("first")):
        return Whole(output, trained(replace(DENSE, output=output)))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    output = tmp_path_factory.mktemp("cnn")
    return Whole(output, trained(replace(CNN, output=output), count=400))


def assert_same(output: Path, weights: list[Any], whole: Whole) -> None:
    lines, expected = without_seconds(output), without_seconds(whole.output)
    assert [line["epoch"] for line in lines] == [line["epoch"] for line in expected]
    for line, other in zip(lines, expected, strict=True):
        assert line == pytest.approx(other, abs=1e-4)
    for weight, weight_of_whole in zip(weights, whole.weights, strict=True):
        np.testing.assert_allclose(weight, weight_of_whole, atol=1e-4)


def test_a_run_that_died_while_it_kept_an_epoch_is_resumed_to_the_same_end(dense: Whole) -> None:
    torn = dense.output.with_name("first")
    assert (torn / "history.jsonl").read_text().count("\n") == 1
    with (torn / "history.jsonl").open("a") as lines:
        lines.write('{"epoch": 2, "loss"')
    (torn / "checkpoints" / "epoch-0002.keras").write_bytes(b"half a model")
    assert_same(torn, trained(replace(DENSE, output=torn, resume=True)), dense)


def test_a_run_that_was_killed_between_epochs_is_resumed_to_the_same_end(killed: Path, cnn: Whole) -> None:
    """With dropout, batch normalisation and varied images: the state of each goes on too."""
    (kept,) = history(killed)
    weights = trained(replace(CNN, output=killed, resume=True), count=400)
    assert history(killed)[0] == kept  # its seconds too: the epoch was not trained again
    assert_same(killed, weights, cnn)


def test_resuming_where_nothing_was_begun_begins_and_the_same_seed_gives_the_same_run(
    dense: Whole, tmp_path: Path
) -> None:
    assert_same(tmp_path, trained(replace(DENSE, output=tmp_path, resume=True)), dense)


def test_a_run_that_is_resumed_at_its_end_trains_no_more(dense: Whole, tmp_path: Path) -> None:
    shutil.copytree(dense.output, tmp_path / "copy")
    again = trained(replace(DENSE, output=tmp_path / "copy", resume=True))
    assert all((weight == other).all() for weight, other in zip(again, dense.weights, strict=True))
    assert history(tmp_path / "copy") == history(dense.output)


def test_a_run_that_overwrites_begins_anew_and_another_seed_gives_another_run(dense: Whole, tmp_path: Path) -> None:
    shutil.copytree(dense.output, tmp_path / "copy")
    pages = tmp_path / "copy" / "checkpoints" / "pages-0123456789abcdef.npz"
    pages.touch()
    trained(replace(DENSE, output=tmp_path / "copy", seed=7, epochs=1, overwrite=True))
    (line,) = history(tmp_path / "copy")
    assert line["epoch"] == 1
    assert line["loss"] != pytest.approx(history(dense.output)[0]["loss"], abs=1e-4)
    kept = ["epoch-0001.keras", "epoch-0001.npz", pages.name, "recipe.json"]
    assert names(tmp_path / "copy" / "checkpoints") == kept  # pages that were simulated before serve it, too


@pytest.mark.parametrize(("left", "remedy"), [("checkpoints", "by --resume, replace it by --overwrite"), ("", "")])
def test_a_run_does_not_destroy_another_unless_told_to(left: str, remedy: str, dense: Whole, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(dense.output, output)
    if not left:  # as of a finished training whose checkpoints somebody deleted
        shutil.rmtree(output / "checkpoints")
        (output / "bundle.json").touch()
    before = history(output), names(output)
    for resume in (False, *([] if left else [True])):
        with pytest.raises(UsageError, match=f"holds a training; .*{remedy or 'replace it by --overwrite'}, or choose"):
            fit_some(500, replace(DENSE, output=output, resume=resume))
    assert (history(output), names(output)) == before


def test_one_json_line_an_epoch_tells_how_it_went(dense: Whole) -> None:
    lines = history(dense.output)
    assert [list(line) for line in lines] == [LINE] * 3
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert 0 <= line["accuracy"] <= 1
        assert 0 <= line["val_accuracy"] <= 1
        assert line["loss"] > 0
        assert line["val_loss"] > 0
        assert line["seconds"] > 0


def test_only_the_last_checkpoint_is_kept(dense: Whole) -> None:
    assert names(dense.output / "checkpoints") == ["epoch-0003.keras", "epoch-0003.npz", "recipe.json"]


def test_the_dense_network_reads_nine_in_ten_after_two_epochs(tmp_path: Path) -> None:
    trained(replace(DENSE, output=tmp_path, epochs=2), count=10_000)
    assert history(tmp_path)[-1]["val_accuracy"] >= 0.9


def test_the_convolutional_network_learns(cnn: Whole) -> None:
    first, last = history(cnn.output)
    assert last["loss"] < first["loss"]
    assert last["accuracy"] > max(first["accuracy"], 0.3)


def test_checkpoints_of_another_recipe_are_refused(dense: Whole, tmp_path: Path) -> None:
    shutil.copytree(dense.output, tmp_path / "copy")
    other = replace(DENSE, output=tmp_path / "copy", resume=True, learning_rate=0.1)
    with pytest.raises(UsageError, match="another recipe"):
        fit_some(500, other)


def a_teacher(folder: Path, *, outputs: int, says: int) -> Path:
    """Make the bundle of a model that says the same digit of every image."""
    import keras

    last = keras.layers.Dense(outputs)
    model = keras.Sequential([keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), last])
    last.set_weights([np.zeros((784, outputs)), 10.0 * np.eye(outputs)[says]])
    folder.mkdir()
    model.save(folder / "model.keras")
    (folder / "finder.keras").write_bytes(b"no finder")
    bundle.save(folder, normalisation=NormalisationSettings(), calibration=Calibration(1.0, gate=1.0), provenance={})
    return folder


def test_a_network_learns_from_its_teacher_and_not_from_the_labels(tmp_path: Path) -> None:
    teacher = a_teacher(tmp_path / "teacher", outputs=10, says=3)
    model = fit_some(500, replace(DENSE, output=tmp_path / "out", teacher=teacher))
    said = np.asarray(model(some(500)[0].pixels, training=False)).argmax(axis=1)
    assert (said == 3).all()


def test_a_teacher_with_other_outputs_is_refused(tmp_path: Path) -> None:
    teacher = a_teacher(tmp_path / "teacher", outputs=12, says=3)
    with pytest.raises(UsageError, match="has 12 outputs, expected 10; use another"):
        fit_some(100, replace(DENSE, output=tmp_path / "out", teacher=teacher))


def test_a_teacher_that_cannot_be_used_costs_no_checkpoint(dense: Whole, tmp_path: Path) -> None:
    settings = replace(DENSE, output=tmp_path / "out")
    shutil.copytree(dense.output, settings.output)
    kept = names(tmp_path / "out" / "checkpoints")
    with pytest.raises(BundleError):
        fit_some(100, replace(settings, teacher=tmp_path / "nowhere", overwrite=True))
    with pytest.raises(UsageError, match="would be overwritten by its pupil"):
        fit_some(100, replace(settings, teacher=tmp_path / "out"))
    assert names(tmp_path / "out" / "checkpoints") == kept


def test_a_teacher_behind_another_normalisation_is_refused(tmp_path: Path) -> None:
    teacher = a_teacher(tmp_path / "teacher", outputs=10, says=3)
    bundle.save(
        teacher,
        normalisation=NormalisationSettings(digit_side=12),
        calibration=Calibration(1.0, gate=1.0),
        provenance={},
    )
    with pytest.raises(UsageError, match="trained behind another normalisation"):
        fit_some(100, replace(DENSE, output=tmp_path / "out", teacher=teacher))


def test_a_run_does_not_go_on_with_another_teacher(dense: Whole, tmp_path: Path) -> None:
    settings = replace(DENSE, output=tmp_path / "out")
    shutil.copytree(dense.output, settings.output)
    other = a_teacher(tmp_path / "second", outputs=10, says=4)
    with pytest.raises(UsageError, match="are of another recipe"):
        fit_some(100, replace(settings, teacher=other, resume=True))


@pytest.mark.parametrize("batch_size", [100, 128, 600])
def test_every_image_is_seen_once_an_epoch_in_whole_batches(batch_size: int) -> None:
    training, _ = some(800)
    pixels, labels = training.pixels, training.labels
    settings = replace(DENSE, batch_size=batch_size)
    with trainer._targets(settings) as targets:
        batches = list(trainer._batches(pixels, labels, labels, 0, no_network, targets, settings, 1))
    sizes = [len(seen) for seen, _ in batches]
    whole, rest = divmod(len(pixels), batch_size)
    assert sizes == [batch_size] * whole + [rest] * (rest > 0)
    seen, expected = (np.concatenate(part) for part in zip(*batches, strict=True))
    order = np.lexsort(seen.reshape(len(seen), -1).T)
    assert (seen[order] == pixels[np.lexsort(pixels.reshape(len(pixels), -1).T)]).all()
    assert np.bincount(expected).tolist() == np.bincount(labels).tolist()


@dataclass(frozen=True, slots=True)
class Taught:
    """What `fit` lets a network learn."""

    lesson: Lesson
    epochs: list[list[tuple[Any, Any]]]
    """The batches of the epochs that were asked for."""


def taught(
    settings: TrainSettings, pages: SimulatedInk | None, epochs: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> Taught:
    """Ask for some epochs while `fit` has its ink finder open."""
    given: list[Taught] = []

    def learn(begin: object, lesson: Lesson, settings: TrainSettings) -> None:
        given.append(Taught(lesson, [list(lesson.batches(epoch)) for epoch in epochs]))
        raise InterruptedError

    monkeypatch.setattr(trainer, "learn", learn)
    with pytest.raises(InterruptedError):
        fit_some(250, settings, pages)
    return given[0]


def test_simulated_pages_are_seen_as_they_are_and_digits_are_varied_anew_in_each_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = some_pages(120)
    found = taught(replace(CNN, output=tmp_path), pages, (1, 2, 1), monkeypatch)
    of_pages = {one.tobytes(): label for one, label in zip(pages.pixels, pages.labels, strict=True) if one.any()}
    digits = {one.tobytes() for one in some(250)[0].pixels}
    varied: list[set[bytes]] = []
    for batches in found.epochs:
        assert len(batches) == found.lesson.steps == -(-(200 + 90) // CNN.batch_size)  # 30 pages show no ink
        seen, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
        known = [of_pages.get(one.tobytes()) for one in seen]
        assert sum(label is not None for label in known) == len(of_pages) == 90
        assert all(label in (None, said) for label, said in zip(known, labels, strict=True))
        assert set(labels) <= {*range(10), NOT_A_DIGIT}
        varied.append({one.tobytes() for one in seen} - set(of_pages))
    assert len(varied[0] & digits) < 20
    assert len(varied[0] & varied[1]) < 20
    assert varied[0] == varied[2]  # the same epoch is the same whenever it is asked for


def test_pages_whose_digit_was_not_found_teach_nothing_and_what_is_no_digit_need_not_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = some_pages(120)
    lost = np.arange(120) % 2 == 1  # half of those are no digit
    found = taught(replace(CNN, output=tmp_path), pages._replace(likeness=1 - 0.9 * lost), (1,), monkeypatch)
    seen = {one.tobytes() for pixels, _ in found.epochs[0] for one in pixels}
    taught_by = np.array([one.tobytes() in seen for one in pages.pixels])
    assert not taught_by[lost & (pages.labels < DIGITS)].any()
    assert taught_by[lost & (pages.labels == NOT_A_DIGIT)].all()
    assert taught_by[~lost & (pages.ink[:, INK] > 0)].all()


def test_a_pupil_learns_its_teachers_doubts_where_the_digit_was_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = some_pages(120)._replace(likeness=np.zeros(120, np.float32))
    teacher = a_teacher(tmp_path / "teacher", outputs=12, says=3)
    found = taught(replace(CNN, output=tmp_path / "out", teacher=teacher), pages, (1,), monkeypatch)
    seen = {one.tobytes() for pixels, _ in found.epochs[0] for one in pixels}
    assert all(one.tobytes() in seen for one in pages.pixels[pages.ink[:, INK] > 0])


def test_the_tutorials_network_sees_digits_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = taught(replace(DENSE, output=tmp_path), None, (1,), monkeypatch)
    seen = np.concatenate([pixels for pixels, _ in found.epochs[0]])
    assert {one.tobytes() for one in seen} == {one.tobytes() for one in some(250)[0].pixels}
    assert len(found.lesson.validation[0]) == 50


def test_an_epoch_is_told_in_words_with_the_time_that_is_left() -> None:
    record = EpochRecord(3, 0.2, 0.95, 0.06123, 0.98123, 41.2)
    assert record.line(60) == "epoch 3 of 60: 98.12% of the validation part right, loss 0.0612; 41 s, 39 min left"
    assert EpochRecord(60, 0.2, 0.95, 0.06, 0.98, 7200).line(60).endswith("loss 0.0600; 2.0 h")

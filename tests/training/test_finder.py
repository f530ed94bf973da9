"""Training of the ink finder: what it learns from, that it learns, and that a resumed run ends as an unbroken one."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits.errors import UsageError
from batchdigits.inference.runtimes import InkFinder, start_tensorflow
from batchdigits.records import LOOK_CELLS
from batchdigits.settings import Arch, Runtime, TrainSettings
from batchdigits.training import export, finder, train
from batchdigits.training.datasets.simulator.pages import Kind
from batchdigits.training.finder import finder_loss, overlap
from tests.file_states import names
from tests.training.first_epoch import first_epoch_copied

# Keras 3.15 warns of itself under numpy 2 when it saves a model
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

CHUNK, PAGES, VALIDATION = 12, 36, 12
SETTINGS = TrainSettings(output=Path(), arch=Arch.FINDER, epochs=2, batch_size=12)
CELLS = LOOK_CELLS**2


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """An epoch of a few pages, which a thread makes: processes would take longer to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "_CHUNK", CHUNK)
        patch.setattr(finder, "_PAGES", PAGES)
        patch.setattr(finder, "_VALIDATION", VALIDATION)
        patch.setattr(finder, "one_for_each_core", lambda _: ThreadPoolExecutor(1))
        yield


def without_seconds(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def weights_of(folder: Path) -> list[Any]:
    import keras

    weights: list[Any] = keras.saving.load_model(folder / "finder.keras", compile=False).get_weights()
    return weights


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained finder; beside its folder a copy of that as it stood after the first epoch, `broken`."""
    output = tmp_path_factory.mktemp("finder") / "new"
    with first_epoch_copied(output, output.with_name("broken")):
        train.train_finder(replace(SETTINGS, output=output))
    return output


def test_everything_that_is_promised_stands_in_the_folder(made: Path) -> None:
    promised = ["finder.keras", "finder.tflite", "history.jsonl", "learning_curves.png", "simulated.png"]
    assert [name for name in names(made) if name != "checkpoints"] == promised
    assert [line["epoch"] for line in without_seconds(made)] == [1, 2]


@pytest.mark.parametrize("runtime", list(Runtime))
def test_what_was_trained_finds_ink_by_both_runtimes(made: Path, runtime: Runtime) -> None:
    looks = finder._make((1, 0, 0), "test").cells
    with InkFinder(made, runtime=runtime) as network:
        maps, kinds = network(looks)
    assert maps.shape == (2 * CHUNK, LOOK_CELLS, LOOK_CELLS)
    assert kinds.shape == (2 * CHUNK, 4)


def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = made.with_name("broken")
    assert names(broken / "checkpoints") == ["epoch-0001.keras", "epoch-0001.npz", "recipe.json"]
    assert not (broken / "finder.keras").exists()
    monkeypatch.setattr(export, "find_spec", lambda _: None)  # neither exports nor pictures are asked about here
    monkeypatch.setattr(train, "_draw_simulated", lambda *_: None)
    train.train_finder(replace(SETTINGS, output=broken, resume=True))
    for line, expected in zip(without_seconds(broken), without_seconds(made), strict=True):
        assert line == pytest.approx(expected, abs=1e-4)
    for weight, expected in zip(weights_of(broken), weights_of(made), strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-4)


def test_a_finder_does_not_destroy_another_nor_a_bundle_unless_told_to(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints"))
    before = names(tmp_path / "copy")
    for output, left in ((made, "--resume"), (tmp_path / "copy", "--overwrite")):
        with pytest.raises(UsageError, match=f"holds a training; .*{left}"):
            train.train_finder(replace(SETTINGS, output=output))
    assert names(tmp_path / "copy") == before


# ---- what it learns from -------------------------------------------------------------------------------------------


def test_each_page_is_looked_at_as_a_whole_and_closer_with_its_ink_and_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "_CHUNK", 60)
    looks = finder._make((3, 1, 1), "train")
    assert (looks.cells.shape, looks.cells.dtype) == ((120, LOOK_CELLS, LOOK_CELLS, 3), np.uint8)
    assert (looks.targets.shape, looks.targets.dtype) == ((120, CELLS + 1), np.uint8)
    kinds, ink = looks.targets[:, -1], looks.targets[:, :-1].astype(np.float64).sum(1)
    assert set(kinds) <= {int(kind) for kind in Kind}
    np.testing.assert_array_equal(kinds[::2], kinds[1::2])
    single = kinds[::2] == int(Kind.DIGIT)
    whole, closer = ink[::2][single], ink[1::2][single]
    assert len(whole) > 20
    assert (whole > 0).all()
    small = whole < 0.02 * 255 * CELLS
    assert small.sum() > 4
    assert (closer > whole)[small].mean() > 0.8  # it is larger in what is seen from near
    assert not ink[kinds == int(Kind.BLANK)].any()


def test_the_same_seed_makes_the_same_pages_and_another_one_others() -> None:
    first, again, other = (finder._make((3, epoch, 0), "train") for epoch in (1, 1, 2))
    np.testing.assert_array_equal(first.cells, again.cells)
    np.testing.assert_array_equal(first.targets, again.targets)
    assert (first.cells != other.cells).any()


def test_an_epoch_has_as_many_batches_as_it_says_each_look_once_and_is_the_same_whenever_it_is_made() -> None:
    settings = replace(SETTINGS, batch_size=20)
    with ThreadPoolExecutor(1) as makers:
        epochs = [list(finder._batches(makers, settings, epoch)) for epoch in (1, 1, 2)]
    for batches in epochs:
        assert [len(cells) for cells, _ in batches] == [20] * (2 * PAGES // 20)
    targets = [np.concatenate([some for _, some in batches]) for batches in epochs]
    np.testing.assert_array_equal(targets[0], targets[1])
    assert (targets[0] != targets[2]).any()
    given = np.concatenate([finder._make((settings.seed, 1, number), "train").targets for number in range(3)])
    inked = {row.tobytes() for row in given if row[:-1].any()}
    seen = [row.tobytes() for row in targets[0] if row[:-1].any()]
    assert set(seen) <= inked
    assert len(set(seen)) == len(seen)


def test_a_look_that_is_turned_is_a_negative_and_what_is_beyond_the_page_stays() -> None:
    class Always:
        def random(self, count: int) -> np.ndarray:
            return np.zeros(count)

    cells = np.random.default_rng(0).integers(0, 256, (2, LOOK_CELLS, LOOK_CELLS, 3), np.uint8)
    cells[..., 1], cells[..., 2] = cells[..., 1:].min(-1), cells[..., 1:].max(-1)
    cells[:, :9] = (128, 255, 0)
    turned = finder._some_turned(cells.copy(), Always())  # type: ignore[arg-type]
    assert (turned[:, :9] == (128, 255, 0)).all()
    np.testing.assert_array_equal(turned[:, 9:, :, 0], 255 - cells[:, 9:, :, 0])
    np.testing.assert_array_equal(turned[:, 9:, :, 1], 255 - cells[:, 9:, :, 2])
    np.testing.assert_array_equal(turned[:, 9:, :, 2], 255 - cells[:, 9:, :, 1])


# ---- the loss ------------------------------------------------------------------------------------------------------


def said(ink: np.ndarray, kind: int, *, sure: float) -> np.ndarray:
    """What a network says that is so sure of this ink and kind: float32[1, 4100]."""
    logits = np.concatenate([sure * (2 * ink - 1), sure * (2 * np.eye(4)[kind] - 1)])
    return logits[None].astype(np.float32)


def test_the_loss_is_small_where_ink_and_kind_are_right_and_larger_where_either_is_wrong() -> None:
    start_tensorflow()
    ink = np.zeros(CELLS)
    ink[100:400] = 1
    targets = np.concatenate([255 * ink, [1]])[None].astype(np.uint8)
    right, other_kind, half, none = (
        float(np.asarray(finder_loss(targets, answer))[0])
        for answer in (
            said(ink, 1, sure=9),
            said(ink, 2, sure=9),
            said(ink * (np.arange(CELLS) < 250), 1, sure=9),
            said(np.zeros(CELLS), 1, sure=9),
        )
    )
    assert 0 <= right < 0.02
    assert right < other_kind < half < none
    blank = np.zeros((1, CELLS + 1), np.uint8)
    assert float(np.asarray(finder_loss(blank, said(np.zeros(CELLS), 0, sure=9)))[0]) < 0.02


def test_the_overlap_is_one_for_the_same_ink_and_small_for_other_ink() -> None:
    start_tensorflow()
    ink = np.zeros(CELLS)
    ink[100:400] = 1
    targets = np.concatenate([255 * ink, [1]])[None].astype(np.uint8)
    same, half, other = (
        float(np.asarray(overlap(targets, said(found, 1, sure=20)))[0])
        for found in (ink, ink * (np.arange(CELLS) < 250), np.roll(ink, 1000))
    )
    assert same == pytest.approx(1, abs=1e-3)
    assert half == pytest.approx((2 * 150 + 8) / (450 + 8), abs=1e-3)
    assert other < 0.02

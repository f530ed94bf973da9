"""Tuning: a bundle goes on learning from new data, keeps what it knew, and says what came of it."""

import json
import logging
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits import pipeline
from batchdigits.engine import local, networks, shared_finder
from batchdigits.engine.shared_finder import SharedFinder
from batchdigits.errors import StorageError, UsageError
from batchdigits.inference import bundle
from batchdigits.inference.audit import HOLDOUT_SHARE, audit_share
from batchdigits.inference.bundle import Bundle
from batchdigits.records import INK_MEASURES
from batchdigits.reports.corrections import correct
from batchdigits.settings import Arch, NormalisationSettings, PredictSettings, Runtime, TrainSettings
from batchdigits.storage.local import LocalFile
from batchdigits.training import finetuning, train
from batchdigits.training.architectures import build
from batchdigits.training.datasets import labelled, shipped
from batchdigits.training.datasets.labelled import Labelled
from batchdigits.training.trainer import load_model
from tests.fake_model import FakeInkFinder, FakePredictor, bundle_in
from tests.sample_pages import digits, write_png, write_tiff

# Keras 3.15 warns of itself under numpy 2 when it saves a model
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


FINDER = SharedFinder(bundle.PACKAGED, Runtime.LITERT)


@pytest.fixture(scope="module")
def base(small_mnist: None, dense_bundle: Bundle) -> Bundle:
    """A dense network that has seen 900 digits; the package holds 1,000 while the tests run."""
    return dense_bundle


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Digits that mean the next one: a handwriting that nobody has seen before."""
    for number in range(80):
        write_png(tmp_path / "new" / str((number + 1) % 10) / f"{number}.png", digits(80)[number])
    return tmp_path / "new"


def settings_of(base: Bundle, output: Path, *data: Path | str, **changes: Any) -> TrainSettings:
    return TrainSettings(output, base=base.directory, data=tuple(map(str, data)), batch_size=64, **changes)


def test_a_bundle_goes_on_learning_and_reads_what_it_read_before(
    base: Bundle, new: Path, without_plots: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = train.train(settings_of(base, tmp_path / "tuned", new))
    assert made == bundle.load(tmp_path / "tuned")
    assert made.id != base.id
    assert (made.directory / "finder.keras").read_bytes() == (base.directory / "finder.keras").read_bytes()
    metrics = made.provenance["metrics"]
    assert set(metrics) == {"validation", "held_out"}
    holdout = metrics["held_out"]["count"]
    assert 8 < holdout < 36  # a quarter of 80
    written = json.loads((tmp_path / "tuned" / "metrics.json").read_text())
    assert set(written) == {"validation", "held_out", "validation_before", "held_out_before"}
    before = base.provenance["metrics"]["validation"]
    assert metrics["validation"]["accuracy"] >= before["accuracy"] - finetuning.MOST_LOST
    assert made.provenance["recipe"]["base"] == base.id
    assert made.provenance["recipe"]["data"] == ["mnist"]
    assert set(made.provenance["learnt"]) == {str(new)}
    assert any("held_out: " in said and "right before" in said and f"of {holdout};" in said for said in caplog.messages)
    assert sum(made.calibration.reference) > sum(base.calibration.reference)  # what is held out calibrates too
    again = train.train(settings_of(made, tmp_path / "again", epochs=0))
    assert (again.provenance["recipe"]["base"], again.provenance["images"]) == (made.id, base.provenance["images"])


def test_without_an_epoch_the_weights_stay_and_the_calibration_is_fitted_anew(
    base: Bundle, without_plots: None, tmp_path: Path
) -> None:
    made = train.train(settings_of(base, tmp_path / "same", epochs=0))
    assert made.calibration == base.calibration
    pairs = zip(load_model(made).get_weights(), load_model(base).get_weights(), strict=True)
    assert all((now == before).all() for now, before in pairs)
    assert not (tmp_path / "same" / "learning_curves.png").exists()


def test_new_data_are_parted_and_repeated_and_the_validation_part_is_the_base_s(base: Bundle, new: Path) -> None:
    with pytest.raises(UsageError, match="With --from, --seed is that of the bundle .*: 1998; leave it out"):
        finetuning.inherited(settings_of(base, Path("tuned"), new, seed=5), base)
    settings = finetuning.inherited(settings_of(base, Path("tuned"), new), base)
    assert (settings.seed, settings.arch, settings.validation_share) == (1998, Arch.DENSE, 0.1)
    found = finetuning.fine_tuning_data(settings, base, FINDER)
    _, validation = labelled.split(
        labelled.read("mnist", FINDER, base.normalisation, part="train"), share=0.1, seed=1998
    )
    assert found.validation.names == validation.names
    names = [name for name in found.training.names if not name.startswith("mnist ")]
    assert len(names) == 2 * len(set(names))  # until they are a tenth of 900
    assert len(set(names)) + len(found.holdout) == 80
    assert set(names) & set(found.holdout.names) == set()
    holdout = set(found.holdout.names)
    for path in sorted(new.rglob("*.png"))[::2]:  # fewer images are parted alike
        path.unlink()
    left = finetuning.fine_tuning_data(settings, base, FINDER)
    assert set(left.holdout.names) == holdout & {f"{path.parent.name}/{path.name}" for path in new.rglob("*.png")}


def test_copies_of_an_image_are_on_one_side(base: Bundle, new: Path) -> None:
    for path in list(new.rglob("*.png")):
        shutil.copy(path, path.with_stem(f"{path.stem}-copy"))
    found = finetuning.fine_tuning_data(finetuning.inherited(settings_of(base, Path("tuned"), new), base), base, FINDER)
    assert len(found.holdout) > 0
    assert set(found.holdout.sha256) & set(found.training.sha256) == set()


def test_what_a_model_learnt_from_is_no_part_of_its_audit_sample(base: Bundle) -> None:
    tuned = replace(base, provenance=base.provenance | {"learnt": {"report.csv": {}}})
    assert audit_share(base, 0.005, files=100) == 1.0
    assert audit_share(tuned, 0.005, files=100) == HOLDOUT_SHARE
    assert audit_share(tuned, 0.005, files=100_000) == audit_share(base, 0.005, files=100_000) < HOLDOUT_SHARE


def validation_of(count: int) -> Labelled:
    images, labels = shipped.mnist("train")
    names = [f"mnist train {number}" for number in range(count)]
    return Labelled(
        names, images[:count], np.ones((count, len(INK_MEASURES)), np.float32), labels[:count], [], [""] * count
    )


def test_of_new_weights_so_much_is_kept_as_does_no_harm(base: Bundle) -> None:
    old, model, part = load_model(base), load_model(base), validation_of(500)
    assert finetuning.blend(model, old, part) == 1.0
    noise = np.random.default_rng(1)
    model.set_weights([noise.normal(0, 30, weights.shape) for weights in old.get_weights()])
    assert finetuning.blend(model, old, part) == 0.0
    assert all((now == before).all() for now, before in zip(model.get_weights(), old.get_weights(), strict=True))
    model.set_weights([weights + noise.normal(0, 0.06, weights.shape) for weights in old.get_weights()])
    after = model.get_weights()
    share = finetuning.blend(model, old, part)
    assert share in (0.25, 0.5, 0.75)
    expected = [before + share * (now - before) for before, now in zip(old.get_weights(), after, strict=True)]
    assert all(np.allclose(now, kept) for now, kept in zip(model.get_weights(), expected, strict=True))


def test_what_cannot_go_on_is_refused(base: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="would be overwritten by what comes of it"):
        train.train(settings_of(base, base.directory))
    with pytest.raises(UsageError, match="does not say how it was trained"):
        train.train(settings_of(bundle_in(tmp_path / "other"), tmp_path / "tuned"))
    with pytest.raises(UsageError, match="With --epochs 0 nothing is learnt; give --from"):
        train.train(TrainSettings(tmp_path / "tuned", epochs=0))
    moved = replace(base, normalisation=NormalisationSettings(digit_side=12))
    with pytest.raises(UsageError, match="trained behind another normalisation"):
        finetuning.inherited(settings_of(base, tmp_path / "tuned"), moved)
    gone = replace(base, provenance={"recipe": base.provenance["recipe"] | {"data": ["gone"]}})
    with pytest.raises(StorageError, match=r"gone do not exist.*goes on from these data"):
        finetuning.fine_tuning_data(settings_of(base, tmp_path / "tuned"), gone, FINDER)


def test_an_answered_report_is_labelled_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(local, "can_fork", lambda: True)
    monkeypatch.setattr(networks, "Predictor", FakePredictor)
    monkeypatch.setattr(shared_finder, "InkFinder", FakeInkFinder)
    scans, report = tmp_path / "scans", tmp_path / "report.csv"
    for number in range(5):
        write_png(scans / f"[{number}].png", digits(60)[number])
    write_tiff(scans / "pages.tif", [digits(60)[10], digits(60)[11], digits(60)[12]])
    model = bundle_in(tmp_path / "model").directory
    run = PredictSettings((str(scans),), outputs=(str(report),), model=model, settle_seconds=0)
    pipeline.run(run, stdout=None)  # type: ignore[arg-type]  # nothing goes there
    rows = [line.split(",") for line in report.read_text().splitlines()[1:]]
    lines = ["path,page,sha256,corrected"]
    answers = {("[0].png", "1"): "3", ("[1].png", "1"): "c", ("[2].png", "1"): "5", ("pages.tif", "2"): "8"}
    lines += [f"{row[0]},{row[1]},{row[12]},{answers[row[0], row[1]]}" for row in rows if (row[0], row[1]) in answers]
    (tmp_path / "answers.csv").write_text("\n".join(lines))
    correct(LocalFile(report), tmp_path / "answers.csv", ledger=None, time=datetime.now(UTC))
    write_png(scans / "[2].png", digits(60)[20])  # is no longer what the answer is about
    caplog.set_level(logging.INFO)
    found = labelled.read(str(report), FINDER, NormalisationSettings(), part="train")
    assert sorted(zip((name.rpartition("/")[2] for name in found.names), found.labels.tolist(), strict=True)) == [
        ("[0].png", 3),
        ("pages.tif page 2", 8),
    ]
    assert any("4 answers, of which 1 name no digit and teach nothing, and 1 are" in said for said in caplog.messages)


def test_the_network_of_a_bundle_has_the_architecture_that_it_is_built_anew_with(base: Bundle) -> None:
    shapes = [weights.shape for weights in load_model(base).get_weights()]
    assert [weights.shape for weights in build(Arch.DENSE, folded=True).get_weights()] == shapes

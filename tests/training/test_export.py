"""The export for the fast runtime: made, held against the trained model, or left out."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchdigits.errors import BatchDigitsError
from batchdigits.inference import bundle
from batchdigits.inference.bundle import Bundle, Network
from batchdigits.inference.runtimes import InkFinder, Predictor, start_tensorflow
from batchdigits.inference.thresholds import Calibration
from batchdigits.settings import Arch, NormalisationSettings, Runtime
from batchdigits.training import export
from batchdigits.training.architectures import build, fold
from tests.sample_pages import digits

NOISE = np.random.default_rng(5).integers(0, 256, (300, 28, 28), np.uint8)


def saved(directory: Path, arch: Arch) -> Bundle:
    for runtime in Runtime:
        (directory / Network.FINDER.file(runtime)).write_bytes(b"no finder")
    return bundle.save(
        directory,
        normalisation=NormalisationSettings(),
        calibration=Calibration(1.0, gate=1.0),
        provenance={"arch": arch},
    )


@pytest.fixture(scope="module", params=[Arch.CNN, Arch.DENSE])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An untrained model of each kind, exported."""
    start_tensorflow()
    directory = tmp_path_factory.mktemp("made")
    model = build(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras and TensorFlow about themselves
        export.export(model, directory, Network.READER)
    return saved(directory, request.param)


def test_what_was_exported_gives_the_same_logits(made: Bundle) -> None:
    pixels = np.concatenate([digits(100), NOISE])
    found = []
    for runtime in Runtime:
        with Predictor(made, batch_size=64, runtime=runtime) as predictor:
            found.append(predictor(pixels))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-4)
    export.check(made, pixels)


def test_a_model_that_reads_otherwise_is_found_out(made: Bundle, tmp_path: Path) -> None:
    assert made.is_exported
    other = build(Arch(made.provenance["arch"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.save(tmp_path / "model.keras")
    (tmp_path / "model.tflite").write_bytes((made.directory / "model.tflite").read_bytes())
    with pytest.raises(BatchDigitsError, match=r"does not read like the trained one: \d+ of 100 images as another"):
        export.check(saved(tmp_path, made.provenance["arch"]), digits(100))


@pytest.mark.parametrize("change", [2e-4, 0.0])
def test_probabilities_may_differ_by_a_ten_thousandth(
    made: Bundle, change: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearly(made: Bundle, pixels: Any, runtime: Runtime) -> np.ndarray:
        logits = np.zeros((len(pixels), 12), np.float32)
        logits[:, 3] = 1 + (change * 10 if runtime is Runtime.LITERT else 0)
        return logits

    monkeypatch.setattr(export, "_logits", nearly)
    if change:
        with pytest.raises(BatchDigitsError, match=": 0 of 5 images as another digit, probabilities up to"):
            export.check(made, digits(5))
    else:
        export.check(made, digits(5))


class Saved:
    """A model that can be saved, and no more."""

    def save(self, path: Path) -> None:
        path.write_bytes(b"saved")


@pytest.mark.parametrize("network", list(Network))
def test_without_the_fast_runtime_an_old_export_goes_and_a_warning_says_why(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / network.file(Runtime.LITERT)).write_bytes(b"of an earlier training")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    export.export(Saved(), tmp_path, network)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [network.file(Runtime.KERAS)]
    assert "install batchdigits[litert]" in caplog.text


def test_a_bundle_without_an_export_has_nothing_to_check(made: Bundle) -> None:
    keras = frozenset(name for name in made.files if name.endswith(".keras"))
    export.check(replace(made, files=keras), digits(5))


# ---- the ink finder ------------------------------------------------------------------------------------------------


LOOKS = np.random.default_rng(6).integers(0, 256, (20, 64, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def finder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an untrained finder, exported."""
    start_tensorflow()
    folder = tmp_path_factory.mktemp("finder")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export.export(fold(build(Arch.FINDER), Arch.FINDER), folder, Network.FINDER)
    return folder


def test_an_exported_finder_finds_what_the_trained_one_finds(finder: Path) -> None:
    assert sorted(path.name for path in finder.iterdir()) == ["finder.keras", "finder.tflite"]
    found = []
    for runtime in Runtime:
        with InkFinder(finder, runtime=runtime) as network:
            found.append(network.raw(LOOKS))
    for slow, fast in zip(*found, strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-4)
    export.check_finder(finder, LOOKS)


def test_a_finder_that_finds_other_ink_is_found_out(finder: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fold(build(Arch.FINDER), Arch.FINDER).save(tmp_path / "finder.keras")
    export.check_finder(tmp_path, LOOKS)  # there is nothing to compare with
    (tmp_path / "finder.tflite").write_bytes((finder / "finder.tflite").read_bytes())
    with pytest.raises(BatchDigitsError, match=r"exported finder of .* does not find what the trained one finds: up"):
        export.check_finder(tmp_path, LOOKS)
